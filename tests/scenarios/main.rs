//! Interruptions by hand, in the simulator: one test for each thing that the agent promises.

mod capacity;
mod drains;
mod notices;
mod seeds;
mod takeover;
mod troubles;
mod witness;

use spotkeeper::interruption::Verb;
use spotkeeper::interruption::mark::INTERRUPTION;
use spotkeeper::sim::scenario::{NodeSpec, Scenario, a_cluster, a_node, a_pod};
use spotkeeper::sim::{NodeAtEnd, PodAtEnd, Report};

const NODE: &str = "node-a";

/// How a world ended that raised no objection.
struct Ended {
    report: Report,
    nodes: Vec<NodeAtEnd>,
}

/// Runs a scenario; no invariant may have been violated.
#[track_caller]
fn ran(scenario: Scenario) -> Ended {
    let (report, nodes) = scenario.run_to_end();
    assert!(report.findings.is_empty(), "{}", report.told());
    Ended { report, nodes }
}

/// One node with these pods.
fn one_node(pods: impl IntoIterator<Item = spotkeeper::sim::scenario::PodSpec>) -> Scenario {
    a_cluster().node(pods.into_iter().fold(a_node(NODE), NodeSpec::with))
}

/// One node with two plain pods.
fn two_pods() -> Scenario {
    one_node([a_pod("ns/web-0"), a_pod("ns/web-1")])
}

impl Ended {
    fn node(&self) -> &NodeAtEnd {
        &self.nodes[0]
    }

    #[track_caller]
    fn pod(&self, path: &str) -> &PodAtEnd {
        let mut pods = self.nodes.iter().flat_map(|node| &node.pods);
        pods.find(|pod| pod.path == path).unwrap_or_else(|| panic!("no pod {path}"))
    }

    fn phase(&self) -> String {
        let phase = self.node().record.as_ref().and_then(|status| status.phase);
        phase.map(|phase| phase.to_string()).unwrap_or_default()
    }

    fn episode(&self) -> i64 {
        self.node().record.as_ref().map_or(0, |status| status.episode)
    }

    fn is_marked(&self) -> bool {
        let node = &self.node().node;
        node.unschedulable && node.taints.iter().any(|taint| taint.key == INTERRUPTION)
    }

    fn asks(&self) -> usize {
        self.nodes.iter().flat_map(|node| &node.pods).map(|pod| pod.asked.len()).sum()
    }

    #[track_caller]
    fn all_out_by(&self, millis: u64) {
        for pod in self.nodes.iter().flat_map(|node| &node.pods) {
            let out = pod.out_at_ms.is_some_and(|at| at <= millis);
            assert!(out, "{} was not out by {millis} ms\n{}", pod.path, self.report.told());
        }
    }

    #[track_caller]
    fn says(&self, words: &str) {
        assert!(self.report.says(words), "nobody said `{words}`:\n{}", self.report.told());
    }

    #[track_caller]
    fn never_says(&self, words: &str) {
        assert!(!self.report.says(words), "somebody said `{words}`:\n{}", self.report.told());
    }
}

/// The one ask that was accepted.
#[track_caller]
fn only(pod: &PodAtEnd) -> (u64, Verb, Option<u32>) {
    assert_eq!(pod.accepted.len(), 1, "{pod:?}");
    pod.accepted[0]
}
