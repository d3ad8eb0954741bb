//! Return to spot: when, how often, and that what fails changes nothing (acceptance list L4, L7, F4, F15).

use std::time::Duration;

use spotkeeper::domain::offering::CapacityType::{self, OnDemand, Spot};
use spotkeeper::sim::supply::Report;
use spotkeeper::sim::supply::scenario::{State, Step, Supply, a_cluster};

use super::worlds::holds;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn left(capacity: CapacityType, zone: Option<usize>, left: Option<u32>) -> Step {
    Step::Left { capacity, zone, left }
}

fn dry() -> Step {
    left(Spot, None, Some(0))
}

fn back() -> Step {
    left(Spot, None, None)
}

/// So many nodes fell back to on-demand in the first minute.
fn fell_back(nodes: usize) -> Supply {
    a_cluster(nodes).at(1_000, dry()).at(2_000, Step::DoomMany { from: 0, count: nodes })
}

/// At which minutes the story says this.
fn minutes(report: &Report, words: &str) -> Vec<u64> {
    let said = report.story.iter().filter(|line| line.contains(words));
    said.map(|line| line.trim().split('.').next().unwrap().parse::<u64>().unwrap() / 60).collect()
}

const TRIED: &str = "spot has been quiet: a spot node is tried";

#[test]
fn a_node_returns_when_spot_has_been_quiet_and_it_has_stayed_long_enough() {
    let report = holds(fell_back(1).at(5 * MINUTE, back()).until(2 * HOUR));
    // Ready about a minute after the notice, and 30 min of stay.
    assert!(matches!(minutes(&report, TRIED)[..], [30 | 31]), "{}", report.told());
    assert_eq!((report.figures.returns, report.figures.returned, report.figures.ended), (1, 1, 1));
    let order =
        [TRIED, "return-1: node node-", "a spot node has taken its place: its drain is asked for", "it is ended"];
    let at = order.map(|words| report.story.iter().position(|line| line.contains(words)));
    assert!(at.is_sorted() && at[0].is_some(), "the spot node is there first: {}", report.told());
    assert_eq!(report.claims_left, ["i-00000000000000002-return-1"]);
}

#[test]
fn a_return_that_finds_nothing_changes_nothing_and_doubles_the_wait() {
    let report = holds(fell_back(1).until(12 * HOUR));
    let tried = minutes(&report, TRIED);
    let pauses: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // And up to half a minute each, so that what becomes quiet a little later is asked as well.
    let doubled = pauses.iter().zip([20, 40, 80, 160, 240]).all(|(pause, wait)| (wait..=wait + 1).contains(pause));
    assert!(pauses.len() == 5 && doubled, "minutes of quiet: {pauses:?}: {}", report.told());
    assert_eq!((report.figures.returned, report.figures.ended, report.figures.launched), (0, 0, 1));
    assert!(!report.says("its drain is asked for"), "the node was never touched");
}

#[test]
fn l4_spot_that_flaps_every_minute_for_a_day_moves_nodes_a_bounded_number_of_times() {
    let mut supply = fell_back(4);
    for minute in 2..24 * 60 {
        let step = if minute % 2 == 0 { left(Spot, None, Some(2)) } else { dry() };
        supply = supply.at(minute * MINUTE, step);
        if minute % 7 == 0 {
            supply = supply.at(minute * MINUTE + 500, Step::DoomSpotStandIn);
        }
    }
    let report = holds(supply.until(24 * HOUR));
    println!(
        "a day of flapping, 4 nodes: {} returns begun, {} completed, {} instances",
        report.figures.returns, report.figures.returned, report.figures.launched
    );
    // Each stays for 30 min, waits for 10 of quiet and boots: no more than 36 a day for each.
    assert!(report.figures.returns <= 4 * 36, "{}", report.figures.returns);
    assert!(report.figures.launched <= 4 + 2 * report.figures.returns + 206, "{}", report.figures.launched);
}

#[test]
fn f4_spot_that_is_back_in_one_zone_only_is_where_the_node_returns_to() {
    let report = holds(fell_back(1).at(5 * MINUTE, left(Spot, Some(2), None)).until(2 * HOUR));
    assert_eq!(report.figures.returned, 1, "{}", report.told());
    assert!(report.says("was launched: spot m1a.2xlarge in zone-c") || report.says("in zone-c"), "{}", report.told());
}

#[test]
fn f15_of_two_nodes_that_may_return_at_surge_one_the_second_waits_for_the_first() {
    let report = holds(fell_back(2).at(5 * MINUTE, back()).until(3 * HOUR));
    assert_eq!((report.figures.returns, report.figures.returned), (2, 2), "{}", report.told());
    let lines = |words: &str| -> Vec<usize> {
        report.story.iter().enumerate().filter(|(_, line)| line.contains(words)).map(|(at, _)| at).collect()
    };
    let (tried, ended) = (lines(TRIED), lines("it is ended"));
    assert!(ended[0] < tried[1], "one at a time: {}", report.told());
}

