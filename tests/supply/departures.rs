//! Nodes whose instances have ended for good (acceptance list F11), and records that are over.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::Phase;
use spotkeeper::domain::notice::{InstanceId, Kind};
use spotkeeper::domain::time::{Epoch, Instant};
use spotkeeper::engine::Core;
use spotkeeper::provision::{Doomed, Effect, Input, NodeView, Provisioner, Record, Replacement, Settings};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster};

const MINUTE: u64 = 60_000;

#[track_caller]
fn holds(supply: Supply) -> Report {
    let report = supply.run();
    assert!(report.findings.is_empty(), "{}", report.told());
    report
}

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
    Doomed {
        instance: id(number),
        node: format!("n{number}"),
        episode: 1,
        phase: Phase::Cancelled,
        kind: Some(Kind::SpotInterruption),
        policy: None,
        kept_in_zone: false,
        notices: Vec::new(),
        settled: Vec::new(),
        replacement: Replacement::default(),
        record: Record { uid: format!("uid-{number}"), latest: Some(ended), ..Record::default() },
    }
}

impl Leader {
    fn new(settings: Settings) -> Self {
        let mut leader = Self { core: Provisioner::new(settings, Epoch(wall(0))), now: Instant::default() };
        leader.hears(Input::LeaseHeld { until: Instant::from_millis(u64::MAX / 2) });
        leader.hears(Input::Listed { claims: Vec::new(), launches: Vec::new() });
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
