//! What other autoscalers get stuck in (acceptance list L1 to L8), from the notice to the pods that run again; the time to
//! capacity is printed.

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::system::scenario::{
    ApiState, Pools, Scenario, State, Step, Which, a_cluster, a_deployment, a_type,
};

use super::{MINUTE, holds};

/// Spot has run out everywhere before the first notice comes.
fn dry(nodes: usize) -> Scenario {
    let left = Step::Pools { of: Pools::of(Spot), left: Some(0), takes_percent: 0 };
    a_cluster(nodes).workload(a_deployment("shop/web", 4 * nodes as u32)).at(1_000, left)
}

#[test]
fn l1_pods_run_again_as_soon_whatever_the_number_of_dry_spot_pools() {
    let mut took = Vec::new();
    for types in [1, 4, 16, 64] {
        let mut scenario = dry(3).named(&format!("{types} dry pools in each zone")).interrupts(10_000, Which::Node(0));
        let name = |n: u32| format!("m{}{}.2xlarge", n / 8 + 1, char::from(b'a' + (n % 8) as u8));
        scenario.cloud.types = (0..types).map(|n| a_type(&name(n), 8, 32, 140_000, 360_000)).collect();
        scenario.nodes[0].instance_type = name(0);
        let report = holds(scenario.boots_in(45_000, 0).until(9 * MINUTE));
        assert_eq!((report.outcome.calls.spot, report.outcome.calls.on_demand), (1, 1), "{}", report.told());
        took.push(report.outcome.capacity.max_ms.unwrap());
    }
    // A boot of 45 s, two calls of at most 1.5 s, and up to 8 s until the kubelet is Ready.
    assert!(took.iter().all(|ms| *ms < 58_000), "{took:?}");
}

#[test]
fn l2_an_instance_that_never_becomes_a_node_holds_nothing_up_for_ever() {
    let scenario = dry(3).named("phantom-capacity").at(5_000, Step::Join(false)).interrupts(10_000, Which::Node(0));
    let report = holds(scenario.at(5 * MINUTE, Step::Join(true)).until(80 * MINUTE));
    assert_eq!(report.outcome.capacity.ready, 1, "{}", report.told());
    assert_eq!((report.outcome.calls.instances_launched, report.outcome.calls.instances_ended), (2, 1));
}

#[test]
fn l3_two_leaders_write_the_same_wishes() {
    let mut scenario = dry(6).named("two-writers").interrupts(10_000, Which::Nodes { from: 0, count: 3 });
    for after in [200, 20_000, 40_000] {
        scenario = scenario.at(10_000 + after, Step::KillLeader { down_ms: 500 });
    }
    let report = holds(scenario.until(60 * MINUTE));
    let outcome = &report.outcome;
    assert_eq!((outcome.capacity.claims, outcome.calls.instances_launched), (3, 3), "{}", report.told());
}

#[test]
fn l5_a_total_outage_costs_probes_and_ends_for_everybody() {
    let none = |left| Step::Pools { of: Pools::of(OnDemand), left, takes_percent: 0 };
    // The provisioners have nodes that stay.
    let scenario = dry(20).named("create-loop").nodes(2, OnDemand, None).at(1_000, none(Some(0)));
    let scenario = scenario.interrupts(10_000, Which::Spot).at(60 * MINUTE, none(None)).until(140 * MINUTE);
    let report = holds(scenario);
    assert_eq!((report.outcome.capacity.claims, report.outcome.capacity.ready), (20, 20), "{}", report.told());
    let calls = report.outcome.calls.spot + report.outcome.calls.on_demand;
    assert!(calls < 400, "{calls} calls in an hour without capacity and the one after it");
}

#[test]
fn l6_a_capacity_type_that_is_refused_stops_no_node() {
    let refuse = |code| Step::Refuse { capacity_type: Spot, code };
    let scenario = a_cluster(4).named("blocked-claim").workload(a_deployment("shop/web", 12));
    let scenario = scenario.at(1_000, refuse(Some("MaxSpotInstanceCountExceeded"))).interrupts(10_000, Which::Node(0));
    let scenario = scenario.interrupts(3 * MINUTE, Which::Node(1)).at(6 * MINUTE, refuse(None)).until(70 * MINUTE);
    let report = holds(scenario);
    assert_eq!(report.outcome.capacity.by_capacity_type, [(OnDemand, 2)].into(), "{}", report.told());
}

#[test]
fn l7_a_recommendation_launches_nothing_unless_it_is_asked_to() {
    let scenario = a_cluster(4).named("rebalance-loop").workload(a_deployment("shop/web", 12));
    let scenario = (1..20).fold(scenario, |all, n| all.at(n * MINUTE, Step::Rebalance { of: Which::All }));
    let report = holds(scenario.until(40 * MINUTE));
    assert_eq!((report.outcome.capacity.claims, report.outcome.pods.stopped), (0, 0), "{}", report.told());
}

#[test]
fn l8_a_throttled_storm_serves_everybody() {
    let mut scenario = dry(30).named("throttled-batch").nodes(2, OnDemand, None);
    scenario.cloud.bucket = (5, 1.0);
    let scenario = scenario.at(9_000, Step::Ec2(State::Throttles)).interrupts(10_000, Which::Spot);
    let report = holds(scenario.at(30_000, Step::Ec2(State::Well)).until(70 * MINUTE));
    assert_eq!((report.outcome.capacity.claims, report.outcome.capacity.ready), (30, 30));
    assert!(report.outcome.calls.throttled < 300, "{:?}", report.outcome.calls);
}

#[test]
fn a_leader_that_dies_at_any_moment_after_a_notice_leaves_one_node_in_the_place_of_one() {
    for after in (0..4_000).step_by(250) {
        let scenario = dry(3).named("leader-dies").seed(after).interrupts(10_000, Which::Node(0));
        let report = holds(scenario.at(10_000 + after, Step::KillLeader { down_ms: 60_000 }).until(60 * MINUTE));
        assert_eq!(
            (report.outcome.calls.instances_launched, report.outcome.capacity.ready),
            (1, 1),
            "after {after} ms"
        );
    }
}

#[test]
fn an_api_server_that_is_away_at_the_moment_of_the_notice_costs_its_absence() {
    let scenario = dry(3).named("api-outage").at(9_500, Step::Api(ApiState::Away)).interrupts(10_000, Which::Node(0));
    let report = holds(scenario.at(50_000, Step::Api(ApiState::Well)).until(60 * MINUTE));
    assert_eq!((report.outcome.capacity.ready, report.outcome.pods.killed), (1, 0), "{}", report.told());
}
