//! Return to spot: when an on-demand node that stands in for a spot one may be moved back.
//!
//! A spot node is launched first, out of pools that have been quiet; that launch is itself the probe. Only when it is
//! Ready is the on-demand node drained, as budgets allow. What fails changes nothing, and doubles the wait of that node.

use std::time::Duration;

use crate::api::node_claim::{ClaimPhase, Purpose};
use crate::domain::offering::CapacityType;
use crate::domain::time::{Epoch, Instant};

use super::claim;
use super::pools::ReturnToSpot;

/// The longest that a node waits for quiet, however often its return has failed.
pub const AFTER_MAX: Duration = Duration::from_secs(4 * 3_600);

/// How, and how fast, nodes return to spot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a spot pool must have been quiet: no capacity error, no interruption.
    pub after: Duration,
    /// How long an on-demand node stays Ready before it may be moved.
    pub min_stay: Duration,
    /// How many returns may begin in an hour, failed ones included; `None`: as many as `surge` lets.
    pub max_per_hour: Option<u64>,
    /// How many may be on their way at a time; with 0 nothing returns.
    pub surge: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self { after: minutes(10), min_stay: minutes(30), max_per_hour: Some(10), surge: 1 }
    }
}

impl From<ReturnToSpot> for Policy {
    fn from(of: ReturnToSpot) -> Self {
        Self { after: of.after, min_stay: of.min_stay, max_per_hour: of.max_per_hour, surge: of.surge }
    }
}

impl Policy {
    /// How long quiet must last for a node whose return has failed so often.
    pub fn quiet(&self, failed: i64) -> Duration {
        let doublings = u32::try_from(failed).unwrap_or(0).min(16);
        self.after.saturating_mul(1 << doublings).min(AFTER_MAX.max(self.after))
    }
}

/// The name of the claim for a node's next try: the same, whichever leader makes it.
pub(super) fn name(of: &claim::Run) -> Option<String> {
    Some(format!("{}-return-{}", of.instance()?, of.status.failed_returns + 1))
}

/// When an on-demand node has stayed long enough, as far as it is one that may return.
pub(super) fn stayed(of: &claim::Run, policy: &Policy, now: Instant, epoch: &Epoch) -> Option<Instant> {
    let capacity = of.status.offering.as_ref()?.capacity_type;
    let at = |capacity| of.spec.order.iter().position(|one| *one == capacity);
    let stands_in = capacity == CapacityType::OnDemand && at(CapacityType::Spot)? < at(CapacityType::OnDemand)?;
    // A bridge ends when the group's own node comes: it is not moved before.
    let bridge = of.spec.replaces.as_ref().is_some_and(|of| of.group.is_some());
    let stays = !bridge && of.phase() == ClaimPhase::Ready && !of.deleting && of.spec.purpose == Purpose::Replacement;
    if !stands_in || !stays || policy.surge == 0 {
        return None;
    }
    // Compared on the wall clock: it may have been Ready long before this program began.
    let ready = epoch.wall(now).duration_since(of.status.ready_at?);
    let ready = if ready.is_negative() { Duration::ZERO } else { ready.unsigned_abs() };
    Some(now + policy.min_stay.saturating_sub(ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_four_hours() {
        let policy = Policy::default();
        let minutes: Vec<u64> = (0..8).map(|failed| policy.quiet(failed).as_secs() / 60).collect();
        assert_eq!(minutes, [10, 20, 40, 80, 160, 240, 240, 240]);
        let patient = Policy { after: Duration::from_secs(36_000), ..policy };
        assert_eq!(patient.quiet(3), Duration::from_secs(36_000), "who asks for more gets it");
        assert_eq!(patient.quiet(-1), Duration::from_secs(36_000));
    }
}
