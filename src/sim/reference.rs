//! Models of how other systems get capacity, in the worlds that ours is tried in, for comparison.
//!
//! These are **models**: each is what its documentation and its own timers say, and nothing of its code. Each says where
//! its figures are from and what it leaves out. They see the same pools as ours does, run dry by the same script, and
//! they are given what costs them nothing here: no call of theirs is lost, throttled or late, and every instance that
//! is launched becomes a Node after the world's boot time.
//!
//! They run in a world of supply ([`run`]), or in the world of a whole system that has been run ([`whole`]): of the same
//! pools, shortages and notices.
//!
//! | policy | who |
//! |---|---|
//! | [`Policy::Spotkeeper`] | ours: the real core, in its own simulator |
//! | [`Policy::ClusterAutoscaler`] | one Auto Scaling group for each pool, tried in the order of a priority expander |
//! | [`Policy::Karpenter`] | a batch, one capacity type in a call, a memory of three minutes |
//! | [`Policy::Handler`] | a polling termination handler: it drains, and asks for no capacity |

pub mod autoscaler;
pub mod comparison;
pub mod karpenter;
pub mod polling;
pub mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::supply::Report;
use super::supply::cloud::{catalog, zone as zone_name};
use super::supply::scenario::{Step, Supply};
use crate::domain::notice::words;
use crate::domain::offering::{CapacityType, Catalog, Offering};

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

/// What a model is made from, and what it leaves out beside what all of them do ([`ALL_LEAVE_OUT`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    pub sources: &'static str,
    pub leaves_out: &'static str,
}

/// What none of the models has.
pub const ALL_LEAVE_OUT: &str = "pods and budgets; calls that are lost, throttled or late; instances that never become \
    nodes; interruptions of their own stand-ins; reservations and NodePools; volumes that keep pods in a zone";

impl Policy {
    /// `None` for ours, which is no model.
    pub fn about(self) -> Option<About> {
        match self {
            Self::Spotkeeper => None,
            Self::ClusterAutoscaler => Some(autoscaler::ABOUT),
            Self::Karpenter => Some(karpenter::ABOUT),
            Self::Handler => Some(polling::ABOUT),
        }
    }
}

/// What came of one policy in one world. All times are milliseconds since the node was doomed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provided {
    /// When each doomed node's replacement was Ready, in the order of the nodes; `None`: never in this world.
    pub ready_ms: Vec<Option<u64>>,
    /// What each of them is replaced by, and when it was launched, since the world began; ours has none here.
    pub launched: Vec<Option<(u64, Offering)>>,
    /// When on-demand capacity was asked for first.
    pub on_demand_ms: Option<u64>,
    /// Calls that ask a cloud for capacity.
    pub calls: u64,
    /// How long the world lasted from the first notice on.
    pub lasted_ms: u64,
}

impl Provided {
    /// Nobody has anything yet.
    fn in_market(market: &Market) -> Self {
        let begins = market.wanted.first().map_or(market.ends_ms, |wanted| wanted.at);
        Self {
            ready_ms: vec![None; market.wanted.len()],
            launched: vec![None; market.wanted.len()],
            lasted_ms: market.ends_ms.saturating_sub(begins),
            ..Self::default()
        }
    }

    /// An instance is launched for a node.
    fn serve(&mut self, market: &Market, node: usize, at: u64, pool: &Offering) {
        let ready = at + market.boot_ms;
        self.ready_ms[node] = (ready <= market.ends_ms).then(|| ready - market.wanted[node].at);
        self.launched[node] = Some((at, pool.clone()));
    }

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
    pub fn calls_an_hour(&self) -> f64 {
        if self.lasted_ms == 0 { 0.0 } else { self.calls as f64 * 3_600_000.0 / self.lasted_ms as f64 }
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
    let wanted: u64 = Market::of(supply).wanted.first().map_or(0, |wanted| wanted.at);
    let on_demand = |claim: &super::supply::ClaimAtEnd| claim.asked_ms.get(&CapacityType::OnDemand).copied();
    let first = report.claims.values().filter_map(on_demand).min();
    let ready = |claim: &super::supply::ClaimAtEnd| claim.ready_ms.map(|at| at - claim.wanted_ms);
    Provided {
        ready_ms: report.claims.values().map(ready).collect(),
        on_demand_ms: first.map(|at| at.saturating_sub(wanted)),
        launched: Vec::new(),
        calls: report.figures.calls,
        lasted_ms: supply.ends_ms.saturating_sub(wanted),
    }
}

/// A node that is wanted in another's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub at: u64,
    /// The offerings that will do; `None`: any.
    pub fits: Option<Arc<BTreeSet<Offering>>>,
}

impl Wanted {
    pub fn fits(&self, pool: &Offering) -> bool {
        self.fits.as_ref().is_none_or(|fits| fits.contains(pool))
    }
}

