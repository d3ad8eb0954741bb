//! A model of Cluster Autoscaler on AWS with a priority expander: one group of capacity for each pool.
//!
//! Sources: its FAQ and flags (`--scan-interval` 10 s, `--max-node-provision-time` 15 min,
//! `--initial-node-group-backoff-duration` 5 min, `--max-node-group-backoff-duration` 30 min,
//! `--node-group-backoff-reset-timeout` 3 h), and the priority expander's rule: a group of the highest priority that
//! is not backed off, at random where there are several. All spot groups have one priority here, and are taken in turn
//! where the real one throws dice.
//!
//! Every scan with pods that wait asks the first group that may be asked for as many nodes as are missing, in one call.
//! The group's own reconciliation keeps trying its pool while the attempt lasts. After `noticed` it counts as failed, and
//! the group is backed off, for twice as long each time.
//!
//! Left out: scale-down, balancing of similar groups, mixed policies within a group, the other expanders, and the time
//! that its simulation of the scheduler takes.

use std::collections::BTreeMap;

use super::{Market, Provided};
use crate::domain::offering::{CapacityType, Offering};

const MINUTE: u64 = 60_000;

/// Its timers, in milliseconds.
#[derive(Clone, Debug)]
pub struct Timers {
    pub scan: u64,
    /// After what time an attempt that gives nothing is noticed as failed: 16 min by the provision time and the scans
    /// after it, some 2 min where the group's activities are read.
    pub noticed: u64,
    pub backoff_first: u64,
    pub backoff_max: u64,
    /// A group that has not failed for so long begins anew.
    pub backoff_reset: u64,
    /// The groups stand at their minimum size: what never came is not taken off, and counts as coming for ever.
    pub at_minimum: bool,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            scan: 10_000,
            noticed: 16 * MINUTE,
            backoff_first: 5 * MINUTE,
            backoff_max: 30 * MINUTE,
            backoff_reset: 180 * MINUTE,
            at_minimum: false,
        }
    }
}

/// A group that has failed.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    until: u64,
    length: u64,
    failed: u64,
}

/// What is on its way in one group.
struct Attempt {
    pool: Offering,
    /// Those that it was made for.
    nodes: Vec<usize>,
    noticed_at: u64,
}

pub fn run(market: &Market, timers: &Timers) -> Provided {
    let mut market = market.clone();
    let wanted: Vec<u64> = market.demands.iter().flat_map(|(at, count)| vec![*at; *count]).collect();
    let Some(begins) = wanted.iter().copied().min() else { return Provided::default() };
    let mut provided =
        Provided { ready_ms: vec![None; wanted.len()], lasted_ms: market.ends_ms - begins, ..Provided::default() };
    let mut backoffs: BTreeMap<Offering, Backoff> = BTreeMap::new();
    let mut asked_at: BTreeMap<Offering, u64> = BTreeMap::new();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut waiting: Vec<usize> = Vec::new();
    let mut next = 0;
    // A change is noticed by the next scan, half an interval later on average.
    let step = (timers.scan / 2).max(1);
    let mut now = begins + step;
    while now <= market.ends_ms {
        while next < wanted.len() && wanted[next] + step <= now {
            waiting.push(next);
            next += 1;
        }
        let (failed, going): (Vec<_>, Vec<_>) = attempts.into_iter().partition(|attempt| attempt.noticed_at <= now);
        attempts = going;
        for attempt in failed {
            back_off(&mut backoffs, attempt.pool, now, timers);
            if !timers.at_minimum {
                waiting.extend(attempt.nodes);
            }
        }
        waiting.sort_unstable();
        if !waiting.is_empty()
            && let Some(pool) = choice(&market, &backoffs, &asked_at, now)
        {
            asked_at.insert(pool.clone(), now);
            provided.calls += 1;
            if pool.capacity_type == CapacityType::OnDemand {
                provided.on_demand_ms.get_or_insert(now - begins);
            }
            let asked = std::mem::take(&mut waiting);
            let nodes = fill(&mut market, &pool, asked, (now, timers.noticed), &wanted, &mut provided);
            if !nodes.is_empty() {
                attempts.push(Attempt { pool, nodes, noticed_at: now + timers.noticed });
            }
        }
        let noticed = attempts.iter().map(|attempt| attempt.noticed_at + step).filter(|at| *at > now);
        let arrives = wanted.get(next).map(|at| at + step).filter(|at| *at > now);
        let free = backoffs.values().map(|backoff| backoff.until).filter(|at| *at > now && !waiting.is_empty());
        let Some(then) = noticed.chain(arrives).chain(free).min() else { break };
        now = then;
    }
    provided
}

/// The group asks its pool until the attempt is noticed as failed; returns those that it got nothing for.
fn fill(
    market: &mut Market,
    pool: &Offering,
    nodes: Vec<usize>,
    (now, noticed): (u64, u64),
    wanted: &[u64],
    provided: &mut Provided,
) -> Vec<usize> {
    let mut left = Vec::new();
    for node in nodes {
        match market.first_room(pool, now, now + noticed) {
            Some(at) if market.take(pool, at) => {
                let ready = at + market.boot_ms;
                provided.ready_ms[node] = (ready <= market.ends_ms).then(|| ready - wanted[node]);
            }
            _ => left.push(node),
        }
    }
    left
}

/// The group of the highest priority that is not backed off; of several the one that was not asked for longest.
fn choice(
    market: &Market,
    backoffs: &BTreeMap<Offering, Backoff>,
    asked_at: &BTreeMap<Offering, u64>,
    now: u64,
) -> Option<Offering> {
    let open = market.pools.iter().filter(|pool| may_ask(backoffs, pool, now));
    open.min_by_key(|pool| (pool.capacity_type == CapacityType::OnDemand, asked_at.get(*pool))).cloned()
}

fn may_ask(backoffs: &BTreeMap<Offering, Backoff>, pool: &Offering, now: u64) -> bool {
    backoffs.get(pool).is_none_or(|backoff| backoff.until <= now)
}

fn back_off(backoffs: &mut BTreeMap<Offering, Backoff>, pool: Offering, now: u64, timers: &Timers) {
    let length = match backoffs.get(&pool) {
        Some(before) if now < before.failed + timers.backoff_reset => (before.length * 2).min(timers.backoff_max),
        _ => timers.backoff_first,
    };
    backoffs.insert(pool, Backoff { until: now + length, length, failed: now });
}
