//! What a leader makes of odd answers, told by hand: whose instances it ends, and which claim goes on with what.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::Phase;
use spotkeeper::api::launch::{ClaimRef, LaunchOutcome, LaunchSpec, LaunchStatus, Launched};
use spotkeeper::api::node_claim::{ClaimPhase, NodeClaimStatus};
use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::domain::time::Instant;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::witness::NotSeen;
use spotkeeper::provision::{Answer, Claim, Doomed, Effect, Input, Instance, Launch, NodeView, Record};

use super::leader::{Leader, TYPES, claim, doomed, error, id, offering, ready, seen};

#[test]
fn a_type_that_cannot_be_launched_among_dry_ones_does_not_keep_a_claim_from_on_demand() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    assert_eq!(leader.calls(), [Spot]);
    let errors = vec![error("InsufficientInstanceCapacity", TYPES[0]), error("InvalidFleetConfiguration", TYPES[1])];
    leader.hears(Input::Called { launch: "c.1".into(), answer: Answer::Fleet { instances: Vec::new(), errors } });
    assert_eq!(leader.calls(), [Spot, OnDemand], "at once");
    // Where all of it is wrong, nothing else would do.
    let errors = TYPES.map(|name| error("InvalidSubnetID.NotFound", name)).into();
    leader.hears(Input::Called { launch: "c.2".into(), answer: Answer::Fleet { instances: Vec::new(), errors } });
    leader.later(Duration::from_secs(30));
    assert_eq!((leader.calls().len(), leader.said("Misconfigured")), (2, 1));
}

#[test]
fn one_answer_of_ec2_without_an_instance_does_not_end_its_claim() {
    let mut leader = Leader::new(vec![claim("c", "u", ready(&id(1)))], Vec::new());
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.later(Duration::from_secs(600));
    for _ in 0..3 {
        leader.reads(Vec::new());
        leader.reads(vec![seen(&id(1), Some("t"))]);
        leader.later(Duration::from_secs(30));
    }
    assert_eq!(leader.said("InstanceGone"), 0);
    // What it does not show for minutes is not there.
    leader.reads(Vec::new());
    leader.later(Duration::from_secs(200));
    leader.reads(Vec::new());
    assert_eq!(leader.said("InstanceGone"), 1);
}

#[test]
fn an_instance_that_ec2_shows_to_be_anothers_is_not_ended_whatever_a_claim_says() {
    let mut deleted = claim("c", "u", ready(&id(1)));
    deleted.deleting = true;
    let mut leader = Leader::new(vec![deleted.clone()], Vec::new());
    leader.later(Duration::from_secs(60));
    assert_eq!(leader.ends(), 0, "EC2 has not shown it yet");
    leader.reads(vec![seen(&id(1), None)]);
    leader.later(Duration::from_secs(600));
    assert_eq!((leader.ends(), leader.said("NotOurs")), (0, 1));
    assert!(leader.done.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })), "the claim may go");
    let mut leader = Leader::new(vec![deleted], Vec::new());
    leader.reads(vec![seen(&id(1), Some("t"))]);
    assert_eq!(leader.ends(), 1, "its own is ended");
}

#[test]
fn two_claims_whose_instances_are_anothers_are_let_go_in_one_turn() {
    let deleted = |number: usize| {
        let name = format!("c{number}");
        Claim { deleting: true, ..claim(&name, &name, ready(&id(number))) }
    };
    let mut leader = Leader::new(vec![deleted(1), deleted(2)], Vec::new());
    leader.reads(vec![seen(&id(1), None), seen(&id(2), None)]);
    leader.later(Duration::from_secs(60));
    assert_eq!((leader.ends(), leader.said("NotOurs")), (0, 2));
    let gone = leader.done.iter().filter(|effect| matches!(effect, Effect::DeleteClaim { .. })).count();
    assert_eq!(gone, 2, "{:?}", leader.done);
}

