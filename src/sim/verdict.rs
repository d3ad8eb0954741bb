//! The end: what the ledgers say, what is left on the nodes, and whether everything came to an end.

use std::time::Duration;

use super::scenario::{ApiState, Faults};
use super::world::{World, moment};
use crate::api::interruption::Phase;
use crate::interruption::invariants::ledger::{Able, restored};

/// How long everything must have been well for the end to be judged.
const QUIET_MS: u64 = 30_000;

impl World {
    pub fn verdict(&mut self) {
        for node in 0..self.nodes.len() {
            self.close_ability(node);
            let violations = self.nodes[node].ledger.judge();
            self.violated(node, violations);
            self.check_drained(node);
            self.check_restored(node);
        }
        let left = self.queue_left();
        if left > 0 && self.well_for(QUIET_MS) && self.somebody_reads() {
            self.found(0, "live", format!("{left} messages are left in the queue"));
        }
    }

    fn close_ability(&mut self, node: usize) {
        let now = moment(self.now);
        let sim = &mut self.nodes[node];
        for (from, deadline) in std::mem::take(&mut sim.able).into_iter().flatten() {
            sim.ledger.able.push(Able { from: moment(from), to: now, deadline: moment(deadline) });
        }
    }

    fn well_for(&self, millis: u64) -> bool {
        self.api == ApiState::Well && self.api_since + millis <= self.now
    }

    fn somebody_reads(&self) -> bool {
        let reads = |agent: &super::agents::Agent| agent.standing && agent.born + QUIET_MS <= self.now;
        self.nodes.iter().any(|node| node.agent.as_ref().is_some_and(reads))
    }

    /// Where a drain was demanded for long enough and no pod is left, it says so.
    pub fn check_drained(&mut self, node: usize) {
        let sim = &self.nodes[node];
        let actors = [&sim.agent, &sim.stand_in].map(|actor| actor.as_ref().and_then(|actor| actor.core.phase()));
        for (able, phase) in sim.able.into_iter().zip(actors) {
            self.check_drained_by(node, able.map(|(from, _)| from), phase);
        }
    }

    fn check_drained_by(&mut self, node: usize, since: Option<u64>, phase: Option<Phase>) {
        let slack = self.nodes[node].ledger.slack;
        let last_out = self.nodes[node].ledger.pods.iter().filter_map(|pod| pod.out_at).max();
        let since = since.map(|since| moment(since).max(last_out.unwrap_or_default()));
        let long = since.is_some_and(|since| since + slack <= moment(self.now));
        if !long || self.drain_left(node) {
            return;
        }
        if phase != Some(Phase::Drained) {
            self.found(node, "live", format!("no pod is left, and the phase is {phase:?}"));
        }
    }

    /// Where nothing is announced any more, the node is as it was but for us.
    fn check_restored(&mut self, node: usize) {
        let quiet = self.well_for(QUIET_MS);
        let sim = &self.nodes[node];
        let Some(agent) = sim.agent.as_ref().filter(|_| sim.alive && quiet) else {
            return;
        };
        if agent.born + QUIET_MS > self.now || agent.witness.confirmed() {
            return;
        }
        let violations = restored(&sim.object, &sim.foreign);
        self.violated(node, violations);
    }
}

impl Faults {
    /// How long an agent may take to do what nothing but these faults keeps it from.
    pub(super) fn slack(&self) -> Duration {
        let lost = if self.lost_answer_one_in.is_some() { 11_000 } else { 0 };
        let refused = if self.refused_one_in.is_some() { 3_000 } else { 0 };
        let throttled = if self.throttled_one_in.is_some() { 5_000 } else { 0 };
        let base = 2_500 + 5 * self.slow_ms + 2 * self.watch_lag_ms;
        Duration::from_millis(base + lost + refused + throttled)
    }
}
