//! Seeds that once found a fault, named after it.

use spotkeeper::sim::run;

#[track_caller]
fn holds(seed: u64) {
    let report = run(seed);
    assert!(report.findings.is_empty(), "{}", report.told());
}
