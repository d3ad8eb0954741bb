//! One thing changed in a cluster, and what becomes of it.

use serde_json::json;

use super::{NODE, cluster, codes, find, finding, items, planned, pod, said};

#[test]
fn a_budget_that_never_allows_is_asked_as_long_as_the_grace_fits() {
    for (rule, expected) in [
        (json!({"maxUnavailable": 0}), "maxUnavailable: 0 never lets a pod go"),
        (json!({"maxUnavailable": "0%"}), "maxUnavailable: 0% never lets a pod go"),
        (json!({"minAvailable": 4}), "minAvailable: 4 of 4 never lets a pod go"),
        (json!({"minAvailable": "100%"}), "minAvailable: 100% of 4 never lets a pod go"),
    ] {
        let mut quiet = cluster("quiet.json");
        let budget = find(&mut quiet, "PodDisruptionBudget", "web");
        budget["spec"] = rule;
        budget["spec"]["selector"] = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]});
        // A status of an older spec says nothing of this one.
        budget["metadata"]["generation"] = json!(2);
        let plan = planned(&quiet, &["--nodes", NODE]);
        let found = finding(&plan, "budget-never-allows");
        assert!(found["what"].as_str().unwrap().starts_with(expected), "{found:#}");
        let web = pod(&plan, "shop/web");
        assert_eq!((&web["askedBy"], &web["end"]), (&json!("deleted"), &json!("in-time")), "{web:#}");
        // 120 s, less 5 s of margin, less 30 s of its own.
        let until = web["refusedUntilMs"].as_u64().unwrap();
        assert!((83_000..=85_100).contains(&until), "{until}");
    }
}

#[test]
fn a_percentage_is_of_the_pods_that_are_expected() {
    let mut quiet = cluster("quiet.json");
    let budget = find(&mut quiet, "PodDisruptionBudget", "web");
    budget["spec"] = json!({"minAvailable": "51%", "selector": {"matchLabels": {"app": "web"}}});
    budget["metadata"]["generation"] = json!(2);
    // 51 % of 4 are 3: one at a time.
    let plan = planned(&quiet, &["--all-spot"]);
    assert_eq!(codes(&plan), [""; 0], "{plan:#}");
    let note = finding(&plan, "blocked-for-a-while");
    assert_eq!(note["object"], "PodDisruptionBudget shop/web");
}

#[test]
fn a_budget_whose_pods_are_missing_already_has_nothing_to_give() {
    let mut quiet = cluster("quiet.json");
    let name = "web-7d9c6bf5f4-qm9rl";
    find(&mut quiet, "Pod", name)["status"]["conditions"][0]["status"] = json!("False");
    let plan = planned(&quiet, &["--nodes", NODE]);
    let found = finding(&plan, "budget-overridden");
    assert!(found["what"].as_str().unwrap().contains("1 of its 4 pods are not Ready"), "{found:#}");
}

#[test]
fn a_pod_that_is_not_ready_goes_past_its_budget_only_where_that_says_so() {
    let of = |policy: &str| {
        let mut quiet = cluster("quiet.json");
        find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq")["status"]["conditions"][0]["status"] = json!("False");
        find(&mut quiet, "Pod", "web-7d9c6bf5f4-qm9rl")["status"]["conditions"][0]["status"] = json!("False");
        find(&mut quiet, "PodDisruptionBudget", "web")["spec"]["unhealthyPodEvictionPolicy"] = json!(policy);
        planned(&quiet, &["--nodes", NODE])
    };
    assert_eq!(pod(&of("AlwaysAllow"), "shop/web")["refusals"], 0);
    assert_eq!(pod(&of("IfHealthyBudget"), "shop/web")["askedBy"], "deleted");
}

#[test]
fn a_grace_that_does_not_fit_is_told_in_seconds() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq")["spec"]["terminationGracePeriodSeconds"] = json!(200);
    let plan = planned(&quiet, &["--nodes", NODE, "--margin", "20s"]);
    let found = finding(&plan, "grace-too-long");
    assert_eq!(found["object"], "Deployment shop/web");
    let web = pod(&plan, "shop/web");
    // 120 s less 20 s, less what it takes to ask.
    let granted = web["grantedSecs"].as_u64().unwrap();
    assert!((97..=100).contains(&granted), "{web:#}");
    assert_eq!(web["shortBySecs"].as_u64(), Some(200 - granted));
    assert!(found["change"].as_str().unwrap().contains(&format!("terminationGracePeriodSeconds: {granted}")));
}

#[test]
fn a_second_that_a_budget_costs_is_the_budgets_to_change() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "PodDisruptionBudget", "web")["spec"] =
        json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}});
    find(&mut quiet, "PodDisruptionBudget", "web")["metadata"]["generation"] = json!(2);
    let web = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq").clone();
    // More than are asked at a time: some are asked a moment late.
    for number in 0..80 {
        let mut pod = web.clone();
        pod["metadata"]["name"] = json!(format!("web-{number:02}"));
        items(&mut quiet).push(pod);
    }
    let plan = planned(&quiet, &["--nodes", NODE]);
    let short = plan["pods"].as_array().unwrap().iter().filter(|pod| pod["shortBySecs"] == 1).count();
    assert!(short > 0, "none is asked late");
    assert!(!codes(&plan).contains(&"grace-too-long"), "{plan:#}");
    finding(&plan, "budget-never-allows");
}

