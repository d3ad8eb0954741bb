//! Who drains where an agent is silent, comes back, or leaves it to the provisioner: one, and never two.

use spotkeeper::interruption::{DrainBy, Verb};
use spotkeeper::sim::scenario::{ApiState, Scenario, Step, a_pod};

use super::{Ended, NODE, one_node, only, ran};

/// Four pods; two of them behind a budget that lets one go every ten seconds, one that never allows it.
fn a_slow_drain() -> Scenario {
    let pods = [
        a_pod("ns/web-0").budget("web"),
        a_pod("ns/web-1").budget("web"),
        a_pod("ns/db-0").budget("never"),
        a_pod("ns/plain").grace(60).stops_in(55_000),
    ];
    let mut scenario = one_node(pods).budget("web", 1, Some(10_000)).budget("never", 0, None);
    scenario.takes_over = true;
    scenario.spot_interruption(1_000, NODE, 119_000)
}

fn forever() -> u64 {
    100_000_000
}

#[track_caller]
fn drained_once(ended: &Ended) {
    for pod in ["ns/web-0", "ns/web-1", "ns/db-0", "ns/plain"] {
        assert_eq!(ended.pod(pod).accepted.len(), 1, "{pod}\n{}", ended.report.told());
    }
    ended.all_out_by(115_000);
}

fn drainer(ended: &Ended) -> String {
    ended.node().record.as_ref().and_then(|status| status.drainer.clone()).unwrap_or_default()
}

#[test]
fn the_provisioner_finishes_the_drain_of_an_agent_that_is_gone_for_ever() {
    let ended = ran(a_slow_drain().kill(3_000, NODE, forever()));
    drained_once(&ended);
    ended.says("StandsIn: the node's agent has been silent for 10.0 s");
    assert_eq!((ended.phase(), drainer(&ended)), ("Drained".to_owned(), "provisioner".to_owned()));
    // D − m − g: its budget never allowed it.
    let (at, verb, _) = only(ended.pod("ns/db-0"));
    assert!(verb == Verb::Delete && (85_000..85_200).contains(&at), "{at}");
}

#[test]
fn the_provisioner_drains_a_node_whose_agent_never_said_more_than_that_it_was_interrupted() {
    // It is killed within the second in which it notices.
    let ended = ran(a_slow_drain().kill(1_900, NODE, forever()));
    drained_once(&ended);
}

#[test]
fn an_agent_that_comes_back_before_it_counts_as_silent_goes_on_by_itself() {
    let ended = ran(a_slow_drain().kill(3_000, NODE, 5_000));
    drained_once(&ended);
    ended.never_says("StandsIn");
    assert_eq!(drainer(&ended), NODE);
}

#[test]
fn an_agent_that_comes_back_later_lets_the_provisioner_finish() {
    let ended = ran(a_slow_drain().kill(3_000, NODE, 15_000));
    drained_once(&ended);
    ended.says("Yielded");
    ended.never_says("HandedBack");
}

#[test]
fn an_agent_takes_the_drain_back_from_a_provisioner_that_falls_silent() {
    let scenario = a_slow_drain().kill(3_000, NODE, 15_000);
    let ended = ran(scenario.at(30_000, Step::KillProvisioner { down_ms: forever() }));
    drained_once(&ended);
    ended.says("TakenBack");
    assert_eq!(drainer(&ended), NODE);
}

#[test]
fn the_next_leader_goes_on_with_what_the_last_had_taken_over() {
    let scenario = a_slow_drain().kill(3_000, NODE, forever());
    let ended = ran(scenario.at(30_000, Step::KillProvisioner { down_ms: 16_000 }));
    drained_once(&ended);
    ended.says("GoesOn");
}

#[test]
fn an_agent_that_cannot_write_its_record_is_replaced_and_keeps_still() {
    let ended = ran(a_slow_drain().at(3_000, Step::Mute { node: NODE.into(), millis: 300_000 }));
    drained_once(&ended);
    ended.says("StandsIn");
    ended.says("Yielded");
}

#[test]
fn while_nobody_reaches_the_api_server_nobody_is_replaced_by_one_who_cannot_act_either() {
    let scenario = a_slow_drain().api(4_000, ApiState::Away).api(34_000, ApiState::Well);
    let ended = ran(scenario);
    drained_once(&ended);
}

#[test]
fn where_the_provisioner_is_to_drain_the_agent_tells_and_records_and_touches_nothing() {
    let mut scenario = a_slow_drain();
    scenario.policy.drain_by = DrainBy::Provisioner;
    let ended = ran(scenario);
    drained_once(&ended);
    ended.says("tells the workloads: SpotInterruption");
    ended.says("StandsIn: the provisioner drains this node, as its agent was told to let it");
    assert!(ended.pod("ns/plain").asked[0].0 < 2_500);
    assert_eq!(drainer(&ended), "provisioner");
}

#[test]
fn where_the_provisioner_is_to_drain_and_there_is_none_nothing_is_done_to_the_node() {
    let mut scenario = a_slow_drain();
    (scenario.policy.drain_by, scenario.takes_over) = (DrainBy::Provisioner, false);
    let ended = ran(scenario);
    assert!(!ended.is_marked() && ended.asks() == 0);
    assert_eq!(ended.phase(), "Confirmed");
}

#[test]
fn what_is_withdrawn_while_the_provisioner_drains_is_undone_by_it() {
    let pods = [a_pod("ns/db-0").budget("never")];
    let mut scenario = one_node(pods).budget("never", 0, None);
    scenario.takes_over = true;
    let scenario = scenario.at(1_000, Step::Request { node: NODE.into(), deadline_ms: None });
    let scenario = scenario.kill(3_000, NODE, forever()).at(40_000, Step::Withdraw { node: NODE.into() });
    let ended = ran(scenario.until(100_000));
    ended.says("StandsIn");
    assert!(!ended.is_marked(), "{}", ended.report.told());
    assert_eq!(ended.phase(), "Cancelled");
}

#[test]
fn an_event_far_ahead_is_taken_over_when_its_drain_is_due_and_not_before() {
    let mut scenario = one_node([a_pod("ns/web")]);
    scenario.takes_over = true;
    scenario.policy.scheduled_lead = std::time::Duration::from_secs(60);
    let scenario = scenario.maintenance(1_000, NODE, "event-1", 300_000).kill(50_000, NODE, forever());
    let ended = ran(scenario.until(310_000));
    // 300 − 60 s (it does not know the graces on a node that it does not drain), ten of silence, and the pause.
    let at = ended.pod("ns/web").asked[0].0;
    assert!((252_000..253_000).contains(&at), "{at}\n{}", ended.report.told());
}