#[test]
fn a_refused_termination_is_said_once_and_tried_again_ever_more_rarely() {
    let mut deleted = claim("c", "u", ready(&id(1)));
    deleted.deleting = true;
    let mut leader = Leader::new(vec![deleted], Vec::new());
    leader.reads(vec![seen(&id(1), Some("t"))]);
    for ends in 1.. {
        assert_eq!(leader.ends(), ends);
        let outcome = Outcome::Refused("UnauthorizedOperation".into());
        leader.hears(Input::Ended { instance: id(1), outcome });
        while leader.ends() == ends && leader.now < Instant::from_millis(3_600_000) {
            leader.later(Duration::from_secs(5));
        }
        if leader.ends() == ends {
            break;
        }
    }
    assert_eq!(leader.said("NotEnded"), 1);
    assert!((10..25).contains(&leader.ends()), "{} times in an hour", leader.ends());
}

#[test]
fn a_record_of_either_node_of_an_instance_that_has_two_is_kept() {
    let node = |name: &str| NodeView { name: name.into(), instance: Some(id(1)), ..NodeView::default() };
    let latest = Timestamp::from_second(1_790_000_000).ok();
    let record = |node: &str| Doomed {
        record: Record { uid: "uid".into(), latest, ..Record::default() },
        ..doomed(1, node, Phase::Noticed)
    };
    for (of, kept) in [("a-left-behind", true), ("b-lives", true), ("c-forged", false)] {
        let mut leader = Leader::of(Vec::new(), Vec::new(), vec![node("a-left-behind"), node("b-lives")]);
        leader.hears(Input::InterruptionSeen(record(of)));
        leader.later(Duration::from_secs(30));
        assert_eq!(leader.said("Contradicts") == 0, kept, "{of}");
    }
}

#[test]
fn a_claim_is_ready_by_the_node_that_is_whatever_another_of_its_instance_says() {
    let registered = NodeClaimStatus { phase: Some(ClaimPhase::Launched), node_name: None, ..ready(&id(1)) };
    let node = |name: &str, ready: bool| NodeView {
        name: name.into(),
        instance: Some(id(1)),
        labels: [("spotkeeper.dev/capacity-type".to_owned(), "spot".to_owned())].into(),
        ready,
        ..NodeView::default()
    };
    for names in [["a", "b"], ["b", "a"]] {
        let nodes = vec![node(names[0], true), node(names[1], false)];
        let mut leader = Leader::of(vec![claim("c", "u", registered.clone())], Vec::new(), nodes);
        leader.reads(vec![seen(&id(1), Some("t"))]);
        let patched = |e: &Effect| match e {
            Effect::Label { node, .. } => Some(node.clone()),
            _ => None,
        };
        let labelled: Vec<_> = leader.done.iter().filter_map(patched).collect();
        labelled.iter().for_each(|node| assert_eq!(node, names[0]));
        labelled.into_iter().for_each(|node| leader.hears(Input::Labelled { node, outcome: Outcome::Done }));
        assert_eq!(leader.said("Ready"), 1, "{names:?}: {:?}", leader.done);
    }
}

#[test]
fn what_cannot_be_collected_is_said_once() {
    let mut leader = Leader::new(Vec::new(), Vec::new());
    for number in 0..20 {
        let outcome = Outcome::Refused("forbidden".into());
        leader.hears(Input::RecordWritten { instance: id(number), outcome });
    }
    assert_eq!(leader.said("WriteFailed"), 1);
    leader.hears(Input::RecordWritten { instance: id(1), outcome: Outcome::Done });
    leader.hears(Input::RecordWritten { instance: id(1), outcome: Outcome::Failed("busy".into()) });
    assert_eq!(leader.said("WriteFailed"), 2);
}

/// A launch that is over, of a claim with this uid.
pub(super) fn over(name: &str, claim_uid: &str) -> Launch {
    let of = claim("c", claim_uid, NodeClaimStatus::default());
    let spec = LaunchSpec {
        claims: vec![ClaimRef { name: "c".into(), uid: claim_uid.into() }],
        capacity_type: Spot,
        count: 1,
        recipe: of.spec.recipe.unwrap(),
        node_pool: None,
        overrides: Vec::new(),
    };
    let status = LaunchStatus { outcome: Some(LaunchOutcome::PresumedNone), ..LaunchStatus::default() };
    Launch { name: name.into(), uid: format!("uid-{name}"), spec, status }
}

