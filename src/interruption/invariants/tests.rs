//! That each invariant can fail: streams and worlds that are wrong, and the objection to them.

use super::ledger::{Able, Asked, Foreign, Ledger, PodFate, notice_kept, restored};
use super::*;
use crate::domain::node::{Node, Taint};
use crate::domain::notice::{Action, Notice, Source, Subject};
use crate::domain::pod::OnInterruption;
use crate::domain::time::{Deadline, Epoch};
use crate::interruption::mark::{INTERRUPTION, Mark};
use crate::interruption::{Reading, SpotAction};

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

fn deadline(secs: u64) -> Deadline {
    let epoch = Epoch("2026-04-24T17:00:00Z".parse().unwrap());
    Deadline { at: at(secs), announced: epoch.wall(at(secs)) }
}

fn pod(grace: u64) -> Pod {
    Pod {
        uid: PodUid("uid-1".into()),
        namespace: "ns".into(),
        name: "web".into(),
        grace: Duration::from_secs(grace),
        policy: OnInterruption::Evict,
        bound_to_node: None,
        kept_in_zone: false,
        finished: false,
        ends_at: None,
    }
}

/// A witness of a node with one pod, and with a spot interruption at 100 s where `notice` says so.
fn witness(grace: u64, notice: bool) -> Witness {
    let mut witness = Witness::new(Policy::default());
    let spot = notice.then(|| SpotAction { action: Action::Terminate, deadline: deadline(100) });
    witness.input(at(0), &Input::ImdsAnswered(Reading { spot, ..Reading::default() }));
    witness.input(at(0), &Input::PodsListed(vec![pod(grace)]));
    witness
}

fn ask(verb: Verb, grace_secs: Option<u32>) -> Effect {
    Effect::Ask(Ask {
        verb,
        uid: PodUid("uid-1".into()),
        namespace: "ns".into(),
        name: "web".into(),
        grace_secs,
        because: Because::Planned,
    })
}

fn answer(answer: Answer) -> Input {
    Input::Asked { uid: PodUid("uid-1".into()), verb: Verb::Evict, answer }
}

#[track_caller]
fn objects(violations: &[Violation], invariant: Invariant) {
    assert!(
        violations.iter().any(|v| v.invariant == invariant),
        "no objection under {}: {violations:?}",
        invariant.code()
    );
}

fn mark() -> Effect {
    Effect::Mark(Mark { kind: Kind::SpotInterruption, episode: 1, deadline: None, exclude_from_load_balancers: true })
}

#[test]
fn a_drain_as_it_should_be_raises_no_objection() {
    let mut witness = witness(30, true);
    assert_eq!(witness.effect(at(1), &mark()), []);
    for secs in [1, 20, 64] {
        assert_eq!(witness.effect(at(secs), &ask(Verb::Evict, Some(30))), []);
        witness.input(at(secs), &answer(Answer::Blocked { budget: None }));
    }
    assert_eq!(witness.effect(at(65), &ask(Verb::Delete, Some(30))), []);
}

#[test]
fn i_1_objects_to_asking_again_what_was_acknowledged_unless_it_would_outlive_the_deadline() {
    let mut first = witness(30, true);
    first.effect(at(1), &ask(Verb::Evict, Some(30)));
    first.input(at(2), &answer(Answer::Accepted));
    objects(&first.effect(at(3), &ask(Verb::Evict, Some(20))), Invariant::AskedOnce);

    let mut outliving = witness(600, true);
    outliving.effect(at(1), &ask(Verb::Evict, None));
    outliving.input(at(2), &answer(Answer::Accepted));
    assert_eq!(outliving.effect(at(3), &ask(Verb::Evict, Some(92))), []);
}

#[test]
fn i_1_objects_to_asking_twice_at_once() {
    let mut witness = witness(30, true);
    witness.effect(at(1), &ask(Verb::Evict, Some(30)));
    objects(&witness.effect(at(1), &ask(Verb::Evict, Some(30))), Invariant::AskedOnce);
}

