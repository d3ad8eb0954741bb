//! NodePools: which one serves, and what it allows.

use spotkeeper::api::node_pool::{PoolTaint, TaintEffect};
use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::domain::requirements::{Operator, Requirement};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{STARTING, State, Step, Supply, a_cluster, a_pool};

use super::worlds::{MINUTE, holds};

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

fn dry() -> Step {
    Step::Left { capacity: Spot, zone: None, left: Some(0) }
}

/// All nodes go at once.
fn doomed(supply: Supply) -> Supply {
    let count = supply.nodes;
    supply.at(5_000, Step::DoomMany { from: 0, count })
}

#[test]
fn limits_are_reached_exactly_and_what_does_not_fit_waits_and_says_so() {
    // Types of 8 vCPUs: 24 vCPUs are three nodes, and 3 nodes are three nodes.
    for pool in [a_pool().vcpus_max(24), a_pool().nodes_max(3)] {
        let report = holds(doomed(a_cluster(5).of("general", pool)));
        assert_eq!(report.figures.ready, 3, "{}", report.told());
        assert!(report.says("nothing more fits; raise it, or wait for room"), "{}", report.told());
    }
}

#[test]
fn a_raised_limit_lets_those_that_wait_go_on() {
    let supply = doomed(a_cluster(5).of("general", a_pool().nodes_max(3)));
    let report = holds(supply.at(10 * MINUTE, Step::Pool("general", Box::new(a_pool().nodes_max(5)))));
    assert_eq!(report.figures.ready, 5, "{}", report.told());
}

#[test]
fn a_limit_holds_while_answers_get_lost_and_leaders_die() {
    for seed in 0..40 {
        let mut supply = doomed(a_cluster(6).of("general", a_pool().vcpus_max(32)));
        (supply.seed, supply.faults.ec2_lost_one_in, supply.faults.api_lost_one_in) = (seed, Some(3), Some(5));
        supply.faults.shown_after_ms = 20_000;
        let report = holds(supply.at(6_000 + seed * 100, Step::KillLeader { down_ms: 30_000 }).until(40 * MINUTE));
        assert_eq!(report.figures.ready, 4, "seed {seed}: {}", report.told());
    }
}

#[test]
fn f15_a_pool_at_its_limit_with_a_doomed_node_has_its_replacement_launched() {
    let supply = a_cluster(3).of("general", a_pool().nodes_max(3)).at(5_000, Step::Doom { node: 1 });
    let report = holds(supply);
    assert_eq!((report.figures.launched, report.figures.ready), (1, 1), "{}", report.told());
}

#[test]
fn below_the_floor_spot_is_skipped_and_above_it_asked_for() {
    let report = holds(doomed(a_cluster(5).of("general", a_pool().floor("2"))));
    let on_demand = |report: &Report| report.claims.values().filter(|one| one.capacity == Some(OnDemand)).count();
    assert_eq!((on_demand(&report), report.figures.ready), (2, 5), "{}", report.told());
    let report = holds(doomed(a_cluster(10).of("general", a_pool().floor("25%"))));
    assert_eq!((on_demand(&report), report.figures.ready), (3, 10), "{}", report.told());
}

#[test]
fn f7_a_floor_that_is_raised_and_lowered_is_minded_by_what_comes_next() {
    let supply = a_cluster(6).of("general", a_pool()).at(5_000, Step::DoomMany { from: 0, count: 2 });
    let supply = supply.at(5 * MINUTE, Step::Pool("general", Box::new(a_pool().floor("2"))));
    let supply = supply.at(6 * MINUTE, Step::DoomMany { from: 2, count: 3 });
    let supply = supply.at(12 * MINUTE, Step::Pool("general", Box::new(a_pool().floor("0"))));
    let report = holds(supply.at(13 * MINUTE, Step::Doom { node: 5 }));
    let of: Vec<_> = report.claims.values().map(|one| one.capacity.unwrap()).collect();
    let raised = of[2..5].iter().filter(|one| **one == OnDemand).count();
    assert_eq!((&of[..2], raised, of[5]), (&[Spot, Spot][..], 2, Spot), "{}", report.told());
}

#[test]
fn f7_when_fallback_costs_as_much_as_it_may_spot_is_waited_for_and_taken_when_it_is_back() {
    // On-demand costs 0.30 to 0.303: two of them are within 0.65, three are not.
    let supply = a_cluster(4).of("general", a_pool().cost_max("0.65")).at(1_000, dry());
    let supply = doomed(supply).at(30 * MINUTE, Step::Left { capacity: Spot, zone: None, left: None });
    let report = holds(supply.until(80 * MINUTE));
    assert!(report.says("spec.fallback.maxHourlyFallbackCost): spot is waited for"), "{}", report.told());
    let of = |capacity| report.claims.values().filter(|one| one.capacity == Some(capacity)).count();
    assert_eq!((of(OnDemand), of(Spot)), (2, 2), "{}", report.told());
}