#[test]
fn a_claim_that_was_made_anew_does_not_stumble_over_the_records_of_its_namesake() {
    let launches = vec![over("c.1", "old"), over("c.2", "old")];
    let mut leader = Leader::new(vec![claim("c", "new", NodeClaimStatus::default())], launches);
    leader.later(Duration::from_secs(5));
    assert_eq!((leader.calls(), leader.lists), (vec![Spot], 1));
    let named = |e: &Effect| matches!(e, Effect::CreateLaunch { name, .. } if name == "c.3");
    assert!(leader.done.iter().any(named), "{:?}", leader.done);
}

#[test]
fn a_recorded_call_that_nobody_waits_for_is_looked_up_and_not_repeated() {
    // Nobody led for days: its claim has gone, or has another instance.
    let open = Launch { status: LaunchStatus::default(), ..over("c.1", "u") };
    for claims in [Vec::new(), vec![claim("c", "u", ready(&id(1)))]] {
        let mut leader = Leader::new(claims, vec![open.clone()]);
        leader.reads(vec![seen(&id(1), Some("t"))]);
        for _ in 0..20 {
            leader.later(Duration::from_secs(5));
            leader.hears(Input::LookedUp { launch: "c.1".into(), found: Ok(Vec::new()) });
        }
        let asked = leader.done.iter().any(|effect| matches!(effect, Effect::LookUp { .. }));
        assert!(asked && leader.calls().is_empty(), "{:?}", leader.done);
        let written = leader.done.iter().find_map(|effect| match effect {
            Effect::WriteLaunch { status, .. } => status.outcome,
            _ => None,
        });
        assert_eq!(written, Some(LaunchOutcome::PresumedNone));
    }
    // Who waits for it has it repeated, as ever.
    let leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], vec![open]);
    assert_eq!(leader.calls(), [Spot]);
}

#[test]
fn a_call_that_was_not_made_yet_is_not_made_for_a_claim_that_is_deleted_meanwhile() {
    let of = claim("c", "u", NodeClaimStatus::default());
    let mut leader = Leader::new(vec![of.clone()], Vec::new());
    leader.hears(Input::Called {
        launch: "c.1".into(),
        answer: Answer::Refused { code: "RequestLimitExceeded".into(), message: String::new() },
    });
    leader.hears(Input::ClaimSeen(Claim { deleting: true, ..of }));
    leader.later(Duration::from_secs(30));
    assert_eq!(leader.calls().len(), 1);
    assert!(leader.done.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })), "{:?}", leader.done);
}

#[test]
fn a_claim_that_was_made_anew_while_nobody_looked_is_served() {
    let mut leader = Leader::new(vec![claim("c", "old", ready(&id(1)))], Vec::new());
    let stale = claim("c", "older", NodeClaimStatus::default());
    leader.later(Duration::from_secs(60));
    leader.hears(Input::ClaimSeen(stale.clone()));
    assert!(leader.calls().is_empty(), "what a watch shows late of its namesake is no news");
    leader.hears(Input::ClaimSeen(Claim { uid: "new".into(), created: leader.now, ..stale }));
    assert_eq!(leader.calls(), [Spot]);
}

#[test]
fn launches_that_cannot_be_written_down_are_in_nobodys_way_and_said_once() {
    let claims = (0..60).map(|n| {
        let mut of = claim(&format!("c{n:02}"), "u", NodeClaimStatus::default());
        // Each alone: nothing is shared.
        of.spec.spot_patience_seconds = n;
        of.spec.order = if n % 2 == 0 { vec![Spot] } else { vec![Spot, OnDemand] };
        of.spec.recipe.as_mut().unwrap().launch_template_version = n.to_string();
        of
    });
    let mut leader = Leader::new(Vec::new(), Vec::new());
    leader.refuses_launches = true;
    claims.for_each(|claim| leader.hears(Input::ClaimSeen(claim)));
    leader.later(Duration::from_secs(600));
    let written = leader.done.iter().filter(|e| matches!(e, Effect::CreateLaunch { .. })).count();
    assert_eq!(leader.said("WriteFailed"), 60, "each once");
    assert!((60..60 * 30).contains(&written), "{written} tries of 60 in ten minutes");
    leader.refuses_launches = false;
    leader.hears(Input::ClaimSeen(claim("other", "u", NodeClaimStatus::default())));
    let other = |e: &Effect| matches!(e, Effect::Call { launch, .. } if launch == "other.1");
    assert!(leader.done.iter().any(other), "it does not wait for them");
}

