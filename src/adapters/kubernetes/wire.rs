//! What we read of Kubernetes objects, and no more: the rest is not even parsed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, GroupVersionKind, Object};
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::api::interruption::Interruption;
use crate::domain::node::{Node, Taint};
use crate::domain::pod::{BoundToNode, DEFAULT_GRACE, DO_NOT_DISRUPT, ON_INTERRUPTION, OnInterruption, Pod, PodUid};
use crate::domain::time::{Deadline, Instant};
use crate::interruption::Record;
use crate::interruption::mark::EXCLUDE_FROM_LOAD_BALANCERS;

/// A Node on the wire.
pub type NodeObject = Object<NodeSpec, NodeStatus>;
/// A Pod on the wire.
pub type PodObject = Object<PodSpec, PodStatus>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub unschedulable: bool,
    pub taints: Vec<WireTaint>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireTaint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
    pub time_added: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub node_info: NodeInfo,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeInfo {
    #[serde(rename = "bootID")]
    pub boot_id: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub termination_grace_period_seconds: Option<i64>,
    pub volumes: Vec<Volume>,
}

/// A pod's volume: whether it is one that stays when the pod goes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub persistent_volume_claim: Option<ClaimName>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimName {
    pub claim_name: String,
}

/// Whether a pod has a volume of its own, which is taken to be one of its zone, as those of EBS are.
pub fn keeps_in_zone(volumes: &[Volume]) -> bool {
    volumes.iter().any(|volume| volume.persistent_volume_claim.is_some())
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
}

/// `v1/Node`.
pub fn nodes() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Node"), "nodes")
}

/// `v1/Pod`.
pub fn pods() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods")
}

/// The annotation that the kubelet puts on the API's copies of its static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl From<NodeObject> for Node {
    fn from(object: NodeObject) -> Self {
        let ours = |map: Option<BTreeMap<String, String>>| -> BTreeMap<String, String> {
            let is_ours = |key: &str| key.starts_with("spotkeeper.dev/") || key == EXCLUDE_FROM_LOAD_BALANCERS;
            map.unwrap_or_default().into_iter().filter(|(key, _)| is_ours(key)).collect()
        };
        let taint = |t: WireTaint| Taint { key: t.key, value: t.value, effect: t.effect, time_added: t.time_added };
        let boot_id = object.status.map(|status| status.node_info.boot_id);
        Node {
            name: object.metadata.name.unwrap_or_default(),
            uid: object.metadata.uid.unwrap_or_default(),
            resource_version: object.metadata.resource_version.unwrap_or_default(),
            provider_id: object.spec.provider_id.filter(|id| !id.is_empty()),
            boot_id: boot_id.filter(|id| !id.is_empty()),
            unschedulable: object.spec.unschedulable,
            taints: object.spec.taints.into_iter().map(taint).collect(),
            labels: ours(object.metadata.labels),
            annotations: ours(object.metadata.annotations),
        }
    }
}

/// A pod, its end placed on our clock; `reads` is what the wall clock reads at `now`.
pub fn pod(object: PodObject, reads: Timestamp, now: Instant) -> Pod {
    let ObjectMeta { uid, namespace, name, annotations, owner_references, .. } = &object.metadata;
    let annotation = |key: &str| annotations.as_ref().and_then(|map| map.get(key)).map(String::as_str);
    let grace = object.spec.termination_grace_period_seconds;
    let grace = grace.map_or(DEFAULT_GRACE, |secs| Duration::from_secs(secs.try_into().unwrap_or(0)));
    let daemon = owner_references.iter().flatten().any(|o| o.kind == "DaemonSet" && o.controller == Some(true));
    let phase = object.status.as_ref().map(|status| status.phase.as_str());
    Pod {
        uid: PodUid(uid.clone().unwrap_or_default()),
        namespace: namespace.clone().unwrap_or_default(),
        name: name.clone().unwrap_or_default(),
        grace,
        policy: OnInterruption::from_annotations(annotation(ON_INTERRUPTION), annotation(DO_NOT_DISRUPT)),
        bound_to_node: match (annotation(MIRROR), daemon) {
            (Some(_), _) => Some(BoundToNode::Mirror),
            (None, true) => Some(BoundToNode::DaemonSet),
            (None, false) => None,
        },
        kept_in_zone: keeps_in_zone(&object.spec.volumes),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        ends_at: ends_at(&object.metadata, reads, now),
    }
}

/// When the grace of a terminating pod runs out. `deletionTimestamp` is that moment on the API server's wall clock;
/// whatever ours reads, no more than the grace itself can be left.
fn ends_at(metadata: &ObjectMeta, reads: Timestamp, now: Instant) -> Option<Instant> {
    let deletion = metadata.deletion_timestamp.as_ref()?;
    let grace = metadata.deletion_grace_period_seconds.and_then(|secs| u64::try_from(secs).ok()).unwrap_or(0);
    let left = deletion.0.duration_since(reads);
    let left = if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() };
    Some(now + left.min(Duration::from_secs(grace)))
}

/// A record, its deadlines placed on our clock; `reads` is what the wall clock reads at `now`. `local` is the node's own:
/// by it the agent before this one wrote its timeline.
pub fn record(object: Interruption, reads: Timestamp, local: Timestamp, now: Instant) -> Record {
    let place = |deadline: Option<Timestamp>| deadline.map(|d| Deadline::place(d, reads, now));
    let status = object.status.unwrap_or_default();
    let notices = object.spec.notices.into_iter().map(|entry| {
        let deadline = place(entry.deadline);
        (entry, deadline)
    });
    let first_ask = status.timeline.first_eviction_at;
    Record {
        version: object.metadata.resource_version.unwrap_or_default(),
        asked_for: first_ask.and_then(|first| Duration::try_from(local.duration_since(first)).ok()),
        node: object.spec.node_name,
        provider_id: object.spec.provider_id,
        notices: notices.collect(),
        deadline: place(status.deadline),
        status,
    }
}
