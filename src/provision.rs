//! Core 2: replacement capacity, from a doomed node to a Ready one in its place.
//!
//! ```text
//!  Interruption ─┐                                          ┌─> NodeClaim, Launch (written before the call)
//!  Node ─────────┼─> claims ──> ladder ──> launch ──────────┼─> CreateFleet, look-up by tag
//!  NodeClaim ────┘   one life   which       one call, until  ├─> end what is surplus
//!  EC2 ──────────┘   each       rung next   its fate is known└─> the Interruption's replacement
//!                                 ^              │
//!                                 └── shortage ──┘
//! ```
//!
//! - `run`: the state machine; [`Provisioner`] implements [`Core`](crate::engine::Core).
//! - `demand`: which interruptions want a replacement, and of what shape.
//! - [`pools`], [`class`]: which NodePool serves a node, what it allows; what an EC2NodeClass comes to in EC2.
//! - [`ledger`]: what the instances of claims cost.
//! - [`labels`]: what the Node of a claim says of itself.
//! - `claim`: one claim's life; no claim waits for another but through a shared belief in a shortage.
//! - [`ladder`]: what a rung asks for.
//! - `launch`: one call's life: the same token until its fate is known or presumed.
//! - `run::tidy`: two instances for one claim, instances without a claim.
//! - `copies`: what stands in for an instance without a launch template is launched with.
//! - [`templates`]: which launch templates of ours nothing uses any more.
//! - [`retire`]: a node of ours that is to go is drained before its instance is ended.
//! - [`witness`]: what EC2 says of an instance that a notice is about, and of one that was taken while nobody heard of it.
//! - [`comeback`], [`risk`]: when an on-demand node may move back to spot, and where spot has made trouble.
//! - [`shortage`], [`bucket`], [`leadership`], [`failure`]: memory, pace, authority, what errors mean.
//! - [`memory`]: what of it a leader leaves to the next one.
//! - [`because`], [`invariants`]: the reasons of decisions; what must always hold, over inputs and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::interruption::{NoticeEntry, Phase, PolicyStatus};
use crate::api::launch::{LaunchSpec, LaunchStatus, Launched};
use crate::api::node_claim::{NodeClaimSpec, NodeClaimStatus, Subnet};
use crate::domain::node::Taint;
use crate::domain::notice::{InstanceId, InstanceState, Kind};
use crate::domain::offering::{CapacityType, Offering};
use crate::domain::time::Instant;
pub use because::Because;
pub use copies::Copied;
pub use effect::Effect;
pub use input::Input;
pub use pools::Pool;
pub use retire::Request;
pub use run::Provisioner;
pub use witness::Sight;

pub mod because;
pub mod bucket;
mod claim;
pub mod class;
pub mod comeback;
mod copies;
mod demand;
mod effect;
pub mod failure;
mod gone;
mod input;
pub mod invariants;
pub mod labels;
pub mod ladder;
mod launch;
pub mod leadership;
pub mod ledger;
pub mod memory;
pub mod pools;
pub mod retire;
pub mod risk;
mod run;
pub mod shortage;
pub mod templates;
pub mod witness;
mod writes;

/// How it is to act.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A rebalance recommendation is replaced in any case; else where the node is kept with the policy `Replace`.
    pub replace_on_rebalance: bool,
    /// The ladder of claims that say nothing else.
    pub order: Vec<CapacityType>,
    /// How long spot is tried before the next rung.
    pub spot_patience: Duration,
    /// How long a shortage is believed at first.
    pub belief: Duration,
    /// A launched instance without a Node after this long is ended.
    pub registration: Duration,
    /// How many claims may share a call.
    pub share_max: usize,
    /// How many overrides a call may have.
    pub overrides_max: usize,
    /// How many calls may be on their way.
    pub calls_max: usize,
    /// EC2's token bucket for `CreateFleet`: its size, and what comes back in a second.
    pub bucket: (u32, f64),
    /// The same for what EC2 is asked about notices.
    pub looks: (u32, f64),
    /// How often EC2 is asked for the instances.
    pub resync: Duration,
    /// For how long an instance of ours without a claim is left alone.
    pub leak_grace: Duration,
    /// For how long a launch template of ours that nothing uses is left alone.
    pub template_grace: Duration,
    /// For how long an Interruption that is over is kept, and how many are at most.
    pub keep_for: Duration,
    pub keep_interruptions: usize,
    /// How nodes return to spot.
    pub returns: comeback::Policy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replace_on_rebalance: false,
            order: vec![CapacityType::Spot, CapacityType::OnDemand],
            spot_patience: Duration::ZERO,
            belief: shortage::BELIEF_FIRST,
            registration: Duration::from_secs(15 * 60),
            share_max: 100,
            overrides_max: 300,
            calls_max: 64,
            bucket: (50, 5.0),
            looks: (20, 5.0),
            resync: Duration::from_secs(30),
            leak_grace: Duration::from_secs(600),
            template_grace: Duration::from_secs(3_600),
            keep_for: Duration::from_secs(24 * 3_600),
            keep_interruptions: 1_000,
            returns: comeback::Policy::default(),
        }
    }
}

/// A NodeClaim of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub name: String,
    pub uid: String,
    pub spec: NodeClaimSpec,
    pub status: NodeClaimStatus,
    /// When it was made, on our clock.
    pub created: Instant,
    /// Somebody has deleted it; our finalizer keeps it.
    pub deleting: bool,
}