#[test]
fn when_fallback_costs_less_again_who_waited_asks_at_once() {
    let supply = doomed(a_cluster(3).of("general", a_pool().cost_max("0.65")).at(1_000, dry()));
    // A stand-in is taken: there is room for another under the cap, though spot is short for long yet.
    let report = holds(supply.at(10 * MINUTE, Step::DoomStandIn).until(60 * MINUTE));
    assert_eq!(report.figures.calls_of[1], 3, "{}", report.told());
}

#[test]
fn an_impossible_pool_says_which_field_and_the_other_goes_on() {
    let mut impossible = a_pool();
    impossible.weight = Some(90);
    let nowhere = Requirement::new("topology.kubernetes.io/zone", Operator::In, ["moon-1a"]);
    impossible.template.spec.requirements = vec![nowhere];
    let supply = a_cluster(3).beside("moon", impossible).beside("general", a_pool());
    let report = holds(doomed(supply));
    assert_eq!(report.figures.ready, 3, "{}", report.told());
    assert!(report.pool_of.values().all(|pool| pool == "general"), "{:?}", report.pool_of);
    assert!(report.says("NodePool moon cannot work: spec.template.spec.requirements[0]"), "{}", report.told());
    let said = report.story.iter().filter(|line| line.contains("NodePool moon cannot work")).count();
    assert_eq!(said, 1, "once, by the one that leads: {}", report.told());
}

#[test]
fn a_node_of_an_impossible_pool_waits_for_the_pool_to_be_put_right() {
    let mut impossible = a_pool();
    let unknown = Requirement::new("node.kubernetes.io/instance-type", Operator::In, ["m99z.large"]);
    impossible.template.spec.requirements = vec![unknown];
    let supply = a_cluster(1).of("general", impossible).beside("other", a_pool()).at(5_000, Step::Doom { node: 0 });
    let report = holds(supply.at(5 * MINUTE, Step::Pool("general", Box::new(a_pool()))));
    assert!(report.says("EC2 has no instance type m99z.large in this region"), "{}", report.told());
    assert_eq!(report.pool_of.values().collect::<Vec<_>>(), ["general"], "{}", report.told());
    assert_eq!(report.figures.ready, 1, "{}", report.told());
}

#[test]
fn of_pools_that_would_do_the_heaviest_serves_and_of_equal_ones_the_first() {
    let weighs = |weight| {
        let mut pool = a_pool();
        pool.weight = Some(weight);
        pool
    };
    let supply = a_cluster(1).beside("a", weighs(1)).beside("z", weighs(50)).beside("y", weighs(50));
    let report = holds(supply.at(5_000, Step::Doom { node: 0 }));
    assert_eq!(report.pool_of.values().collect::<Vec<_>>(), ["y"], "{}", report.told());
    let mut tainted = weighs(90);
    tainted.template.spec.taints = vec![PoolTaint { key: "gpu".into(), value: None, effect: TaintEffect::NoSchedule }];
    let supply = a_cluster(1).beside("gpu", tainted).beside("plain", weighs(1)).at(5_000, Step::Doom { node: 0 });
    let report = holds(supply);
    assert_eq!(report.pool_of.values().collect::<Vec<_>>(), ["plain"], "its pods would not tolerate the taint");
}

#[test]
fn what_user_data_says_wrongly_of_a_stand_in_is_put_right_when_it_registers() {
    let mut supply = a_cluster(1).at(1_000, dry()).at(5_000, Step::Doom { node: 0 });
    let given = [("eks.amazonaws.com/capacityType", "SPOT"), ("eks.amazonaws.com/nodegroup", "workers")];
    supply.joins_with = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let report = holds(supply);
    assert!(report.says("eks.amazonaws.com/capacityType was SPOT and is ON_DEMAND"), "{}", report.told());
    assert!(report.says("eks.amazonaws.com/nodegroup was workers and is taken off"), "{}", report.told());
    assert_eq!(report.figures.ready, 1, "{}", report.told());
}

