//! From a cluster and a question to a world of the simulator.
//!
//! Only what runs on the nodes that are lost moves; all else is room that is taken, and pods that budgets count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::question::Question;
use super::reading::Gap;
use super::selector::{allows, tolerates};
use super::snapshot::{NodeFacts, PodFacts, Snapshot};
use super::types::by_name;
use crate::domain::offering::{CapacityType, InstanceType, Offering};
use crate::domain::requirements::{INSTANCE_TYPE, Operator};
use crate::provision::pools::{faults_with, read};
use crate::sim::system::Scenario;
use crate::sim::system::given::{Given, GivenBudget, GivenNode, Placed, Room};
use crate::sim::system::scenario::{
    Cloud, Step, TWO_MINUTES, TypeSpec, Which, Workload, WorkloadKind, a_cluster, a_deployment,
};

/// When AWS says it: everything has started then.
pub const NOTICE_MS: u64 = 60_000;

/// How long after that the world goes on.
const AFTER_MS: u64 = 20 * 60_000;

/// What is said of a node that does not say it.
const UNKNOWN: &str = "unknown";

/// A managed node group's name, which is an Auto Scaling group's.
pub const NODE_GROUP: &str = "eks.amazonaws.com/nodegroup";

/// A world, and what in it is what of the cluster.
#[derive(Debug)]
pub struct World {
    pub scenario: Scenario,
    /// The pods of each workload, by ordinal.
    pub pods: Vec<Vec<usize>>,
    /// What is not known and would be needed.
    pub gaps: BTreeSet<Gap>,
}

/// Makes it; these nodes are taken.
pub fn world(snapshot: &Snapshot, question: &Question, lost: &[usize]) -> World {
    let mut gaps = BTreeSet::new();
    let types = types(snapshot, question, lost, &mut gaps);
    let mut scenario = a_cluster(0);
    scenario.name = "plan".into();
    scenario.seed = question.seed;
    (scenario.policy, scenario.settings) = (question.policy.clone(), question.settings.clone());
    (scenario.nodes, scenario.workloads) = (Vec::new(), Vec::new());
    scenario.cloud = Cloud {
        types: types.values().map(|of| of_type(of, question)).collect(),
        zones: zones(snapshot, lost),
        spot: question.without_spot.then_some(0),
        boot_ms: question.boots_in_ms,
        boot_spread_ms: 0,
        ..Cloud::default()
    };
    scenario.pools = snapshot.pools.clone();
    scenario.classes = snapshot.classes.clone();
    if snapshot.classes.is_empty() {
        // Nobody has said what they are: all that the cluster has.
        let names = snapshot.pools.values().map(|pool| pool.template.spec.node_class_ref.name.clone());
        scenario.classes = names.map(|name| (name, Ok(scenario.cloud.zones.clone()))).collect();
    }
    pools_can_be_judged(snapshot, question, &scenario, &mut gaps);
    let taken = snapshot.taken();
    let on_lost = |at: &usize| snapshot.pods[*at].node.is_some_and(|node| lost.contains(&node));
    for (at, node) in snapshot.nodes.iter().enumerate() {
        if lost.contains(&at) && (node.zone.is_none() || node.of.name.is_empty()) {
            let what = if node.zone.is_none() { "zone" } else { "instance type" };
            gaps.insert(Gap(format!("Node {} has no label that says its {what}", node.name)));
        }
        scenario.given_nodes.push(given_node(node, &types, taken[at], lost.contains(&at)));
    }
    let all: Vec<usize> = (0..snapshot.pods.len()).filter(|at| snapshot.pods[*at].is_a_workloads()).collect();
    let provisioner = provisioner(snapshot, &all);
    let pods: Vec<usize> = all.into_iter().filter(on_lost).filter(|at| !provisioner.contains(at)).collect();
    let mut all_pods: Vec<Vec<usize>> = pods.iter().map(|at| vec![*at]).collect();
    if !provisioner.is_empty() {
        all_pods.push(provisioner);
    }
    let budgets = budgets(snapshot, &all_pods, &mut scenario);
    for pods in &all_pods {
        scenario.workloads.push(workload(snapshot, question, pods, &budgets));
    }
    for node in lost {
        scenario = scenario.at(NOTICE_MS, Step::Interrupt { of: Which::Node(*node), notice_ms: TWO_MINUTES });
    }
    World { scenario: scenario.until(NOTICE_MS + TWO_MINUTES + AFTER_MS), pods: all_pods, gaps }
}

