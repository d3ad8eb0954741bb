//! What waits for a replacement, for how long, and what the Node says of it.

use std::time::Duration;

use spotkeeper::domain::policy::{DRAIN, MARGIN, REBALANCE};
use spotkeeper::interruption::{DrainStart, Rebalance, Verb};
use spotkeeper::sim::scenario::{ProvisionerSpec, Scenario, Step, a_cluster, a_node, a_pod};

use super::{Ended, NODE, one_node, only, ran, two_pods};

/// Two pods, a spot notice after 1 s that leaves 119 s, evictions that wait for capacity.
fn capacity_first(answers_in_ms: u64, ready_in_ms: Option<u64>) -> Scenario {
    let mut scenario = two_pods().spot_interruption(1_000, NODE, 119_000);
    scenario.policy.drain = DrainStart::CapacityFirst;
    scenario.provisioner = ProvisionerSpec::Provides { answers_in_ms, ready_in_ms };
    scenario
}

#[track_caller]
fn asked_at(ended: &Ended, path: &str) -> u64 {
    ended.pod(path).asked[0].0
}

#[test]
fn evictions_wait_until_the_replacement_is_ready() {
    let ended = ran(capacity_first(50, Some(40_000)));
    for path in ["ns/web-0", "ns/web-1"] {
        let at = asked_at(&ended, path);
        assert!((41_000..42_000).contains(&at), "{path} at {at}");
    }
    ended.says("Held: evictions wait for the replacement");
    ended.says("ReplacementReady");
    assert!(ended.is_marked() && ended.phase() == "Drained");
}

#[test]
fn evictions_do_not_wait_longer_than_every_pod_can_bear() {
    let pods = [a_pod("ns/long").grace(60).stops_in(55_000), a_pod("ns/short").grace(5).budget("never")];
    let mut scenario = one_node(pods).budget("never", 0, None).spot_interruption(1_000, NODE, 119_000);
    scenario.policy.drain = DrainStart::CapacityFirst;
    scenario.provisioner = ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: None };
    let ended = ran(scenario);
    // D − m − g − 10 s − 5 s, each for itself: 120 − 5 − 60 − 15, and 120 − 5 − 5 − 15.
    let (long, short) = (asked_at(&ended, "ns/long"), asked_at(&ended, "ns/short"));
    assert!((40_000..40_300).contains(&long) && (95_000..95_300).contains(&short), "{long} {short}");
    assert_eq!(only(ended.pod("ns/short")).1, Verb::Delete, "its budget never allowed it");
    ended.all_out_by(115_000);
}

#[test]
fn without_an_answer_of_a_provisioner_evictions_begin_after_two_seconds() {
    let mut scenario = capacity_first(0, None);
    scenario.provisioner = ProvisionerSpec::Absent;
    let ended = ran(scenario);
    let at = asked_at(&ended, "ns/web-0");
    assert!((3_000..3_500).contains(&at), "{at}");
    ended.says("NobodyAnswers");
}

#[test]
fn an_answer_that_comes_after_that_changes_nothing_any_more() {
    let ended = ran(capacity_first(4_000, Some(60_000)));
    assert!((3_000..3_500).contains(&asked_at(&ended, "ns/web-0")));
    ended.never_says("Held");
}

#[test]
fn where_no_replacement_comes_evictions_begin_at_that_word() {
    let mut scenario = capacity_first(0, None);
    scenario.provisioner = ProvisionerSpec::Declines { answers_in_ms: 500 };
    let ended = ran(scenario);
    assert!((1_500..2_000).contains(&asked_at(&ended, "ns/web-0")));
    ended.says("NoReplacement: no replacement is waited for: as the scenario says");
}

#[test]
fn a_hibernation_waits_for_nothing() {
    let mut scenario = capacity_first(50, Some(40_000));
    scenario.script.clear();
    let action = spotkeeper::domain::notice::Action::Hibernate;
    let step = Step::ImdsSpot { node: NODE.into(), action, deadline_ms: 120_000, slides: false };
    let ended = ran(scenario.at(1_000, step));
    assert!(asked_at(&ended, "ns/web-0") < 1_700);
}

