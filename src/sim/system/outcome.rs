//! What came of a system, in figures that a person cares for, and as data for a page.
//!
//! The JSON that `serde` makes of [`Outcome`] is described in docs/rehearse.md. Times are milliseconds since the world
//! began, money is in millionths of a dollar.

use std::collections::BTreeMap;

use serde::Serialize;

use super::given::{Asked, PodAsks};
use super::scenario::WorkloadKind;
use super::world::System;
use crate::api::interruption::Phase;
use crate::domain::offering::{CapacityType, MicroDollars};
use crate::sim::Finding;
use crate::sim::supply::ClaimAtEnd;

/// What came of a system, and its story.
#[derive(Clone, Debug)]
pub struct Report {
    pub outcome: Outcome,
    /// What the API server was asked for each pod, in the order of its timelines.
    pub asks: Vec<PodAsks>,
    /// Every launch that was asked for.
    pub launches: Vec<Asked>,
    /// One line for each decision and event; empty where it was not asked for.
    pub story: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub scenario: String,
    pub seed: u64,
    pub ends_ms: u64,
    /// What should not have been, in the order in which it was seen; empty where every invariant held.
    pub findings: Vec<FindingOutcome>,
    pub capacity: Capacity,
    pub pods: Pods,
    pub calls: Calls,
    pub cost: Cost,
    pub work: Work,
    pub workloads: Vec<WorkloadOutcome>,
    pub claims: Vec<ClaimOutcome>,
    /// Every reason that was given, with its time.
    pub decisions: Vec<Decision>,
    pub timelines: Timelines,
}

/// Something that should not have been.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingOutcome {
    pub at_ms: u64,
    pub node: String,
    /// `I-1` to `I-8`, `P-1` to `P-12`, or `live` where something did not come to an end.
    pub code: String,
    pub what: String,
}

/// How long it took from a confirmed notice to a Ready node in its place.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    pub claims: usize,
    /// How many became Ready.
    pub ready: usize,
    pub p50_ms: Option<u64>,
    pub p99_ms: Option<u64>,
    pub max_ms: Option<u64>,
    /// How many are of each capacity type.
    pub by_capacity_type: BTreeMap<CapacityType, usize>,
}

/// The sums over all workloads, without the provisioner itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// For every pod that was wanted and not Ready, or was asked to end, the time for which it was so.
    pub unavailable_pod_ms: u64,
    /// Pods that stopped before their node was taken.
    pub stopped: u64,
    /// Of these, pods whose grace ran out first.
    pub cut_short: u64,
    /// Pods that were killed with their instance.
    pub killed: u64,
    /// Work that was done after the last checkpoint of a pod that was killed or cut short.
    pub work_lost_ms: u64,
}

/// Launch calls (`CreateFleet`) that reached EC2.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calls {
    pub spot: u64,
    pub on_demand: u64,
    pub reserved: u64,
    pub throttled: u64,
    pub instances_launched: u64,
    pub instances_ended: u64,
}

/// What the instances cost until the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    pub spent: MicroDollars,
    /// The nodes of the beginning, all on demand and never interrupted.
    pub all_on_demand: MicroDollars,
    /// The same, all on spot and never interrupted.
    pub all_spot: MicroDollars,
}

/// How much was simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    pub events: u64,
    pub effects: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadOutcome {
    /// `namespace/name`.
    pub name: String,
    pub kind: WorkloadKind,
    pub replicas: u32,
    pub available_at_end: u32,
    pub unavailable_pod_ms: u64,
    /// The longest time that one of its pods was missing before another was Ready.
    pub longest_gap_ms: u64,
    pub stopped: u64,
    pub cut_short: u64,
    pub killed: u64,
    pub work_lost_ms: u64,
}

/// One node that was wanted in the place of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimOutcome {
    pub name: String,
    pub wanted_ms: u64,
    /// When EC2 was first asked on its behalf, by capacity type.
    pub asked_ms: BTreeMap<CapacityType, u64>,
    pub ready_ms: Option<u64>,
    pub capacity_type: Option<CapacityType>,
    pub attempts: u64,
}

