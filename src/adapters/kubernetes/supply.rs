//! NodeClaims, Launches, and what else the provisioner reads and writes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, Object, Status};
use kube::{Api, Resource};
use serde::{Deserialize, Serialize};

use super::wire::{self, WireTaint};
use super::{Kubernetes, one_line};
use crate::api::GROUP;
use crate::api::interruption::{Interruption, Phase, ReplacementStatus};
use crate::api::launch::{Launch as LaunchObject, LaunchSpec, LaunchStatus};
use crate::api::node_claim::{NodeClaim, NodeClaimSpec, NodeClaimStatus};
use crate::api::node_pool::{NodePool, NodePoolStatus};
use crate::domain::node::Taint;
use crate::domain::notice::InstanceId;
use crate::domain::pod::{DO_NOT_DISRUPT, ON_INTERRUPTION, OnInterruption};
use crate::domain::time::Instant;
use crate::driver::Clock;
use crate::provision::{Claim, Created, Doomed, Launch, NodeView, Pool, Record, Replacement};

/// Keeps a claim until its instance is ended.
pub const FINALIZER: &str = "spotkeeper.dev/instance";

/// Keeps a Launch until its claims know what came of it: whoever leads next would make a call anew that is not recorded.
pub const LAUNCH_FINALIZER: &str = "spotkeeper.dev/outcome";

/// The field manager of all that the provisioner writes.
pub(super) const MANAGER: &str = "spotkeeper-provisioner";

