//! What leaders leave to each other, and what may come of it on the way.

use jiff::{SignedDuration, Timestamp};

use super::world::{World, epoch};
use crate::domain::time::Epoch;
use crate::provision::memory::{Memory, Short, What};

impl World {
    /// What a replica reads of what leaders have left.
    pub fn recalled(&mut self) -> Option<String> {
        let last = self.memories.last().cloned();
        if !self.memory_chance(self.supply.faults.memory_odd_one_in) {
            return last;
        }
        match self.memory_rng.u64(..3) {
            0 => self.memories.iter().rev().nth(1).cloned(),
            1 => last.map(|text| text[..text.len() / 2].to_owned()),
            _ => Some(self.beliefs_without_end()),
        }
    }

    /// Whether something befalls what leaders leave to each other. It is drawn apart: what befalls the rest of a world does
    /// not depend on it.
    pub fn memory_chance(&mut self, one_in: Option<u32>) -> bool {
        one_in.is_some_and(|one_in| self.memory_rng.u32(..one_in.max(1)) == 0)
    }

    /// Everything is short, for ever.
    fn beliefs_without_end(&self) -> String {
        let short = self.cloud.pools.keys().map(|offering| Short {
            what: What::Offering(offering.clone()),
            until: Timestamp::MAX,
            seconds: u64::MAX,
        });
        Memory { at: Timestamp::MAX, looks_since: Timestamp::MAX, short: short.collect(), trouble: Vec::new() }
            .to_string()
    }

    /// The clock of a replica, which may be off.
    pub fn clock(&self, replica: usize) -> Epoch {
        let off = SignedDuration::from_millis(self.supply.clocks_off_ms[replica % 2]);
        Epoch(epoch().0.saturating_add(off).unwrap_or(Timestamp::MAX))
    }
}
