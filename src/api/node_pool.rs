//! The NodePool resource: a kind of nodes, how capacity for it is found, and how much of it there may be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use crate::domain::notice::words;
use crate::domain::offering::CapacityType;
use crate::domain::policy::{DrainStart, Rebalance};
use crate::domain::requirements::Requirement;

#[cfg(feature = "api")]
use {
    kube::CustomResource,
    kube::KubeSchema,
    schemars::{JsonSchema, Schema, SchemaGenerator, json_schema},
};

/// A kind of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(CustomResource, KubeSchema))]
#[cfg_attr(
    feature = "api",
    kube(
        group = "spotkeeper.dev",
        version = "v1alpha1",
        kind = "NodePool",
        plural = "nodepools",
        category = "spotkeeper",
        status = "NodePoolStatus",
        doc = "A kind of nodes: what they are, how capacity for them is found, and how much of it there may be.",
        validation = Rule::new("self.metadata.name.size() <= 63")
            .message("a NodePool's name becomes a label's value: at most 63 characters"),
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
        printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
        printcolumn = r#"{"name":"Spot","type":"integer","jsonPath":".status.spot"}"#,
        printcolumn = r#"{"name":"On-Demand","type":"integer","jsonPath":".status.onDemand"}"#,
        printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".status.resources.cpu"}"#,
        printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".status.resources.memory"}"#,
        printcolumn = r#"{"name":"Fallback","type":"string","jsonPath":".status.hourlyFallbackCost"}"#,
        printcolumn = r#"{"name":"Because","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolSpec {
    /// What every node of it is.
    pub template: Template,
    /// How much of it there may be at most; nodes whose interruption is confirmed do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Of several pools that could serve a node the one with the highest weight does; of equal ones the first by name.
    /// By default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 0, max = 100)))]
    pub weight: Option<i64>,
    /// Which capacity types are tried, and what is done while the wanted one has run out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// What is done with its nodes when AWS announces that it will take them. What is not set here the agent's flags say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interruption: Option<OnInterruption>,
}

/// What every node of a pool is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// What is put on its Node when it registers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    pub spec: TemplateSpec,
}

/// Labels and annotations of every node of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("maxProperties" = 64, "additionalProperties" = { "type": "string", "maxLength": 63 })))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self.all(key, !key.startsWith('spotkeeper.dev/'))")
        .message("labels of spotkeeper.dev/ are spotkeeper's own: choose another prefix")))]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("maxProperties" = 64, "additionalProperties" = { "type": "string", "maxLength": 4096 })))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self.all(key, !key.startsWith('spotkeeper.dev/'))")
        .message("annotations of spotkeeper.dev/ are spotkeeper's own: choose another prefix")))]
    pub annotations: BTreeMap<String, String>,
}

/// What is launched for a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct TemplateSpec {
    /// Which instance types, zones and capacity types will do; all of them hold together. A replacement also has at least
    /// the lost node's vCPUs, memory and GPUs, and at most twice of each where EC2 offers such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    #[cfg_attr(feature = "api", x_kube(
        validation = Rule::new(IN_HAS_VALUES).message("In and NotIn take at least one value"),
        validation = Rule::new(EXISTS_HAS_NONE).message("Exists and DoesNotExist take no value"),
        validation = Rule::new(GT_HAS_A_NUMBER).message("Gt and Lt take one value, a whole number"),
    ))]
    pub requirements: Vec<Requirement>,
    /// Taints that every node of it has. Let its user data register it with them, too: until they are put on, pods may
    /// come that do not tolerate them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub taints: Vec<PoolTaint>,
    /// Taints that a node registers with and that somebody else takes off when it may take workloads. Until then it is
    /// not Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub startup_taints: Vec<PoolTaint>,
    /// The EC2NodeClass that says how an instance is launched.
    pub node_class_ref: NodeClassRef,
}

#[cfg(feature = "api")]
const IN_HAS_VALUES: &str =
    "self.all(one, one.operator in ['In', 'NotIn'] ? has(one.values) && one.values.size() > 0 : true)";
#[cfg(feature = "api")]
const EXISTS_HAS_NONE: &str =
    "self.all(one, one.operator in ['Exists', 'DoesNotExist'] ? !has(one.values) || one.values.size() == 0 : true)";
#[cfg(feature = "api")]
const GT_HAS_A_NUMBER: &str = "self.all(one, one.operator in ['Gt', 'Lt'] \
     ? has(one.values) && one.values.size() == 1 && one.values[0].matches('^[0-9]{1,18}$') : true)";

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PoolTaint {
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 316)))]
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 63)))]
    pub value: Option<String>,
    pub effect: TaintEffect,
}

