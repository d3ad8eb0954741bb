//! Whole interruptions in virtual time: the real cores, and a world that is as unkind as wanted. There are three worlds:
//!
//! - this one, of agents alone: nodes, notices, drains;
//! - [`supply`], of provisioners alone: claims, Launches, an EC2 that runs dry;
//! - [`system`], of both together, which is what `spotkeeper rehearse` and `spotkeeper plan` run. [`reference`](mod@reference)
//!   has the models of other systems in it, [`page`] shows how it went.
//!
//! In this one:
//!
//! A [`Scenario`] is written by hand ([`scenario::a_cluster`]) or drawn from a seed ([`Scenario::from_seed`]). It is
//! run without a clock, a thread or a network, and gives the same [`Report`] at every run, to the byte.
//!
//! ```text
//!  Scenario ──> World ── events in the order of virtual time ──> Report
//!                │ agents:     Keeper + Witness, killed and started again at any step
//!                │ api:        Nodes, Pods, Interruptions; slow, away, throttling, conflicting, losing answers
//!                │ workloads:  kubelets that honour grace, budgets, controllers that replace
//!                │ standing_in: a provisioner that takes over the drains of silent agents
//!                │ providing:  a provisioner that answers early, late, never, or that none comes
//!                │ queue:      messages that come late, twice, out of order, or are forged
//!                └ verdict:    the invariants, and that everything comes to an end
//! ```

mod agents;
mod api;
mod draw;
pub mod page;
mod providing;
mod queue;
pub mod reference;
pub mod scenario;
mod script;
mod standing_in;
pub mod supply;
pub mod system;
mod verdict;
mod watches;
mod workloads;
mod world;

use std::fmt;

pub use api::apply_patch;
pub use scenario::Scenario;

/// What came of a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub seed: u64,
    /// What should not have been, in the order in which it was seen.
    pub findings: Vec<Finding>,
    /// The decisions and the events, one line each; empty where it was not asked for.
    pub story: Vec<String>,
    pub figures: Figures,
}

/// Something that should not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub at_ms: u64,
    pub node: String,
    /// `I-1` to `I-8`, or `live` where something did not come to an end.
    pub code: &'static str,
    pub what: String,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub events: u64,
    pub effects: u64,
    pub asks: u64,
    /// Pods that stopped by themselves or within their grace.
    pub pods_out: u64,
    /// Pods that were killed with their instance.
    pub pods_lost: u64,
    /// Agents that were killed.
    pub kills: u64,
    /// Episodes that were drained, withdrawn or refuted, as the records say it.
    pub drained: u64,
    pub cancelled: u64,
    pub refuted: u64,
}

impl Figures {
    /// The sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            events: self.events + other.events,
            effects: self.effects + other.effects,
            asks: self.asks + other.asks,
            pods_out: self.pods_out + other.pods_out,
            pods_lost: self.pods_lost + other.pods_lost,
            kills: self.kills + other.kills,
            drained: self.drained + other.drained,
            cancelled: self.cancelled + other.cancelled,
            refuted: self.refuted + other.refuted,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ms, node, code, what } = self;
        write!(f, "{:9.3} s  {node}: {code}: {what}", *at_ms as f64 / 1000.0)
    }
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

    /// The lines of the story that contain `words`.
    pub fn lines<'a>(&'a self, words: &'a str) -> impl Iterator<Item = &'a str> {
        self.story.iter().map(String::as_str).filter(move |line| line.contains(words))
    }

    pub fn says(&self, words: &str) -> bool {
        self.lines(words).next().is_some()
    }
}

/// Runs the world of one seed, and tells its story.
pub fn run(seed: u64) -> Report {
    Scenario::from_seed(seed).run()
}

/// Runs the world of one seed without telling its story, which takes a fraction of the time.
pub fn judge(seed: u64) -> Report {
    Scenario::from_seed(seed).judge()
}

impl Scenario {
    /// Runs it, and tells its story.
    pub fn run(self) -> Report {
        world::World::new(self, true).run().0
    }

    /// Runs it without telling.
    pub fn judge(self) -> Report {
        world::World::new(self, false).run().0
    }

    /// Runs it, tells its story, and shows how the nodes and pods were in the end.
    pub fn run_to_end(self) -> (Report, Vec<NodeAtEnd>) {
        world::World::new(self, true).run()
    }
}

/// How a node was in the end.
#[derive(Clone, Debug)]
pub struct NodeAtEnd {
    pub node: crate::domain::node::Node,
    pub record: Option<crate::api::interruption::InterruptionStatus>,
    pub notices: Vec<crate::api::interruption::NoticeEntry>,
    pub pods: Vec<PodAtEnd>,
}

/// How a pod was in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAtEnd {
    pub path: String,
    /// When its containers stopped, by themselves or within a grace.
    pub out_at_ms: Option<u64>,
    /// The asks that the API server accepted: when, how, with what grace.
    pub accepted: Vec<(u64, crate::interruption::Verb, Option<u32>)>,
    /// All asks that were sent: when and how.
    pub asked: Vec<(u64, crate::interruption::Verb)>,
}
