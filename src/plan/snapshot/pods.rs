//! Pods: whose they are, what they ask for, and what keeps them where they are.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kept, Needs, Owner, PodFacts, extended, room};
use crate::domain::pod::{BoundToNode, DEFAULT_GRACE, DO_NOT_DISRUPT, ON_INTERRUPTION, OnInterruption};
use crate::domain::requirements::ZONE;
use crate::plan::objects::{Meta, PersistentVolume, Pod, PodSpec, VolumeClaim, is_ready};
use crate::plan::reading::Gap;
use crate::plan::selector::values_of;
use crate::sim::system::given::Room;

/// The annotation that the kubelet puts on the API's copies of its static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// By what volumes name their zone.
const ZONES: [&str; 3] = [ZONE, "topology.ebs.csi.aws.com/zone", "failure-domain.beta.kubernetes.io/zone"];

/// Volumes by the claims on them.
pub(super) struct Volumes<'a> {
    claims: BTreeMap<(&'a str, &'a str), &'a str>,
    volumes: BTreeMap<&'a str, &'a PersistentVolume>,
}

impl<'a> Volumes<'a> {
    pub fn of(claims: &'a [VolumeClaim], volumes: &'a [PersistentVolume]) -> Self {
        let claim = |of: &'a VolumeClaim| {
            let Meta { namespace, name, .. } = &of.metadata;
            ((namespace.as_str(), name.as_str()), of.spec.volume_name.as_str())
        };
        let volume = |of: &'a PersistentVolume| (of.metadata.name.as_str(), of);
        Self { claims: claims.iter().map(claim).collect(), volumes: volumes.iter().map(volume).collect() }
    }
}

pub(super) fn facts(
    pod: Pod,
    labels: &BTreeMap<String, String>,
    nodes: &BTreeMap<&str, usize>,
    volumes: &Volumes,
    gaps: &mut BTreeSet<Gap>,
) -> PodFacts {
    let finished = pod.has_finished();
    let Pod { metadata, spec, status } = pod;
    let path = format!("{}/{}", metadata.namespace, metadata.name);
    let node = nodes.get(spec.node_name.as_str()).copied();
    let controller = metadata.owner_references.iter().find(|one| one.controller);
    let mirror = metadata.annotations.contains_key(MIRROR);
    let daemon = controller.is_some_and(|one| one.kind == "DaemonSet");
    let annotation = |key: &str| metadata.annotations.get(key).map(String::as_str);
    let policy = OnInterruption::from_annotations(annotation(ON_INTERRUPTION), annotation(DO_NOT_DISRUPT));
    let ours = annotation(ON_INTERRUPTION).is_some_and(|it| matches!(it.trim(), "evict" | "wait" | "stay"));
    let own = |key: &str, value: &str| labels.get(key).is_some_and(|it| it == value);
    let grace = spec.termination_grace_period_seconds.map(|secs| u64::try_from(secs).unwrap_or(0));
    PodFacts {
        node,
        owner: controller.map(|one| owner(&one.kind, &one.name, labels)),
        grace_secs: grace.unwrap_or(DEFAULT_GRACE.as_secs()),
        policy,
        policy_from: (policy != OnInterruption::Evict).then_some(if ours { ON_INTERRUPTION } else { DO_NOT_DISRUPT }),
        bound: if mirror { Some(BoundToNode::Mirror) } else { daemon.then_some(BoundToNode::DaemonSet) },
        finished,
        leaving: metadata.deletion_timestamp.is_some(),
        ready: is_ready(&status.conditions),
        asks_for: asks_for(&spec, &path, gaps),
        extended: spec.containers.iter().flat_map(|one| extended(&one.resources.requests)).collect(),
        kept: if node.is_some() && !finished { kept(&spec, &metadata, volumes, gaps) } else { None },
        not_weighed: not_weighed(&spec),
        needs: Needs {
            selector: spec.node_selector,
            affinity: spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution,
            tolerations: spec.tolerations,
        },
        budgets: Vec::new(),
        provisioner: own("app.kubernetes.io/name", "spotkeeper") && own("app.kubernetes.io/component", "provisioner"),
        namespace: metadata.namespace,
        name: metadata.name,
    }
}

