//! What the instances of our claims cost, and what they would have cost on demand, or on spot.
//!
//! A life is counted from when this leader knows of it until it ends, in price × time: the price of the moment, so that one
//! that changes is counted as it was. What has no known price is left out, and said.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, Catalog, MicroDollars, Offering};
use crate::domain::time::Instant;

const HOUR_MS: u128 = 3_600_000;

/// Money, in parts of 1,000,000 of a US dollar for an hour, times milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum(u128);

impl Sum {
    fn add(&mut self, price: Option<MicroDollars>, time: Duration) {
        self.0 += u128::from(price.unwrap_or(0)) * time.as_millis();
    }

    fn micro_dollars(self) -> MicroDollars {
        MicroDollars::try_from(self.0 / HOUR_MS).unwrap_or(MicroDollars::MAX)
    }
}

/// What one instance came to, in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    pub instance: InstanceId,
    pub offering: Offering,
    pub ran: Duration,
    pub paid: MicroDollars,
    /// What it would have cost on demand and on spot, in the same zone; `None` where a price was not known.
    pub on_demand: Option<MicroDollars>,
    pub spot: Option<MicroDollars>,
}

/// What all came to so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub paid: BTreeMap<CapacityType, MicroDollars>,
    pub on_demand: MicroDollars,
}

#[derive(Clone, Debug)]
struct Life {
    offering: Offering,
    since: Instant,
    paid: Sum,
    on_demand: Sum,
    spot: Sum,
    /// Of all the time a price was known: what was paid, on demand, on spot.
    priced: [bool; 3],
}

/// The lives of our instances.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    lives: BTreeMap<InstanceId, Life>,
    at: Instant,
    paid: BTreeMap<CapacityType, Sum>,
    on_demand: Sum,
}

impl Ledger {
    /// Counts until `now`; `there`: the instances that are, and what they are. Returns the bills of those that are not any
    /// more.
    pub fn count(&mut self, now: Instant, there: &BTreeMap<InstanceId, Offering>, catalog: &Catalog) -> Vec<Bill> {
        let time = now.since(self.at);
        self.at = self.at.max(now);
        for life in self.lives.values_mut() {
            let as_if = |capacity_type| catalog.price(&Offering { capacity_type, ..life.offering.clone() });
            let prices = [catalog.price(&life.offering), as_if(CapacityType::OnDemand), as_if(CapacityType::Spot)];
            life.paid.add(prices[0], time);
            life.on_demand.add(prices[1], time);
            life.spot.add(prices[2], time);
            self.paid.entry(life.offering.capacity_type).or_default().add(prices[0], time);
            // Only what both are known of can be compared.
            if prices[0].is_some() {
                self.on_demand.add(prices[1], time);
            }
            for (known, price) in life.priced.iter_mut().zip(prices) {
                *known &= price.is_some();
            }
        }
        let gone: Vec<InstanceId> = self.lives.keys().filter(|id| !there.contains_key(*id)).cloned().collect();
        let bills = gone.into_iter().filter_map(|instance| {
            let life = self.lives.remove(&instance)?;
            Some(Bill {
                instance,
                ran: now.since(life.since),
                paid: life.paid.micro_dollars(),
                on_demand: life.priced[1].then(|| life.on_demand.micro_dollars()),
                spot: life.priced[2].then(|| life.spot.micro_dollars()),
                offering: life.offering,
            })
        });
        let bills = bills.collect();
        for (id, offering) in there {
            self.lives.entry(id.clone()).or_insert_with(|| Life {
                offering: offering.clone(),
                since: now,
                paid: Sum::default(),
                on_demand: Sum::default(),
                spot: Sum::default(),
                priced: [true; 3],
            });
        }
        bills
    }

    /// Whether what it counts lacks the price of one of these.
    pub fn lacks(&self, catalog: &Catalog) -> Option<&Offering> {
        self.lives.values().map(|life| &life.offering).find(|offering| catalog.price(offering).is_none())
    }

    /// A new term: lives are counted anew, what was counted stays counted.
    pub fn forget(&mut self) {
        self.lives.clear();
    }

    pub fn totals(&self) -> Totals {
        let paid = self.paid.iter().map(|(capacity, sum)| (*capacity, sum.micro_dollars()));
        Totals { paid: paid.collect(), on_demand: self.on_demand.micro_dollars() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offering(capacity_type: CapacityType) -> Offering {
        Offering { instance_type: "m7g.large".into(), zone: "a".into(), capacity_type }
    }

    fn catalog(spot: MicroDollars) -> Catalog {
        let prices = [(offering(CapacityType::Spot), spot), (offering(CapacityType::OnDemand), 80_000)];
        Catalog { prices: prices.into(), ..Catalog::default() }
    }

    fn hours(hours: u64) -> Instant {
        Instant::from_millis(hours * 3_600_000)
    }

    #[test]
    fn each_hour_is_counted_at_its_price_and_the_end_makes_the_bill() {
        let mut ledger = Ledger::default();
        let id: InstanceId = "i-00000001".parse().unwrap();
        let there = BTreeMap::from([(id.clone(), offering(CapacityType::Spot))]);
        assert!(ledger.count(hours(10), &there, &catalog(20_000)).is_empty());
        ledger.count(hours(12), &there, &catalog(20_000));
        let bill = ledger.count(hours(13), &BTreeMap::new(), &catalog(30_000)).remove(0);
        assert_eq!((bill.instance, bill.ran, bill.paid), (id, Duration::from_secs(3 * 3_600), 70_000));
        assert_eq!((bill.on_demand, bill.spot), (Some(240_000), Some(70_000)));
        let totals = ledger.totals();
        assert_eq!((totals.paid[&CapacityType::Spot], totals.on_demand), (70_000, 240_000));
        ledger.count(hours(20), &BTreeMap::new(), &catalog(30_000));
        assert_eq!(ledger.totals(), totals, "what is gone costs nothing");
    }

    #[test]
    fn what_has_no_price_is_left_out_and_named() {
        let mut ledger = Ledger::default();
        let there = BTreeMap::from([("i-00000001".parse().unwrap(), offering(CapacityType::OnDemand))]);
        let none = Catalog::default();
        ledger.count(hours(1), &there, &none);
        assert_eq!(ledger.lacks(&none), Some(&offering(CapacityType::OnDemand)));
        assert_eq!(ledger.lacks(&catalog(1)), None);
        let bill = ledger.count(hours(2), &BTreeMap::new(), &none).remove(0);
        assert_eq!((bill.paid, bill.on_demand, bill.spot), (0, None, None));
    }
}
