//! A cluster that is there already: nodes by their names and with the room that is left on them, pods on them, budgets
//! over pods of several workloads. And what became of each pod, ask by ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scenario::Workload;
use super::world::System;
use crate::api::launch::LaunchSpec;
use crate::domain::notice::InstanceId;
use crate::domain::offering::Offering;
use crate::domain::requirements::NODE_POOL;
use crate::interruption::Verb;
use crate::sim::scenario::{BudgetSpec, a_node};
use crate::sim::supply::beginning::Named;

/// A node that is there when the world begins.
#[derive(Clone, Debug)]
pub struct GivenNode {
    pub name: String,
    /// `None`: one is made up.
    pub instance: Option<InstanceId>,
    pub offering: Offering,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The Auto Scaling group that its instance is in.
    pub group: Option<String>,
    /// What is left on it for pods of workloads of this world.
    pub room: Room,
    /// What of an instance in its place is not for pods of workloads: the kubelet's share, and DaemonSets.
    pub overhead: Room,
    pub ready: bool,
    pub cordoned: bool,
}

/// CPU in thousandths, and memory in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub cpu_millis: u32,
    pub memory_mib: u64,
}

/// A budget over pods of several workloads.
#[derive(Clone, Debug)]
pub struct GivenBudget {
    pub name: String,
    /// How many of its pods may be missing at once.
    pub max_unavailable: u32,
    /// How many are missing beside those of this world's workloads.
    pub missing: u32,
    /// A pod that is not Ready is let go only while no more than that are missing (`IfHealthyBudget`).
    pub guards_unready: bool,
}

/// Where a pod is when the world begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// By its place among the given nodes.
    pub node: usize,
    pub ready: bool,
}

/// What of a workload is given: where its pods are, by ordinal, and where they may be.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub placed: Vec<Placed>,
    pub memory_mib: u64,
    /// The given nodes that it may run on, and what stands in for them; `None`: all.
    pub nodes: Option<Arc<BTreeSet<usize>>>,
    /// The budgets that protect it, by their places.
    pub budgets: Vec<usize>,
    /// It has a volume of its own, which agents and provisioners take to be its zone's.
    pub has_volume: bool,
}

/// What the API server was asked for one pod's life, and what it said. In the order of the timelines of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAsks {
    /// The place of its workload in the scenario.
    pub workload: usize,
    pub ordinal: u32,
    /// The first ask, whatever the answer.
    pub first_ms: Option<u64>,
    /// When an eviction was refused, and by which budgets: several at once are a mistake that no time heals.
    pub refused: Vec<(u64, Vec<String>)>,
    /// When it was asked to go, how, and with which grace; `None`: its own.
    pub accepted: Vec<(u64, Verb, Option<u32>)>,
}

/// A launch that was asked for: when, and what.
pub type Asked = (u64, LaunchSpec);

/// The members of a budget, and how many are missing beside them.
pub(super) struct BudgetOf {
    pub members: Vec<usize>,
    pub beside: u32,
}

/// The budgets of the agents' world: those of single workloads first.
pub(super) fn budgets(workloads: &[Workload], given: &[GivenBudget]) -> Vec<BudgetSpec> {
    let own = workloads.iter().filter_map(|of| Some((of.path(), of.max_unavailable?, false)));
    let shared = given.iter().map(|of| (of.name.clone(), of.max_unavailable, of.guards_unready));
    let spec = |(name, max_unavailable, guards_unready)| BudgetSpec {
        name,
        max_unavailable,
        replaced_in_ms: None,
        guards_unready,
    };
    own.chain(shared).map(spec).collect()
}

impl System {
    /// The given nodes join before all others.
    pub fn begin_given(&mut self) {
        for given in std::mem::take(&mut self.scenario.given_nodes) {
            let id = given.instance.clone().unwrap_or_else(|| self.supply.instance_id());
            let named = Named {
                id,
                name: given.name.clone(),
                pool: given.labels.get(NODE_POOL).cloned(),
                labels: given.labels,
                annotations: given.annotations.clone(),
                group: given.group,
                ready: given.ready,
            };
            let instance = self.supply.add_named(given.offering, named);
            self.supply.cloud.instances[instance].shown_ms = 0;
            let mut spec = a_node(&given.name);
            spec.cordoned = given.cordoned;
            spec.annotations = given.annotations.into_iter().collect();
            let node = self.add_node(instance, spec, Some(0));
            let one = &mut self.nodes[node];
            (one.cpu_millis, one.memory_mib) = (given.room.cpu_millis, given.room.memory_mib);
            one.overhead = given.overhead;
            if given.ready {
                self.node_ready(node);
            }
        }
    }

