//! EC2 as the third witness of a notice, and nodes that it takes while nobody hears of it.

use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{State, Step, a_cluster};

use super::worlds::{MINUTE, holds};

const FIRST: &str = "i-00000000000000001";

/// When something was said, in milliseconds.
#[track_caller]
fn said(report: &Report, words: &str) -> u64 {
    let line = report.story.iter().find(|line| line.contains(words));
    let line = line.unwrap_or_else(|| panic!("{words}: {}", report.told()));
    let secs: f64 = line.trim().split(' ').next().unwrap().parse().unwrap();
    (secs * 1_000.0) as u64
}

#[test]
fn a_notice_that_ec2_bears_out_is_written_down_and_replaced_within_seconds() {
    for seed in 0..20 {
        let mut supply = a_cluster(2).at(20_000, Step::QueueSays { node: 0, so: true });
        supply.seed = seed;
        let report = holds(supply);
        let seen = said(&report, "EC2 has marked its spot request");
        // It is marked within three seconds, and looked at after 1, 2, 4 and 8.
        assert!((21_000..29_000).contains(&seen), "seed {seed}: {seen}");
        let claim = &report.claims[&format!("{FIRST}-1")];
        assert!(claim.ready_ms.is_some_and(|at| at < 121_000), "seed {seed}: {}", report.told());
    }
}

#[test]
fn a_notice_that_ec2_does_not_bear_out_is_looked_for_to_its_deadline_and_no_longer() {
    let report = holds(a_cluster(2).at(20_000, Step::QueueSays { node: 0, so: false }));
    assert!(!report.says("is so: "), "{}", report.told());
    assert!(report.claims.is_empty(), "nobody is replaced");
    let looks = report.figures.looks;
    assert!((20..=28).contains(&looks), "{looks} looks in two minutes");
}

#[test]
fn many_notices_share_the_looks() {
    let mut supply = a_cluster(300);
    for node in 0..300 {
        supply = supply.at(20_000, Step::QueueSays { node, so: node < 100 });
    }
    let report = holds(supply);
    let seen = report.story.iter().filter(|line| line.contains(" is so: ")).count();
    assert_eq!(seen, 100, "{}", report.told());
    assert!(report.figures.looks <= 70, "{} looks for 300 notices", report.figures.looks);
}

#[test]
fn a_new_leader_goes_on_looking() {
    for down_ms in [500, 40_000] {
        let supply = a_cluster(2).at(20_000, Step::QueueSays { node: 0, so: true });
        let report = holds(supply.at(20_400, Step::KillLeader { down_ms }));
        assert!(report.says("EC2 has marked its spot request"), "{}", report.told());
        assert!(report.claims[&format!("{FIRST}-1")].ready_ms.is_some());
    }
}

#[test]
fn what_ec2_says_is_read_as_soon_as_it_can_be_asked_again() {
    let supply = a_cluster(2).at(20_000, Step::QueueSays { node: 0, so: true });
    let supply = supply.at(20_500, Step::Ec2(State::Away)).at(50_000, Step::Ec2(State::Well));
    let report = holds(supply);
    let seen = said(&report, "EC2 has marked its spot request");
    assert!((50_000..75_000).contains(&seen), "{seen}");
}

#[test]
fn a_node_that_was_taken_unheard_is_replaced() {
    for (nodes_stay, seed) in [(false, 0), (true, 0), (false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut supply = a_cluster(2).at(20_000, Step::TakeUnheard { node: 0 });
        (supply.nodes_stay, supply.seed) = (nodes_stay, seed);
        let report = holds(supply);
        assert!(report.says("nobody had heard of it"), "{}", report.told());
        let claim = &report.claims[&format!("{FIRST}-1")];
        assert!(claim.ready_ms.is_some_and(|at| at < 4 * MINUTE), "{}", report.told());
        assert_eq!(report.claims.len(), 1, "once");
        assert!(!report.nodes_left.contains(&format!("node-{FIRST}")), "{:?}", report.nodes_left);
    }
}

#[test]
fn a_node_that_somebody_ended_by_hand_is_not_replaced() {
    for nodes_stay in [false, true] {
        let mut supply = a_cluster(2).at(20_000, Step::Shut { node: 0 });
        supply.nodes_stay = nodes_stay;
        let report = holds(supply);
        assert!(report.claims.is_empty() && !report.says("nobody had heard of it"), "{}", report.told());
    }
}

#[test]
fn a_replica_that_leads_only_later_knows_the_nodes_that_went() {
    // The Node goes with its instance, and the leader with it.
    let mut supply = a_cluster(2).at(20_000, Step::TakeUnheard { node: 0 });
    supply.settings.resync = std::time::Duration::from_secs(120);
    let report = holds(supply.at(20_100, Step::KillLeader { down_ms: 200_000 }));
    assert!(report.figures.takeovers >= 2, "{}", report.told());
    assert!(report.claims[&format!("{FIRST}-1")].ready_ms.is_some(), "{}", report.told());
}

#[test]
fn the_end_of_what_was_taken_unheard_is_written_down_once_the_api_server_takes_it() {
    let mut supply = a_cluster(2).at(20_000, Step::TakeUnheard { node: 0 });
    (supply.nodes_stay, supply.faults.api_refused_one_in) = (true, Some(2));
    let supply = supply.at(21_000, Step::Api(State::Away)).at(4 * MINUTE, Step::Api(State::Well));
    let report = holds(supply);
    assert!(report.claims[&format!("{FIRST}-1")].ready_ms.is_some(), "{}", report.told());
}

#[test]
fn a_stand_in_that_is_taken_unheard_is_replaced_too() {
    let supply = a_cluster(1).at(2_000, Step::Doom { node: 0 });
    let report = holds(supply.at(6 * MINUTE, Step::TakeUnheard { node: 1 }).until(20 * MINUTE));
    let claim = report.claims.get("i-00000000000000002-1");
    assert!(claim.is_some_and(|claim| claim.ready_ms.is_some()), "{}", report.told());
}

#[test]
fn what_was_taken_unheard_is_written_down_to_the_end_by_who_never_saw_its_node() {
    for seed in 0..20 {
        let mut supply = a_cluster(2).at(20_000, Step::TakeUnheard { node: 0 });
        supply.seed = seed;
        supply.settings.resync = std::time::Duration::from_secs(1);
        // The notice is in the record by then; the Node goes while nobody looks.
        let kill = |replica| Step::Kill { replica, down_ms: 60_000 };
        let report = holds(supply.at(26_000, kill(0)).at(26_000, kill(1)).until(20 * MINUTE));
        let claim = report.claims.get(&format!("{FIRST}-1"));
        assert!(claim.is_some_and(|claim| claim.ready_ms.is_some()), "seed {seed}: {}", report.told());
    }
}

#[test]
fn a_node_whose_record_somebody_deletes_is_not_written_down_anew() {
    for nodes_stay in [false, true] {
        let mut supply = a_cluster(2).at(2_000, Step::Doom { node: 0 });
        supply.nodes_stay = nodes_stay;
        // It is over when it is ended by whoever saw it through.
        let supply = supply.at(130_000, Step::Over { node: 0 }).at(131_000, Step::DeleteRecord { node: 0 });
        let report = holds(supply.until(20 * MINUTE));
        assert!(!report.says("nobody had heard of it"), "{}", report.told());
        assert_eq!(report.claims.len(), 1);
    }
}
