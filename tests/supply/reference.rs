//! Ours beside models of other systems, in the same worlds.

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::reference::{Market, Policy, Timers, autoscaler, compare, polling, run, table};
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn left(capacity: spotkeeper::domain::offering::CapacityType, left: Option<u32>) -> Step {
    Step::Left { capacity, zone: None, left }
}

/// One doomed node, and so many spot pools that are dry.
fn starved(pools: usize, until: u64) -> Supply {
    let mut supply = a_cluster(1).at(1_000, left(Spot, Some(0))).at(20_000, Step::Doom { node: 0 }).until(until);
    (supply.types, supply.zones) = (pools, 1);
    supply
}

/// Two hours without any capacity, and 40 nodes that want some.
fn outage() -> Supply {
    let supply = a_cluster(40).at(1_000, left(Spot, Some(0))).at(1_000, left(OnDemand, Some(0)));
    let supply = supply.at(20_000, Step::DoomMany { from: 0, count: 40 });
    supply.at(2 * HOUR, left(Spot, None)).at(2 * HOUR, left(OnDemand, None)).until(3 * HOUR)
}

/// Spot that is there in every second minute.
fn flapping() -> Supply {
    let mut supply = a_cluster(20).at(500, left(Spot, Some(0)));
    for minute in 1..60 {
        supply = supply.at(minute * MINUTE, left(Spot, if minute % 2 == 0 { Some(0) } else { None }));
    }
    for node in 0..20 {
        supply = supply.at(30_000 + node as u64 * 2 * MINUTE, Step::Doom { node });
    }
    supply.script.sort_by_key(|(at, _)| *at);
    supply.until(90 * MINUTE)
}

#[test]
fn the_model_of_cluster_autoscaler_gives_the_table_of_tier_starvation_within_a_minute() {
    // Minutes until on-demand is asked for, by how soon a failed attempt is noticed and the number of spot groups.
    for (noticed, groups, minutes) in [
        (16, 1, Some(16)),
        (16, 2, Some(97)),
        (16, 3, None),
        (16, 8, None),
        (2, 4, Some(17)),
        (2, 8, Some(50)),
        (2, 16, None),
        (2, 64, None),
    ] {
        let autoscaler = autoscaler::Timers { noticed: noticed * MINUTE, ..autoscaler::Timers::default() };
        let timers = Timers { autoscaler, ..Timers::default() };
        let provided = run(Policy::ClusterAutoscaler, &starved(groups, 48 * HOUR), &timers);
        let after = provided.on_demand_ms.map(|after| after as f64 / MINUTE as f64);
        println!("noticed after {noticed} min, {groups} groups: {after:?} min");
        match (minutes, after) {
            (None, None) => {}
            (Some(minutes), Some(after)) => assert!((after - f64::from(minutes)).abs() <= 1.0, "{groups}: {after}"),
            other => panic!("{noticed} min, {groups} groups: {other:?}"),
        }
    }
}

#[test]
fn a_group_at_its_minimum_counts_what_never_comes_as_coming_for_ever() {
    let autoscaler = autoscaler::Timers { at_minimum: true, ..autoscaler::Timers::default() };
    let timers = Timers { autoscaler, ..Timers::default() };
    let provided = run(Policy::ClusterAutoscaler, &starved(1, 48 * HOUR), &timers);
    assert_eq!((provided.served(), provided.on_demand_ms), (0, None));
}

#[test]
fn the_model_of_karpenter_loses_a_batch_and_eleven_seconds_for_a_rung_that_fails() {
    let provided = run(Policy::Karpenter, &starved(4, HOUR), &Timers::default());
    // 1 s of batch, the call, 10 s until it is looked at again, 1 s of batch.
    assert_eq!(provided.on_demand_ms, Some(1_000 + 900 + 10_000 + 1_000));
    assert_eq!(provided.calls, 2);
    let forgets = starved(4, HOUR).at(25_000, Step::KillLeader { down_ms: 500 });
    let provided = run(Policy::Karpenter, &forgets.until(HOUR), &Timers::default());
    assert_eq!((provided.calls, provided.on_demand_ms), (3, Some(24_800)), "a restart forgets that spot is short");
}

