//! What core 2 wants done. An effect leaves nothing to decide.

use jiff::Timestamp;

use super::memory::Memory;
use super::templates::OurTemplate;
use super::{Because, Replacement, labels};
use crate::api::interruption::NoticeEntry;
use crate::api::launch::{LaunchSpec, LaunchStatus};
use crate::api::node_claim::{NodeClaimSpec, NodeClaimStatus};
use crate::api::node_pool::NodePoolStatus;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// List the claims and launches, from etcd rather than a cache. Answered by [`Input::Listed`].
    List,
    /// Read what the last leader has left of its [`Memory`]. Answered by [`Input::Recalled`].
    Recall,
    /// Leave this to the next leader. Answered by [`Input::Remembered`].
    Remember {
        memory: Box<Memory>,
    },
    /// Describe the instances of our cluster, and these. Answered by [`Input::InstancesRead`].
    ReadInstances {
        of: Vec<InstanceId>,
    },
    /// Read what another like this instance is launched with, and have a launch template of ours that says so, unless
    /// `not_after` has passed. Answered by [`Input::Copied`](super::Input::Copied) in either case.
    Copy {
        instance: InstanceId,
        not_after: Instant,
    },
    /// Ask which launch templates of ours there are. Answered by [`Input::TemplatesRead`](super::Input::TemplatesRead).
    ReadTemplates,
    /// Delete one of them, if it is still ours, unless `not_after` has passed. Answered by
    /// [`Input::TemplateDeleted`](super::Input::TemplateDeleted) in either case.
    DeleteTemplate {
        of: OurTemplate,
        not_after: Instant,
    },
    CreateClaim {
        name: String,
        spec: Box<NodeClaimSpec>,
    },
    WriteClaim {
        name: String,
        uid: String,
        status: Box<NodeClaimStatus>,
    },
    /// Delete it and take our finalizer off.
    DeleteClaim {
        name: String,
        uid: String,
    },
    /// Patch a Node, in one request.
    Label {
        node: String,
        patch: Box<labels::NodePatch>,
    },
    WritePool {
        name: String,
        uid: String,
        status: Box<NodePoolStatus>,
    },
    CreateLaunch {
        name: String,
        spec: Box<LaunchSpec>,
    },
    WriteLaunch {
        name: String,
        uid: String,
        status: Box<LaunchStatus>,
    },
    DeleteLaunch {
        name: String,
        uid: String,
    },
    /// `CreateFleet` with this token, unless `not_after` has passed; then it is not made and nothing is answered.
    Call {
        launch: String,
        token: String,
        spec: Box<LaunchSpec>,
        not_after: Instant,
    },
    /// Describe the instances with the tag of this launch, which is its token.
    LookUp {
        launch: String,
        token: String,
    },
    /// Ask for the drain of a node of ours: a notice of ours in its Interruption, without a deadline. Its agent cordons
    /// it and asks its pods to go; it deletes none. Answered by [`Input::Requested`].
    Request {
        instance: InstanceId,
        node: String,
        provider_id: String,
        event_id: String,
        action: Option<String>,
        /// Since when it is asked for: the same however often it is sent.
        since: Timestamp,
    },
    /// Take that notice back: the agent undoes what it did to the node. Answered by [`Input::Withdrawn`].
    Withdraw {
        instance: InstanceId,
        event_id: String,
    },
    /// Ask EC2 what it says of these instances and of their spot requests, and where it is wanted of the reservations that
    /// they run in. Answered by [`Input::Looked`].
    Look {
        of: Vec<InstanceId>,
        reservations: bool,
    },
    /// Write what was seen in EC2 into the Interruption, as a notice of ours. Answered by [`Input::NoticeWritten`].
    WriteNotice {
        instance: InstanceId,
        node: String,
        provider_id: String,
        entry: NoticeEntry,
    },
    /// Write down that EC2 has taken an instance and nobody had heard of it: this notice, and over it the status of
    /// [`witness::taken`](super::witness::taken). Answered by [`Input::TakenRecorded`].
    RecordTaken {
        instance: InstanceId,
        node: String,
        provider_id: String,
        entry: NoticeEntry,
        because: Because,
    },
    /// Ask which volumes are attached to a node. Answered by [`Input::AttachmentsRead`].
    ReadAttachments {
        node: String,
    },
    /// Say that whatever ran on a Node has ended: `node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`, where it is
    /// still the one with this uid.
    TaintOutOfService {
        node: String,
        uid: String,
    },
    /// Delete the Node with this uid; its pods go with it.
    DeleteNode {
        node: String,
        uid: String,
    },
    /// Take the owner off an Interruption: it outlives its Node.
    Disown {
        instance: InstanceId,
        uid: String,
    },
    DeleteInterruption {
        instance: InstanceId,
        uid: String,
    },
    /// Terminate it, unless `not_after` has passed, or a workload's pod is on one of these Nodes of its: as the API server
    /// has it at that moment, since a watch may be behind. Answered by [`Input::Ended`] in either case.
    End {
        instance: InstanceId,
        because: Because,
        not_after: Instant,
        empty: Vec<String>,
    },
    /// Write the replacement into the Interruption's status.
    WriteReplacement {
        instance: InstanceId,
        replacement: Replacement,
    },
    /// A decision: a log line, and where people should see it an event.
    Decided {
        about: String,
        because: Because,
    },
}
