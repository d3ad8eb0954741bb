//! Waiting for company: where calls are scarce, claims that come one by one share one.
//!
//! A thousand notices reach the API server over some seconds. If each few of them made a call of their own, the bucket
//! would be empty before the last ones came, and these would wait for tokens, five a second by EC2's example sizes. So as
//! the bucket runs low, those that want the same wait a little for more of them, the longer the more such groups there
//! are; while it is more than half full nobody does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Provisioner;
use super::asking::Alike;
use crate::domain::time::Instant;

/// How long a claim waits for company with the last token, for each of those that ask for different things.
const EACH: Duration = Duration::from_millis(250);

/// The longest that it does.
const WITHIN: Duration = Duration::from_secs(1);

/// When those that are alike asked last, as far as calls were scarce then; and when those who wait for company ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing {
    last: BTreeMap<Alike, Instant>,
    next: Option<Instant>,
}

impl Sharing {
    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.last.retain(|_, at| now.since(*at) < WITHIN);
        self.next = None;
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.next
    }
}

impl Provisioner {
    /// How long those that are alike leave between two calls.
    fn apart(&self, now: Instant) -> Duration {
        let left = self.bucket.left(now, self.unsent(now));
        let kinds = u32::try_from(self.sharing.last.len().max(1)).unwrap_or(u32::MAX);
        EACH.saturating_mul(kinds).mul_f64((1.0 - 2.0 * left).clamp(0.0, 1.0)).min(WITHIN)
    }

    /// Whether these had better wait for others that are like them.
    pub(super) fn waits_for_company(&mut self, now: Instant, alike: &Alike, count: usize) -> bool {
        if count >= self.settings.share_max {
            return false;
        }
        let Some(at) = self.sharing.last.get(alike).map(|last| *last + self.apart(now)).filter(|at| *at > now) else {
            return false;
        };
        self.sharing.next = Some(self.sharing.next.map_or(at, |next| next.min(at)));
        true
    }

    /// They have asked.
    pub(super) fn asked_together(&mut self, now: Instant, alike: &Alike) {
        if !self.apart(now).is_zero() {
            self.sharing.last.insert(alike.clone(), now);
        }
    }
}