#[test]
fn the_model_of_a_handler_asks_as_slowly_as_was_measured_and_for_no_capacity() {
    // At the median phase.
    let seconds = |pods| polling::asked_ms(1_000, pods) as f64 / 1_000.0;
    assert!((1.97..=2.19).contains(&(polling::cordoned_ms(1_000) as f64 / 1_000.0)));
    assert!((seconds(20) - 5.5).abs() < 0.2 && (seconds(100) - 21.5).abs() < 0.2, "{} {}", seconds(20), seconds(100));
    let provided = run(Policy::Handler, &starved(1, HOUR), &Timers::default());
    assert_eq!((provided.calls, provided.served(), provided.ready_ms.len()), (0, 0, 1));
}

#[test]
fn side_by_side_ours_serves_everybody_and_a_dry_rung_costs_seconds() {
    let timers = Timers::default();
    let worlds = [
        ("1 dry spot pool", starved(1, HOUR)),
        ("4 dry spot pools", starved(4, HOUR)),
        ("64 dry spot pools", starved(64, HOUR)),
        ("nothing for 2 h, 40 nodes", outage()),
        ("spot every second minute", flapping()),
    ];
    let rows = compare(&worlds, Policy::ALL, &timers);
    println!("{}", table(&rows));
    let of = |name: &str, policy| {
        let row = rows.iter().find(|row| row.world == name && row.policy == policy);
        row.map(|row| row.provided.clone()).expect("every policy in every world")
    };
    for (name, _) in &worlds {
        let ours = of(name, Policy::Spotkeeper);
        assert_eq!(ours.served(), ours.ready_ms.len(), "{name}: everybody is served");
        assert_eq!(of(name, Policy::Handler).served(), 0, "{name}");
        for other in [Policy::ClusterAutoscaler, Policy::Karpenter] {
            let other = of(name, other).on_demand_ms.unwrap_or(u64::MAX);
            let dry = name.contains("dry");
            assert!(!dry || ours.on_demand_ms.is_some_and(|ours| ours < other), "{name}: {ours:?}");
        }
    }
    let calls = |policy| of(worlds[3].0, policy).calls;
    assert!(calls(Policy::Spotkeeper) * 2 < calls(Policy::Karpenter), "an outage costs probes and no more");
}

#[test]
fn what_was_taken_counts_until_what_is_left_changes_and_what_is_refused_is_not_to_be_had() {
    let mut supply = a_cluster(1).at(1_000, left(Spot, Some(1))).at(5_000, left(Spot, Some(1)));
    (supply.types, supply.zones) = (1, 1);
    let refuse = |code| Step::Refuse { capacity: OnDemand, code };
    let supply = supply.at(1_000, refuse(Some("VcpuLimitExceeded"))).at(9_000, refuse(None));
    let mut market = Market::of(&supply);
    let [spot, on_demand] = [market.pools[0].clone(), market.pools[1].clone()];
    assert!(market.take(&spot, 2_000) && !market.take(&spot, 2_000));
    assert_eq!(market.first_room(&spot, 2_000, 9_000), Some(5_000));
    assert!(market.take(&spot, 5_000) && !market.take(&spot, 60_000));
    assert_eq!(market.first_room(&on_demand, 2_000, 60_000), Some(9_000));
    assert_eq!(market.first_room(&on_demand, 2_000, 9_000), None);
}

#[test]
fn the_models_give_the_same_at_every_run() {
    for policy in Policy::ALL {
        assert_eq!(run(*policy, &flapping(), &Timers::default()), run(*policy, &flapping(), &Timers::default()));
    }
}
