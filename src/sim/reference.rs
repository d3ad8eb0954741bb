//! Models of how other systems get capacity, in the worlds that ours is tried in, for comparison.
//!
//! These are **models**: each is what its documentation and its own timers say, and nothing of its code. Each says where
//! its figures are from and what it leaves out. They see the same pools as ours does, run dry by the same script, and
//! they are given what costs them nothing here: no call of theirs is lost, throttled or late, and every instance that
//! is launched becomes a Node after the world's boot time.
//!
//! | policy | who |
//! |---|---|
//! | [`Policy::Spotkeeper`] | ours: the real core, in its own simulator |
//! | [`Policy::ClusterAutoscaler`] | one Auto Scaling group for each pool, tried in the order of a priority expander |
//! | [`Policy::Karpenter`] | a batch, one capacity type in a call, a memory of three minutes |
//! | [`Policy::Handler`] | a polling termination handler: it drains, and asks for no capacity |

pub mod autoscaler;
pub mod karpenter;
pub mod polling;

use std::collections::BTreeMap;

use super::supply::Report;
use super::supply::cloud::{catalog, zone as zone_name};
use super::supply::scenario::{Step, Supply};
use crate::domain::notice::words;
use crate::domain::offering::{CapacityType, Offering};

words! {
    /// Who provides capacity.
    Policy {
        Spotkeeper = "spotkeeper",
        ClusterAutoscaler = "cluster-autoscaler",
        Karpenter = "karpenter",
        /// A polling termination handler.
        Handler = "handler",
    }
}

/// What came of one policy in one world. All times are milliseconds since the node was doomed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// When each doomed node's replacement was Ready, in the order of the nodes; `None`: never in this world.
    pub ready_ms: Vec<Option<u64>>,
    /// When on-demand capacity was asked for first.
    pub on_demand_ms: Option<u64>,
    /// Calls that ask a cloud for capacity.
    pub calls: u64,
    /// How long the world lasted from the first notice on.
    pub lasted_ms: u64,
}

impl Provided {
    pub fn served(&self) -> usize {
        self.ready_ms.iter().flatten().count()
    }

    /// When half of them had a Ready node, and when the last had; `None` where not so many ever had.
    pub fn half_and_all(&self) -> (Option<u64>, Option<u64>) {
        let mut ready: Vec<Option<u64>> = self.ready_ms.clone();
        ready.sort_by_key(|ready| ready.unwrap_or(u64::MAX));
        (ready.get(ready.len().saturating_sub(1) / 2).copied().flatten(), ready.last().copied().flatten())
    }

    /// Launch calls an hour.
    pub fn calls_an_hour(&self) -> u64 {
        (self.calls * 3_600_000).checked_div(self.lasted_ms).unwrap_or(0)
    }
}

/// The figures of the timers of the models; the defaults are those of the systems.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    pub autoscaler: autoscaler::Timers,
    pub karpenter: karpenter::Timers,
}

/// Runs one policy in a world.
pub fn run(policy: Policy, supply: &Supply, timers: &Timers) -> Provided {
    match policy {
        Policy::Spotkeeper => ours(supply),
        Policy::ClusterAutoscaler => autoscaler::run(&Market::of(supply), &timers.autoscaler),
        Policy::Karpenter => karpenter::run(&Market::of(supply), &timers.karpenter),
        Policy::Handler => polling::run(&Market::of(supply)),
    }
}

fn ours(supply: &Supply) -> Provided {
    let report: Report = supply.clone().run();
    let wanted: u64 = Market::of(supply).demands.iter().map(|(at, _)| *at).min().unwrap_or(0);
    let on_demand = |claim: &super::supply::ClaimAtEnd| claim.asked_ms.get(&CapacityType::OnDemand).copied();
    let first = report.claims.values().filter_map(on_demand).min();
    let ready = |claim: &super::supply::ClaimAtEnd| claim.ready_ms.map(|at| at - claim.wanted_ms);
    Provided {
        ready_ms: report.claims.values().map(ready).collect(),
        on_demand_ms: first.map(|at| at.saturating_sub(wanted)),
        calls: report.figures.calls,
        lasted_ms: supply.ends_ms.saturating_sub(wanted),
    }
}

/// A market that all models see: its pools, what is left in each and when, and when nodes are wanted.
#[derive(Clone, Debug)]
pub struct Market {
    /// Spot first, each in the order of its price.
    pub pools: Vec<Offering>,
    /// What is left in a pool from a moment on; `None`: without end.
    left: BTreeMap<Offering, BTreeMap<u64, Option<u32>>>,
    taken: BTreeMap<Offering, u32>,
    /// When nodes are wanted, and how many.
    pub demands: Vec<(u64, usize)>,
    pub boot_ms: u64,
    pub ends_ms: u64,
    /// When whoever leads is killed: what it remembers is lost.
    pub restarts: Vec<u64>,
}

