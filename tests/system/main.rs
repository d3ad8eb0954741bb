//! The whole system in virtual time: drawn ones judged by the invariants, and what must be survived, by name.
//!
//! `SPOTKEEPER_SYSTEM_SEEDS` sets how many systems are drawn; `SPOTKEEPER_SYSTEM_SEED` runs one and tells its story.

mod drain_start;
#[path = "../support/seeds.rs"]
mod drawn;
mod loops;
mod pools;
mod seeds;
mod speed;
mod storms;
mod witness;

use spotkeeper::sim::system::{Outcome, Report, Scenario};

const MINUTE: u64 = 60_000;

/// Runs it; nothing may be found. What a person would ask for is printed.
#[track_caller]
fn holds(scenario: Scenario) -> Report {
    let report = scenario.run();
    assert!(report.outcome.findings.is_empty(), "{}", report.told());
    println!("{}", figures(&report.outcome));
    report
}

fn figures(outcome: &Outcome) -> String {
    let Outcome { scenario, capacity, pods, calls, .. } = outcome;
    let secs = |ms: Option<u64>| ms.map_or("-".into(), |ms| format!("{:.1} s", ms as f64 / 1_000.0));
    format!(
        "{scenario}: {} of {} nodes replaced, Ready after {} (p50), {} (p99), {} (longest); {} pod-seconds unavailable, \
         {} pods killed, {} launch calls",
        capacity.ready,
        capacity.claims,
        secs(capacity.p50_ms),
        secs(capacity.p99_ms),
        secs(capacity.max_ms),
        pods.unavailable_pod_ms / 1_000,
        pods.killed,
        calls.spot + calls.on_demand + calls.reserved,
    )
}
