use super::*;

/// As `kubectl get … -o json` prints them, with what it adds.
fn records() -> Value {
    let offering = |capacity: &str, name: &str, zone: &str| serde_json::json!({"capacityType": capacity, "instanceType": name, "zone": zone});
    let recipe = serde_json::json!({
        "launchTemplate": "lt-1", "launchTemplateVersion": "3",
        "subnets": [{"id": "subnet-1", "zone": "eu-west-1a"}],
    });
    serde_json::json!({
        "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""},
        "items": [
            {
                "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Launch",
                "metadata": {"name": "i-00000001-1.1", "uid": "u-1", "creationTimestamp": "2026-04-24T17:10:00Z"},
                "spec": {
                    "claims": [{"name": "i-00000001-1", "uid": "c-1"}], "capacityType": "spot", "count": 1,
                    "recipe": recipe,
                    "overrides": [
                        {"instanceType": "m7g.large", "subnetID": "subnet-1", "zone": "eu-west-1a"},
                        {"instanceType": "m7g.large", "subnetID": "subnet-2", "zone": "eu-west-1a"},
                    ],
                },
                "status": {
                    "outcome": "Nothing", "answeredAt": "2026-04-24T17:10:02Z",
                    "because": "0 came; InsufficientInstanceCapacity: there is no Spot capacity: none",
                },
            },
            {
                "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Launch",
                "metadata": {"name": "i-00000001-1.2"},
                "spec": {
                    "claims": [{"name": "i-00000001-1", "uid": "c-1"}], "capacityType": "spot", "count": 1,
                    "recipe": recipe,
                    "overrides": [{"instanceType": "m5.large", "subnetID": "subnet-1", "zone": "eu-west-1a"}],
                },
                "status": {
                    "outcome": "Nothing", "answeredAt": "2026-04-24T17:10:03Z",
                    "because": "UnauthorizedOperation: you are not authorized; that is no word about capacity: none",
                },
            },
            {
                "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "NodeClaim",
                "metadata": {"name": "i-00000001-1"},
                "spec": {"order": ["spot", "on-demand"], "recipe": recipe},
                "status": {
                    "phase": "Ready", "instanceID": "i-00000009", "launchedAt": "2026-04-24T17:20:00Z",
                    "offering": offering("spot", "m6g.large", "eu-west-1a"),
                },
            },
            {
                "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "NodeClaim",
                "metadata": {"name": "i-00000002-1"},
                "spec": {"order": ["spot", "on-demand"], "recipe": recipe},
                "status": {
                    "phase": "Ready", "instanceID": "i-0000000a", "launchedAt": "2026-04-24T17:20:00Z",
                    "offering": offering("on-demand", "m6g.large", "eu-west-1b"),
                },
            },
            {
                "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "default-x"},
                "spec": {"nodeClassRef": {"name": "default"}}, "status": {"providerID": "aws:///eu-west-1a/i-1"},
            },
            interruption("i-00000009", "SpotInterruption", "Gone", "2026-04-24T18:00:00Z"),
            interruption("i-0000000b", "SpotInterruption", "Draining", "2026-04-24T18:30:00Z"),
            interruption("i-0000000b", "ScheduledChange", "Draining", "2026-04-24T18:35:00Z"),
            interruption("i-0000000b", "SpotInterruption", "Refuted", "2026-04-24T18:36:00Z"),
            interruption("i-0000000f", "SpotInterruption", "Gone", "2026-04-24T18:37:00Z"),
            {
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "ip-10-0-0-1", "labels": {
                    "node.kubernetes.io/instance-type": "c7g.large", "topology.kubernetes.io/zone": "eu-west-1c",
                }},
                "spec": {"providerID": "aws:///eu-west-1c/i-0000000b"},
            },
        ],
    })
}

fn interruption(instance: &str, kind: &str, phase: &str, at: &str) -> Value {
    serde_json::json!({
        "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "metadata": {"name": instance},
        "spec": {"instanceID": instance, "providerID": format!("aws:///eu-west-1a/{instance}"), "nodeName": "n"},
        "status": {"episode": 1, "phase": phase, "kind": kind, "timeline": {"noticedAt": at}, "heartbeat": 4},
    })
}

fn imported(texts: &[String]) -> Imported {
    let mut records = Records::default();
    texts.iter().for_each(|text| records.read(text).expect("they can be read"));
    records.imported()
}

#[test]
fn what_gave_capacity_what_did_not_and_what_was_interrupted_becomes_a_trace() {
    let found = imported(&[records().to_string()]);
    let rows: Vec<&str> = found.table.lines().skip(2).collect();
    assert_eq!(
        rows,
        [
            "2026-04-24T17:10:02Z,m7g.large,eu-west-1a,false",
            "2026-04-24T17:20:00Z,m6g.large,eu-west-1a,true",
            "2026-04-24T18:00:00Z,m6g.large,eu-west-1a,false",
            "2026-04-24T18:30:00Z,c7g.large,eu-west-1c,false",
        ]
    );
    assert_eq!(found.points, 4);
    assert!(found.notes[0].starts_with("1 spot interruptions are left out"), "{:?}", found.notes);
    assert!(found.notes[1].starts_with("1 records are left out"), "{:?}", found.notes);
    let table = crate::cli::trace::table::read(&found.table).expect("a rehearsal takes it");
    assert_eq!(table.pools.len(), 3);
}

