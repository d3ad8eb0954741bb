//! A cluster at one moment, as far as a plan depends on it: objects put together, amounts read, selectors matched.
//!
//! - `nodes`, `pods`, `budgets`: how each of them is read.

mod budgets;
mod nodes;
mod pods;

use std::collections::{BTreeMap, BTreeSet};

use super::findings::some;
use super::objects::{Amounts, Class, NodeSelector, Taint, Toleration};
use super::reading::{Gap, Objects};
use crate::api::condition::ConditionStatus;
use crate::api::node_pool::NodePoolSpec;
use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, InstanceType};
use crate::domain::pod::{BoundToNode, OnInterruption};
use crate::domain::quantity;
use crate::provision::class::remembered;
use crate::sim::system::given::Room;

/// A cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of their names.
    pub nodes: Vec<NodeFacts>,
    /// In the order of their namespaces and names.
    pub pods: Vec<PodFacts>,
    pub budgets: Vec<BudgetFacts>,
    /// There was a list of budgets, be it an empty one.
    pub budgets_listed: bool,
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// The zones of an EC2NodeClass's subnets, or why it cannot be launched.
    pub classes: BTreeMap<String, Result<Vec<String>, String>>,
    /// What is missing from it.
    pub gaps: BTreeSet<Gap>,
}

#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    pub instance: Option<InstanceId>,
    pub zone: Option<String>,
    /// As its labels say it.
    pub capacity_type: Option<CapacityType>,
    /// What its instance type is, as far as the Node says it.
    pub of: InstanceType,
    pub labels: BTreeMap<String, String>,
    /// Ours alone: those that say how it is to be treated.
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// For pods.
    pub allocatable: Room,
    /// Of the whole instance.
    pub capacity: Room,
    /// Extended resources, such as `nvidia.com/gpu`.
    pub extended: BTreeMap<String, u64>,
    pub ready: bool,
    pub cordoned: bool,
}

#[derive(Clone, Debug)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    /// Its place among the nodes.
    pub node: Option<usize>,
    pub owner: Option<Owner>,
    pub grace_secs: u64,
    pub policy: OnInterruption,
    /// The annotation that the policy is from.
    pub policy_from: Option<&'static str>,
    pub bound: Option<BoundToNode>,
    /// It has ended.
    pub finished: bool,
    /// Somebody has deleted it.
    pub leaving: bool,
    pub ready: bool,
    pub asks_for: Room,
    pub extended: BTreeMap<String, u64>,
    pub kept: Option<Kept>,
    pub needs: Needs,
    /// The fields of its spec that keep the scheduler from nodes, and which no plan weighs; over which label.
    pub not_weighed: Vec<(String, String)>,
    /// By their places.
    pub budgets: Vec<usize>,
    /// It is a replica of the provisioner.
    pub provisioner: bool,
}

/// What may take a pod.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    pub selector: BTreeMap<String, String>,
    pub affinity: Option<NodeSelector>,
    pub tolerations: Vec<Toleration>,
}

/// Who makes the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub kind: String,
    pub name: String,
}

/// A volume of its own keeps a pod where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub claim: String,
    /// The zones of its volume; none: it says none, as those that are on a network do.
    pub zones: Vec<String>,
    /// It is a disk of this node: nobody else has it.
    pub on_node: bool,
}

#[derive(Clone, Debug)]
pub struct BudgetFacts {
    pub namespace: String,
    pub name: String,
    /// The field that limits it, as it is written: `maxUnavailable: 1`.
    pub rule: String,
    pub expected: u32,
    /// How many of these may be missing.
    pub may_miss: u32,
    /// How many are missing now.
    pub missing: u32,
    /// `IfHealthyBudget`, as it is by default.
    pub guards_unready: bool,
    /// The pods that it is about, by their places.
    pub pods: Vec<usize>,
}

impl BudgetFacts {
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl PodFacts {
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Who makes it, or itself: `Deployment shop/web`.
    pub fn whose(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{} {}/{}", owner.kind, self.namespace, owner.name),
            None => format!("Pod {}", self.path()),
        }
    }

    /// A drain is about it, or it dies with its node: it is none of the node's own and has not ended.
    pub fn is_a_workloads(&self) -> bool {
        self.bound.is_none() && !self.finished && !self.leaving
    }
}

