//! Faults of EC2, the API server and the replicas themselves (acceptance list F1 to F16), each as a world.

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{State, Step, Supply, a_cluster};

use super::worlds::{MINUTE, holds};

/// One doomed node, EC2 refusing spot with this code.
fn refused(code: &'static str) -> Report {
    let refuse = Step::Refuse { capacity: Spot, code: Some(code) };
    holds(a_cluster(1).at(1_000, refuse).at(2_000, Step::Doom { node: 0 }))
}

#[test]
fn f1_quota_addresses_and_capacity_each_go_on_to_on_demand_at_once() {
    for (code, said) in [
        ("InsufficientInstanceCapacity", "spot: no capacity (InsufficientInstanceCapacity); on-demand is next"),
        ("MaxSpotInstanceCountExceeded", "the spot quota of Standard instances is short"),
        ("InsufficientFreeAddressesInSubnet", "subnet subnet-zone-"),
        ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", "all spot capacity is short"),
    ] {
        let report = refused(code);
        assert!(report.says(said), "{code}: {}", report.told());
        let claim = report.claims.values().next().unwrap();
        assert!(claim.asked_ms[&OnDemand] - claim.wanted_ms < 3_200, "{code}");
        assert_eq!(claim.capacity, Some(OnDemand), "{code}");
    }
}

#[test]
fn f1_a_missing_permission_stops_the_claim_says_so_and_is_no_loop() {
    let refuse = |capacity| Step::Refuse { capacity, code: Some("UnauthorizedOperation") };
    let supply = a_cluster(1).at(1_000, refuse(Spot)).at(1_000, refuse(OnDemand)).at(2_000, Step::Doom { node: 0 });
    let report = holds(supply.until(120 * MINUTE));
    assert!(report.says("UnauthorizedOperation: as the scenario has it; change it"), "{}", report.told());
    assert!(report.figures.calls <= 10, "{} calls in two hours", report.figures.calls);
}

/// EC2 refuses everything with this code until then.
fn forbidden(supply: Supply, code: &'static str, until: u64) -> Supply {
    [Spot, OnDemand].into_iter().fold(supply, |supply, capacity| {
        let supply = supply.at(1_000, Step::Refuse { capacity, code: Some(code) });
        supply.at(until, Step::Refuse { capacity, code: None })
    })
}

#[test]
fn f1_credentials_that_have_expired_for_a_moment_cost_seconds_of_the_two_minutes() {
    for code in ["ExpiredToken", "RequestExpired"] {
        let report = holds(forbidden(a_cluster(1).at(2_000, Step::Doom { node: 0 }), code, 10_000));
        let claim = report.claims.values().next().unwrap();
        assert!(claim.ready_ms.is_some_and(|at| at - claim.wanted_ms < 90_000), "{code}: {}", report.told());
    }
}

#[test]
fn f1_a_permission_that_is_granted_is_noticed_by_all_with_the_first_call_that_succeeds() {
    let supply = forbidden(a_cluster(2).at(2_000, Step::Doom { node: 0 }), "UnauthorizedOperation", 20 * MINUTE);
    let report = holds(supply.at(21 * MINUTE, Step::Doom { node: 1 }));
    let ready: Vec<u64> = report.claims.values().map(|claim| claim.ready_ms.unwrap() / MINUTE).collect();
    assert!(ready.iter().all(|at| *at < 23), "{ready:?}: {}", report.told());
}

#[test]
fn f2_an_answer_lost_after_success_is_asked_for_again_with_the_same_token() {
    let mut supply = a_cluster(3).at(5_000, Step::DoomMany { from: 0, count: 3 });
    supply.faults.ec2_lost_one_in = Some(2);
    supply.faults.shown_after_ms = 20_000;
    let report = holds(supply);
    assert!(report.figures.unknown > 0, "{}", report.told());
    assert_eq!((report.figures.launched, report.figures.ready), (3, 3), "none twice");
}

#[test]
fn f2_a_leader_that_dies_at_any_moment_leaves_nothing_twice() {
    // From before the claim is written until after the instance has been given.
    for after in (0..4_000).step_by(40) {
        let mut supply = a_cluster(2).at(5_000, Step::DoomMany { from: 0, count: 2 });
        supply.seed = after;
        let report = holds(supply.at(5_000 + after, Step::KillLeader { down_ms: 60_000 }));
        assert_eq!((report.figures.launched, report.figures.ready), (2, 2), "after {after} ms: {}", report.told());
    }
}

