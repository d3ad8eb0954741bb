//! The loops that other autoscalers get stuck in (acceptance list L1 to L8), each as a world; the time to capacity is
//! printed.

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::supply::scenario::{State, Step, Supply, a_cluster, a_pool};
use spotkeeper::sim::supply::{ClaimAtEnd, Report};

use super::worlds::{MINUTE, holds};

/// Of the claim for the first node: how long until EC2 was asked for this, and until there was a Ready node.
fn first(report: &Report) -> &ClaimAtEnd {
    report.claims.values().next().expect("a node was doomed")
}

fn dry() -> Step {
    Step::Left { capacity: Spot, zone: None, left: Some(0) }
}

fn back() -> Step {
    Step::Left { capacity: Spot, zone: None, left: None }
}

#[test]
fn l1_on_demand_is_asked_for_as_soon_whatever_the_number_of_spot_pools() {
    let mut asked = Vec::new();
    for types in [1, 2, 4, 8, 16, 32, 64] {
        let mut supply = a_cluster(1).at(1_000, dry()).at(20_000, Step::Doom { node: 0 });
        (supply.types, supply.zones) = (types, 1);
        let report = holds(supply);
        let claim = first(&report);
        let on_demand = claim.asked_ms[&OnDemand] - claim.wanted_ms;
        println!(
            "{types:2} spot pools: on-demand asked for after {on_demand} ms, a node Ready after {} s",
            (claim.ready_ms.unwrap() - claim.wanted_ms) / 1_000
        );
        assert_eq!((report.figures.calls_of[0], report.figures.calls_of[1]), (1, 1), "one call a rung");
        asked.push(on_demand);
    }
    // Two calls of at most 1.5 s in this world, writes of a few milliseconds, and no timer between.
    assert!(asked.iter().all(|after| *after == asked[0] && *after < 3_200), "{asked:?}");
}

#[test]
fn l2_an_instance_that_never_becomes_a_node_is_ended_and_counts_for_nothing() {
    let supply = a_cluster(1).at(1_000, Step::Join(false)).at(2_000, Step::Doom { node: 0 });
    let report = holds(supply.at(10 * MINUTE, Step::Join(true)).until(60 * MINUTE));
    assert!(report.says("was no node within 900 s: it is ended"), "{}", report.told());
    assert_eq!((report.figures.launched, report.figures.ended), (2, 1));
    assert!(first(&report).ready_ms.is_some());
}

#[test]
fn a_recipe_that_never_becomes_a_node_is_given_up_after_two() {
    let supply = a_cluster(1).at(1_000, Step::Join(false)).at(2_000, Step::Doom { node: 0 });
    let report = holds(supply.until(3 * 60 * MINUTE));
    assert_eq!((report.figures.launched, report.figures.ended), (2, 2), "{}", report.told());
    assert!(report.says("never became a Ready node: look at its user data"));
}

/// What never became a Node until its recipe was put right.
fn given_up(supply: Supply) -> Supply {
    supply.at(1_000, Step::Join(false)).at(2_000, Step::Doom { node: 0 }).at(50 * MINUTE, Step::Join(true))
}

#[test]
fn a_claim_that_was_given_up_and_is_deleted_is_made_anew() {
    let report = holds(given_up(a_cluster(1)).at(60 * MINUTE, Step::DeleteFailed).until(90 * MINUTE));
    assert!(first(&report).ready_ms.is_some_and(|at| at < 63 * MINUTE), "{}", report.told());
    assert_eq!((report.figures.launched, report.claims_left.len()), (3, 1), "{}", report.told());
}

#[test]
fn a_claim_that_was_given_up_is_tried_again_when_its_pool_or_its_class_changes() {
    for change in [Step::Pool("general", Box::new(a_pool().nodes_max(9))), Step::ClassMoves] {
        let mut supply = given_up(a_cluster(1).of("general", a_pool()));
        supply.inline_class = true;
        let report = holds(supply.at(60 * MINUTE, change).until(90 * MINUTE));
        assert!(first(&report).ready_ms.is_some_and(|at| at < 63 * MINUTE), "{}", report.told());
        assert_eq!(report.figures.launched, 3, "{}", report.told());
    }
}

#[test]
fn l3_every_wish_is_an_object_of_its_own_and_two_leaders_write_the_same_ones() {
    let supply =
        a_cluster(5).at(5_000, Step::DoomMany { from: 0, count: 5 }).at(5_050, Step::KillLeader { down_ms: 500 });
    let report = holds(supply.at(30_000, Step::KillLeader { down_ms: 500 }));
    assert_eq!((report.claims.len(), report.figures.launched), (5, 5), "{}", report.told());
    assert!(report.figures.takeovers >= 2);
}

