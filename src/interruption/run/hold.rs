//! CapacityFirst: evictions wait for the node's replacement, for as long as every pod can still end in time.

use std::time::Duration;

use crate::api::interruption::ReplacementStatus;
use crate::domain::policy::DrainStart;
use crate::domain::time::Instant;
use crate::interruption::drain::Terms;
use crate::interruption::{Because, Policy};

/// How long the provisioner may take to say that it has heard of it.
pub const ANSWER_AWAITED: Duration = Duration::from_secs(2);

/// How long a drain without a deadline waits for a replacement that does not become Ready: the time in which a
/// provisioner gives an instance up that is no Node, and something.
pub const WAITS_WITHOUT_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// How far one episode's waiting has come. What has ceased to wait does not begin again.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold {
    since: Option<Instant>,
    released: bool,
    said: bool,
}

impl Hold {
    /// Whether evictions wait at `now`, and what there is to say of it.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        policy: &Policy,
        terms: &Terms,
        replacement: Option<&ReplacementStatus>,
    ) -> (bool, Option<Because>) {
        let waits = policy.drain == DrainStart::CapacityFirst && !terms.at_once && !policy.cordon_only;
        if !waits || self.released {
            self.released |= self.since.is_some();
            return (false, None);
        }
        let since = *self.since.get_or_insert(now);
        let release = match replacement {
            Some(of) if of.ready => Some(Because::ReplacementReady { claim: of.claim.clone() }),
            Some(of) if of.none_comes => Some(Because::NoReplacement { why: of.because.clone() }),
            Some(_) if terms.deadline.is_none() && since + WAITS_WITHOUT_DEADLINE <= now => {
                Some(Because::WaitedLongEnough { waited: now.since(since) })
            }
            None if since + ANSWER_AWAITED <= now => Some(Because::NobodyAnswers),
            Some(_) | None => None,
        };
        if release.is_some() {
            self.released = true;
            return (false, release);
        }
        let says = replacement.filter(|_| !std::mem::replace(&mut self.said, replacement.is_some()));
        (true, says.map(|of| Because::Held { claim: of.claim.clone() }))
    }

    /// When [`decide`](Self::decide) may say something else without having heard anything.
    pub(super) fn wakeup(&self, terms: &Terms, answered: bool) -> Option<Instant> {
        let since = self.since.filter(|_| !self.released)?;
        match (answered, terms.deadline) {
            (false, _) => Some(since + ANSWER_AWAITED),
            (true, None) => Some(since + WAITS_WITHOUT_DEADLINE),
            // Each pod has its own moment then, which the plan knows.
            (true, Some(_)) => None,
        }
    }
}
