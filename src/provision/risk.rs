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

/// What was last seen of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trouble {
    interrupted: Option<Instant>,
    gave_nothing: Option<Instant>,
}

/// All pools that have made trouble.
#[derive(Clone, Debug, Default)]
pub struct Risks {
    since: Instant,
    pools: BTreeMap<Offering, Trouble>,
    /// The interruptions that were taken in.
    seen: BTreeSet<(InstanceId, i64)>,
}

impl Risks {
    /// From now on everything is seen; what happened before is not known.
    pub fn looks_from(&mut self, now: Instant) {
        self.since = now;
    }

    fn of(&mut self, pool: &Offering) -> Option<&mut Trouble> {
        (pool.capacity_type == CapacityType::Spot).then(|| self.pools.entry(pool.clone()).or_default())
    }

    /// Spot gave nothing there.
    pub fn gave_nothing(&mut self, now: Instant, pool: &Offering) {
        self.of(pool).into_iter().for_each(|trouble| trouble.gave_nothing = Some(now));
    }

    /// A spot instance there is being taken, or is likely to be. Returns whether that is news.
    pub fn interrupted(&mut self, now: Instant, doomed: &Doomed, pool: &Offering) -> bool {
        if pool.capacity_type != CapacityType::Spot
            || !tells(doomed)
            || !self.seen.insert((doomed.instance.clone(), doomed.episode))
        {
            return false;
        }
        self.of(pool).into_iter().for_each(|trouble| trouble.interrupted = Some(now));
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
        Some(interrupted + AVOIDED).filter(|until| now < *until)
    }

    /// Since when it has been quiet there.
    pub fn quiet_since(&self, pool: &Offering) -> Instant {
        let trouble = self.pools.get(pool).copied().unwrap_or_default();
        [Some(self.since), trouble.interrupted, trouble.gave_nothing].into_iter().flatten().max().unwrap_or(self.since)
    }

    /// Drops what is too old to matter.
    pub fn prune(&mut self, now: Instant) {
        let old = |at: Option<Instant>| at.is_none_or(|at| now.since(at) > REMEMBERED);
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
            replacement: Replacement::default(),
            record: Default::default(),
        }
    }

    #[test]
    fn an_interruption_makes_its_pool_risky_once_and_for_a_while() {
        let mut risks = Risks::default();
        let (spot, other) = (pool("a", CapacityType::Spot), pool("b", CapacityType::Spot));
        let taken = doomed(Phase::Confirmed, Kind::SpotInterruption);
        assert!(risks.interrupted(at(100), &taken, &spot) && !risks.interrupted(at(200), &taken, &spot));
        assert_eq!(risks.avoided_until(at(200), &spot), Some(at(700)));
        assert_eq!((risks.avoided_until(at(700), &spot), risks.avoided_until(at(200), &other)), (None, None));
        assert_eq!((risks.quiet_since(&spot), risks.quiet_since(&other)), (at(100), at(0)));
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
        assert_eq!(risks.quiet_since(&spot), at(400));
        risks.prune(at(100_000));
        assert!(risks.pools.is_empty());
    }
}
