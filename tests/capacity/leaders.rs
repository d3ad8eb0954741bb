//! Two replicas: one leads, the other takes over, and nothing is launched twice.

use std::time::{Duration, Instant};

use crate::scene::{PATIENCE, Scene};
use crate::support::facts::eventually;

#[tokio::test]
async fn a_leader_that_is_killed_in_the_middle_of_a_call_leaves_one_instance() {
    let scene = Scene::new("killed").await;
    let node = scene.node("a").await;
    let mut first = scene.provisioner().await.start().await;
    first.leads().await;
    let second = scene.provisioner().await.start().await;
    scene.ec2.plan().takes = Duration::from_secs(2);
    scene.doom(&node).await;
    eventually("EC2 is being asked", PATIENCE, async || {
        if first.decided("Asking") > 0 { Ok(()) } else { Err(first.process.log_tail()) }
    })
    .await;
    first.process.kill();
    let claim = scene.claim_is(&node, "Ready").await;
    assert!(second.decided("Leads") == 1, "{}", second.process.log_tail());
    scene.settled().await;
    let calls = scene.ec2.calls();
    assert!(calls.iter().all(|call| call.asked == calls[0].asked), "one request, one token: {calls:?}");
    assert_eq!(scene.ec2.launched().len(), 1, "{claim}");
}

#[tokio::test]
async fn an_open_call_whose_record_was_deleted_is_not_made_twice_by_the_next_leader() {
    let scene = Scene::new("unrecorded").await;
    let node = scene.node("a").await;
    let mut first = scene.provisioner().await.start().await;
    first.leads().await;
    let second = scene.provisioner().await.start().await;
    scene.ec2.plan().takes = Duration::from_secs(2);
    scene.doom(&node).await;
    scene.ec2.called(1).await;
    let path = format!("/apis/spotkeeper.dev/v1alpha1/launches/{}-1.1", node.instance);
    scene.cluster.delete(&path).await.expect("it can be deleted");
    first.process.kill();
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(second.decided("Leads"), 1, "{}", second.process.log_tail());
    let calls = scene.ec2.calls();
    assert!(calls.iter().all(|call| call.asked == calls[0].asked), "one request, one token: {calls:?}");
    assert_eq!(scene.ec2.launched().len(), 1, "{claim}");
    scene.launches_removed().await;
}

#[tokio::test]
async fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let scene = Scene::new("handover").await;
    let first = scene.provisioner().await.start().await;
    first.leads().await;
    let second = scene.provisioner().await.start().await;
    assert!(second.metric("spotkeeper_leads ").await < 0.5, "one leads");
    let asked = Instant::now();
    first.process.signal(libc::SIGTERM);
    second.leads().await;
    assert!(asked.elapsed() < Duration::from_secs(8), "the lease of 15 s was not waited for: {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_leader_whose_own_node_is_doomed_lets_the_other_lead_and_its_node_is_replaced() {
    let scene = Scene::new("own").await;
    let node = scene.node("a").await;
    let first = scene.provisioner().await.on(&node).start().await;
    first.leads().await;
    let second = scene.provisioner().await.start().await;
    scene.doom(&node).await;
    second.leads().await;
    scene.claim_is(&node, "Ready").await;
    scene.settled().await;
    assert_eq!(scene.ec2.alive().await.len(), 1);
}

#[tokio::test]
async fn the_next_leader_does_not_try_what_the_last_one_knew_to_be_short() {
    let scene = Scene::new("memory").await;
    scene.ec2.plan().dry.insert("spot", "InsufficientInstanceCapacity");
    let (node, other) = (scene.node("a").await, scene.node("b").await);
    let mut first = scene.provisioner().await.start().await;
    first.leads().await;
    let second = scene.provisioner().await.start().await;
    scene.doom(&node).await;
    scene.claim_is(&node, "Ready").await;
    eventually("what is short is left to the next leader", PATIENCE, async || {
        let map = scene.cluster.get("/api/v1/namespaces/spotkeeper/configmaps/spotkeeper-memory").await?;
        let text = map["data"]["memory.json"].as_str().unwrap_or_default();
        if text.contains("until") { Ok(()) } else { Err(map.to_string()) }
    })
    .await;
    first.process.kill();
    second.leads().await;
    scene.doom(&other).await;
    scene.claim_is(&other, "Ready").await;
    assert_eq!(second.decided("Recalled"), 1, "{}", second.process.log_tail());
    let calls = scene.ec2.calls();
    let spot: Vec<usize> =
        calls.iter().filter(|call| call.asked.market == "spot").map(|call| call.asked.overrides.len()).collect();
    // But for the pool of the first node: it was avoided, and so is not known to be short.
    assert!(spot[0] > 10 && spot[1..].iter().all(|offerings| *offerings <= 1), "{spot:?}");
}