/// What keeps the scheduler from nodes by the pods that run there.
fn not_weighed(spec: &PodSpec) -> Vec<(String, String)> {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let affinity =
        [("podAffinity", &spec.affinity.pod_affinity), ("podAntiAffinity", &spec.affinity.pod_anti_affinity)];
    let terms = affinity.into_iter().flat_map(|(name, of)| {
        let terms = of.required_during_scheduling_ignored_during_execution.iter().enumerate();
        terms.map(move |(at, term)| (format!("affinity.{name}.{required}[{at}]"), term.topology_key.clone()))
    });
    let spread = spec.topology_spread_constraints.iter().enumerate();
    let spread = spread.filter(|(_, one)| one.when_unsatisfiable != "ScheduleAnyway");
    terms
        .chain(spread.map(|(at, one)| (format!("topologySpreadConstraints[{at}]"), one.topology_key.clone())))
        .collect()
}

/// A ReplicaSet of a Deployment is the Deployment's: its name ends in the hash that its pods are labelled with.
fn owner(kind: &str, name: &str, labels: &BTreeMap<String, String>) -> Owner {
    let hash = labels.get("pod-template-hash").filter(|_| kind == "ReplicaSet");
    let deployment = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    match deployment {
        Some(name) => Owner { kind: "Deployment".into(), name: name.to_owned() },
        None => Owner { kind: kind.to_owned(), name: name.to_owned() },
    }
}

/// What the scheduler counts: all containers, or the largest of those that run before them.
fn asks_for(spec: &PodSpec, path: &str, gaps: &mut BTreeSet<Gap>) -> Room {
    let plus = |a: Room, b: Room| Room {
        cpu_millis: a.cpu_millis.saturating_add(b.cpu_millis),
        memory_mib: a.memory_mib.saturating_add(b.memory_mib),
    };
    let most = |a: Room, b: Room| Room {
        cpu_millis: a.cpu_millis.max(b.cpu_millis),
        memory_mib: a.memory_mib.max(b.memory_mib),
    };
    let mut of = |field: &str, one: &crate::plan::objects::Container| {
        room(&one.resources.requests, &format!("Pod {path}: {field} {}", one.name), gaps)
    };
    let mut sum = spec.containers.iter().fold(Room::default(), |sum, one| plus(sum, of("container", one)));
    let (mut before, mut beside) = (Room::default(), Room::default());
    for one in &spec.init_containers {
        let asks = of("init container", one);
        if one.restart_policy == "Always" {
            beside = plus(beside, asks);
        } else {
            before = most(before, plus(asks, beside));
        }
    }
    sum = most(plus(sum, beside), before);
    plus(sum, room(&spec.overhead, &format!("Pod {path}: overhead"), gaps))
}

/// The volume that keeps a pod, if it has one of its own.
fn kept(spec: &PodSpec, metadata: &Meta, volumes: &Volumes, gaps: &mut BTreeSet<Gap>) -> Option<Kept> {
    let mut kept: Option<Kept> = None;
    for claim in spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref()) {
        let (namespace, name) = (metadata.namespace.as_str(), claim.claim_name.as_str());
        let one = kept.get_or_insert_with(|| Kept { claim: name.to_owned(), zones: Vec::new(), on_node: false });
        let bound = volumes.claims.get(&(namespace, name)).copied();
        let Some(volume) = bound.and_then(|name| volumes.volumes.get(name)) else {
            let missing = match bound {
                None => format!("PersistentVolumeClaim {namespace}/{name}"),
                Some(volume) => format!("PersistentVolume {volume}"),
            };
            let path = format!("{namespace}/{}", metadata.name);
            gaps.insert(Gap(format!("{missing} of Pod {path} is not in it: which zone keeps the pod is not known")));
            continue;
        };
        let Some(affinity) = &volume.spec.node_affinity.required else { continue };
        let zones = values_of(affinity, &ZONES);
        if !zones.is_empty() {
            (one.claim, one.zones) = (name.to_owned(), zones.into_iter().map(str::to_owned).collect());
        } else if !values_of(affinity, &["kubernetes.io/hostname"]).is_empty() {
            (one.claim, one.on_node) = (name.to_owned(), true);
        }
    }
    kept
}