/// EC2 does not try all pools of a call, and the record keeps the first of its errors: what the leader remembers names them.
#[test]
fn a_launch_of_several_pools_that_gave_nothing_tells_of_those_alone_that_ec2_named() {
    let mut launch = records()["items"][0].clone();
    launch["spec"]["overrides"][1]["instanceType"] = "m6g.large".into();
    let found = imported(&[launch.to_string()]);
    assert_eq!(found.points, 0);
    assert!(found.notes[0].starts_with("1 launches that asked for several pools"), "{:?}", found.notes);
    assert!(found.notes[0].contains("configmap spotkeeper-memory"), "{:?}", found.notes);
    let offering = |capacity: &str, name: &str| serde_json::json!({"capacityType": capacity, "instanceType": name, "zone": "eu-west-1a"});
    let remembers = serde_json::json!({
        "at": "2026-04-24T17:10:05Z", "looksSince": "2026-04-24T17:00:00Z",
        "short": [
            {"what": {"offering": offering("spot", "m6g.large")}, "until": "2026-04-24T17:13:09.452Z", "seconds": 180},
            {"what": {"offering": offering("on-demand", "m6g.large")}, "until": "2026-04-24T17:13:20Z", "seconds": 180},
            {"what": {"subnet": "subnet-1"}, "until": "2026-04-24T17:13:20Z", "seconds": 180},
        ],
        "trouble": [
            // That it gave nothing may have been for want of a quota or an address.
            {"pool": offering("spot", "r6g.large"), "gaveNothingAt": "2026-04-24T17:10:02Z"},
            {"pool": offering("spot", "c6g.large"), "interruptedAt": "2026-04-24T17:05:00Z"},
        ],
    });
    let memory = |text: String| {
        let data = serde_json::json!({"memory.json": text});
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "spotkeeper-memory"}, "data": data})
    };
    let found = imported(&[launch.to_string(), memory(remembers.to_string()).to_string()]);
    let rows: Vec<&str> = found.table.lines().skip(2).collect();
    // A belief of 180 s lasts up to a tenth longer, by the offering: it began when EC2 answered.
    let expected =
        ["2026-04-24T17:05:00Z,c6g.large,eu-west-1a,false", "2026-04-24T17:10:02Z,m6g.large,eu-west-1a,false"];
    assert_eq!(rows, expected);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let unreadable = Records::default().read(&memory("{".to_owned()).to_string()).expect_err("half an object");
    assert!(unreadable.starts_with("ConfigMap spotkeeper-memory: data.memory.json: "), "{unreadable}");
}

#[test]
fn the_same_records_in_two_files_say_nothing_new_and_the_order_of_files_does_not_matter() {
    let whole = records();
    let items = whole["items"].as_array().expect("a list");
    let half = |items: &[Value]| serde_json::json!({"kind": "List", "items": items}).to_string();
    let (first, second) = (half(&items[..5]), half(&items[3..]));
    let once = imported(&[whole.to_string()]);
    assert_eq!(imported(&[first.clone(), second.clone()]).table, once.table);
    assert_eq!(imported(&[second, first]).table, once.table);
    assert_eq!(imported(&[items[2].to_string()]).points, 1, "one record without a list is taken, too");
}

#[test]
fn what_is_no_record_is_refused_by_name() {
    let refused = |text: &str| Records::default().read(text).expect_err(text);
    assert!(refused("kind: List").contains("no JSON"));
    assert!(refused(r#"{"items": 3}"#).contains("`items` is no list"));
    assert!(refused(r#"{"items": [3]}"#).starts_with("items[0]: it is no object"));
    assert!(refused(r#"{"items": [{"a": 3}]}"#).starts_with("items[0]: missing field `kind`"));
    assert!(refused("").contains("it is empty"));
    assert!(refused(r#"{"kind": "Status", "message": "launches is forbidden"}"#).contains("launches is forbidden"));
    let mut launch = records()["items"][0].clone();
    launch["spec"]["overrides"][1]["zone"] = 7.into();
    assert!(refused(&launch.to_string()).starts_with("Launch i-00000001-1.1: spec.overrides[1].zone: "));
    // Somebody else's of the same name, a list of nothing, and two texts one after the other.
    let others =
        r#"{"kind": "List", "items": null} {"kind": "Launch", "apiVersion": "rockets.example/v1", "spec": {}}"#;
    assert_eq!(Records::default().read(others), Ok(()));
    let wrong = interruption("i-00000009", "SpotInterruption", "Sleeping", "2026-04-24T18:00:00Z");
    assert!(
        refused(&wrong.to_string()).contains("Interruption i-00000009: status.phase: "),
        "{}",
        refused(&wrong.to_string())
    );
}

/// Records with a part cut out or put in: read, or refused, never a panic.
#[test]
fn no_records_make_it_panic() {
    let whole: Vec<char> = records().to_string().chars().collect();
    let bits = ["null", "{}", "\"", "-1", "i-00000009", "\"spot\"", "0001-01-01T00:00:00Z", "[", "}"];
    for seed in 0..3_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut text = whole.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(0..text.len());
            let end = (at + rng.usize(0..12)).min(text.len());
            drop(text.splice(at..end, bits[rng.usize(..bits.len())].chars()));
        }
        let mut records = Records::default();
        let _ = records.read(&text.into_iter().collect::<String>());
        let found = records.imported();
        assert_eq!(found.table.lines().count(), found.points + 2);
    }
}
