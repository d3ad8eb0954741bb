//! Agents that are killed, an API server and an IMDS that fail, clocks that are stepped, and other people's work.

use std::collections::BTreeSet;

use spotkeeper::sim::scenario::{ApiState, Faults, ImdsState, Scenario, Step, a_node, a_pod};

use super::{NODE, ran, two_pods};

/// A node with a pod of each difficulty, and a notice by both sources at one second.
fn a_full_drain() -> Scenario {
    let mut scenario = two_pods()
        .budget("never", 0, None)
        .budget("web", 1, Some(4_000))
        .spot_interruption(1_000, NODE, 40_000)
        .queue_says(1_500, NODE, "event-1", 41_000);
    scenario.nodes[0].pods = vec![
        a_pod("ns/web-0").budget("web"),
        a_pod("ns/web-1").budget("web"),
        a_pod("ns/db-0").budget("never").grace(10),
        a_pod("ns/long").grace(600).stops_in(20_000),
        a_pod("ns/waits").waits().grace(5),
    ];
    scenario
}

#[test]
fn an_agent_that_is_killed_at_any_step_of_a_drain_comes_to_the_same_end() {
    let whole = ran(a_full_drain());
    whole.all_out_by(36_000);
    let moments = (900..3_000).step_by(20).chain((3_000..38_000).step_by(500));
    for at in moments {
        for down in [300, 2_500] {
            let ended = ran(a_full_drain().kill(at, NODE, down));
            ended.all_out_by(36_500);
            assert_eq!(ended.phase(), whole.phase(), "killed at {at} ms for {down} ms");
            assert_eq!(ended.node().node.taints, whole.node().node.taints);
            let accepted = ended.node().pods.iter().map(|pod| pod.accepted.len()).max();
            assert_eq!(accepted, Some(1), "killed at {at} ms for {down} ms: {:#?}", ended.node().pods);
        }
    }
}

#[test]
fn an_agent_that_is_started_again_tells_the_workloads_once() {
    let request = Step::Request { node: NODE.into(), deadline_ms: None };
    let ended = ran(two_pods().at(1_000, request).kill(5_000, NODE, 500).until(120_000));
    assert_eq!(ended.report.lines("tells the workloads: Requested").count(), 2, "once in each life");
}

#[test]
fn a_drain_that_the_queue_began_goes_on_when_its_message_comes_again_before_the_record() {
    for again in (20_000..21_000).step_by(50) {
        let scenario = two_pods()
            .imds(0, NODE, ImdsState::Refuses)
            .queue_says(5_000, NODE, "event-1", 60_000)
            .imds(15_000, NODE, ImdsState::Well)
            .kill(19_000, NODE, 1_000)
            .queue_says(again, NODE, "event-1", 60_000);
        let ended = ran(scenario);
        assert!(ended.is_marked(), "the message came again at {again} ms\n{}", ended.report.told());
    }
}

#[test]
fn no_entry_is_lost_or_doubled_when_readers_and_agents_restart() {
    for at in (1_000..4_000).step_by(100) {
        let scenario = a_full_drain()
            .node(a_node("node-b"))
            .queue_says(2_000, NODE, "event-1", 41_000)
            .kill(at, NODE, 700)
            .kill(at + 150, "node-b", 900);
        let ended = ran(scenario);
        let keys: BTreeSet<String> = ended.node().notices.iter().map(|entry| entry.key().to_string()).collect();
        assert_eq!((keys.len(), ended.node().notices.len()), (2, 2), "{keys:?}");
    }
}

#[test]
fn an_imds_that_fails_for_a_minute_is_heard_within_two_seconds_of_its_recovery() {
    for state in [ImdsState::Refuses, ImdsState::Hangs] {
        let scenario = two_pods()
            .imds(1_000, NODE, state)
            .imds(61_000, NODE, ImdsState::Well)
            .spot_interruption(30_000, NODE, 120_000);
        let ended = ran(scenario);
        let first = ended.pod("ns/web-0").asked[0].0;
        assert!((61_000..63_000).contains(&first), "{first}");
    }
}