impl Snapshot {
    /// Puts the objects together. Whatever cannot be is named among the gaps.
    pub fn of(mut objects: Objects) -> Self {
        let mut gaps: BTreeSet<Gap> = std::mem::take(&mut objects.gaps).into_iter().collect();
        if objects.nodes.is_empty() {
            gaps.insert(Gap("no Node is in it: `kubectl get nodes`".into()));
        }
        if objects.pods.is_empty() {
            gaps.insert(Gap("no Pod is in it: `kubectl get pods -A`".into()));
        }
        objects.nodes.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let nodes: Vec<NodeFacts> = objects.nodes.drain(..).map(|node| nodes::facts(node, &mut gaps)).collect();
        let places: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(at, of)| (of.name.as_str(), at)).collect();
        let key = |pod: &super::objects::Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        objects.pods.sort_by_key(key);
        let volumes = pods::Volumes::of(&objects.claims, &objects.volumes);
        let mut pods = Vec::new();
        let mut labels = Vec::new();
        let mut elsewhere: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut pod in objects.pods.drain(..) {
            let name = &pod.spec.node_name;
            if !name.is_empty() && !places.contains_key(name.as_str()) && !pod.has_finished() {
                let path = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
                elsewhere.entry(name.clone()).or_default().push(path);
            }
            labels.push(std::mem::take(&mut pod.metadata.labels));
            let labels = labels.last().unwrap_or_else(|| unreachable!("it was just put there"));
            pods.push(pods::facts(pod, labels, &places, &volumes, &mut gaps));
        }
        gaps.extend(elsewhere.into_iter().map(|(node, pods)| {
            let runs = if pods.len() == 1 { "runs" } else { "run" };
            Gap(format!("Node {node}, which Pod {} {runs} on, is not in it", some(&pods, 1)))
        }));
        let budgets = budgets::facts(&objects.budgets, &mut pods, &labels, &mut gaps);
        let pools = objects.pools.into_iter().map(|pool| (pool.metadata.name, pool.spec)).collect();
        let classes = objects.classes.into_iter().map(class).collect();
        let budgets_listed = objects.listed.contains("PodDisruptionBudget");
        let mut snapshot = Self { nodes, pods, budgets, budgets_listed, pools, classes, gaps };
        snapshot.look_for_pools(&objects.left_out);
        snapshot
    }

    /// Whoever is labelled for a NodePool, or names a class, where that was not read.
    fn look_for_pools(&mut self, left_out: &BTreeSet<(&'static str, String)>) {
        let mut missing: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for node in &self.nodes {
            let pool = node.labels.get(crate::domain::requirements::NODE_POOL);
            // Of one that was there and cannot be read that was said.
            let known =
                |pool: &&String| self.pools.contains_key(*pool) || left_out.contains(&("NodePool", (*pool).clone()));
            if let Some(pool) = pool.filter(|pool| !known(pool)) {
                missing.entry(pool).or_default().push(node.name.clone());
            }
        }
        let gaps = missing.into_iter().map(|(pool, nodes)| {
            let (node, is) = if nodes.len() == 1 { ("node", "is") } else { ("nodes", "are") };
            Gap(format!(
                "NodePool {pool}, which {node} {} {is} labelled for, is not in it: `kubectl get nodepools.spotkeeper.dev`",
                some(&nodes, 2)
            ))
        });
        let gaps: Vec<Gap> = gaps.collect();
        self.gaps.extend(gaps);
        if self.classes.is_empty()
            && let Some((pool, spec)) = self.pools.first_key_value()
        {
            let class = &spec.template.spec.node_class_ref.name;
            let text = format!(
                "EC2NodeClass {class} of NodePool {pool} is not in it: `kubectl get ec2nodeclasses.spotkeeper.dev`"
            );
            self.gaps.insert(Gap(text));
        }
    }

    /// What pods take of each node, those of workloads counted apart from those that are the node's own.
    pub fn taken(&self) -> Vec<(Room, Room)> {
        let mut taken = vec![(Room::default(), Room::default()); self.nodes.len()];
        for pod in self.pods.iter().filter(|pod| !pod.finished) {
            let Some(of) = pod.node.and_then(|node| taken.get_mut(node)) else { continue };
            let of = if pod.bound.is_none() { &mut of.0 } else { &mut of.1 };
            of.cpu_millis = of.cpu_millis.saturating_add(pod.asks_for.cpu_millis);
            of.memory_mib = of.memory_mib.saturating_add(pod.asks_for.memory_mib);
        }
        taken
    }
}

/// What the provisioner would take a class to be.
fn class(object: Class) -> (String, Result<Vec<String>, String>) {
    let Class { metadata, spec, status } = object;
    let recipe = remembered(&spec, metadata.generation, &status);
    let said = || {
        let not = status.conditions.iter().find(|one| one.r#type == "Ready" && one.status != ConditionStatus::True);
        not.map_or("its status does not say that it is Ready".to_owned(), |one| one.message.clone())
    };
    let zones = |recipe: crate::api::node_claim::Recipe| {
        let mut zones: Vec<String> = recipe.subnets.into_iter().map(|subnet| subnet.zone).collect();
        zones.sort();
        zones.dedup();
        zones
    };
    (metadata.name, recipe.map(zones).ok_or_else(said))
}

/// CPU and memory among amounts; what cannot be read is named, and counts as nothing.
fn room(amounts: &Amounts, whose: &str, gaps: &mut BTreeSet<Gap>) -> Room {
    let mut read = |name: &str, read: fn(&str) -> Result<u64, String>| match amounts.get(name) {
        None => 0,
        Some(amount) => read(&amount.text()).unwrap_or_else(|why| {
            gaps.insert(Gap(format!("{whose}: {name}: {why}")));
            0
        }),
    };
    let cpu_millis = u32::try_from(read("cpu", quantity::millis)).unwrap_or(u32::MAX);
    Room { cpu_millis, memory_mib: read("memory", quantity::mib) }
}

/// Extended resources among amounts: those with a domain that is not Kubernetes' own.
fn extended(amounts: &Amounts) -> BTreeMap<String, u64> {
    let of = |(name, amount): (&String, &super::objects::Amount)| {
        let ours = name.contains('/') && !name.contains("kubernetes.io/");
        let count = quantity::vcpus(&amount.text()).ok().filter(|count| ours && *count > 0)?;
        Some((name.clone(), count))
    };
    amounts.iter().filter_map(of).collect()
}