/// A market that all models see: its pools, what is left in each and when, and when nodes are wanted.
#[derive(Clone, Debug)]
pub struct Market {
    /// Spot first, each in the order of its price.
    pub pools: Vec<Offering>,
    /// What is left in a pool from a moment on; `None`: without end.
    left: BTreeMap<Offering, BTreeMap<u64, Option<u32>>>,
    /// When every launch of a capacity type begins to be refused, and when no more.
    refused: BTreeMap<CapacityType, BTreeMap<u64, bool>>,
    /// What was taken since what is left changed last, by the moment of that change.
    taken: BTreeMap<(Offering, u64), u32>,
    /// In the order of their times.
    pub wanted: Vec<Wanted>,
    pub boot_ms: u64,
    pub ends_ms: u64,
    /// When whoever leads is killed: what it remembers is lost.
    pub restarts: Vec<u64>,
}

impl Market {
    /// Without a demand or a shortage yet; each kind of pool holds so many at first.
    fn new(catalog: &Catalog, spot: Option<u32>, on_demand: Option<u32>, (boot_ms, spread_ms): (u64, u64)) -> Self {
        let mut pools: Vec<Offering> = Vec::new();
        let mut left = BTreeMap::new();
        for (capacity, room) in [(CapacityType::Spot, spot), (CapacityType::OnDemand, on_demand)] {
            let mut some: Vec<Offering> = catalog.offerings(capacity).map(|(_, offering)| offering).collect();
            some.sort_by_key(|offering| catalog.price(offering));
            left.extend(some.iter().map(|offering| (offering.clone(), BTreeMap::from([(0, room)]))));
            pools.extend(some);
        }
        Self {
            pools,
            left,
            refused: BTreeMap::new(),
            taken: BTreeMap::new(),
            wanted: Vec::new(),
            // As ours on average: the boot, and 3 to 8 s more until the Node is Ready.
            boot_ms: boot_ms + spread_ms / 2 + 5_500,
            ends_ms: 0,
            restarts: Vec::new(),
        }
    }

    /// The market of a world: its pools and its script. Steps that are about ours alone are passed over.
    pub fn of(supply: &Supply) -> Self {
        let catalog = catalog(supply.types, supply.zones);
        let boots = (supply.boot_ms, supply.boot_spread_ms);
        let mut market = Self::new(&catalog, supply.spot, supply.on_demand, boots);
        market.ends_ms = supply.ends_ms;
        for (at, step) in &supply.script {
            market.step(*at, step);
        }
        market.wanted.sort_by_key(|wanted| wanted.at);
        market
    }

    fn step(&mut self, at: u64, step: &Step) {
        let any = Wanted { at, fits: None };
        match step {
            Step::Doom { .. } => self.wanted.push(any),
            Step::DoomMany { count, .. } => self.wanted.extend(vec![any; *count]),
            Step::Left { capacity, zone, left } => {
                let zone = zone.map(zone_name);
                self.change(at, *left, |offering| {
                    offering.capacity_type == *capacity && zone.as_ref().is_none_or(|zone| *zone == offering.zone)
                });
            }
            Step::Refuse { capacity, code } => self.refuse(at, *capacity, code.is_some()),
            Step::KillLeader { .. } => self.restarts.push(at),
            _ => {}
        }
    }

    /// So much is left in these pools from a moment on.
    fn change(&mut self, at: u64, left: Option<u32>, of: impl Fn(&Offering) -> bool) {
        for offering in self.pools.iter().filter(|offering| of(offering)) {
            self.left.entry(offering.clone()).or_default().insert(at, left);
        }
    }

    fn refuse(&mut self, at: u64, capacity: CapacityType, refused: bool) {
        self.refused.entry(capacity).or_default().insert(at, refused);
    }

    /// Whether a pool has room at a moment, and since when what was taken of it counts.
    fn room(&self, pool: &Offering, at: u64) -> Option<u64> {
        let refused = self.refused.get(&pool.capacity_type).and_then(|changes| changes.range(..=at).next_back());
        if refused.is_some_and(|(_, refused)| *refused) {
            return None;
        }
        let (since, left) = self.left.get(pool)?.range(..=at).next_back()?;
        let taken = self.taken.get(&(pool.clone(), *since)).copied().unwrap_or(0);
        left.is_none_or(|left| taken < left).then_some(*since)
    }

    /// Takes an instance, where there is one.
    pub fn take(&mut self, pool: &Offering, at: u64) -> bool {
        let since = self.room(pool, at);
        if let Some(since) = since {
            *self.taken.entry((pool.clone(), since)).or_default() += 1;
        }
        since.is_some()
    }

    /// When a pool has room first within a time; an Auto Scaling group keeps trying its pools by itself.
    pub fn first_room(&self, pool: &Offering, from: u64, until: u64) -> Option<u64> {
        let changes = self.left.get(pool)?.range(from..until).map(|(at, _)| *at);
        let refused = self.refused.get(&pool.capacity_type).into_iter().flat_map(|of| of.range(from..until));
        let mut moments: Vec<u64> = std::iter::once(from).chain(changes).chain(refused.map(|(at, _)| *at)).collect();
        moments.sort_unstable();
        moments.into_iter().find(|at| self.room(pool, *at).is_some())
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
            "{world:<28} {:<20} {served:>9} {:>13} {:>13} {:>15} {:>8.1}\n",
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
