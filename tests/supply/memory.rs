//! What a leader has learnt of shortages and trouble outlives it (acceptance list R2, R8).

use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{Step, Supply, a_cluster};

use super::worlds::{MINUTE, holds};

fn dry() -> Step {
    Step::Left { capacity: Spot, zone: None, left: Some(0) }
}

/// Nothing anywhere for an hour; whoever leads is killed at these minutes.
fn an_hour_of_nothing(kills: std::ops::Range<u64>, fails: bool) -> Report {
    let none = Step::Left { capacity: OnDemand, zone: None, left: Some(0) };
    let mut supply = a_cluster(10).at(1_000, dry()).at(1_000, none).at(5_000, Step::DoomMany { from: 0, count: 10 });
    supply.faults.memory_fails = fails;
    for minute in kills {
        supply = supply.at(minute * MINUTE, Step::KillLeader { down_ms: 5_000 });
    }
    holds(supply.until(61 * MINUTE))
}

#[test]
fn in_a_total_outage_a_leader_that_is_killed_every_minute_costs_no_more_than_the_probes() {
    let calm = an_hour_of_nothing(0..0, false).figures;
    let (kept, lost) = (an_hour_of_nothing(1..60, false).figures, an_hour_of_nothing(1..60, true).figures);
    println!(
        "an hour of nothing: {} calls by one leader, {} by {}, and {} where none knows of the last",
        calm.calls, kept.calls, kept.takeovers, lost.calls
    );
    assert!(kept.takeovers >= 50 && lost.takeovers >= 50);
    // A few more: what was learnt in the last moments before a leader died is learnt again.
    assert!(kept.calls <= calm.calls + calm.calls / 4, "{} of {}", kept.calls, calm.calls);
    assert!(lost.calls >= 2 * kept.calls, "a test that could not fail: {}", lost.calls);
}

/// One node is doomed while spot has nothing, its leader dies, and another is doomed.
fn one_and_another() -> Supply {
    let supply = a_cluster(2).at(1_000, dry()).at(5_000, Step::Doom { node: 0 });
    supply.at(30_000, Step::KillLeader { down_ms: 300_000 }).at(90_000, Step::Doom { node: 1 })
}

#[test]
fn the_next_leader_does_not_try_what_the_last_one_knew_to_be_short() {
    let report = holds(one_and_another().until(150_000));
    // But for the pool of the first node, which was avoided and so is not known to be short.
    assert!(report.says("shortages that an earlier leader knew of: 11"), "{}", report.told());
    assert!(report.says("i-00000000000000002-1.1: EC2 is asked for 1 × spot out of 1 offerings"), "{}", report.told());
}

#[test]
fn what_cannot_be_read_is_not_known_and_is_waited_for_two_seconds_at_most() {
    let mut supply = one_and_another();
    supply.faults.memory_fails = true;
    // Doomed just as the next one begins to lead, some 18 s after the last renewal of the one that was killed.
    supply.script.retain(|(at, _)| *at < 90_000);
    for node_at in (40_000..52_000).step_by(500) {
        let mut supply = supply.clone();
        supply.script.push((node_at, Step::Doom { node: 1 }));
        let report = holds(supply.until(150_000));
        assert!(report.says("what an earlier leader has left of shortages could not be read"), "{}", report.told());
        assert_eq!(report.figures.calls_of, [2, 2, 0], "{}", report.told());
        let leads = report.story.iter().rfind(|line| line.contains("this replica leads")).unwrap();
        let leads_ms = (leads.trim().split(' ').next().unwrap().parse::<f64>().unwrap() * 1_000.0) as u64;
        let claim = report.claims.values().nth(1).unwrap();
        let waited = claim.asked_ms[&Spot] - claim.wanted_ms.max(leads_ms);
        // Two seconds, a listing, two writes and a call of at most 1.5 s.
        assert!(waited <= 3_800, "{waited}: {}", report.told());
    }
}

#[test]
fn what_makes_no_sense_is_said_and_stands_in_nobodys_way() {
    for text in ["", "null", "[]", "{}", "{\"at\":\"yesterday\"}", "{\"at\":\"2026-04-24T17:00:00Z\",\"short\":7}"] {
        let report = holds(one_and_another().at(31_000, Step::Memory(text)).until(150_000));
        assert!(report.says("makes no sense"), "{text}: {}", report.told());
        assert_eq!(report.figures.calls_of, [2, 2, 0], "{text}: {}", report.told());
    }
}