words! {
    /// What a taint does to pods that do not tolerate it.
    TaintEffect { NoSchedule = "NoSchedule", PreferNoSchedule = "PreferNoSchedule", NoExecute = "NoExecute" }
}

/// Which EC2NodeClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeClassRef {
    /// Its name.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 253)))]
    pub name: String,
}

/// How much of a pool there may be at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// vCPUs of all its instances, such as `1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new(IS_QUANTITY).message("spec.limits.cpu is a quantity such as 1000")))]
    pub cpu: Option<IntOrString>,
    /// Memory of all its instances, such as `4000Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new(IS_QUANTITY).message("spec.limits.memory is a quantity such as 4000Gi")))]
    pub memory: Option<IntOrString>,
    /// How many nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 0, max = 100_000)))]
    pub nodes: Option<i64>,
}

#[cfg(feature = "api")]
const IS_QUANTITY: &str = "type(self) == int ? self >= 0 : (isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) >= 0)";

/// Which capacity types are tried, and what is done while the wanted one has run out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// The capacity types that are tried, in this order. By default reserved, spot, on-demand, of these those that the
    /// requirements allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 3)))]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new("self.all(one, self.exists_one(other, other == one))")
        .message("spec.fallback.order names a capacity type twice")))]
    pub order: Option<Vec<CapacityType>>,
    /// How long spot is tried before the next capacity type, such as `30s`. By default `0s`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^[0-9]{1,9}(ms|s|m|h)$")))]
    pub spot_patience: Option<String>,
    /// When an on-demand node that stands in for spot is moved back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_to_spot: Option<ReturnToSpot>,
    /// How many nodes are on-demand (or reserved) at least: a number, or a percentage of the pool's nodes, rounded up.
    /// While there are fewer, spot is not asked for. By default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", x_kube(validation = Rule::new(
        "type(self) == int ? self >= 0 : string(self).matches('^([0-9]{1,6}|(100|[0-9]{1,2})%)$')")
        .message("spec.fallback.onDemandFloor is a number of nodes such as 2, or a percentage such as 20%")))]
    pub on_demand_floor: Option<IntOrString>,
    /// What on-demand nodes that stand in for spot may cost in all, in US dollars an hour, such as `12.50`. When it is
    /// reached, spot is waited for. Needs the prices of on-demand (`--prices`); without them it stays off, and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$")))]
    pub max_hourly_fallback_cost: Option<String>,
}

/// When an on-demand node that stands in for spot is moved back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReturnToSpot {
    /// How long no capacity error and no interruption must have been seen in its spot pools. By default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^[0-9]{1,9}(ms|s|m|h)$")))]
    pub after: Option<String>,
    /// How long a node stays at least. By default `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^[0-9]{1,9}(ms|s|m|h)$")))]
    pub min_stay: Option<String>,
    /// How many nodes are moved back within an hour at most. By default as many as `surge` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 0, max = 10_000)))]
    pub max_per_hour: Option<i64>,
    /// How many are moved back at the same time; so many nodes may be there beyond the limits meanwhile. By default 1; 0
    /// turns the return off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 0, max = 1_000)))]
    pub surge: Option<i64>,
}

/// What is done with a node when AWS announces that it will take it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct OnInterruption {
    /// What a rebalance recommendation does to the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
    /// Whether evictions wait for the replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStart>,
    /// How long before the deadline the node is to be empty, such as `5s`; at most `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^[0-9]{1,9}(ms|s|m|h)$")))]
    pub margin: Option<String>,
}

/// A number, or a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number or a text is expected")]
pub enum IntOrString {
    Int(i64),
    String(String),
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

#[cfg(feature = "api")]
impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 32 })
    }
}

/// How a pool does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// How many nodes count against its limits: those that are, and those that are being asked for.
    #[serde(default)]
    pub nodes: i64,
    /// Of these, on-demand or reserved.
    #[serde(default)]
    pub on_demand: i64,
    /// Of these, spot.
    #[serde(default)]
    pub spot: i64,
    /// What they have in all.
    #[serde(default)]
    pub resources: PoolResources,
    /// What the on-demand nodes beyond the floor cost in US dollars an hour; none where a price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub hourly_fallback_cost: Option<String>,
    /// `Ready`: whether it can serve; where it cannot, the message begins with the field to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 8)))]
    #[cfg_attr(feature = "api", x_kube(merge_strategy = ListMerge::Map(vec!["type".into()])))]
    pub conditions: Vec<Condition>,
}

/// What the nodes of a pool have in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct PoolResources {
    /// vCPUs.
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub cpu: String,
    /// Memory, such as `96Gi`.
    #[cfg_attr(feature = "api", schemars(length(max = 32)))]
    pub memory: String,
}