/// What the second may ask for is what the first is the probe of: it used to find all of it taken, and to wait for ten
/// more minutes.
#[test]
fn of_two_nodes_that_may_return_at_surge_two_the_second_follows_the_probe_of_the_first() {
    let mut supply = fell_back(2).at(5 * MINUTE, back());
    supply.settings.returns.surge = 2;
    let report = holds(supply.until(3 * HOUR));
    assert_eq!((report.figures.returns, report.figures.returned), (2, 2), "{}", report.told());
    let tried = minutes(&report, TRIED);
    assert!(tried[1] - tried[0] <= 1, "both in the same minute: {tried:?}: {}", report.told());
}

#[test]
fn no_more_than_so_many_returns_begin_in_an_hour() {
    let mut supply = fell_back(6).at(5 * MINUTE, back());
    supply.settings.returns.max_per_hour = Some(2);
    let report = holds(supply.until(5 * HOUR));
    let tried = minutes(&report, TRIED);
    assert_eq!(tried.len(), 6, "{}", report.told());
    assert!(tried.windows(3).all(|three| three[2] - three[0] >= 59), "{tried:?}");
}

#[test]
fn with_surge_zero_nothing_returns() {
    let mut supply = fell_back(1).at(5 * MINUTE, back());
    supply.settings.returns.surge = 0;
    assert_eq!(holds(supply.until(5 * HOUR)).figures.returns, 0);
}

#[test]
fn a_spot_node_that_is_taken_while_the_old_one_is_drained_leaves_the_old_one_as_it_was() {
    // Budgets hold the drain; then the new spot node is interrupted.
    let supply = fell_back(1).at(5 * MINUTE, back()).at(31 * MINUTE, Step::Block(true));
    let report = holds(supply.at(35 * MINUTE, Step::DoomSpotStandIn).at(36 * MINUTE, dry()).until(50 * MINUTE));
    assert!(report.says("stays on-demand (its spot node is interrupted)"), "{}", report.told());
    assert_eq!((report.figures.returned, report.figures.launched), (0, 2), "{}", report.told());
    assert_eq!(report.claims_left, ["i-00000000000000001-1"], "{}", report.told());
    assert!(report.cordoned.is_empty(), "its agent has undone the cordon: {:?}", report.cordoned);
}

#[test]
fn a_node_that_is_taken_itself_while_its_spot_node_boots_is_stood_in_for_by_that_one() {
    let mut supply = fell_back(1).at(5 * MINUTE, back());
    supply.settings.returns.min_stay = Duration::ZERO;
    supply.boot_ms = 120_000;
    let report = holds(supply.at(11 * MINUTE, Step::DoomStandIn).until(2 * HOUR));
    assert_eq!(report.figures.launched, 2, "{}", report.told());
}

#[test]
fn leaders_that_die_at_any_moment_of_a_return_leave_one_node() {
    for after in (0..240).step_by(6) {
        let mut supply = fell_back(1).at(5 * MINUTE, back());
        supply.settings.returns.min_stay = Duration::from_secs(300);
        supply.seed = after;
        let kill = Step::KillLeader { down_ms: 90_000 };
        let report = holds(supply.at(11 * MINUTE + after * 1_000, kill).until(2 * HOUR));
        let alive = report.figures.launched - report.figures.ended;
        assert_eq!(alive, 1, "after {after} s: {}", report.told());
        assert_eq!(report.claims_left.len(), 1, "after {after} s: {}", report.told());
    }
}

#[test]
fn a_pool_that_interrupts_is_avoided_for_a_while_and_blocks_nobody_who_has_nothing_else() {
    // Node 0 is in zone-a; its stand-in goes elsewhere.
    let mut supply = a_cluster(2).at(2_000, Step::Doom { node: 0 });
    supply.types = 1;
    let report = holds(supply);
    assert!(report.says("spot m1a.2xlarge in zone-a is being interrupted: new nodes go elsewhere first"));
    assert!(report.says("EC2 is asked for 1 × spot out of 2 offerings"), "{}", report.told());
    let mut supply = a_cluster(1).at(2_000, Step::Doom { node: 0 });
    (supply.types, supply.zones) = (1, 1);
    let report = holds(supply);
    assert_eq!(report.claims.values().next().unwrap().capacity, Some(Spot), "there is no other: {}", report.told());
}

#[test]
fn l7_what_a_recommendation_replaces_does_not_go_back_where_it_was_recommended_to_leave() {
    let mut supply = a_cluster(1).at(2_000, Step::Recommend { node: 0 });
    (supply.types, supply.zones) = (1, 1);
    supply.settings.replace_on_rebalance = true;
    let report = holds(supply);
    let claim = report.claims.values().next().unwrap();
    assert_eq!(claim.capacity, Some(OnDemand), "{}", report.told());
    assert_eq!(report.figures.calls_of[0], 0, "its pool is not asked: {}", report.told());
}