#[test]
fn an_instance_that_came_for_a_claim_is_its_own_though_ec2_shows_it_late() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    let instances = vec![Launched { instance_id: id(1), offering: offering(Spot) }];
    leader.hears(Input::Called { launch: "c.1".into(), answer: Answer::Fleet { instances, errors: Vec::new() } });
    leader.reads(Vec::new());
    leader.hears(Input::NodeSeen(NodeView { name: "n".into(), ..NodeView::default() }));
    leader.later(Duration::from_secs(100));
    leader.reads(Vec::new());
    assert_eq!((leader.said("Launched"), leader.said("InstanceGone"), leader.ends()), (1, 0, 0));
}

#[test]
fn a_reason_that_is_longer_than_a_status_takes_is_cut_off() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    // As EC2 answers where a permission is missing, with what it has encoded of the request.
    let answer = Answer::Refused { code: "UnauthorizedOperation".into(), message: "ü".repeat(3_000) };
    leader.hears(Input::Called { launch: "c.1".into(), answer });
    let written = leader.done.iter().rev().find_map(|effect| match effect {
        Effect::WriteClaim { status, .. } => status.because.clone(),
        _ => None,
    });
    assert_eq!(written.unwrap().chars().count(), 1_024);
}

#[test]
fn a_call_that_is_not_answered_is_said_once_however_often_it_is_repeated() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    for _ in 0..20 {
        let answer = Answer::Unknown("connection reset".into());
        leader.hears(Input::Called { launch: "c.1".into(), answer });
        leader.later(Duration::from_secs(12));
    }
    assert_eq!(leader.said("UnknownOutcome"), 1);
    assert!(leader.calls().len() > 20, "{} calls", leader.calls().len());
}

#[test]
fn an_instance_that_has_registered_by_another_name_is_not_ended_while_pods_run_on_either_node() {
    let mut deleted = claim("c", "u", ready(&id(1)));
    deleted.deleting = true;
    let node = |name: &str, ready: bool, workloads: bool| NodeView {
        name: name.into(),
        uid: name.into(),
        instance: Some(id(1)),
        provider_id: Some("aws:///a/i-00000001".into()),
        ready,
        workloads,
        cordoned: true,
        ..NodeView::default()
    };
    let nodes = vec![node("a-left-behind", false, false), node("b-lives", true, true)];
    let mut leader = Leader::of(vec![deleted], Vec::new(), nodes);
    leader.reads(vec![seen(&id(1), Some("t"))]);
    leader.hears(Input::Requested { instance: id(1), outcome: Outcome::Done });
    leader.later(Duration::from_secs(120));
    assert_eq!(leader.ends(), 0);
    let asked = leader.done.iter().find_map(|effect| match effect {
        Effect::Request { node, .. } => Some(node.clone()),
        _ => None,
    });
    assert_eq!(asked.as_deref(), Some("b-lives"), "the one that runs them is drained");
    leader.hears(Input::NodeSeen(node("b-lives", true, false)));
    leader.later(Duration::from_secs(60));
    assert_eq!(leader.ends(), 1);
}

