//! The end, as far as only the whole can judge it: that every pod of a controller runs again where there is room.

use super::scenario::{ApiState, State, WorkloadKind};
use super::world::System;
use crate::api::interruption::Phase;
use crate::domain::notice::InstanceId;

/// How long everything must have been well before the end for it to be judged: longer than the longest belief in a
/// shortage, and than a pod takes that was killed and is placed anew.
const QUIET_MS: u64 = 40 * 60_000;

/// How long a pod may be missing: a return to spot may be moving it at the very end.
const MISSING_MS: u64 = 5 * 60_000;

impl System {
    pub fn verdict(&mut self) {
        let well = self.agents.api == ApiState::Well && self.supply.cloud.state == State::Well;
        let last = self.taken.values().copied().max().unwrap_or(0).max(self.last_step);
        if !self.has_a_provisioner() {
            // Nobody is left who could ask for anything, and there is nowhere to run: the worst that can be. It is why
            // readiness says when both replicas run on spot.
            self.supply.last_step = self.now;
            return;
        }
        if !well || last + QUIET_MS > self.now {
            return;
        }
        let mut missing = Vec::new();
        for slot in &self.slots {
            let workload = &self.workloads[slot.workload].spec;
            let runs = slot.life.is_some_and(|life| self.lives[life].available);
            let long = slot.missing_since.is_some_and(|since| since + MISSING_MS <= self.now);
            if !runs && long && workload.kind != WorkloadKind::Pod {
                missing.push(format!("{}-{}", workload.path(), slot.ordinal));
            }
        }
        if !missing.is_empty() && self.had_capacity() {
            self.found("", "live", format!("these do not run again: {}", missing.join(", ")));
        }
    }

    /// Whether a replica of the provisioner runs, or could.
    fn has_a_provisioner(&self) -> bool {
        let need = self.workloads.iter().find(|one| one.spec.kind == WorkloadKind::Provisioner);
        let room = self.room.values().filter_map(|zone| zone.last()).map(|(free, _)| *free).max().unwrap_or(0);
        need.is_none_or(|one| room >= one.spec.cpu_millis) || !self.homes().is_empty()
    }

    /// Whether every node that was taken was heard of in the end, and every one that was wanted in another's place is
    /// there: where EC2 has refused one for good, or the claim was given up with a reason, pods may have to wait.
    fn had_capacity(&self) -> bool {
        let heard = |id: &InstanceId| self.supply.doomed.get(id).is_some_and(|of| of.phase >= Phase::Confirmed);
        self.unheard.iter().all(heard)
            && self.supply.cloud.joins
            && self.supply.cloud.refuses.is_empty()
            && self.supply.history.values().all(|claim| claim.ready_ms.is_some())
    }
}
