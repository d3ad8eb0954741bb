//! NodePools: which one serves, and what it allows.

use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster, a_pool};

const MINUTE: u64 = 60_000;

/// Runs it; nothing may be found.
#[track_caller]
fn holds(supply: Supply) -> Report {
    let report = supply.run();
    assert!(report.findings.is_empty(), "{}", report.told());
    report
}

#[test]
fn a_node_of_a_pool_is_replaced_by_one_of_its_class() {
    let report = holds(a_cluster(2).of("general", a_pool()).at(5_000, Step::Doom { node: 0 }));
    assert_eq!((report.figures.launched, report.figures.ready), (1, 1), "{}", report.told());
    assert_eq!(report.pool_of.values().collect::<Vec<_>>(), ["general"], "{}", report.told());
}

#[test]
fn while_its_class_cannot_be_launched_a_claim_waits_and_says_so() {
    let supply = a_cluster(1).of("general", a_pool()).at(1_000, Step::Class(Err("no subnet is tagged so")));
    let supply = supply.at(5_000, Step::Doom { node: 0 }).at(10 * MINUTE, Step::Class(Ok(())));
    let report = holds(supply);
    assert!(report.says("EC2NodeClass default: no subnet is tagged so"), "{}", report.told());
    let claim = report.claims.values().next().unwrap();
    assert!(claim.ready_ms.is_some_and(|at| at > 10 * MINUTE), "{}", report.told());
}
