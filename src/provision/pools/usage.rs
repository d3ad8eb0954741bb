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

/// What a pool would cost with more nodes on demand. A call may have hundreds of overrides, and a pool thousands of nodes.
struct Then<'a> {
    usage: &'a Usage,
    rules: &'a Rules,
    /// In order.
    prices: Vec<MicroDollars>,
    /// What so many of the cheapest cost together.
    sums: Vec<MicroDollars>,
}

impl<'a> Then<'a> {
    fn new(usage: &'a Usage, rules: &'a Rules) -> Self {
        let mut prices = usage.prices.clone();
        prices.sort_unstable();
        let mut sum = 0;
        let sums = prices.iter().map(|price| {
            sum += price;
            sum
        });
        let sums = std::iter::once(0).chain(sums).collect();
        Self { usage, rules, prices, sums }
    }

    /// [`Usage::fallback_cost`] with so many more at this price.
    fn fallback_cost(&self, price: MicroDollars, count: u64) -> MicroDollars {
        if !self.rules.order.contains(&CapacityType::Spot) {
            return 0;
        }
        let floor = self.rules.floor.of(self.usage.nodes + count).saturating_sub(self.usage.reserved);
        let (there, cheaper) = (self.prices.len() as u64, self.prices.partition_point(|of| *of < price));
        let beyond = |of: u64| self.sums[self.prices.len()] - self.sums[of.min(there) as usize];
        // The floor's are the cheapest: of those that are cheaper than these, then these, then the others.
        let cheaper = cheaper as u64;
        match floor {
            floor if floor <= cheaper => beyond(floor) + price * count,
            floor if floor <= cheaper + count => beyond(cheaper) + price * (cheaper + count - floor),
            floor => beyond(floor - count),
        }
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
    let then = capped.map(|_| Then::new(usage, rules));
    let within = |size: &Size, count: u64| -> Result<(), Because> {
        for (field, max, used, more) in [
            ("spec.limits.nodes", rules.nodes_max, usage.nodes, count),
            ("spec.limits.cpu", rules.vcpus_max, usage.vcpus, size.vcpus * count),
            ("spec.limits.memory", rules.memory_mib_max, usage.memory_mib, size.memory_mib * count),
        ] {
            if let Some(max) = max.filter(|max| used + more > *max) {
                return Err(Because::LimitReached { pool: pool.to_owned(), field, used, max });
            }
        }
        let Some((max, then)) = capped.zip(then.as_ref()).filter(|_| !unpriced) else { return Ok(()) };
        match size.price {
            Some(price) if then.fallback_cost(price, count) <= max => Ok(()),
            // An unknown price among known ones is not asked for: it could be any.
            _ => Err(Because::CostCapReached { pool: pool.to_owned(), cost: usage.fallback_cost(rules), max }),
        }
    };
    // Of one more nothing fits that does not fit of one.
    let most = |size: &Size| {
        let (mut fits, mut beyond) = (0, wanted as u64 + 1);
        while fits + 1 < beyond {
            let count = fits + (beyond - fits) / 2;
            match within(size, count) {
                Ok(()) => fits = count,
                Err(_) => beyond = count,
            }
        }
        fits
    };
    let most: Vec<u64> = sized.iter().map(|(_, size)| most(size)).collect();
    let count = most.iter().copied().max().unwrap_or(0);
    if count == 0 {
        let last = sized.last().filter(|_| wanted > 0).and_then(|(_, size)| within(size, 1).err());
        return Err(last.unwrap_or(Because::NothingToLaunch { why: "nothing was wanted".into() }));
    }
    let fits = sized.into_iter().zip(most).filter(|(_, most)| *most >= count);
    let overrides = fits.map(|((one, _), _)| one).collect();
    Ok(Room { count: usize::try_from(count).unwrap_or(wanted), overrides, unpriced })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::node_pool::NodePoolSpec;
    use crate::domain::offering::InstanceType;

    const TYPES: [&str; 4] = ["a.large", "b.large", "c.large", "d.large"];

    /// Four types in one zone; the price of the last is not known.
    fn catalog(rng: &mut fastrand::Rng) -> Catalog {
        let mut catalog = Catalog::default();
        for name in TYPES {
            let (vcpus, memory_mib) = (rng.u32(1..9), rng.u64(1..9) * 1_024);
            let of = InstanceType { name: name.into(), vcpus, memory_mib, ..Default::default() };
            catalog.types.insert(name.into(), of);
            let offering = an_offering(name);
            if name != TYPES[3] {
                catalog.prices.insert(offering, rng.u64(1..6) * 100);
            }
        }
        catalog
    }

    fn an_offering(name: &str) -> Offering {
        Offering { instance_type: name.into(), zone: "a".into(), capacity_type: CapacityType::OnDemand }
    }

    fn an_override(name: &str) -> Override {
        Override { instance_type: name.into(), zone: "a".into(), subnet_id: "subnet-a".into() }
    }

    /// Whether so many more of a size are within the limits and the cap, counted one by one.
    fn is_within(rules: &Rules, usage: &Usage, capacity: CapacityType, size: Size, count: u64, unpriced: bool) -> bool {
        let mut then = usage.clone();
        (0..count).for_each(|_| then.add(capacity, size, 1));
        let below = |max: Option<u64>, of: u64| max.is_none_or(|max| of <= max);
        let limits = below(rules.nodes_max, then.nodes)
            && below(rules.vcpus_max, then.vcpus)
            && below(rules.memory_mib_max, then.memory_mib);
        let capped = rules.fallback_cost_max.filter(|_| capacity == CapacityType::OnDemand && !unpriced);
        limits && capped.is_none_or(|max| size.price.is_some() && then.fallback_cost(rules) <= max)
    }

    #[test]
    fn there_is_room_for_as_many_as_one_by_one_pass_no_limit() {
        let (mut full, mut partly) = (0, 0);
        for seed in 0..2_000 {
            let rng = &mut fastrand::Rng::with_seed(seed);
            let catalog = catalog(rng);
            let mut usage = Usage::default();
            for _ in 0..rng.usize(0..12) {
                let capacity = [CapacityType::Spot, CapacityType::OnDemand, CapacityType::Reserved][rng.usize(0..3)];
                usage.add(capacity, Size::of(&an_offering(TYPES[rng.usize(0..4)]), &catalog), 1);
            }
            let mut spec = NodePoolSpec::default();
            spec.template.spec.node_class_ref.name = "default".into();
            let mut rules = crate::provision::pools::read(&spec).expect("nothing is wrong with it");
            rules.floor = if rng.bool() { Floor::Nodes(rng.u64(0..12)) } else { Floor::Percent(rng.u64(0..101)) };
            rules.nodes_max = rng.bool().then(|| usage.nodes + rng.u64(0..12));
            rules.vcpus_max = rng.bool().then(|| usage.vcpus + rng.u64(0..40));
            rules.memory_mib_max = rng.bool().then(|| usage.memory_mib + rng.u64(0..40_000));
            rules.fallback_cost_max = rng.bool().then(|| rng.u64(0..4_000));
            let capacity = if rng.bool() { CapacityType::Spot } else { CapacityType::OnDemand };
            let names: Vec<&str> = TYPES.into_iter().filter(|_| rng.bool()).collect();
            let wanted = rng.usize(0..10);
            let size = |name: &str| Size::of(&an_offering(name), &catalog);
            let sizes: Vec<Size> = names
                .iter()
                .map(|name| Size {
                    price: size(name).price.filter(|_| capacity == CapacityType::OnDemand),
                    ..size(name)
                })
                .collect();
            let capped = rules.fallback_cost_max.is_some() && capacity == CapacityType::OnDemand;
            let unpriced = capped && sizes.iter().all(|size| size.price.is_none());
            let fits = |count: u64| -> Vec<Override> {
                let fit = names.iter().zip(&sizes);
                let fit = fit.filter(|(_, size)| is_within(&rules, &usage, capacity, **size, count, unpriced));
                fit.map(|(name, _)| an_override(name)).collect()
            };
            let most = (1..=wanted).rev().find(|count| !fits(*count as u64).is_empty());
            let overrides = names.iter().map(|name| an_override(name)).collect();
            let found = room("pool", &rules, &usage, capacity, wanted, overrides, &catalog);
            let of = found.as_ref().ok().map(|room| (room.count, room.overrides.clone()));
            assert_eq!(of, most.map(|count| (count, fits(count as u64))), "seed {seed}: {rules:?} {usage:?}");
            full += usize::from(most.is_none());
            partly += usize::from(most.is_some_and(|most| most < wanted));
        }
        assert!(full > 100 && partly > 100, "{full} times no room, {partly} times not for all");
    }
}
