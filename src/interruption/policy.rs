//! How a node is kept: what the program was told, and what the Node says over it.

use std::time::Duration;

use crate::api::interruption::PolicyStatus;
use crate::domain::policy::OnNode;
pub use crate::domain::policy::{DrainBy, DrainStart, Rebalance};

/// How a keeper is to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub rebalance: Rebalance,
    pub drain: DrainStart,
    /// The time before the deadline at which a pod should have ended (`m`).
    pub margin: Duration,
    /// How long before a scheduled event the drain begins, beside the longest grace on the node.
    pub scheduled_lead: Duration,
    /// Mark the node, and evict nothing.
    pub cordon_only: bool,
    pub drain_by: DrainBy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rebalance: Rebalance::Avoid,
            drain: DrainStart::Immediate,
            margin: Duration::from_secs(5),
            scheduled_lead: Duration::from_secs(600),
            cordon_only: false,
            drain_by: DrainBy::Agent,
        }
    }
}

impl Policy {
    /// This policy, where the Node says nothing else.
    pub fn on(&self, node: &OnNode) -> Self {
        Self {
            rebalance: node.rebalance.unwrap_or(self.rebalance),
            drain: node.drain.unwrap_or(self.drain),
            margin: node.margin.unwrap_or(self.margin),
            ..self.clone()
        }
    }

    /// What the record says of it, so that whoever takes over acts alike.
    pub fn recorded(&self) -> PolicyStatus {
        // A fraction more of margin is safe, a fraction less is not.
        let secs = |duration: Duration| i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        PolicyStatus {
            rebalance: self.rebalance,
            drain: self.drain,
            margin_seconds: secs(self.margin),
            scheduled_lead_seconds: secs(self.scheduled_lead),
            cordon_only: self.cordon_only,
            drain_by: self.drain_by,
        }
    }

    /// The policy that a record tells of.
    pub fn from_record(recorded: &PolicyStatus) -> Self {
        let duration = |secs: i64| Duration::from_secs(u64::try_from(secs).unwrap_or(0));
        Self {
            rebalance: recorded.rebalance,
            drain: recorded.drain,
            margin: duration(recorded.margin_seconds),
            scheduled_lead: duration(recorded.scheduled_lead_seconds),
            cordon_only: recorded.cordon_only,
            drain_by: recorded.drain_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_over_keeps_by_the_same_policy() {
        let policy = Policy {
            rebalance: Rebalance::Replace,
            drain: DrainStart::CapacityFirst,
            margin: Duration::from_millis(1_500),
            scheduled_lead: Duration::from_secs(60),
            cordon_only: true,
            drain_by: DrainBy::Provisioner,
        };
        let taken_over = Policy::from_record(&policy.recorded());
        assert_eq!(taken_over, Policy { margin: Duration::from_secs(2), ..policy });
    }
}
