//! Nodes whose instances have ended for good (acceptance list F11), and records that are over.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::Phase;
use spotkeeper::api::node_claim::{ClaimPhase, NodeClaimStatus, Replaces};
use spotkeeper::domain::notice::{InstanceId, Kind};
use spotkeeper::domain::time::{Epoch, Instant};
use spotkeeper::engine::Core;
use spotkeeper::provision::{Block, Doomed, Effect, Input, Instance, NodeView, Provisioner, Record, Settings};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{Step, a_cluster};

use super::leader::doomed;
use super::worlds::{MINUTE, holds};

fn secs(report: &Report, words: &str) -> f64 {
    let line = report.story.iter().find(|line| line.contains(words));
    let line = line.unwrap_or_else(|| panic!("{words}: {}", report.told()));
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn f11_a_node_that_has_ended_with_volumes_goes_when_these_are_let_go() {
    let mut supply = a_cluster(2).at(2_000, Step::Doom { node: 0 });
    (supply.nodes_stay, supply.volumes) = (true, 2);
    let report = holds(supply.until(10 * MINUTE));
    let let_go = secs(&report, "2 volumes are attached to node-i-00000000000000001");
    assert!((122.0..160.0).contains(&let_go), "{let_go}");
    assert!(!report.nodes_left.contains(&"node-i-00000000000000001".to_owned()), "{:?}", report.nodes_left);
    assert!(report.nodes_left.contains(&"node-i-00000000000000002".to_owned()), "the other one lives");
}

#[test]
fn a_node_that_has_ended_without_volumes_goes_at_once() {
    let mut supply = a_cluster(1).at(2_000, Step::Doom { node: 0 });
    supply.nodes_stay = true;
    let report = holds(supply.until(10 * MINUTE));
    assert!(!report.says("volumes are attached"), "{}", report.told());
    assert!(!report.nodes_left.contains(&"node-i-00000000000000001".to_owned()), "{:?}", report.nodes_left);
}

/// A leader that knows of these nodes and records, at a wall-clock time.
struct Leader {
    core: Provisioner,
    now: Instant,
}

fn id(number: usize) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

fn wall(hours: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + hours * 3_600).unwrap()
}

fn over(number: usize, ended: Timestamp) -> Doomed {
    let record = Record { uid: format!("uid-{number}"), latest: Some(ended), ..Record::default() };
    Doomed { record, ..doomed(number, &format!("n{number}"), Phase::Cancelled) }
}

impl Leader {
    fn new(settings: Settings) -> Self {
        let mut leader = Self { core: Provisioner::new(settings, Epoch(wall(0))), now: Instant::default() };
        leader.hears(Input::LeaseHeld { until: Instant::from_millis(u64::MAX / 2) });
        leader.hears(Input::Listed { claims: Vec::new(), launches: Vec::new(), unread: Vec::new() });
        leader.hears(Input::NodesSynced);
        leader
    }

    fn hears(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        effects
    }

    /// What is done a while later.
    fn later(&mut self, after: Duration) -> Vec<Effect> {
        self.now = self.now + after;
        let mut effects = Vec::new();
        self.core.wake(self.now, &mut effects);
        effects
    }
}