#[test]
fn f16_a_node_is_not_ready_before_its_startup_taint_is_gone_and_its_device_plugin_has_registered() {
    let mut pool = a_pool();
    let effect = TaintEffect::NoSchedule;
    pool.template.spec.startup_taints = vec![PoolTaint { key: STARTING.into(), value: None, effect }];
    let mut supply = a_cluster(1).of("gpu", pool).at(5_000, Step::Doom { node: 0 });
    supply.settles_ms = Some(90_000);
    let report = holds(supply);
    let at = |words: &str| report.story.iter().position(|line| line.contains(words)).expect(words);
    let node = "node-i-00000000000000002";
    assert!(at(&format!("-- {node} is Ready")) < at(&format!("-- {node} has settled")), "{}", report.told());
    assert!(at(&format!("-- {node} has settled")) < at(&format!(": node {node} is Ready")), "{}", report.told());
}

#[test]
fn labels_are_written_though_answers_get_lost_and_leaders_die() {
    for seed in 0..30 {
        let mut supply = doomed(a_cluster(3).of("general", a_pool()));
        (supply.seed, supply.faults.api_lost_one_in, supply.faults.api_refused_one_in) = (seed, Some(3), Some(4));
        supply.joins_with = [("karpenter.sh/capacity-type".to_owned(), "reserved".to_owned())].into();
        let report = holds(supply.at(52_000 + seed * 300, Step::KillLeader { down_ms: 20_000 }));
        assert_eq!(report.figures.ready, 3, "seed {seed}: {}", report.told());
        assert!(report.labels.values().all(|of| of["spotkeeper.dev/nodepool"] == "general"), "{:?}", report.labels);
        let right = |of: &std::collections::BTreeMap<String, String>| of["karpenter.sh/capacity-type"] == "spot";
        assert!(report.labels.values().all(right), "seed {seed}: {:?}", report.labels);
    }
}

#[test]
fn a_node_of_a_pool_at_its_limit_returns_and_the_pool_is_within_it_when_the_old_one_has_gone() {
    let supply = doomed(a_cluster(2).of("general", a_pool().nodes_max(2)).at(1_000, dry()));
    let supply = supply.at(5 * MINUTE, Step::Left { capacity: Spot, zone: None, left: None });
    let report = holds(supply.until(180 * MINUTE));
    assert_eq!((report.figures.returned, report.claims_left.len()), (2, 2), "{}", report.told());
}

#[test]
fn a_node_that_keeps_the_floor_does_not_return() {
    let mut pool = a_pool();
    pool.fallback.get_or_insert_default().on_demand_floor = Some(spotkeeper::api::node_pool::IntOrString::Int(1));
    let supply = doomed(a_cluster(2).of("general", pool).at(1_000, dry()));
    let supply = supply.at(5 * MINUTE, Step::Left { capacity: Spot, zone: None, left: None });
    let report = holds(supply.until(180 * MINUTE));
    assert_eq!(report.figures.returned, 1, "one stays: {}", report.told());
}

#[test]
fn a_call_that_was_only_throttled_is_not_made_when_the_limit_has_been_lowered_meanwhile() {
    // Seed 12381 of a state before: the call went on for minutes by what the pool had said.
    let supply = a_cluster(1).of("general", a_pool()).at(4_000, Step::Ec2(State::Throttles));
    let supply = supply.at(5_000, Step::Doom { node: 0 });
    let supply = supply.at(30_000, Step::Pool("general", Box::new(a_pool().nodes_max(0))));
    let report = holds(supply.at(5 * MINUTE, Step::Ec2(State::Well)));
    assert!(report.says("NodePool general has changed before EC2 did anything"), "{}", report.told());
    assert_eq!((report.figures.launched, report.figures.calls), (0, 0), "{}", report.told());
}

#[test]
fn a_call_whose_outcome_is_not_known_is_repeated_although_the_limit_has_been_lowered() {
    // Seed 2343 of a state before: what it may have launched is found out only so.
    let mut supply = a_cluster(1).of("general", a_pool()).at(4_950, Step::Ec2(State::Away));
    supply.seed = 1;
    let supply = supply.at(5_000, Step::Doom { node: 0 });
    let supply = supply.at(30_000, Step::Pool("general", Box::new(a_pool().nodes_max(0))));
    let report = holds(supply.at(45_000, Step::Ec2(State::Well)));
    assert!(report.figures.unknown > 0 && report.figures.launched == 1, "{}", report.told());
}

#[test]
fn a_pool_that_is_deleted_before_ec2_did_anything_launches_nothing() {
    let supply = a_cluster(1).of("general", a_pool()).at(4_000, Step::Ec2(State::Throttles));
    let supply = supply.at(5_000, Step::Doom { node: 0 }).at(30_000, Step::PoolGone("general"));
    let report = holds(supply.at(2 * MINUTE, Step::Ec2(State::Well)));
    assert_eq!(report.figures.calls, 0, "{}", report.told());
    assert!(report.says("there is no NodePool general any more"), "{}", report.told());
}
