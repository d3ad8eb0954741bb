//! NodePools and reservations in the whole system: what a pool says reaches the agents, the ladder and the scheduler.

use spotkeeper::api::node_pool::{Fallback, NodePoolSpec, OnInterruption};
use spotkeeper::domain::offering::CapacityType::{self, OnDemand, Reserved, Spot};
use spotkeeper::domain::policy::{DrainStart, Rebalance};
use spotkeeper::sim::supply::scenario::a_pool;
use spotkeeper::sim::system::scenario::{Pools, Reservation, Scenario, Step, Which, a_cluster, a_deployment};
use spotkeeper::sim::system::{NodeState, Outcome, PodState, Report};

use super::{MINUTE, holds};

fn a_pool_that(says: OnInterruption) -> NodePoolSpec {
    NodePoolSpec { interruption: Some(says), ..a_pool() }
}

/// A full cluster of one pool, one node of which is taken after twenty seconds.
fn taken(pool: NodePoolSpec) -> Scenario {
    let shop = a_cluster(4).named("one pool").of_pool("general", pool);
    shop.workload(a_deployment("shop/web", 30)).interrupts(20_000, Which::Node(0))
}

/// When the first pod of the first node was asked to go.
fn first_asked(outcome: &Outcome) -> u64 {
    let first = outcome.timelines.nodes[0].name.clone();
    let asked = outcome.timelines.pods.iter().flat_map(|pod| &pod.states);
    let asked = asked.filter(|(_, node, state)| *state == PodState::Terminating && node.as_ref() == Some(&first));
    asked.map(|(at, _, _)| *at).min().expect("its pods had to go")
}

fn ready_of_stand_in(report: &Report) -> u64 {
    let node = report.outcome.timelines.nodes.iter().find(|node| node.stands_in).expect("one stands in");
    node.states.iter().find(|(_, state)| *state == NodeState::Ready).expect("it became Ready").0
}

#[test]
fn the_agents_drain_as_the_pool_says_whatever_their_flags_say() {
    let says = |drain| a_pool_that(OnInterruption { drain: Some(drain), ..OnInterruption::default() });
    let mut now = taken(says(DrainStart::Immediate));
    now.policy.drain = DrainStart::CapacityFirst;
    let now = holds(now);
    assert!(first_asked(&now.outcome) < 25_000, "{}", now.told());
    let mut first = taken(says(DrainStart::CapacityFirst));
    first.policy.drain = DrainStart::Immediate;
    let first = holds(first);
    assert!(first_asked(&first.outcome) >= ready_of_stand_in(&first), "{}", first.told());
}

#[test]
fn a_pool_that_replaces_on_a_recommendation_does_so_and_another_does_not() {
    for (rebalance, launched) in [(Rebalance::Replace, 1), (Rebalance::Avoid, 0)] {
        let pool = a_pool_that(OnInterruption { rebalance: Some(rebalance), ..OnInterruption::default() });
        let world = a_cluster(4).named("recommended").of_pool("general", pool);
        let world = world.workload(a_deployment("shop/web", 12)).at(20_000, Step::Rebalance { of: Which::Node(1) });
        let outcome = holds(world.until(30 * MINUTE)).outcome;
        assert_eq!(outcome.calls.instances_launched, launched, "{rebalance}");
        assert_eq!(outcome.capacity.ready as u64, launched, "{rebalance}");
    }
}

/// A pool that uses what is reserved first, and of that there is so much in the first zone.
fn reserving(left: u32) -> Scenario {
    let order = Some(vec![Reserved, Spot, OnDemand]);
    let pool = NodePoolSpec { fallback: Some(Fallback { order, ..Fallback::default() }), ..a_pool() };
    let mut world = a_cluster(6).named("reserved").of_pool("general", pool).workload(a_deployment("shop/web", 12));
    let (instance_type, zone) = ("m7g.2xlarge".to_owned(), "eu-west-1a".to_owned());
    world.cloud.reservations.push(Reservation { instance_type, zone, left });
    world
}

fn types(outcome: &Outcome) -> Vec<Option<CapacityType>> {
    let mut claims: Vec<_> = outcome.claims.iter().collect();
    claims.sort_by_key(|claim| claim.wanted_ms);
    claims.into_iter().map(|claim| claim.capacity_type).collect()
}

#[test]
fn what_is_reserved_is_used_first_then_spot_then_on_demand() {
    let world = reserving(1).interrupts(20_000, Which::Node(0)).interrupts(3 * MINUTE, Which::Node(1));
    let dry = Step::Pools { of: Pools::of(Spot), left: Some(0), takes_percent: 0 };
    let world = world.at(6 * MINUTE, dry).interrupts(7 * MINUTE, Which::Node(2)).until(20 * MINUTE);
    let outcome = holds(world).outcome;
    assert_eq!(types(&outcome), [Some(Reserved), Some(Spot), Some(OnDemand)]);
    assert_eq!(outcome.calls.reserved, 1, "what is used up is not asked for again");
}

#[test]
fn a_reservation_that_another_uses_up_gives_an_on_demand_node_that_is_known_as_one() {
    // The provisioner has read that one is left; it is gone when it asks, and EC2 launches a plain one.
    let gone = Step::Pools { of: Pools::of(Reserved), left: Some(0), takes_percent: 0 };
    let world = reserving(1).at(30_500, gone).interrupts(31_000, Which::Node(0)).until(20 * MINUTE);
    let outcome = holds(world).outcome;
    assert_eq!((types(&outcome), outcome.calls.reserved), (vec![Some(OnDemand)], 1));
}

#[test]
fn pods_with_a_node_selector_run_on_nodes_of_their_pool_alone() {
    let mut world = a_cluster(4).named("two pools").of_pool("general", a_pool()).nodes(2, Spot, None);
    world.pools.insert("other".into(), a_pool());
    world.nodes[1].pool = Some("other".into());
    let web = |name: &str, pool: &str| {
        let mut workload = a_deployment(name, 6).cpu(2_000);
        workload.node_pool = Some(pool.to_owned());
        workload
    };
    let world = world.workload(web("shop/web", "other")).workload(web("shop/api", "general"));
    let outcome = holds(world.interrupts(20_000, Which::Node(4)).until(30 * MINUTE)).outcome;
    let ours: Vec<&str> = outcome.timelines.nodes[..4].iter().map(|node| node.name.as_str()).collect();
    let mut placed = 0;
    for pod in outcome.timelines.pods.iter().filter(|pod| pod.workload == "shop/web") {
        let on: Vec<&String> = pod.states.iter().filter_map(|(_, node, _)| node.as_ref()).collect();
        placed += on.len();
        assert!(on.iter().all(|node| !ours.contains(&node.as_str())), "{on:?}");
    }
    assert!(placed > 6, "some had to move");
    assert_eq!(outcome.workload("shop/web").map(|one| one.available_at_end), Some(6));
}
