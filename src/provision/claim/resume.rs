//! Going on where an earlier leader has left a claim.

use std::time::Duration;

use super::{Object, Run};
use crate::api::launch::LaunchOutcome;
use crate::api::node_claim::ClaimPhase;
use crate::domain::time::{Epoch, Instant};
use crate::provision::writes::Writes;
use crate::provision::{Claim, Launch};

/// How long an instance that has no Node yet is waited for at least by whoever begins to lead.
const RESUMED_MIN: Duration = Duration::from_secs(60);

impl Run {
    /// Continues where the record says that it is.
    pub(in crate::provision) fn resume(now: Instant, epoch: &Epoch, claim: &Claim, registration: Duration) -> Self {
        let mut run = Self::new(claim.created.min(now), claim.name.clone(), claim.spec.clone());
        run.object = Object::There { uid: claim.uid.clone() };
        run.writes = Writes::from(Some(claim.status.clone()));
        run.status = claim.status.clone();
        run.status.phase.get_or_insert(ClaimPhase::Pending);
        // There is no way back from being let go, whoever leads: its deletion is asked for when its instance has ended.
        run.deleting = claim.deleting || run.phase() == ClaimPhase::Terminating;
        run.labelled = run.phase() == ClaimPhase::Ready;
        if run.status.instance_id.is_some() && run.phase() < ClaimPhase::Ready {
            let since = run.status.registered_at.or(run.status.launched_at);
            let left = registration.saturating_sub(since.map_or(Duration::ZERO, |at| epoch.ago(at, now)));
            // Where its time is over it may have become a node meanwhile, which is seen first.
            run.register_by = Some(now + left.max(RESUMED_MIN));
        }
        // The rung after the last one that is known to have given nothing. An attempt after that may have been written
        // here and never begun; where it was, its launch says so.
        let last = run.status.attempts.iter().rfind(|attempt| attempt.because.is_some());
        if let Some(at) = last.and_then(|last| run.spec.order.iter().position(|c| *c == last.capacity_type)) {
            run.rung = at + 1;
        }
        run
    }

    /// A launch of an earlier leader that names this claim: it is this claim's, unless its outcome is known here.
    pub(in crate::provision) fn attach(&mut self, launch: &Launch) {
        // It was served by another: the call was written by a leader that knew less.
        if self.status.instance_id.is_some() {
            return;
        }
        match self.status.attempts.iter().find(|attempt| attempt.launch == launch.name) {
            Some(closed) if closed.because.is_some() => return,
            Some(_) => {}
            // One that gave nothing long ago, and that newer attempts have pushed out of the status.
            None if launch.status.outcome.is_some_and(|outcome| outcome != LaunchOutcome::Launched) => return,
            None => self.attempts(&launch.name, launch.spec.capacity_type),
        }
        self.launch = Some(launch.name.clone());
        self.status.phase = Some(ClaimPhase::Launching);
        if let Some(at) = self.spec.order.iter().position(|capacity| *capacity == launch.spec.capacity_type) {
            self.rung = at;
        }
    }
}
