//! Which pods are asked, how, and when.

use spotkeeper::interruption::Verb;
use spotkeeper::sim::scenario::{Step, a_cluster, a_node, a_pod};

use super::{NODE, one_node, only, ran};

#[test]
fn a_budget_that_never_allows_is_asked_until_the_latest_start_and_is_named() {
    let scenario = one_node([a_pod("ns/db-0").budget("never")]).budget("never", 0, None);
    let ended = ran(scenario.spot_interruption(1_000, NODE, 119_000));
    let (at, verb, grace) = only(ended.pod("ns/db-0"));
    assert_eq!((verb, grace), (Verb::Delete, Some(30)));
    // D − m − g = 120 − 5 − 30 s.
    assert!((85_000..85_200).contains(&at), "{at}");
    ended.says("Blocked: ns/db-0 cannot be evicted yet: PodDisruptionBudget never");
    ended.says("LatestStart: ns/db-0");
    ended.all_out_by(115_000);
}

#[test]
fn while_a_budget_says_no_the_record_names_the_pod_and_the_budget() {
    let scenario = one_node([a_pod("ns/db-0").budget("never")]).budget("never", 0, None);
    let scenario = scenario.at(1_000, Step::Request { node: NODE.into(), deadline_ms: None });
    let ended = ran(scenario);
    let blocked = ended.node().record.clone().unwrap_or_default().pods.blocked;
    assert_eq!(blocked.len(), 1);
    assert_eq!((blocked[0].pod.as_str(), blocked[0].by.as_str()), ("ns/db-0", "PodDisruptionBudget never"));
}

#[test]
fn a_budget_that_frees_up_is_waited_for() {
    let pods = (0..3).map(|n| a_pod(&format!("ns/web-{n}")).budget("web"));
    let scenario = one_node(pods).budget("web", 1, Some(15_000));
    let ended = ran(scenario.spot_interruption(1_000, NODE, 120_000));
    for n in 0..3 {
        assert_eq!(only(ended.pod(&format!("ns/web-{n}"))).1, Verb::Evict);
    }
    ended.all_out_by(60_000);
}

#[test]
fn two_budgets_on_one_pod_are_waited_out_like_one_that_never_allows() {
    let pod = a_pod("ns/web").budget("one").budget("two");
    let scenario = one_node([pod]).budget("one", 9, None).budget("two", 9, None);
    let ended = ran(scenario.spot_interruption(1_000, NODE, 119_000));
    let (at, verb, _) = only(ended.pod("ns/web"));
    assert!(verb == Verb::Delete && (85_000..85_200).contains(&at), "{at}");
}

#[test]
fn a_notice_thirty_seconds_before_the_end_shortens_long_graces() {
    let pods = [a_pod("ns/long").grace(600).stops_in(600_000), a_pod("ns/short").grace(5)];
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 30_000));
    let grace = only(ended.pod("ns/long")).2.unwrap_or_default();
    assert!((24..=25).contains(&grace), "{grace}");
    assert_eq!(only(ended.pod("ns/short")).2, Some(5));
    ended.all_out_by(26_500);
}

#[test]
fn a_notice_five_seconds_before_the_end_gives_one_second_and_never_none() {
    let pods = [a_pod("ns/long").grace(600).stops_in(600_000), a_pod("ns/zero").grace(0)];
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 5_000));
    assert_eq!(only(ended.pod("ns/long")).2, Some(1));
    assert_eq!(only(ended.pod("ns/zero")).2, Some(0));
    ended.all_out_by(5_000);
}

#[test]
fn after_the_deadline_nothing_is_asked_any_more() {
    let scenario = one_node([a_pod("ns/web")]).imds_says(20_000, NODE, 15_000);
    let ended = ran(scenario);
    assert_eq!(ended.asks(), 0);
    let scenario = one_node([a_pod("ns/db").budget("never")]).budget("never", 0, None);
    // The API server is away until the deadline has passed.
    let scenario = scenario
        .api(500, spotkeeper::sim::scenario::ApiState::Away)
        .imds_says(1_000, NODE, 20_000)
        .api(21_000, spotkeeper::sim::scenario::ApiState::Well);
    let ended = ran(scenario);
    assert!(ended.pod("ns/db").asked.iter().all(|(at, _)| *at <= 20_000));
}

#[test]
fn a_pod_whose_grace_is_longer_than_the_time_left_still_has_its_budget_asked_for_ten_seconds() {
    let pod = a_pod("ns/db-0").grace(600).stops_in(20_000).budget("never");
    let scenario = one_node([pod]).budget("never", 0, None);
    let ended = ran(scenario.spot_interruption(1_000, NODE, 120_000));
    let first = ended.pod("ns/db-0").asked[0].0;
    let (at, verb, _) = only(ended.pod("ns/db-0"));
    assert_eq!(verb, Verb::Delete);
    assert!((10_000..10_300).contains(&(at - first)), "{}", at - first);
}

