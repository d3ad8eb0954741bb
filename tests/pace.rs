//! `make pace`, the part of `make bench` that needs no lab: how fast the simulators are, and what they take.
//!
//! Prints a table, in which what misses its target is marked.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spotkeeper::sim;

/// What one rehearsal took.
struct Run {
    time: Duration,
    peak_kib: u64,
}

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(5);

fn rehearse(args: &[&str]) -> Run {
    let begun = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
    let mut child = command.arg("rehearse").args(args).stdout(Stdio::null()).spawn().expect("the binary is built");
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    loop {
        // The peak of a process is kept by the kernel for as long as it lives.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0));
        if let Some(code) = child.try_wait().expect("it can be waited for") {
            assert!(code.success(), "{args:?} ended with {code}");
            return Run { time: begun.elapsed(), peak_kib };
        }
        std::thread::sleep(LOOK);
    }
}

/// Judges seeds on one processor for a few seconds. Returns how many in a second.
fn seeds_a_second(mut judge: impl FnMut(u64)) -> f64 {
    let begun = Instant::now();
    let mut seeds = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        judge(seeds);
        seeds += 1;
    }
    seeds as f64 / begun.elapsed().as_secs_f64()
}

fn row(what: &str, value: f64, unit: &str, most: Option<f64>) {
    let missed = most.is_some_and(|most| value > most);
    let target = most.map(|most| format!("  (target: under {most} {unit}{})", if missed { ", missed" } else { "" }));
    println!("  {what:<58} {value:>10.1} {unit}{}", target.unwrap_or_default());
}

/// So many nodes and next to no pods: what is left of the memory of pods.
fn nodes_alone(count: usize) -> Run {
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml").expect("a file");
    let text = format!("description: nodes\nduration: 1m\nnodes:\n  - {{count: {count}}}\n");
    file.write_all(text.as_bytes()).expect("it can be written");
    rehearse(&[&file.path().to_string_lossy(), "--output", "json"])
}

fn main() {
    println!(
        "\nSimulator, {}",
        if cfg!(debug_assertions) { "debug build: no figures to keep" } else { "release build" }
    );
    row("agents alone", seeds_a_second(|seed| drop(sim::judge(seed))), "seeds/s", None);
    row("replacement capacity alone", seeds_a_second(|seed| drop(sim::supply::judge(seed))), "seeds/s", None);
    row("the whole system", seeds_a_second(|seed| drop(sim::system::judge(seed))), "seeds/s", None);
    let seeds = 200.0;
    let storm = rehearse(&["zone-storm", "--seeds", "200"]);
    let secs = storm.time.as_secs_f64();
    row("zone-storm (18 nodes, 70 min), all processors", seeds / secs, "seeds/s", None);
    row("the same", seeds * 18.0 * 70.0 / 60.0 / secs, "node-hours/s", None);
    let thousand = rehearse(&["thousand-nodes", "--output", "json"]);
    row("a zone of 1,000 nodes is taken", thousand.time.as_secs_f64(), "s", Some(2.0));
    let many = rehearse(&["thousand-nodes", "--times", "10", "--output", "json"]);
    row("a zone of 10,000 nodes is taken", many.time.as_secs_f64(), "s", Some(30.0));
    row("the same", 10_000.0 * 0.5 / many.time.as_secs_f64(), "node-hours/s", None);
    let (few, more) = (nodes_alone(2_000), nodes_alone(10_000));
    let node = more.peak_kib.saturating_sub(few.peak_kib) as f64 / 8_000.0;
    row("memory of a node", node, "KiB", None);
    let both = many.peak_kib.saturating_sub(thousand.peak_kib) as f64 / 9_000.0;
    row("memory of a node with ten pods, a third of them moved", both, "KiB", None);
    row("peak memory of 1,000 nodes and 10,000 pods", thousand.peak_kib as f64 / 1_024.0, "MiB", None);
    row("peak memory of 10,000 nodes and 100,000 pods", many.peak_kib as f64 / 1_024.0, "MiB", None);
}
