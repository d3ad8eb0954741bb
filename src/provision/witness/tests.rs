use super::*;
use crate::interruption::merge;

fn wall(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    wall("2026-04-24T17:00:00Z")
}

fn sight(state: InstanceState, by_ec2: bool) -> Sight {
    Sight { instance: "i-00000001".parse().unwrap(), state, by_ec2, marked: None, reserved_until: None }
}

fn entry(source: Source, kind: Kind, event_id: &str) -> NoticeEntry {
    NoticeEntry {
        source,
        kind,
        event_id: event_id.into(),
        action: None,
        reporter: None,
        noticed_at: Some(now()),
        deadline: None,
    }
}

#[test]
fn only_what_ec2_does_itself_bears_a_notice_out() {
    let going =
        [InstanceState::Stopping, InstanceState::Stopped, InstanceState::ShuttingDown, InstanceState::Terminated];
    for kind in [Kind::SpotInterruption, Kind::StateChange, Kind::CapacityReservationInterruption] {
        for state in going {
            assert_eq!(sight(state, true).evidence(kind, now()), Some(Evidence::Taken(state)), "{kind}");
            assert_eq!(sight(state, false).evidence(kind, now()), None, "{kind}: somebody has ended it");
        }
        assert_eq!(sight(InstanceState::Running, true).evidence(kind, now()), None, "{kind}");
    }
    for kind in [Kind::RebalanceRecommendation, Kind::ScheduledChange, Kind::AutoScalingTermination, Kind::Requested] {
        assert_eq!(sight(InstanceState::Terminated, true).evidence(kind, now()), None, "{kind}");
    }
}

#[test]
fn a_marked_spot_request_is_a_spot_interruption_and_no_change_of_state() {
    let marked = Sight { marked: Some(Action::Stop), ..sight(InstanceState::Running, false) };
    assert_eq!(marked.evidence(Kind::SpotInterruption, now()), Some(Evidence::Marked(Action::Stop)));
    assert_eq!(marked.evidence(Kind::StateChange, now()), None);
    let sqs = entry(Source::Sqs, Kind::SpotInterruption, "e");
    let written = notice(&sqs, Evidence::Marked(Action::Stop), now());
    assert_eq!((written.source, written.action.as_deref()), (Source::Provisioner, Some("stop")));
    assert_eq!((written.kind, written.event_id), (sqs.kind, sqs.event_id));
}

#[test]
fn a_reservation_bears_a_warning_out_only_where_it_ends_soon() {
    let kind = Kind::CapacityReservationInterruption;
    let until = |at| Sight { reserved_until: Some(wall(at)), ..sight(InstanceState::Running, false) };
    let soon = until("2026-04-24T17:30:00Z");
    let evidence = soon.evidence(kind, now());
    assert_eq!(evidence, Some(Evidence::ReservationEnds(wall("2026-04-24T17:30:00Z"))));
    assert_eq!(until("2026-05-24T17:30:00Z").evidence(kind, now()), None);
    // What the warning says goes before the end of the reservation.
    let said = NoticeEntry { deadline: Some(wall("2026-04-24T17:02:00Z")), ..entry(Source::Sqs, kind, "e") };
    assert_eq!(notice(&said, evidence.unwrap(), now()).deadline, said.deadline);
    let unsaid = entry(Source::Sqs, kind, "e");
    assert_eq!(notice(&unsaid, evidence.unwrap(), now()).deadline, soon.reserved_until);
}

#[test]
fn ec2_is_asked_about_what_the_queue_alone_says() {
    let sqs = entry(Source::Sqs, Kind::SpotInterruption, "e");
    let of = |others: &[NoticeEntry], over: &[String]| {
        let all = [std::slice::from_ref(&sqs), others].concat();
        unconfirmed(&all, over).map(|entry| entry.event_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&[], &[]), ["e"]);
    assert!(of(&[], &[merge::settled(&sqs)]).is_empty(), "its episode is over");
    let imds = entry(Source::Imds, Kind::SpotInterruption, "2026-04-24T17:02:00Z");
    assert!(of(std::slice::from_ref(&imds), &[]).is_empty(), "IMDS says the same");
    assert_eq!(of(std::slice::from_ref(&imds), &[merge::settled(&imds)]), ["e"], "that was in an earlier episode");
    assert!(of(&[entry(Source::Provisioner, Kind::SpotInterruption, "e")], &[]).is_empty(), "it was seen");
    assert_eq!(of(&[entry(Source::Provisioner, Kind::SpotInterruption, "other")], &[]), ["e"]);
    let more = [entry(Source::Sqs, Kind::RebalanceRecommendation, "r"), entry(Source::Sqs, Kind::StateChange, "s")];
    assert_eq!(of(&more, &[]), ["e", "s"], "EC2 has nothing to say of a recommendation");
}

#[test]
fn the_looks_grow_apart_to_five_seconds() {
    let pauses: Vec<u64> = (1..7).map(|looks| pause(looks).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 5, 5, 5]);
}

fn status(phase: Option<Phase>, kind: Kind, episode: i64) -> InterruptionStatus {
    InterruptionStatus { episode, phase, kind: Some(kind), ..InterruptionStatus::default() }
}

#[test]
fn what_was_taken_unheard_is_over_with_all_that_its_record_tells() {
    let notices = [entry(Source::Sqs, Kind::StateChange, "s"), unheard(InstanceState::Terminated, now())];
    let over = taken(&InterruptionStatus::default(), &notices, "because".into(), now()).unwrap();
    assert_eq!((over.episode, over.phase, over.kind), (1, Some(Phase::Gone), Some(Kind::StateChange)));
    assert_eq!(over.settled.len(), 2, "nothing is left to be drained for");
    assert_eq!(over.timeline.ended_at, Some(now()));
    assert_eq!(taken(&over, &notices, "because".into(), now()), None, "once");
}

#[test]
fn an_episode_that_was_open_is_ended_and_one_that_was_over_is_followed_by_another() {
    let notices = [unheard(InstanceState::Terminated, now())];
    let of = |phase, kind| taken(&status(phase, kind, 3), &notices, String::new(), now()).map(|next| next.episode);
    assert_eq!(of(Some(Phase::Noticed), Kind::SpotInterruption), Some(3));
    assert_eq!(of(Some(Phase::Refuted), Kind::SpotInterruption), Some(4));
    assert_eq!(of(Some(Phase::Cancelled), Kind::ScheduledChange), Some(4));
    // It was stopped and started again long ago.
    assert_eq!(of(Some(Phase::Gone), Kind::SpotInterruption), Some(4));
    // That it might be taken was heard, and that it was not.
    assert_eq!(of(Some(Phase::Cordoned), Kind::RebalanceRecommendation), Some(3));
    // Nobody can have acted on a record without a kind: it was edited by hand.
    let edited = InterruptionStatus { kind: None, ..status(Some(Phase::Confirmed), Kind::SpotInterruption, 3) };
    assert!(taken(&edited, &notices, String::new(), now()).is_some());
    for phase in [Phase::Confirmed, Phase::Draining, Phase::Drained] {
        assert_eq!(of(Some(phase), Kind::SpotInterruption), None, "{phase:?}: somebody has heard of it");
    }
}
