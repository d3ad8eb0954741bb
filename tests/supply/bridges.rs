//! Stand-ins for nodes of Auto Scaling groups, and for nodes that stay after all (acceptance list F8).

use std::time::Duration;

use spotkeeper::api::interruption::Phase;
use spotkeeper::provision::{Effect, Input, NodeView};
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster};

use super::leader::{Leader, doomed, id, seen};
use super::worlds::{MINUTE, holds};

/// So many nodes of one group are taken.
fn of_a_group(nodes: usize) -> Supply {
    let all = (0..nodes).fold(a_cluster(nodes), |supply, node| supply.at(100, Step::InGroup { node, group: 0 }));
    all.at(2_000, Step::DoomMany { from: 0, count: nodes })
}

#[test]
fn f8_a_bridge_is_drained_and_ended_when_the_groups_own_node_is_ready() {
    let report = holds(of_a_group(1).at(3 * MINUTE, Step::GroupLaunches { group: 0 }));
    assert!(report.says("has come to group group-0 in the place of its node"), "{}", report.told());
    assert!(report.says("the group has replaced its node itself: its drain is asked for"), "{}", report.told());
    assert_eq!((report.figures.ended, report.claims_left.len()), (1, 0));
}

#[test]
fn f8_a_group_that_replaces_late_or_never_keeps_its_bridge_so_long() {
    let late = holds(of_a_group(1).at(60 * MINUTE, Step::GroupLaunches { group: 0 }));
    assert_eq!((late.figures.ended, late.claims_left.len()), (1, 0), "{}", late.told());
    let never = holds(of_a_group(1).until(120 * MINUTE));
    assert_eq!((never.figures.ended, never.claims_left.len()), (0, 1), "{}", never.told());
}

#[test]
fn another_groups_node_or_one_that_was_there_before_ends_no_bridge() {
    let other = holds(of_a_group(1).at(3 * MINUTE, Step::GroupLaunches { group: 1 }));
    assert_eq!(other.figures.ended, 0, "{}", other.told());
    let before = holds(of_a_group(1).at(200, Step::GroupLaunches { group: 0 }));
    assert_eq!(before.figures.ended, 0, "{}", before.told());
}

#[test]
fn two_taken_nodes_of_a_group_need_two_new_ones_whoever_leads() {
    let one = of_a_group(2).at(3 * MINUTE, Step::GroupLaunches { group: 0 });
    let report = holds(one.clone().until(60 * MINUTE));
    assert_eq!((report.figures.ended, report.claims_left.len()), (1, 1), "{}", report.told());
    // A leader that comes later does not count the one new node twice.
    let report = holds(one.clone().at(20 * MINUTE, Step::KillLeader { down_ms: 1_000 }).until(60 * MINUTE));
    assert_eq!((report.figures.ended, report.claims_left.len()), (1, 1), "{}", report.told());
    let report = holds(one.at(30 * MINUTE, Step::GroupLaunches { group: 0 }).until(60 * MINUTE));
    assert_eq!((report.figures.ended, report.claims_left.len()), (2, 0), "{}", report.told());
}

#[test]
fn a_stand_in_whose_node_stays_after_all_is_retired_after_ten_minutes() {
    let supply = a_cluster(1).at(2_000, Step::Doom { node: 0 }).at(60_000, Step::Withdraw { node: 0 });
    let report = holds(supply.until(40 * MINUTE));
    assert!(report.says("it is one too many: its drain is asked for"), "{}", report.told());
    assert_eq!((report.figures.ended, report.claims_left.len()), (1, 0));
    let asked = report.story.iter().find(|line| line.contains("its drain is asked for")).unwrap();
    let secs: f64 = asked.trim().split(' ').next().unwrap().parse().unwrap();
    assert!(secs > 660.0, "{asked}");
}

/// Its agent drains it, and does not wait for a replacement of ours.
#[test]
fn f8_a_node_of_karpenters_is_drained_only() {
    let labels = [("karpenter.sh/nodepool".to_owned(), "default".to_owned())].into();
    let node = NodeView { name: "n".into(), instance: Some(id(1)), ready: true, labels, ..NodeView::default() };
    let mut leader = Leader::of(Vec::new(), Vec::new(), vec![node]);
    leader.reads(vec![seen(&id(1), None)]);
    leader.hears(Input::InterruptionSeen(doomed(1, "n", Phase::Confirmed)));
    leader.later(Duration::from_secs(600));
    assert_eq!(leader.said("LeftToKarpenter"), 1, "{:?}", leader.done);
    let none_comes = |e: &Effect| matches!(e, Effect::WriteReplacement { replacement, .. } if replacement.none_comes);
    assert!(leader.done.iter().any(none_comes), "{:?}", leader.done);
    let acts = |e: &Effect| {
        matches!(e, Effect::CreateClaim { .. } | Effect::Call { .. } | Effect::End { .. } | Effect::Request { .. })
    };
    assert!(!leader.done.iter().any(acts), "{:?}", leader.done);
}