/// A decision of an agent or a provisioner.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    pub at_ms: u64,
    /// `agent`, or `provisioner 0` and `provisioner 1`.
    pub by: String,
    /// A node, a claim or a launch; empty where it is about the whole.
    pub about: String,
    /// In one word.
    pub reason: &'static str,
    pub because: String,
}

/// What was how, and from when on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timelines {
    pub nodes: Vec<NodeTimeline>,
    pub pods: Vec<PodTimeline>,
    pub pools: Vec<PoolTimeline>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeTimeline {
    pub name: String,
    pub instance: String,
    pub instance_type: String,
    pub zone: String,
    pub capacity_type: CapacityType,
    /// It was launched in another's place.
    pub stands_in: bool,
    /// When AWS announced its end, and for when; none where it never did.
    pub announced_ms: Option<u64>,
    pub taken_ms: Option<u64>,
    pub states: Vec<(u64, NodeState)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum NodeState {
    /// Its Node is there, and not Ready.
    Joining,
    Ready,
    /// AWS has announced its end; its agent may not know yet.
    Announced,
    Noticed,
    Confirmed,
    Cordoned,
    Draining,
    Drained,
    Cancelled,
    Refuted,
    Gone,
}

impl NodeState {
    pub(super) fn of(phase: Phase) -> Self {
        match phase {
            Phase::Noticed => Self::Noticed,
            Phase::Confirmed => Self::Confirmed,
            Phase::Cordoned => Self::Cordoned,
            Phase::Draining => Self::Draining,
            Phase::Drained => Self::Drained,
            Phase::Cancelled => Self::Cancelled,
            Phase::Refuted => Self::Refuted,
            Phase::Gone => Self::Gone,
        }
    }
}

/// One pod, from its creation to its end; its successor is another.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodTimeline {
    pub name: String,
    pub workload: String,
    /// When, on which node, how.
    pub states: Vec<(u64, Option<String>, PodState)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PodState {
    Pending,
    /// On its node, not Ready yet.
    Starting,
    Running,
    Terminating,
    /// It has ended within its grace.
    Stopped,
    /// Its grace ran out first.
    CutShort,
    /// It died with its instance.
    Killed,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolTimeline {
    pub instance_type: String,
    pub zone: String,
    pub capacity_type: CapacityType,
    /// As it is in EC2.
    pub truth: Vec<(u64, PoolState)>,
    /// As the provisioner that leads believes it to be; empty where it never had a reason to believe anything.
    pub believed: Vec<(u64, PoolState)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PoolState {
    Open,
    Short,
}

impl Report {
    /// The story and the findings, for people.
    pub fn told(&self) -> String {
        let mut text = format!("{}, seed {}\n", self.outcome.scenario, self.outcome.seed);
        for line in &self.story {
            text.push_str(line);
            text.push('\n');
        }
        for FindingOutcome { at_ms, node, code, what } in &self.outcome.findings {
            text.push_str(&format!("{:9.3} s  {node}: {code}: {what}\n", *at_ms as f64 / 1_000.0));
        }
        text
    }

    pub fn says(&self, words: &str) -> bool {
        self.story.iter().any(|line| line.contains(words))
    }
}

impl Outcome {
    /// A workload, by `namespace/name`.
    pub fn workload(&self, name: &str) -> Option<&WorkloadOutcome> {
        self.workloads.iter().find(|one| one.name == name)
    }
}

impl Capacity {
    fn of(claims: &[ClaimOutcome]) -> Self {
        let mut took: Vec<u64> =
            claims.iter().filter_map(|claim| Some(claim.ready_ms?.saturating_sub(claim.wanted_ms))).collect();
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let mut by_capacity_type = BTreeMap::new();
        for capacity_type in claims.iter().filter_map(|claim| claim.capacity_type) {
            *by_capacity_type.entry(capacity_type).or_default() += 1;
        }
        Self {
            claims: claims.len(),
            ready: took.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms: took.last().copied(),
            by_capacity_type,
        }
    }
}

impl Pods {
    fn of(workloads: &[WorkloadOutcome]) -> Self {
        let mut sum = Self::default();
        for one in workloads.iter().filter(|one| one.kind != WorkloadKind::Provisioner) {
            sum.unavailable_pod_ms += one.unavailable_pod_ms;
            sum.stopped += one.stopped;
            sum.cut_short += one.cut_short;
            sum.killed += one.killed;
            sum.work_lost_ms += one.work_lost_ms;
        }
        sum
    }
}

impl System {
    /// The end: everything is judged and counted.
    pub fn conclude(mut self) -> Report {
        self.verdict();
        let workloads = self.workload_outcomes();
        let (asks, launches) = (self.pod_asks(), self.launches_asked());
        let (pods, pools) = (self.pod_timelines(), self.pool_timelines());
        let cost = self.cost();
        let timelines = Timelines { nodes: self.timelines(), pods, pools };
        let end = self.now;
        let (agents, _) = self.agents.conclude(end);
        let unwanted = self.supply.unwanted.clone();
        let supply = self.supply.conclude(end);
        self.story.extend(agents.story);
        self.story.extend(supply.story);
        // What was going anyway needed nothing in its place.
        let needed = |(name, of): &(String, ClaimAtEnd)| {
            let going = name.rsplit_once('-').is_some_and(|(instance, _)| unwanted.contains(instance));
            !going || !of.asked_ms.is_empty()
        };
        let claims: Vec<ClaimOutcome> = supply.claims.into_iter().filter(needed).map(claim).collect();
        let [spot, on_demand, reserved] = supply.figures.calls_of;
        let mut findings: Vec<Finding> =
            self.findings.into_iter().chain(agents.findings).chain(supply.findings).collect();
        findings.sort_by_key(|finding| finding.at_ms);
        let finding = |Finding { at_ms, node, code, what }| FindingOutcome { at_ms, node, code: code.into(), what };
        let outcome = Outcome {
            scenario: self.scenario.name,
            seed: self.scenario.seed,
            ends_ms: end,
            findings: findings.into_iter().map(finding).collect(),
            capacity: Capacity::of(&claims),
            pods: Pods::of(&workloads),
            calls: Calls {
                spot,
                on_demand,
                reserved,
                throttled: supply.figures.throttled,
                instances_launched: supply.figures.launched,
                instances_ended: supply.figures.ended,
            },
            cost,
            work: Work {
                events: agents.figures.events + supply.figures.events,
                effects: agents.figures.effects + supply.figures.effects,
            },
            workloads,
            claims,
            decisions: self.decisions,
            timelines,
        };
        Report { outcome, asks, launches, story: self.story }
    }

    fn cost(&self) -> Cost {
        let mut cost = Cost::default();
        let hours = |ms: u64, price: u64| price.saturating_mul(ms) / 3_600_000;
        for one in &self.supply.cloud.instances {
            let price = |capacity_type| {
                let offering = crate::domain::offering::Offering { capacity_type, ..one.offering.clone() };
                self.supply.catalog.price(&offering).unwrap_or(0)
            };
            let lived = one.died_ms.unwrap_or(self.now).saturating_sub(one.born_ms);
            cost.spent += hours(lived, price(one.offering.capacity_type));
            if one.token.is_none() {
                cost.all_on_demand += hours(self.now, price(CapacityType::OnDemand));
                cost.all_spot += hours(self.now, price(CapacityType::Spot));
            }
        }
        cost
    }
}

fn claim((name, of): (String, ClaimAtEnd)) -> ClaimOutcome {
    let ClaimAtEnd { wanted_ms, asked_ms, ready_ms, capacity, attempts } = of;
    ClaimOutcome { name, wanted_ms, asked_ms, ready_ms, capacity_type: capacity, attempts }
}