#[test]
fn l5_a_total_outage_costs_probes_and_no_more() {
    let none = Step::Left { capacity: OnDemand, zone: None, left: Some(0) };
    let supply = a_cluster(200).at(1_000, dry()).at(1_000, none);
    let report = holds(supply.at(5_000, Step::DoomMany { from: 0, count: 200 }).until(125 * MINUTE));
    let hours = 125.0 / 60.0;
    println!("200 claims, nothing anywhere: {:.0} launch calls an hour", report.figures.calls as f64 / hours);
    // 12 offerings on each of two rungs, their beliefs 3 min doubling to 30: some 6 probes an hour each at first, 2 later.
    assert!(report.figures.calls < 300, "{}", report.figures.calls);
    assert_eq!(report.figures.launched, 0);
}

#[test]
fn l5_when_it_ends_everybody_is_served() {
    let none = Step::Left { capacity: OnDemand, zone: None, left: Some(0) };
    let all = Step::Left { capacity: OnDemand, zone: None, left: None };
    let supply = a_cluster(60).at(1_000, dry()).at(1_000, none).at(5_000, Step::DoomMany { from: 0, count: 60 });
    let report = holds(supply.at(30 * MINUTE, all).until(120 * MINUTE));
    assert_eq!(report.figures.launched, 60, "{}", report.figures.calls);
    assert!(report.claims.values().all(|claim| claim.ready_ms.is_some()));
}

#[test]
fn l6_a_claim_that_cannot_launch_stops_no_other() {
    // The recipe of spot is refused as a whole for a while; on-demand nodes are wanted and had meanwhile.
    let refused = Step::Refuse { capacity: Spot, code: Some("InvalidParameterValue") };
    let supply = a_cluster(2).at(1_000, refused).at(2_000, Step::Doom { node: 0 });
    let supply = supply.at(4_000, Step::Refuse { capacity: Spot, code: None }).at(5_000, Step::Doom { node: 1 });
    let report = holds(supply.until(60 * MINUTE));
    assert!(report.says("InvalidParameterValue: as the scenario has it; change it"), "{}", report.told());
    let (stuck, free) = (&report.claims.values().next().unwrap(), report.claims.values().nth(1).unwrap());
    assert!(free.asked_ms[&Spot] - free.wanted_ms < 2_000, "the other one is asked for at once");
    assert!(stuck.ready_ms.is_some() && stuck.ready_ms > free.ready_ms);
}

#[test]
fn l8_a_throttled_storm_is_paced_and_loses_nobody() {
    let mut supply =
        a_cluster(300).at(4_000, Step::Ec2(State::Throttles)).at(5_000, Step::DoomMany { from: 0, count: 300 });
    supply.bucket = (5, 1.0);
    let report = holds(supply.at(25_000, Step::Ec2(State::Well)).until(20 * MINUTE));
    assert!(report.claims.values().all(|claim| claim.ready_ms.is_some()));
    println!(
        "300 claims, 20 s of throttling: {} calls, {} of them throttled",
        report.figures.calls, report.figures.throttled
    );
    // Nobody repeats in step: while it throttles, what is on its way is repeated with pauses of 0.5 to 20 s.
    assert!(report.figures.throttled < 150, "{}", report.figures.throttled);
}

#[test]
fn l8_a_bucket_that_is_smaller_than_believed_is_found_out_and_used_up() {
    // One notice after the other, so that few share a call; each needs two, and EC2 grants one a second.
    let mut supply = a_cluster(30).at(1_000, dry());
    for node in 0..30 {
        supply = supply.at(5_000 + 300 * node as u64, Step::Doom { node });
    }
    supply.bucket = (5, 1.0);
    let report = holds(supply.until(30 * MINUTE));
    let mut asked: Vec<u64> = report.claims.values().map(|one| one.asked_ms[&OnDemand] - one.wanted_ms).collect();
    asked.sort_unstable();
    let (half, last, figures) = (asked[15], asked[29], &report.figures);
    println!(
        "30 claims at 5 tokens, 1/s: on-demand after {half} ms, {last} ms; {} calls, {} throttled",
        figures.calls, figures.throttled
    );
    assert!(last <= 30_000, "{last}");
    assert!(figures.throttled <= figures.calls, "{}", figures.throttled);
}

#[test]
fn f6_a_thousand_notices_are_all_asked_for_within_five_seconds_of_documented_buckets() {
    let mut supply = a_cluster(1_000).at(5_000, Step::DoomMany { from: 0, count: 1_000 });
    supply.bucket = (50, 5.0);
    let report = holds(supply.until(15_000));
    let last = report.claims.values().map(|claim| claim.asked_ms[&Spot] - claim.wanted_ms).max().unwrap();
    println!("1,000 notices: all asked for after {last} ms by {} calls", report.figures.calls);
    assert!(last <= 5_000, "{last}");
    assert_eq!((report.figures.launched, report.figures.throttled), (1_000, 0));
}

#[test]
fn f4_spot_that_is_back_is_asked_for_again() {
    let supply = a_cluster(2).at(1_000, dry()).at(2_000, Step::Doom { node: 0 }).at(3 * MINUTE, back());
    let report = holds(supply.at(20 * MINUTE, Step::Doom { node: 1 }));
    let capacities: Vec<_> = report.claims.values().map(|claim| claim.capacity).collect();
    assert_eq!(capacities, [Some(OnDemand), Some(Spot)], "{}", report.told());
}
