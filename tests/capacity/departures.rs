//! Nodes that go: drained before they are ended; let go when their instances have ended.

use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene};
use crate::support::cluster::NodeHandle;
use crate::support::facts::eventually;

/// Waits until the Node is not there any more.
pub async fn no_node(scene: &Scene, node: &NodeHandle) {
    eventually(&format!("Node {} is gone", node.name), PATIENCE, async || {
        let seen = scene.cluster.node_json(node).await;
        if seen.is_null() { Ok(()) } else { Err(seen["spec"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn f11_volumes_of_a_node_that_has_ended_are_let_go_before_it_goes() {
    let scene = Scene::new("gone").await;
    let node = scene.node("a").await;
    let name = format!("{}-volume", scene.cluster.namespace);
    let attachment = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": { "name": name },
        "spec": { "attacher": "lab.spotkeeper.dev", "nodeName": node.name,
            "source": { "persistentVolumeName": name } },
    });
    let path = "/apis/storage.k8s.io/v1/volumeattachments";
    scene.cluster.send("POST", path, "application/json", &attachment).await.expect("it is made");
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    scene.claim_is(&node, "Ready").await;
    scene.ec2.terminate(&node.instance).await;
    eventually("the node is out of service", PATIENCE, async || {
        let spec = scene.cluster.node_json(&node).await["spec"].clone();
        let taints = spec["taints"].as_array().cloned().unwrap_or_default();
        let out = |taint: &Value| {
            taint["key"] == "node.kubernetes.io/out-of-service"
                && taint["value"] == "nodeshutdown"
                && taint["effect"] == "NoExecute"
        };
        if taints.iter().any(out) { Ok(()) } else { Err(spec.to_string()) }
    })
    .await;
    assert!(!scene.cluster.node_json(&node).await.is_null(), "a volume is attached to it");
    scene.cluster.delete(&format!("{path}/{name}")).await.expect("it is detached");
    no_node(&scene, &node).await;
}
