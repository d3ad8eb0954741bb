//! Stand-ins that are late: taken before they are Ready, never Ready, joining after they were given up (acceptance list
//! F3, F16); and claims that cannot be read (F9).

use std::time::Duration;

use spotkeeper::api::node_claim::{ClaimPhase, NodeClaimStatus};
use spotkeeper::domain::notice::InstanceId;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::{Effect, Input, NodeView};
use spotkeeper::sim::supply::scenario::{Step, a_cluster};

use super::leader::{Leader, claim, id, offering, seen};
use super::worlds::{MINUTE, holds};

/// Its own claim asks for another; a second claim for the same loss would leave two nodes where one was.
#[test]
fn f3_a_stand_in_that_is_taken_before_it_is_ready_is_replaced_once() {
    for seed in 0..20 {
        // It has joined by then, and its devices register only after it is gone.
        let mut supply = a_cluster(1).at(2_000, Step::Doom { node: 0 }).at(80_000, Step::DoomStandIn);
        (supply.seed, supply.settles_ms) = (seed, Some(240_000));
        let report = holds(supply.at(90_000, Step::KillLeader { down_ms: 5_000 }).until(30 * MINUTE));
        let told = || format!("seed {seed}: {}", report.told());
        assert_eq!((report.figures.launched, report.figures.ready), (2, 1), "{}", told());
        let wanted = report.story.iter().filter(|line| line.contains("another node is wanted in its place")).count();
        assert_eq!(wanted, 1, "{}", told());
        assert!(report.says("its own claim"), "the record of the stand-in says who serves it: {}", told());
    }
}

#[test]
fn f16_a_node_whose_devices_never_register_is_given_up_and_after_two_its_recipe() {
    let mut supply = a_cluster(1).at(2_000, Step::Doom { node: 0 });
    supply.settles_ms = Some(24 * 60 * MINUTE);
    let report = holds(supply.until(90 * MINUTE));
    assert_eq!(report.figures.launched, 2, "{}", report.told());
    assert!(report.says("was not Ready, with its startup taints gone"), "{}", report.told());
    assert!(report.says("never became a Ready node"), "{}", report.told());
}

fn launched(instance: &InstanceId) -> NodeClaimStatus {
    NodeClaimStatus {
        phase: Some(ClaimPhase::Launched),
        instance_id: Some(instance.clone()),
        offering: Some(offering(spotkeeper::domain::offering::CapacityType::Spot)),
        ..NodeClaimStatus::default()
    }
}

fn node(busy: bool) -> NodeView {
    NodeView {
        name: "n".into(),
        uid: "n".into(),
        instance: Some(id(1)),
        provider_id: Some("aws:///a/i-00000001".into()),
        ready: true,
        workloads: busy,
        ..NodeView::default()
    }
}

/// EC2 refuses to end it, and until that is tried again it has joined and has pods.
#[test]
fn an_instance_that_joins_after_it_was_given_up_is_drained_before_it_is_ended() {
    let mut leader = Leader::new(vec![claim("c", "u", launched(&id(1)))], Vec::new());
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.later(Duration::from_secs(16 * 60));
    assert_eq!((leader.ends(), leader.said("NeverRegistered")), (1, 1));
    leader.hears(Input::NodeSeen(node(true)));
    leader.hears(Input::Ended { instance: id(1), outcome: Outcome::Failed("RequestLimitExceeded".into()) });
    leader.later(Duration::from_secs(600));
    assert_eq!(leader.ends(), 1, "its pods are asked first");
    let asked = |effect: &&Effect| matches!(effect, Effect::Request { instance, .. } if *instance == id(1));
    assert!(leader.done.iter().any(|effect| asked(&effect)), "{:?}", leader.done);
    leader.hears(Input::NodeSeen(NodeView { cordoned: true, ..node(false) }));
    leader.later(Duration::from_secs(60));
    assert_eq!(leader.ends(), 2);
}

#[test]
fn f9_while_a_claim_cannot_be_read_no_instance_counts_as_nobodys_and_others_are_served() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    assert_eq!(leader.calls().len(), 1, "it is served");
    leader.hears(Input::Unreadable("d".into()));
    leader.reads(vec![seen(&id(1), Some("t"))]);
    for _ in 0..60 {
        leader.later(Duration::from_secs(60));
        leader.reads(vec![seen(&id(1), Some("t"))]);
    }
    assert_eq!((leader.ends(), leader.said("Unreadable")), (0, 1), "it may be the one of `d`");
    leader.hears(Input::ClaimGone { name: "d".into() });
    for _ in 0..60 {
        leader.later(Duration::from_secs(60));
        leader.reads(vec![seen(&id(1), Some("t"))]);
    }
    assert_eq!(leader.ends(), 1, "it is nobody's");
}
