//! What is announced, by whom, and what follows.

use spotkeeper::domain::notice::{Action, InstanceState, ScheduleCode, Subject};
use spotkeeper::interruption::{Rebalance, Verb};
use spotkeeper::sim::scenario::{ImdsState, Scenario, Step, a_node, a_pod};

use super::{NODE, one_node, ran, two_pods};

fn rebalance(scenario: Scenario, policy: Rebalance, at: u64) -> Scenario {
    scenario.policy(|p| p.rebalance = policy).at(at, Step::ImdsRebalance { node: NODE.into() })
}

fn queue(scenario: Scenario, at: u64, subject: Subject) -> Scenario {
    scenario.queue_has(at, NODE, subject, "event-1", None)
}

#[test]
fn a_rebalance_recommendation_is_only_logged_where_it_is_to_be_ignored() {
    let ended = ran(rebalance(two_pods(), Rebalance::Ignore, 1_000));
    assert!(!ended.is_marked() && ended.asks() == 0);
    ended.says("Ignored");
}

#[test]
fn a_rebalance_recommendation_keeps_new_pods_away_and_leaves_those_that_run() {
    let ended = ran(rebalance(two_pods(), Rebalance::Avoid, 1_000));
    assert!(ended.is_marked() && ended.asks() == 0);
    assert_eq!(ended.phase(), "Cordoned");
    assert!(ended.node().node.labels.is_empty(), "its pods still serve");
}

#[test]
fn a_rebalance_recommendation_that_drains_only_asks() {
    let scenario = a_never_allowing_budget(rebalance(two_pods(), Rebalance::Drain, 1_000));
    let ended = ran(scenario.until(600_000));
    assert_eq!(ended.pod("ns/web-0").accepted, [], "the budget never allows it");
    assert!(ended.pod("ns/web-0").asked.len() > 30);
    assert_eq!(ended.pod("ns/web-1").accepted.len(), 1);
    assert_eq!(ended.pod("ns/web-1").accepted[0].2, None, "its grace is its own");
    ended.never_says("Delete");
}

fn a_never_allowing_budget(mut scenario: Scenario) -> Scenario {
    scenario.nodes[0].pods[0].budgets.push("never".into());
    scenario.budget("never", 0, None)
}

#[test]
fn an_interruption_after_a_rebalance_recommendation_upgrades_the_same_record() {
    let scenario = rebalance(two_pods(), Rebalance::Avoid, 1_000);
    let ended = ran(scenario.spot_interruption(10_000, NODE, 120_000));
    ended.all_out_by(125_000);
    assert_eq!((ended.episode(), ended.phase().as_str()), (1, "Drained"));
    let status = ended.node().record.clone().unwrap_or_default();
    assert_eq!(status.kind.map(|kind| kind.to_string()).as_deref(), Some("SpotInterruption"));
}

#[test]
fn a_rebalance_recommendation_after_the_interruption_changes_nothing() {
    let scenario = two_pods().spot_interruption(1_000, NODE, 120_000);
    let ended = ran(rebalance(scenario, Rebalance::Drain, 20_000));
    ended.all_out_by(116_000);
    assert_eq!((ended.episode(), ended.phase().as_str()), (1, "Drained"));
    assert_eq!(ended.asks(), 2);
}

fn maintenance() -> Scenario {
    two_pods()
        .policy(|p| p.scheduled_lead = std::time::Duration::from_secs(60))
        .maintenance(1_000, NODE, "event-1", 300_000)
        .until(330_000)
}

#[test]
fn maintenance_begins_no_sooner_than_its_time_less_what_the_drain_needs() {
    let ended = ran(maintenance());
    ended.all_out_by(295_000);
    let first = ended.pod("ns/web-0").asked[0].0;
    // 300 s less the lead of 60 s less the longest grace of 30 s.
    assert!((210_000..211_000).contains(&first), "{first}");
}

