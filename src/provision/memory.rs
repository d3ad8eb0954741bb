//! What a leader leaves to the next one: what gave nothing and until when that is believed, and where spot made trouble.
//!
//! A ConfigMap holds it, as JSON, with times of the wall clock. It is a help and never a condition: what is absent, cannot
//! be read or makes no sense is not known, and what it says ends as soon as it would have ended, whatever the clocks say.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::risk::{Moment, Risks};
use super::shortage::{BELIEF_MAX, Belief, Scarce, Shortages, jittered};
use crate::domain::offering::{CapacityType, Offering, QuotaClass};
use crate::domain::time::{Epoch, Instant};

/// The ConfigMap, and its key.
pub const CONFIG_MAP: &str = "spotkeeper-memory";
pub const KEY: &str = "memory.json";

/// How many beliefs, and how many pools, are left at most: those that matter longest. Together some 300 KiB of the 1 MiB that
/// a ConfigMap may have.
pub const ENTRIES_MAX: usize = 1_000;

/// The longest name that is kept: EC2's are far shorter.
const NAME_MAX: usize = 128;

/// How often a leader writes that it still looks where spot makes trouble, while that matters; and for how long nobody may
/// have looked, for the quiet of before to count.
pub const SEEN_EVERY: Duration = Duration::from_secs(120);
const UNSEEN_MAX: Duration = Duration::from_secs(240);

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// When it was written: which writing it is.
    pub at: Timestamp,
    /// Since when somebody has looked where spot makes trouble.
    pub looks_since: Timestamp,
    pub short: Vec<Short>,
    pub trouble: Vec<Trouble>,
}

/// A belief in a shortage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Short {
    pub what: What,
    /// Until then; after that one may ask.
    pub until: Timestamp,
    /// How long such a failure is believed: the next one is believed twice as long.
    pub seconds: u64,
}

/// What is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum What {
    Offering(Offering),
    #[serde(rename_all = "camelCase")]
    Quota {
        class: QuotaClass,
        capacity_type: CapacityType,
    },
    /// All of a capacity type.
    Market(CapacityType),
    Subnet(String),
}

/// A spot pool that was interrupted, or gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    pub pool: Offering,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave_nothing_at: Option<Timestamp>,
}

/// The record as it is read: each entry for itself, since one that makes no sense says nothing of the others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    at: Timestamp,
    #[serde(default)]
    looks_since: Option<Value>,
    #[serde(default)]
    short: Vec<Value>,
    #[serde(default)]
    trouble: Vec<Value>,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Memory {
    /// What there is to remember now.
    pub(super) fn of(now: Instant, epoch: &Epoch, shortages: &Shortages, risks: &Risks) -> Self {
        let mut short: Vec<Short> = shortages
            .all()
            .filter(|(_, belief)| now.since(belief.until) < BELIEF_MAX)
            .map(|(what, belief)| Short {
                what: What::from(what),
                until: epoch.wall(belief.until),
                seconds: belief.length.as_secs(),
            })
            .collect();
        // Stable, so that what ends together stays in the order of names.
        short.sort_by_key(|one| std::cmp::Reverse(one.until));
        short.truncate(ENTRIES_MAX);
        let wall = |at: Option<Moment>| at.map(|at| epoch.wall_of(at));
        let mut trouble: Vec<Trouble> = risks
            .troubles()
            .map(|(pool, interrupted, gave_nothing)| Trouble {
                pool: pool.clone(),
                interrupted_at: wall(interrupted),
                gave_nothing_at: wall(gave_nothing),
            })
            .collect();
        trouble.sort_by_key(|one| std::cmp::Reverse(one.interrupted_at.max(one.gave_nothing_at)));
        trouble.truncate(ENTRIES_MAX);
        Self { at: epoch.wall(now), looks_since: epoch.wall_of(risks.looks_since()), short, trouble }
    }

    /// Reads what was left; entries that make no sense are passed over.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
        fn entries<T: for<'de> Deserialize<'de>>(all: Vec<Value>) -> impl Iterator<Item = T> {
            all.into_iter().filter_map(|one| serde_json::from_value(one).ok())
        }
        let looks_since = read.looks_since.and_then(|at| serde_json::from_value(at).ok()).unwrap_or(read.at);
        let short = entries(read.short).filter(|one: &Short| one.what.is_named()).take(ENTRIES_MAX).collect();
        let trouble = entries(read.trouble).filter(|one: &Trouble| is_named(&one.pool)).take(ENTRIES_MAX).collect();
        Ok(Self { at: read.at, looks_since, short, trouble })
    }

    /// The offerings that gave nothing for want of capacity, and when the last of it was learnt: EC2 has named each of them.
    pub fn gave_nothing(&self) -> impl Iterator<Item = (&Offering, Timestamp)> {
        self.short.iter().filter_map(|one| {
            let What::Offering(offering) = &one.what else { return None };
            let believed = jittered(Duration::from_secs(one.seconds).min(BELIEF_MAX), &Scarce::from(&one.what));
            let learnt = one.until.checked_sub(SignedDuration::try_from(believed).ok()?).ok()?;
            Some((offering, learnt))
        })
    }

    /// What of the beliefs still holds, on our own clock. However far ahead an end lies by the wall clock, a belief lasts no
    /// longer from now on than such a one lasts at all.
    pub(super) fn beliefs(&self, now: Instant, epoch: &Epoch) -> impl Iterator<Item = (Scarce, Belief)> {
        let reads = epoch.wall(now);
        self.short.iter().filter_map(move |one| {
            let (what, length) = (Scarce::from(&one.what), Duration::from_secs(one.seconds));
            let length = length.min(BELIEF_MAX);
            let left = one.until.duration_since(reads);
            if left < -SignedDuration::from_secs(BELIEF_MAX.as_secs().cast_signed()) {
                return None;
            }
            let left = if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() };
            let until = now + left.min(jittered(length, &what));
            Some((what, Belief { until, length, learnt: now, probe: None }))
        })
    }

    /// Since when it has been looked where spot makes trouble, without a pause that matters.
    pub(super) fn looked_since(&self, now: Instant, epoch: &Epoch) -> Option<Moment> {
        let seen = epoch.ago(self.at, now) <= UNSEEN_MAX;
        seen.then(|| on_our_clock(self.looks_since, now, epoch))
    }

    /// Where spot made trouble: interrupted, gave nothing.
    pub(super) fn troubles(
        &self,
        now: Instant,
        epoch: &Epoch,
    ) -> impl Iterator<Item = (&Offering, Option<Moment>, Option<Moment>)> {
        let placed = move |at: Option<Timestamp>| at.map(|at| on_our_clock(at, now, epoch));
        self.trouble.iter().map(move |one| (&one.pool, placed(one.interrupted_at), placed(one.gave_nothing_at)))
    }
}

