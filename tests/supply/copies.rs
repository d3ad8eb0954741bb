//! Instances without a launch template, and launch templates of ours that come and go.

use spotkeeper::api::node_claim::ClaimPhase;
use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::supply::scenario::{State, Step, Supply, a_cluster, a_pool};

use super::worlds::{MINUTE, holds};

/// Nodes that were all made without a launch template, of so many kinds.
fn plain(nodes: usize, kinds: usize) -> Supply {
    let mut supply = a_cluster(nodes);
    (supply.plain_of_four, supply.plain_kinds) = (4, kinds);
    supply
}

#[test]
fn what_has_no_template_is_read_ahead_and_replaced_as_fast_as_what_has_one() {
    let report = holds(plain(4, 2).at(2 * MINUTE, Step::DoomMany { from: 0, count: 4 }));
    assert_eq!((report.figures.copied, report.figures.ready), (4, 4));
    assert_eq!(report.templates_left.len(), 2, "one for each kind");
    for claim in report.claims.values() {
        assert!(claim.asked_ms[&Spot] - claim.wanted_ms < 2_000, "{claim:?}");
        assert_eq!(claim.capacity, Some(Spot));
    }
}

#[test]
fn at_a_notice_one_that_was_not_read_yet_is_read_at_once() {
    // So many that the pace of reading ahead leaves most of them for the notice.
    let report = holds(plain(60, 1).at(4_000, Step::DoomMany { from: 40, count: 10 }));
    assert_eq!(report.figures.ready, 10);
    for claim in report.claims.values() {
        assert!(claim.asked_ms[&Spot] - claim.wanted_ms < 3_000, "{claim:?}");
    }
}

#[test]
fn one_that_was_taken_unheard_is_replaced_by_what_was_read_while_it_lived() {
    for nodes_stay in [false, true] {
        let mut supply = plain(2, 1).at(2 * MINUTE, Step::TakeUnheard { node: 0 });
        supply.nodes_stay = nodes_stay;
        let report = holds(supply);
        assert!(report.says("nobody had heard of it"), "{}", report.told());
        assert_eq!(report.figures.ready, 1, "{}", report.told());
    }
}

#[test]
fn one_that_ends_before_it_could_be_read_leaves_nothing_to_copy_and_that_is_said() {
    let supply = plain(1, 1)
        .at(0, Step::Ec2(State::Throttles))
        .at(1_000, Step::Doom { node: 0 })
        .at(4 * MINUTE, Step::Ec2(State::Well));
    let report = holds(supply);
    assert!(report.says("the list of instances could not be read"), "{}", report.told());
    assert!(report.says("nothing is left to copy"), "{}", report.told());
    assert_eq!((report.figures.launched, report.claims_left.len()), (0, 0));
}

#[test]
fn f5_a_template_of_ours_that_somebody_deletes_is_made_again_while_the_instance_lives() {
    let supply = plain(2, 1).at(MINUTE, Step::DeleteTemplates).at(2 * MINUTE, Step::Doom { node: 0 });
    let report = holds(supply);
    assert!(report.says("InvalidLaunchTemplateName.NotFoundException"), "the claim says it: {}", report.told());
    assert_eq!((report.figures.launched, report.figures.ready), (1, 1), "once");
    let claim = report.claims.values().next().unwrap();
    assert!(claim.ready_ms.unwrap() - claim.wanted_ms < 2 * MINUTE, "{claim:?}");
}

#[test]
fn f5_a_class_whose_template_is_deleted_is_launched_with_when_it_is_there_again() {
    let mut supply = a_cluster(2).of("general", a_pool());
    supply.inline_class = true;
    let supply = supply
        .at(MINUTE, Step::Class(Err("it is being looked up")))
        .at(MINUTE, Step::DeleteTemplates)
        .at(2 * MINUTE, Step::Doom { node: 0 })
        .at(5 * MINUTE, Step::Class(Ok(())));
    let report = holds(supply);
    assert!(report.says("nothing can be launched yet"), "{}", report.told());
    assert_eq!((report.figures.launched, report.figures.ready), (1, 1), "once");
}

