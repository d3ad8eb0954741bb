//! The NodeClaim resource: one node that is wanted, from the wish to the Ready node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::notice::{InstanceId, words};
use crate::domain::offering::{CapacityType, Offering};
use crate::domain::requirements::Requirement;

#[cfg(feature = "api")]
use {kube::CustomResource, kube::KubeSchema, schemars::JsonSchema};

/// One node that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(CustomResource, KubeSchema))]
#[cfg_attr(
    feature = "api",
    kube(
        group = "spotkeeper.dev",
        version = "v1alpha1",
        kind = "NodeClaim",
        plural = "nodeclaims",
        category = "spotkeeper",
        status = "NodeClaimStatus",
        doc = "One node that is wanted, and how far it has come.",
        validation = Rule::new("self.spec == oldSelf.spec").message("a NodeClaim's spec is immutable"),
        validation = Rule::new("has(self.spec.recipe) || has(self.spec.nodePool)")
            .message("a NodeClaim names its spec.nodePool or has a spec.recipe"),
        printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
        printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".status.offering.capacityType"}"#,
        printcolumn = r#"{"name":"Type","type":"string","jsonPath":".status.offering.instanceType"}"#,
        printcolumn = r#"{"name":"Zone","type":"string","jsonPath":".status.offering.zone"}"#,
        printcolumn = r#"{"name":"Pool","type":"string","jsonPath":".spec.nodePool"}"#,
        printcolumn = r#"{"name":"Node","type":"string","jsonPath":".status.nodeName"}"#,
        printcolumn = r#"{"name":"Replaces","type":"string","jsonPath":".spec.replaces.nodeName"}"#,
        printcolumn = r#"{"name":"Because","type":"string","jsonPath":".status.because"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimSpec {
    /// What the node must be; all of them hold together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub requirements: Vec<Requirement>,
    /// The capacity types that are tried, in this order.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 3)))]
    pub order: Vec<CapacityType>,
    /// How long spot is tried before the next capacity type, in seconds.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0, max = PATIENCE_MAX_SECONDS)))]
    pub spot_patience_seconds: i64,
    /// What is launched; none where the class of its NodePool says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
    /// The NodePool that it belongs to: its class, limits and floor hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 63)))]
    pub node_pool: Option<String>,
    /// Extended resources, such as `nvidia.com/gpu`, that its Node must have before it is Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = RESOURCES_MAX), inner(length(max = 316))))]
    pub resources: Vec<String>,
    /// The node that it stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaces>,
    /// What it is for.
    #[serde(default)]
    pub purpose: Purpose,
}

words! {
    /// What a claim is for.
    #[derive(Default)]
    Purpose {
        /// A node in the place of one that is taken.
        #[default]
        Replacement = "Replacement",
        /// A spot node in the place of an on-demand one, which then is drained and ended.
        ReturnToSpot = "ReturnToSpot",
    }
}

/// What is launched, whatever the instance type.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// The launch template: its id, `lt-…`; of one that the provisioner has made its name, `spotkeeper-…`, so that one
    /// that was deleted and made again is still it.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 128)))]
    pub launch_template: String,
    /// Its version, a number.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 32)))]
    pub launch_template_version: String,
    /// Where it may run: one subnet or more of each zone that is allowed.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 64)))]
    pub subnets: Vec<Subnet>,
    /// What its image runs on, `amd64` or `arm64`; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 16)))]
    pub architecture: Option<String>,
    /// Tags of the instance, beside the provisioner's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("maxProperties" = 40)))]
    pub tags: BTreeMap<String, String>,
}

/// How many tags a recipe may have: EC2 takes fifty, and some are the provisioner's own.
pub const TAGS_MAX: usize = 40;

/// A subnet and its zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Subnet {
    /// `subnet-…`.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 64)))]
    pub id: String,
    /// The zone's name, such as `eu-west-1a`.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 64)))]
    pub zone: String,
}

/// The node that a claim stands in for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Replaces {
    /// The instance that will be or was taken.
    #[serde(rename = "instanceID")]
    #[cfg_attr(feature = "api", schemars(with = "String", regex(pattern = r"^i-[0-9a-f]{8,17}$")))]
    pub instance_id: InstanceId,
    /// Its Node.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 253)))]
    pub node_name: String,
    /// The episode of its Interruption.
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub episode: i64,
    /// The Auto Scaling group that will replace that node itself: the claim is a bridge until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 255)))]
    pub group: Option<String>,
}

words! {
    /// How far a claim has come.
    ClaimPhase {
        /// No capacity has been found yet.
        Pending = "Pending",
        /// EC2 has been asked.
        Launching = "Launching",
        /// There is an instance.
        Launched = "Launched",
        /// There is a Node.
        Registered = "Registered",
        /// The Node is Ready.
        Ready = "Ready",
        /// It is no longer wanted: its instance is being ended.
        Terminating = "Terminating",
        /// It will not be tried again until something is changed; `because` says what.
        Failed = "Failed",
    }
}

/// How far a claim has come. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ClaimPhase>,
    /// The reason of the last change, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = BECAUSE_MAX)))]
    pub because: Option<String>,
    /// The instance, once there is one.
    #[serde(rename = "instanceID", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(with = "Option<String>"))]
    pub instance_id: Option<InstanceId>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offering: Option<Offering>,
    /// What it cost in US dollars an hour when it was launched; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub hourly_price: Option<String>,
    /// The Node that runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The latest attempts, oldest first; at most 16 are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 16)))]
    pub attempts: Vec<Attempt>,
    /// How many attempts there were in all.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub attempts_total: i64,
    /// How many instances in a row never became a Node.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub never_registered: i64,
    /// How many tries in a row to bring it back to spot have failed: each doubles the wait for the next.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub failed_returns: i64,
    /// EC2 was asked first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
    /// The instance was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
    /// Its Node was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    /// Its Node was Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Timestamp>,
}

/// One attempt: one call to EC2, which other claims may have shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The Launch.
    pub launch: String,
    pub capacity_type: CapacityType,
    /// How it ended, for people; none while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = ATTEMPT_BECAUSE_MAX)))]
    pub because: Option<String>,
}

/// How long spot may be tried before the next capacity type, in seconds.
pub const PATIENCE_MAX_SECONDS: i64 = 86_400;

/// How many extended resources a claim may name.
pub const RESOURCES_MAX: usize = 16;

/// How many characters a claim's reason and an attempt's may have.
pub const BECAUSE_MAX: usize = 1_024;
pub const ATTEMPT_BECAUSE_MAX: usize = 512;

/// How many attempts a status lists.
pub const ATTEMPTS_MAX: usize = 16;
