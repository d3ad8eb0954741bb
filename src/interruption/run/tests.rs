//! The thread through the whole machine, by hand; the simulator does the rest.

use jiff::Timestamp;

use super::*;
use crate::domain::notice::{Action, Source, Subject};
use crate::domain::pod::{OnInterruption, Pod, PodUid};
use crate::domain::time::Deadline;
use crate::interruption::{Answer, Reading, SpotAction, Verb};

fn epoch() -> Epoch {
    Epoch("2026-04-24T17:00:00Z".parse().unwrap())
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn deadline(millis: u64) -> Deadline {
    Deadline { at: at(millis), announced: epoch().wall(at(millis)) }
}

fn keeper(policy: Policy) -> Keeper {
    let me = Identity {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        node: "node-a".into(),
        provider_id: "aws:///eu-west-1a/i-0123456789abcdef0".into(),
    };
    Keeper::new(me, policy, epoch())
}

fn node(boot: &str) -> Node {
    Node { name: "node-a".into(), boot_id: Some(boot.into()), ..Node::default() }
}

fn pod(name: &str, grace: u64) -> Pod {
    Pod {
        uid: PodUid(format!("uid-{name}")),
        namespace: "ns".into(),
        name: name.into(),
        grace: Duration::from_secs(grace),
        policy: OnInterruption::Evict,
        bound_to_node: None,
        kept_in_zone: false,
        finished: false,
        ends_at: None,
    }
}

fn spot(millis: u64) -> Reading {
    Reading { spot: Some(SpotAction { action: Action::Terminate, deadline: deadline(millis) }), ..Reading::default() }
}

fn handle(keeper: &mut Keeper, millis: u64, input: Input) -> Vec<Effect> {
    let mut effects = Vec::new();
    keeper.handle(at(millis), input, &mut effects);
    effects
}

fn wake(keeper: &mut Keeper, millis: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    keeper.wake(at(millis), &mut effects);
    effects
}

fn asks(effects: &[Effect]) -> Vec<(Verb, &str, Option<u32>)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Ask(ask) => Some((ask.verb, ask.name.as_str(), ask.grace_secs)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_notice_tells_the_workloads_before_it_touches_the_network_and_empties_the_node() {
    let mut keeper = keeper(Policy::default());
    handle(&mut keeper, 0, Input::NodeSeen(node("boot-1")));
    handle(&mut keeper, 0, Input::RecordSeen(None));
    let effects = handle(&mut keeper, 1_000, Input::ImdsAnswered(spot(121_000)));
    let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    let told = place(|e| matches!(e, Effect::Tell(_)));
    for network in [place(|e| matches!(e, Effect::Mark(_))), place(|e| matches!(e, Effect::WatchPods))] {
        assert!(told < network, "{effects:#?}");
    }
    let records = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::RecordNotice(_)));
    assert!(!records(&effects), "the mark goes first");
    assert!(records(&handle(&mut keeper, 1_010, Input::Marked(Outcome::Done))));
    let effects = handle(&mut keeper, 1_050, Input::PodsListed(vec![pod("short", 30), pod("long", 600)]));
    // D − m − now = 114.95 s: the long one gets what is left, and is asked first.
    assert_eq!(asks(&effects), [(Verb::Evict, "long", Some(114)), (Verb::Evict, "short", Some(30))]);
    for name in ["long", "short"] {
        let uid = PodUid(format!("uid-{name}"));
        handle(&mut keeper, 1_100, Input::Asked { uid: uid.clone(), verb: Verb::Evict, answer: Answer::Accepted });
        handle(&mut keeper, 2_000, Input::PodGone(uid));
    }
    assert_eq!(keeper.phase(), Some(Phase::Drained));
}

#[test]
fn a_budget_that_never_allows_is_asked_until_the_latest_start_and_then_overruled() {
    let mut keeper = keeper(Policy::default());
    handle(&mut keeper, 0, Input::NodeSeen(node("boot-1")));
    handle(&mut keeper, 1_000, Input::ImdsAnswered(spot(121_000)));
    let mut now = 1_000;
    let mut effects = handle(&mut keeper, now, Input::PodsListed(vec![pod("web", 30)]));
    let mut evictions = 0;
    let deleted_at = loop {
        match asks(&effects).first() {
            Some((Verb::Evict, ..)) => {
                evictions += 1;
                let blocked = Answer::Blocked { budget: Some("web".into()) };
                let uid = PodUid("uid-web".into());
                handle(&mut keeper, now, Input::Asked { uid, verb: Verb::Evict, answer: blocked });
            }
            Some((Verb::Delete, _, grace)) => break (now, *grace),
            None => {}
        }
        now = keeper.next_wakeup().expect("a pod is left").as_millis().max(now);
        effects = wake(&mut keeper, now);
    };
    // L = D − m − g = 121 − 5 − 30 s.
    assert_eq!(deleted_at, (86_000, Some(30)));
    assert!((40..60).contains(&evictions), "{evictions} evictions in 85 s, 250 ms growing to 2 s apart");
}