#[test]
fn f5_where_nothing_is_left_to_make_it_again_of_the_claim_says_so_and_is_no_loop() {
    let dry = |capacity, left| Step::Left { capacity, zone: None, left };
    let supply = plain(1, 1)
        .at(MINUTE, dry(Spot, Some(0)))
        .at(MINUTE, dry(OnDemand, Some(0)))
        .at(2 * MINUTE, Step::Doom { node: 0 })
        .at(10 * MINUTE, Step::DeleteTemplates)
        .at(11 * MINUTE, dry(OnDemand, None));
    let report = holds(supply.until(200 * MINUTE));
    assert!(report.says("there is no such launch template; change it"), "{}", report.told());
    assert_eq!(report.figures.launched, 0);
    assert!(report.figures.calls < 60, "{} calls in three hours", report.figures.calls);
    assert_eq!(report.claims_left.len(), 1, "it waits: {:?}", ClaimPhase::Pending);
}

#[test]
fn a_template_that_nothing_uses_any_more_goes_after_the_grace_and_no_other() {
    let mut supply = plain(2, 2).of("general", a_pool());
    // No node is of the pool: its class has a template all the same.
    supply.labelled = None;
    supply.pools.clear();
    supply.inline_class = true;
    let supply = supply.at(10 * MINUTE, Step::ClassMoves).until(70 * MINUTE);
    let before = holds(supply.clone());
    assert!(before.templates_deleted.is_empty(), "the grace is an hour: {}", before.told());
    let after = holds(supply.until(90 * MINUTE));
    assert_eq!(after.templates_deleted, ["spotkeeper-class0"], "{}", after.told());
    assert_eq!(after.templates_left.len(), 3, "of the class as it is, and of both nodes");
}

#[test]
fn what_was_like_a_lost_instance_stays_while_its_stand_in_lives_and_goes_when_that_has_gone() {
    let supply = plain(1, 1).at(2 * MINUTE, Step::Doom { node: 0 });
    let stays = holds(supply.clone().until(300 * MINUTE));
    assert_eq!((stays.templates_deleted.len(), stays.templates_left.len()), (0, 1));
    let supply = supply.at(30 * MINUTE, Step::DeleteClaim);
    let gone = holds(supply.until(120 * MINUTE));
    assert_eq!((gone.templates_deleted.len(), gone.templates_left.len()), (1, 0), "{}", gone.told());
}

#[test]
fn nothing_is_deleted_while_it_cannot_be_told_what_is_used() {
    let mut supply = a_cluster(1);
    supply.inline_class = true;
    let supply = supply
        .at(MINUTE, Step::ClassMoves)
        .at(2 * MINUTE, Step::Ec2(State::Away))
        .at(200 * MINUTE, Step::Ec2(State::Well));
    let away = holds(supply.clone().until(200 * MINUTE));
    assert!(away.templates_deleted.is_empty());
    let well = holds(supply.until(280 * MINUTE));
    assert_eq!(well.templates_deleted, ["spotkeeper-class0"], "{}", well.told());
}

/// Two that do not share a call: the probe of one finds on-demand open again, and the other used to wait on for the rest
/// of what had been believed.
#[test]
fn who_waits_asks_as_soon_as_a_probe_of_another_finds_something() {
    let left = |capacity, left| Step::Left { capacity, zone: None, left };
    let supply = plain(2, 2)
        .at(10_000, left(Spot, Some(0)))
        .at(10_000, left(OnDemand, Some(0)))
        .at(MINUTE, Step::DoomMany { from: 0, count: 2 })
        .at(50 * MINUTE, left(OnDemand, None));
    let report = holds(supply.until(200 * MINUTE));
    let ready: Vec<u64> = report.claims.values().filter_map(|claim| claim.ready_ms).collect();
    assert!(ready.len() == 2 && ready[0].abs_diff(ready[1]) < 3 * MINUTE, "{ready:?}: {}", report.told());
}