#[test]
fn a_return_that_fails_while_nobody_leads_is_taken_back_by_the_next_leader() {
    let supply = fell_back(1).at(5 * MINUTE, back()).at(31 * MINUTE, Step::Block(true)).at(36 * MINUTE, dry());
    let kill = |replica| Step::Kill { replica, down_ms: 240_000 };
    let supply = supply.at(35 * MINUTE, kill(0)).at(35 * MINUTE, kill(1)).at(35 * MINUTE + 10, Step::DoomSpotStandIn);
    let report = holds(supply.until(55 * MINUTE));
    assert_eq!(report.figures.returned, 0, "{}", report.told());
    assert_eq!(report.claims_left, ["i-00000000000000001-1"], "{}", report.told());
    assert!(report.cordoned.is_empty(), "{:?}: {}", report.cordoned, report.told());
}

#[test]
fn a_node_that_cannot_be_emptied_holds_up_no_other_for_longer_than_an_hour() {
    let supply = fell_back(2).at(5 * MINUTE, back()).at(31 * MINUTE, Step::Block(true));
    let report = holds(supply.until(150 * MINUTE));
    let tried = minutes(&report, TRIED);
    assert!(tried.len() == 2 && (60..=64).contains(&(tried[1] - tried[0])), "{tried:?}: {}", report.told());
    assert!(report.says("an hour after its spot node was Ready (shop/web-0 by shop/web)"), "{}", report.told());
}

#[test]
fn a_node_on_which_a_pod_stays_is_not_moved() {
    let report = holds(fell_back(1).at(5 * MINUTE, back()).at(10 * MINUTE, Step::Stay).until(2 * HOUR));
    assert_eq!(report.figures.returns, 0, "{}", report.told());
}

/// The request for the return stood first in the record, and was taken for the only one: the other was sent again and
/// again, as fast as the API server answered.
#[test]
fn a_claim_that_is_deleted_while_its_return_is_held_up_is_asked_for_once() {
    let supply = fell_back(1).at(5 * MINUTE, back()).at(31 * MINUTE, Step::Block(true));
    let supply = supply.at(40 * MINUTE, Step::DeleteClaim).at(2 * HOUR, Step::Block(false));
    let report = holds(supply);
    assert!((2..5).contains(&report.figures.requests), "{} requests", report.figures.requests);
    assert_eq!(report.figures.ended, 1, "{}", report.told());
    assert_eq!(report.claims_left, ["i-00000000000000002-return-1"], "{}", report.told());
}

/// A return whose spot node boots in the twelfth minute.
fn on_its_way() -> Supply {
    let mut supply = fell_back(1).at(5 * MINUTE, back());
    supply.settings.returns.min_stay = Duration::ZERO;
    supply.boot_ms = 120_000;
    supply
}

#[test]
fn a_return_whose_node_goes_otherwise_before_it_is_ready_leaves_nothing() {
    // A person deletes its claim; somebody ends its instance.
    for gone in [Step::DeleteClaim, Step::Shut { node: 1 }] {
        let report = holds(on_its_way().at(11 * MINUTE, gone).until(2 * HOUR));
        assert_eq!((report.figures.returns, report.figures.launched), (1, 2), "{}", report.told());
        assert!(report.claims_left.is_empty(), "{:?}: {}", report.claims_left, report.told());
    }
}

#[test]
fn a_return_that_gives_nothing_when_its_node_has_gone_leaves_nothing() {
    let supply = on_its_way().at(10 * MINUTE, Step::Ec2(State::Away)).at(12 * MINUTE, Step::DeleteClaim);
    let report = holds(supply.at(13 * MINUTE, dry()).at(14 * MINUTE, Step::Ec2(State::Well)).until(2 * HOUR));
    assert_eq!((report.figures.returns, report.figures.launched), (1, 1), "{}", report.told());
    assert!(report.claims_left.is_empty(), "{:?}: {}", report.claims_left, report.told());
}

#[test]
fn a_node_is_not_emptied_towards_a_spot_node_that_is_not_ready_any_more() {
    let supply = fell_back(1).at(5 * MINUTE, back()).at(31 * MINUTE, Step::Block(true));
    let supply = supply.at(35 * MINUTE, Step::SpotStandInIs { ready: false }).at(36 * MINUTE, Step::Block(false));
    let report = holds(supply.clone().until(50 * MINUTE));
    assert_eq!((report.figures.returned, report.figures.ended), (0, 0), "{}", report.told());
    assert!(report.cordoned.is_empty(), "its agent has undone the cordon: {:?}", report.cordoned);
    let report = holds(supply.at(50 * MINUTE, Step::SpotStandInIs { ready: true }));
    assert_eq!((report.figures.returned, report.figures.ended), (1, 1), "{}", report.told());
}
