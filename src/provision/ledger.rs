//! What the instances of our claims cost, and what they would have cost on demand, or on spot.
//!
//! A life is counted from when this leader knows of it until it ends, in price × time: the price of the moment, so that one
//! that changes is counted as it was. What has no known price is left out, and said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
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
    /// Until when it is in the sums.
    counted: Instant,
    /// What it costs an hour now, and would on demand and on spot.
    prices: [Option<MicroDollars>; 3],
    sums: [Sum; 3],
    /// Of all the time a price was known: what was paid, on demand, on spot.
    priced: [bool; 3],
}

impl Life {
    fn new(now: Instant, offering: Offering, catalog: &Catalog) -> Self {
        let prices = Self::prices(&offering, catalog);
        let (sums, priced) = ([Sum::default(); 3], [true; 3]);
        Self { offering, since: now, counted: now, prices, sums, priced }
    }

    fn prices(offering: &Offering, catalog: &Catalog) -> [Option<MicroDollars>; 3] {
        let as_if = |capacity_type| catalog.price(&Offering { capacity_type, ..offering.clone() });
        [catalog.price(offering), as_if(CapacityType::OnDemand), as_if(CapacityType::Spot)]
    }

    /// Takes the time until then into the sums, at the prices of now.
    fn count(&mut self, until: Instant) {
        let time = until.since(self.counted);
        self.counted = self.counted.max(until);
        for ((sum, priced), price) in self.sums.iter_mut().zip(&mut self.priced).zip(self.prices) {
            sum.add(price, time);
            *priced &= price.is_some();
        }
    }
}

/// What all lives of now come to in an hour: so that time need not be counted for each of them with every input.
#[derive(Clone, Debug, Default)]
struct Rates {
    paid: BTreeMap<CapacityType, MicroDollars>,
    on_demand: MicroDollars,
}

impl Rates {
    fn add(&mut self, life: &Life) {
        *self.paid.entry(life.offering.capacity_type).or_default() += life.prices[0].unwrap_or(0);
        // Only what both are known of can be compared.
        self.on_demand += life.prices[0].and(life.prices[1]).unwrap_or(0);
    }

    fn remove(&mut self, life: &Life) {
        let paid = self.paid.entry(life.offering.capacity_type).or_default();
        *paid = paid.saturating_sub(life.prices[0].unwrap_or(0));
        self.on_demand = self.on_demand.saturating_sub(life.prices[0].and(life.prices[1]).unwrap_or(0));
    }
}

/// The lives of our instances.
#[derive(Clone, Default)]
pub struct Ledger {
    lives: BTreeMap<InstanceId, Life>,
    rates: Rates,
    /// Those whose price is not known.
    unpriced: BTreeSet<InstanceId>,
    /// What is to be counted from now on, or no more.
    news: BTreeMap<InstanceId, Option<Offering>>,
    catalog: Option<Arc<Catalog>>,
    at: Instant,
    paid: BTreeMap<CapacityType, Sum>,
    on_demand: Sum,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (&self.lives, &self.news, &self.at, &self.paid, &self.on_demand).fmt(f)
    }
}

impl Ledger {
    /// This instance is there, and what it is; or is not there any more.
    pub fn is(&mut self, instance: InstanceId, offering: Option<Offering>) {
        self.news.insert(instance, offering);
    }

    /// Counts until `now`. Returns the bills of those that are not there any more.
    pub fn count(&mut self, now: Instant, catalog: &Arc<Catalog>) -> Vec<Bill> {
        if !self.catalog.as_ref().is_some_and(|known| Arc::ptr_eq(known, catalog)) {
            self.reprice(catalog);
        }
        let time = now.since(self.at);
        self.at = self.at.max(now);
        for (capacity_type, rate) in &self.rates.paid {
            self.paid.entry(*capacity_type).or_default().add(Some(*rate), time);
        }
        self.on_demand.add(Some(self.rates.on_demand), time);
        let mut bills = Vec::new();
        for (instance, offering) in std::mem::take(&mut self.news) {
            match (offering, self.lives.get(&instance)) {
                (Some(offering), None) => self.begins(instance, Life::new(now, offering, catalog)),
                (Some(offering), Some(life)) if life.offering != offering => {
                    self.becomes(now, instance, offering, catalog);
                }
                (Some(_), Some(_)) => {}
                (None, _) => bills.extend(self.ends(now, instance)),
            }
        }
        bills
    }