/// A time that has passed. One that is still to come was written by a clock ahead of ours: it was now at the latest.
fn on_our_clock(at: Timestamp, now: Instant, epoch: &Epoch) -> Moment {
    epoch.millis_of(at).min(epoch.millis_of(epoch.wall(now)))
}

fn is_named(of: &Offering) -> bool {
    [&of.instance_type, &of.zone].iter().all(|name| (1..=NAME_MAX).contains(&name.len()))
}

impl What {
    fn is_named(&self) -> bool {
        match self {
            Self::Offering(offering) => is_named(offering),
            Self::Subnet(id) => (1..=NAME_MAX).contains(&id.len()),
            Self::Quota { .. } | Self::Market(_) => true,
        }
    }
}

impl From<&Scarce> for What {
    fn from(of: &Scarce) -> Self {
        match of.clone() {
            Scarce::Offering(offering) => Self::Offering(offering),
            Scarce::Quota(class, capacity_type) => Self::Quota { class, capacity_type },
            Scarce::Market(capacity_type) => Self::Market(capacity_type),
            Scarce::Subnet(id) => Self::Subnet(id),
        }
    }
}

impl From<&What> for Scarce {
    fn from(of: &What) -> Self {
        match of.clone() {
            What::Offering(offering) => Self::Offering(offering),
            What::Quota { class, capacity_type } => Self::Quota(class, capacity_type),
            What::Market(capacity_type) => Self::Market(capacity_type),
            What::Subnet(id) => Self::Subnet(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::launch::Override;
    use crate::provision::shortage::Standing;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn epoch(offset_secs: i64) -> Epoch {
        Epoch(Timestamp::from_second(1_790_000_000 + offset_secs).unwrap())
    }

    fn pool(zone: &str) -> Offering {
        Offering { instance_type: "m7g.large".into(), zone: zone.into(), capacity_type: CapacityType::Spot }
    }

    /// What a leader knows that has seen everything fail at 100 s.
    fn known() -> (Shortages, Risks) {
        let (mut shortages, mut risks) = (Shortages::default(), Risks::default());
        for what in [
            Scarce::Offering(pool("a")),
            Scarce::Quota(QuotaClass::HighMemory, CapacityType::OnDemand),
            Scarce::Market(CapacityType::Spot),
            Scarce::Subnet("subnet-a".into()),
        ] {
            shortages.failed(at(100), &what, "l");
        }
        risks.looks_from(at(10));
        risks.gave_nothing(at(100), &pool("a"));
        (shortages, risks)
    }

    #[test]
    fn what_is_left_is_what_is_read_again() {
        let (shortages, risks) = known();
        let memory = Memory::of(at(120), &epoch(0), &shortages, &risks);
        assert_eq!((memory.short.len(), memory.trouble.len()), (4, 1));
        assert_eq!(Memory::read(&memory.to_string()), Ok(memory.clone()));
        let read: Vec<_> = memory.beliefs(at(120), &epoch(0)).collect();
        for (what, belief) in shortages.all() {
            let of = &read.iter().find(|(of, _)| of == what).unwrap().1;
            assert_eq!((of.until, of.length), (belief.until, belief.length), "{what}");
        }
        assert_eq!(memory.looked_since(at(120), &epoch(0)), Some(10_000));
        // By a program that started later.
        assert_eq!(memory.looked_since(at(5), &epoch(120)), Some(-110_000));
        assert_eq!(memory.looked_since(at(500), &epoch(0)), None, "nobody has looked for long");
        let troubles: Vec<_> = memory.troubles(at(130), &epoch(0)).collect();
        assert_eq!(troubles, [(&pool("a"), None, Some(100_000))]);
    }

    #[test]
    fn on_another_clock_a_belief_lasts_no_longer_than_such_a_one_lasts() {
        let (shortages, risks) = known();
        let memory = Memory::of(at(100), &epoch(0), &shortages, &risks);
        // A replica that started when the other had run for 100 s, with its clock off by so much.
        for (off, at_least, at_most) in
            [(100, 180, 198), (100 + 120, 60, 78), (100 - 3_600, 180, 198), (100 + 900, 0, 0)]
        {
            for (what, belief) in memory.beliefs(at(0), &epoch(off)) {
                let left = belief.until.since(at(0)).as_secs();
                assert!((at_least..=at_most).contains(&left), "{what} at {off}: {left}");
            }
        }
        assert_eq!(memory.beliefs(at(0), &epoch(100 + 3_600)).count(), 0, "what ended long ago says nothing");
    }

    #[test]
    fn the_newest_thousand_are_left() {
        let (mut shortages, mut risks) = (Shortages::default(), Risks::default());
        for n in 0..1_500 {
            let pool = Offering { instance_type: format!("m{n}.metal-48xlarge"), ..pool("ap-northeast-1a") };
            shortages.failed(at(n), &Scarce::Offering(pool.clone()), "l");
            risks.gave_nothing(at(n), &pool);
        }
        let memory = Memory::of(at(1_500), &epoch(0), &shortages, &risks);
        assert_eq!((memory.short.len(), memory.trouble.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert_eq!(memory.trouble[0].pool.instance_type, "m1499.metal-48xlarge");
        let text = memory.to_string();
        assert!(text.len() < 512 * 1_024, "{} bytes", text.len());
        assert_eq!(Memory::read(&text).map(|read| read.short.len()), Ok(ENTRIES_MAX));
        // Also where somebody else has written more.
        let twice = Memory { short: [memory.short.clone(), memory.short.clone()].concat(), ..memory };
        assert_eq!(Memory::read(&twice.to_string()).map(|read| read.short.len()), Ok(ENTRIES_MAX));
    }

    #[test]
    fn whatever_is_read_every_belief_ends_within_what_a_belief_lasts() {
        let longest = BELIEF_MAX + BELIEF_MAX / 10;
        bolero::check!().with_type::<(Vec<u8>, i64, u64)>().for_each(|(noise, until, seconds)| {
            let _ = Memory::read(&String::from_utf8_lossy(noise));
            let until = Timestamp::from_second(until.rem_euclid(253_402_207_200)).unwrap();
            let text = format!(
                r#"{{"at":"{until}","short":[{{"what":{{"market":"spot"}},"until":"{until}","seconds":{seconds}}}]}}"#
            );
            let memory = Memory::read(&text).expect("it makes sense");
            let mut shortages = Shortages::default();
            shortages.take_over(at(50), memory.beliefs(at(50), &epoch(0)));
            let of = Override { instance_type: "m7g.large".into(), subnet_id: "s".into(), zone: "a".into() };
            let then = shortages.standing(at(50) + longest, &of, QuotaClass::Standard, CapacityType::Spot);
            assert!(matches!(then, Standing::Open | Standing::HalfOpen), "{text}");
        });
    }
}
