//! What counts against a pool's limits, floor and cap, and what may still be launched without passing one.

use super::{Floor, Rules};
use crate::api::launch::Override;
use crate::domain::offering::{CapacityType, Catalog, MicroDollars, Offering};
use crate::provision::{Because, ladder};

/// What the nodes of a pool come to: those that are, and those that may come of calls on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub nodes: u64,
    pub vcpus: u64,
    pub memory_mib: u64,
    pub spot: u64,
    pub on_demand: u64,
    pub reserved: u64,
    /// What the on-demand ones cost an hour.
    prices: Vec<MicroDollars>,
    /// Of some of them the price is not known.
    pub unpriced: bool,
}

/// What one node adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub vcpus: u64,
    pub memory_mib: u64,
    pub price: Option<MicroDollars>,
}

impl Size {
    /// Of an offering; of a type that is not known nothing but that it is one node.
    pub fn of(offering: &Offering, catalog: &Catalog) -> Self {
        let of = catalog.types.get(&offering.instance_type);
        Self {
            vcpus: of.map_or(0, |of| of.vcpus.into()),
            memory_mib: of.map_or(0, |of| of.memory_mib),
            price: catalog.price(offering),
        }
    }

    /// The largest that may come of a call.
    pub fn largest(overrides: &[Override], capacity: CapacityType, catalog: &Catalog) -> Self {
        let all = overrides.iter().map(|one| Self::of(&ladder::offering(one, capacity), catalog));
        all.reduce(|a, b| Self {
            vcpus: a.vcpus.max(b.vcpus),
            memory_mib: a.memory_mib.max(b.memory_mib),
            price: a.price.max(b.price),
        })
        .unwrap_or_default()
    }
}

impl Usage {
    /// So many nodes more.
    pub fn add(&mut self, capacity: CapacityType, size: Size, count: u64) {
        self.nodes += count;
        self.vcpus += size.vcpus * count;
        self.memory_mib += size.memory_mib * count;
        match capacity {
            CapacityType::Spot => self.spot += count,
            CapacityType::Reserved => self.reserved += count,
            CapacityType::OnDemand => {
                self.on_demand += count;
                self.unpriced |= size.price.is_none();
                self.prices.extend((0..count).filter_map(|_| size.price));
            }
        }
    }

    /// How many more are to be on-demand, when `more` come, than are or are coming.
    pub fn missing_on_demand(&self, floor: Floor, more: u64) -> u64 {
        floor.of(self.nodes + more).saturating_sub(self.on_demand + self.reserved)
    }

    /// What the on-demand nodes beyond the floor cost an hour. The floor's are taken to be the cheapest, so that the cost
    /// is never less than anybody would count.
    pub fn fallback_cost(&self, rules: &Rules) -> MicroDollars {
        if !rules.order.contains(&CapacityType::Spot) {
            return 0;
        }
        let floor = rules.floor.of(self.nodes).saturating_sub(self.reserved);
        let mut prices = self.prices.clone();
        prices.sort_unstable();
        prices.iter().skip(usize::try_from(floor).unwrap_or(usize::MAX)).sum()
    }
}

/// What may be asked for without passing a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    pub count: usize,
    pub overrides: Vec<Override>,
    /// Of nothing that could be asked for a price is known: the cap on cost is off.
    pub unpriced: bool,
}

/// How many of the `wanted` may be asked for, and of which overrides: whatever comes fits.
pub fn room(
    pool: &str,
    rules: &Rules,
    usage: &Usage,
    capacity: CapacityType,
    wanted: usize,
    overrides: Vec<Override>,
    catalog: &Catalog,
) -> Result<Room, Because> {
    let sized: Vec<(Override, Size)> = overrides
        .into_iter()
        .map(|one| {
            let size = Size::of(&ladder::offering(&one, capacity), catalog);
            (one, size)
        })
        .collect();
    let capped = rules.fallback_cost_max.filter(|_| capacity == CapacityType::OnDemand);
    let unpriced = capped.is_some() && sized.iter().all(|(_, size)| size.price.is_none());
    let within = |size: &Size, count: u64| -> Result<(), Because> {
        let mut then = usage.clone();
        then.add(capacity, *size, count);
        for (field, max, used, then) in [
            ("spec.limits.nodes", rules.nodes_max, usage.nodes, then.nodes),
            ("spec.limits.cpu", rules.vcpus_max, usage.vcpus, then.vcpus),
            ("spec.limits.memory", rules.memory_mib_max, usage.memory_mib, then.memory_mib),
        ] {
            if let Some(max) = max.filter(|max| then > *max) {
                return Err(Because::LimitReached { pool: pool.to_owned(), field, used, max });
            }
        }
        match capped {
            // An unknown price among known ones is not asked for: it could be any.
            Some(max) if !unpriced && (size.price.is_none() || then.fallback_cost(rules) > max) => {
                Err(Because::CostCapReached { pool: pool.to_owned(), cost: usage.fallback_cost(rules), max })
            }
            _ => Ok(()),
        }
    };
    let mut first = None;
    for count in (1..=wanted).rev() {
        let fits = sized.iter().filter(|(_, size)| match within(size, count as u64) {
            Ok(()) => true,
            Err(because) => {
                first = Some(because);
                false
            }
        });
        let overrides: Vec<Override> = fits.map(|(one, _)| one.clone()).collect();
        if !overrides.is_empty() {
            return Ok(Room { count, overrides, unpriced });
        }
    }
    Err(first.unwrap_or(Because::NothingToLaunch { why: "nothing was wanted".into() }))
}
