//! Writes and readings that are refused for long: each is said once and tried more and more rarely; records that somebody
//! has deleted.

use std::time::Duration;

use spotkeeper::api::launch::{LaunchStatus, Launched};
use spotkeeper::api::node_claim::NodeClaimStatus;
use spotkeeper::domain::offering::CapacityType::Spot;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::witness::NotSeen;
use spotkeeper::provision::{Claim, Effect, Input, Launch, NodeView};

use super::endings::over;
use super::leader::{Leader, claim, id, offering, ready, seen};

const HOUR: Duration = Duration::from_secs(3_600);

fn denied() -> Outcome {
    Outcome::Refused("forbidden".into())
}

fn count(leader: &Leader, of: impl Fn(&Effect) -> bool) -> usize {
    leader.done.iter().filter(|effect| of(effect)).count()
}

#[test]
fn a_claim_that_may_not_be_deleted_is_said_once_and_tried_ever_more_rarely() {
    let deleted = Claim { deleting: true, ..claim("c", "u", NodeClaimStatus::default()) };
    let mut leader = Leader::new(Vec::new(), Vec::new());
    leader.instead = |effect| match effect {
        Effect::DeleteClaim { name, .. } => Some(Input::ClaimDeleted { name: name.clone(), outcome: denied() }),
        _ => None,
    };
    leader.hears(Input::ClaimSeen(deleted));
    leader.later(HOUR);
    let tried = count(&leader, |effect| matches!(effect, Effect::DeleteClaim { .. }));
    assert!((30..100).contains(&tried), "{tried} times in an hour");
    assert_eq!(leader.said("WriteFailed"), 1);
}

#[test]
fn a_launch_that_may_not_be_deleted_is_said_once_and_tried_ever_more_rarely() {
    let mut leader = Leader::new(Vec::new(), Vec::new());
    leader.instead = |effect| match effect {
        Effect::DeleteLaunch { name, .. } => Some(Input::LaunchDeleted { name: name.clone(), outcome: denied() }),
        _ => None,
    };
    leader.hears(Input::ClaimSeen(claim("c", "u", NodeClaimStatus::default())));
    let instances = vec![Launched { instance_id: id(1), offering: offering(Spot) }];
    let answer = spotkeeper::provision::Answer::Fleet { instances, errors: Vec::new() };
    leader.hears(Input::Called { launch: "c.1".into(), answer });
    for _ in 0..120 {
        leader.reads(vec![seen(&id(1), Some("uid-c.1"))]);
        leader.later(Duration::from_secs(30));
    }
    let tried = count(&leader, |effect| matches!(effect, Effect::DeleteLaunch { .. }));
    assert!((30..200).contains(&tried), "{tried} times in an hour");
    assert_eq!(leader.said("WriteFailed"), 1);
}

#[test]
fn attachments_that_may_not_be_listed_are_said_once_and_tried_ever_more_rarely() {
    let node = NodeView { name: "n".into(), uid: "n".into(), instance: Some(id(1)), ..NodeView::default() };
    let mut leader = Leader::of(vec![claim("c", "u", ready(&id(1)))], Vec::new(), vec![node]);
    leader.instead = |effect| match effect {
        Effect::ReadAttachments { node } => {
            Some(Input::AttachmentsRead { node: node.clone(), found: Err("volumeattachments is forbidden".into()) })
        }
        _ => None,
    };
    let mut ended = seen(&id(1), Some("t"));
    (ended.alive, ended.terminated) = (false, true);
    leader.reads(vec![ended]);
    leader.later(HOUR);
    let tried = count(&leader, |effect| matches!(effect, Effect::ReadAttachments { .. }));
    assert!((30..100).contains(&tried), "{tried} times in an hour");
    assert_eq!(leader.said("ReadFailed"), 1);
    assert_eq!(count(&leader, |effect| matches!(effect, Effect::DeleteNode { .. })), 0);
}

#[test]
fn a_list_of_instances_that_is_throttled_is_read_ever_more_rarely_whoever_needs_it() {
    let mut leader = Leader::new(Vec::new(), Vec::new());
    leader.instead = |effect| match effect {
        Effect::ReadInstances { .. } => {
            Some(Input::InstancesFailed(NotSeen { throttled: true, why: "RequestLimitExceeded".into() }))
        }
        _ => None,
    };
    leader.reads(Vec::new());
    for number in 0..600 {
        // Nodes go, one after the other: of each EC2 is to be asked why.
        let name = format!("n{number}");
        leader.hears(Input::NodeSeen(NodeView {
            name: name.clone(),
            instance: Some(id(number)),
            ..NodeView::default()
        }));
        leader.hears(Input::NodeGone { name });
        leader.later(Duration::from_secs(1));
    }
    let tried = count(&leader, |effect| matches!(effect, Effect::ReadInstances { .. }));
    assert!((8..25).contains(&tried), "{tried} times in ten minutes");
    assert_eq!(leader.said("ReadFailed"), 1);
}

#[test]
fn the_claims_of_a_call_whose_record_somebody_has_deleted_are_told_from_memory() {
    let open = Launch { status: LaunchStatus::default(), ..over("c.1", "u") };
    let mut leader = Leader::new(vec![claim("c", "u", NodeClaimStatus::default())], vec![open]);
    leader.instead = |effect| match effect {
        Effect::WriteLaunch { name, .. } => Some(Input::LaunchGone { name: name.clone() }),
        _ => None,
    };
    // Its answer was lost; its instance is found by its tag.
    leader.later(Duration::from_secs(1));
    let found = vec![Launched { instance_id: id(1), offering: offering(Spot) }];
    leader.hears(Input::LookedUp { launch: "c.1".into(), found: Ok(found) });
    leader.later(Duration::from_secs(1));
    assert_eq!(leader.said("Launched"), 1, "{:?}", leader.done);
    leader.reads(vec![seen(&id(1), Some("uid-c.1"))]);
    leader.later(Duration::from_secs(120));
    let of = |effect: &Effect| matches!(effect, Effect::WriteLaunch { .. });
    assert_eq!(count(&leader, of), 1, "nothing is written where nothing is");
    let gone = count(&leader, |effect| matches!(effect, Effect::DeleteLaunch { .. }));
    assert_eq!((gone, leader.ends()), (1, 0), "it is forgotten, and its instance is the claim's");
}
