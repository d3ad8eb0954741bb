//! Thousands of drawn worlds, each judged by the invariants.
//!
//! `SPOTKEEPER_SIM_SEEDS` sets how many; `SPOTKEEPER_SIM_SEED` runs one and tells its story.

#[path = "support/seeds.rs"]
mod seeds;

use seeds::{each, number};
use spotkeeper::sim::{Figures, Report, judge, run};

const SEEDS: u64 = 5_000;

/// Judges seeds `0..seeds`; returns what failed, by seed, and the sum of the figures.
fn judge_all(seeds: u64) -> (Vec<Report>, Figures) {
    let (mut failed, mut sum) = (Vec::new(), Figures::default());
    each(seeds, judge, |report| {
        sum = sum.plus(&report.figures);
        if !report.findings.is_empty() {
            failed.push(report);
        }
    });
    failed.sort_by_key(|report: &Report| report.seed);
    (failed, sum)
}

#[test]
fn the_invariants_hold_in_every_world() {
    if let Some(seed) = number("SPOTKEEPER_SIM_SEED") {
        let report = run(seed);
        println!("{}", report.told());
        assert_eq!(report.findings, [], "seed {seed}");
        return;
    }
    let seeds = number("SPOTKEEPER_SIM_SEEDS").unwrap_or(SEEDS);
    let (failed, figures) = judge_all(seeds);
    println!("{seeds} seeds: {figures:?}");
    if let Some(first) = failed.first() {
        for report in failed.iter().skip(1).take(40) {
            println!("seed {}: {}", report.seed, report.findings[0]);
        }
        println!("{}", run(first.seed).told());
        panic!(
            "{} of {seeds} seeds failed, the first is {seed}. Replay it with:\n    \
             SPOTKEEPER_SIM_SEED={seed} cargo test --test sim the_invariants -- --nocapture",
            failed.len(),
            seed = first.seed
        );
    }
    // A world in which nothing happens proves nothing.
    for (what, count) in [
        ("asks", figures.asks),
        ("pods out", figures.pods_out),
        ("kills", figures.kills),
        ("drained", figures.drained),
        ("cancelled", figures.cancelled),
        ("refuted", figures.refuted),
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
        assert_eq!(first.figures, judge(seed).figures, "telling changes nothing");
    }
}
