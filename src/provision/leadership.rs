//! Leadership as a value with an expiry: whoever holds it may begin a call only if the call will have ended before
//! somebody else can hold it.

use std::time::Duration;

use crate::domain::time::Instant;

/// The longest that a call to EC2 may take. It is given up after that.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// Who leads, as far as we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    until: Option<Instant>,
}

impl Leadership {
    /// The lease was acquired or renewed. `until` is the end of the lease measured from before the request was sent.
    /// Returns whether that is a new term.
    pub fn held(&mut self, now: Instant, until: Instant) -> bool {
        let new = self.until.is_none_or(|until| until <= now);
        self.until = Some(until);
        new
    }

    /// It was given up, or somebody else holds it.
    pub fn lost(&mut self) {
        self.until = None;
    }

    /// Whether a call that begins now ends in our term.
    pub fn may_act(&self, now: Instant) -> bool {
        self.act_until().is_some_and(|until| now < until)
    }

    /// The last moment at which a call may begin.
    pub fn act_until(&self) -> Option<Instant> {
        self.until.map(|until| until - CALL_TIMEOUT)
    }

    /// When the term ends.
    pub fn ends(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the term has not ended.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_that_could_end_in_the_next_ones_term() {
        let at = |secs: u64| Instant::from_millis(secs * 1_000);
        let mut lead = Leadership::default();
        assert!(!lead.may_act(at(0)));
        assert!(lead.held(at(0), at(15)));
        assert!(lead.may_act(at(6)) && !lead.may_act(at(7)));
        assert!(lead.holds(at(14)) && !lead.holds(at(15)));
        assert!(!lead.held(at(14), at(29)), "renewed in time");
        assert!(lead.held(at(29), at(44)), "a new term: the old one had ended");
        lead.lost();
        assert!(!lead.holds(at(30)));
    }
}