#[test]
fn maintenance_that_is_withdrawn_is_undone_once() {
    let node = NODE.to_owned();
    let step = Step::ImdsUnscheduled { node, event_id: "event-1".into() };
    let ended = ran(maintenance().at(220_000, step));
    assert_eq!(ended.phase(), "Cancelled");
    assert!(!ended.is_marked());
    assert_eq!(ended.report.lines("the node's mark is undone").count(), 1);
}

#[test]
fn maintenance_that_is_withdrawn_before_it_began_has_touched_nothing() {
    let node = NODE.to_owned();
    let step = Step::ImdsUnscheduled { node, event_id: "event-1".into() };
    let ended = ran(maintenance().at(100_000, step));
    assert_eq!((ended.phase().as_str(), ended.asks()), ("Cancelled", 0));
    ended.never_says("the node is marked");
}

#[test]
fn maintenance_that_is_moved_later_begins_another_episode_and_drains_then() {
    let scenario = maintenance().maintenance(220_000, NODE, "event-1", 600_000);
    let ended = ran(scenario.until(620_000));
    ended.says("Rescheduled");
    assert_eq!((ended.episode(), ended.phase().as_str()), (2, "Drained"));
}

#[test]
fn the_drain_for_maintenance_does_not_cease_when_the_pod_of_the_longest_grace_has_ended() {
    let mut scenario = maintenance();
    scenario.nodes[0].pods.push(a_pod("ns/long").grace(200).stops_in(500));
    scenario.nodes[0].pods.push(a_pod("ns/late").budget("slow"));
    scenario.nodes[0].pods.push(a_pod("ns/later").budget("slow"));
    let ended = ran(scenario.budget("slow", 1, Some(20_000)));
    ended.all_out_by(295_000);
    assert_eq!(ended.report.lines("the node's mark is undone").count(), 0);
}

#[test]
fn a_node_is_given_back_after_the_reboot() {
    let reboot = Step::Reboot { node: NODE.into(), down_ms: 20_000 };
    let ended = ran(maintenance().at(301_000, reboot));
    assert!(!ended.is_marked());
    assert_eq!(ended.phase(), "Gone");
}

#[test]
fn a_change_of_state_is_recorded_and_evicts_nothing() {
    for state in
        [InstanceState::Stopping, InstanceState::Stopped, InstanceState::ShuttingDown, InstanceState::Terminated]
    {
        let ended = ran(queue(two_pods(), 1_000, Subject::StateChange(state)));
        assert!(!ended.is_marked() && ended.asks() == 0);
        assert_eq!(ended.node().notices.len(), 1);
        ended.says("RecordedOnly");
    }
}

#[test]
fn cordon_only_marks_the_node_and_evicts_nothing() {
    let scenario = two_pods().policy(|p| p.cordon_only = true);
    let ended = ran(scenario.imds_says(1_000, NODE, 121_000));
    assert!(ended.is_marked() && ended.asks() == 0);
}

#[test]
fn imds_alone_empties_the_node() {
    let ended = ran(two_pods().spot_interruption(1_000, NODE, 120_000));
    ended.all_out_by(6_000);
    assert_eq!((ended.phase().as_str(), ended.node().notices.len()), ("Drained", 1));
    assert!(!ended.node().node.labels.is_empty(), "it leaves the load balancers");
}

#[test]
fn both_sources_at_once_late_and_five_times_are_one_interruption_with_two_entries() {
    for late in [0, 20_000] {
        let mut scenario = two_pods().spot_interruption(1_000, NODE, 120_000).node(a_node("node-b"));
        for copy in 0..5 {
            scenario = scenario.queue_says(1_000 + late + copy * 300, NODE, "event-1", 121_000);
        }
        let ended = ran(scenario);
        ended.all_out_by(6_000);
        assert_eq!((ended.episode(), ended.node().notices.len()), (1, 2));
        assert_eq!(ended.asks(), 2);
    }
}

