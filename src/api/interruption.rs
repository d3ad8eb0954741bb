//! The Interruption resource: the one record for one instance.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::notice::{InstanceId, Kind, Source, words};
use crate::domain::offering::CapacityType;
use crate::domain::policy::{DrainBy, DrainStart, Rebalance};

#[cfg(feature = "api")]
use {kube::CustomResource, kube::KubeSchema, schemars::JsonSchema};

/// What is announced about one instance, and what has been done about it.
///
/// Its name is the instance id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(CustomResource, KubeSchema))]
#[cfg_attr(
    feature = "api",
    kube(
        group = "spotkeeper.dev",
        version = "v1alpha1",
        kind = "Interruption",
        plural = "interruptions",
        shortname = "intr",
        category = "spotkeeper",
        status = "InterruptionStatus",
        doc = "What is announced about one EC2 instance, and what has been done about it. Its name is the instance id.",
        validation = Rule::new("self.metadata.name == self.spec.instanceID")
            .message("an Interruption is named after its spec.instanceID"),
        printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodeName"}"#,
        printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
        printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".status.kind"}"#,
        printcolumn = r#"{"name":"Deadline","type":"string","jsonPath":".status.deadline"}"#,
        printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods.total"}"#,
        printcolumn = r#"{"name":"Left","type":"integer","jsonPath":".status.pods.left"}"#,
        printcolumn = r#"{"name":"Replacement","type":"string","jsonPath":".status.replacement.capacityType"}"#,
        printcolumn = r#"{"name":"Because","type":"string","jsonPath":".status.because"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct InterruptionSpec {
    /// The EC2 instance id, `i-` and 8 to 17 hexadecimal digits.
    #[serde(rename = "instanceID")]
    #[cfg_attr(feature = "api", schemars(with = "String", regex(pattern = r"^i-[0-9a-f]{8,17}$")))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self == oldSelf").message("spec.instanceID is immutable")))]
    pub instance_id: InstanceId,
    /// The node's spec.providerID, `aws:///<zone>/<instance id>`.
    #[serde(rename = "providerID")]
    #[cfg_attr(feature = "api", schemars(length(max = 256)))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self == oldSelf").message("spec.providerID is immutable")))]
    pub provider_id: String,
    /// The name of the Node that runs on the instance.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 253)))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self == oldSelf").message("spec.nodeName is immutable")))]
    pub node_name: String,
    /// What was announced, one entry for each source, kind and event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    #[cfg_attr(feature = "api", x_kube(merge_strategy = ListMerge::Map(vec!["source".into(), "kind".into(), "eventID".into()])))]
    pub notices: Vec<NoticeEntry>,
}

/// One announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NoticeEntry {
    /// Who says it: `imds`, `sqs`, `operator` (a person) or `provisioner`.
    pub source: Source,
    /// What is announced.
    pub kind: Kind,
    /// Tells this announcement from others of its source and kind: the event's id, or for IMDS the announced time.
    #[serde(rename = "eventID")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 256)))]
    pub event_id: String,
    /// The particulars: `terminate`, `stop` or `hibernate`; a scheduled event's code; the state of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub action: Option<String>,
    /// Who wrote the entry: the name of the node that its agent runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 253)))]
    pub reporter: Option<String>,
    /// When it was first noticed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_at: Option<Timestamp>,
    /// When the instance will be taken (RFC 3339), where that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

impl NoticeEntry {
    /// The key of the map-list: no two entries of a record share it.
    pub fn key(&self) -> NoticeKey {
        NoticeKey { source: self.source, kind: self.kind, event_id: self.event_id.clone() }
    }
}

/// What tells the entries of `spec.notices` apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeKey {
    pub source: Source,
    pub kind: Kind,
    pub event_id: String,
}

impl std::fmt::Display for NoticeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.source, self.kind, self.event_id)
    }
}

words! {
    /// How far it has come. Within an episode it only moves forward, in this order.
    Phase {
        /// Announced, and not yet confirmed.
        Noticed = "Noticed",
        /// Confirmed; nothing has been done to the node yet.
        Confirmed = "Confirmed",
        /// The node takes no new pods.
        Cordoned = "Cordoned",
        /// Its pods are being asked to go.
        Draining = "Draining",
        /// No pod is left that a drain is about.
        Drained = "Drained",
        /// It was withdrawn; what was done to the node has been undone.
        Cancelled = "Cancelled",
        /// The instance's own metadata service denied it to the end.
        Refuted = "Refuted",
        /// The instance has ended, or has started anew.
        Gone = "Gone",
    }
}

