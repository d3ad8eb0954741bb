//! The shipped rights of the provisioner are enough, and none is too many: in Kubernetes and in EC2.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::departures::no_node;
use crate::pools::{POOLS, pool, ready_is};
use crate::scene::{PATIENCE, Scene};
use crate::support::control_plane::root;
use crate::support::facts::eventually;
use crate::support::objects::{a_budget, a_pod};
use crate::support::rights::none_is_too_many;

/// The EC2 actions that the shipped IAM policy allows.
fn allowed() -> BTreeSet<String> {
    let policy = std::fs::read_to_string(root().join("manifests/aws/provisioner-policy.json")).expect("it is shipped");
    let policy: Value = serde_json::from_str(&policy).expect("it is JSON");
    let statements = policy["Statement"].as_array().expect("statements").iter();
    let actions = statements.flat_map(|one| match &one["Action"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    });
    actions.filter_map(|one| Some(one.as_str()?.strip_prefix("ec2:")?.to_owned())).collect()
}

#[tokio::test]
async fn every_right_of_the_provisioner_is_needed_and_every_call_is_allowed() {
    let scene = Scene::new("rights").await;
    let node = scene.node("a").await;
    // What it is made of is read ahead.
    scene.ec2.plain_node(&scene.cluster, "plain", "join", 8, &[]).await;
    // Reservations are read from when a NodePool has them on its ladder, as by default; moto knows none, and says so.
    let provisioner = scene.provisioner().await.arg("--keep-interruptions=0").arg("--template-grace=10s").start().await;
    provisioner.leads().await;
    scene.class("rights", &scene.inline_class().await).await.expect("it is valid");
    let class = scene.class_is("rights", "True", "").await;
    // One that cannot serve any node, and says so.
    let nowhere = json!({ "template": { "spec": { "nodeClassRef": { "name": "nowhere" } } } });
    scene.cluster.send("POST", POOLS, "application/json", &pool("rights", &nowhere)).await.expect("it is made");
    ready_is(&scene, "rights", "False").await;
    scene.doom(&node).await;
    scene.claim_is(&node, "Ready").await;
    scene.settled().await;
    // A request of ours that nobody wants any more is taken back.
    let stand_in = scene.ec2.launched()[0].clone();
    scene.request(&stand_in, "return-to-spot").await;
    eventually("the request is taken back", PATIENCE, async || {
        let record = scene.cluster.interruption(&stand_in).await;
        let notices = record["spec"]["notices"].as_array().map_or(0, Vec::len);
        if notices == 0 { Ok(()) } else { Err(record.to_string()) }
    })
    .await;
    // AWS takes the instance: its Node goes. Its record, which is over then, is one too many as soon as nobody stands in
    // for it any more.
    scene.ec2.terminate(&node.instance).await;
    no_node(&scene, &node).await;
    scene.patch_status(&node, &json!({ "status": { "phase": "Gone" } })).await;
    let record = format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{}", stand_in.instance);
    scene.cluster.delete(&record).await.expect("it can be deleted, so that the next request makes another");
    // A person deletes the claim: its node is drained, its instance is ended, and the claim goes.
    let path = format!("/apis/spotkeeper.dev/v1alpha1/nodeclaims/{}-1", node.instance);
    scene.cluster.delete(&path).await.expect("it can be deleted");
    scene.cordons(&stand_in, "claim-deleted").await;
    scene.gone(&node).await;
    eventually("the record is collected", PATIENCE, async || {
        let record = scene.cluster.interruption(&node).await;
        if record.is_null() { Ok(()) } else { Err(record.to_string()) }
    })
    .await;
    a_drain_is_taken_over(&scene).await;
    assert_eq!(scene.ec2.alive().await.len(), 0, "its instance was ended");
    // One that has found nothing yet when its announcement is withdrawn is deleted by the provisioner.
    let other = scene.node("b").await;
    scene.ec2.plan().refuses = Some("InvalidLaunchTemplateId.NotFound");
    scene.doom(&other).await;
    scene.ec2.called(2).await;
    scene.settled().await;
    scene.patch_status(&other, &json!({ "status": { "phase": "Cancelled" } })).await;
    scene.gone(&other).await;
    scene.ec2.plan().refuses = None;
    // What the queue alone says EC2 is asked about.
    let warned = scene.node("d").await;
    scene.notice_by_queue(&warned, "SpotInterruption", Some("terminate")).await;
    eventually("EC2 is asked about the warning", PATIENCE, async || {
        let asked = scene.ec2.actions().contains("DescribeSpotInstanceRequests");
        if asked { Ok(()) } else { Err(provisioner.process.log_tail()) }
    })
    .await;
    let path = "/apis/spotkeeper.dev/v1alpha1/ec2nodeclasses/rights";
    scene.cluster.delete(path).await.expect("it is deleted");
    scene.launches_removed().await;
    scene.template_gone(class["status"]["launchTemplate"]["name"].as_str().expect("a template")).await;
    let actions = scene.ec2.actions();
    assert_eq!(scene.ec2.denied(), Vec::<String>::new());
    drop(provisioner);
    none_is_too_many(scene.cluster.plane, "manifests/overlays/full", "spotkeeper-provisioner").await;
    let allowed = allowed();
    let used: Vec<&String> = actions.iter().filter(|action| !lab_only(action)).collect();
    assert!(used.iter().all(|action| allowed.contains(*action)), "{used:?} of {allowed:?}");
    // EC2 asks for these two itself, on behalf of CreateFleet.
    let on_behalf = ["RunInstances", "CreateTags"];
    let idle: Vec<&String> =
        allowed.iter().filter(|action| !actions.contains(*action) && !on_behalf.contains(&action.as_str())).collect();
    assert!(idle.is_empty(), "allowed and never asked for: {idle:?}");
}

/// A node whose agent has left it to the provisioner: one pod is evicted, and one deleted at its latest start.
async fn a_drain_is_taken_over(scene: &Scene) {
    let node = scene.node("c").await;
    scene.cluster.create(&a_pod("free").on(&node.name).grace(1)).await;
    scene.cluster.create(&a_pod("held").on(&node.name).grace(1)).await;
    scene.cluster.create(&a_budget("held", "held")).await;
    scene.cluster.running(&node, 2).await;
    scene.cluster.budget_is_kept("held").await;
    scene.leaves_the_drain(&node, Duration::from_secs(22)).await;
    let record = scene.cluster.phase(&node, "Drained", Duration::from_secs(40)).await;
    assert_eq!(record["status"]["pods"]["deleted"], 1, "{record}");
}

/// What only the tests ask moto for does not come through here.
fn lab_only(action: &str) -> bool {
    action.is_empty()
}
