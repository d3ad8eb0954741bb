//! The memory of where spot was interrupted or gave nothing, and since when it has been quiet there.
//!
//! A pool is an instance type in a zone. When one is interrupted others of it often follow within minutes; when it gives
//! nothing it may flap. New nodes are asked for elsewhere first, and a return to spot waits for quiet. What was never
//! seen is not known: quiet counts from when this replica began to look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Doomed;
use crate::api::interruption::Phase;
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::{CapacityType, Offering};
use crate::domain::time::Instant;

/// For how long a pool that was interrupted is avoided by claims that have another.
pub const AVOIDED: Duration = Duration::from_secs(600);

/// Longer than any wait for quiet: what is older says nothing.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);

/// A moment in milliseconds of our clock. What another leader has seen was before this program started: then it is negative.
pub(super) type Moment = i64;

fn moment(at: Instant) -> Moment {
    i64::try_from(at.as_millis()).unwrap_or(Moment::MAX)
}

/// So long after a moment; at the start of the program where that is before it.
fn after(at: Moment, long: Duration) -> Instant {
    let millis = at.saturating_add(i64::try_from(long.as_millis()).unwrap_or(Moment::MAX));
    Instant::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What was last seen of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trouble {
    interrupted: Option<Moment>,
    gave_nothing: Option<Moment>,
}

/// All pools that have made trouble.
#[derive(Clone, Debug, Default)]
pub struct Risks {
    since: Moment,
    pools: BTreeMap<Offering, Trouble>,
    /// The interruptions that were taken in.
    seen: BTreeSet<(InstanceId, i64)>,
    /// How often there was trouble.
    changes: u64,
}

impl Risks {
    /// From now on everything is seen; what happened before is not known.
    pub fn looks_from(&mut self, now: Instant) {
        self.since = moment(now);
    }

    /// Since when everything is seen.
    pub(super) fn looks_since(&self) -> Moment {
        self.since
    }

    /// How often there was trouble: where that has not changed there is nothing new to write down.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The pools that have made trouble: when they were interrupted last, and when they gave nothing.
    pub(super) fn troubles(&self) -> impl Iterator<Item = (&Offering, Option<Moment>, Option<Moment>)> {
        self.pools.iter().map(|(pool, of)| (pool, of.interrupted, of.gave_nothing))
    }

    /// Another leader has looked since then, up to now.
    pub(super) fn were_looked_at(&mut self, since: Moment) {
        self.since = self.since.min(since);
    }

    /// What another leader has seen of a pool.
    pub(super) fn take_over(&mut self, pool: &Offering, interrupted: Option<Moment>, gave_nothing: Option<Moment>) {
        if let Some(of) = self.of(pool) {
            (of.interrupted, of.gave_nothing) = (of.interrupted.max(interrupted), of.gave_nothing.max(gave_nothing));
        }
    }

    fn of(&mut self, pool: &Offering) -> Option<&mut Trouble> {
        (pool.capacity_type == CapacityType::Spot).then(|| self.pools.entry(pool.clone()).or_default())
    }

    /// Spot gave nothing there.
    pub fn gave_nothing(&mut self, now: Instant, pool: &Offering) {
        self.changes += 1;
        self.of(pool).into_iter().for_each(|trouble| trouble.gave_nothing = Some(moment(now)));
    }

    /// A spot instance there is being taken, or is likely to be. Returns whether that is news.
    pub fn interrupted(&mut self, now: Instant, doomed: &Doomed, pool: &Offering) -> bool {
        if pool.capacity_type != CapacityType::Spot
            || !tells(doomed)
            || !self.seen.insert((doomed.instance.clone(), doomed.episode))
        {
            return false;
        }
        self.changes += 1;
        self.of(pool).into_iter().for_each(|trouble| trouble.interrupted = Some(moment(now)));
        true
    }

    /// Whether this interruption was taken in.
    pub fn knows(&self, doomed: &Doomed) -> bool {
        self.seen.contains(&(doomed.instance.clone(), doomed.episode))
    }

    /// The Interruption is gone: it is not seen again.
    pub fn forget(&mut self, instance: &InstanceId) {
        self.seen.retain(|(of, _)| of != instance);
    }

    /// Until when claims that have another pool avoid this one.
    pub fn avoided_until(&self, now: Instant, pool: &Offering) -> Option<Instant> {
        let interrupted = self.pools.get(pool)?.interrupted?;
        Some(after(interrupted, AVOIDED)).filter(|until| now < *until)
    }

    /// When it will have been quiet there for so long.
    pub fn quiet_until(&self, pool: &Offering, long: Duration) -> Instant {
        let trouble = self.pools.get(pool).copied().unwrap_or_default();
        let since = [trouble.interrupted, trouble.gave_nothing].into_iter().flatten().fold(self.since, Moment::max);
        after(since, long)
    }

    /// Drops what is too old to matter.
    pub fn prune(&mut self, now: Instant) {
        let old = |at: Option<Moment>| at.is_none_or(|at| now > after(at, REMEMBERED));
        self.pools.retain(|_, trouble| !(old(trouble.interrupted) && old(trouble.gave_nothing)));
    }
}

/// Whether an Interruption says something of its pool: that it is taken now, or likely to be.
fn tells(doomed: &Doomed) -> bool {
    let active = doomed.phase >= Phase::Confirmed && !doomed.phase.ends_episode();
    active && matches!(doomed.kind, Some(Kind::SpotInterruption | Kind::RebalanceRecommendation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::Replacement;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn pool(zone: &str, capacity_type: CapacityType) -> Offering {
        Offering { instance_type: "m7g.large".into(), zone: zone.into(), capacity_type }
    }

    fn doomed(phase: Phase, kind: Kind) -> Doomed {
        Doomed {
            instance: "i-00000001".parse().unwrap(),
            node: "n".into(),
            episode: 1,
            phase,
            kind: Some(kind),
            policy: None,
            kept_in_zone: false,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        }
    }

    /// Since when it has been quiet.
    fn quiet(risks: &Risks, pool: &Offering) -> Instant {
        risks.quiet_until(pool, Duration::ZERO)
    }

    #[test]
    fn what_was_before_this_program_counts_from_then() {
        let (mut risks, spot) = (Risks::default(), pool("a", CapacityType::Spot));
        risks.looks_from(at(20));
        risks.were_looked_at(-500_000);
        assert_eq!(risks.quiet_until(&spot, Duration::from_secs(600)), at(100));
        risks.take_over(&spot, Some(-60_000), None);
        assert_eq!(risks.quiet_until(&spot, Duration::from_secs(600)), at(540));
        assert_eq!(risks.avoided_until(at(20), &spot), Some(at(540)));
        risks.prune(at(20));
        assert_eq!(risks.troubles().count(), 1);
        risks.prune(at(24 * 3_600));
        assert_eq!(risks.troubles().count(), 0, "a day after it happened");
    }

    #[test]
    fn an_interruption_makes_its_pool_risky_once_and_for_a_while() {
        let mut risks = Risks::default();
        let (spot, other) = (pool("a", CapacityType::Spot), pool("b", CapacityType::Spot));
        let taken = doomed(Phase::Confirmed, Kind::SpotInterruption);
        assert!(risks.interrupted(at(100), &taken, &spot) && !risks.interrupted(at(200), &taken, &spot));
        assert_eq!(risks.avoided_until(at(200), &spot), Some(at(700)));
        assert_eq!((risks.avoided_until(at(700), &spot), risks.avoided_until(at(200), &other)), (None, None));
        assert_eq!((quiet(&risks, &spot), quiet(&risks, &other)), (at(100), at(0)));
        risks.forget(&taken.instance);
        assert!(!risks.knows(&taken));
    }

    #[test]
    fn what_is_over_not_confirmed_not_spot_or_not_ec2s_says_nothing_of_a_pool() {
        let spot = pool("a", CapacityType::Spot);
        for (phase, kind) in [
            (Phase::Noticed, Kind::SpotInterruption),
            (Phase::Gone, Kind::SpotInterruption),
            (Phase::Draining, Kind::Requested),
            (Phase::Draining, Kind::ScheduledChange),
        ] {
            assert!(!Risks::default().interrupted(at(1), &doomed(phase, kind), &spot), "{phase} {kind}");
        }
        let taken = doomed(Phase::Draining, Kind::SpotInterruption);
        assert!(!Risks::default().interrupted(at(1), &taken, &pool("a", CapacityType::OnDemand)));
    }

    #[test]
    fn a_new_look_knows_nothing_of_the_time_before_and_old_trouble_is_forgotten() {
        let (mut risks, spot) = (Risks::default(), pool("a", CapacityType::Spot));
        risks.gave_nothing(at(50), &spot);
        risks.looks_from(at(400));
        assert_eq!(quiet(&risks, &spot), at(400));
        risks.prune(at(100_000));
        assert!(risks.pools.is_empty());
    }
}
