//! What the provisioner has seen in EC2, and what follows for a notice by the queue alone.

use spotkeeper::domain::notice::{Action, InstanceState, Subject};
use spotkeeper::interruption::Verb;
use spotkeeper::sim::scenario::{ImdsState, Scenario, Step};

use super::{NODE, ran, two_pods};

fn spot() -> Subject {
    Subject::SpotInterruption(Action::Terminate)
}

/// A warning by the queue alone, which a healthy IMDS denies to the end.
fn denied() -> Scenario {
    two_pods().queue_says(1_000, NODE, "event-1", 121_000)
}

#[test]
fn a_notice_that_ec2_confirms_is_acted_on_though_imds_denies_it() {
    let scenario = denied().ec2_confirms(4_000, NODE, spot(), "event-1", Some(121_000));
    let ended = ran(scenario.at(121_000, Step::Die { node: NODE.into() }));
    let first = ended.pod("ns/web-0").asked[0].0;
    assert!((4_000..4_500).contains(&first), "{first}");
    ended.all_out_by(116_000);
    assert_eq!((ended.episode(), ended.phase().as_str()), (1, "Drained"));
    ended.says("the provisioner saw it in EC2");
    ended.never_says("denied it");
}

#[test]
fn what_ec2_says_of_another_event_confirms_no_other_notice_of_the_record() {
    let state = Subject::StateChange(InstanceState::Stopping);
    let scenario = two_pods().queue_has(1_000, NODE, state.clone(), "event-1", None);
    let ended = ran(scenario.ec2_confirms(4_000, NODE, spot(), "event-9", Some(124_000)).until(130_000));
    // The drain is the one that EC2 spoke of; the change of state is still but recorded.
    ended.all_out_by(119_000);
    assert_eq!(ended.report.lines("StateChange was confirmed").count(), 0);
}

#[test]
fn a_change_of_state_that_ec2_confirms_is_drained_by_asking_only() {
    for subject in [
        Subject::StateChange(InstanceState::Stopping),
        Subject::StateChange(InstanceState::ShuttingDown),
        Subject::CapacityReservationInterruption,
        Subject::CapacityBlockEnding,
    ] {
        let queue = two_pods().queue_has(1_000, NODE, subject.clone(), "event-1", None);
        let ended = ran(queue.ec2_confirms(3_000, NODE, subject.clone(), "event-1", None));
        assert!(ended.is_marked(), "{subject:?}");
        for pod in ["ns/web-0", "ns/web-1"] {
            assert!(ended.pod(pod).asked.iter().all(|(_, verb)| *verb == Verb::Evict), "{subject:?}");
            assert_eq!(ended.pod(pod).accepted.len(), 1, "{subject:?}");
        }
    }
}

#[test]
fn a_notice_that_was_refuted_and_is_then_seen_in_ec2_opens_the_next_episode() {
    let scenario = two_pods().queue_says(1_000, NODE, "event-1", 30_000);
    let scenario = scenario.ec2_confirms(26_000, NODE, spot(), "event-1", Some(60_000));
    let ended = ran(scenario.at(60_000, Step::Die { node: NODE.into() }));
    ended.all_out_by(56_000);
    assert_eq!(ended.episode(), 2);
}

#[test]
fn an_agent_that_starts_anew_reads_in_the_record_what_ec2_confirmed() {
    for killed in [4_050, 6_000] {
        let scenario = denied().ec2_confirms(4_000, NODE, spot(), "event-1", Some(121_000)).kill(killed, NODE, 20_000);
        let ended = ran(scenario.at(121_000, Step::Die { node: NODE.into() }));
        ended.all_out_by(116_000);
        ended.never_says("denied it");
    }
}

#[test]
fn a_stand_in_drains_by_what_ec2_confirmed_where_the_agent_is_silent() {
    let mut scenario = denied().ec2_confirms(4_000, NODE, spot(), "event-1", Some(121_000));
    scenario.takes_over = true;
    let ended = ran(scenario.kill(2_000, NODE, 100_000_000).at(121_000, Step::Die { node: NODE.into() }));
    ended.all_out_by(60_000);
}

#[test]
fn what_ec2_confirmed_is_not_asked_of_an_imds_any_more() {
    // With its IMDS down the queue would be believed anyhow; what EC2 said first is why.
    let scenario = denied().ec2_confirms(4_000, NODE, spot(), "event-1", Some(121_000));
    let ended = ran(scenario.imds(8_000, NODE, ImdsState::Hangs).at(121_000, Step::Die { node: NODE.into() }));
    ended.never_says("is not healthy, so the queue is believed");
    ended.all_out_by(116_000);
}