#[test]
fn i_2_objects_to_deleting_before_the_latest_start_without_a_first_ask_and_after_the_deadline() {
    let blocked = || answer(Answer::TooManyBudgets);
    let mut early = witness(30, true);
    early.effect(at(1), &ask(Verb::Evict, Some(30)));
    early.input(at(2), &blocked());
    objects(&early.effect(at(64), &ask(Verb::Delete, Some(30))), Invariant::NotDeletedEarly);

    let mut long = witness(600, true);
    long.effect(at(1), &ask(Verb::Evict, Some(94)));
    long.input(at(2), &blocked());
    objects(&long.effect(at(10), &ask(Verb::Delete, Some(85))), Invariant::NotDeletedEarly);
    long.input(at(10), &blocked());
    assert_eq!(long.effect(at(11), &ask(Verb::Delete, Some(84))), []);

    objects(&witness(30, true).effect(at(80), &ask(Verb::Delete, Some(15))), Invariant::NotDeletedEarly);
    objects(&witness(30, true).effect(at(101), &ask(Verb::Evict, Some(1))), Invariant::NotDeletedEarly);
}

#[test]
fn i_3_objects_to_anything_that_is_done_while_nothing_is_confirmed() {
    let unconfirmed = || {
        let mut witness = witness(30, false);
        let notice = Notice {
            instance: "i-0123456789abcdef0".parse().unwrap(),
            source: Source::Sqs,
            subject: Subject::SpotInterruption(Action::Terminate),
            event_id: "forged".into(),
            deadline: Some(deadline(100).announced),
        };
        witness.input(at(1), &Input::Noticed { notice, deadline: Some(deadline(100)) });
        witness
    };
    objects(&unconfirmed().effect(at(2), &mark()), Invariant::NothingUnconfirmed);
    objects(&unconfirmed().effect(at(2), &ask(Verb::Evict, Some(30))), Invariant::NothingUnconfirmed);
    let mut believed = unconfirmed();
    believed.input(at(2), &Input::ImdsFailed);
    objects(&believed.effect(at(2), &mark()), Invariant::NothingUnconfirmed);
    believed.input(at(3), &Input::ImdsFailed);
    assert_eq!(believed.effect(at(3), &mark()), []);
}

#[test]
fn i_3_objects_to_asking_a_pod_that_stays() {
    let mut witness = witness(30, true);
    let stays = Pod { policy: OnInterruption::Stay, ..pod(30) };
    witness.input(at(1), &Input::PodSeen(stays));
    objects(&witness.effect(at(2), &ask(Verb::Evict, Some(30))), Invariant::NothingUnconfirmed);
}

#[test]
fn i_3_objects_to_what_is_left_on_the_node_and_to_what_was_taken_from_others() {
    let taint = |key: &str| Taint { key: key.into(), value: None, effect: "NoSchedule".into(), time_added: None };
    let clean = Node { name: "node-a".into(), ..Node::default() };
    assert_eq!(restored(&clean, &Foreign::default()), []);
    let left = Node { taints: vec![taint(INTERRUPTION)], ..clean.clone() };
    objects(&restored(&left, &Foreign::default()), Invariant::NothingUnconfirmed);
    let theirs = Foreign { cordoned: true, ..Foreign::default() };
    objects(&restored(&clean, &theirs), Invariant::NothingUnconfirmed);
    let theirs = Foreign { taints: vec![taint("gpu")], ..Foreign::default() };
    objects(&restored(&clean, &theirs), Invariant::NothingUnconfirmed);
}

