//! The Launch resource: one call to EC2, written before it is made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::node_claim::Recipe;
use crate::domain::notice::{InstanceId, words};
use crate::domain::offering::{CapacityType, Offering};

#[cfg(feature = "api")]
use {kube::CustomResource, kube::KubeSchema, schemars::JsonSchema};

/// One `CreateFleet` call of type `instant`, frozen as it is sent. Its uid is the ClientToken: whoever repeats the call
/// gets the first one's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(CustomResource, KubeSchema))]
#[cfg_attr(
    feature = "api",
    kube(
        group = "spotkeeper.dev",
        version = "v1alpha1",
        kind = "Launch",
        plural = "launches",
        category = "spotkeeper",
        status = "LaunchStatus",
        doc = "One call to EC2, written before it is made, and what came of it.",
        validation = Rule::new("self.spec == oldSelf.spec").message("a Launch's spec is the request as sent: immutable"),
        printcolumn = r#"{"name":"Capacity","type":"string","jsonPath":".spec.capacityType"}"#,
        printcolumn = r#"{"name":"Wanted","type":"integer","jsonPath":".spec.count"}"#,
        printcolumn = r#"{"name":"Outcome","type":"string","jsonPath":".status.outcome"}"#,
        printcolumn = r#"{"name":"Because","type":"string","jsonPath":".status.because"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct LaunchSpec {
    /// Who gets the instances, in the order of their names: the first the instance with the lowest id, and so on.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 100)))]
    pub claims: Vec<ClaimRef>,
    pub capacity_type: CapacityType,
    /// How many instances are asked for.
    #[cfg_attr(feature = "api", schemars(range(min = 1, max = 100)))]
    pub count: i64,
    /// What is launched.
    pub recipe: Recipe,
    /// The NodePool of all its claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 63)))]
    pub node_pool: Option<String>,
    /// Any of these will do.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 300)))]
    pub overrides: Vec<Override>,
}

/// A claim, by name and uid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    pub name: String,
    pub uid: String,
}

/// An instance type in a subnet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Override {
    pub instance_type: String,
    #[serde(rename = "subnetID")]
    pub subnet_id: String,
    pub zone: String,
}

words! {
    /// How a call ended.
    LaunchOutcome {
        /// At least one instance came.
        Launched = "Launched",
        /// EC2 answered, and gave nothing.
        Nothing = "Nothing",
        /// It was never learnt what came of it, and nothing was found for a minute.
        PresumedNone = "PresumedNone",
    }
}

/// What came of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct LaunchStatus {
    /// None while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<LaunchOutcome>,
    /// What came, in the order of the ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 100)))]
    pub instances: Vec<Launched>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 1024)))]
    pub because: Option<String>,
    /// When EC2 answered (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
}

/// An instance that came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Launched {
    #[serde(rename = "instanceID")]
    #[cfg_attr(feature = "api", schemars(with = "String"))]
    pub instance_id: InstanceId,
    pub offering: Offering,
}