/// A Node on the wire, as far as the provisioner reads it.
pub type FleetNode = Object<FleetNodeSpec, FleetNodeStatus>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetNodeSpec {
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
    unschedulable: bool,
    taints: Vec<WireTaint>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FleetNodeStatus {
    conditions: Vec<NodeCondition>,
    allocatable: BTreeMap<String, String>,
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeAddress {
    r#type: String,
    address: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

/// A Pod on the wire, as far as the provisioner reads it.
pub type FleetPod = Object<FleetPodSpec, wire::PodStatus>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetPodSpec {
    pub node_name: Option<String>,
    pub volumes: Vec<wire::Volume>,
}

/// The taints that a node has until it may take workloads: of the cloud controller, of the kubelet, of network and
/// storage agents (which end alike).
fn is_startup(key: &str) -> bool {
    matches!(
        key,
        "node.cloudprovider.kubernetes.io/uninitialized"
            | "node.kubernetes.io/network-unavailable"
            | "node.kubernetes.io/not-ready"
    ) || key.ends_with("/agent-not-ready")
}

/// A Node in the words of the core. Whether workloads run on it is not known here.
pub fn node_view(object: FleetNode) -> NodeView {
    let ready = object.status.iter().flat_map(|status| &status.conditions);
    let provider = object.spec.provider_id.filter(|id| !id.is_empty());
    let name = object.metadata.name.unwrap_or_default();
    NodeView {
        uid: object.metadata.uid.unwrap_or_default(),
        instance: provider.as_ref().and_then(|id| id.rsplit('/').next()?.parse().ok()),
        addresses: provider.is_none().then(|| addresses(&name, &object.status)).unwrap_or_default(),
        provider_id: provider,
        labels: object.metadata.labels.unwrap_or_default(),
        annotations: ours(object.metadata.annotations.unwrap_or_default()),
        resources: extended(&object.status),
        ready: ready.filter(|c| c.r#type == "Ready" && c.status == "True").count() > 0,
        cordoned: object.spec.unschedulable,
        starting: object.spec.taints.iter().any(|taint| is_startup(&taint.key)),
        taints: object.spec.taints.into_iter().map(taint).collect(),
        workloads: true,
        bound_to_zone: false,
        stays: false,
        name,
    }
}

/// What a Node is called inside its network. External addresses are not looked at: they move between instances.
fn addresses(name: &str, status: &Option<FleetNodeStatus>) -> BTreeSet<String> {
    let inside = |one: &&NodeAddress| matches!(one.r#type.as_str(), "InternalIP" | "InternalDNS" | "Hostname");
    let said = status.iter().flat_map(|status| &status.addresses).filter(inside).map(|one| one.address.clone());
    said.chain([name.to_owned()]).filter(|one| !one.is_empty()).collect()
}

/// Annotations that are ours; the others change too often and say nothing to us.
fn ours(all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.into_iter().filter(|(key, _)| key.starts_with("spotkeeper.dev/")).collect()
}

/// The extended resources that can be had: those that a device plugin has registered.
fn extended(status: &Option<FleetNodeStatus>) -> BTreeSet<String> {
    let is_extended = |name: &str| {
        let domain = name.split_once('/').map(|(domain, _)| domain);
        domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
    };
    let all = status.iter().flat_map(|status| &status.allocatable);
    all.filter(|(name, amount)| is_extended(name) && *amount != "0").map(|(name, _)| name.clone()).collect()
}

fn taint(of: WireTaint) -> Taint {
    Taint { key: of.key, value: of.value, effect: of.effect, time_added: of.time_added }
}

/// A NodePool in the words of the core.
pub fn pool(object: NodePool) -> Pool {
    Pool {
        name: object.metadata.name.unwrap_or_default(),
        uid: object.metadata.uid.unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or(0),
        spec: object.spec,
        status: object.status.unwrap_or_default(),
    }
}

/// The Node that a pod keeps from being empty: one that runs, and that no DaemonSet and no kubelet has put there.
pub fn keeps_busy(pod: &FleetPod) -> Option<&str> {
    let meta = &pod.metadata;
    let bound = meta.owner_references.iter().flatten().any(|o| matches!(o.kind.as_str(), "DaemonSet" | "Node"));
    let ended = pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_str(), "Succeeded" | "Failed"));
    pod.spec.node_name.as_deref().filter(|_| !bound && !ended)
}

/// Whether a volume keeps a pod in its zone.
pub fn is_bound_to_zone(pod: &FleetPod) -> bool {
    wire::keeps_in_zone(&pod.spec.volumes)
}

/// Whether a pod is never asked to go.
pub fn stays(pod: &FleetPod) -> bool {
    let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
    let policy = OnInterruption::from_annotations(annotation(ON_INTERRUPTION), annotation(DO_NOT_DISRUPT));
    policy == OnInterruption::Stay
}

/// An Interruption in the words of the core.
pub fn doomed(object: Interruption) -> Doomed {
    let status = object.status.unwrap_or_default();
    let line = &status.timeline;
    let times = [line.noticed_at, line.confirmed_at, line.cordoned_at, line.first_eviction_at, line.drained_at];
    let noticed = object.spec.notices.iter().map(|entry| entry.noticed_at);
    let created = object.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let latest = times.into_iter().chain(noticed).chain([line.ended_at, created]).flatten().max();
    let record = Record {
        uid: object.metadata.uid.unwrap_or_default(),
        owned: object.metadata.owner_references.is_some_and(|owners| !owners.is_empty()),
        latest,
        provider_id: object.spec.provider_id,
        blocked: status.pods.blocked.first().map(|one| format!("{} by {}", one.pod, one.by)),
    };
    let replacement = status.replacement.unwrap_or_default();
    Doomed {
        instance: object.spec.instance_id,
        node: object.spec.node_name,
        episode: status.episode,
        phase: status.phase.unwrap_or(Phase::Noticed),
        kind: status.kind,
        kept_in_zone: status.pods.kept_in_zone,
        policy: status.policy,
        notices: object.spec.notices,
        settled: status.settled,
        replacement: Replacement {
            claim: replacement.claim,
            capacity_type: replacement.capacity_type,
            ready: replacement.ready,
            none_comes: replacement.none_comes,
            episode: replacement.episode,
            because: replacement.because,
        },
        record,
    }
}

/// A claim in the words of the core.
pub fn claim(object: NodeClaim, clock: Clock) -> Claim {
    let meta = object.metadata;
    let created = meta.creation_timestamp.map_or(clock.now(), |at| since_created(at.0, clock));
    Claim {
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        spec: object.spec,
        status: object.status.unwrap_or_default(),
        created,
        deleting: meta.deletion_timestamp.is_some(),
    }
}

/// A wall-clock time of the past on our own clock, which is one [with a past](Clock::with_past).
fn since_created(at: Timestamp, clock: Clock) -> Instant {
    let ago = Timestamp::now().duration_since(at);
    clock.now() - if ago.is_negative() { std::time::Duration::ZERO } else { ago.unsigned_abs() }
}

/// All claims and launches there are.
#[derive(Debug, Default)]
pub struct Listed {
    pub claims: Vec<Claim>,
    pub launches: Vec<Launch>,
    /// The names of claims that are not understood.
    pub unread: Vec<String>,
}

/// An object as it was written, in our words; or its name where it is not understood. One of a newer version, or one that
/// was written by hand before its schema was there, must not keep the others from being seen.
pub fn read<K>(object: DynamicObject) -> Result<K, String>
where
    K: Resource<DynamicType = ()> + serde::de::DeserializeOwned,
{
    let name = object.metadata.name.clone().unwrap_or_default();
    object.try_parse().map_err(|error| {
        let kind = K::kind(&());
        tracing::error!(%kind, name, error = one_line(&error), "the object is not understood and is passed over");
        name
    })
}

fn launch(object: LaunchObject) -> Launch {
    Launch {
        name: object.metadata.name.unwrap_or_default(),
        uid: object.metadata.uid.unwrap_or_default(),
        spec: object.spec,
        status: object.status.unwrap_or_default(),
    }
}

impl Kubernetes {
    pub fn fleet_nodes(&self) -> Api<FleetNode> {
        Api::all_with(self.own.clone(), &wire::nodes())
    }

    pub fn fleet_pods(&self) -> Api<FleetPod> {
        Api::all_with(self.own.clone(), &wire::pods())
    }

    pub fn claims(&self) -> Api<NodeClaim> {
        Api::all(self.own.clone())
    }

    pub fn pools(&self) -> Api<NodePool> {
        Api::all(self.own.clone())
    }

    fn launches(&self) -> Api<LaunchObject> {
        Api::all(self.own.clone())
    }

    /// A pod that keeps one of these Nodes from being empty, as the API server has it now: no cache is asked.
    pub async fn busy_with(&self, nodes: &[String]) -> Result<Option<String>, kube::Error> {
        for node in nodes {
            let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
            let found = self.timed("list", "pods", async { self.fleet_pods().list(&on_it).await }).await?;
            if let Some(pod) = found.items.iter().find(|pod| keeps_busy(pod).is_some()) {
                let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
                return Ok(Some(format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())));
            }
        }
        Ok(None)
    }

    /// What tells this cluster from all others: the uid of its namespace kube-system.
    pub async fn cluster_id(&self) -> Result<String, kube::Error> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.own.clone());
        let call = async { api.get_metadata("kube-system").await };
        let found = self.timed("get", "namespaces", call).await?;
        found.metadata.uid.ok_or_else(|| super::status(500, "NoUid", "namespace kube-system has no uid".to_owned()))
    }

    /// All claims and launches there are, from etcd. A claim that is not understood is named. A launch that is not fails
    /// the list: without it a call could be made twice.
    pub async fn list_supply(&self, clock: Clock) -> Result<Listed, kube::Error> {
        let all = ListParams::default();
        let api = self.as_written::<NodeClaim>();
        let found = self.timed("list", "nodeclaims", async { api.list(&all).await }).await?;
        let launches = self.timed("list", "launches", async { self.launches().list(&all).await }).await?;
        let mut listed = Listed { launches: launches.items.into_iter().map(launch).collect(), ..Listed::default() };
        for object in found.items {
            match read::<NodeClaim>(object) {
                Ok(object) => listed.claims.push(claim(object, clock)),
                Err(name) => listed.unread.push(name),
            }
        }
        Ok(listed)
    }

    /// All objects of one of our kinds as the API server has them, whether they are understood or not.
    pub fn as_written<K: Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        Api::all_with(self.own.clone(), &ApiResource::erase::<K>(&()))
    }

    pub async fn create_claim(&self, name: &str, spec: NodeClaimSpec) -> Created {
        let mut object = NodeClaim::new(name, spec);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        let call = async { self.claims().create(&params(), &object).await };
        created(self.timed("create", "nodeclaims", call).await)
    }

    /// Writes a claim's status, where it is still the one with this uid.
    pub async fn write_claim(&self, name: &str, uid: &str, status: &NodeClaimStatus) -> Result<(), kube::Error> {
        let apply = applied("NodeClaim", name, Some(uid), status);
        self.timed("apply", "nodeclaims/status", async {
            self.claims()
                .patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&apply))
                .await
                .map(drop)
        })
        .await
    }

    /// Deletes a claim and takes our finalizer off. One that is gone, or is another of this name, is done with.
    pub async fn delete_claim(&self, name: &str, uid: &str) -> Result<(), kube::Error> {
        let found = self.timed("get", "nodeclaims", async { self.claims().get_metadata_opt(name).await }).await?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else { return Ok(()) };
        let meta = found.metadata;
        if meta.deletion_timestamp.is_none() {
            gone(
                self.timed("delete", "nodeclaims", async { self.claims().delete(name, &only(uid)).await.map(drop) })
                    .await,
            )?;
        }
        let mut finalizers = meta.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            return Ok(());
        }
        finalizers.retain(|one| one != FINALIZER);
        let patch = serde_json::json!({ "metadata": { "uid": uid, "finalizers": finalizers } });
        let call = async { self.claims().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop) };
        gone(self.timed("patch", "nodeclaims", call).await)
    }

    pub async fn create_launch(&self, name: &str, spec: LaunchSpec) -> Created {
        let mut object = LaunchObject::new(name, spec);
        object.metadata.finalizers = Some(vec![LAUNCH_FINALIZER.to_owned()]);
        let call = async { self.launches().create(&params(), &object).await };
        created(self.timed("create", "launches", call).await)
    }

    pub async fn write_launch(&self, name: &str, uid: &str, status: &LaunchStatus) -> Result<(), kube::Error> {
        let apply = applied("Launch", name, Some(uid), status);
        self.timed("apply", "launches/status", async {
            let params = PatchParams::apply(MANAGER).force();
            self.launches().patch_status(name, &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// Writes a pool's status, where it is still the one with this uid.
    pub async fn write_pool(&self, name: &str, uid: &str, status: &NodePoolStatus) -> Result<(), kube::Error> {
        let apply = applied("NodePool", name, Some(uid), status);
        self.timed("apply", "nodepools/status", async {
            let params = PatchParams::apply(MANAGER).force();
            self.pools().patch_status(name, &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// Deletes a Launch and takes our finalizer off. One that is gone, or is another of this name, is done with.
    pub async fn delete_launch(&self, name: &str, uid: &str) -> Result<(), kube::Error> {
        let call = async { self.launches().delete(name, &only(uid)).await };
        let left = match self.timed("delete", "launches", call).await {
            Ok(answer) => answer.left(),
            Err(error) => return gone(Err(error)),
        };
        // What nothing keeps is gone by now.
        let Some(mut finalizers) = left.and_then(|object| object.metadata.finalizers) else { return Ok(()) };
        finalizers.retain(|one| one != LAUNCH_FINALIZER);
        let patch = serde_json::json!({ "metadata": { "uid": uid, "finalizers": finalizers } });
        let call =
            async { self.launches().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop) };
        gone(self.timed("patch", "launches", call).await)
    }

    /// Says in the Interruption what stands in for its node.
    pub async fn write_replacement(&self, of: &InstanceId, what: &Replacement) -> Result<(), kube::Error> {
        let because: String = what.because.chars().take(1024).collect();
        let replacement = ReplacementStatus {
            claim: what.claim.clone(),
            capacity_type: what.capacity_type,
            ready: what.ready,
            none_comes: what.none_comes,
            episode: what.episode,
            because,
        };
        let status = serde_json::json!({ "replacement": replacement });
        let apply = applied("Interruption", of.as_str(), None, &status);
        self.timed("apply", "interruptions/status", async {
            let params = PatchParams::apply(MANAGER).force();
            self.interruptions().patch_status(of.as_str(), &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// The text of a ConfigMap's one entry; `None` where it is not there.
    pub async fn remembered(&self, namespace: &str, name: &str, key: &str) -> Result<Option<String>, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.own.clone(), namespace);
        let found = self.timed("get", "configmaps", async { api.get_opt(name).await }).await?;
        Ok(found.and_then(|map| map.data?.remove(key)))
    }

    /// Writes a ConfigMap's one entry.
    pub async fn remember(&self, namespace: &str, name: &str, key: &str, text: String) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.own.clone(), namespace);
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(key.to_owned(), text)])),
            ..ConfigMap::default()
        };
        let params = PatchParams::apply(MANAGER).force();
        self.timed("apply", "configmaps", async { api.patch(name, &params, &Patch::Apply(&map)).await.map(drop) }).await
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// An apply of this status; a uid makes the API server refuse where another object has the name by now.
pub(super) fn applied(kind: &str, name: &str, uid: Option<&str>, status: &impl Serialize) -> serde_json::Value {
    let mut metadata = serde_json::json!({ "name": name });
    if let Some(uid) = uid {
        metadata["uid"] = uid.into();
    }
    serde_json::json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind, "metadata": metadata, "status": status,
    })
}

/// Deletes it only if it is this one.
pub(super) fn only(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// What is not there any more, or is another one by now, is gone.
pub(super) fn gone(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result,
    }
}

fn created<K: Resource>(result: Result<K, kube::Error>) -> Created {
    match result {
        Ok(object) => Created::Made { uid: object.meta().uid.clone().unwrap_or_default() },
        Err(kube::Error::Api(status)) if is_there(&status) => Created::Exists,
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 401 | 403 | 404 | 422) => {
            Created::Refused(status.message.clone())
        }
        Err(error) => Created::Failed(one_line(&error)),
    }
}

fn is_there(status: &Status) -> bool {
    status.code == 409 && status.reason == "AlreadyExists"
}
