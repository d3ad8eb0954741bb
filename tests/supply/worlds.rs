//! A world that is run, and judged.

use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::Supply;

/// In milliseconds.
pub const MINUTE: u64 = 60_000;

/// Runs it; nothing may be found.
#[track_caller]
pub fn holds(supply: Supply) -> Report {
    let report = supply.run();
    assert!(report.findings.is_empty(), "{}", report.told());
    report
}
