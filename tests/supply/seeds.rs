//! Drawn worlds.

use spotkeeper::sim::supply::scenario::Supply;
use spotkeeper::sim::supply::{Figures, Report, judge, run};

use crate::drawn::{each, number};

const SEEDS: u64 = 2_000;

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

/// What the core does not look at again would have changed nothing: the whole story is the same, word for word.
#[test]
fn whoever_looks_at_everything_with_every_input_does_the_same() {
    let same = |seed: u64| {
        let thorough = Supply { thorough: true, ..Supply::from_seed(seed) }.run();
        let story = run(seed).story;
        let at = story.iter().zip(&thorough.story).position(|(quick, thorough)| quick != thorough);
        assert!(story.len() == thorough.story.len() && at.is_none(), "seed {seed}: {:?}", at.map(|at| &story[at]));
    };
    std::thread::scope(|scope| {
        for odd in [0, 1] {
            scope.spawn(move || (0..150).for_each(|seed| same(2 * seed + odd)));
        }
    });
}

#[test]
fn the_invariants_hold_in_every_world() {
    if let Some(seed) = number("SPOTKEEPER_SUPPLY_SEED") {
        let report = run(seed);
        println!("{}", report.told());
        assert_eq!(report.findings, [], "seed {seed}");
        return;
    }
    let seeds = number("SPOTKEEPER_SUPPLY_SEEDS").unwrap_or(SEEDS);
    let (failed, figures) = judge_all(seeds);
    println!("{seeds} seeds: {figures:?}");
    if let Some(first) = failed.first() {
        for report in failed.iter().skip(1).take(40) {
            println!("seed {}: {}", report.seed, report.findings[0]);
        }
        println!("{}", run(first.seed).told());
        panic!(
            "{} of {seeds} seeds failed, the first is {seed}. Replay it with:\n    \
             SPOTKEEPER_SUPPLY_SEED={seed} cargo test --test supply the_invariants -- --nocapture",
            failed.len(),
            seed = first.seed
        );
    }
    // A world in which nothing happens proves nothing.
    for (what, count) in [
        ("launched", figures.launched),
        ("ready", figures.ready),
        ("throttled", figures.throttled),
        ("unknown outcomes", figures.unknown),
        ("ended", figures.ended),
        ("on-demand calls", figures.calls_of[1]),
    ] {
        assert!(count * 100 >= seeds, "only {count} times in {seeds} seeds: {what}");
    }
    assert!(figures.takeovers > seeds, "leaders are replaced");
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
