//! The memory of what gave nothing, and until when that is believed.
//!
//! Three kinds of things can be short: an offering, a quota (class of types × spot or not), a subnet. A belief lasts
//! 3 minutes at first (a setting) and doubles to 30 with each probe that fails; most outages of spot outlast three minutes, half of
//! them twenty (published traces). When it has ended one probe at a time may ask again: whoever else would ask treats it
//! as short until the probe is answered. What was never seen to fail is not short.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::api::launch::Override;
use crate::domain::offering::{CapacityType, Offering, QuotaClass};
use crate::domain::time::Instant;

/// How long a first failure is believed, and the longest.
pub const BELIEF_FIRST: Duration = Duration::from_secs(180);
pub const BELIEF_MAX: Duration = Duration::from_secs(1_800);

/// What can be short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scarce {
    Offering(Offering),
    Quota(QuotaClass, CapacityType),
    /// Everything of one capacity type: an account that may not use spot.
    Market(CapacityType),
    /// By its id.
    Subnet(String),
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offering(offering) => offering.fmt(f),
            Self::Quota(class, capacity) => write!(f, "the {capacity} quota of {class} instances"),
            Self::Market(capacity) => write!(f, "all {capacity} capacity"),
            Self::Subnet(id) => write!(f, "subnet {id}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Belief {
    pub(super) until: Instant,
    pub(super) length: Duration,
    /// When it was learnt, or taken over.
    pub(super) learnt: Instant,
    /// The launch that asks again.
    pub(super) probe: Option<String>,
}

/// Whether something may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing speaks against it.
    Open,
    /// The belief has ended: one may ask.
    HalfOpen,
    /// Until then, or until the probe on its way is answered (`None`).
    Short(Option<Instant>),
}

/// All beliefs.
#[derive(Clone, Debug)]
pub struct Shortages {
    beliefs: BTreeMap<Scarce, Belief>,
    first: Duration,
    /// How often something was learnt.
    changes: u64,
}

impl Default for Shortages {
    fn default() -> Self {
        Self::believing(BELIEF_FIRST)
    }
}

impl Shortages {
    /// Nothing is short yet; a first failure is believed for so long.
    pub fn believing(first: Duration) -> Self {
        Self { beliefs: BTreeMap::new(), first: first.min(BELIEF_MAX), changes: 0 }
    }

    fn of(&self, now: Instant, what: &Scarce) -> Standing {
        match self.beliefs.get(what) {
            None => Standing::Open,
            Some(Belief { probe: Some(_), .. }) => Standing::Short(None),
            Some(belief) if belief.until <= now => Standing::HalfOpen,
            Some(belief) => Standing::Short(Some(belief.until)),
        }
    }

    /// How one override of a launch stands: the worst of what it depends on.
    pub fn standing(&self, now: Instant, of: &Override, class: QuotaClass, capacity: CapacityType) -> Standing {
        let mut worst = Standing::Open;
        for what in depends_on(of, class, capacity) {
            worst = match (worst, self.of(now, &what)) {
                (Standing::Short(None), _) | (_, Standing::Short(None)) => Standing::Short(None),
                (Standing::Short(Some(a)), Standing::Short(Some(b))) => Standing::Short(Some(a.max(b))),
                (short @ Standing::Short(_), _) | (_, short @ Standing::Short(_)) => short,
                (Standing::HalfOpen, _) | (_, Standing::HalfOpen) => Standing::HalfOpen,
                (Standing::Open, Standing::Open) => Standing::Open,
            };
        }
        worst
    }

    /// This launch asks for it: what is half-open is being probed by it.
    pub fn asked(&mut self, of: &Override, class: QuotaClass, capacity: CapacityType, launch: &str) {
        for what in depends_on(of, class, capacity) {
            if let Some(belief) = self.beliefs.get_mut(&what) {
                belief.probe.get_or_insert_with(|| launch.to_owned());
            }
        }
    }

    /// It gave nothing. Returns until when that is believed, where that is new.
    ///
    /// Two answers to requests that were sent at the same time are one failure: only the answer to a probe, or one after
    /// the belief has ended, makes the belief longer.
    pub fn failed(&mut self, now: Instant, what: &Scarce, launch: &str) -> Option<Instant> {
        let length = match self.beliefs.get(what) {
            None => self.first,
            Some(belief) if belief.probe.as_deref() == Some(launch) || belief.until <= now => {
                belief.length.saturating_mul(2).min(BELIEF_MAX)
            }
            Some(_) => return None,
        };
        let until = now + jittered(length, what);
        self.beliefs.insert(what.clone(), Belief { until, length, learnt: now, probe: None });
        self.changes += 1;
        Some(until)
    }

