//! What EC2 has to offer and what it costs: read at start from where the last run left it, then from EC2, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::observer::Observer;
use crate::adapters::ec2::{Ec2, Ec2Error};
use crate::adapters::kubernetes::{Kubernetes, one_line};
use crate::domain::offering::{CapacityType, Catalog, MicroDollars, Offering};
use crate::prices::OnDemandPrices;
use crate::provision::Input;

/// Where the types and zones are kept from one run to the next: listing them takes some thirty calls.
const CONFIG_MAP: &str = "spotkeeper-catalog";
const KEY: &str = "catalog.json";

/// EC2's types change a few times a year, spot prices every few minutes, reservations with every launch.
const TYPES_EVERY: Duration = Duration::from_secs(6 * 3_600);
const PRICES_EVERY: Duration = Duration::from_secs(300);
const RESERVED_EVERY: Duration = Duration::from_secs(30);

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Follows what EC2 has to offer.
pub struct Market {
    pub ec2: Ec2,
    pub kubernetes: Kubernetes,
    pub namespace: String,
    pub prices: OnDemandPrices,
    /// Whether reserved capacity is wanted at all; from then on, it stays so.
    pub reservations: watch::Receiver<bool>,
    pub observer: Observer,
}

/// One thing that is read again and again.
struct Reading {
    action: &'static str,
    every: Duration,
    due: Instant,
    retry: Duration,
    failing: bool,
}

impl Reading {
    fn of(action: &'static str, every: Duration) -> Self {
        Self { action, every, due: Instant::now(), retry: RETRY_FIRST, failing: false }
    }

    /// Takes in what came of it; a failure is said once a streak.
    fn took<T>(&mut self, began: Instant, result: Result<T, Ec2Error>, observer: &Observer) -> Result<T, String> {
        observer.asked_ec2(self.action, &result, began.elapsed());
        match result {
            Ok(value) => {
                (self.retry, self.failing) = (RETRY_FIRST, false);
                self.due = Instant::now() + self.every;
                Ok(value)
            }
            Err(error) => {
                let text = one_line(&error);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(error = text, "what EC2 offers cannot be read, trying again");
                }
                self.due = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(RETRY_MAX);
                Err(text)
            }
        }
    }
}

impl Market {
    /// For ever.
    pub async fn follow(mut self, inputs: mpsc::Sender<Input>) {
        let mut catalog = self.remembered().await;
        let mut spot = BTreeMap::new();
        self.tell(&catalog, &spot, &inputs).await;
        let mut types = Reading::of("DescribeInstanceTypes", TYPES_EVERY);
        let mut prices = Reading::of("DescribeSpotPriceHistory", PRICES_EVERY);
        let mut reserved = Reading::of("DescribeCapacityReservations", RESERVED_EVERY);
        loop {
            let now = Instant::now();
            let mut news = false;
            if types.due <= now {
                match types.took(now, self.ec2.catalog().await, &self.observer) {
                    Ok(read) if read.types != catalog.types || read.zones != catalog.zones => {
                        (catalog.types, catalog.zones, news) = (read.types, read.zones, true);
                        self.keep(&catalog).await;
                        self.observer.ec2(Ok(()));
                    }
                    Ok(_) => self.observer.ec2(Ok(())),
                    // What an earlier run has left will do.
                    Err(_) if !catalog.is_empty() => self.observer.ec2(Ok(())),
                    Err(why) => self.observer.ec2(Err(why)),
                }
            }
            let now = Instant::now();
            if prices.due <= now
                && let Ok(read) = prices.took(now, self.ec2.spot_prices().await, &self.observer)
            {
                (spot, news) = (read, true);
            }
            let now = Instant::now();
            let wanted = *self.reservations.borrow_and_update();
            if wanted
                && reserved.due <= now
                && let Ok(read) = reserved.took(now, self.ec2.reserved().await, &self.observer)
            {
                // Also where it says the same: what was launched since the last one is in it.
                (catalog.reserved, catalog.reserved_readings) = (read, catalog.reserved_readings + 1);
                news = true;
            }
            if news {
                self.tell(&catalog, &spot, &inputs).await;
            }
            let next = if wanted { reserved.due.min(prices.due) } else { prices.due }.min(types.due);
            tokio::select! {
                () = tokio::time::sleep(next.saturating_duration_since(Instant::now())) => {}
                Ok(()) = self.reservations.changed() => {}
            }
        }
    }

    async fn tell(&self, catalog: &Catalog, spot: &BTreeMap<Offering, MicroDollars>, inputs: &mpsc::Sender<Input>) {
        if catalog.is_empty() {
            return;
        }
        let mut whole = Catalog { prices: spot.clone(), ..catalog.clone() };
        for (zone, names) in &catalog.zones {
            for name in names {
                if let Some(price) = self.prices.get(name) {
                    let (instance_type, zone) = (name.clone(), zone.clone());
                    let of = Offering { instance_type, zone, capacity_type: CapacityType::OnDemand };
                    whole.prices.insert(of, *price);
                }
            }
        }
        self.observer.metrics().set_offerings(catalog.zones.values().map(std::collections::BTreeSet::len).sum());
        // The receiver is gone only when the program ends.
        let _ = inputs.send(Input::CatalogRead(Arc::new(whole))).await;
    }

    /// What an earlier run has left.
    async fn remembered(&self) -> Catalog {
        let text = match self.kubernetes.remembered(&self.namespace, CONFIG_MAP, KEY).await {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = one_line(&error), "ConfigMap {CONFIG_MAP} cannot be read: EC2 is asked");
                String::new()
            }
        };
        let catalog: Catalog = serde_json::from_str(&text).unwrap_or_default();
        if !catalog.is_empty() {
            tracing::info!(types = catalog.types.len(), zones = catalog.zones.len(), "known from an earlier run");
            self.observer.ec2(Ok(()));
        }
        catalog
    }

    async fn keep(&self, catalog: &Catalog) {
        let Ok(text) = serde_json::to_string(catalog) else { return };
        if let Err(error) = self.kubernetes.remember(&self.namespace, CONFIG_MAP, KEY, text).await {
            tracing::warn!(error = one_line(&error), "ConfigMap {CONFIG_MAP} cannot be written: the next run asks EC2");
        }
    }
}
