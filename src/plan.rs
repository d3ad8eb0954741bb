//! What would happen to a cluster if AWS took some of its nodes now: the real decision code in simulated time, on what
//! is read of a cluster that exists.
//!
//! ```text
//!  kubectl -o json ─┐
//!                   ├─> Objects ─> Snapshot ─┬─> sim::system::Scenario ─> Report ─┐
//!  the API server ──┘                        └───────────── what it says ─────────┴─> Plan ─> text, JSON
//! ```
//!
//! - [`objects`], [`reading`]: what is read of Kubernetes' objects, from which bytes.
//! - [`selector`]: labels, affinity, taints.
//! - [`snapshot`]: the cluster at one moment.
//! - [`outcome`]: what would happen, as data; [`text`]: for people.
//! - [`question`]: which nodes AWS takes; [`types`]: what EC2 has; [`world`]: the simulator's world of both.

mod analysis;
mod findings;
pub mod objects;
pub mod outcome;
pub mod question;
pub mod reading;
pub mod selector;
pub mod snapshot;
pub mod text;
pub mod types;
pub mod world;

use analysis::Run;
use outcome::Plan;
use question::{Outage, Question, QuestionError};
use snapshot::Snapshot;

use crate::sim::system::scenario::TWO_MINUTES;

/// Answers a question to a cluster. The same snapshot, question and version give the same plan.
pub fn plan(snapshot: &Snapshot, question: &Question) -> Result<Plan, QuestionError> {
    let lost = question.outage.of(snapshot)?;
    let world = world::world(snapshot, question, &lost);
    let report = world.scenario.clone().judge();
    let run = Run { snapshot, question, lost: &lost, world: &world, report: &report };
    let (nodes, pods, down) = (run.nodes(), run.pods(), run.down());
    let (findings, notes) = findings::found(&run, &nodes, &pods, &down);
    let gaps = snapshot.gaps.union(&world.gaps).map(|gap| gap.0.clone()).collect();
    Ok(Plan {
        outage: match &question.outage {
            Outage::Nodes(_) => nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>().join(", "),
            Outage::Zone(zone) => format!("all spot nodes in {zone}"),
            Outage::AllSpot => "all spot nodes".to_owned(),
        },
        seed: question.seed,
        nodes_in_cluster: snapshot.nodes.len(),
        notice_ms: TWO_MINUTES,
        margin_ms: u64::try_from(question.policy.margin.as_millis()).unwrap_or(u64::MAX),
        gaps,
        findings,
        notes,
        capacity: run.capacity(&nodes),
        nodes,
        pods,
        down,
    })
}