    /// It gave something: nothing speaks against it any more. Returns whether something did.
    pub fn gave(&mut self, of: &Override, class: QuotaClass, capacity: CapacityType) -> bool {
        let mut was_short = false;
        for what in depends_on(of, class, capacity) {
            was_short |= self.beliefs.remove(&what).is_some();
        }
        self.changes += u64::from(was_short);
        was_short
    }

    /// The launch is over: what its answer did not name may be probed by another.
    pub fn over(&mut self, launch: &str) {
        for belief in self.beliefs.values_mut() {
            if belief.probe.as_deref() == Some(launch) {
                belief.probe = None;
            }
        }
    }

    /// Gives up probes of launches that are not there any more.
    pub fn keep_probes(&mut self, there: impl Fn(&str) -> bool) {
        for belief in self.beliefs.values_mut() {
            if belief.probe.as_deref().is_some_and(|launch| !there(launch)) {
                belief.probe = None;
            }
        }
    }

    /// Every belief.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Scarce, &Belief)> {
        self.beliefs.iter()
    }

    /// How often something was learnt: where that has not changed there is nothing new to write down.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes over what another leader has left. What this one believed before its term began the other knew better; what
    /// it has learnt since it knows better itself.
    pub(super) fn take_over(&mut self, began: Instant, left: impl Iterator<Item = (Scarce, Belief)>) {
        self.beliefs.retain(|_, belief| belief.learnt >= began);
        for (what, belief) in left {
            let length = belief.length.clamp(self.first, BELIEF_MAX);
            self.beliefs.entry(what).or_insert(Belief { length, ..belief });
        }
    }

    /// A launch of an earlier leader is on its way: what is half-open is being probed by it.
    pub(super) fn is_on_its_way(
        &mut self,
        now: Instant,
        of: &Override,
        class: QuotaClass,
        capacity: CapacityType,
        launch: &str,
    ) {
        for what in depends_on(of, class, capacity) {
            if let Some(belief) = self.beliefs.get_mut(&what).filter(|belief| belief.until <= now) {
                belief.probe.get_or_insert_with(|| launch.to_owned());
            }
        }
    }
}

fn depends_on(of: &Override, class: QuotaClass, capacity: CapacityType) -> [Scarce; 4] {
    let offering = Offering { instance_type: of.instance_type.clone(), zone: of.zone.clone(), capacity_type: capacity };
    [
        Scarce::Offering(offering),
        Scarce::Quota(class, capacity),
        Scarce::Market(capacity),
        Scarce::Subnet(of.subnet_id.clone()),
    ]
}

/// Up to a tenth longer, the same for the same thing at every run: those that failed together do not all ask together.
pub(super) fn jittered(length: Duration, what: &Scarce) -> Duration {
    let hash = fnv(what.to_string().as_bytes());
    length + length.mul_f64((hash % 1_000) as f64 / 10_000.0)
}