#[test]
fn i_4_and_i_5_object_to_a_status_that_goes_back() {
    let status = |episode, phase, secs| InterruptionStatus {
        episode,
        phase: Some(phase),
        deadline: Some(deadline(secs).announced),
        ..InterruptionStatus::default()
    };
    let after = |next: InterruptionStatus| {
        let mut witness = witness(30, true);
        let first = Effect::RecordStatus(Box::new(status(2, Phase::Draining, 100)));
        assert_eq!(witness.effect(at(1), &first), []);
        witness.effect(at(2), &Effect::RecordStatus(Box::new(next)))
    };
    objects(&after(status(2, Phase::Confirmed, 100)), Invariant::PhasesForward);
    objects(&after(status(1, Phase::Drained, 100)), Invariant::PhasesForward);
    objects(&after(status(2, Phase::Draining, 101)), Invariant::DeadlineNeverLater);
    assert_eq!(after(status(3, Phase::Noticed, 200)), []);
}

#[test]
fn i_8_objects_to_no_grace_to_too_much_and_to_any_without_a_deadline() {
    objects(&witness(30, true).effect(at(1), &ask(Verb::Evict, Some(0))), Invariant::GraceKept);
    objects(&witness(30, true).effect(at(1), &ask(Verb::Evict, Some(31))), Invariant::GraceKept);
    objects(&witness(30, false).effect(at(1), &ask(Verb::Evict, Some(30))), Invariant::GraceKept);
    assert_eq!(witness(0, true).effect(at(1), &ask(Verb::Evict, Some(0))), []);
}

#[test]
fn i_6_objects_to_giving_up_what_was_confirmed() {
    let notice = crate::api::interruption::NoticeKey {
        source: Source::Imds,
        kind: Kind::SpotInterruption,
        event_id: deadline(100).announced.to_string(),
    };
    let refuted = Effect::Decided(Because::Refuted { notice, denials: 1 });
    objects(&witness(30, true).effect(at(1), &refuted), Invariant::EveryPodInTime);
}

fn ledger(asks: Vec<Asked>) -> Ledger {
    Ledger {
        capacity_first: false,
        margin: Duration::from_secs(5),
        slack: Duration::from_secs(2),
        clock_was_off: false,
        able: vec![Able { from: at(1), to: at(100), deadline: at(100) }],
        pods: vec![PodFate {
            path: "ns/web".into(),
            grace: Duration::from_secs(30),
            policy: OnInterruption::Evict,
            evictable: true,
            created: at(0),
            out_at: None,
            asks,
        }],
        statuses: Vec::new(),
    }
}

#[test]
fn the_ledger_objects_to_a_pod_that_was_never_asked_or_was_held_past_its_latest_start() {
    let ask = |sent, ends_at: Option<u64>| Asked {
        sent: at(sent),
        acknowledged: ends_at.map(|_| at(sent)),
        ends_at: ends_at.map(at),
    };
    objects(&ledger(vec![]).judge(), Invariant::EveryPodInTime);
    objects(&ledger(vec![ask(50, Some(80))]).judge(), Invariant::EveryPodInTime);
    objects(&ledger(vec![ask(1, None)]).judge(), Invariant::EveryPodInTime);
    objects(&ledger(vec![ask(1, None), ask(80, Some(95))]).judge(), Invariant::EveryPodInTime);
    assert_eq!(ledger(vec![ask(1, None), ask(65, Some(95))]).judge(), []);
}

#[test]
fn the_ledger_objects_to_asking_again_over_a_restart() {
    let ask = |sent| Asked { sent: at(sent), acknowledged: Some(at(sent + 1)), ends_at: Some(at(sent + 31)) };
    objects(&ledger(vec![ask(1), ask(9)]).judge(), Invariant::AskedOnce);
    assert_eq!(ledger(vec![ask(1)]).judge(), []);
}

#[test]
fn i_7_objects_to_a_message_that_was_deleted_before_it_was_written() {
    assert_eq!(notice_kept("sqs/SpotInterruption/1", true), None);
    let objection = notice_kept("sqs/SpotInterruption/1", false);
    objects(objection.as_slice(), Invariant::NoticesKept);
}
