//! Instances of ours that no claim names (acceptance list F10, F13): which are ended, how many, and when none is.

use std::time::Duration;

use spotkeeper::api::launch::LaunchStatus;
use spotkeeper::domain::notice::InstanceId;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::{Effect, Input, Instance, Launch, NodeView};
use spotkeeper::sim::supply::scenario::{State, Step, a_cluster};

use super::endings::over;
use super::leader::{Leader, id, seen};
use super::worlds::{MINUTE, holds};

/// So many instances with this cluster's tag, of launches that nobody knows.
fn nobodys(count: usize) -> Vec<Instance> {
    (1..=count).map(|number| seen(&id(number), Some("t"))).collect()
}

fn busy(number: usize) -> NodeView {
    let name = format!("n{number}");
    NodeView { name, instance: Some(id(number)), ready: true, workloads: true, ..NodeView::default() }
}

/// A leader that sees these instances for so many minutes. What it ends is gone.
fn sees(leader: &mut Leader, instances: &mut Vec<Instance>, minutes: u64) -> Vec<InstanceId> {
    let mut all = Vec::new();
    for _ in 0..2 * minutes {
        let before = leader.done.len();
        leader.reads(instances.clone());
        leader.later(Duration::from_secs(30));
        let ended = leader.done[before..].iter().filter_map(|effect| match effect {
            Effect::End { instance, .. } => Some(instance.clone()),
            _ => None,
        });
        let ended: Vec<InstanceId> = ended.collect();
        for instance in &ended {
            instances.retain(|one| one.id != *instance);
        }
        all.extend(ended);
    }
    all
}

#[test]
fn f10_an_instance_without_a_claim_is_ended_after_the_grace_and_not_before() {
    let (mut leader, mut instances) = (Leader::new(Vec::new(), Vec::new()), nobodys(1));
    assert!(sees(&mut leader, &mut instances, 9).is_empty());
    assert_eq!(sees(&mut leader, &mut instances, 2), [id(1)]);
}

#[test]
fn f10_no_more_than_five_are_ended_within_ten_minutes() {
    let (mut leader, mut instances) = (Leader::new(Vec::new(), Vec::new()), nobodys(9));
    assert_eq!(sees(&mut leader, &mut instances, 15).len(), 5);
    assert_eq!(sees(&mut leader, &mut instances, 8).len(), 4, "the rest in the next ten");
}

#[test]
fn f10_of_ten_at_once_none_is_ended_and_the_alarm_says_why_once() {
    let (mut leader, mut instances) = (Leader::new(Vec::new(), Vec::new()), nobodys(10));
    leader.reads(instances.clone());
    assert_eq!(leader.said("TooManyLeaks"), 1);
    assert!(sees(&mut leader, &mut instances, 60).is_empty());
    // Somebody has put it right but for two.
    instances.truncate(2);
    assert_eq!(sees(&mut leader, &mut instances, 11).len(), 2);
}

#[test]
fn f10_one_that_runs_workloads_is_spared_and_counts_for_the_alarm() {
    let nodes = (1..=9).map(busy).collect();
    let (mut leader, mut instances) = (Leader::of(Vec::new(), Vec::new(), nodes), nobodys(9));
    assert!(sees(&mut leader, &mut instances, 30).is_empty());
    assert_eq!(leader.said("TooManyLeaks"), 0);
    leader.reads(nobodys(10));
    assert_eq!(leader.said("TooManyLeaks"), 1, "nine of them are busy: rather the claims are missing");
}

#[test]
fn f10_an_instance_of_another_cluster_is_nobodys_business() {
    let (mut leader, mut instances) = (Leader::new(Vec::new(), Vec::new()), vec![seen(&id(1), None)]);
    assert!(sees(&mut leader, &mut instances, 60).is_empty());
}

#[test]
fn f10_before_the_nodes_have_been_seen_once_nothing_is_ended() {
    let mut leader = Leader::unsynced();
    let mut instances = nobodys(1);
    assert!(sees(&mut leader, &mut instances, 30).is_empty());
    leader.hears(Input::NodesSynced);
    assert_eq!(sees(&mut leader, &mut instances, 11), [id(1)]);
}

/// The CRDs are deleted, or etcd is restored from yesterday, while stand-ins run workloads.
#[test]
fn f10_when_all_records_are_lost_no_instance_is_ended_and_the_alarm_says_why() {
    let supply = a_cluster(12).at(2_000, Step::DoomMany { from: 0, count: 12 });
    let report = holds(supply.at(10 * MINUTE, Step::LoseRecords).until(30 * MINUTE));
    assert_eq!((report.figures.launched, report.figures.ended), (12, 0), "{}", report.told());
    assert!(
        report.says("instances of this cluster belong to no claim: rather the claims are missing, so none is ended"),
        "{}",
        report.told()
    );
}

/// A call that nobody waited for was presumed to have done nothing.
fn presumed() -> Leader {
    let open = Launch { status: LaunchStatus::default(), ..over("c.1", "u") };
    let mut leader = Leader::new(Vec::new(), vec![open]);
    for _ in 0..20 {
        leader.later(Duration::from_secs(5));
        leader.hears(Input::LookedUp { launch: "c.1".into(), found: Ok(Vec::new()) });
    }
    leader
}

#[test]
fn f13_an_instance_that_turns_up_most_of_an_hour_later_is_drained_and_ended() {
    let mut leader = presumed();
    leader.later(Duration::from_secs(55 * 60));
    leader.hears(Input::NodeSeen(busy(1)));
    leader.reads(vec![seen(&id(1), Some("uid-c.1"))]);
    leader.later(Duration::from_secs(60));
    let asked = leader.done.iter().any(|effect| matches!(effect, Effect::Request { .. }));
    assert!(asked && leader.ends() == 0, "it runs workloads: {:?}", leader.done);
    leader.hears(Input::Requested { instance: id(1), outcome: Outcome::Done });
    leader.hears(Input::NodeSeen(NodeView { workloads: false, cordoned: true, ..busy(1) }));
    leader.later(Duration::from_secs(60));
    assert_eq!(leader.ends(), 1);
}

#[test]
fn f13_an_instance_that_turns_up_when_nothing_is_known_of_it_any_more_is_ended_after_the_grace() {
    for later in [40, 100] {
        let supply = a_cluster(1).at(2_000, Step::Doom { node: 0 }).at(later * MINUTE - 1, Step::Join(false));
        let supply = supply.at(later * MINUTE, Step::TurnsUp).at(later * MINUTE + 1, Step::Join(true));
        let report = holds(supply.until((later + 45) * MINUTE));
        assert_eq!((report.figures.launched, report.figures.ended), (2, 1), "{later}: {}", report.told());
        assert_eq!(report.claims_left, ["i-00000000000000001-1"], "{}", report.told());
    }
}

#[test]
fn f9_every_write_refused_for_a_minute_loses_nobody_and_launches_nothing_twice() {
    for at in (0..6).map(|n| 4_000 + n * 400) {
        let supply = a_cluster(6).at(5_000, Step::DoomMany { from: 0, count: 6 });
        let mut supply = supply.at(at, Step::Api(State::Refuses)).at(at + MINUTE, Step::Api(State::Well));
        supply.seed = at;
        let report = holds(supply.until(60 * MINUTE));
        assert_eq!((report.figures.launched, report.figures.ready), (6, 6), "at {at}: {}", report.told());
    }
}
