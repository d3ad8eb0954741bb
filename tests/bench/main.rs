//! `make bench`: what agent and provisioner take and how fast they are, on a real control plane of this machine.
//!
//! `cargo test --test bench -- reaction footprint storm requests supply compare` measures only what is named. The programs measured
//! are the binaries that `SPOTKEEPER_AGENT` and `SPOTKEEPER_PROVISIONER` name. The figures are printed, and written as JSON to
//! `SPOTKEEPER_BENCH_JSON`, or else to `bench.json` in Cargo's target folder.

mod compare;
mod fleet;
mod footprint;
mod machine;
mod reaction;
mod report;
mod requests;
mod sights;
mod storm;
mod supply;

#[path = "../support/lab.rs"]
mod support;

use std::process::ExitCode;

use self::report::Report;

const MEASURES: [&str; 6] = ["reaction", "footprint", "storm", "requests", "supply", "compare"];

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|name| !MEASURES.contains(&name.as_str())) {
        eprintln!("`{unknown}` is not measured; there are: {}", MEASURES.join(", "));
        return ExitCode::from(64);
    }
    tokio::select! {
        () = measure(&wanted) => ExitCode::SUCCESS,
        // Leaving by the front door lets the lab clean up.
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}

async fn measure(wanted: &[String]) {
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let mut report = Report::new();
    if wants("reaction") {
        reaction::measure(&mut report, 30, 50, 10).await;
        reaction::measure(&mut report, 110, 50, 5).await;
    }
    if wants("footprint") {
        footprint::measure(&mut report).await;
    }
    if wants("storm") {
        storm::measure(&mut report).await;
    }
    if wants("requests") {
        requests::measure(&mut report).await;
    }
    if wants("supply") {
        supply::measure(&mut report).await;
    }
    if wants("compare") {
        compare::measure(&mut report).await;
    }
    report.end();
}
