//! Nodes of ours that are to go are emptied before their instances are ended.

use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster};

use super::worlds::{MINUTE, holds};

/// One node was interrupted, and its stand-in runs pods by the fifth minute.
fn with_a_stand_in() -> Supply {
    a_cluster(1).at(2_000, Step::Doom { node: 0 })
}

#[test]
fn a_claim_that_a_person_deletes_is_drained_then_its_instance_ended_and_then_it_goes() {
    let report = holds(with_a_stand_in().at(5 * MINUTE, Step::DeleteClaim));
    let at = |words: &str| {
        report
            .story
            .iter()
            .position(|line| line.contains(words))
            .unwrap_or_else(|| panic!("{words}: {}", report.told()))
    };
    let (asked, ended) = (
        at("is to go, its NodeClaim is being deleted: its drain is asked for"),
        at("is empty, and its NodeClaim is being deleted: it is ended"),
    );
    assert!(asked < ended && ended < at("i-00000000000000002 has ended"));
    assert_eq!((report.figures.launched, report.figures.ended), (1, 1), "nobody stands in for it: {}", report.told());
    assert!(report.claims_left.is_empty(), "{:?}", report.claims_left);
}

#[test]
fn a_budget_holds_a_deleted_claim_up_for_as_long_as_it_allows_nothing() {
    let supply = with_a_stand_in().at(4 * MINUTE, Step::Block(true)).at(5 * MINUTE, Step::DeleteClaim);
    let report = holds(supply.until(60 * MINUTE));
    assert_eq!((report.figures.ended, report.claims_left.len()), (0, 1), "{}", report.told());
    let supply = with_a_stand_in().at(4 * MINUTE, Step::Block(true)).at(5 * MINUTE, Step::DeleteClaim);
    let report = holds(supply.at(60 * MINUTE, Step::Block(false)));
    assert_eq!((report.figures.ended, report.claims_left.len()), (1, 0), "{}", report.told());
}

#[test]
fn a_leader_that_dies_while_a_claim_is_being_deleted_is_followed_by_one_that_goes_on() {
    for after in (0..30_000).step_by(500) {
        let mut supply = with_a_stand_in().at(5 * MINUTE, Step::DeleteClaim);
        supply.seed = after;
        let report = holds(supply.at(5 * MINUTE + after, Step::KillLeader { down_ms: 60_000 }));
        assert_eq!((report.figures.ended, report.claims_left.len()), (1, 0), "after {after} ms: {}", report.told());
    }
}

#[test]
fn a_node_that_is_interrupted_while_it_is_being_retired_gets_no_stand_in() {
    let supply = with_a_stand_in().at(4 * MINUTE, Step::Block(true)).at(5 * MINUTE, Step::DeleteClaim);
    let report = holds(supply.at(6 * MINUTE, Step::DoomStandIn));
    assert_eq!((report.figures.launched, report.claims_left.len()), (1, 0), "{}", report.told());
}

#[test]
fn a_pod_bound_before_the_cordon_and_seen_after_it_is_drained() {
    for seed in 0..20 {
        let mut supply = with_a_stand_in().at(3 * MINUTE, Step::DeleteClaim);
        // The stand-in has had pods for a minute by then, and looks empty for some more.
        (supply.seed, supply.pods_late_ms) = (seed, 4 * MINUTE);
        let report = holds(supply.until(20 * MINUTE));
        assert!(report.says("could not be ended, trying again: a pod is on"), "seed {seed}: {}", report.told());
        assert_eq!((report.figures.ended, report.claims_left.len()), (1, 0), "seed {seed}: {}", report.told());
    }
}
