//! The models in the world of a whole system that has been run: the same pools, shortages and notices.
//!
//! What is left in the pools over time is the scenario's. Which nodes are doomed and when is what happened in the run:
//! chance has a part in it. Only the nodes of the beginning count, since each policy has stand-ins of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Market, Provided, Wanted};
use crate::domain::offering::{CapacityType, Catalog, InstanceType, MicroDollars, Offering};
use crate::sim::system::scenario::{Scenario, Step};
use crate::sim::system::{NodeTimeline, Outcome};

/// A node that AWS took, or has announced to take. Times are milliseconds since the world began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub instance: String,
    pub offering: Offering,
    pub announced_ms: u64,
    pub taken_ms: u64,
}

/// The nodes of the beginning that AWS took, in the order of their notices.
pub fn taken(outcome: &Outcome) -> Vec<Taken> {
    let first = outcome.timelines.nodes.iter().filter(|node| !node.stands_in);
    let mut taken: Vec<Taken> = first
        .filter_map(|node| {
            let (announced_ms, taken_ms) = (node.announced_ms?, node.taken_ms?);
            Some(Taken { instance: node.instance.clone(), offering: offering(node), announced_ms, taken_ms })
        })
        .collect();
    taken.sort_by_key(|one| one.announced_ms);
    taken
}

fn offering(node: &NodeTimeline) -> Offering {
    let NodeTimeline { instance_type, zone, capacity_type, .. } = node;
    Offering { instance_type: instance_type.clone(), zone: zone.clone(), capacity_type: *capacity_type }
}

impl Market {
    /// The market of a system that has been run. Steps that are about ours alone are passed over.
    pub fn of_system(scenario: &Scenario, outcome: &Outcome) -> Self {
        let (cloud, catalog) = (&scenario.cloud, scenario.cloud.catalog());
        let boots = (cloud.boot_ms, cloud.boot_spread_ms);
        let mut market = Self::new(&catalog, cloud.spot, cloud.on_demand, boots);
        market.ends_ms = scenario.ends_ms;
        for (at, step) in &scenario.script {
            match step {
                Step::Pools { of, left, .. } => market.change(*at, *left, |offering| of.has(offering)),
                Step::Refuse { capacity_type, code } => market.refuse(*at, *capacity_type, code.is_some()),
                Step::KillLeader { .. } => market.restarts.push(*at),
                _ => {}
            }
        }
        let wanted = |one: Taken| Wanted { at: one.announced_ms, fits: Some(Arc::new(like(&one.offering, &catalog))) };
        market.wanted = taken(outcome).into_iter().map(wanted).collect();
        market
    }
}

/// What stands in for an instance, as ours has it: the same architecture, at least its size, at most twice.
fn like(lost: &Offering, catalog: &Catalog) -> BTreeSet<Offering> {
    let Some(of) = catalog.types.get(&lost.instance_type) else { return BTreeSet::new() };
    let fits = |one: &InstanceType| {
        let within = |has: u64, least: u64| (least..=2 * least).contains(&has);
        let (vcpus, memory) = (within(one.vcpus.into(), of.vcpus.into()), within(one.memory_mib, of.memory_mib));
        one.arch == of.arch && vcpus && memory && within(one.gpus.into(), of.gpus.into())
    };
    let all = [CapacityType::Spot, CapacityType::OnDemand].into_iter().flat_map(|of| catalog.offerings(of));
    all.filter(|(one, _)| fits(one)).map(|(_, offering)| offering).collect()
}

/// What came of ours in the run itself, counted as the models count: since the notice, of the nodes of the beginning.
pub fn ours(outcome: &Outcome) -> Provided {
    let taken = taken(outcome);
    let begins = taken.first().map_or(outcome.ends_ms, |one| one.announced_ms);
    let ready = |one: &Taken| {
        let of = |name: &str| name.rsplit_once('-').is_some_and(|(instance, _)| instance == one.instance);
        let claims = outcome.claims.iter().filter(|claim| of(&claim.name));
        claims.filter_map(|claim| claim.ready_ms).min().map(|at| at.saturating_sub(one.announced_ms))
    };
    let on_demand = outcome.claims.iter().filter_map(|claim| claim.asked_ms.get(&CapacityType::OnDemand)).min();
    Provided {
        ready_ms: taken.iter().map(ready).collect(),
        launched: Vec::new(),
        on_demand_ms: on_demand.map(|at| at.saturating_sub(begins)),
        calls: outcome.calls.spot + outcome.calls.on_demand + outcome.calls.reserved,
        lasted_ms: outcome.ends_ms.saturating_sub(begins),
    }
}

/// For how long the nodes that were taken had nothing in their place, in all: node-milliseconds.
pub fn missing_node_ms(provided: &Provided, taken: &[Taken], ends_ms: u64) -> u64 {
    let missing = |(one, ready): (&Taken, &Option<u64>)| {
        let until = ready.map_or(ends_ms, |ready| one.announced_ms + ready);
        until.min(ends_ms).saturating_sub(one.taken_ms)
    };
    taken.iter().zip(&provided.ready_ms).map(missing).sum()
}

/// What the nodes of the beginning and a model's stand-ins cost until the end, if none of these goes before.
pub fn cost(scenario: &Scenario, outcome: &Outcome, provided: &Provided) -> MicroDollars {
    let catalog = scenario.cloud.catalog();
    let hours = |of: &Offering, ms: u64| catalog.price(of).unwrap_or(0).saturating_mul(ms) / 3_600_000;
    let first = outcome.timelines.nodes.iter().filter(|node| !node.stands_in);
    let first: u64 =
        first.map(|node| hours(&offering(node), node.taken_ms.unwrap_or(outcome.ends_ms).min(outcome.ends_ms))).sum();
    let stand_ins = provided.launched.iter().flatten();
    first + stand_ins.map(|(at, of)| hours(of, outcome.ends_ms.saturating_sub(*at))).sum::<u64>()
}