impl Market {
    /// The market of a world: its pools and its script. Steps that are about ours alone are passed over.
    pub fn of(supply: &Supply) -> Self {
        let catalog = catalog(supply.types, supply.zones);
        let mut pools: Vec<Offering> = Vec::new();
        let mut left = BTreeMap::new();
        for (capacity, room) in [(CapacityType::Spot, supply.spot), (CapacityType::OnDemand, supply.on_demand)] {
            let mut some: Vec<Offering> = catalog.offerings(capacity).map(|(_, offering)| offering).collect();
            some.sort_by_key(|offering| catalog.price(offering));
            left.extend(some.iter().map(|offering| (offering.clone(), BTreeMap::from([(0, room)]))));
            pools.extend(some);
        }
        let mut market = Self {
            pools,
            left,
            taken: BTreeMap::new(),
            demands: Vec::new(),
            // As ours on average: the boot, and 3 to 8 s more until the Node is Ready.
            boot_ms: supply.boot_ms + supply.boot_spread_ms / 2 + 5_500,
            ends_ms: supply.ends_ms,
            restarts: Vec::new(),
        };
        for (at, step) in &supply.script {
            market.step(*at, step);
        }
        market
    }

    fn step(&mut self, at: u64, step: &Step) {
        match step {
            Step::Doom { .. } => self.demands.push((at, 1)),
            Step::DoomMany { count, .. } => self.demands.push((at, *count)),
            Step::Left { capacity, zone, left } => {
                let zone = zone.map(zone_name);
                let of = |offering: &&Offering| {
                    offering.capacity_type == *capacity && zone.as_ref().is_none_or(|zone| *zone == offering.zone)
                };
                for offering in self.pools.iter().filter(of) {
                    self.left.entry(offering.clone()).or_default().insert(at, *left);
                }
            }
            Step::KillLeader { .. } => self.restarts.push(at),
            _ => {}
        }
    }

    /// Whether a pool has room at a moment.
    pub fn has(&self, pool: &Offering, at: u64) -> bool {
        let left = self.left.get(pool).and_then(|changes| changes.range(..=at).next_back());
        let taken = self.taken.get(pool).copied().unwrap_or(0);
        left.is_some_and(|(_, left)| left.is_none_or(|left| taken < left))
    }

    /// Takes an instance, where there is one.
    pub fn take(&mut self, pool: &Offering, at: u64) -> bool {
        let has = self.has(pool, at);
        if has {
            *self.taken.entry(pool.clone()).or_default() += 1;
        }
        has
    }

    /// When a pool has room first within a time; an Auto Scaling group keeps trying its pool by itself.
    pub fn first_room(&self, pool: &Offering, from: u64, until: u64) -> Option<u64> {
        let changes = self.left.get(pool)?.range(from..until).map(|(at, _)| *at);
        std::iter::once(from).chain(changes).find(|at| self.has(pool, *at))
    }
}

/// One policy in one world, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub world: String,
    pub policy: Policy,
    pub provided: Provided,
}

/// Several policies in several worlds.
pub fn compare(worlds: &[(&str, Supply)], policies: &[Policy], timers: &Timers) -> Vec<Row> {
    let row = |world: &str, supply: &Supply, policy: Policy| Row {
        world: world.to_owned(),
        policy,
        provided: run(policy, supply, timers),
    };
    worlds.iter().flat_map(|(name, supply)| policies.iter().map(move |policy| row(name, supply, *policy))).collect()
}

/// The comparison as a table, for people.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<28} {:<20} {:>9} {:>13} {:>13} {:>15} {:>8}\n",
        "world", "policy (models)", "served", "half Ready", "all Ready", "first on-demand", "calls/h"
    );
    for Row { world, policy, provided } in rows {
        let (half, all) = provided.half_and_all();
        let served = format!("{}/{}", provided.served(), provided.ready_ms.len());
        text.push_str(&format!(
            "{world:<28} {:<20} {served:>9} {:>13} {:>13} {:>15} {:>8}\n",
            policy.as_str(),
            after(half),
            after(all),
            after(provided.on_demand_ms),
            provided.calls_an_hour()
        ));
    }
    text
}

fn after(millis: Option<u64>) -> String {
    match millis {
        None => "never".into(),
        Some(millis) if millis < 120_000 => format!("{:.1} s", millis as f64 / 1_000.0),
        Some(millis) => format!("{:.0} min", millis as f64 / 60_000.0),
    }
}
