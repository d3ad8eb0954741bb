//! Drawn systems.

use spotkeeper::sim::system::{Outcome, judge, run};

use crate::drawn::{each, number};

const SEEDS: u64 = 300;

/// What happened in all of them.
#[derive(Debug, Default)]
struct Sum {
    events: u64,
    claims: u64,
    ready: u64,
    stopped: u64,
    killed: u64,
    cut_short: u64,
    on_demand_calls: u64,
    ended: u64,
    longest_gap_ms: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.events += outcome.work.events;
        self.claims += outcome.capacity.claims as u64;
        self.ready += outcome.capacity.ready as u64;
        self.stopped += outcome.pods.stopped;
        self.killed += outcome.pods.killed;
        self.cut_short += outcome.pods.cut_short;
        self.on_demand_calls += outcome.calls.on_demand;
        self.ended += outcome.calls.instances_ended;
        let gap = outcome.workloads.iter().map(|one| one.longest_gap_ms).max().unwrap_or(0);
        self.longest_gap_ms = self.longest_gap_ms.max(gap);
    }
}

/// Judges seeds `0..seeds`; returns the first finding of those that failed, by seed, and the sum.
fn judge_all(seeds: u64) -> (Vec<(u64, String)>, Sum) {
    let (mut failed, mut sum) = (Vec::new(), Sum::default());
    let judged = |seed| {
        let mut outcome = judge(seed).outcome;
        outcome.timelines = Default::default();
        outcome.decisions.clear();
        (seed, outcome)
    };
    each(seeds, judged, |(seed, outcome)| {
        sum.add(&outcome);
        if let Some(first) = outcome.findings.first() {
            let at = first.at_ms as f64 / 1e3;
            failed.push((seed, format!("{at:.3} s {} {}: {}", first.node, first.code, first.what)));
        }
    });
    failed.sort();
    (failed, sum)
}

#[test]
fn the_invariants_hold_in_every_system() {
    if let Some(seed) = number("SPOTKEEPER_SYSTEM_SEED") {
        let report = run(seed);
        println!("{}", report.told());
        assert_eq!(report.outcome.findings, [], "seed {seed}");
        return;
    }
    let seeds = number("SPOTKEEPER_SYSTEM_SEEDS").unwrap_or(SEEDS);
    let (failed, sum) = judge_all(seeds);
    println!("{seeds} seeds: {sum:?}");
    if let Some((first, _)) = failed.first() {
        failed.iter().take(40).for_each(|(seed, what)| println!("seed {seed}: {what}"));
        panic!(
            "{} of {seeds} seeds failed, the first is {first}. Replay it with:\n    \
             SPOTKEEPER_SYSTEM_SEED={first} cargo test --test system the_invariants -- --nocapture",
            failed.len(),
        );
    }
    // A system in which nothing happens proves nothing.
    for (what, count) in [
        ("claims", sum.claims),
        ("nodes ready", sum.ready),
        ("pods stopped", sum.stopped),
        ("pods killed", sum.killed),
        ("pods cut short", sum.cut_short),
        ("on-demand calls", sum.on_demand_calls),
    ] {
        assert!(count * 100 >= seeds, "only {count} times in {seeds} seeds: {what}");
    }
}

#[test]
fn the_same_seed_tells_the_same_story_to_the_byte() {
    for seed in 0..20 {
        let (first, second) = (run(seed), run(seed));
        assert!(!first.story.is_empty());
        assert_eq!(first.told(), second.told());
        assert_eq!(first.outcome, judge(seed).outcome, "telling changes nothing");
    }
}
