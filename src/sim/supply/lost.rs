//! What a replica is told of a request that came to nothing.

use crate::interruption::Outcome;
use crate::provision::witness::NotSeen;
use crate::provision::{Answer, Copied, Created, Effect, Input};

/// What the caller is told where nothing came back.
pub(super) fn failed(effect: &Effect, why: &str) -> Option<Input> {
    let outcome = || Outcome::Failed(why.to_owned());
    let created = || Created::Failed(why.to_owned());
    Some(match effect.clone() {
        Effect::List => Input::ListFailed(why.to_owned()),
        Effect::Recall => Input::Recalled { found: Err(why.to_owned()) },
        Effect::Remember { .. } => Input::Remembered { outcome: outcome() },
        Effect::ReadInstances { .. } => Input::InstancesFailed(NotSeen { throttled: false, why: why.to_owned() }),
        Effect::CreateClaim { name, .. } => Input::ClaimCreated { name, outcome: created() },
        Effect::WriteClaim { name, .. } => Input::ClaimWritten { name, outcome: outcome() },
        Effect::DeleteClaim { name, .. } => Input::ClaimDeleted { name, outcome: outcome() },
        Effect::CreateLaunch { name, .. } => Input::LaunchCreated { name, outcome: created() },
        Effect::Label { node, .. } => Input::Labelled { node, outcome: outcome() },
        Effect::WritePool { name, .. } => Input::PoolWritten { name, outcome: outcome() },
        Effect::WriteLaunch { name, .. } => Input::LaunchWritten { name, outcome: outcome() },
        Effect::DeleteLaunch { name, .. } => Input::LaunchDeleted { name, outcome: outcome() },
        Effect::WriteReplacement { instance, .. } => Input::ReplacementWritten { instance, outcome: outcome() },
        Effect::Call { launch, .. } => Input::Called { launch, answer: Answer::Unknown(why.to_owned()) },
        Effect::LookUp { launch, .. } => Input::LookedUp { launch, found: Err(why.to_owned()) },
        Effect::ReadAttachments { node } => Input::AttachmentsRead { node, found: Err(why.to_owned()) },
        Effect::TaintOutOfService { node, .. } => Input::NodeTainted { node, outcome: outcome() },
        Effect::DeleteNode { node, .. } => Input::NodeDeleted { node, outcome: outcome() },
        Effect::Disown { instance, .. } | Effect::DeleteInterruption { instance, .. } => {
            Input::RecordWritten { instance, outcome: outcome() }
        }
        Effect::Request { instance, .. } => Input::Requested { instance, outcome: outcome() },
        Effect::Look { .. } => Input::Looked(Err(NotSeen { throttled: false, why: why.to_owned() })),
        Effect::WriteNotice { instance, entry, .. } => {
            Input::NoticeWritten { instance, key: entry.key(), outcome: outcome() }
        }
        Effect::RecordTaken { instance, .. } => Input::TakenRecorded { instance, outcome: outcome() },
        Effect::Withdraw { instance, .. } => Input::Withdrawn { instance, outcome: outcome() },
        Effect::End { instance, .. } => Input::Ended { instance, outcome: outcome() },
        Effect::Copy { instance, .. } => Input::Copied { instance, copied: Copied::Failed(why.to_owned()) },
        Effect::ReadTemplates => Input::TemplatesFailed(why.to_owned()),
        Effect::DeleteTemplate { of, .. } => Input::TemplateDeleted { of, outcome: outcome() },
        Effect::Decided { .. } => return None,
    })
}