#[test]
fn an_hour_without_imds_costs_nothing_and_touches_nothing() {
    let ended = ran(two_pods().imds(0, NODE, ImdsState::Refuses).until(3_600_000));
    assert!(ended.report.figures.effects <= 4, "{:?}", ended.report.figures);
    assert!(!ended.is_marked());
}

#[test]
fn an_api_server_that_is_away_for_thirty_seconds_at_the_notice_is_met_when_it_is_back() {
    let scenario = a_full_drain().api(500, ApiState::Away).api(25_000, ApiState::Well);
    let ended = ran(scenario);
    let told = ended.report.lines("tells the workloads: SpotInterruption").next();
    assert!(told.is_some_and(|line| line.trim_start().starts_with("1.")), "{told:?}");
    ended.all_out_by(37_000);
}

#[test]
fn a_slow_and_a_flooded_api_server_do_not_keep_a_node_from_being_emptied() {
    for state in [ApiState::Slow, ApiState::Flooded] {
        let ended = ran(a_full_drain().api(500, state));
        ended.all_out_by(41_000);
        assert!(ended.is_marked());
    }
}

#[test]
fn a_slow_api_server_does_not_make_an_acknowledged_pod_be_asked_again() {
    let mut scenario = two_pods().api(500, ApiState::Slow).spot_interruption(1_000, NODE, 120_000);
    scenario.nodes[0].pods = vec![a_pod("ns/long").grace(600).stops_in(60_000)];
    assert_eq!(ran(scenario).asks(), 1);
}

#[test]
fn lost_answers_do_not_lose_pods() {
    let faults = Faults { lost_answer_one_in: Some(2), ..Faults::default() };
    for seed in 0..30 {
        let mut scenario = a_full_drain().faults(faults.clone());
        scenario.seed = seed;
        ran(scenario).all_out_by(39_000);
    }
}

#[test]
fn a_watch_that_breaks_and_lags_changes_nothing() {
    let faults = Faults { watch_lag_ms: 2_000, ..Faults::default() };
    let mut scenario = a_full_drain().faults(faults);
    for at in (1_500..35_000).step_by(1_000) {
        scenario = scenario.at(at, Step::Relist { node: NODE.into() });
    }
    ran(scenario).all_out_by(36_000);
}

#[test]
fn no_taint_of_another_controller_is_lost_in_a_thousand_races() {
    for seed in 0..50 {
        let mut scenario = a_full_drain();
        scenario.seed = seed;
        for n in 0..20 {
            let taint = Step::Taint { node: NODE.into(), key: format!("theirs-{n}") };
            scenario = scenario.at(1_000 + n * 7 + seed, taint);
        }
        let ended = ran(scenario);
        let theirs = ended.node().node.taints.iter().filter(|t| t.key.starts_with("theirs-"));
        assert_eq!(theirs.count(), 20);
        assert!(ended.is_marked());
    }
}

#[test]
fn a_step_of_the_wall_clock_moves_no_drain() {
    for by_secs in [-3_600, 3_600] {
        for at in [2_000, 10_000, 20_000] {
            let step = Step::Clock { node: NODE.into(), by_secs };
            let ended = ran(a_full_drain().at(at, step));
            ended.all_out_by(36_000);
            let deleted = ended.pod("ns/db-0").accepted.first().map(|ask| ask.0);
            assert!(deleted.is_some_and(|at| (25_900..26_300).contains(&at)), "{deleted:?}");
        }
    }
}

#[test]
fn a_second_notice_after_a_step_of_the_wall_clock_moves_no_drain() {
    for by_secs in [-3_600, 3_600] {
        let step = Step::Clock { node: NODE.into(), by_secs };
        let scenario = a_full_drain().node(a_node("node-b")).at(2_000, step);
        let ended = ran(scenario.queue_says(3_000, NODE, "event-2", 40_500));
        ended.all_out_by(36_000);
        let deleted = ended.pod("ns/db-0").accepted.first().map(|ask| ask.0);
        assert!(deleted.is_some_and(|at| (24_900..25_300).contains(&at)), "{by_secs} s: {deleted:?}");
    }
}

