//! The command `spotkeeper rehearse`: what is shipped, what it says, and what it makes of mistakes.

use std::path::Path;
use std::process::{Command, Output};

use spotkeeper::cli::{scenario, shipped};

fn rehearse(args: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_spotkeeper")).arg("rehearse").args(args).output();
    command.expect("the binary is built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is UTF-8")
}

#[test]
fn every_shipped_scenario_holds_every_invariant() {
    let judged = |(name, text): &(&str, &str)| {
        let scenario = scenario::read(name, text).unwrap_or_else(|mistake| panic!("{name}: {mistake}"));
        let outcome = scenario.judge().outcome;
        assert!(outcome.findings.is_empty(), "{name}: {:?}", outcome.findings);
        let launched = outcome.calls.instances_launched > 0;
        assert!(launched && outcome.work.events > 1_000, "{name}: a rehearsal in which nothing happens proves nothing");
    };
    let (even, odd): (Vec<_>, Vec<_>) = shipped::ALL.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    std::thread::scope(|scope| {
        for half in [even, odd] {
            scope.spawn(move || half.into_iter().for_each(|(_, one)| judged(one)));
        }
    });
}

#[test]
fn the_list_names_what_is_shipped_and_says_what_it_is() {
    let output = rehearse(&["--list"]);
    let list = text(&output.stdout);
    assert_eq!(list.lines().count(), shipped::ALL.len());
    for (line, (name, _)) in list.lines().zip(shipped::ALL) {
        assert!(line.starts_with(name) && line.len() > 40, "{line}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_another_story() {
    let of = |seed: &str| rehearse(&["gpu-training", "--seed", seed]).stdout;
    let (first, again, other) = (of("7"), of("7"), of("8"));
    assert!(first == again && first != other && first.len() > 2_000);
    let told = text(&first);
    for words in ["time to capacity", "pod-seconds", "killed hard", "launch calls", "all on-demand $", "all held"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn many_seeds_are_summed_up_and_json_has_one_line_for_each() {
    let output = rehearse(&["single-notice", "--seeds", "5"]);
    assert!(text(&output.stdout).contains("5 seeds: 5 of 5 nodes replaced"), "{output:?}");
    let output = rehearse(&["single-notice", "--seeds", "3", "--seed", "10", "--output", "json"]);
    let seeds: Vec<u64> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
        .map(|outcome| outcome["seed"].as_u64().expect("a seed"))
        .collect();
    assert_eq!(seeds, [10, 11, 12]);
}

#[test]
fn a_page_is_written_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("page.html");
    let output = rehearse(&["single-notice", "--html", file.to_str().expect("UTF-8")]);
    assert!(output.status.success());
    assert!(std::fs::read_to_string(&file).expect("it is there").contains("<title>Rehearsal</title>"));
    let nowhere = rehearse(&["single-notice", "--html", "/nowhere/page.html"]);
    assert_eq!(nowhere.status.code(), Some(74));
    assert!(text(&nowhere.stderr).contains("--html /nowhere/page.html"));
}

/// The comparison of a shipped scenario as JSON, by policy.
fn compared(args: &[&str]) -> std::collections::BTreeMap<String, serde_json::Value> {
    let output = rehearse(&[args, &["--against", "cluster-autoscaler,karpenter,handler", "--output", "json"]].concat());
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let columns = outcome["comparison"].as_array().expect("a comparison").clone();
    columns.into_iter().map(|one| (one["policy"].as_str().expect("a name").to_owned(), one)).collect()
}

#[test]
fn tiers_starve_a_model_of_cluster_autoscaler_and_not_ours() {
    let minutes = |of: &serde_json::Value| of["firstOnDemandMs"].as_f64().map(|ms| ms / 60_000.0);
    // 48 groups: never. Of two the table of L1 says 97 minutes; of eight whose failures are seen within two, 50.
    for (set, expected) in [
        (&["tier-starvation"][..], None),
        (&["tier-starvation", "--autoscaler-groups", "2"], Some(97.0)),
        (&["tier-starvation", "--autoscaler-groups", "8", "--autoscaler-notices", "2m"], Some(50.0)),
    ] {
        let columns = compared(set);
        let autoscaler = minutes(&columns["cluster-autoscaler"]);
        let near = |(said, table): (f64, f64)| (said - table).abs() <= 1.0;
        assert!(autoscaler.is_some() == expected.is_some() && autoscaler.zip(expected).is_none_or(near), "{set:?}");
        let ours = &columns["spotkeeper"];
        assert!(minutes(ours).is_some_and(|minutes| minutes < 0.1) && ours["missingNodeMs"] == 0, "{ours}");
        assert_eq!((&columns["handler"]["served"], &columns["handler"]["launchCalls"]), (&0.into(), &0.into()));
    }
}

#[test]
fn a_comparison_is_labelled_and_what_it_cannot_say_has_a_reason() {
    let columns = compared(&["spot-outage"]);
    for (policy, column) in &columns {
        assert_eq!(column["doomed"], 12, "all see the same notices");
        assert_eq!(column["model"], *policy != "spotkeeper", "{policy}");
        for field in ["unavailablePodMs", "cost"] {
            let said = column[field].is_number();
            assert!(said != column["unsaid"][field].is_string(), "{policy}: {field}: {column}");
        }
    }
    let output = rehearse(&["single-notice", "--against", "karpenter,handler", "--seeds", "3"]);
    let told = text(&output.stdout);
    for words in ["medians of 3 worlds", "karpenter (model)", "3 of 3", "0 of 3", "never", "leaves out consolidation"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let page = dir.path().join("page.html");
    rehearse(&["single-notice", "--against", "karpenter", "--html", page.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(page).expect("it is there");
    assert!(page.contains("karpenter (model)") && page.contains("capacity missing"));
}

/// A scenario with this in the place of its steps.
fn with(rest: &str) -> String {
    format!("description: a test\nduration: 5m\nnodes: [{{count: 3}}]\n{rest}\n")
}

/// A scenario with a NodePool of which this is said.
fn pool(says: &str) -> String {
    with(&format!("nodePools: [{{name: general, {says}}}]"))
}

#[test]
fn a_mistake_is_named_with_its_place_and_what_was_expected() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.yaml");
    let interrupts = |nodes: &str| with(&format!("steps:\n- {{at: 5s, do: {{interrupt: {{nodes: {nodes}}}}}}}"));
    for (yaml, expected) in [
        (with("stepz: []"), "line 4, column 1: unknown field `stepz`, expected one of description, duration"),
        (with("cloud: {boot: -5s}"), "line 4, column 15: `-5s` is not a duration; write it like 500ms, 5s, 10m or 1h"),
        (interrupts("{zone: eu-west-9z}"), "there is no zone `eu-west-9z`; there are eu-west-1a, eu-west-1b"),
        (interrupts("everything"), "line 5, column"),
        (
            with("steps:\n- {at: 5s, do: {pools: {capacityType: spot, instanceType: m9z.large, left: 0}}}"),
            "line 5, column 59: there is no instance type `m9z.large`; there are m7g.2xlarge",
        ),
        (with("workloads: [{name: web, kind: Deployment, replicas: 2}]"), "`web`: write it as namespace/name"),
        (with("workloads: [{name: a/b, kind: Provisioner, replicas: 2}]"), "the provisioner is there already"),
        (with("cloud: {zones: [a, a]}"), "cloud.zones: at least one, none twice"),
        (
            with("steps:\n- {at: 1s, do: noFaults, repeat: {every: 0s, times: 3}}"),
            "line 5, column 42: a step is repeated",
        ),
        (with("steps:\n- {at: 1s, do: {refuse: {capacityType: spot, code: Nonsense}}}"), "`Nonsense` is no error code"),
        (with("steps:\n- {at: 1s, do: {killProvisioner: {replica: 7, down: 1s}}}"), "there is no replica 7"),
        (pool("limits: {nodez: 3}"), "line 4, column 38: unknown field `nodez`, expected one of cpu, memory, nodes"),
        (pool("limits: {cpu: -4}"), "line 4, column 43: NodePool general: limits.cpu: `-4`"),
        (
            pool("fallback: {onDemandFloor: some}"),
            "line 4, column 55: NodePool general: fallback.onDemandFloor: `some`",
        ),
        (
            pool("fallback: {order: [spot, spot]}"),
            "line 4, column 47: NodePool general: fallback.order: names spot twice",
        ),
        (pool("fallback: {spotPatience: soon}"), "line 4, column 54: NodePool general: fallback.spotPatience: `soon`"),
        (pool("fallback: {maxHourlyFallbackCost: $3}"), "line 4, column 63: NodePool general: fallback.maxHourly"),
        (
            pool("fallback: {returnToSpot: {surge: -1}}"),
            "line 4, column 62: NodePool general: fallback.returnToSpot.surge",
        ),
        (
            pool("interruption: {margin: 90s}"),
            "line 4, column 52: NodePool general: interruption.margin: more than 60s",
        ),
        (
            pool("requirements: [{key: kubernetes.io/arch, operator: In, values: [riscv64]}]"),
            "line 4, column 44: NodePool general: requirements[0]: nothing that EC2 offers here meets it",
        ),
        (with("nodePools: [{name: a}, {name: a}]"), "line 4, column 31: `a`: every NodePool has a name of its own"),
        (with("workloads: [{name: a/b, kind: Pod, replicas: 1, nodePool: gpu}]"), "there is no NodePool `gpu`"),
        (
            with("cloud: {reservations: [{instanceType: m9z.large, zone: eu-west-1a, left: 1}]}"),
            "line 4, column 39: there",
        ),
        ("description: a test\nduration: 5m\nnodes: []".into(), "nodes: 0 in all; 1 to 20000"),
        ("description: [".into(), "line 1"),
    ] {
        std::fs::write(&file, &yaml).expect("it can be written");
        let output = rehearse(&[file.to_str().expect("UTF-8")]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{yaml}\n{said}");
        assert!(said.contains("mine.yaml: ") && said.contains(expected), "{yaml}\n{said}");
    }
}

#[test]
fn a_command_line_that_cannot_be_used_is_refused_with_64() {
    for args in [
        &["no-such-scenario"][..],
        &[],
        &["single-notice", "--seeds", "0"],
        &["single-notice", "--output", "pdf"],
        &["single-notice", "--against", "spotkeeper"],
        &["single-notice", "--autoscaler-groups", "2"],
        &["single-notice", "--against", "karpenter", "--autoscaler-notices", "0s"],
    ] {
        let output = rehearse(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn any_text_is_a_scenario_or_a_mistake() {
    bolero::check!().with_type::<String>().for_each(|text: &String| drop(scenario::read("fuzzed", text)));
    // Near misses: a good one with one byte changed.
    let (name, good) = shipped::ALL[2];
    bolero::check!().with_type::<(u16, u8)>().for_each(|(at, byte): &(u16, u8)| {
        let mut bytes = good.as_bytes().to_vec();
        let at = usize::from(*at) % bytes.len();
        bytes[at] = *byte;
        if let Ok(text) = String::from_utf8(bytes) {
            drop(scenario::read(name, &text));
        }
    });
}

#[test]
fn the_page_of_the_docs_has_every_word_of_a_scenario() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rehearse.md");
    let docs = std::fs::read_to_string(docs).expect("it is there");
    for (name, _) in shipped::ALL {
        assert!(docs.contains(&format!("`{name}`")), "docs/rehearse.md does not mention {name}");
    }
    for (_, column) in compared(&["single-notice"]) {
        for (field, _) in column.as_object().expect("an object") {
            assert!(docs.contains(&format!("`{field}`")), "docs/rehearse.md does not mention {field}");
        }
    }
    // What the reader expects where it meets a word that it does not know is every word there is.
    let nonsense = "{nonsense: 1}";
    for place in ["nonsense: 1", "cloud: {nonsense: 1}", "settings: {nonsense: 1}", "faults: {nonsense: 1}"] {
        expected_words(&with(place), &docs);
    }
    for place in ["limits", "fallback", "interruption"] {
        expected_words(&pool(&format!("{place}: {nonsense}")), &docs);
    }
    expected_words(&pool("fallback: {returnToSpot: {nonsense: 1}}"), &docs);
    expected_words(&with("cloud: {reservations: [{nonsense: 1}]}"), &docs);
    expected_words(&with("cloud: {instanceTypes: [{nonsense: 1}]}"), &docs);
    for place in ["workloads", "steps", "nodePools"] {
        expected_words(&with(&format!("{place}: [{nonsense}]")), &docs);
    }
    expected_words(&with(&format!("steps: [{{at: 1s, do: {nonsense}}}]")), &docs);
    expected_words(&with(&format!("steps: [{{at: 1s, do: {{rebalance: {{nodes: {nonsense}}}}}}}]")), &docs);
    let example = docs.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(scenario::read("example", example).expect("it is valid").judge().outcome.findings.is_empty());
}

#[track_caller]
fn expected_words(yaml: &str, docs: &str) {
    let mistake = scenario::read("probe", yaml).expect_err("it is nonsense").to_string();
    let (_, words) = mistake.split_once("expected one of ").unwrap_or_else(|| panic!("{mistake}"));
    for word in words.split(", ").map(|word| word.trim_matches(['`', ' '])) {
        assert!(docs.contains(&format!("`{word}`")), "docs/rehearse.md does not mention `{word}`");
    }
}

#[test]
fn a_trace_beside_the_scenario_is_followed_and_its_mistakes_are_named_by_both_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    let (scenario, table) = (dir.path().join("s.yaml"), dir.path().join("t.csv"));
    let yaml = "description: x\nduration: 1h\ncloud:\n  trace: {file: t.csv}\nnodes: [{count: 3}]\n";
    std::fs::write(&scenario, yaml).expect("it can be written");
    let run = |rows: &str| {
        std::fs::write(&table, format!("instance_type,zone,from,until\n{rows}")).expect("it can be written");
        rehearse(&[scenario.to_str().expect("UTF-8"), "--output", "json"])
    };
    for (rows, named) in [
        ("m7g.2xlarge,eu-west-1a,0s,soon\n", "line 4, column 17: t.csv, line 2, column 27: `soon` is no time"),
        ("m9.large,eu-west-1a,0s,10m\n", "t.csv, line 2: m9.large@eu-west-1a: the scenario has the instance types m7g"),
        ("m7g.2xlarge,mars-1a,0s,10m\n", "mars-1a: the scenario has the zones eu-west-1a"),
    ] {
        let output = run(rows);
        assert!(output.status.code() == Some(64) && text(&output.stderr).contains(named), "{output:?}");
    }
    let output = run("m7g.2xlarge,eu-west-1a,0s,10m\nm7g.2xlarge,eu-west-1a,20m,2h\n");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(outcome["capacity"]["ready"], 1, "the node of the pool that ran dry is replaced");
    let pools = outcome["timelines"]["pools"].as_array().expect("a list");
    let dry = |pool: &&serde_json::Value| pool["truth"].as_array().is_some_and(|truth| truth.len() == 3);
    assert_eq!(pools.iter().filter(dry).count(), 1);
    std::fs::remove_file(&table).expect("it is there");
    let output = rehearse(&[scenario.to_str().expect("UTF-8")]);
    assert!(text(&output.stderr).contains("t.csv: No such file"), "{output:?}");
}

#[test]
fn so_many_times_a_scenario_has_so_many_times_its_nodes() {
    let output = rehearse(&["zone-storm", "--times", "3", "--output", "json"]);
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(outcome["capacity"]["ready"], 18, "a third of 54 nodes is in the zone that is taken");
    let output = rehearse(&["thousand-nodes", "--times", "21"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--times 21: nodes: 21000 in all"), "{output:?}");
}