#[test]
fn a_notice_by_the_queue_alone_touches_nothing_while_a_healthy_imds_denies_it() {
    let mut keeper = keeper(Policy::default());
    handle(&mut keeper, 0, Input::NodeSeen(node("boot-1")));
    handle(&mut keeper, 0, Input::RecordSeen(None));
    handle(&mut keeper, 0, Input::ImdsAnswered(Reading::default()));
    let notice = crate::domain::notice::Notice {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        source: Source::Sqs,
        subject: Subject::SpotInterruption(Action::Terminate),
        event_id: "forged".into(),
        deadline: Some(deadline(120_000).announced),
    };
    let effects = handle(&mut keeper, 500, Input::Noticed { notice, deadline: Some(deadline(120_000)) });
    assert!(effects.contains(&Effect::PollImds(Pace::Urgent)));
    let mut all = effects;
    for round in 3..480 {
        all.extend(handle(&mut keeper, round * 250, Input::ImdsAnswered(Reading::default())));
    }
    assert!(!all.iter().any(|e| matches!(e, Effect::Mark(_) | Effect::Tell(_) | Effect::WatchPods)), "{all:#?}");
    assert!(all.iter().any(|e| matches!(e, Effect::Decided(Because::Refuted { .. }))));
    assert_eq!(keeper.phase(), None);
}

#[test]
fn a_later_boot_undoes_the_mark_of_the_boot_before() {
    let mut keeper = keeper(Policy::default());
    let mut marked = node("boot-2");
    marked
        .annotations
        .insert(INTERRUPTION.into(), r#"{"by":"spotkeeper-agent","kind":"ScheduledChange","episode":1}"#.into());
    handle(&mut keeper, 0, Input::NodeSeen(marked));
    let status = crate::api::interruption::InterruptionStatus {
        episode: 1,
        phase: Some(Phase::Drained),
        boot_id: Some("boot-1".into()),
        ..Default::default()
    };
    let record = Record {
        version: "1".into(),
        node: "node-a".into(),
        provider_id: "aws:///eu-west-1a/i-0123456789abcdef0".into(),
        notices: Vec::new(),
        status,
        deadline: None,
        asked_for: None,
    };
    let mut effects = handle(&mut keeper, 10, Input::RecordSeen(Some(record)));
    effects.extend(handle(&mut keeper, 20, Input::ImdsAnswered(Reading::default())));
    assert_eq!(effects.iter().filter(|e| **e == Effect::Unmark).count(), 1, "{effects:#?}");
    let gone = |e: &Effect| matches!(e, Effect::RecordStatus(s) if s.phase == Some(Phase::Gone));
    assert!(effects.iter().any(gone), "{effects:#?}");
    assert_eq!(handle(&mut keeper, 30, Input::Marked(Outcome::Done)), []);
}

#[test]
fn a_rebalance_that_is_avoided_marks_the_node_and_a_later_interruption_upgrades_it() {
    let mut keeper = keeper(Policy::default());
    handle(&mut keeper, 0, Input::NodeSeen(node("boot-1")));
    let noticed: Timestamp = "2026-04-24T16:59:00Z".parse().unwrap();
    let rebalance = Reading { rebalance: Some(noticed), ..Reading::default() };
    let effects = handle(&mut keeper, 1_000, Input::ImdsAnswered(rebalance.clone()));
    let mark = |effects: &[Effect]| {
        effects.iter().find_map(|e| if let Effect::Mark(mark) = e { Some(mark.clone()) } else { None })
    };
    assert!(!mark(&effects).expect("it is marked").exclude_from_load_balancers);
    assert!(!effects.contains(&Effect::WatchPods));
    handle(&mut keeper, 1_010, Input::Marked(Outcome::Done));
    assert_eq!(keeper.phase(), Some(Phase::Cordoned));
    let effects = handle(&mut keeper, 9_000, Input::ImdsAnswered(Reading { spot: spot(129_000).spot, ..rebalance }));
    let upgraded = mark(&effects).expect("it is marked anew");
    assert_eq!((upgraded.kind, upgraded.episode), (Kind::SpotInterruption, 1));
    assert!(upgraded.exclude_from_load_balancers && effects.contains(&Effect::WatchPods));
}
