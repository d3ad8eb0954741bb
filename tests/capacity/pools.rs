//! NodePools on a real API server: what its schema refuses, what it says of itself, and the labels of its nodes.

use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene};
use crate::support::control_plane::root;
use crate::support::facts::eventually;

pub const POOLS: &str = "/apis/spotkeeper.dev/v1alpha1/nodepools";

/// A pool that can work, with `change` merged into its spec.
pub fn pool(name: &str, change: &Value) -> Value {
    let mut pool = json!({
        "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "NodePool", "metadata": { "name": name },
        "spec": { "template": { "spec": { "nodeClassRef": { "name": "default" } } } },
    });
    merge(&mut pool["spec"], change);
    pool
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            change.iter().for_each(|(key, value)| merge(into.entry(key.clone()).or_insert(Value::Null), value));
        }
        (into, change) => *into = change.clone(),
    }
}

/// The Ready condition of a pool, once it has this status.
pub async fn ready_is(scene: &Scene, name: &str, status: &str) -> Value {
    eventually(&format!("NodePool {name} says Ready={status}"), PATIENCE, async || {
        let pool = scene.cluster.get(&format!("{POOLS}/{name}")).await?;
        let condition = pool["status"]["conditions"][0].clone();
        if condition["status"] == status { Ok(condition) } else { Err(pool.to_string()) }
    })
    .await
}

#[tokio::test]
async fn the_api_server_refuses_what_cannot_work_and_names_the_field() {
    let scene = Scene::new("refused").await;
    let requires = |one: Value| json!({ "template": { "spec": { "requirements": [one] } } });
    let fallback = |one: Value| json!({ "fallback": one });
    for (change, named) in [
        (requires(json!({ "key": "kubernetes.io/arch", "operator": "In" })), "In and NotIn take at least one value"),
        (
            requires(json!({ "key": "a", "operator": "Exists", "values": ["b"] })),
            "Exists and DoesNotExist take no value",
        ),
        (requires(json!({ "key": "a", "operator": "Gt", "values": ["many"] })), "one value, a whole number"),
        (requires(json!({ "key": "a", "operator": "Lt", "values": ["1", "2"] })), "one value, a whole number"),
        (requires(json!({ "key": "a", "operator": "Near", "values": ["1"] })), "operator"),
        (fallback(json!({ "order": [] })), "spec.fallback.order"),
        (fallback(json!({ "order": ["spot", "spot"] })), "names a capacity type twice"),
        (fallback(json!({ "order": ["magic"] })), "spec.fallback.order"),
        (fallback(json!({ "onDemandFloor": -1 })), "spec.fallback.onDemandFloor"),
        (fallback(json!({ "onDemandFloor": "120%" })), "spec.fallback.onDemandFloor"),
        (fallback(json!({ "onDemandFloor": "some" })), "spec.fallback.onDemandFloor"),
        (fallback(json!({ "spotPatience": "soon" })), "spec.fallback.spotPatience"),
        (fallback(json!({ "maxHourlyFallbackCost": "-3" })), "spec.fallback.maxHourlyFallbackCost"),
        (fallback(json!({ "returnToSpot": { "after": "10 minutes" } })), "spec.fallback.returnToSpot.after"),
        (json!({ "limits": { "cpu": "lots" } }), "spec.limits.cpu"),
        (json!({ "limits": { "memory": "-1Gi" } }), "spec.limits.memory"),
        (json!({ "limits": { "nodes": -1 } }), "spec.limits.nodes"),
        (json!({ "weight": 101 }), "spec.weight"),
        (json!({ "interruption": { "rebalance": "Panic" } }), "spec.interruption.rebalance"),
        (
            json!({ "template": { "metadata": { "labels": { "spotkeeper.dev/nodepool": "x" } } } }),
            "labels of spotkeeper.dev/ are spotkeeper's own",
        ),
        (json!({ "template": { "spec": { "taints": [{ "key": "a", "effect": "NoFun" }] } } }), "effect"),
    ] {
        let refused = scene.cluster.send("POST", POOLS, "application/json", &pool("wrong", &change)).await;
        let why = refused.expect_err(&format!("{change} is refused"));
        assert!(why.contains(named), "{change}: {why}");
    }
    for change in [
        json!({ "fallback": { "onDemandFloor": 2, "order": ["spot", "on-demand"] }, "limits": { "cpu": 1000 } }),
        json!({ "fallback": { "onDemandFloor": "20%", "maxHourlyFallbackCost": "12.50" }, "limits": { "memory": "4Ti" } }),
    ] {
        let made = scene.cluster.send("POST", POOLS, "application/json", &pool("right", &change)).await;
        made.unwrap_or_else(|why| panic!("{change}: {why}"));
        scene.cluster.delete(&format!("{POOLS}/right")).await.expect("it can be deleted");
    }
}