/// What EC2 has as far as it is known: what it said, or the types of the cluster's nodes and those that its NodePools
/// name.
fn types(
    snapshot: &Snapshot,
    question: &Question,
    lost: &[usize],
    gaps: &mut BTreeSet<Gap>,
) -> BTreeMap<String, InstanceType> {
    let mut types = question.types.clone().unwrap_or_default();
    for (at, node) in snapshot.nodes.iter().enumerate() {
        // What is not known cannot be asked for, but where it is all that there is.
        if node.of.name.is_empty() && !lost.contains(&at) {
            continue;
        }
        let name = type_name(node).to_owned();
        let of = || match by_name(&name).filter(|of| of.vcpus == node.of.vcpus && node.of.gpus == 0) {
            Some(of) => of,
            None => InstanceType { name: name.clone(), ..node.of.clone() },
        };
        types.entry(name.clone()).or_insert_with(of);
    }
    if question.types.is_some() {
        return types;
    }
    for (pool, spec) in &snapshot.pools {
        let named = spec.template.spec.requirements.iter();
        let named = named.filter(|one| one.key == INSTANCE_TYPE && one.operator == Operator::In);
        for name in named.flat_map(|one| &one.values) {
            if types.contains_key(name) {
                continue;
            }
            match by_name(name) {
                Some(of) => drop(types.insert(name.clone(), of)),
                None => {
                    let text = format!("what {name} is, which NodePool {pool} names: give --instance-types");
                    gaps.insert(Gap(text));
                }
            }
        }
    }
    types
}

fn type_name(node: &NodeFacts) -> &str {
    if node.of.name.is_empty() { UNKNOWN } else { &node.of.name }
}

/// Where EC2 was not asked, that nothing known meets a pool's requirements says nothing about the pool.
fn pools_can_be_judged(snapshot: &Snapshot, question: &Question, scenario: &Scenario, gaps: &mut BTreeSet<Gap>) {
    if question.types.is_some() {
        return;
    }
    let catalog = scenario.cloud.catalog();
    for (name, spec) in &snapshot.pools {
        if read(spec).is_ok() && faults_with(spec, &catalog).is_some() {
            let text = format!("which instance types meet the requirements of NodePool {name}: give --instance-types");
            gaps.insert(Gap(text));
        }
    }
}

fn of_type(of: &InstanceType, question: &Question) -> TypeSpec {
    TypeSpec { of: of.clone(), spot: None, on_demand: question.prices.get(&of.name).copied() }
}

fn zones(snapshot: &Snapshot, lost: &[usize]) -> Vec<String> {
    let of = |(at, node): (usize, &'_ NodeFacts)| node.zone.clone().or(lost.contains(&at).then(|| UNKNOWN.to_owned()));
    let of_nodes = snapshot.nodes.iter().enumerate().filter_map(of);
    let of_classes = snapshot.classes.values().flatten().flatten().cloned();
    let all: BTreeSet<String> = of_nodes.chain(of_classes).collect();
    all.into_iter().collect()
}

fn given_node(
    node: &NodeFacts,
    types: &BTreeMap<String, InstanceType>,
    (workloads, own): (Room, Room),
    lost: bool,
) -> GivenNode {
    let less = |a: Room, b: Room| Room {
        cpu_millis: a.cpu_millis.saturating_sub(b.cpu_millis),
        memory_mib: a.memory_mib.saturating_sub(b.memory_mib),
    };
    let for_pods = less(node.allocatable, own);
    let of = types.get(type_name(node));
    let whole = of.map_or(node.capacity, |of| Room { cpu_millis: of.vcpus * 1_000, memory_mib: of.memory_mib });
    let known = node.capacity_type.unwrap_or(CapacityType::OnDemand);
    GivenNode {
        name: node.name.clone(),
        instance: node.instance.clone(),
        offering: Offering {
            instance_type: type_name(node).to_owned(),
            zone: node.zone.clone().unwrap_or(UNKNOWN.into()),
            capacity_type: if lost { CapacityType::Spot } else { known },
        },
        labels: node.labels.clone(),
        annotations: node.annotations.clone(),
        group: node.labels.get(NODE_GROUP).cloned(),
        room: if lost { for_pods } else { less(for_pods, workloads) },
        overhead: less(whole, for_pods),
        ready: node.ready,
        cordoned: node.cordoned,
    }
}

/// The two replicas of the provisioner, where they run in this cluster; none: they are taken to run elsewhere.
fn provisioner(snapshot: &Snapshot, pods: &[usize]) -> Vec<usize> {
    let replicas = pods.iter().filter(|at| snapshot.pods[**at].provisioner && snapshot.pods[**at].node.is_some());
    let replicas: Vec<usize> = replicas.copied().collect();
    if replicas.len() == 2 { replicas } else { Vec::new() }
}

/// The budgets of pods that move; returns their places by those in the snapshot.
fn budgets(snapshot: &Snapshot, moving: &[Vec<usize>], scenario: &mut Scenario) -> BTreeMap<usize, usize> {
    let moving: BTreeSet<usize> = moving.iter().flatten().copied().collect();
    let mut places = BTreeMap::new();
    for (at, budget) in snapshot.budgets.iter().enumerate() {
        let members: Vec<usize> = budget.pods.iter().filter(|pod| moving.contains(pod)).copied().collect();
        if members.is_empty() {
            continue;
        }
        let missing = members.iter().filter(|pod| !snapshot.pods[**pod].ready).count();
        places.insert(at, scenario.given_budgets.len());
        scenario.given_budgets.push(GivenBudget {
            name: budget.path(),
            max_unavailable: budget.may_miss,
            missing: budget.missing.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX)),
            guards_unready: budget.guards_unready,
        });
    }
    places
}

