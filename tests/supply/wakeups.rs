//! What cannot be done any more is not due any more. Every turn of a [`Leader`] and of a world is checked for a wake-up that
//! has passed; these are the ways into one.

use std::time::Duration;

use spotkeeper::api::interruption::Phase;
use spotkeeper::api::node_claim::{ClaimPhase, NodeClaimStatus, Replaces};
use spotkeeper::domain::notice::InstanceState;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::{Claim, Doomed, Effect, Input, Instance, NodeView};

use super::leader::{self, Leader, claim, id, ready, seen};

fn busy() -> Outcome {
    Outcome::Failed("the API server is busy".into())
}

fn doomed(episode: i64, phase: Phase) -> Doomed {
    Doomed { episode, ..leader::doomed(1, "n", phase) }
}

#[test]
fn what_could_not_be_written_of_an_episode_is_not_due_for_ever_once_another_has_begun() {
    let mut of = claim("i-00000001-1", "u", ready(&id(2)));
    of.spec.replaces = Some(Replaces { instance_id: id(1), node_name: "n".into(), episode: 1, group: None });
    let mut leader = Leader::new(vec![of], Vec::new());
    leader.instead = |effect| match effect {
        Effect::WriteReplacement { instance, .. } => {
            Some(Input::ReplacementWritten { instance: instance.clone(), outcome: busy() })
        }
        _ => None,
    };
    let written = |leader: &Leader| leader.done.iter().filter(|e| matches!(e, Effect::WriteReplacement { .. })).count();
    leader.hears(Input::InterruptionSeen(doomed(1, Phase::Confirmed)));
    leader.later(Duration::from_secs(10));
    assert!(written(&leader) > 3, "it is tried again: {:?}", leader.done);
    leader.hears(Input::InterruptionSeen(doomed(2, Phase::Cancelled)));
    let before = written(&leader);
    leader.later(Duration::from_secs(60));
    assert_eq!(written(&leader), before, "nobody is to be told of the first one");
}

#[test]
fn a_notice_that_could_not_be_written_is_given_up_when_nobody_knows_the_node_any_more() {
    let node = |name: &str, number: usize| NodeView {
        name: name.into(),
        instance: Some(id(number)),
        provider_id: Some(format!("aws:///a/{}", id(number))),
        ..NodeView::default()
    };
    let mut leader = Leader::of(Vec::new(), Vec::new(), vec![node("n", 1)]);
    leader.instead = |effect| match effect {
        Effect::WriteNotice { instance, entry, .. } => {
            Some(Input::NoticeWritten { instance: instance.clone(), key: entry.key(), outcome: busy() })
        }
        _ => None,
    };
    let written = |leader: &Leader| leader.done.iter().filter(|e| matches!(e, Effect::WriteNotice { .. })).count();
    leader.reads(vec![Instance { alive: false, taken: Some(InstanceState::ShuttingDown), ..seen(&id(1), None) }]);
    leader.hears(Input::NodeGone { name: "n".into() });
    leader.reads(Vec::new());
    leader.later(Duration::from_secs(660));
    assert!(written(&leader) > 100, "it is tried again: {}", written(&leader));
    // Who goes next takes the memory of those with it that went more than ten minutes ago.
    leader.hears(Input::NodeSeen(node("m", 2)));
    leader.hears(Input::NodeGone { name: "m".into() });
    let before = written(&leader);
    leader.later(Duration::from_secs(60));
    assert_eq!(written(&leader), before);
}

#[test]
fn a_deleted_claim_whose_instance_has_ended_waits_for_no_node() {
    let launched = NodeClaimStatus { phase: Some(ClaimPhase::Launched), node_name: None, ..ready(&id(1)) };
    let deleted = Claim { deleting: true, ..claim("c", "u", launched) };
    let mut leader = Leader::new(vec![deleted], Vec::new());
    leader.instead = |effect| match effect {
        Effect::DeleteClaim { name, .. } => Some(Input::ClaimDeleted { name: name.clone(), outcome: busy() }),
        _ => None,
    };
    leader.reads(vec![seen(&id(1), Some("t"))]);
    assert_eq!(leader.ends(), 1);
    leader.hears(Input::Ended { instance: id(1), outcome: Outcome::Done });
    leader.later(Duration::from_secs(20 * 60));
    let deletions = leader.done.iter().filter(|e| matches!(e, Effect::DeleteClaim { .. })).count();
    assert!((20..40).contains(&deletions), "{deletions} in 20 minutes: once a minute by then");
}
