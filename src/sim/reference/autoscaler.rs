//! A model of Cluster Autoscaler on AWS with a priority expander: one group of capacity for each pool.
//!
//! Sources: its FAQ and flags (`--scan-interval` 10 s, `--max-node-provision-time` 15 min,
//! `--initial-node-group-backoff-duration` 5 min, `--max-node-group-backoff-duration` 30 min,
//! `--node-group-backoff-reset-timeout` 3 h), and the priority expander's rule: a group of the highest priority that
//! is not backed off, at random where there are several. All spot groups have one priority here, and are taken in turn
//! where the real one throws dice.
//!
//! By default each pool has a group of its own; where there are fewer ([`Timers::groups`]), the spot pools are dealt out to
//! them in the order of their prices, on-demand has one, and a group takes whichever of its pools has room.
//!
//! Every scan with pods that wait asks the first group that may be asked for as many nodes as are missing, in one call.
//! The group's own reconciliation keeps trying its pool while the attempt lasts. After `noticed` it counts as failed, and
//! the group is backed off, for twice as long each time.
//!
//! Left out: scale-down, balancing of similar groups, spot and on-demand within one group, the other expanders, and the time
//! that its simulation of the scheduler takes.

use std::collections::BTreeMap;

use super::{About, Market, Provided, Wanted};
use crate::domain::offering::{CapacityType, Offering};

const MINUTE: u64 = 60_000;

pub const ABOUT: About = About {
    sources: "its FAQ and flags: a scan every 10 s, a failed attempt noticed after 15 min and a scan, a back-off of 5 to \
        30 min, a priority expander with spot before on-demand",
    leaves_out: "scale-down, balancing of similar groups, spot and on-demand within one group, its scheduler's time",
};

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
    /// Over how many groups the spot pools are spread; `None`: each has one of its own, and so has each of on-demand.
    pub groups: Option<usize>,
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
            groups: None,
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
    group: usize,
    /// Those that it was made for.
    nodes: Vec<usize>,
    noticed_at: u64,
}

/// An Auto Scaling group.
struct Group {
    on_demand: bool,
    /// The cheapest first.
    pools: Vec<Offering>,
}

fn groups(market: &Market, timers: &Timers) -> Vec<Group> {
    let of =
        |on_demand: bool| market.pools.iter().filter(move |p| (p.capacity_type == CapacityType::OnDemand) == on_demand);
    let (spot, on_demand): (Vec<&Offering>, Vec<&Offering>) = (of(false).collect(), of(true).collect());
    let mut groups = Vec::new();
    for (is_on_demand, pools, most) in [(false, spot, timers.groups), (true, on_demand, timers.groups.map(|_| 1))] {
        let count = most.unwrap_or(pools.len()).clamp(1, pools.len().max(1));
        let dealt = |nth: usize| pools.iter().skip(nth).step_by(count).map(|pool| (*pool).clone()).collect();
        groups.extend((0..count).map(|nth| Group { on_demand: is_on_demand, pools: dealt(nth) }));
    }
    groups
}

pub fn run(market: &Market, timers: &Timers) -> Provided {
    let mut market = market.clone();
    let mut provided = Provided::in_market(&market);
    let Some(begins) = market.wanted.first().map(|wanted| wanted.at) else { return provided };
    let groups = groups(&market, timers);
    let mut backoffs: BTreeMap<usize, Backoff> = BTreeMap::new();
    let mut asked_at: BTreeMap<usize, u64> = BTreeMap::new();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut waiting: Vec<usize> = Vec::new();
    let mut next = 0;
    // A change is noticed by the next scan, half an interval later on average.
    let step = (timers.scan / 2).max(1);
    let mut now = begins + step;
    while now <= market.ends_ms {
        while next < market.wanted.len() && market.wanted[next].at + step <= now {
            waiting.push(next);
            next += 1;
        }
        let (failed, going): (Vec<_>, Vec<_>) = attempts.into_iter().partition(|attempt| attempt.noticed_at <= now);
        attempts = going;
        for attempt in failed {
            back_off(&mut backoffs, attempt.group, now, timers);
            if !timers.at_minimum {
                waiting.extend(attempt.nodes);
            }
        }
        waiting.sort_unstable();
        let wanted: Vec<&Wanted> = waiting.iter().map(|node| &market.wanted[*node]).collect();
        let chosen = choice(&groups, &wanted, &backoffs, &asked_at, now);
        if let Some(chosen) = chosen {
            let group = &groups[chosen];
            asked_at.insert(chosen, now);
            provided.calls += 1;
            if group.on_demand {
                provided.on_demand_ms.get_or_insert(now - begins);
            }
            let (asked, others): (Vec<usize>, Vec<usize>) =
                waiting.into_iter().partition(|node| group.serves(&market.wanted[*node]));
            waiting = others;
            let nodes = fill(&mut market, group, asked, (now, timers.noticed), &mut provided);
            if !nodes.is_empty() {
                attempts.push(Attempt { group: chosen, nodes, noticed_at: now + timers.noticed });
            }
        }
        // One group is asked in a scan.
        let more = (chosen.is_some() && !waiting.is_empty()).then_some(now + timers.scan.max(1));
        let noticed = attempts.iter().map(|attempt| attempt.noticed_at + step).filter(|at| *at > now);
        let arrives = market.wanted.get(next).map(|wanted| wanted.at + step).filter(|at| *at > now);
        let free = backoffs.values().map(|backoff| backoff.until).filter(|at| *at > now && !waiting.is_empty());
        let Some(then) = noticed.chain(arrives).chain(free).chain(more).min() else { break };
        now = then;
    }
    provided
}

impl Group {
    /// Whether one of its pools will do.
    fn serves(&self, wanted: &Wanted) -> bool {
        self.pools.iter().any(|pool| wanted.fits(pool))
    }
}

/// The group asks its pools until the attempt is noticed as failed; returns those that it got nothing for.
fn fill(
    market: &mut Market,
    group: &Group,
    nodes: Vec<usize>,
    (now, noticed): (u64, u64),
    provided: &mut Provided,
) -> Vec<usize> {
    let mut left = Vec::new();
    for node in nodes {
        let fitting = group.pools.iter().filter(|pool| market.wanted[node].fits(pool));
        let first = fitting.filter_map(|pool| Some((market.first_room(pool, now, now + noticed)?, pool)));
        match first.min_by_key(|(at, _)| *at) {
            Some((at, pool)) if market.take(pool, at) => provided.serve(market, node, at, pool),
            _ => left.push(node),
        }
    }
    left
}

/// The group of the highest priority that is not backed off and serves one of those that wait; of several the one that was
/// not asked for longest.
fn choice(
    groups: &[Group],
    waiting: &[&Wanted],
    backoffs: &BTreeMap<usize, Backoff>,
    asked_at: &BTreeMap<usize, u64>,
    now: u64,
) -> Option<usize> {
    let may_ask = |group: &usize| backoffs.get(group).is_none_or(|backoff| backoff.until <= now);
    let serves = |group: &usize| waiting.iter().any(|wanted| groups[*group].serves(wanted));
    let open = (0..groups.len()).filter(|group| may_ask(group) && serves(group));
    open.min_by_key(|group| (groups[*group].on_demand, asked_at.get(group).copied()))
}

fn back_off(backoffs: &mut BTreeMap<usize, Backoff>, group: usize, now: u64, timers: &Timers) {
    let length = match backoffs.get(&group) {
        Some(before) if now < before.failed + timers.backoff_reset => (before.length * 2).min(timers.backoff_max),
        _ => timers.backoff_first,
    };
    backoffs.insert(group, Backoff { until: now + length, length, failed: now });
}
