//! One object's writes to the API server: one on its way at a time, the latest wanted one next, until it is acknowledged.

use std::time::Duration;

use crate::domain::time::Instant;
use crate::interruption::Outcome;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What was written of a `T`, and what is on its way.
#[derive(Clone, Debug)]
pub(super) struct Writes<T> {
    acknowledged: Option<T>,
    on_its_way: Option<T>,
    again: Option<Instant>,
    tries: u32,
}

impl<T: Clone + PartialEq> Writes<T> {
    /// Where the API server has `known` already.
    pub(super) fn from(known: Option<T>) -> Self {
        Self { acknowledged: known, on_its_way: None, again: None, tries: 0 }
    }

    /// What is to be sent now to bring the API server to `wanted`.
    pub(super) fn next(&mut self, now: Instant, wanted: &T) -> Option<T> {
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

    /// Takes in the answer. Returns what went wrong, the first time it does.
    pub(super) fn answered(&mut self, now: Instant, outcome: Outcome) -> Option<String> {
        let sent = self.on_its_way.take();
        match outcome {
            Outcome::Done => {
                self.acknowledged = sent;
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

    /// When a write that failed is tried again.
    pub(super) fn retry(&self) -> Option<Instant> {
        if self.on_its_way.is_some() { None } else { self.again }
    }

    /// When the next try is due; `None` where nothing waits for one.
    pub(super) fn wakeup(&self, wanted: &T) -> Option<Instant> {
        if self.on_its_way.is_some() || self.has(wanted) { None } else { self.again }
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
}
