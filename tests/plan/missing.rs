//! Parts of a cluster that are not there, cannot be read, or that the API server did not give.

use serde_json::{Value, json};

use super::{NODE, cluster, codes, find, finding, items, plan_of, planned, pod, said};

/// What it says of a cluster that is not complete.
#[track_caller]
fn gaps(cluster: &Value) -> String {
    let output = plan_of(cluster.to_string().as_bytes(), &["--nodes", NODE]);
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    said(&output)
}

#[test]
fn what_the_api_server_refused_is_a_gap_with_its_words() {
    let quiet = cluster("quiet.json").to_string();
    let refused = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
        "message": "poddisruptionbudgets.policy is forbidden: User \"ci\" cannot list resource"});
    let output = plan_of(format!("{quiet}\n{refused}").as_bytes(), &["--all-spot"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(said(&output).contains("standard input: the API server did not give what was asked of it: poddis"));
}

#[test]
fn a_cluster_without_budgets_is_planned_and_that_is_said_where_it_may_be_a_gap() {
    let mut quiet = cluster("quiet.json");
    items(&mut quiet).retain(|item| item["kind"] != "PodDisruptionBudget");
    let plan = planned(&quiet, &["--all-spot"]);
    assert_eq!(codes(&plan), [""; 0], "{plan:#}");
    assert!(finding(&plan, "no-budgets")["change"].as_str().unwrap().contains("kubectl get pdb -A"));
    // An empty list says that there are none.
    let stream =
        format!("{quiet}{}", json!({"kind": "PodDisruptionBudgetList", "apiVersion": "policy/v1", "items": null}));
    let output = plan_of(stream.as_bytes(), &["--all-spot"]);
    assert!(output.status.success() && !said(&output).contains("PodDisruptionBudgets"), "{}", said(&output));
}

#[test]
fn an_object_that_cannot_be_read_is_named_with_its_field() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq")["spec"]["terminationGracePeriodSeconds"] = json!("soon");
    find(&mut quiet, "PodDisruptionBudget", "web")["spec"]["maxUnavailable"] = json!([1]);
    items(&mut quiet).push(json!({"apiVersion": "v1"}));
    items(&mut quiet).push(json!("a text"));
    let told = gaps(&quiet);
    for named in [
        "Pod shop/web-7d9c6bf5f4-4k2vq cannot be read (spec.terminationGracePeriodSeconds: invalid type",
        "PodDisruptionBudget shop/web cannot be read (spec.maxUnavailable: a number or a text is expected",
        "of the List has no `kind`: it is left out",
    ] {
        assert!(told.contains(named), "{named}: {told}");
    }
    assert_eq!(told.matches("has no `kind`").count(), 2, "{told}");
}

#[test]
fn a_pool_that_cannot_be_read_is_not_said_to_be_missing_too() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "NodePool", "general")["spec"]["fallback"] = json!({"order": ["spot", "mars"]});
    let told = gaps(&quiet);
    assert!(told.contains("NodePool general cannot be read (spec.fallback.order[1]: unknown variant `mars`"), "{told}");
    assert!(!told.contains("is not in it"), "{told}");
    items(&mut quiet).retain(|item| item["kind"] != "NodePool");
    let told = gaps(&quiet);
    assert_eq!(told.matches("NodePool general, which nodes").count(), 1, "once for all of its nodes: {told}");
}

#[test]
fn a_node_that_says_nothing_of_its_size_is_a_gap() {
    let mut quiet = cluster("quiet.json");
    let status = find(&mut quiet, "Node", NODE)["status"].as_object_mut().unwrap();
    status.remove("capacity");
    status.remove("allocatable");
    assert!(gaps(&quiet).contains(&format!("Node {NODE} does not say its CPU and memory")));
}

#[test]
fn of_many_gaps_the_first_are_listed_and_pods_of_one_node_are_one() {
    let mut quiet = cluster("quiet.json");
    let web = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq").clone();
    for number in 0..60 {
        let mut pod = web.clone();
        pod["metadata"]["name"] = json!(format!("web-{number}"));
        pod["spec"]["nodeName"] = json!(format!("gone-{}", number % 30));
        items(&mut quiet).push(pod);
    }
    let told = gaps(&quiet);
    assert!(told.contains("Node gone-0, which Pod shop/web-0 and 1 more run on, is not in it"), "{told}");
    assert!(told.contains("\n  and 10 more") && told.matches("is not in it").count() == 20, "{told}");
    let output = plan_of(quiet.to_string().as_bytes(), &["--nodes", NODE, "--allow-incomplete"]);
    assert!(said(&output).contains("and 10 more: --output json has all"), "{}", said(&output));
    let plan = planned(&quiet, &["--nodes", NODE, "--allow-incomplete"]);
    assert_eq!(plan["gaps"].as_array().unwrap().len(), 30);
}

#[test]
fn what_says_where_a_pod_may_go_and_is_not_weighed_is_named_by_its_field() {
    let mut quiet = cluster("quiet.json");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let web = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq");
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}});
    web["spec"]["affinity"] = json!({
        "podAntiAffinity": {required: [term("kubernetes.io/hostname")],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term("a")}]},
        "podAffinity": {required: [term("topology.kubernetes.io/zone")]},
    });
    web["spec"]["topologySpreadConstraints"] = json!([
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"},
        {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"},
    ]);
    let plan = planned(&quiet, &["--nodes", NODE]);
    let fields = [
        format!("affinity.podAffinity.{required}[0]"),
        format!("affinity.podAntiAffinity.{required}[0]"),
        "topologySpreadConstraints[1]".to_owned(),
    ];
    assert_eq!(pod(&plan, "shop/web")["notWeighed"], json!(fields.each_ref().map(|field| format!("spec.{field}"))));
    let note = finding(&plan, "not-weighed");
    assert_eq!(note["object"], "Deployment shop/web");
    for field in fields {
        assert!(note["what"].as_str().unwrap().contains(&format!("spec.template.spec.{field} (")), "{field}: {note:#}");
    }
    // It is to be known, and nothing to be changed.
    assert_eq!(codes(&plan), [""; 0], "{plan:#}");
    assert_eq!(pod(&planned(&cluster("quiet.json"), &["--nodes", NODE]), "shop/web")["notWeighed"], json!([]));
}