#[test]
fn a_message_after_the_instance_is_gone_is_recorded_and_not_lost() {
    let scenario = two_pods().node(a_node("node-b")).spot_interruption(1_000, NODE, 20_000);
    let ended = ran(scenario.queue_says(30_000, NODE, "event-1", 21_000));
    assert_eq!(ended.node().notices.len(), 2);
}

#[test]
fn the_queue_alone_waits_for_imds_and_acts_as_soon_as_it_agrees() {
    for after in [0, 1_000, 5_000] {
        let scenario = two_pods().queue_says(1_000, NODE, "event-1", 121_000);
        let ended = ran(scenario.spot_interruption(1_000 + after, NODE, 120_000 - after));
        let first = ended.pod("ns/web-0").asked[0].0;
        assert!((1_000 + after..1_500 + after).contains(&first), "{first} for {after}");
        ended.all_out_by(116_000);
    }
}

#[test]
fn the_queue_alone_is_refuted_by_an_imds_that_denies_it_to_the_end() {
    let ended = ran(two_pods().queue_says(1_000, NODE, "forged", 61_000));
    assert_eq!((ended.phase().as_str(), ended.asks()), ("Refuted", 0));
    ended.never_says("the node is marked");
    ended.never_says("tells the workloads: ");
}

#[test]
fn the_queue_is_believed_at_once_where_imds_is_down() {
    for state in [ImdsState::Refuses, ImdsState::Hangs] {
        let scenario = two_pods().imds(0, NODE, state).queue_says(5_000, NODE, "event-1", 120_000);
        let ended = ran(scenario.at(120_000, Step::Die { node: NODE.into() }));
        ended.all_out_by(10_000);
    }
}

#[test]
fn after_a_refuted_notice_a_real_one_opens_the_next_episode() {
    let scenario = two_pods().queue_says(1_000, NODE, "forged", 30_000);
    let ended = ran(scenario.spot_interruption(40_000, NODE, 120_000));
    ended.says("Refuted");
    assert_eq!((ended.episode(), ended.phase().as_str()), (2, "Drained"));
    ended.all_out_by(155_000);
}

#[test]
fn an_instance_that_is_stopped_and_started_is_given_back_and_can_be_interrupted_again() {
    let scenario = two_pods()
        .at(1_000, spot(Action::Stop, 121_000))
        .at(121_000, Step::Reboot { node: NODE.into(), down_ms: 60_000 })
        .until(195_000);
    let back = ran(scenario.clone());
    assert!(!back.is_marked(), "{}", back.report.told());
    assert_eq!(back.phase(), "Gone");
    let again = ran(scenario.spot_interruption(200_000, NODE, 120_000));
    assert_eq!((again.episode(), again.phase().as_str()), (2, "Drained"));
}

fn spot(action: Action, deadline_ms: u64) -> Step {
    Step::ImdsSpot { node: NODE.into(), action, deadline_ms, slides: false }
}

#[test]
fn hibernation_waits_for_nobody() {
    let mut scenario = two_pods().at(1_000, spot(Action::Hibernate, 121_000));
    scenario.nodes[0].pods[1] = a_pod("ns/waits").waits();
    let ended = ran(scenario);
    ended.all_out_by(6_000);
}

#[test]
fn an_announcement_whose_time_slides_keeps_its_first_deadline() {
    let slides = Step::ImdsSpot { node: NODE.into(), action: Action::Terminate, deadline_ms: 61_000, slides: true };
    let mut scenario = two_pods().at(1_000, slides).budget("never", 0, None);
    scenario.nodes[0].pods[0].budgets.push("never".into());
    let ended = ran(scenario.at(61_000, Step::Die { node: NODE.into() }));
    ended.all_out_by(56_000);
    assert_eq!(ended.node().notices.len(), 1);
}

#[test]
fn maintenance_by_the_queue_that_imds_knows_of_is_drained_once() {
    let code = Subject::ScheduledChange(ScheduleCode("system-reboot".into()));
    let ended = ran(maintenance().queue_has(2_000, NODE, code, "arn:1", Some(300_000)));
    assert_eq!((ended.episode(), ended.node().notices.len()), (1, 2));
    assert_eq!(ended.asks(), 2);
}

