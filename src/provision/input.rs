//! What core 2 is told.

use std::sync::Arc;

#[cfg(doc)]
use super::Effect;
use super::templates::OurTemplate;
use super::{Answer, Claim, Copied, Created, Doomed, Instance, Launch, NodeView, Pool, Sight, witness};
use crate::api::interruption::NoticeKey;
use crate::api::launch::Launched;
use crate::api::node_claim::Recipe;
use crate::domain::notice::InstanceId;
use crate::domain::offering::Catalog;
use crate::domain::time::Instant;
use crate::interruption::Outcome;

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The lease was acquired or renewed; it lasts until then.
    LeaseHeld {
        until: Instant,
    },
    /// It is somebody else's.
    LeaseLost,
    /// [`Effect::List`] was answered: all there are.
    Listed {
        claims: Vec<Claim>,
        launches: Vec<Launch>,
        /// The names of claims that cannot be read: a newer version has written them, or somebody by hand.
        unread: Vec<String>,
    },
    /// The watch shows a claim of this name that cannot be read.
    Unreadable(String),
    ListFailed(String),
    /// [`Effect::Recall`] was answered: the text that the last leader has left, where there is one.
    Recalled {
        found: Result<Option<String>, String>,
    },
    /// [`Effect::Remember`] was answered.
    Remembered {
        outcome: Outcome,
    },
    /// A claim is new or has changed.
    ClaimSeen(Claim),
    ClaimGone {
        name: String,
    },
    /// A NodePool is new or has changed.
    PoolSeen(Pool),
    PoolGone {
        name: String,
    },
    /// All NodePools have been seen once.
    PoolsSynced,
    /// An EC2NodeClass was resolved: what is launched with it, or in words why nothing can be.
    ClassSeen {
        name: String,
        recipe: Result<Recipe, String>,
    },
    ClassGone {
        name: String,
    },
    /// All EC2NodeClasses have been seen once.
    ClassesSynced,
    /// The types, zones and prices that there are.
    CatalogRead(Arc<Catalog>),
    /// An Interruption is new or has changed.
    InterruptionSeen(Doomed),
    InterruptionGone {
        instance: InstanceId,
    },
    NodeSeen(NodeView),
    NodeGone {
        name: String,
    },
    /// All Nodes have been seen once.
    NodesSynced,
    /// [`Effect::ReadInstances`] was answered; `all`: the instances of ours that are not among them do not exist.
    InstancesRead {
        all: bool,
        instances: Vec<Instance>,
    },
    InstancesFailed(witness::NotSeen),
    /// [`Effect::Look`] was answered; an instance that EC2 does not know is not among these.
    Looked(Result<Vec<Sight>, witness::NotSeen>),
    /// [`Effect::Copy`] was answered.
    Copied {
        instance: InstanceId,
        copied: Copied,
    },
    /// [`Effect::ReadTemplates`] was answered: all that are ours.
    TemplatesRead(Vec<OurTemplate>),
    TemplatesFailed(String),
    /// [`Effect::DeleteTemplate`] was answered.
    TemplateDeleted {
        of: OurTemplate,
        outcome: Outcome,
    },
    ClaimCreated {
        name: String,
        outcome: Created,
    },
    ClaimWritten {
        name: String,
        outcome: Outcome,
    },
    ClaimDeleted {
        name: String,
        outcome: Outcome,
    },
    LaunchCreated {
        name: String,
        outcome: Created,
    },
    LaunchWritten {
        name: String,
        outcome: Outcome,
    },
    /// [`Effect::WriteLaunch`] was answered: the record is not there any more, or another has its name.
    LaunchGone {
        name: String,
    },
    LaunchDeleted {
        name: String,
        outcome: Outcome,
    },
    /// [`Effect::Label`] was answered.
    Labelled {
        node: String,
        outcome: Outcome,
    },
    PoolWritten {
        name: String,
        outcome: Outcome,
    },
    ReplacementWritten {
        instance: InstanceId,
        outcome: Outcome,
    },
    /// [`Effect::Call`] was answered.
    Called {
        launch: String,
        answer: Answer,
    },
    /// [`Effect::LookUp`] was answered: the instances with the tag of this launch.
    LookedUp {
        launch: String,
        found: Result<Vec<Launched>, String>,
    },
    /// [`Effect::Request`] was answered.
    Requested {
        instance: InstanceId,
        outcome: Outcome,
    },
    /// [`Effect::ReadAttachments`] was answered: how many volumes are attached.
    AttachmentsRead {
        node: String,
        found: Result<usize, String>,
    },
    /// [`Effect::TaintOutOfService`] was answered.
    NodeTainted {
        node: String,
        outcome: Outcome,
    },
    /// [`Effect::DeleteNode`] was answered.
    NodeDeleted {
        node: String,
        outcome: Outcome,
    },
    /// [`Effect::Disown`] or [`Effect::DeleteInterruption`] was answered.
    RecordWritten {
        instance: InstanceId,
        outcome: Outcome,
    },
    /// [`Effect::RecordTaken`] was answered.
    TakenRecorded {
        instance: InstanceId,
        outcome: Outcome,
    },
    /// [`Effect::WriteNotice`] was answered.
    NoticeWritten {
        instance: InstanceId,
        key: NoticeKey,
        outcome: Outcome,
    },
    /// [`Effect::Withdraw`] was answered.
    Withdrawn {
        instance: InstanceId,
        outcome: Outcome,
    },
    /// [`Effect::End`] was answered.
    Ended {
        instance: InstanceId,
        outcome: Outcome,
    },
}

impl Input {
    /// Whether it is the answer to a write of our own, which changes nothing but what is to be written next.
    pub(super) fn answers_a_write(&self) -> bool {
        matches!(
            self,
            Self::ClaimCreated { .. }
                | Self::ClaimWritten { .. }
                | Self::LaunchCreated { .. }
                | Self::LaunchWritten { .. }
                | Self::LaunchDeleted { .. }
                | Self::PoolWritten { .. }
                | Self::ReplacementWritten { .. }
                | Self::Requested { .. }
                | Self::Remembered { .. }
                | Self::NoticeWritten { .. }
                | Self::ClaimSeen(Claim { deleting: false, .. })
        )
    }
}
