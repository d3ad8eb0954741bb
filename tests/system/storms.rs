//! Interruptions of one node, of a zone, of everything; and spot that has run out.

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::system::scenario::{
    Pools, Scenario, Which, a_cluster, a_deployment, a_stateful_set, a_training_job,
};

use super::{MINUTE, holds};

fn the_shop(nodes: usize) -> Scenario {
    a_cluster(nodes).workload(a_deployment("shop/web", 4 * nodes as u32).budget(nodes as u32))
}

#[test]
fn one_node_is_drained_replaced_and_its_pods_run_again() {
    let scenario = the_shop(3).named("single-notice").interrupts(10_000, Which::Node(0));
    let report = holds(scenario.until(60 * MINUTE));
    let outcome = &report.outcome;
    assert_eq!((outcome.capacity.claims, outcome.capacity.ready), (1, 1), "{}", report.told());
    assert_eq!((outcome.pods.killed, outcome.pods.cut_short), (0, 0), "{}", report.told());
    assert_eq!(outcome.workload("shop/web").unwrap().available_at_end, 12);
    assert!(outcome.cost.spent < outcome.cost.all_on_demand * 6 / 10, "{:?}", outcome.cost);
}

#[test]
fn a_zone_that_is_taken_is_replaced_in_the_others() {
    let zone = "eu-west-1a";
    let scenario = the_shop(9).named("zone-storm").workload(a_training_job("ml/train", 6));
    let scenario = scenario.trace(&Pools::of(Spot).in_zone(zone), 100, &[(10_000, Some(0))]);
    let report = holds(scenario.until(70 * MINUTE));
    let outcome = &report.outcome;
    assert_eq!((outcome.capacity.claims, outcome.capacity.ready), (3, 3), "{}", report.told());
    assert_eq!(outcome.pods.killed, 0, "{}", report.told());
    let stand_ins = outcome.timelines.nodes.iter().filter(|node| node.stands_in);
    assert!(stand_ins.clone().count() == 3 && stand_ins.clone().all(|node| node.zone != zone), "{}", report.told());
}

#[test]
fn where_spot_has_run_out_everywhere_on_demand_stands_in() {
    let scenario = the_shop(6).named("spot-outage").workload(a_stateful_set("db/pg", 3).budget(1));
    let report = holds(scenario.trace(&Pools::of(Spot), 100, &[(10_000, Some(0))]).until(80 * MINUTE));
    let outcome = &report.outcome;
    assert_eq!(outcome.capacity.by_capacity_type, [(OnDemand, 6)].into(), "{}", report.told());
    let short = outcome.timelines.pools.iter().filter(|pool| pool.capacity_type == Spot);
    assert!(short.clone().all(|pool| pool.truth.len() == 2), "open, then short");
    assert!(short.clone().any(|pool| !pool.believed.is_empty()), "and the leader has learnt it");
}

#[test]
fn f12_provisioners_that_go_down_with_every_node_ask_before_and_after() {
    let scenario = the_shop(4).named("both-provisioners-doomed").interrupts(10_000, Which::All);
    let report = holds(scenario.until(60 * MINUTE));
    let outcome = &report.outcome;
    assert_eq!((outcome.capacity.claims, outcome.capacity.ready), (4, 4), "{}", report.told());
    let asked = outcome.claims.iter().filter_map(|claim| claim.asked_ms.values().min());
    assert!(asked.clone().count() == 4 && asked.clone().all(|at| *at < 60_000), "{}", report.told());
    assert_eq!(outcome.workload("spotkeeper/spotkeeper-provisioner").unwrap().available_at_end, 2);
}

#[test]
fn a_pod_whose_volume_keeps_it_in_its_zone_gets_a_node_there() {
    // Spot of the zone has run out, on-demand has not; other zones have both.
    let zone = "eu-west-1a";
    for seed in 0..8 {
        let scenario = the_shop(3).named("a-volume-in-its-zone").seed(seed).workload(a_stateful_set("db/pg", 3));
        let scenario = scenario.trace(&Pools::of(Spot).in_zone(zone), 100, &[(10_000, Some(0))]);
        let report = holds(scenario.until(60 * MINUTE));
        let outcome = &report.outcome;
        let stand_in = outcome.timelines.nodes.iter().find(|node| node.stands_in).expect("one");
        assert_eq!((stand_in.zone.as_str(), stand_in.capacity_type), (zone, OnDemand), "{}", report.told());
        assert_eq!(outcome.workload("db/pg").unwrap().available_at_end, 3, "{}", report.told());
    }
}

#[test]
fn a_stand_in_that_is_taken_is_replaced_where_its_pods_volumes_are() {
    let scenario = the_shop(3).named("a-stand-in-and-its-volumes").workload(a_stateful_set("db/pg", 3));
    let scenario = scenario.interrupts(10_000, Which::All).interrupts(6 * MINUTE, Which::StandIn);
    let report = holds(scenario.interrupts(9 * MINUTE, Which::StandIn).until(70 * MINUTE));
    assert!(report.outcome.capacity.claims >= 5, "{}", report.told());
    assert_eq!(report.outcome.workload("db/pg").unwrap().available_at_end, 3, "{}", report.told());
}

#[test]
fn what_keeps_a_pod_in_its_zone_is_known_to_a_provisioner_that_starts_after_it_was_evicted() {
    // The API server is away when the node is doomed, and so is whoever leads; the pods are evicted before anybody has
    // seen the record.
    assert_eq!(spotkeeper::sim::system::judge(184).outcome.findings, []);
}