#[test]
fn two_members_of_a_quorum_on_two_doomed_nodes_are_not_killed_at_once() {
    let member = |n: u32| a_pod(&format!("ns/db-{n}")).grace(600).stops_in(20_000).budget("db");
    let scenario = a_cluster().node(a_node("node-a").with(member(0))).node(a_node("node-b").with(member(1))).budget(
        "db",
        1,
        Some(8_000),
    );
    let scenario = scenario.spot_interruption(1_000, "node-a", 120_000).spot_interruption(1_000, "node-b", 120_000);
    let ended = ran(scenario);
    let (first, second) = (only(ended.pod("ns/db-0")), only(ended.pod("ns/db-1")));
    assert_eq!((first.1, second.1), (Verb::Evict, Verb::Evict));
    assert!(first.0.abs_diff(second.0) >= 8_000, "{first:?} {second:?}");
}

#[test]
fn pods_of_every_kind_are_treated_as_they_should_be() {
    let pods = [
        a_pod("ns/zero").grace(0),
        a_pod("ns/thirty").grace(30),
        a_pod("ns/hundred-and-ten").grace(110).stops_in(90_000),
        a_pod("ns/six-hundred").grace(600).stops_in(500_000),
        a_pod("ns/db-0").of_a_stateful_set(),
        a_pod("ns/finalizer").finalizer(200_000),
        a_pod("ns/terminating").terminating().grace(60).stops_in(40_000),
        a_pod("ns/waits").waits(),
        a_pod("ns/stays").stays(),
        a_pod("ns/daemon").of_a_daemon_set(),
        a_pod("ns/mirror").mirror(),
        a_pod("ns/finished").finished(),
    ];
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 119_000));
    for path in ["stays", "daemon", "mirror", "finished"] {
        assert_eq!(ended.pod(&format!("ns/{path}")).asked, [], "{path}");
    }
    for path in ["zero", "thirty", "hundred-and-ten", "six-hundred", "db-0", "finalizer", "waits"] {
        let (_, verb, grace) = only(ended.pod(&format!("ns/{path}")));
        assert_eq!(verb, Verb::Evict, "{path}");
        assert_eq!(grace == Some(0), path == "zero", "{path}: {grace:?}");
        assert!(ended.pod(&format!("ns/{path}")).out_at_ms.is_some_and(|at| at <= 117_000), "{path}");
    }
    assert_eq!(ended.pod("ns/terminating").asked, [], "it is going, and in time");
    let waited = only(ended.pod("ns/waits")).0;
    assert!((85_000..85_500).contains(&waited), "it worked until its latest start: {waited}");
    assert_eq!(ended.phase(), "Drained");
}

#[test]
fn the_longest_graces_are_asked_first() {
    let pods = [a_pod("ns/a").grace(5), a_pod("ns/b").grace(110), a_pod("ns/c").grace(30)];
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 120_000));
    let order: Vec<&str> = ended.report.lines(" asks ").collect();
    let place = |pod: &str| order.iter().position(|line| line.contains(pod));
    assert!(place("ns/b") < place("ns/c") && place("ns/c") < place("ns/a"), "{order:?}");
}

#[test]
fn a_pod_that_was_given_a_grace_beyond_the_deadline_is_asked_once_more_with_a_shorter_one() {
    let pod = a_pod("ns/going").terminating().grace(600).stops_in(500_000);
    let ended = ran(one_node([pod]).spot_interruption(1_000, NODE, 60_000));
    assert_eq!(ended.pod("ns/going").asked.len(), 1);
    ended.says("it is shortened");
    ended.all_out_by(57_000);
}

#[test]
fn a_pod_that_is_blocked_late_in_the_margin_is_not_asked_in_circles() {
    let pods = (0..20).map(|n| a_pod(&format!("ns/{n}")).grace(600).stops_in(300_000));
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 4_000));
    assert_eq!(ended.asks(), 20);
}

#[test]
fn a_pod_that_appears_during_the_drain_is_asked_as_well() {
    let late = Step::NewPod { node: NODE.into(), pod: a_pod("ns/late") };
    let scenario = one_node([a_pod("ns/web").grace(60).stops_in(50_000)]);
    let ended = ran(scenario.spot_interruption(1_000, NODE, 120_000).at(30_000, late));
    assert!(ended.pod("ns/late").out_at_ms.is_some_and(|at| at < 33_000));
}

#[test]
fn a_hundred_and_ten_pods_are_asked_within_a_second() {
    let pods = (0..110).map(|n| a_pod(&format!("ns/{n}")));
    let ended = ran(one_node(pods).spot_interruption(1_000, NODE, 120_000));
    let asked = |n: u32| ended.pod(&format!("ns/{n}")).asked[0].0;
    let (first, last) = ((0..110).map(asked).min(), (0..110).map(asked).max());
    assert!(last.zip(first).is_some_and(|(last, first)| last - first < 1_000));
    ended.all_out_by(6_000);
}
