//! What EC2 and the network do to a replacement on its way.

use std::time::Duration;

use serde_json::json;

use crate::scene::{PATIENCE, Scene};
use crate::support::facts::eventually;

#[tokio::test]
async fn an_answer_that_is_lost_after_success_is_asked_for_again_with_the_same_token() {
    let scene = Scene::new("lost").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.ec2.plan().loses = 1;
    scene.doom(&node).await;
    scene.claim_is(&node, "Ready").await;
    let calls = scene.ec2.calls();
    assert!(calls.len() >= 2, "{calls:?}");
    assert!(calls.iter().all(|call| call.asked == calls[0].asked), "{calls:?}");
    assert_eq!(scene.ec2.launched().len(), 1);
    assert_eq!(provisioner.decided("UnknownOutcome"), 1);
}

#[tokio::test]
async fn a_throttled_call_is_paced_and_no_shortage() {
    let scene = Scene::new("throttled").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.ec2.plan().refuses = Some("RequestLimitExceeded");
    scene.doom(&node).await;
    scene.ec2.called(2).await;
    scene.ec2.plan().refuses = None;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["status"]["offering"]["capacityType"], "spot", "{claim}");
    assert_eq!(provisioner.decided("Short"), 0);
    assert!(provisioner.decided("Throttled") > 0);
}

#[tokio::test]
async fn a_missing_permission_is_said_with_its_name_and_is_no_loop() {
    let scene = Scene::new("denied").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.ec2.plan().forbids.insert("CreateFleet");
    scene.doom(&node).await;
    let claim = eventually("the claim says what is wrong", PATIENCE, async || {
        let claim = scene.claim(&node).await;
        let because = claim["status"]["because"].as_str().unwrap_or_default().to_owned();
        if because.contains("UnauthorizedOperation") { Ok(claim) } else { Err(claim.to_string()) }
    })
    .await;
    let asked = provisioner.metric("spotkeeper_ec2_requests_total{action=\"CreateFleet\",result=\"refused\"}").await;
    assert!(asked <= 2.0, "{asked} calls: {claim}");
    let (status, body) = provisioner.admin("/readyz").await.unwrap();
    assert!(status == 503 && body.contains("ec2:CreateFleet"), "{status}: {body}");
    scene.ec2.plan().forbids.clear();
    assert_eq!(scene.ec2.launched().len(), 0);
}

#[tokio::test]
async fn without_the_right_to_describe_it_is_not_ready_and_names_the_action() {
    let scene = Scene::new("blind").await;
    scene.ec2.plan().forbids.insert("DescribeInstanceTypes");
    let provisioner = scene.provisioner().await.spawn();
    eventually("it says what it lacks", PATIENCE, async || {
        let (status, body) = provisioner.admin("/readyz").await?;
        let named = body.contains("ec2:DescribeInstanceTypes") && body.contains("provisioner-policy.json");
        if status == 503 && named { Ok(()) } else { Err(body) }
    })
    .await;
    scene.ec2.plan().forbids.clear();
    provisioner.ready().await;
}

#[tokio::test]
async fn an_instance_that_never_becomes_a_node_is_ended_and_another_is_launched() {
    let scene = Scene::new("silent").await;
    let node = scene.node("a").await;
    scene.ec2.plan().boots = None;
    let provisioner = scene.provisioner().await.arg("--registration-timeout=30s").start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    scene.claim_is(&node, "Launched").await;
    scene.ec2.plan().boots = Some(Duration::from_millis(200));
    eventually("the first is given up", Duration::from_secs(60), async || {
        if provisioner.decided("NeverRegistered") == 1 { Ok(()) } else { Err(provisioner.process.log_tail()) }
    })
    .await;
    scene.claim_is(&node, "Ready").await;
    assert_eq!((scene.ec2.launched().len(), scene.ec2.alive().await.len()), (2, 1));
}

/// Acceptance list F9: whoever edits a claim finds it put right; what it launched stays, and nothing is launched for it
/// again.
#[tokio::test]
async fn f9_a_claim_that_is_edited_by_hand_is_put_right_and_nothing_is_launched_twice() {
    let scene = Scene::new("edited").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    scene.settled().await;
    let path = format!("/apis/spotkeeper.dev/v1alpha1/nodeclaims/{}-1", node.instance);
    // What it asks for cannot be changed, and a phase that there is not is refused: both say which field.
    let spec = json!({ "spec": { "order": ["on-demand"] } });
    let refused = scene.cluster.send("PATCH", &path, "application/merge-patch+json", &spec).await;
    assert!(refused.is_err_and(|why| why.contains("spec is immutable")));
    let status_path = format!("{path}/status");
    let nonsense = json!({ "status": { "phase": "Lost" } });
    let refused = scene.cluster.send("PATCH", &status_path, "application/merge-patch+json", &nonsense).await;
    assert!(refused.is_err_and(|why| why.contains("status.phase")));
    // It has lost its instance, says somebody; that it never had one; that it waits.
    let edited = json!({ "status": { "phase": "Pending", "instanceID": null, "nodeName": null, "offering": null } });
    scene.cluster.send("PATCH", &status_path, "application/merge-patch+json", &edited).await.expect("it is written");
    eventually("the claim is put right", PATIENCE, async || {
        let seen = scene.claim(&node).await;
        let same = ["phase", "instanceID", "nodeName"].iter().all(|of| seen["status"][*of] == claim["status"][*of]);
        if same { Ok(()) } else { Err(seen["status"].to_string()) }
    })
    .await;
    // Whoever leads after such an edit has the instance by its tag, or ends it: one lives in the end, and a claim names it.
    drop(provisioner);
    scene.cluster.send("PATCH", &status_path, "application/merge-patch+json", &edited).await.expect("it is written");
    let next = scene.provisioner().await.arg("--leak-grace=60s").start().await;
    next.leads().await;
    let claim = scene.claim_is(&node, "Ready").await;
    eventually("one instance lives, the claim's", 4 * PATIENCE, async || {
        let alive: Vec<String> = scene.ec2.alive().await.into_iter().map(|node| node.instance).collect();
        let named = claim["status"]["instanceID"].as_str().unwrap_or_default();
        if alive == [named] { Ok(()) } else { Err(format!("{alive:?}, {claim}")) }
    })
    .await;
}
