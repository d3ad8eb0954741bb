//! What would happen, as data: the JSON that `serde` makes of [`Plan`] is described in docs/plan.md. Times are
//! milliseconds since AWS's notice, money is in millionths of a dollar an hour.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::offering::{CapacityType, MicroDollars};

/// What would happen.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// `all spot nodes`, `all spot nodes in eu-west-1a`, or the nodes' names.
    pub outage: String,
    pub seed: u64,
    pub nodes_in_cluster: usize,
    /// From the notice to the end of the instance, and how long before it pods should have ended.
    pub notice_ms: u64,
    pub margin_ms: u64,
    /// What is missing from what is known of the cluster; where there is any, all else may be wrong.
    pub gaps: Vec<String>,
    pub findings: Vec<Finding>,
    pub notes: Vec<Finding>,
    pub nodes: Vec<NodePlan>,
    pub pods: Vec<PodPlan>,
    pub capacity: Capacity,
    /// Workloads of which no pod would be Ready for a while.
    pub down: Vec<Down>,
}

/// Something to change, or (among the notes) to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Such as `budget-never-allows`; docs/plan.md has all of them.
    pub code: Code,
    /// Which object is to be changed: `PodDisruptionBudget shop/db`.
    pub object: String,
    pub what: String,
    /// Which field, and how.
    pub change: String,
    pub nodes: Vec<String>,
    pub pods: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    // Findings.
    BudgetNeverAllows,
    SeveralBudgets,
    BudgetOverridden,
    GraceTooLong,
    Stays,
    Bare,
    LocalVolume,
    NoReplacement,
    PoolCannotWork,
    ClassCannotLaunch,
    NotReadyAgain,
    AllAtOnce,
    /// An invariant of spotkeeper's own was broken: a mistake of ours.
    Invariant,
    // Notes.
    BlockedForAWhile,
    Waits,
    KeptInZone,
    OneReplica,
    LeftToKarpenter,
    NotSpot,
    NoPrice,
    Pending,
    NotWeighed,
    NoBudgets,
}

/// One node that is taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePlan {
    pub name: String,
    pub instance_type: String,
    pub zone: Option<String>,
    /// As its labels say it.
    pub capacity_type: Option<CapacityType>,
    pub node_pool: Option<String>,
    /// When it takes no more pods, and when none is left to be asked.
    pub cordoned_ms: Option<u64>,
    pub drained_ms: Option<u64>,
    /// Its DaemonSet and static pods, which end with it.
    pub own_pods: usize,
    pub replacement: Option<Replacement>,
    /// Why nothing comes in its place.
    pub because: Option<String>,
}

/// What comes in the place of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// When EC2 is first asked, by capacity type.
    pub asked_ms: BTreeMap<CapacityType, u64>,
    pub requests: Vec<Request>,
    pub capacity_type: Option<CapacityType>,
    pub ready_ms: Option<u64>,
}

/// What EC2 is asked for: any of these types in any of these zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub at_ms: u64,
    pub capacity_type: CapacityType,
    /// How many instances the call asks for; several nodes may share one.
    pub count: i64,
    pub instance_types: Vec<TypePrice>,
    pub zones: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypePrice {
    pub name: String,
    /// On demand; `None`: not known.
    pub on_demand: Option<MicroDollars>,
}

/// All that is asked of EC2 together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    pub wanted: usize,
    pub ready: usize,
    pub first_ready_ms: Option<u64>,
    pub last_ready_ms: Option<u64>,
    pub by_capacity_type: BTreeMap<CapacityType, usize>,
    /// What the replacements cost at most, were all of them on demand; `None` where a price is not known.
    pub at_most_on_demand: Option<MicroDollars>,
}

/// One pod of a workload on a node that is taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPlan {
    /// `namespace/name`.
    pub name: String,
    /// `Deployment shop/web`.
    pub of: String,
    pub node: String,
    /// `evict`, `wait` or `stay`.
    pub policy: &'static str,
    pub grace_secs: u64,
    pub asked_ms: Option<u64>,
    /// How often an eviction was refused, by which budgets, until when.
    pub refusals: usize,
    pub refused_by: Vec<String>,
    pub refused_until_ms: Option<u64>,
    /// `evicted`: its budget let it go; `deleted`: asked for as long as its grace still fitted, and then no longer;
    /// `none`: nobody asked.
    pub asked_by: AskedBy,
    /// What it is given to end in.
    pub granted_secs: Option<u64>,
    pub end: End,
    /// When it has ended at the latest, were it to take all that it is given.
    pub ends_ms: Option<u64>,
    /// How much less than its own grace it gets.
    pub short_by_secs: u64,
    /// When its successor is Ready, and on which node, as far as the simulator can tell.
    pub ready_again_ms: Option<u64>,
    pub ready_again_on: Option<String>,
    /// The zones that a volume keeps it in.
    pub kept_in: Vec<String>,
    /// The fields that say where its successor may go, and that are not weighed.
    pub not_weighed: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskedBy {
    Evicted,
    Deleted,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It has all of its own grace.
    InTime,
    /// It has less than its own grace: one that needs all of it is cut short.
    CutShort,
    /// It runs when the instance ends.
    Killed,
}

/// A workload of which no pod is Ready for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Down {
    pub of: String,
    /// How many pods it has.
    pub pods: usize,
    pub from_ms: u64,
    /// `None`: to the end of what was simulated.
    pub until_ms: Option<u64>,
}

impl Plan {
    /// Nothing is to be changed.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn pods_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a PodPlan> {
        self.pods.iter().filter(move |pod| pod.node == node)
    }
}
