//! Capacity reservations: EC2 fills a call beyond what they hold with plain on-demand instances, and does not say so.

use spotkeeper::api::node_pool::NodePoolSpec;
use spotkeeper::domain::offering::CapacityType::{OnDemand, Reserved, Spot};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster, a_pool};

use super::worlds::{MINUTE, holds};

/// What is reserved first, then spot, then on-demand.
fn a_reserving_pool() -> NodePoolSpec {
    let mut pool = a_pool();
    pool.fallback.get_or_insert_default().order = Some(vec![Reserved, Spot, OnDemand]);
    pool
}

/// So many nodes of such a pool, and reservations that hold so many.
fn reserving(nodes: usize, reserved: u32) -> Supply {
    let mut supply = a_cluster(nodes).of("general", a_reserving_pool());
    supply.reserved = reserved;
    supply
}

/// How many claims came to be reserved, spot and on-demand.
fn came(report: &Report) -> [usize; 3] {
    [Reserved, Spot, OnDemand].map(|of| report.claims.values().filter(|claim| claim.capacity == Some(of)).count())
}

fn used_up() -> Step {
    Step::Left { capacity: Reserved, zone: None, left: Some(0) }
}

#[test]
fn of_fifty_claims_only_one_asks_for_the_one_that_is_reserved() {
    let report = holds(reserving(50, 1).at(5_000, Step::DoomMany { from: 0, count: 50 }));
    assert_eq!(came(&report), [1, 49, 0], "{}", report.told());
    assert_eq!(report.figures.calls_of[2], 1, "{}", report.told());
}

#[test]
fn what_was_asked_for_since_the_reservations_were_read_is_not_asked_for_again() {
    // They are read every thirty seconds.
    let supply = reserving(4, 2).at(5_000, Step::Doom { node: 0 }).at(10_000, Step::Doom { node: 1 });
    let report = holds(supply.at(15_000, Step::Doom { node: 2 }).at(20_000, Step::Doom { node: 3 }));
    assert_eq!(came(&report), [2, 2, 0], "{}", report.told());
}

#[test]
fn what_another_has_used_up_meanwhile_is_known_as_on_demand_and_returns_to_spot() {
    let report = holds(reserving(1, 1).at(1_000, used_up()).at(5_000, Step::Doom { node: 0 }).until(120 * MINUTE));
    assert!(report.says("runs in no capacity reservation"), "{}", report.told());
    assert_eq!(came(&report), [0, 0, 1], "{}", report.told());
    assert_eq!(report.figures.returned, 1, "{}", report.told());
}

#[test]
fn what_another_has_used_up_meanwhile_counts_against_the_cap_on_cost_at_once() {
    let mut supply = a_cluster(5).of("general", a_reserving_pool().cost_max("0.95"));
    supply.reserved = 3;
    let dry = Step::Left { capacity: Spot, zone: None, left: Some(0) };
    let supply = supply.at(1_000, used_up()).at(1_000, dry).at(5_000, Step::DoomMany { from: 0, count: 5 });
    let report = holds(supply.until(20 * MINUTE));
    assert_eq!((came(&report), report.figures.calls_of[1]), ([0, 0, 3], 0), "{}", report.told());
}

#[test]
fn an_on_demand_node_that_runs_in_an_open_reservation_is_known_as_reserved_and_stays() {
    let mut supply = a_cluster(1).at(1_000, Step::Left { capacity: Spot, zone: None, left: Some(0) });
    (supply.reserved, supply.types, supply.zones) = (1, 1, 1);
    let back = Step::Left { capacity: Spot, zone: None, left: None };
    let report = holds(supply.at(5_000, Step::Doom { node: 0 }).at(5 * MINUTE, back).until(120 * MINUTE));
    assert!(report.says("runs in a capacity reservation"), "{}", report.told());
    assert_eq!((came(&report), report.figures.returns), ([1, 0, 0], 0), "{}", report.told());
}