#[test]
fn a_persons_request_is_carried_out_and_undone_when_it_is_withdrawn() {
    let request = Step::Request { node: NODE.into(), deadline_ms: None };
    let ended = ran(two_pods().at(1_000, request.clone()));
    ended.all_out_by(6_000);
    assert!(ended.is_marked());
    let withdrawn = two_pods().at(1_000, request).at(30_000, Step::Withdraw { node: NODE.into() });
    let ended = ran(withdrawn);
    assert!(!ended.is_marked());
    assert_eq!(ended.phase(), "Cancelled");
}

#[test]
fn a_node_that_is_retired_is_asked_only_as_budgets_allow_and_nothing_is_deleted() {
    let retire = || Step::Retire { node: NODE.into() };
    let ended = ran(one_node([a_pod("ns/db-0").budget("never")]).budget("never", 0, None).at(1_000, retire()));
    assert!(ended.is_marked() && ended.pod("ns/db-0").asked.iter().all(|(_, verb)| *verb == Verb::Evict));
    assert_eq!(ended.node().record.clone().unwrap_or_default().pods.left, 1, "it waits for the budget");
    ran(two_pods().at(1_000, retire())).all_out_by(6_000);
}

#[test]
fn what_was_withdrawn_and_is_requested_again_by_the_same_words_is_done_again() {
    let retire = || Step::Retire { node: NODE.into() };
    let withdrawn = || two_pods().at(1_000, retire()).at(30_000, Step::Withdraw { node: NODE.into() });
    let ended = ran(withdrawn());
    assert_eq!((ended.is_marked(), ended.phase().as_str()), (false, "Cancelled"));
    let ended = ran(withdrawn().at(60_000, retire()));
    assert_eq!((ended.is_marked(), ended.episode(), ended.phase().as_str()), (true, 2, "Drained"));
}

#[test]
fn an_interruption_of_a_node_that_is_being_retired_sets_its_deadline() {
    let scenario = one_node([a_pod("ns/db-0").budget("never")]).budget("never", 0, None);
    let ended = ran(scenario.at(1_000, Step::Retire { node: NODE.into() }).spot_interruption(20_000, NODE, 140_000));
    ended.all_out_by(135_000);
    assert_eq!(ended.episode(), 1);
}

#[test]
fn maintenance_that_is_moved_later_and_back_is_drained_for_the_first_date_after_all() {
    let scenario = maintenance().maintenance(100_000, NODE, "event-1", 600_000);
    let ended = ran(scenario.maintenance(160_000, NODE, "event-1", 300_000));
    ended.all_out_by(295_000);
}

#[test]
fn maintenance_that_imds_forgets_for_a_moment_is_drained_for_all_the_same() {
    let unlisted = Step::ImdsUnscheduled { node: NODE.into(), event_id: "event-1".into() };
    let scenario = maintenance().at(60_000, unlisted).maintenance(120_000, NODE, "event-1", 300_000);
    let ended = ran(scenario);
    ended.says("Withdrawn");
    ended.all_out_by(295_000);
    assert_eq!(ended.phase(), "Drained");
}

fn system_reboot() -> Subject {
    Subject::ScheduledChange(ScheduleCode("system-reboot".into()))
}

#[test]
fn a_health_event_that_is_revised_to_a_later_date_is_followed_where_imds_cannot_be_asked() {
    let scenario = two_pods()
        .node(a_node("node-b"))
        .policy(|p| p.scheduled_lead = std::time::Duration::from_secs(60))
        .imds(0, NODE, ImdsState::Refuses)
        .queue_has(5_000, NODE, system_reboot(), "arn:1", Some(200_000))
        .queue_has(60_000, NODE, system_reboot(), "arn:1", Some(400_000));
    for seed in 0..20 {
        let mut scenario = scenario.clone();
        scenario.seed = seed;
        let before = ran(scenario.clone().until(250_000));
        assert_eq!((before.asks(), before.is_marked()), (0, false), "{}", before.report.told());
        assert_eq!(before.node().notices.len(), 1);
        let ended = ran(scenario.until(400_000));
        ended.all_out_by(395_000);
        let first = ended.pod("ns/web-0").asked[0].0;
        assert!((310_000..312_000).contains(&first), "{first}");
    }
}