#[test]
fn a_volume_keeps_the_replacement_in_its_zone() {
    let plan = planned(&cluster("shop.json"), &["--nodes", NODE]);
    assert_eq!(pod(&plan, "shop/db-0")["keptIn"], json!(["eu-west-1a"]));
    let requests = plan["nodes"][0]["replacement"]["requests"].as_array().unwrap();
    assert!(!requests.is_empty() && requests.iter().all(|one| one["zones"] == json!(["eu-west-1a"])), "{requests:#?}");
    // What its pool's class has no subnet for cannot be launched.
    let mut shop = cluster("shop.json");
    find(&mut shop, "EC2NodeClass", "default")["status"]["subnets"] = json!([{"id": "subnet-1", "zone": "eu-west-1b"}]);
    let plan = planned(&shop, &["--nodes", NODE]);
    assert_eq!(finding(&plan, "no-replacement")["object"], "NodePool general", "{plan:#}");
}

#[test]
fn a_disk_of_the_node_is_lost_with_it() {
    let mut shop = cluster("shop.json");
    find(&mut shop, "PersistentVolume", "pvc-11112222")["spec"]["nodeAffinity"]["required"] = json!({"nodeSelectorTerms":
        [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]}]});
    let plan = planned(&shop, &["--nodes", NODE]);
    assert_eq!(finding(&plan, "local-volume")["object"], "StatefulSet shop/db");
    assert!(pod(&plan, "shop/db-0")["readyAgainMs"].is_null());
}

#[test]
fn where_spot_has_run_out_on_demand_is_asked_for_at_once() {
    let plan = planned(&cluster("quiet.json"), &["--all-spot", "--without-spot"]);
    assert_eq!(plan["capacity"]["byCapacityType"], json!({"on-demand": 3}));
    for node in plan["nodes"].as_array().unwrap() {
        let asked = node["replacement"]["askedMs"]["on-demand"].as_u64().unwrap();
        assert!(asked < 10_000, "{node:#}");
    }
    // A pool that asks for spot alone waits, and that is a finding.
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "NodePool", "general")["spec"]["fallback"] = json!({"order": ["spot"]});
    let plan = planned(&quiet, &["--all-spot", "--without-spot"]);
    assert_eq!(finding(&plan, "no-replacement")["object"], "NodePool general");
    assert_eq!(plan["capacity"]["ready"], 0);
}

#[test]
fn a_pool_or_a_class_that_cannot_work_is_named_with_its_field() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "NodePool", "general")["spec"]["interruption"] = json!({"margin": "2m"});
    let plan = planned(&quiet, &["--nodes", NODE]);
    let found = finding(&plan, "pool-cannot-work");
    assert!(found["change"].as_str().unwrap().starts_with("spec.interruption.margin"), "{found:#}");
    let mut quiet = cluster("quiet.json");
    let ready = &mut find(&mut quiet, "EC2NodeClass", "default")["status"]["conditions"][0];
    (ready["status"], ready["message"]) = (json!("False"), json!("spec.subnetSelectorTerms: no subnet has these tags"));
    let plan = planned(&quiet, &["--nodes", NODE]);
    assert_eq!(finding(&plan, "class-cannot-launch")["what"], "spec.subnetSelectorTerms: no subnet has these tags");
}

#[test]
fn a_node_of_karpenters_is_left_to_it() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "Node", NODE)["metadata"]["labels"] = json!({"karpenter.sh/nodepool": "default",
        "karpenter.sh/capacity-type": "spot", "node.kubernetes.io/instance-type": "m7g.xlarge",
        "topology.kubernetes.io/zone": "eu-west-1a", "kubernetes.io/arch": "arm64"});
    let plan = planned(&quiet, &["--nodes", NODE]);
    assert_eq!(finding(&plan, "left-to-karpenter")["nodes"], json!([NODE]));
    assert_eq!((codes(&plan).len(), &plan["capacity"]["wanted"]), (0, &json!(0)), "{plan:#}");
}

