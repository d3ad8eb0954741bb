//! What a leader finds that has begun to lead: claims that were being let go, calls whose outcome nobody knows, instances
//! that EC2 does not show.

use std::time::Duration;

use spotkeeper::api::launch::{ClaimRef, LaunchOutcome, LaunchSpec, LaunchStatus, Launched};
use spotkeeper::api::node_claim::{ATTEMPTS_MAX, Attempt, ClaimPhase, NodeClaimStatus};
use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::domain::time::{Epoch, Instant};
use spotkeeper::provision::{Answer, Effect, Input, Instance, Launch, NodeView};

use super::leader::{Leader, claim, id, offering, ready, seen};

const FOR_EVER: Instant = Instant::from_millis(u64::MAX / 2);
const MINUTE: Duration = Duration::from_secs(60);

fn launched(phase: ClaimPhase) -> NodeClaimStatus {
    NodeClaimStatus { phase: Some(phase), ..ready(&id(1)) }
}

fn node(ready: bool) -> NodeView {
    NodeView {
        name: "n".into(),
        uid: "n".into(),
        instance: Some(id(1)),
        provider_id: Some("aws:///a/i-00000001".into()),
        ready,
        ..NodeView::default()
    }
}

/// A call for claim `c` that was written down, with this outcome.
fn launch(name: &str, outcome: Option<LaunchOutcome>) -> Launch {
    let of = claim("c", "u", NodeClaimStatus::default());
    let spec = LaunchSpec {
        claims: vec![ClaimRef { name: "c".into(), uid: "u".into() }],
        capacity_type: Spot,
        count: 1,
        recipe: of.spec.recipe.expect("it has one"),
        node_pool: None,
        overrides: Vec::new(),
    };
    let status = LaunchStatus { outcome, ..LaunchStatus::default() };
    Launch { name: name.into(), uid: format!("uid-{name}"), spec, status }
}

/// The tokens of the calls so far.
fn calls_of(leader: &Leader) -> Vec<&str> {
    let mut tokens = Vec::new();
    for effect in &leader.done {
        if let Effect::Call { token, .. } = effect {
            tokens.push(token.as_str());
        }
    }
    tokens
}

/// It had been let go, and its instance was being ended, when the leader died. That its instance has ended is no reason
/// to launch another.
#[test]
fn a_stand_in_that_is_being_ended_is_not_launched_again_by_the_next_leader() {
    let mut leader = Leader::new(vec![claim("c", "u", launched(ClaimPhase::Terminating))], Vec::new());
    let ended = Instance { alive: false, terminated: true, ..seen(&id(1), Some("t")) };
    leader.reads(vec![ended]);
    leader.later(5 * MINUTE);
    assert_eq!(leader.calls(), [], "{:?}", leader.done);
    assert!(leader.done.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })), "{:?}", leader.done);
}

#[test]
fn what_was_let_go_is_ended_whoever_leads() {
    let claims = vec![claim("c", "u", launched(ClaimPhase::Terminating))];
    let mut leader = Leader::of(claims, Vec::new(), vec![NodeView { cordoned: true, ..node(true) }]);
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.later(MINUTE);
    assert_eq!(leader.ends(), 1, "{:?}", leader.done);
}

/// Leaders that follow each other faster than an instance may take to register do not give it for ever.
#[test]
fn an_instance_that_never_joins_is_ended_in_time_whoever_leads() {
    let epoch = Epoch(jiff::Timestamp::from_second(1_790_000_000).unwrap());
    let status = NodeClaimStatus {
        node_name: None,
        launched_at: Some(epoch.wall(Instant::default()) - 14 * MINUTE),
        ..launched(ClaimPhase::Launched)
    };
    let mut leader = Leader::new(vec![claim("c", "u", status)], Vec::new());
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.later(Duration::from_secs(59));
    assert_eq!(leader.ends(), 0);
    leader.later(Duration::from_secs(2));
    assert_eq!(leader.ends(), 1, "its fifteen minutes are over");
}

/// Whether a call may be made is looked at before its token: the refusal says nothing of what the first one did.
#[test]
fn f2_an_unknown_call_whose_repetition_is_denied_is_still_unknown() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    leader.reads(Vec::new());
    assert_eq!(calls_of(&leader), ["uid-c.1"]);
    let answers = |leader: &mut Leader, answer| leader.hears(Input::Called { launch: "c.1".into(), answer });
    answers(&mut leader, Answer::Unknown("connection reset".into()));
    leader.later(Duration::from_secs(2));
    assert_eq!(calls_of(&leader), ["uid-c.1", "uid-c.1"]);
    answers(&mut leader, Answer::Refused { code: "ExpiredToken".into(), message: String::new() });
    leader.later(Duration::from_secs(40));
    assert!(calls_of(&leader).iter().all(|token| *token == "uid-c.1"), "{:?}", calls_of(&leader));
    assert!(calls_of(&leader).len() > 2, "it is asked again, with its token");
    let found = Launched { instance_id: id(1), offering: offering(Spot) };
    answers(&mut leader, Answer::Fleet { instances: vec![found], errors: Vec::new() });
    leader.later(Duration::from_secs(40));
    assert!(
        calls_of(&leader).iter().all(|token| *token == "uid-c.1"),
        "it has its instance: nothing else is asked for"
    );
}