#[test]
fn f2_ec2_works_while_the_api_server_is_away_and_the_other_way_round() {
    let supply = a_cluster(2).at(5_000, Step::DoomMany { from: 0, count: 2 }).at(5_100, Step::Api(State::Away));
    let report = holds(supply.at(2 * MINUTE, Step::Api(State::Well)));
    assert_eq!((report.figures.launched, report.figures.ready), (2, 2), "{}", report.told());
    let supply = a_cluster(2).at(4_000, Step::Ec2(State::Away)).at(5_000, Step::DoomMany { from: 0, count: 2 });
    let report = holds(supply.at(3 * MINUTE, Step::Ec2(State::Well)));
    assert_eq!(report.figures.ready, 2, "{}", report.told());
}

#[test]
fn f3_a_stand_in_that_is_interrupted_is_replaced_itself() {
    let supply = a_cluster(1).at(2_000, Step::Doom { node: 0 }).at(20_000, Step::DoomStandIn);
    let report = holds(supply.at(10 * MINUTE, Step::DoomStandIn).until(60 * MINUTE));
    assert!(report.claims.len() >= 2, "{}", report.told());
    assert!(report.claims.values().all(|claim| claim.ready_ms.is_some()), "{}", report.told());
}

#[test]
fn f9_every_write_lost_one_time_in_three_serves_everybody_once() {
    for seed in 0..50 {
        let mut supply = a_cluster(4).at(5_000, Step::DoomMany { from: 0, count: 4 });
        supply.seed = seed;
        supply.faults.api_lost_one_in = Some(3);
        let report = holds(supply);
        assert_eq!((report.figures.launched, report.figures.ready), (4, 4), "seed {seed}: {}", report.told());
    }
}

#[test]
fn f12_both_replicas_die_in_the_minute_of_the_notices_and_capacity_is_asked_for_after() {
    let supply = a_cluster(6).at(5_000, Step::DoomMany { from: 0, count: 6 });
    let supply = supply.at(5_010, Step::Kill { replica: 0, down_ms: 90_000 });
    let report = holds(supply.at(5_010, Step::Kill { replica: 1, down_ms: 120_000 }));
    assert_eq!((report.figures.launched, report.figures.ready), (6, 6), "{}", report.told());
}

#[test]
fn f13_a_call_that_is_done_long_after_it_was_given_up_leaves_no_second_instance() {
    for seed in 0..50 {
        let mut supply = a_cluster(2).at(5_000, Step::DoomMany { from: 0, count: 2 });
        supply.seed = seed;
        supply.faults.ec2_late_one_in = Some(2);
        supply.faults.shown_after_ms = 20_000;
        let report = holds(supply.until(60 * MINUTE));
        assert_eq!(report.figures.ready, 2, "seed {seed}: {}", report.told());
        let alive = report.figures.launched - report.figures.ended;
        assert_eq!(alive, 2, "seed {seed}: what came late has been ended: {}", report.told());
    }
}

#[test]
fn records_of_calls_that_somebody_deletes_while_their_outcome_is_not_known_hold_nobody_up() {
    for seed in 0..40 {
        let mut supply = a_cluster(3).at(5_000, Step::DoomMany { from: 0, count: 3 });
        supply.seed = seed;
        supply.faults.ec2_lost_one_in = Some(2);
        let report = holds(supply.at(5_100 + seed * 300, Step::DeleteLaunches).until(60 * MINUTE));
        assert_eq!(report.figures.ready, 3, "seed {seed}: {}", report.told());
    }
}

#[test]
fn f14_a_shared_call_whose_answer_and_leader_are_lost_gives_each_claim_one_instance() {
    let mut supply = a_cluster(150).at(5_000, Step::DoomMany { from: 0, count: 150 });
    // Few tokens, so that claims share calls.
    (supply.settings.bucket, supply.bucket) = ((2, 0.5), (50, 5.0));
    supply.faults.ec2_lost_one_in = Some(2);
    let report = holds(supply.at(9_000, Step::KillLeader { down_ms: 30_000 }));
    assert!(report.says("EC2 is asked for 100 × spot"), "{}", report.told());
    assert_eq!((report.figures.launched, report.figures.ready), (150, 150));
}

#[test]
fn what_was_withdrawn_before_it_was_asked_for_is_not_launched() {
    let supply = a_cluster(1).at(4_900, Step::Ec2(State::Throttles)).at(5_000, Step::Doom { node: 0 });
    let supply = supply.at(5_005, Step::Withdraw { node: 0 }).at(6_000, Step::Ec2(State::Well));
    let report = holds(supply);
    assert!(report.says("the announcement was withdrawn") || report.claims.values().all(|c| c.asked_ms.is_empty()));
}