impl Phase {
    /// Whether the episode is over: the next notice opens another.
    pub fn ends_episode(self) -> bool {
        matches!(self, Self::Cancelled | Self::Refuted | Self::Gone)
    }

    /// Whether it is a step of a drain on its way: others are an answer or an outcome.
    pub fn is_progress(self) -> bool {
        matches!(self, Self::Cordoned | Self::Draining)
    }
}

/// What has been done about it. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct InterruptionStatus {
    /// Counts the lives of this record, from 1: a notice after the end of one opens the next.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub episode: i64,
    /// How far this episode has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The most urgent kind that is announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// When the instance will be taken: the earliest of the confirmed notices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The reason of the last change of phase, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 1024)))]
    pub because: Option<String>,
    /// The node's `status.nodeInfo.bootID` in this episode: a later boot ends it.
    #[serde(rename = "bootID", default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// What happened when.
    #[serde(default)]
    pub timeline: Timeline,
    /// The pods that the drain is about.
    #[serde(default)]
    pub pods: PodCounts,
    /// Who drains: the node's name where it is the node's own agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drainer: Option<String>,
    /// Moves every 5 s while the node is drained.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub heartbeat: i64,
    /// How the node is kept: the agent's flags, and what the Node's annotations say over them. Whoever takes over acts
    /// by it, and the provisioner learns here whether a rebalance recommendation is to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// What stands in for the node; written by the provisioner alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<ReplacementStatus>,
    /// The notices of episodes that are over, as `source/kind/eventID@deadline`: they do not open another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 256)))]
    pub settled: Vec<String>,
}

/// What stands in for a doomed node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReplacementStatus {
    /// The NodeClaim; empty where none is made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 253)))]
    pub claim: String,
    /// `reserved`, `spot` or `on-demand`, once there is an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_type: Option<CapacityType>,
    /// Its Node is Ready.
    #[serde(default)]
    pub ready: bool,
    /// None comes, or none is needed: a drain that waits for one goes on.
    #[serde(default)]
    pub none_comes: bool,
    /// The episode that it is about.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub episode: i64,
    /// The reason of its last change, for people.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(length(max = 1024)))]
    pub because: String,
}

/// How a node is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// What a rebalance recommendation does.
    pub rebalance: Rebalance,
    /// When a drain begins to evict.
    pub drain: DrainStart,
    /// How many seconds before the deadline every pod should have ended.
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub margin_seconds: i64,
    /// How many seconds before a scheduled event the drain begins, beside the longest grace on the node.
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub scheduled_lead_seconds: i64,
    /// The node is marked, and nothing is evicted.
    pub cordon_only: bool,
    /// Who cordons and drains.
    pub drain_by: DrainBy,
}

/// When each step was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// First announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed_at: Option<Timestamp>,
    /// Confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// The notice endpoint on the node says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workloads_told_at: Option<Timestamp>,
    /// The API server acknowledged that the node takes no new pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned_at: Option<Timestamp>,
    /// The first pod was asked to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_eviction_at: Option<Timestamp>,
    /// No pod was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at: Option<Timestamp>,
    /// The episode ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// The pods that a drain is about: those of DaemonSets, mirror pods and pods that opted out are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// All that were seen.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub total: i64,
    /// Whose eviction was acknowledged.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub evicted: i64,
    /// Which had to be deleted at their latest start.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub deleted: i64,
    /// Which have ended.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub finished: i64,
    /// One of them has a volume that keeps it in this zone: what stands in for the node must be there.
    #[serde(default)]
    pub kept_in_zone: bool,
    /// Which are still there.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub left: i64,
    /// Which could not be evicted so far, and why (at most 32 are listed).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub blocked: Vec<BlockedPod>,
}

/// A pod that could not be evicted so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlockedPod {
    /// `namespace/name`.
    pub pod: String,
    /// The PodDisruptionBudget that does not allow it, or what else stands in the way.
    pub by: String,
}
