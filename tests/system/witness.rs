//! EC2 as the third witness, in the whole system: what nobody announces, or the queue alone.

use spotkeeper::sim::scenario::ImdsState;
use spotkeeper::sim::system::Report;
use spotkeeper::sim::system::scenario::{Scenario, Step, Which, a_cluster, a_deployment};

use super::{MINUTE, holds};

fn the_shop(nodes: usize) -> Scenario {
    a_cluster(nodes).workload(a_deployment("shop/web", 4 * nodes as u32).budget(nodes as u32))
}

fn decided(report: &Report, reason: &str) -> usize {
    report.outcome.decisions.iter().filter(|one| one.reason == reason).count()
}

#[test]
fn a_node_that_is_taken_while_its_agent_is_dead_and_no_queue_is_read_is_replaced() {
    for seed in 0..6 {
        let mut scenario = the_shop(4).named("taken-unheard").seed(seed);
        scenario.queue = false;
        let dead = Step::KillAgents { of: Which::Node(3), down_ms: 100 * MINUTE };
        let scenario = scenario.at(5_000, dead).interrupts(10_000, Which::Node(3)).until(60 * MINUTE);
        let report = holds(scenario);
        assert_eq!(decided(&report, "TakenUnheard"), 1, "{}", report.told());
        assert_eq!((report.outcome.capacity.claims, report.outcome.capacity.ready), (1, 1), "{}", report.told());
        assert_eq!(report.outcome.workload("shop/web").unwrap().available_at_end, 16);
    }
}

#[test]
fn what_the_queue_alone_announces_of_a_dead_agents_node_is_seen_in_ec2_and_replaced_once() {
    for seed in 0..6 {
        let scenario = the_shop(4).named("ec2-bears-it-out").seed(seed);
        // Nobody asks IMDS; other nodes' agents read the queue.
        let dead = Step::KillAgents { of: Which::Node(3), down_ms: 100 * MINUTE };
        let report = holds(scenario.at(5_000, dead).interrupts(10_000, Which::Node(3)).until(60 * MINUTE));
        assert_eq!(decided(&report, "SeenInEC2"), 1, "{}", report.told());
        // Nobody stands in for agents in these worlds: that it has ended is written down when it has.
        assert_eq!(decided(&report, "TakenUnheard"), 1, "{}", report.told());
        assert_eq!((report.outcome.capacity.claims, report.outcome.capacity.ready), (1, 1), "{}", report.told());
    }
}

#[test]
fn an_imds_that_hangs_changes_nothing_of_that() {
    let hangs = Step::Imds { of: Which::All, state: ImdsState::Hangs };
    let scenario = the_shop(3).named("imds-hangs").at(1_000, hangs).interrupts(10_000, Which::Node(0));
    let report = holds(scenario.until(60 * MINUTE));
    assert_eq!(report.outcome.pods.killed, 0, "{}", report.told());
}
