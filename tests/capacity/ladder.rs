//! From a doomed node to a Ready one in its place.

use crate::scene::{PATIENCE, Scene};
use crate::support::facts::eventually;

#[tokio::test]
async fn a_spot_node_is_replaced_by_spot_and_the_interruption_says_so() {
    let scene = Scene::new("ladder").await;
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["status"]["offering"]["capacityType"], "spot", "{claim}");
    let calls = scene.ec2.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let asked = &calls[0].asked;
    assert_eq!((asked.market.as_str(), asked.count), ("spot", 1));
    assert_eq!(asked.strategy, "price-capacity-optimized");
    assert!(asked.overrides.len() > 10, "{} of arm64, 2 to 4 vCPUs", asked.overrides.len());
    let interruption = scene.cluster.interruption(&node).await;
    let replacement = &interruption["status"]["replacement"];
    assert_eq!(replacement["claim"], format!("{}-1", node.instance), "{interruption}");
    assert_eq!((&replacement["ready"], &replacement["capacityType"]), (&true.into(), &"spot".into()));
    assert_eq!(interruption["status"]["phase"], "Draining", "the rest of the status is the agent's");
    scene.settled().await;
    assert_eq!(scene.ec2.alive().await.len(), 1);
}

#[tokio::test]
async fn on_demand_is_asked_for_at_once_where_spot_has_nothing() {
    let scene = Scene::new("fallback").await;
    scene.ec2.plan().dry.insert("spot", "InsufficientInstanceCapacity");
    let node = scene.node("a").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["status"]["offering"]["capacityType"], "on-demand", "{claim}");
    assert_eq!(scene.ec2.asked_for(), ["spot", "on-demand"]);
    assert_eq!(scene.ec2.alive().await.len(), 1);
    assert!(provisioner.decided("FellThrough") == 1 && provisioner.decided("Short") > 10);
}

/// Acceptance list R6: a quota is of an account, addresses are of a subnet; neither is a pool that has run dry.
#[tokio::test]
async fn r6_quota_and_addresses_are_told_from_the_wire_for_what_they_are() {
    let scene = Scene::new("classes-of-errors").await;
    let (first, second) = (scene.node("a").await, scene.node("b").await);
    let provisioner = scene.provisioner().await.arg("--shortage-belief=10s").start().await;
    provisioner.leads().await;
    scene.ec2.plan().dry.insert("spot", "MaxSpotInstanceCountExceeded");
    scene.doom(&first).await;
    let claim = scene.claim_is(&first, "Ready").await;
    assert_eq!(claim["status"]["offering"]["capacityType"], "on-demand", "{claim}");
    let log = provisioner.process.log();
    assert!(log.contains("the spot quota of") && !log.contains("/spot is short"), "{}", provisioner.process.log_tail());
    // Where no subnet has an address left on-demand has none either.
    let full = "InsufficientFreeAddressesInSubnet";
    scene.ec2.plan().dry = [("spot", full), ("on-demand", full)].into();
    scene.doom(&second).await;
    eventually("it is known that the subnets are full", PATIENCE, async || {
        let log = provisioner.process.log();
        let is = log.lines().any(|line| line.contains("subnet subnet-") && line.contains("InsufficientFreeAddresses"));
        if is { Ok(()) } else { Err(provisioner.process.log_tail()) }
    })
    .await;
    scene.ec2.plan().dry.clear();
    scene.claim_is(&second, "Ready").await;
    assert_eq!(scene.ec2.launched().len(), 2, "one each");
}