/// FNV-1a: small, and the same in every run and on every machine.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn of(zone: &str) -> Override {
        Override { instance_type: "m7g.large".into(), subnet_id: format!("subnet-{zone}"), zone: zone.into() }
    }

    fn scarce(zone: &str) -> Scarce {
        Scarce::Offering(Offering {
            instance_type: "m7g.large".into(),
            zone: zone.into(),
            capacity_type: CapacityType::Spot,
        })
    }

    fn standing(of_: &Shortages, now: Instant, zone: &str) -> Standing {
        of_.standing(now, &of(zone), QuotaClass::Standard, CapacityType::Spot)
    }

    #[test]
    fn a_belief_ends_is_probed_by_one_and_grows_when_the_probe_fails() {
        let mut all = Shortages::default();
        assert_eq!(standing(&all, at(0), "a"), Standing::Open);
        let until = all.failed(at(0), &scarce("a"), "l1").unwrap();
        assert!((at(180)..=at(198)).contains(&until));
        assert_eq!(all.failed(at(1), &scarce("a"), "l2"), None, "the same failure");
        assert_eq!(standing(&all, at(100), "a"), Standing::Short(Some(until)));
        assert_eq!(standing(&all, until, "a"), Standing::HalfOpen);
        all.asked(&of("a"), QuotaClass::Standard, CapacityType::Spot, "l3");
        assert_eq!(standing(&all, until, "a"), Standing::Short(None), "one probe at a time");
        let next = all.failed(until, &scarce("a"), "l3").unwrap();
        assert!(next.since(until) >= Duration::from_secs(360));
        for _ in 0..10 {
            let now = standing(&all, at(0), "a");
            let Standing::Short(Some(until)) = now else { panic!("{now:?}") };
            all.failed(until, &scarce("a"), "l").unwrap();
        }
        assert_eq!(all.all().next().unwrap().1.length, BELIEF_MAX);
    }

    #[test]
    fn how_long_a_first_failure_is_believed_is_a_setting() {
        let mut all = Shortages::believing(Duration::from_secs(20));
        let until = all.failed(at(0), &scarce("a"), "l1").unwrap();
        assert!((at(20)..=at(22)).contains(&until), "{until:?}");
        let next = all.failed(until, &scarce("a"), "l2").unwrap();
        assert!(next.since(until) >= Duration::from_secs(40), "{next:?}");
        let length = Duration::from_secs(1);
        let left = [(scarce("b"), Belief { until: at(7), length, learnt: at(5), probe: None })];
        all.take_over(at(0), left.into_iter());
        assert!(all.all().any(|(what, of)| *what == scarce("b") && of.length == Duration::from_secs(20)));
    }

    #[test]
    fn what_an_answer_does_not_name_stays_half_open_and_what_it_gives_is_open() {
        let mut all = Shortages::default();
        let until = all.failed(at(0), &scarce("a"), "l1").unwrap();
        all.asked(&of("a"), QuotaClass::Standard, CapacityType::Spot, "l2");
        all.over("l2");
        assert_eq!(standing(&all, until, "a"), Standing::HalfOpen);
        assert!(all.gave(&of("a"), QuotaClass::Standard, CapacityType::Spot));
        assert_eq!(standing(&all, at(1), "a"), Standing::Open);
    }

    #[test]
    fn a_quota_and_a_subnet_stand_in_the_way_of_all_that_depends_on_them() {
        let mut all = Shortages::default();
        all.failed(at(0), &Scarce::Subnet("subnet-a".into()), "l").unwrap();
        assert!(matches!(standing(&all, at(0), "a"), Standing::Short(Some(_))));
        assert_eq!(standing(&all, at(0), "b"), Standing::Open);
        all.failed(at(0), &Scarce::Quota(QuotaClass::Standard, CapacityType::Spot), "l").unwrap();
        assert!(matches!(standing(&all, at(0), "b"), Standing::Short(Some(_))));
        assert_eq!(all.standing(at(0), &of("b"), QuotaClass::Standard, CapacityType::OnDemand), Standing::Open);
    }

    #[test]
    fn what_another_leader_has_left_goes_before_what_was_believed_in_an_earlier_term() {
        let belief = |until: u64| Belief { until: at(until), length: BELIEF_FIRST, learnt: at(500), probe: None };
        let mut all = Shortages::default();
        all.failed(at(400), &scarce("a"), "l1");
        all.failed(at(501), &scarce("b"), "l2");
        let mine = standing(&all, at(502), "b");
        let left = [(scarce("b"), belief(900)), (scarce("c"), belief(600))];
        all.take_over(at(500), left.into_iter());
        assert_eq!(standing(&all, at(502), "a"), Standing::Open, "it gave something to the other");
        assert_eq!(standing(&all, at(502), "b"), mine, "what was learnt since counts");
        assert_eq!(standing(&all, at(502), "c"), Standing::Short(Some(at(600))));
        // A call of the other's that asks for it is the one probe; one for what is still believed is none.
        for zone in ["b", "c"] {
            all.is_on_its_way(at(600), &of(zone), QuotaClass::Standard, CapacityType::Spot, "l3");
        }
        assert_eq!((standing(&all, at(600), "b"), standing(&all, at(600), "c")), (mine, Standing::Short(None)));
        let until = all.failed(at(601), &scarce("c"), "l3").unwrap();
        assert!(until.since(at(601)) >= BELIEF_FIRST * 2, "the growth goes on");
    }
}
