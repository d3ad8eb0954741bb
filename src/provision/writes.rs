//! One object's writes to the API server: one on its way at a time, the latest wanted one next, until it is acknowledged.

use std::time::Duration;

use crate::domain::time::Instant;
use crate::interruption::Outcome;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// For how long a watch may show something else than what was acknowledged: it is behind, as a rule.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// The pause between two tries of what fails: it doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pause {
    tries: u32,
}

impl Pause {
    /// Whether nothing has failed since it last went well.
    pub(super) fn is_new(&self) -> bool {
        self.tries == 0
    }

    /// It has failed: how long to wait.
    pub(super) fn next(&mut self, first: Duration, longest: Duration) -> Duration {
        let pause = first.saturating_mul(1 << self.tries.min(16)).min(longest);
        self.tries = self.tries.saturating_add(1);
        pause
    }
}

/// What was written of a `T`, and what is on its way.
#[derive(Clone, Debug)]
pub(super) struct Writes<T> {
    acknowledged: Option<T>,
    on_its_way: Option<T>,
    again: Option<Instant>,
    tries: u32,
    /// When it was acknowledged.
    at: Instant,
    /// What a watch showed last, and when.
    shown: Option<(Instant, T)>,
}

impl<T: Clone + PartialEq> Writes<T> {
    /// Where the API server has `known` already.
    pub(super) fn from(known: Option<T>) -> Self {
        Self { acknowledged: known, on_its_way: None, again: None, tries: 0, at: Instant::default(), shown: None }
    }

    /// What is to be sent now to bring the API server to `wanted`.
    pub(super) fn next(&mut self, now: Instant, wanted: &T) -> Option<T> {
        if self.overwritten().is_some_and(|at| at <= now) {
            (self.acknowledged, self.shown) = (None, None);
        }
        if self.acknowledged.as_ref() == Some(wanted) {
            (self.again, self.tries) = (None, 0);
            return None;
        }
        if self.on_its_way.is_some() || self.again.is_some_and(|at| now < at) {
            return None;
        }
        self.on_its_way = Some(wanted.clone());
        Some(wanted.clone())
    }

    /// A watch shows what the API server has.
    pub(super) fn seen(&mut self, now: Instant, seen: &T) {
        self.shown = Some((now, seen.clone()));
    }

    /// Another has written over what was acknowledged (an earlier leader whose write was on its way for long, a person),
    /// and when that is certain. It is written again then; where the watch was only behind, that changes nothing.
    fn overwritten(&self) -> Option<Instant> {
        let (at, shown) = self.shown.as_ref().filter(|_| self.on_its_way.is_none())?;
        (self.acknowledged.as_ref()? != shown).then(|| (*at).max(self.at) + BEHIND_MAX)
    }

    /// Takes in the answer. Returns what went wrong, the first time it does.
    pub(super) fn answered(&mut self, now: Instant, outcome: Outcome) -> Option<String> {
        let sent = self.on_its_way.take();
        match outcome {
            Outcome::Done => {
                (self.acknowledged, self.at) = (sent, now);
                (self.again, self.tries) = (None, 0);
                None
            }
            Outcome::Refused(why) | Outcome::Failed(why) => {
                self.again = Some(now + RETRY_FIRST.saturating_mul(1 << self.tries.min(8)).min(RETRY_MAX));
                self.tries = self.tries.saturating_add(1);
                (self.tries == 1).then_some(why)
            }
        }
    }

    /// Whether the API server has this.
    pub(super) fn has(&self, wanted: &T) -> bool {
        self.acknowledged.as_ref() == Some(wanted)
    }

    /// Whether nothing is on its way, and nothing is to be tried again.
    pub(super) fn is_idle(&self) -> bool {
        self.on_its_way.is_none() && self.again.is_none()
    }

    pub(super) fn is_on_its_way(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// When a write that failed is tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        if self.on_its_way.is_some() { None } else { self.again }
    }

    /// When the next try is due; `None` where nothing waits for one.
    pub(super) fn wakeup(&self, wanted: &T) -> Option<Instant> {
        let again = self.again.filter(|_| self.on_its_way.is_none() && !self.has(wanted));
        again.into_iter().chain(self.overwritten()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_written_last_and_a_failure_is_tried_again_later() {
        let at = Instant::from_millis;
        let mut writes = Writes::from(None);
        assert_eq!(writes.next(at(0), &1), Some(1));
        assert_eq!(writes.next(at(0), &2), None, "one at a time");
        assert_eq!(writes.answered(at(5), Outcome::Failed("busy".into())), Some("busy".into()));
        assert_eq!(writes.next(at(50), &2), None);
        assert_eq!(writes.wakeup(&2), Some(at(105)));
        assert_eq!(writes.next(at(105), &2), Some(2));
        assert_eq!(writes.answered(at(110), Outcome::Failed("busy".into())), None, "said once");
        assert_eq!(writes.next(at(400), &2), Some(2));
        assert_eq!(writes.answered(at(401), Outcome::Done), None);
        assert!(writes.has(&2) && writes.next(at(500), &2).is_none() && writes.wakeup(&2).is_none());
    }

    #[test]
    fn what_another_has_written_over_it_is_written_again_once() {
        let at = Instant::from_millis;
        let mut writes = Writes::from(Some(0));
        assert_eq!(writes.next(at(0), &1), Some(1));
        writes.seen(at(1), &0);
        assert_eq!(writes.answered(at(2), Outcome::Done), None);
        writes.seen(at(3), &1);
        assert_eq!((writes.next(at(9_000), &1), writes.wakeup(&1)), (None, None), "the watch was behind");
        writes.seen(at(10_000), &9);
        assert_eq!((writes.next(at(11_999), &1), writes.wakeup(&1)), (None, Some(at(12_000))));
        assert_eq!(writes.next(at(12_000), &1), Some(1));
        assert_eq!(writes.answered(at(12_001), Outcome::Done), None);
        assert_eq!((writes.next(at(60_000), &1), writes.wakeup(&1)), (None, None), "it was there already");
    }
}
