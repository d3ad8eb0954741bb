//! Pools over time: as they are, and as the provisioners believe them to be.

use std::time::Duration;

use super::outcome::{PoolState, PoolTimeline};
use super::world::System;
use crate::domain::offering::Offering;

#[derive(Default)]
pub(super) struct PoolSim {
    truth: Vec<(u64, PoolState)>,
    believed: Vec<(u64, PoolState)>,
}

fn push(line: &mut Vec<(u64, PoolState)>, at: u64, state: PoolState) {
    // What was to come later is overtaken.
    line.retain(|(known, _)| *known < at);
    if line.last().is_none_or(|(_, last)| *last != state) {
        line.push((at, state));
    }
}

impl System {
    /// What is left in a pool has changed.
    pub fn pool_changed(&mut self, offering: &Offering) {
        let dry = self.supply.cloud.pools.get(offering) == Some(&Some(0));
        let state = if dry { PoolState::Short } else { PoolState::Open };
        let now = self.now;
        push(&mut self.pools.entry(offering.clone()).or_default().truth, now, state);
    }

    /// The leader takes something to be short; only offerings have a timeline.
    pub fn believed_short(&mut self, what: &str, believed: Duration) {
        let now = self.now;
        if let Some(pool) = self.named(what) {
            push(&mut pool.believed, now, PoolState::Short);
            let ends = now + u64::try_from(believed.as_millis()).unwrap_or(u64::MAX);
            push(&mut pool.believed, ends, PoolState::Open);
        }
    }

    pub fn believed_open(&mut self, what: &str) {
        let now = self.now;
        if let Some(pool) = self.named(what) {
            push(&mut pool.believed, now, PoolState::Open);
        }
    }

    fn named(&mut self, what: &str) -> Option<&mut PoolSim> {
        self.pools.iter_mut().find(|(offering, _)| offering.to_string() == what).map(|(_, pool)| pool)
    }

    pub fn pool_timelines(&mut self) -> Vec<PoolTimeline> {
        let end = self.scenario.ends_ms;
        let of = |(offering, pool): (Offering, PoolSim)| PoolTimeline {
            instance_type: offering.instance_type,
            zone: offering.zone,
            capacity_type: offering.capacity_type,
            truth: pool.truth,
            believed: pool.believed.into_iter().filter(|(at, _)| *at <= end).collect(),
        };
        std::mem::take(&mut self.pools).into_iter().map(of).collect()
    }
}
