//! Replacement capacity in virtual time: two replicas of the real core 2, an API server, and an EC2 whose pools run dry,
//! whose answers get lost and whose instances take their time.
//!
//! ```text
//!  Supply ──> World ── events in the order of virtual time ──> Report
//!               │ replicas:  Provisioner + Witness, one lease; killed and started again at any step
//!               │ api:       NodeClaims, Launches, Interruptions, Nodes; away, slow, losing answers
//!               │ ec2:       pools, quotas, tokens, throttling; instances that show late, boot, never join
//!               └ verdict:   one live instance for a claim, none leaked, everybody served
//! ```

mod agents;
pub(super) mod beginning;
pub(super) mod cloud;
mod draw;
mod lost;
mod memories;
mod mishaps;
mod pools;
mod replicas;
pub mod scenario;
mod templates;
mod told;
mod verdict;
mod witness;
pub(super) mod world;

use std::collections::BTreeMap;

use super::Finding;
use crate::domain::offering::CapacityType;
pub use scenario::Supply;

/// What came of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    pub findings: Vec<Finding>,
    /// One line for each decision and event; empty where it was not asked for.
    pub story: Vec<String>,
    pub figures: Figures,
    /// Every claim that there was, by name.
    pub claims: BTreeMap<String, ClaimAtEnd>,
    /// The claims that the API server still has.
    pub claims_left: Vec<String>,
    /// The labels of the Nodes that are there at the end.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
    /// The pool of each claim that is there at the end.
    pub pool_of: BTreeMap<String, String>,
    /// Launch templates of ours that were deleted because nothing used them, and those that are there at the end.
    pub templates_deleted: Vec<String>,
    pub templates_left: Vec<String>,
    /// The nodes that are there at the end.
    pub nodes_left: Vec<String>,
    /// The nodes that take no pods at the end.
    pub cordoned: Vec<String>,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub events: u64,
    pub effects: u64,
    /// `CreateFleet` calls that reached EC2.
    pub calls: u64,
    /// Of these, by `[spot, on-demand, reserved]`.
    pub calls_of: [u64; 3],
    pub throttled: u64,
    /// How often the list of instances was throttled.
    pub throttled_reads: u64,
    /// How often EC2 was asked about notices.
    pub looks: u64,
    pub launched: u64,
    pub ready: u64,
    pub ended: u64,
    /// How often a drain was asked for.
    pub requests: u64,
    pub takeovers: u64,
    pub unknown: u64,
    /// Returns to spot that were begun, and that were completed.
    pub returns: u64,
    pub returned: u64,
    /// Instances without a launch template that were read, and templates that were deleted.
    pub copied: u64,
    pub templates_deleted: u64,
}

impl Figures {
    pub fn plus(&self, other: &Self) -> Self {
        let calls_of = [0, 1, 2].map(|n| self.calls_of[n] + other.calls_of[n]);
        Self {
            events: self.events + other.events,
            effects: self.effects + other.effects,
            calls: self.calls + other.calls,
            calls_of,
            throttled: self.throttled + other.throttled,
            throttled_reads: self.throttled_reads + other.throttled_reads,
            looks: self.looks + other.looks,
            launched: self.launched + other.launched,
            ready: self.ready + other.ready,
            ended: self.ended + other.ended,
            requests: self.requests + other.requests,
            takeovers: self.takeovers + other.takeovers,
            unknown: self.unknown + other.unknown,
            returns: self.returns + other.returns,
            returned: self.returned + other.returned,
            copied: self.copied + other.copied,
            templates_deleted: self.templates_deleted + other.templates_deleted,
        }
    }
}

/// How a claim went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimAtEnd {
    /// When its node was doomed.
    pub wanted_ms: u64,
    /// When EC2 was first asked on its behalf, by capacity type.
    pub asked_ms: BTreeMap<CapacityType, u64>,
    /// When it first had an instance that became Ready.
    pub ready_ms: Option<u64>,
    pub capacity: Option<CapacityType>,
    pub attempts: u64,
}

impl Report {
    /// The findings and the story, for people.
    pub fn told(&self) -> String {
        let mut text = format!("seed {}\n", self.seed);
        for line in &self.story {
            text.push_str(line);
            text.push('\n');
        }
        for finding in &self.findings {
            text.push_str(&format!("{finding}\n"));
        }
        text
    }

    pub fn says(&self, words: &str) -> bool {
        self.story.iter().any(|line| line.contains(words))
    }
}

/// Runs the world of one seed, and tells its story.
pub fn run(seed: u64) -> Report {
    Supply::from_seed(seed).run()
}

/// Runs the world of one seed without telling.
pub fn judge(seed: u64) -> Report {
    world::World::new(Supply::from_seed(seed), false).run()
}

impl Supply {
    /// Runs it, and tells its story.
    pub fn run(self) -> Report {
        world::World::new(self, true).run()
    }
}