#[test]
fn a_node_without_a_pool_is_copied_and_one_on_demand_is_planned_as_spot() {
    let node = "ip-10-0-3-31.eu-west-1.compute.internal";
    let plan = planned(&cluster("quiet.json"), &["--nodes", node]);
    assert_eq!(finding(&plan, "not-spot")["nodes"], json!([node]));
    let request = &plan["nodes"][0]["replacement"]["requests"][0];
    assert_eq!(request["capacityType"], "spot", "{request:#}");
    let types: Vec<&str> =
        request["instanceTypes"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert!(types.contains(&"m7g.large"), "{types:?}");
}

#[test]
fn a_pod_goes_only_where_its_selector_and_the_taints_let_it() {
    // The other nodes keep it off, so that it waits for what comes in the place of its own.
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq")["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": NODE});
    let plan = planned(&quiet, &["--nodes", NODE]);
    let web = pod(&plan, "shop/web");
    let ready = plan["nodes"][0]["replacement"]["readyMs"].as_u64().unwrap();
    assert!(web["readyAgainMs"].as_u64().unwrap() > ready, "{web:#}");
    let mut tainted = cluster("quiet.json");
    for item in items(&mut tainted).iter_mut().filter(|item| item["kind"] == "Node" && item["metadata"]["name"] != NODE)
    {
        item["spec"]["taints"] = json!([{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]);
    }
    let plan = planned(&tainted, &["--nodes", NODE]);
    assert!(pod(&plan, "shop/web")["readyAgainMs"].as_u64().unwrap() > 40_000);
}

#[test]
fn a_pod_without_room_anywhere_is_told() {
    let mut quiet = cluster("quiet.json");
    let pod = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq");
    pod["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "64", "memory": "1Gi"});
    let plan = planned(&quiet, &["--nodes", NODE]);
    assert_eq!(finding(&plan, "not-ready-again")["object"], "Deployment shop/web");
    // Memory counts as CPU does.
    let mut quiet = cluster("quiet.json");
    let pod = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq");
    pod["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "1", "memory": "900Gi"});
    assert_eq!(codes(&planned(&quiet, &["--nodes", NODE])), ["not-ready-again"]);
}

#[test]
fn of_many_nodes_those_are_told_that_something_is_wrong_with() {
    let mut quiet = cluster("quiet.json");
    let (node, web) = (find(&mut quiet, "Node", NODE).clone(), find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq").clone());
    for number in 0..40 {
        let (mut node, mut pod) = (node.clone(), web.clone());
        let name = format!("node-{number:02}");
        (node["metadata"]["name"], pod["spec"]["nodeName"]) = (json!(name), json!(name));
        node["spec"]["providerID"] = json!(format!("aws:///eu-west-1a/i-0e{number:015x}"));
        pod["metadata"]["name"] = json!(format!("many-{number:02}"));
        pod["metadata"]["labels"] = json!({"app": "many"});
        if number == 37 {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(300);
        }
        items(&mut quiet).extend([node, pod]);
    }
    let output = super::plan_of(quiet.to_string().as_bytes(), &["--zone", "eu-west-1a"]);
    let told = said(&output);
    assert!(told.contains("\n  node-37  ") && told.contains("30 more nodes: --output json has all"), "{told}");
    assert!(told.lines().count() < 150, "{told}");
    let plan = planned(&quiet, &["--zone", "eu-west-1a"]);
    assert_eq!((plan["nodes"].as_array().unwrap().len(), &plan["capacity"]["ready"]), (42, &json!(42)));
}

#[test]
fn amounts_and_nodes_that_nobody_knows_are_gaps() {
    let mut quiet = cluster("quiet.json");
    let web = find(&mut quiet, "Pod", "web-7d9c6bf5f4-4k2vq");
    web["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("half a core");
    find(&mut quiet, "Pod", "web-7d9c6bf5f4-8xw7n")["spec"]["nodeName"] = json!("elsewhere");
    find(&mut quiet, "PodDisruptionBudget", "web")["spec"]["selector"]["matchExpressions"] =
        json!([{"key": "app", "operator": "Resembles", "values": ["web"]}]);
    let output = super::plan_of(quiet.to_string().as_bytes(), &["--nodes", NODE]);
    assert_eq!(output.status.code(), Some(65));
    for named in ["`half a core` is not a quantity", "Node elsewhere", "Resembles"] {
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
    }
    let plan = planned(&quiet, &["--nodes", NODE, "--allow-incomplete"]);
    assert_eq!(plan["gaps"].as_array().unwrap().len(), 3, "{plan:#}");
}

#[test]
fn types_that_the_cluster_does_not_have_are_asked_for_with_their_file() {
    let mut quiet = cluster("quiet.json");
    find(&mut quiet, "NodePool", "general")["spec"]["template"]["spec"]["requirements"] =
        json!([{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["t4g.xlarge"]}]);
    let output = super::plan_of(quiet.to_string().as_bytes(), &["--nodes", NODE]);
    assert_eq!(output.status.code(), Some(65), "{}", said(&output));
    assert!(said(&output).contains("--instance-types"), "{}", said(&output));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("types.json");
    let types = json!({"InstanceTypes": [{"InstanceType": "t4g.xlarge", "BareMetal": false, "VCpuInfo":
        {"DefaultVCpus": 4}, "MemoryInfo": {"SizeInMiB": 16384}, "ProcessorInfo": {"SupportedArchitectures": ["arm64"]}}]});
    std::fs::write(&file, types.to_string()).unwrap();
    let plan = planned(&quiet, &["--nodes", NODE, "--instance-types", file.to_str().unwrap()]);
    let request = &plan["nodes"][0]["replacement"]["requests"][0];
    assert_eq!(request["instanceTypes"][0]["name"], "t4g.xlarge", "{plan:#}");
}