/// A Launch of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub name: String,
    pub uid: String,
    pub spec: LaunchSpec,
    pub status: LaunchStatus,
}

/// An Interruption, as far as a replacement depends on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Doomed {
    pub instance: InstanceId,
    pub node: String,
    pub episode: i64,
    pub phase: Phase,
    pub kind: Option<Kind>,
    /// A pod that was on its node is kept in the zone by its volume.
    pub kept_in_zone: bool,
    /// How its node is kept, where its agent has written that.
    pub policy: Option<PolicyStatus>,
    /// What was announced.
    pub notices: Vec<NoticeEntry>,
    /// Which of that belongs to episodes that are over, as its status has it.
    pub settled: Vec<String>,
    /// What its status says of its replacement.
    pub replacement: Replacement,
    /// The object itself.
    pub record: Record,
}

/// An Interruption's object, as far as keeping it depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty where it is not known.
    pub uid: String,
    /// It has an owner, and goes with it.
    pub owned: bool,
    /// When the last thing happened that it tells of.
    pub latest: Option<Timestamp>,
    /// `spec.providerID`.
    pub provider_id: String,
    /// The first of the pods that keep its node from being empty, and what keeps it there.
    pub blocked: Option<String>,
}

impl Doomed {
    /// Our own requests that its node be drained: where the reason has changed, two for a while.
    pub fn requests(&self) -> impl Iterator<Item = Request> {
        self.notices.iter().filter_map(Request::of)
    }

    /// Whether its drain is asked for.
    pub fn is_requested(&self) -> bool {
        self.requests().next().is_some()
    }

    /// The request for this reason.
    pub fn requested_for(&self, why: retire::Reason) -> Option<Request> {
        self.requests().find(|request| request.event_id == why.as_str())
    }
}

/// What an Interruption's status says of the replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// The claim.
    pub claim: String,
    pub capacity_type: Option<CapacityType>,
    /// The replacement's Node is Ready.
    pub ready: bool,
    /// None comes, or none is needed.
    pub none_comes: bool,
    /// The episode of the Interruption that it is about.
    pub episode: i64,
    pub because: String,
}

/// A Node, as far as a replacement depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    pub instance: Option<InstanceId>,
    /// `aws:///ZONE/INSTANCE`, as the Node has it.
    pub provider_id: Option<String>,
    /// By what its instance is found where it has no providerID: its name, its private DNS names and addresses, as
    /// `status.addresses` has them. Empty where it has one.
    pub addresses: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// Extended resources that can be had on it, such as `nvidia.com/gpu`.
    pub resources: BTreeSet<String>,
    pub ready: bool,
    /// Taints that are to go before workloads come.
    pub starting: bool,
    /// It takes no new pods.
    pub cordoned: bool,
    /// Pods run on it that are no DaemonSet's.
    pub workloads: bool,
    /// One of these has a volume, which keeps it in this zone.
    pub bound_to_zone: bool,
    /// One of these is never asked to go (`spotkeeper.dev/on-interruption: stay`).
    pub stays: bool,
}

/// An instance as EC2 describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    /// `pending` or `running`; all else is going or gone.
    pub alive: bool,
    pub offering: Offering,
    /// The subnets of its kind that a replacement may use, its own first; empty where nothing is known. Those of one subnet
    /// share them: of thousands of instances the list is the same.
    pub subnets: Arc<[Subnet]>,
    /// The launch template that it was made with, and its version.
    pub template: Option<(String, String)>,
    /// Its tags that one in its place has as well.
    pub tags: BTreeMap<String, String>,
    /// The NodePool that it was launched for, from our tag.
    pub pool: Option<String>,
    /// The Auto Scaling group that it is in.
    pub group: Option<String>,
    /// Its private DNS name and addresses in its VPC.
    pub addresses: BTreeSet<String>,
    /// The capacity block that it runs in.
    pub block: Option<Block>,
    /// When it was launched.
    pub launched_at: Option<Timestamp>,
    /// It has ended for good.
    pub terminated: bool,
    /// The state that EC2 itself has brought it to, as its `StateReason` says: `Server.…`, not `Client.…`.
    pub taken: Option<InstanceState>,
    /// The token of the Launch that made it, from our tag; `None` where it is none of ours.
    pub launch: Option<String>,
}

/// A capacity block for ML: a reservation that ends at a time that was known when it was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The reservation's id.
    pub reservation: String,
    /// When it ends, where that could be read. EC2 begins to end its instances half an hour earlier.
    pub ends: Option<Timestamp>,
}

/// How the API server answered a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now.
    Made {
        uid: String,
    },
    /// One of this name was there already.
    Exists,
    Refused(String),
    Failed(String),
}

/// How EC2 answered `CreateFleet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Some came, perhaps none; and what stood in the way of others.
    Fleet { instances: Vec<Launched>, errors: Vec<FleetError> },
    /// The whole call was refused with this code.
    Refused { code: String, message: String },
    /// It may or may not have been done.
    Unknown(String),
}

/// One entry of `Errors[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetError {
    pub code: String,
    pub message: String,
    /// What it is about; parts may be missing.
    pub instance_type: Option<String>,
    pub zone: Option<String>,
    pub subnet_id: Option<String>,
}