#[tokio::test]
async fn an_impossible_pool_says_which_field_and_a_node_beside_it_is_replaced() {
    let scene = Scene::new("impossible").await;
    let unknown = json!({ "key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m99z.large"] });
    let change = json!({ "template": { "spec": { "requirements": [unknown] } } });
    scene.cluster.send("POST", POOLS, "application/json", &pool("impossible", &change)).await.expect("it is made");
    scene.cluster.send("POST", POOLS, "application/json", &pool("classless", &json!({}))).await.expect("it is made");
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let condition = ready_is(&scene, "impossible", "False").await;
    assert_eq!(condition["reason"], "UnknownInstanceType", "{condition}");
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("spec.template.spec.requirements[0].values: EC2 has no instance type m99z.large"));
    let condition = ready_is(&scene, "classless", "False").await;
    assert_eq!(condition["reason"], "NodeClassNotFound", "{condition}");
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["spec"]["nodePool"], Value::Null, "neither can serve: it is copied: {claim}");
    assert_eq!(provisioner.decided("PoolCannotWork"), 2, "each said once");
}

#[tokio::test]
async fn the_node_of_a_stand_in_says_how_it_is_paid_for() {
    let scene = Scene::new("labels").await;
    scene.ec2.plan().dry.insert("spot", "InsufficientInstanceCapacity");
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    let name = claim["status"]["nodeName"].as_str().expect("it has a node").to_owned();
    let object = scene.cluster.get(&format!("/api/v1/nodes/{name}")).await.expect("it is there");
    assert_eq!(object["metadata"]["labels"]["spotkeeper.dev/capacity-type"], "on-demand", "{object}");
}

#[tokio::test]
async fn the_worked_examples_are_taken_by_the_api_server_and_can_work_but_for_their_class() {
    let scene = Scene::new("examples").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    for (file, name) in [("nodepool-mixed", "general"), ("nodepool-gpu", "gpu")] {
        let path = root().join(format!("manifests/examples/{file}.yaml"));
        let text = std::fs::read_to_string(&path).expect("the example is there");
        let example: Value = serde_saphyr::from_str(&text).expect("it is YAML");
        assert_eq!(example["metadata"]["name"], name);
        scene.cluster.send("POST", POOLS, "application/json", &example).await.expect("it is made");
        // Of everything that could be wrong with it only the class is missing here.
        let condition = ready_is(&scene, name, "False").await;
        assert_eq!(condition["reason"], "NodeClassNotFound", "{file}: {condition}");
    }
    let text = std::fs::read_to_string(root().join("manifests/examples/ec2nodeclasses.yaml")).expect("it is there");
    let classes: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    assert_eq!(classes.len(), 2);
    for class in &classes {
        let path = "/apis/spotkeeper.dev/v1alpha1/ec2nodeclasses";
        scene.cluster.send("POST", path, "application/json", class).await.expect("it is made");
    }
    for pool in ["general", "gpu"] {
        // Found now; EC2 here has no such image and no such template.
        eventually("the pool has its class", PATIENCE, async || {
            let pool = scene.cluster.get(&format!("{POOLS}/{pool}")).await?;
            let reason = &pool["status"]["conditions"][0]["reason"];
            if reason == "NodeClassNotReady" { Ok(()) } else { Err(pool.to_string()) }
        })
        .await;
    }
}
