//! EC2 as the third witness of a notice, and nodes that it takes while nobody hears of it.

use std::time::Duration;

use serde_json::Value;

use crate::departures::no_node;
use crate::scene::{PATIENCE, Scene};
use crate::support::agent::Agent;
use crate::support::cluster::NodeHandle;
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::objects::a_pod;
use crate::support::provisioner::Provisioner;

/// What the record has of the provisioner.
async fn seen(scene: &Scene, node: &NodeHandle) -> Option<Value> {
    let record = scene.cluster.interruption(node).await;
    let notices = record["spec"]["notices"].as_array().cloned().unwrap_or_default();
    notices.into_iter().find(|entry| entry["source"] == "provisioner")
}

#[tokio::test]
async fn a_warning_by_the_queue_alone_that_imds_denies_is_drained_for_when_ec2_has_marked_it() {
    let scene = Scene::new("witness").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    scene.cluster.create(&a_pod("free").on(&node.name).grace(2)).await;
    scene.cluster.running(&node, 1).await;
    let queue = scene.moto.queue(30, 10).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let mut agent = Agent::on(&scene.cluster, &node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in scene.moto.env() {
        agent = agent.env(key, &value);
    }
    let agent = agent.start().await;
    scene.moto.spot_warning(&node.instance, "terminate").await;
    scene.cluster.phase(&node, "Noticed", PATIENCE).await;
    // EC2 is looked at, and has not marked it: nothing is done to the node.
    eventually("EC2 was asked twice", PATIENCE, async || {
        let asked = provisioner.metric("spotkeeper_ec2_requests_total{action=\"DescribeSpotInstanceRequests\"").await;
        if asked >= 2.0 { Ok(()) } else { Err(format!("{asked} times")) }
    })
    .await;
    assert_eq!(agent.decided("Confirmed"), 0, "{}", agent.process.log_tail());
    assert_eq!(scene.cluster.interruption(&node).await["status"]["phase"], "Noticed");
    scene.ec2.plan().marked.insert(node.instance.clone(), "marked-for-termination");
    let record = scene.cluster.phase(&node, "Drained", PATIENCE).await;
    let entry = seen(&scene, &node).await.unwrap_or_else(|| panic!("EC2 has said so: {record}"));
    let told = record["spec"]["notices"].as_array().and_then(|all| all.iter().find(|one| one["source"] == "sqs"));
    let told = told.unwrap_or_else(|| panic!("the queue has told of it: {record}"));
    for field in ["kind", "eventID", "action", "deadline"] {
        assert_eq!(entry[field], told[field], "{field}: {record}");
    }
    assert!(agent.process.log().contains("the provisioner saw it in EC2"), "{}", agent.process.log_tail());
    scene.claim_is(&node, "Ready").await;
}

#[tokio::test]
async fn an_instance_that_somebody_has_ended_bears_no_warning_out_and_is_not_replaced() {
    let scene = Scene::new("shut").await;
    let (told, untold) = (scene.node("a").await, scene.node("b").await);
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.notice_by_queue(&told, "StateChange", Some("shutting-down")).await;
    scene.ec2.shut(&told.instance).await;
    scene.ec2.shut(&untold.instance).await;
    eventually("EC2 was asked five times", PATIENCE, async || {
        let asked = provisioner.metric("spotkeeper_ec2_requests_total{action=\"DescribeSpotInstanceRequests\"").await;
        if asked >= 5.0 { Ok(()) } else { Err(format!("{asked} times")) }
    })
    .await;
    assert_eq!(seen(&scene, &told).await, None);
    assert!(scene.claim(&told).await.is_null() && scene.claim(&untold).await.is_null());
    assert!(scene.cluster.interruption(&untold).await.is_null(), "nobody speaks of it");
    assert_eq!(provisioner.decided("TakenUnheard") + provisioner.decided("SeenInEC2"), 0);
}

#[tokio::test]
async fn a_node_that_is_taken_while_nobody_hears_of_it_is_written_down_and_replaced_once() {
    let scene = Scene::new("unheard").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.ec2.terminate(&node.instance).await;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["spec"]["replaces"]["instanceID"], node.instance, "{claim}");
    let record = scene.cluster.phase(&node, "Gone", PATIENCE).await;
    assert_eq!(record["status"]["kind"], "StateChange", "{record}");
    assert_eq!(record["status"]["settled"][0], "provisioner/StateChange/ended@", "{record}");
    no_node(&scene, &node).await;
    assert_eq!(provisioner.decided("TakenUnheard"), 1, "{}", provisioner.process.log_tail());
    assert_eq!(scene.ec2.launched().len(), 1, "once");
}

#[tokio::test]
async fn a_node_that_went_before_ec2_was_asked_is_replaced_too() {
    let scene = Scene::new("went").await;
    let node = scene.node("a").await;
    // With the pace that is shipped: half a minute.
    let provisioner = Provisioner::of(&scene.cluster, &scene.moto, &scene.ec2).await.start().await;
    provisioner.leads().await;
    scene.ec2.terminate(&node.instance).await;
    // As a cloud controller does it.
    scene.cluster.delete(&format!("/api/v1/nodes/{}", node.name)).await.expect("it can be deleted");
    scene.claim_is(&node, "Ready").await;
    scene.cluster.phase(&node, "Gone", PATIENCE).await;
}

#[tokio::test]
async fn where_spot_requests_may_not_be_seen_it_is_said_and_the_state_still_counts() {
    let scene = Scene::new("unseen").await;
    let node = scene.node("a").await;
    scene.ec2.plan().forbids.insert("DescribeSpotInstanceRequests");
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.notice_by_queue(&node, "SpotInterruption", Some("terminate")).await;
    eventually("it is not ready, and says why", PATIENCE, async || {
        let (status, body) = provisioner.admin("/readyz").await?;
        let named = body.contains("ec2:DescribeSpotInstanceRequests") && body.contains("provisioner-policy.json");
        if status == 503 && named { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
    scene.ec2.plan().taken.insert(node.instance.clone(), "Server.SpotInstanceTermination");
    scene.ec2.shut(&node.instance).await;
    eventually("what EC2 says is in the record", Duration::from_secs(60), async || {
        seen(&scene, &node).await.ok_or_else(|| provisioner.process.log_tail())
    })
    .await;
}