#[test]
fn a_health_event_that_is_revised_to_an_earlier_date_is_followed_where_imds_cannot_be_asked() {
    let scenario = two_pods()
        .node(a_node("node-b"))
        .policy(|p| p.scheduled_lead = std::time::Duration::from_secs(60))
        .imds(0, NODE, ImdsState::Refuses)
        .queue_has(5_000, NODE, system_reboot(), "arn:1", Some(400_000))
        .queue_has(60_000, NODE, system_reboot(), "arn:1", Some(200_000));
    for seed in 0..20 {
        let mut scenario = scenario.clone();
        scenario.seed = seed;
        ran(scenario.until(200_000)).all_out_by(195_000);
    }
}

#[test]
fn the_date_that_imds_has_for_maintenance_counts_before_the_one_of_the_queue() {
    let scenario = maintenance().queue_has(2_000, NODE, system_reboot(), "arn:1", Some(300_000));
    // It is moved, and AWS Health says nothing of it; or its first message comes once more.
    let scenario = scenario.maintenance(100_000, NODE, "event-1", 600_000);
    let scenario = scenario.queue_has(150_000, NODE, system_reboot(), "arn:1", Some(300_000));
    let ended = ran(scenario.until(620_000));
    let first = ended.pod("ns/web-0").asked[0].0;
    assert!((510_000..511_000).contains(&first), "{first}");
    ended.all_out_by(595_000);
}

#[test]
fn a_date_of_the_queue_gives_way_to_the_later_one_of_imds_once_imds_can_be_asked() {
    let scenario = two_pods()
        .policy(|p| p.scheduled_lead = std::time::Duration::from_secs(60))
        .imds(0, NODE, ImdsState::Refuses)
        .queue_has(5_000, NODE, system_reboot(), "arn:1", Some(100_000))
        .maintenance(20_000, NODE, "event-1", 400_000)
        .imds(50_000, NODE, ImdsState::Well);
    let ended = ran(scenario.until(420_000));
    ended.all_out_by(395_000);
    assert!(ended.episode() >= 2);
}

#[test]
fn a_queue_that_is_flooded_with_forged_notices_does_not_fill_the_agent_and_a_real_one_is_heard() {
    let mut scenario = two_pods();
    // The record itself holds 64.
    for n in 0..60 {
        scenario = scenario.queue_says(1_000 + n * 10, NODE, &format!("forged-{n}"), 90_000);
    }
    let ended = ran(scenario.clone().until(150_000));
    assert_eq!((ended.phase().as_str(), ended.asks()), ("Refuted", 0));
    assert_eq!(ended.report.lines("Crowded").count(), 1, "it is said once");
    let ended = ran(scenario.spot_interruption(20_000, NODE, 60_000));
    ended.all_out_by(25_000);
}

#[test]
fn a_termination_by_auto_scaling_is_drained_once_imds_says_the_same_and_by_asking_only() {
    let scenario = queue(two_pods(), 1_000, Subject::AutoScalingTermination);
    let ended = ran(scenario.clone());
    assert_eq!(ended.asks(), 0, "IMDS has said nothing of it");
    let terminated = Step::ImdsLifecycle { node: NODE.into(), state: "Terminated".into() };
    let ended = ran(a_never_allowing_budget(scenario).at(3_000, terminated).until(90_000));
    assert_eq!(ended.pod("ns/web-0").accepted, [], "its budget never allows it");
    assert_eq!(ended.pod("ns/web-1").accepted.len(), 1);
    ended.never_says("Delete");
}