#[test]
fn of_a_record_that_makes_sense_in_part_that_part_counts() {
    let text = r#"{"at":"2026-09-21T14:13:50Z","looksSince":7,"new":{},"trouble":[null],"short":[
        {"what":{"market":"spot"},"until":"2026-09-21T14:16:00Z","seconds":180},
        {"what":{"market":"sport"},"until":"2026-09-21T14:16:00Z","seconds":180},
        {"what":{"colour":"blue"},"until":"2026-09-21T14:16:00Z","seconds":180},
        {"what":{"subnet":""},"until":"2026-09-21T14:16:00Z","seconds":180},
        {"what":{"subnet":"subnet-a"},"until":"never","seconds":180},
        {"what":{"subnet":"subnet-a"},"until":"2026-09-21T14:16:00Z","seconds":-1}
    ]}"#;
    let report = holds(one_and_another().at(31_000, Step::Memory(text)).until(150_000));
    assert!(report.says("shortages that an earlier leader knew of: 1;"), "{}", report.told());
    assert_eq!(report.figures.calls_of, [1, 2, 0], "{}", report.told());
}

#[test]
fn a_belief_without_end_ends_whatever_the_clocks_say() {
    // Written by a hand or a clock that is wrong: everything is short until the end of time.
    let text = r#"{"at":"9999-01-01T00:00:00Z","short":[
        {"what":{"market":"spot"},"until":"9999-01-01T00:00:00Z","seconds":18446744073709551615},
        {"what":{"market":"on-demand"},"until":"9999-01-01T00:00:00Z","seconds":18446744073709551615}
    ]}"#;
    let supply = a_cluster(1).at(2_000, Step::KillLeader { down_ms: 5_000 }).at(2_000, Step::Memory(text));
    let report = holds(supply.at(20_000, Step::Doom { node: 0 }).until(60 * MINUTE));
    let claim = report.claims.values().next().unwrap();
    let after = claim.asked_ms.values().min().unwrap() - claim.wanted_ms;
    assert!((30 * MINUTE..34 * MINUTE).contains(&after), "{after} ms: {}", report.told());
    assert!(claim.ready_ms.is_some());
}

#[test]
fn replicas_whose_clocks_differ_by_minutes_believe_no_longer_than_they_may() {
    for off in [-60, -10, -1, 1, 10, 60] {
        let mut supply = one_and_another().at(3 * MINUTE, Step::Left { capacity: Spot, zone: None, left: None });
        // Another node, when a belief of the first half hour must have ended.
        (supply.nodes, supply.settings.returns.surge) = (3, 0);
        supply.clocks_off_ms = [0, off * MINUTE as i64];
        let report = holds(supply.at(40 * MINUTE, Step::Doom { node: 2 }));
        let last = &report.claims["i-00000000000000003-1"];
        assert_eq!(last.capacity, Some(Spot), "off by {off} min: {}", report.told());
        assert!(last.asked_ms[&Spot] - last.wanted_ms < 3_000, "off by {off} min: {}", report.told());
    }
}

#[test]
fn quiet_is_remembered_so_that_nodes_return_though_leaders_change_every_few_minutes() {
    let fell_back = || {
        let supply = a_cluster(1).at(1_000, dry()).at(2_000, Step::Doom { node: 0 });
        let mut supply = supply.at(5 * MINUTE, Step::Left { capacity: Spot, zone: None, left: None });
        for at in (7..100).step_by(4) {
            supply = supply.at(at * MINUTE, Step::KillLeader { down_ms: 5_000 });
        }
        supply.until(2 * 60 * MINUTE)
    };
    let report = holds(fell_back());
    assert_eq!((report.figures.returns, report.figures.returned), (1, 1), "{}", report.told());
    let mut forgetful = fell_back();
    forgetful.faults.memory_fails = true;
    forgetful.ends_ms = 100 * MINUTE;
    assert_eq!(forgetful.run().figures.returns, 0, "a test that could not fail");
}