fn workload(snapshot: &Snapshot, question: &Question, pods: &[usize], budgets: &BTreeMap<usize, usize>) -> Workload {
    let pod = &snapshot.pods[pods[0]];
    let of = |at: &usize| &snapshot.pods[*at];
    let placed = pods.iter().map(of).filter_map(|pod| Some(Placed { node: pod.node?, ready: pod.ready }));
    let own: BTreeSet<usize> =
        pods.iter().flat_map(|at| &of(at).budgets).filter_map(|at| budgets.get(at).copied()).collect();
    let kind = if pods.len() > 1 { WorkloadKind::Provisioner } else { kind(pod) };
    Workload {
        kind,
        // What the provisioner itself takes is subtracted where it is.
        cpu_millis: if pods.len() > 1 { 0 } else { pod.asks_for.cpu_millis },
        grace_secs: pod.grace_secs,
        // Nobody knows how long a pod takes to stop: all that it may.
        stops_in_ms: pod.grace_secs.saturating_mul(1_000),
        starts_in_ms: question.starts_in_ms,
        policy: pod.policy,
        zonal: pod.kept.as_ref().is_some_and(|kept| !kept.zones.is_empty()),
        given: Given {
            placed: placed.collect(),
            memory_mib: if pods.len() > 1 { 0 } else { pod.asks_for.memory_mib },
            nodes: places(snapshot, pod),
            budgets: own.into_iter().collect(),
            has_volume: pod.kept.is_some(),
        },
        ..a_deployment(&pod.path(), u32::try_from(pods.len()).unwrap_or(1))
    }
}

/// Who makes another pod, and when.
fn kind(pod: &PodFacts) -> WorkloadKind {
    match pod.owner.as_ref().map(|owner| owner.kind.as_str()) {
        None => WorkloadKind::Pod,
        Some("Deployment" | "ReplicaSet" | "ReplicationController") => WorkloadKind::Deployment,
        Some("StatefulSet") => WorkloadKind::StatefulSet,
        // Whoever else makes pods: when the one before is gone.
        Some(_) => WorkloadKind::Job,
    }
}

/// The nodes that may take a pod; `None`: all of them.
fn places(snapshot: &Snapshot, pod: &PodFacts) -> Option<Arc<BTreeSet<usize>>> {
    if pod.kept.as_ref().is_some_and(|kept| kept.on_node) {
        return Some(Arc::default());
    }
    let mut places: BTreeSet<usize> =
        snapshot.nodes.iter().enumerate().filter(|(_, node)| takes(node, pod)).map(|(at, _)| at).collect();
    // It runs there: whatever keeps it off now has not then.
    places.extend(pod.node);
    (places.len() < snapshot.nodes.len()).then(|| Arc::new(places))
}

fn takes(node: &NodeFacts, pod: &PodFacts) -> bool {
    let needs = &pod.needs;
    let selected = needs.selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let affine = needs.affinity.as_ref().is_none_or(|of| allows(of, &node.name, &node.labels).unwrap_or(false));
    let has = pod.extended.iter().all(|(name, count)| node.extended.get(name).is_some_and(|there| there >= count));
    selected && affine && has && tolerates(&needs.tolerations, &node.taints)
}