    /// Prices have changed: the time until they were seen last was counted at those of before.
    fn reprice(&mut self, catalog: &Arc<Catalog>) {
        self.catalog = Some(catalog.clone());
        self.rates = Rates::default();
        self.unpriced.clear();
        for (instance, mut life) in std::mem::take(&mut self.lives) {
            if life.since < self.at {
                life.count(self.at);
            }
            life.prices = Life::prices(&life.offering, catalog);
            self.begins(instance, life);
        }
    }

    fn begins(&mut self, instance: InstanceId, life: Life) {
        self.rates.add(&life);
        if life.prices[0].is_none() {
            self.unpriced.insert(instance.clone());
        }
        self.lives.insert(instance, life);
    }

    /// It has turned out to be paid for otherwise.
    fn becomes(&mut self, now: Instant, instance: InstanceId, offering: Offering, catalog: &Catalog) {
        let Some(mut life) = self.lives.remove(&instance) else { return };
        self.rates.remove(&life);
        self.unpriced.remove(&instance);
        life.count(now);
        life.prices = Life::prices(&offering, catalog);
        life.offering = offering;
        self.begins(instance, life);
    }

    fn ends(&mut self, now: Instant, instance: InstanceId) -> Option<Bill> {
        let mut life = self.lives.remove(&instance)?;
        life.count(now);
        self.rates.remove(&life);
        self.unpriced.remove(&instance);
        let [paid, on_demand, spot] = life.sums.map(Sum::micro_dollars);
        Some(Bill {
            instance,
            ran: now.since(life.since),
            paid,
            on_demand: life.priced[1].then_some(on_demand),
            spot: life.priced[2].then_some(spot),
            offering: life.offering,
        })
    }

    /// Something that it counts, and whose price is not known.
    pub fn lacks(&self) -> Option<&Offering> {
        self.unpriced.first().and_then(|instance| self.lives.get(instance)).map(|life| &life.offering)
    }

    /// A new term: lives are counted anew, what was counted stays counted.
    pub fn forget(&mut self) {
        self.lives.clear();
        self.news.clear();
        self.unpriced.clear();
        self.rates = Rates::default();
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

    fn catalog(spot: MicroDollars) -> Arc<Catalog> {
        let prices = [(offering(CapacityType::Spot), spot), (offering(CapacityType::OnDemand), 80_000)];
        Arc::new(Catalog { prices: prices.into(), ..Catalog::default() })
    }

    fn hours(hours: u64) -> Instant {
        Instant::from_millis(hours * 3_600_000)
    }

    #[test]
    fn each_hour_is_counted_at_its_price_and_the_end_makes_the_bill() {
        let mut ledger = Ledger::default();
        let id: InstanceId = "i-00000001".parse().unwrap();
        let cheap = catalog(20_000);
        ledger.is(id.clone(), Some(offering(CapacityType::Spot)));
        assert!(ledger.count(hours(10), &cheap).is_empty());
        ledger.count(hours(12), &cheap);
        assert_eq!(ledger.totals().paid[&CapacityType::Spot], 40_000, "while it lives");
        ledger.is(id.clone(), None);
        let bill = ledger.count(hours(13), &catalog(30_000)).remove(0);
        assert_eq!((bill.instance, bill.ran, bill.paid), (id, Duration::from_secs(3 * 3_600), 70_000));
        assert_eq!((bill.on_demand, bill.spot), (Some(240_000), Some(70_000)));
        let totals = ledger.totals();
        assert_eq!((totals.paid[&CapacityType::Spot], totals.on_demand), (70_000, 240_000));
        ledger.count(hours(20), &catalog(30_000));
        assert_eq!(ledger.totals(), totals, "what is gone costs nothing");
    }

    #[test]
    fn what_has_no_price_is_left_out_and_named() {
        let mut ledger = Ledger::default();
        let id: InstanceId = "i-00000001".parse().unwrap();
        ledger.is(id.clone(), Some(offering(CapacityType::OnDemand)));
        let none = Arc::new(Catalog::default());
        ledger.count(hours(1), &none);
        assert_eq!(ledger.lacks(), Some(&offering(CapacityType::OnDemand)));
        ledger.count(hours(1), &catalog(1));
        assert_eq!(ledger.lacks(), None);
        ledger.count(hours(1), &none);
        ledger.is(id, None);
        let bill = ledger.count(hours(2), &none).remove(0);
        assert_eq!((bill.paid, bill.on_demand, bill.spot), (0, None, None));
    }
}
