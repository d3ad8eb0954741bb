//! How fast a system is simulated: `cargo test --release --no-default-features --features sim --test system speed --
//! --nocapture` prints it for release builds, which the targets are about.

use std::time::Instant;

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::system::scenario::{Pools, Scenario, a_cluster, a_deployment};

/// One of three zones is taken from so many nodes.
fn zone_storm(nodes: usize) -> Scenario {
    let scenario = a_cluster(nodes - 2).named("zone-storm").nodes(2, OnDemand, None);
    let scenario = scenario.workload(a_deployment("shop/web", 5 * nodes as u32).budget(nodes as u32));
    scenario.trace(&Pools::of(Spot).in_zone("eu-west-1a"), 100, &[(10_000, Some(0))]).until(6 * 60_000)
}

#[test]
fn speed_of_a_zone_storm() {
    let sizes: &[usize] = if cfg!(debug_assertions) { &[60] } else { &[1_000, 3_000, 10_000] };
    for nodes in sizes {
        let begun = Instant::now();
        let outcome = zone_storm(*nodes).judge().outcome;
        let took = begun.elapsed();
        assert_eq!(outcome.findings, []);
        assert_eq!(outcome.capacity.claims, outcome.capacity.ready);
        println!(
            "{nodes} nodes, {} of them replaced: {:.2} s, {} events, {:.0} simulated node-hours a second",
            outcome.capacity.ready,
            took.as_secs_f64(),
            outcome.work.events,
            *nodes as f64 * outcome.ends_ms as f64 / 3.6e6 / took.as_secs_f64(),
        );
    }
}
