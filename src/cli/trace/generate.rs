//! Draws a trace: good spells and outages of each pool in turn, as long as published measurements have them.
//!
//! The measurements (public traces of 2023, over several providers' regions): 85 to 92 of a hundred outages outlast three
//! minutes, their median is 9 to 23 minutes and their 90th of a hundred 53 to 140; a quarter of the good spells ends
//! within six to ten minutes. Logarithms of both are drawn from a normal distribution, which lies within all of that.
//!
//! Pools are independent of each other: what was measured of interruptions that come together is about one type in one zone,
//! and that is for who takes a dry pool's instances to keep.

use std::collections::BTreeSet;
use std::f64::consts::TAU;
use std::fmt::Write;

use super::Pool;

/// The shape of a kind of spell: the median in seconds, and the deviation of its logarithm.
struct Spell {
    median_secs: f64,
    deviation: f64,
}

/// Nine of ten are over within 85 minutes, one of eight within three.
const OUTAGE: Spell = Spell { median_secs: 15.0 * 60.0, deviation: 1.354 };

/// A quarter is over within eight minutes; half last longer than an hour, and some for days.
const GOOD: Spell = Spell { median_secs: 64.0 * 60.0, deviation: 3.083 };

/// No spell is shorter.
const SHORTEST_SECS: f64 = 10.0;

/// The longest, whatever is drawn: a week.
const LONGEST_SECS: f64 = 7.0 * 86_400.0;

/// How many pools one table may have.
const POOLS_MAX: usize = 2_000;

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub seed: u64,
    pub pools: Vec<Pool>,
    pub hours: u32,
}

impl Wanted {
    pub fn check(&self) -> Result<(), String> {
        let unique: BTreeSet<&Pool> = self.pools.iter().collect();
        match () {
            () if self.pools.is_empty() || self.pools.len() > POOLS_MAX => Err(format!("1 to {POOLS_MAX} pools")),
            () if unique.len() < self.pools.len() => Err("a pool is there twice".into()),
            () => Ok(()),
        }
    }
}

impl Spell {
    fn draw(&self, rng: &mut fastrand::Rng) -> u64 {
        // Never zero, whose logarithm is without end.
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos();
        let secs = self.median_secs * (self.deviation * normal).exp();
        secs.clamp(SHORTEST_SECS, LONGEST_SECS).round() as u64
    }
}

/// When a pool has capacity, in seconds: from, until.
fn spans(rng: &mut fastrand::Rng, ends: u64) -> Vec<(u64, u64)> {
    let mut spans = Vec::new();
    // All have capacity at first: what runs in them when the world begins has come from somewhere.
    let mut at = 0;
    while at < ends {
        let until = (at + GOOD.draw(rng)).min(ends);
        spans.push((at, until));
        at = until + OUTAGE.draw(rng);
    }
    spans
}

/// Draws a table.
pub fn generate(wanted: &Wanted) -> String {
    let ends = u64::from(wanted.hours) * 3_600;
    let mut text = format!(
        "# Drawn: spotkeeper trace generate --seed {} --hours {} --pools {}\n",
        wanted.seed,
        wanted.hours,
        wanted.pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    );
    text.push_str("# Not a recording: spell lengths as published measurements have them (docs/traces.md).\n");
    text.push_str("instance_type,zone,from,until\n");
    for (index, pool) in wanted.pools.iter().enumerate() {
        // A pool's own chance: one pool more changes nothing for the others.
        let seed = wanted.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index as u64);
        for (from, until) in spans(&mut fastrand::Rng::with_seed(seed), ends) {
            let Pool { instance_type, zone } = pool;
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{instance_type},{zone},{from}s,{until}s");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::trace::table;

    fn wanted(seed: u64, pools: usize, hours: u32) -> Wanted {
        let pool = |n| format!("t{n}.large@a").parse().unwrap();
        Wanted { seed, pools: (0..pools).map(pool).collect(), hours }
    }

    /// The value below which `part` of a hundred are.
    fn at(sorted: &[u64], part: usize) -> f64 {
        sorted[sorted.len() * part / 100] as f64 / 60_000.0
    }

    #[test]
    fn what_is_drawn_has_the_statistics_that_were_published() {
        for seed in [1, 2, 3] {
            let table = table::read(&generate(&wanted(seed, 400, 30 * 24))).expect("it can be read");
            let (mut outages, mut good) = (Vec::new(), Vec::new());
            for points in table.pools.values() {
                for two in points.windows(2) {
                    let spells = if two[0].1 == Some(0) { &mut outages } else { &mut good };
                    spells.push(two[1].0 - two[0].0);
                }
            }
            outages.sort_unstable();
            good.sort_unstable();
            assert!(outages.len() > 5_000 && good.len() > 5_000, "{} outages", outages.len());
            let outlast = outages.iter().filter(|ms| **ms > 180_000).count() as f64 / outages.len() as f64;
            assert!((0.85..=0.92).contains(&outlast), "{outlast} of the outages outlast three minutes");
            let (median, most) = (at(&outages, 50), at(&outages, 90));
            assert!((9.0..=23.0).contains(&median), "the median of outages is {median} minutes");
            assert!((53.0..=140.0).contains(&most), "the 90th of a hundred outages is {most} minutes");
            let quarter = at(&good, 25);
            assert!((6.0..=10.0).contains(&quarter), "a quarter of the good spells ends within {quarter} minutes");
        }
    }

    #[test]
    fn the_same_is_drawn_again_and_a_pool_more_changes_nothing_for_the_others() {
        let of = |pools| generate(&wanted(7, pools, 48)).lines().skip(3).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of(3), of(3));
        assert!(of(4).starts_with(&of(3)) && of(4).len() > of(3).len());
        assert_ne!(generate(&wanted(8, 3, 48)), generate(&wanted(7, 3, 48)));
        let table = table::read(&generate(&wanted(7, 3, 48))).expect("it can be read");
        assert!(table.pools.values().all(|points| points[0] == (0, None)), "all have capacity at first");
    }

    #[test]
    fn no_pool_twice_and_not_too_many() {
        assert!(wanted(0, 3, 1).check().is_ok());
        assert!(wanted(0, POOLS_MAX + 1, 1).check().is_err());
        let twice = wanted(0, 1, 1).pools[0].clone();
        assert!(Wanted { pools: vec![twice.clone(), twice], ..wanted(0, 1, 1) }.check().is_err());
        assert!("m7g.large".parse::<Pool>().is_err() && "a,b@c".parse::<Pool>().is_err());
    }
}
