//! A model of Karpenter's provisioning on AWS.
//!
//! Sources: its documentation and settings (`BATCH_IDLE_DURATION` 1 s, `BATCH_MAX_DURATION` 10 s), and what was measured
//! or reported of it in the field: a claim that EC2 refuses is deleted and its pods are looked at again 10 s later, in
//! the next batch; offerings that gave nothing are remembered for 3 minutes in memory, so that a restart forgets them;
//! one `CreateFleet` for each claim, of one capacity type.
//!
//! Left out: consolidation, packing of several pods onto one node (every doomed node wants one of its size here),
//! reserved capacity, and the time that its scheduler takes.

use std::collections::BTreeMap;

use super::{About, Market, Provided};
use crate::domain::offering::{CapacityType, Offering};

pub const ABOUT: About = About {
    sources: "its documentation and settings: batches of 1 to 10 s, one capacity type in a call, a claim that EC2 refuses \
        is looked at again after 10 s, what gave nothing is remembered for 3 min",
    leaves_out: "consolidation, packing of several pods onto one node, reserved capacity, its scheduler's time",
};

/// Its timers, in milliseconds.
#[derive(Clone, Debug)]
pub struct Timers {
    pub batch_idle: u64,
    pub batch_max: u64,
    pub requeue: u64,
    pub remembers: u64,
    /// How long one `CreateFleet` takes.
    pub call: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self { batch_idle: 1_000, batch_max: 10_000, requeue: 10_000, remembers: 180_000, call: 900 }
    }
}

pub fn run(market: &Market, timers: &Timers) -> Provided {
    let mut market = market.clone();
    let mut provided = Provided::in_market(&market);
    let Some(begins) = market.wanted.first().map(|wanted| wanted.at) else { return provided };
    let mut short: BTreeMap<Offering, u64> = BTreeMap::new();
    let mut restarts = market.restarts.clone();
    // When each is looked at next.
    let mut looks: Vec<(u64, usize)> = market.wanted.iter().map(|wanted| wanted.at).zip(0..).collect();
    while let Some(first) = looks.iter().map(|(at, _)| *at).min() {
        let now = batch_ends(&looks, first, timers);
        if now > market.ends_ms {
            break;
        }
        restarts.retain(|at| {
            if *at <= now {
                short.clear();
            }
            *at > now
        });
        let (batch, later): (Vec<_>, Vec<_>) = looks.into_iter().partition(|(at, _)| *at <= now);
        looks = later;
        // All claims of a batch are launched at the same time, each without knowing of the others' answers.
        let known = short.clone();
        for (_, node) in batch {
            let wanted = &market.wanted[node];
            let open = |pool: &&Offering| wanted.fits(pool) && known.get(*pool).is_none_or(|until| *until <= now);
            let Some(capacity) = market.pools.iter().find(open).map(|pool| pool.capacity_type) else {
                looks.push((now + timers.requeue, node));
                continue;
            };
            let asked: Vec<Offering> =
                market.pools.iter().filter(open).filter(|pool| pool.capacity_type == capacity).cloned().collect();
            provided.calls += 1;
            if capacity == CapacityType::OnDemand {
                provided.on_demand_ms.get_or_insert(now - begins);
            }
            match asked.iter().position(|pool| market.take(pool, now)) {
                Some(taken) => provided.serve(&market, node, now + timers.call, &asked[taken]),
                None => {
                    short.extend(asked.into_iter().map(|pool| (pool, now + timers.call + timers.remembers)));
                    looks.push((now + timers.call + timers.requeue, node));
                }
            }
        }
    }
    provided
}

/// When the batch that begins at `first` ends: a while after the last that came, and not longer than the longest.
fn batch_ends(looks: &[(u64, usize)], first: u64, timers: &Timers) -> u64 {
    let mut coming: Vec<u64> = looks.iter().map(|(at, _)| *at).collect();
    coming.sort_unstable();
    let mut ends = first + timers.batch_idle;
    for at in coming {
        if at <= ends {
            ends = at + timers.batch_idle;
        }
    }
    ends.min(first + timers.batch_max)
}