/// A call for two, and the second claim has its instance already: the leader that gave it died before it wrote the rest.
/// The first instance has been taken since, so all that can be found of the call is the second one.
#[test]
fn f14_what_a_claim_has_already_is_given_to_no_other() {
    let mut open = Launch { status: LaunchStatus::default(), ..over("c.1", "u") };
    open.spec.claims = ["c", "d"].map(|name| ClaimRef { name: name.into(), uid: "u".into() }).into();
    open.spec.count = 2;
    let claims = vec![claim("c", "u", NodeClaimStatus::default()), claim("d", "u", ready(&id(2)))];
    let mut leader = Leader::new(claims, vec![open]);
    leader.reads(vec![seen(&id(2), Some("uid-c.1"))]);
    let found = vec![Launched { instance_id: id(2), offering: offering(Spot) }];
    for _ in 0..20 {
        leader.hears(Input::Called { launch: "c.1".into(), answer: Answer::Unknown("no answer".into()) });
        leader.hears(Input::LookedUp { launch: "c.1".into(), found: Ok(found.clone()) });
        leader.later(Duration::from_secs(5));
    }
    let given = |effect: &&Effect| matches!(effect, Effect::WriteClaim { name, status, .. } if name == "c" && status.instance_id == Some(id(2)));
    assert!(leader.done.iter().find(given).is_none(), "it is the other one's");
    assert_eq!(
        (leader.calls().last(), leader.ends()),
        (Some(&OnDemand), 0),
        "the first one goes on: {:?}",
        leader.done
    );
}

#[test]
fn an_instance_that_lives_after_its_end_was_acknowledged_is_ended_again() {
    let deleted = Claim { deleting: true, ..claim("c", "u", ready(&id(1))) };
    let mut leader = Leader::new(vec![deleted], Vec::new());
    let lives = || vec![seen(&id(1), Some("t"))];
    leader.reads(lives());
    assert_eq!(leader.ends(), 1);
    leader.hears(Input::Ended { instance: id(1), outcome: Outcome::Done });
    assert!(leader.done.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })), "the claim may go");
    // A list may be behind for a while.
    for ends in [1, 1, 1, 2] {
        leader.later(Duration::from_secs(35));
        leader.reads(lives());
        assert_eq!(leader.ends(), ends, "{:?}", leader.now);
    }
    assert_eq!(leader.said("NotEnded"), 1);
    leader.hears(Input::Ended { instance: id(1), outcome: Outcome::Done });
    leader.reads(vec![Instance { alive: false, ..seen(&id(1), Some("t")) }]);
    leader.later(Duration::from_secs(600));
    leader.reads(vec![Instance { alive: false, ..seen(&id(1), Some("t")) }]);
    assert_eq!((leader.ends(), leader.said("NotEnded")), (2, 1));
}

/// EC2 cannot be read for longer than it may take to show an instance. That has joined meanwhile, and pods run on it; the
/// record of the call is gone by the end of that.
#[test]
fn a_surplus_is_remembered_through_an_outage_of_ec2() {
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], Vec::new());
    leader.hears(Input::ClaimGone { name: "c".into() });
    let instances = vec![Launched { instance_id: id(1), offering: offering(Spot) }];
    leader.hears(Input::Called { launch: "c.1".into(), answer: Answer::Fleet { instances, errors: Vec::new() } });
    let node = NodeView { name: "n".into(), instance: Some(id(1)), ready: true, ..NodeView::default() };
    leader.hears(Input::NodeSeen(NodeView { workloads: true, ..node.clone() }));
    leader.hears(Input::Requested { instance: id(1), outcome: Outcome::Done });
    for _ in 0..20 {
        leader.later(Duration::from_secs(30));
        leader.hears(Input::InstancesFailed(NotSeen { throttled: false, why: "EC2 is away".into() }));
    }
    let token = leader.done.iter().find_map(|effect| match effect {
        Effect::DeleteLaunch { uid, .. } => Some(uid.clone()),
        _ => None,
    });
    leader.hears(Input::LaunchDeleted { name: "c.1".into(), outcome: Outcome::Done });
    leader.reads(vec![seen(&id(1), Some(&token.expect("the record has served")))]);
    leader.hears(Input::NodeSeen(NodeView { cordoned: true, ..node }));
    leader.later(Duration::from_secs(30));
    assert_eq!((leader.ends(), leader.said("Leaked")), (1, 0), "{:?}", leader.done);
}