    /// Which workloads each budget is about.
    pub fn begin_budgets(&mut self) {
        let own = self.scenario.workloads.iter().enumerate().filter(|(_, of)| of.max_unavailable.is_some());
        let mut budgets: Vec<BudgetOf> = own.map(|(at, _)| BudgetOf { members: vec![at], beside: 0 }).collect();
        let first_shared = budgets.len();
        budgets.extend(self.scenario.given_budgets.iter().map(|of| BudgetOf { members: vec![], beside: of.missing }));
        for (at, of) in self.scenario.workloads.iter().enumerate() {
            for shared in &of.given.budgets {
                budgets[first_shared + shared].members.push(at);
            }
        }
        self.budgets = budgets;
    }

    /// How many pods of a budget are missing, as the API server counts.
    pub fn count_missing(&mut self, budget: usize) {
        let BudgetOf { members, beside } = &self.budgets[budget];
        let missing = |at: &usize| {
            let of = &self.workloads[*at];
            of.spec.replicas.saturating_sub(of.available)
        };
        self.agents.budgets[budget].missing = beside + members.iter().map(missing).sum::<u32>();
    }

    /// The budgets that a workload is counted in.
    pub fn budgets_of(&self, workload: usize) -> Vec<usize> {
        (0..self.budgets.len()).filter(|budget| self.budgets[*budget].members.contains(&workload)).collect()
    }

    /// Whether a node has the memory for a pod, and is one that it may run on.
    pub fn takes(&self, slot: usize, node: usize) -> bool {
        let given = &self.workloads[self.slots[slot].workload].spec.given;
        let one = &self.nodes[node];
        let allowed = |nodes: &BTreeSet<usize>| one.in_place_of.is_none_or(|of| nodes.contains(&of));
        given.memory_mib <= one.memory_mib.saturating_sub(one.used_mib)
            && given.nodes.as_ref().is_none_or(|nodes| allowed(nodes))
    }

    /// A node stands in for another: pods that may run there may run here, and it has the same beside them.
    pub fn is_in_place(&mut self, node: usize) {
        let id = self.supply.cloud.instances[self.nodes[node].instance].id.clone();
        let claim = self.supply.claims.values().find(|claim| claim.status.instance_id.as_ref() == Some(&id));
        let lost = claim.and_then(|claim| self.agents.names.get(&claim.spec.replaces.as_ref()?.node_name)).copied();
        let Some(lost) = lost else { return };
        let (of, overhead) = (self.nodes[lost].in_place_of.unwrap_or(lost), self.nodes[lost].overhead);
        let one = &mut self.nodes[node];
        one.in_place_of = Some(of);
        one.overhead = overhead;
        one.cpu_millis = one.cpu_millis.saturating_sub(overhead.cpu_millis);
        one.memory_mib = one.memory_mib.saturating_sub(overhead.memory_mib);
    }

    /// What was asked for each pod; before the timelines are taken.
    pub fn pod_asks(&self) -> Vec<PodAsks> {
        let of = |life: &super::workloads::PodLife| {
            let slot = &self.slots[life.slot];
            let pod = life.pod.map(|pod| &self.agents.pods[pod]);
            PodAsks {
                workload: slot.workload,
                ordinal: slot.ordinal,
                first_ms: pod.and_then(|pod| pod.asked.first()).map(|(at, _)| *at),
                refused: pod.map(|pod| pod.refused.clone()).unwrap_or_default(),
                accepted: pod.map(|pod| pod.accepted.clone()).unwrap_or_default(),
            }
        };
        self.lives.iter().map(of).collect()
    }

    /// Every launch that was written, in the order of time.
    pub fn launches_asked(&self) -> Vec<Asked> {
        let of = |(token, spec): (&String, &LaunchSpec)| {
            (self.supply.written_ms.get(token).copied().unwrap_or_default(), spec.clone())
        };
        let mut all: Vec<Asked> = self.supply.written.iter().map(of).collect();
        all.sort_by_key(|(at, spec)| (*at, spec.claims.first().map(|claim| claim.name.clone())));
        all
    }
}
