//! Figures, as a table for people and as JSON for programs.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::machine;

/// All figures of one run.
pub struct Report {
    machine: Value,
    figures: Map<String, Value>,
    missed: Vec<String>,
}

/// Times of one thing, each from the same beginning.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The smallest time that a share of `q` does not exceed (nearest rank).
    pub fn quantile(&self, q: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl Report {
    pub fn new() -> Report {
        Report { machine: machine::describe(), figures: Map::new(), missed: Vec::new() }
    }

    pub fn heading(&mut self, text: &str) {
        println!("\n{text}");
    }

    /// p50, p99 and the largest of many times, in milliseconds. `target` is the most that a quantile may be.
    pub fn times(&mut self, key: &str, what: &str, times: &Times, target: Option<(f64, Duration)>) {
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| times.quantile(q).as_secs_f64() * 1e3);
        let verdict = target.map(|(q, most)| self.verdict(what, times.quantile(q) <= most && !times.0.is_empty()));
        println!(
            "  {what:<58} p50 {p50:>8.1}  p99 {p99:>8.1}  max {max:>8.1} ms  n {:>3}{}",
            times.0.len(),
            verdict.unwrap_or_default(),
        );
        let millis: Vec<f64> = times.0.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        self.put(key, json!({ "p50": p50, "p99": p99, "max": max, "n": millis.len(), "all": millis, "unit": "ms" }));
    }

    /// One figure; `target` is the most that it may be. `None` stands for what never came about.
    pub fn figure(&mut self, key: &str, what: &str, value: Option<f64>, unit: &str, target: Option<f64>) {
        let verdict = target.map(|most| self.verdict(what, value.is_some_and(|value| value <= most)));
        let text = value.map_or_else(|| "never".to_owned(), |value| format!("{value:.2}"));
        println!("  {what:<58} {text:>12} {unit}{}", verdict.unwrap_or_default());
        self.put(key, json!({ "value": value, "unit": unit }));
    }

    /// So many of so many; fewer than all of them is a miss.
    pub fn share(&mut self, key: &str, what: &str, part: usize, whole: usize) {
        let verdict = self.verdict(what, part == whole);
        println!("  {what:<58} {:>12}{verdict}", format!("{part} of {whole}"));
        self.put(key, json!({ "value": part, "of": whole }));
    }

    fn verdict(&mut self, what: &str, met: bool) -> &'static str {
        if met {
            return "  ok";
        }
        self.missed.push(what.to_owned());
        "  MISSED"
    }

    pub fn put(&mut self, key: &str, value: Value) {
        self.figures.insert(key.to_owned(), value);
    }

    /// Writes the JSON, and says which targets were missed.
    pub fn end(self) {
        let path = std::env::var_os("SPOTKEEPER_BENCH_JSON").map_or_else(machine::default_json, PathBuf::from);
        let all = json!({ "machine": self.machine, "figures": self.figures, "missed": self.missed });
        std::fs::write(&path, format!("{all:#}\n")).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("\n{}", path.display());
        if !self.missed.is_empty() {
            println!("missed: {}", self.missed.join("; "));
        }
    }
}
