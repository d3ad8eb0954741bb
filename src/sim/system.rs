//! The whole system in one virtual time: agents on their nodes, two provisioners, workloads and their controllers, a
//! scheduler, an API server and an EC2.
//!
//! ```text
//!  Scenario ──> System ── the earliest event of three queues ──> Report
//!                 │ agents:    the world of core 1: agents, kubelets, budgets, the queue, IMDS
//!                 │ supply:    the world of core 2: replicas, claims, launches, pools, boots
//!                 └ system:    controllers, the scheduler, what each world hears of the other, cost, timelines
//!
//!  IMDS ─> agent ─> Interruption ─> provisioner ─> EC2 ─> Node ─> scheduler ─> pods
//!                        ^               │
//!                        └─ replacement ─┘
//! ```
//!
//! The cores are the real ones; the invariants are those of both worlds, and that every pod of a controller runs again.

mod draw;
pub mod given;
mod outcome;
mod pools;
pub mod scenario;
mod steps;
mod verdict;
mod workloads;
mod world;

pub use outcome::{
    Calls, Capacity, ClaimOutcome, Cost, Decision, FindingOutcome, NodeState, NodeTimeline, Outcome, PodState,
    PodTimeline, Pods, PoolState, PoolTimeline, Report, Timelines, Work, WorkloadOutcome,
};
pub use scenario::Scenario;

impl Scenario {
    /// Runs it, and tells its story.
    pub fn run(self) -> Report {
        world::System::new(self, true).run()
    }

    /// Runs it without telling, which takes less time.
    pub fn judge(self) -> Report {
        world::System::new(self, false).run()
    }
}

/// Runs the system of one seed, and tells its story.
pub fn run(seed: u64) -> Report {
    Scenario::from_seed(seed).run()
}

/// Runs the system of one seed without telling.
pub fn judge(seed: u64) -> Report {
    Scenario::from_seed(seed).judge()
}