#[test]
fn what_others_did_to_the_node_is_left_as_it_was() {
    let request = || Step::Request { node: NODE.into(), deadline_ms: None };
    let theirs = a_node(NODE)
        .with(a_pod("ns/web"))
        .cordoned_by_somebody()
        .kept_from_load_balancers_by_somebody()
        .tainted_by_somebody("gpu");
    let mut scenario = two_pods().at(1_000, request());
    scenario.nodes = vec![theirs];
    scenario = scenario
        .at(5_000, Step::Taint { node: NODE.into(), key: "later".into() })
        .at(30_000, Step::Withdraw { node: NODE.into() });
    let ended = ran(scenario);
    let node = &ended.node().node;
    assert!(node.unschedulable, "somebody else had cordoned it");
    assert_eq!(node.labels.len(), 1, "somebody else had kept it from load balancers");
    let keys: Vec<&str> = node.taints.iter().map(|taint| taint.key.as_str()).collect();
    assert_eq!(keys, ["gpu", "later"]);
    assert!(node.annotations.is_empty());
}

#[test]
fn a_record_that_is_deleted_by_somebody_is_written_again() {
    let ended = ran(a_full_drain().at(5_000, Step::DeleteRecord { node: NODE.into() }));
    ended.all_out_by(36_000);
    assert!(ended.node().notices.iter().any(|entry| entry.source.as_str() == "imds"));
    assert_eq!(ended.phase(), "Drained");
}

#[test]
fn a_node_whose_object_is_made_anew_is_marked_again() {
    for at in (1_000..2_000).step_by(20).chain([5_000, 20_000]) {
        let ended = ran(a_full_drain().at(at, Step::Recreate { node: NODE.into() }));
        assert!(ended.is_marked(), "made anew at {at} ms\n{}", ended.report.told());
        ended.all_out_by(36_000);
    }
}

#[test]
fn an_agent_that_starts_anew_with_a_wrong_clock_keeps_the_deadline() {
    for by_secs in [-3_600, 3_600] {
        for seed in 0..20 {
            let step = Step::Clock { node: NODE.into(), by_secs };
            let mut scenario = a_full_drain().at(4_000, step).kill(5_000, NODE, 1_000);
            scenario.seed = seed;
            let ended = ran(scenario);
            ended.all_out_by(36_000);
            let deleted = ended.pod("ns/db-0").accepted.first().map(|ask| ask.0);
            assert!(deleted.is_some_and(|at| (25_900..26_500).contains(&at)), "{by_secs} s: {deleted:?}");
        }
    }
}

#[test]
fn a_budget_that_an_earlier_run_has_asked_is_not_asked_for_ten_seconds_more() {
    let pod = a_pod("ns/db-0").grace(600).stops_in(20_000).budget("never");
    let mut scenario = two_pods().budget("never", 0, None).spot_interruption(1_000, NODE, 60_000);
    scenario.nodes[0].pods = vec![pod];
    let asked_at = ran(scenario.clone()).pod("ns/db-0").asked[0].0;
    for at in (asked_at + 2_500..asked_at + 9_000).step_by(500) {
        let ended = ran(scenario.clone().kill(at, NODE, 300));
        let deleted = ended.pod("ns/db-0").accepted[0];
        let after = deleted.0 - asked_at;
        assert_eq!(deleted.1, spotkeeper::interruption::Verb::Delete);
        assert!((9_900..11_500).contains(&after), "killed at {at} ms, deleted {after} ms after it was first asked");
    }
}

#[test]
fn the_first_mark_has_the_api_server_to_itself() {
    let ended = ran(two_pods().spot_interruption(1_000, NODE, 120_000));
    let order: Vec<&str> = ended.report.story.iter().map(String::as_str).collect();
    let place = |what: &str| order.iter().position(|line| line.contains(what)).expect(what);
    assert!(place("Cordoned") < place("the record says: episode 1"));
    // A mark that is not answered keeps nobody waiting for long.
    let lost = Faults { lost_answer_one_in: Some(1), ..Faults::default() };
    let scenario = two_pods().at(1_000, Step::ImdsRebalance { node: NODE.into() }).faults(lost).until(4_000);
    let (report, nodes) = scenario.run_to_end();
    assert_eq!(nodes[0].notices.len(), 1, "{}", report.told());
}