/// The record of a call that was presumed to have done nothing stays for an hour; the claim has asked more often since
/// than its status holds.
#[test]
fn a_presumed_call_of_long_ago_is_not_taken_for_the_one_on_its_way() {
    let attempts = (3..3 + ATTEMPTS_MAX).map(|nth| Attempt {
        launch: format!("c.{nth}"),
        capacity_type: OnDemand,
        because: (nth < 2 + ATTEMPTS_MAX).then(|| "it was throttled".into()),
    });
    let status = NodeClaimStatus {
        phase: Some(ClaimPhase::Launching),
        attempts: attempts.collect(),
        attempts_total: 18,
        ..NodeClaimStatus::default()
    };
    let launches = vec![launch("c.18", None), launch("c.2", Some(LaunchOutcome::PresumedNone))];
    let mut leader = Leader::new(vec![claim("c", "u", status)], launches);
    leader.reads(Vec::new());
    leader.later(Duration::from_secs(2));
    assert_eq!(calls_of(&leader), ["uid-c.18"], "it is repeated, and nothing else is asked for");
    let longest = leader.done.iter().filter_map(|effect| match effect {
        Effect::WriteClaim { status, .. } => Some(status.attempts.len()),
        _ => None,
    });
    assert!(longest.max().is_none_or(|most| most <= ATTEMPTS_MAX), "the API server takes no more");
}

#[test]
fn a_claim_that_cannot_be_read_and_goes_while_the_list_comes_holds_nothing_up() {
    let mut leader = Leader::new(Vec::new(), Vec::new());
    leader.hears(Input::LeaseLost);
    // The list that it asks for now comes below.
    leader.instead = |effect| (*effect == Effect::List).then_some(Input::LeaseHeld { until: FOR_EVER });
    leader.hears(Input::LeaseHeld { until: FOR_EVER });
    leader.hears(Input::Unreadable("newer".into()));
    leader.hears(Input::ClaimGone { name: "newer".into() });
    leader.hears(Input::Listed { claims: Vec::new(), launches: Vec::new(), unread: vec!["newer".into()] });
    // An instance that no claim names: it is told from one whose claim is not read.
    leader.reads(vec![seen(&id(1), Some("t"))]);
    for _ in 0..30 {
        leader.later(MINUTE);
        leader.reads(vec![seen(&id(1), Some("t"))]);
    }
    assert_eq!(leader.ends(), 1, "{:?}", leader.done);
}

/// The region or the account is wrong, or EC2's answer is: a kubelet that answers knows better.
#[test]
fn a_ready_node_whose_instance_ec2_does_not_show_is_left_alone() {
    let with = |node: NodeView| {
        let mut leader = Leader::of(vec![claim("c", "u", ready(&id(1)))], Vec::new(), vec![node]);
        for _ in 0..20 {
            leader.later(MINUTE);
            leader.reads(Vec::new());
        }
        leader.later(MINUTE);
        leader
    };
    let touched = |effect: &&Effect| {
        matches!(effect, Effect::ReadAttachments { .. } | Effect::DeleteNode { .. } | Effect::DeleteClaim { .. })
    };
    let healthy = with(node(true));
    assert!(!healthy.done.iter().any(|effect| touched(&effect)), "{:?}", healthy.done);
    let silent = with(node(false));
    assert!(silent.done.iter().any(|effect| touched(&effect)), "one that is silent, too, has gone");
}

/// The instance was missing from what EC2 showed for a while, and is there.
#[test]
fn a_node_whose_instance_is_shown_again_stays() {
    let mut leader = Leader::of(vec![claim("c", "u", ready(&id(1)))], Vec::new(), vec![node(false)]);
    for _ in 0..5 {
        leader.later(MINUTE);
        leader.reads(Vec::new());
    }
    let asks = |leader: &Leader| leader.done.iter().filter(|e| matches!(e, Effect::ReadAttachments { .. })).count();
    assert_eq!(asks(&leader), 1, "{:?}", leader.done);
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.hears(Input::AttachmentsRead { node: "n".into(), found: Ok(0) });
    leader.later(5 * MINUTE);
    assert!(!leader.done.iter().any(|effect| matches!(effect, Effect::DeleteNode { .. })), "{:?}", leader.done);
}