#[test]
fn an_agent_that_is_restarted_while_it_waits_waits_on() {
    let ended = ran(capacity_first(50, Some(40_000)).kill(20_000, NODE, 1_000));
    assert!((41_000..42_500).contains(&asked_at(&ended, "ns/web-0")));
}

#[test]
fn a_requested_drain_without_a_deadline_waits_for_the_replacement_too() {
    let mut scenario = two_pods().at(1_000, Step::Request { node: NODE.into(), deadline_ms: None });
    scenario.policy.drain = DrainStart::CapacityFirst;
    scenario.provisioner = ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: Some(200_000) };
    let ended = ran(scenario.until(300_000));
    assert!((201_000..203_000).contains(&asked_at(&ended, "ns/web-0")));
    assert_eq!(ended.phase(), "Drained");
}

#[test]
fn a_drain_without_a_deadline_does_not_wait_for_ever() {
    let mut scenario = two_pods().at(1_000, Step::Request { node: NODE.into(), deadline_ms: None });
    scenario.policy.drain = DrainStart::CapacityFirst;
    scenario.provisioner = ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: None };
    let ended = ran(scenario.until(1_300_000));
    let at = asked_at(&ended, "ns/web-0");
    assert!((1_201_000..1_203_000).contains(&at), "{at}");
    ended.says("WaitedLongEnough");
}

fn replace(provisioner: ProvisionerSpec) -> Ended {
    let mut scenario = two_pods().at(1_000, Step::ImdsRebalance { node: NODE.into() }).until(200_000);
    scenario.policy.rebalance = Rebalance::Replace;
    scenario.provisioner = provisioner;
    ran(scenario)
}

#[test]
fn a_rebalance_that_is_replaced_cordons_first_and_drains_when_the_replacement_is_ready() {
    let ended = replace(ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: Some(60_000) });
    assert!(ended.is_marked() && ended.phase() == "Drained");
    let at = asked_at(&ended, "ns/web-0");
    assert!((61_000..62_000).contains(&at), "{at}");
    // Without a deadline a pod keeps its own grace.
    assert_eq!(only(ended.pod("ns/web-0")).2, None);
    let policy = ended.node().record.as_ref().and_then(|status| status.policy).expect("the record tells the policy");
    assert_eq!(policy.rebalance, Rebalance::Replace);
}

#[test]
fn a_rebalance_whose_replacement_never_comes_only_keeps_new_pods_away() {
    for provisioner in [
        ProvisionerSpec::Absent,
        ProvisionerSpec::Declines { answers_in_ms: 50 },
        ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: None },
    ] {
        let ended = replace(provisioner);
        assert!(ended.is_marked() && ended.phase() == "Cordoned" && ended.asks() == 0, "{provisioner:?}");
    }
}

#[test]
fn what_the_node_says_goes_before_the_flags() {
    let node = a_node(NODE).with(a_pod("ns/web").grace(600).stops_in(600_000));
    let node = node.annotated(DRAIN, "Immediate").annotated(MARGIN, "20s").annotated(REBALANCE, "Ignore");
    let mut scenario = a_cluster().node(node).spot_interruption(1_000, NODE, 119_000);
    scenario.policy.drain = DrainStart::CapacityFirst;
    scenario.provisioner = ProvisionerSpec::Provides { answers_in_ms: 50, ready_in_ms: Some(40_000) };
    let ended = ran(scenario);
    // D − m − now with m = 20 s.
    let (at, _, grace) = only(ended.pod("ns/web"));
    assert!(at < 1_500 && (97..=99).contains(&grace.unwrap_or_default()), "{at} {grace:?}");
}

#[test]
fn nonsense_in_an_annotation_is_said_once_and_the_flag_holds() {
    let node = a_node(NODE).with(a_pod("ns/web")).annotated(MARGIN, "soon").annotated(DRAIN, "later");
    let mut scenario = a_cluster().node(node).spot_interruption(2_000, NODE, 118_000);
    for at in [500, 1_000, 1_500] {
        scenario = scenario.at(at, Step::Touch { node: NODE.into() });
    }
    scenario.policy.margin = Duration::from_secs(30);
    let ended = ran(scenario);
    assert_eq!(ended.report.lines("PolicyUnread").count(), 2, "{}", ended.report.told());
    ended.says("spotkeeper.dev/margin: `soon` is not a duration");
    assert!(asked_at(&ended, "ns/web") < 2_500);
}