fn deleted(effects: &[Effect]) -> Vec<String> {
    let of = |effect: &Effect| match effect {
        Effect::DeleteInterruption { uid, .. } => Some(uid.clone()),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn a_record_is_taken_off_its_node_and_kept_for_a_day_after_it_is_over() {
    let mut leader = Leader::new(Settings::default());
    let owned = Doomed { record: Record { owned: true, ..over(1, wall(0)).record }, ..over(1, wall(0)) };
    leader.hears(Input::InterruptionSeen(owned));
    let disowned = leader.later(Duration::from_secs(10));
    assert!(disowned.contains(&Effect::Disown { instance: id(1), uid: "uid-1".into() }), "{disowned:?}");
    leader.hears(Input::InterruptionSeen(over(1, wall(0))));
    assert_eq!(deleted(&leader.later(Duration::from_secs(23 * 3_600))), Vec::<String>::new());
    assert_eq!(deleted(&leader.later(Duration::from_secs(3_601))), ["uid-1"]);
    assert_eq!(deleted(&leader.later(Duration::from_secs(10))), Vec::<String>::new(), "it is on its way");
}

#[test]
fn of_too_many_records_the_oldest_go_and_none_that_is_not_over() {
    let mut leader = Leader::new(Settings { keep_interruptions: 2, ..Settings::default() });
    for (number, hours) in [(1, -5), (2, -1), (3, -9), (4, -3)] {
        leader.hears(Input::InterruptionSeen(over(number, wall(hours))));
    }
    let node = NodeView { name: "n9".into(), instance: Some(id(9)), ..NodeView::default() };
    leader.hears(Input::NodeSeen(node));
    leader.hears(Input::InterruptionSeen(Doomed { phase: Phase::Draining, ..over(9, wall(-20)) }));
    assert_eq!(deleted(&leader.later(Duration::from_secs(10))), ["uid-3", "uid-1"]);
}

#[test]
fn a_record_is_kept_as_long_as_its_replacement_stands() {
    let mut leader = Leader::new(Settings::default());
    leader.hears(Input::InterruptionSeen(over(1, wall(0))));
    let status = NodeClaimStatus { phase: Some(ClaimPhase::Ready), ..NodeClaimStatus::default() };
    let mut claim = crate::leader::claim("i-00000001-1", "u", status);
    claim.spec.replaces = Some(Replaces { instance_id: id(1), node_name: "n1".into(), episode: 1, group: None });
    leader.hears(Input::ClaimSeen(claim));
    assert_eq!(deleted(&leader.later(Duration::from_secs(48 * 3_600))), Vec::<String>::new());
    leader.hears(Input::ClaimGone { name: "i-00000001-1".into() });
    assert_eq!(deleted(&leader.later(Duration::from_secs(10))), ["uid-1"]);
}

/// The same instance may be stopped and started again: of its next record a claim has the same name.
#[test]
fn a_record_is_kept_while_another_node_is_still_wanted() {
    let mut leader = Leader::new(Settings { keep_interruptions: 1, ..Settings::default() });
    let wanted = |number| Doomed { phase: Phase::Gone, ..over(number, wall(-1)) };
    // Nothing is known of their instances yet: no claim can be made.
    [1, 2, 3].into_iter().for_each(|number| drop(leader.hears(Input::InterruptionSeen(wanted(number)))));
    assert_eq!(deleted(&leader.later(Duration::from_secs(10))), Vec::<String>::new());
}

#[test]
fn a_capacity_block_that_ends_is_announced_ten_minutes_before_its_nodes_are_to_be_empty() {
    let mut leader = Leader::new(Settings::default());
    let node = |number: usize| NodeView {
        name: format!("n{number}"),
        instance: Some(id(number)),
        provider_id: Some(format!("aws:///a/{}", id(number))),
        ..NodeView::default()
    };
    leader.hears(Input::NodeSeen(node(1)));
    leader.hears(Input::NodeSeen(node(2)));
    let ends = wall(2);
    let in_block = |number| Instance {
        block: Some(Block { reservation: "cr-1".into(), ends: Some(ends) }),
        ..crate::leader::seen(&id(number), None)
    };
    // The third has no Node of this cluster; of the second it is not known when its block ends.
    let mut unknown = in_block(2);
    unknown.block.as_mut().unwrap().ends = None;
    let told = |leader: &mut Leader| {
        let read = Input::InstancesRead { all: true, instances: vec![in_block(1), unknown.clone(), in_block(3)] };
        let written = |effect: Effect| match effect {
            Effect::WriteNotice { instance, entry, .. } => Some((instance, entry)),
            _ => None,
        };
        leader.hears(read).into_iter().filter_map(written).collect::<Vec<_>>()
    };
    leader.later(Duration::from_secs(69 * 60));
    assert_eq!(told(&mut leader), Vec::new());
    leader.later(Duration::from_secs(60));
    let all = told(&mut leader);
    assert_eq!(all.len(), 1, "{all:?}");
    let (instance, entry) = &all[0];
    assert_eq!((instance, entry.kind, entry.event_id.as_str()), (&id(1), Kind::CapacityBlockEnding, "cr-1"));
    assert_eq!(entry.deadline, Some(ends - jiff::SignedDuration::from_mins(40)));
    leader.hears(Input::InterruptionSeen(Doomed { notices: vec![entry.clone()], ..over(1, wall(1)) }));
    assert_eq!(told(&mut leader), Vec::new(), "once");
}

#[test]
fn a_record_that_names_another_node_than_its_instance_runs_is_deleted() {
    let mut leader = Leader::new(Settings::default());
    leader.hears(Input::NodeSeen(NodeView { name: "real".into(), instance: Some(id(1)), ..NodeView::default() }));
    leader.hears(Input::InterruptionSeen(Doomed { phase: Phase::Noticed, ..over(1, wall(0)) }));
    assert_eq!(deleted(&leader.later(Duration::from_secs(10))), ["uid-1"]);
    leader.hears(Input::InterruptionGone { instance: id(1) });
    // What has no Node may be about one that is joining.
    leader.hears(Input::InterruptionSeen(Doomed { phase: Phase::Noticed, ..over(2, wall(0)) }));
    assert_eq!(deleted(&leader.later(Duration::from_secs(60))), Vec::<String>::new());
}

#[test]
fn f16_a_node_without_a_provider_id_is_left_alone_and_said_once() {
    let mut leader = Leader::new(Settings::default());
    // Its cloud controller has not come to it yet, or there is none.
    let node = NodeView { name: "bare".into(), ready: true, ..NodeView::default() };
    let said = |effects: &[Effect]| {
        let named = |e: &&Effect| matches!(e, Effect::Decided { because, .. } if because.reason() == "NoProviderID");
        effects.iter().filter(named).count()
    };
    let mut all = leader.hears(Input::NodeSeen(node));
    all.extend(leader.later(Duration::from_secs(60)));
    all.extend(leader.later(Duration::from_secs(60)));
    assert_eq!(said(&all), 1, "{all:?}");
    assert!(!all.iter().any(|effect| matches!(effect, Effect::DeleteNode { .. })));
}

#[test]
fn f16_a_stand_in_without_a_provider_id_is_known_by_what_it_is_called() {
    let mut supply = a_cluster(2).at(2_000, Step::Doom { node: 0 }).at(20 * MINUTE, Step::Doom { node: 2 });
    supply.nameless = true;
    let report = holds(supply.until(45 * MINUTE));
    assert!(!report.says("did not become a Node"), "{}", report.told());
    assert_eq!(report.figures.ready, 2, "it stood in, and another stood in for it: {}", report.told());
}

#[test]
fn f16_of_machines_that_only_share_an_address_none_passes_for_an_instance_of_ours() {
    let named = |number: usize, addresses: &[&str]| NodeView {
        name: format!("n{number}"),
        uid: format!("u{number}"),
        ready: true,
        addresses: addresses.iter().map(|&one| one.to_owned()).collect(),
        ..NodeView::default()
    };
    let instance = |number: usize, launch: Option<&str>, alive: bool| Instance {
        addresses: ["10.0.0.1".to_owned()].into(),
        alive,
        ..crate::leader::seen(&id(number), launch)
    };
    let told = |instances: &[Instance]| {
        let mut leader = Leader::new(Settings::default());
        leader.hears(Input::NodeSeen(named(1, &["n1", "10.0.0.1"])));
        let mut all = leader.hears(Input::InstancesRead { all: true, instances: instances.to_vec() });
        all.extend(leader.later(Duration::from_secs(1)));
        let left = |e: &Effect| matches!(e, Effect::Decided { because, .. } if because.reason() == "NoProviderID");
        all.iter().any(left)
    };
    assert!(!told(&[instance(1, Some("t"), true)]), "it is ours");
    assert!(told(&[instance(1, None, true)]), "none of ours");
    assert!(told(&[instance(1, Some("t"), false)]), "one that has ended");
    assert!(told(&[instance(1, Some("t"), true), instance(2, Some("t"), true)]), "one of two, nobody knows which");
}
