//! Capacity reservations: how much of them is free, and what truly runs in one.
//!
//! EC2 fills a call that asks for reservations first with plain on-demand instances where these are used up, and its answer
//! does not tell which is which. So no more is asked for than was free when the reservations were read, less what was asked
//! for since; and what an instance is, is taken from its description.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Provisioner, READ_AGAIN};
use crate::api::launch::{LaunchStatus, Override};
use crate::domain::offering::{CapacityType, Catalog, Offering};
use crate::domain::time::Instant;
use crate::provision::ladder::{self, Choice, Rung, Wanted};
use crate::provision::{Because, Effect};

/// A reading that is told now may have been made before what came within this time.
const READING_TAKES: Duration = Duration::from_secs(10);

/// The type and the zone of reservations.
type Place = (String, String);

fn place(of: &Override) -> Place {
    (of.instance_type.clone(), of.zone.clone())
}

/// What has come of reservations since they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved {
    came: Vec<(Instant, Place)>,
}

impl Provisioner {
    /// What EC2 offers was read.
    pub(super) fn catalog_read(&mut self, now: Instant, catalog: Arc<Catalog>) {
        if catalog.reserved_readings != self.catalog.reserved_readings {
            self.reserved.came.retain(|(at, _)| now.since(*at) < READING_TAKES);
        }
        self.pools.offered(&catalog);
        self.catalog = catalog;
        self.looks_at_all();
    }

    /// How many instances the reservations still take for certain, by type and zone: of calls on their way every one may
    /// come anywhere.
    fn free(&self) -> BTreeMap<Place, u32> {
        let mut free = self.catalog.reserved.clone();
        for (_, place) in &self.reserved.came {
            free.entry(place.clone()).and_modify(|left| *left = left.saturating_sub(1));
        }
        let on_its_way = self.launches.values().filter(|launch| !launch.told);
        for launch in on_its_way.filter(|launch| launch.spec.capacity_type == CapacityType::Reserved) {
            let count = u32::try_from(launch.spec.count).unwrap_or(0);
            for one in &launch.spec.overrides {
                free.entry(place(one)).and_modify(|left| *left = left.saturating_sub(count));
            }
        }
        free.retain(|_, left| *left > 0);
        free
    }

    /// What of the reservations may be asked for.
    pub(super) fn reserved_rung(&self, now: Instant, wanted: Wanted) -> Rung {
        let (free, max) = (self.free(), self.settings.overrides_max);
        ladder::rung_of(now, wanted, CapacityType::Reserved, &self.catalog, &self.shortages, max, &|offering| {
            let place = (offering.instance_type.clone(), offering.zone.clone());
            if free.contains_key(&place) { Choice::Take } else { Choice::Leave(None) }
        })
    }

    /// How many of these may be asked for in one call.
    pub(super) fn slots(&self, capacity: CapacityType, overrides: &[Override]) -> usize {
        if capacity != CapacityType::Reserved {
            return usize::MAX;
        }
        let free = self.free();
        let places: std::collections::BTreeSet<Place> = overrides.iter().map(place).collect();
        let left: u64 = places.iter().filter_map(|place| free.get(place)).map(|left| u64::from(*left)).sum();
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Something came of reservations, as it seems: EC2 is asked soon what it is.
    pub(super) fn reserved_came(&mut self, now: Instant, capacity: CapacityType, status: &LaunchStatus) {
        if capacity != CapacityType::Reserved || status.instances.is_empty() {
            return;
        }
        let places = status.instances.iter().map(|got| (got.offering.instance_type.clone(), got.offering.zone.clone()));
        self.reserved.came.extend(places.map(|place| (now, place)));
        self.reading.next = self.reading.next.min(now + READ_AGAIN);
    }

    /// Instances that EC2 shows to run in a reservation, or not to: what is paid for them, and whether they may return to
    /// spot, follows from that.
    pub(super) fn reclassify(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut news = Vec::new();
        for run in self.claims.values() {
            let Some((known, seen)) =
                run.status.offering.as_ref().zip(run.instance().and_then(|id| self.instances.get(id)))
            else {
                continue;
            };
            let (was, is) = (known.capacity_type, seen.offering.capacity_type);
            if was != is && was != CapacityType::Spot && is != CapacityType::Spot {
                let offering = Offering { capacity_type: is, ..known.clone() };
                news.push((run.name.clone(), seen.id.clone(), offering));
            }
        }
        for (name, instance, offering) in news {
            let price = self.catalog.price(&offering);
            self.ledger.is(instance.clone(), Some(offering.clone()));
            self.claims.get_mut(&name).into_iter().for_each(|run| run.turned_out(offering.clone(), price));
            self.say(&name, Because::TurnedOut { instance, offering }, effects);
            self.relabel(&name);
        }
        self.claims.index(now);
    }
}
