//! A leader that is told by hand what there is, and the claims and instances that it is told of.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::Phase;
use spotkeeper::api::node_claim::{ClaimPhase, NodeClaimSpec, NodeClaimStatus, Purpose, Recipe, Subnet};
use spotkeeper::domain::notice::{InstanceId, Kind};
use spotkeeper::domain::offering::CapacityType::{OnDemand, Spot};
use spotkeeper::domain::offering::{CapacityType, Catalog, InstanceType, Offering};
use spotkeeper::domain::time::{Epoch, Instant};
use spotkeeper::engine::Core;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::{
    Claim, Created, Doomed, Effect, FleetError, Input, Instance, Launch, NodeView, Provisioner, Record, Replacement,
    Settings,
};

pub const TYPES: [&str; 2] = ["m7g.large", "m6g.large"];

pub fn id(number: usize) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

pub fn offering(capacity_type: CapacityType) -> Offering {
    Offering { instance_type: TYPES[0].into(), zone: "a".into(), capacity_type }
}

/// A claim that asks for spot, then for on-demand.
pub fn claim(name: &str, uid: &str, status: NodeClaimStatus) -> Claim {
    let recipe = Recipe {
        launch_template: "lt-1".into(),
        launch_template_version: "1".into(),
        subnets: [Subnet { id: "subnet-a".into(), zone: "a".into() }].into(),
        ..Recipe::default()
    };
    let spec = NodeClaimSpec {
        requirements: Vec::new(),
        order: vec![Spot, OnDemand],
        spot_patience_seconds: 0,
        recipe: Some(recipe),
        node_pool: None,
        resources: Vec::new(),
        replaces: None,
        purpose: Purpose::Replacement,
    };
    Claim { name: name.into(), uid: uid.into(), spec, status, created: Instant::default(), deleting: false }
}

/// The status of a claim whose instance is a Ready node.
pub fn ready(instance: &InstanceId) -> NodeClaimStatus {
    NodeClaimStatus {
        phase: Some(ClaimPhase::Ready),
        instance_id: Some(instance.clone()),
        offering: Some(offering(Spot)),
        node_name: Some("n".into()),
        ..NodeClaimStatus::default()
    }
}

/// A spot interruption of the instance of this number, on this Node, as its record says it.
pub fn doomed(number: usize, node: &str, phase: Phase) -> Doomed {
    Doomed {
        instance: id(number),
        node: node.into(),
        episode: 1,
        phase,
        kind: Some(Kind::SpotInterruption),
        policy: None,
        kept_in_zone: false,
        notices: Vec::new(),
        settled: Vec::new(),
        replacement: Replacement::default(),
        record: Record::default(),
    }
}

pub fn seen(instance: &InstanceId, launch: Option<&str>) -> Instance {
    Instance {
        id: instance.clone(),
        alive: true,
        addresses: Default::default(),
        block: None,
        offering: offering(Spot),
        subnets: [].into(),
        template: None,
        tags: Default::default(),
        pool: None,
        group: None,
        launched_at: None,
        terminated: false,
        taken: None,
        launch: launch.map(str::to_owned),
    }
}

/// A leader that was told by hand what there is. Every write of it succeeds at once; EC2's answers are told by hand.
pub struct Leader {
    pub core: Provisioner,
    pub now: Instant,
    /// What it did, but for what was answered at once.
    pub done: Vec<Effect>,
    pub refuses_launches: bool,
    pub lists: usize,
    pub claims: Vec<Claim>,
    pub launches: Vec<Launch>,
    /// What is answered at once otherwise than with success.
    pub instead: fn(&Effect) -> Option<Input>,
}

impl Leader {
    pub fn new(claims: Vec<Claim>, launches: Vec<Launch>) -> Self {
        Self::of(claims, launches, Vec::new())
    }

    /// It has seen these nodes before it leads.
    pub fn of(claims: Vec<Claim>, launches: Vec<Launch>, nodes: Vec<NodeView>) -> Self {
        Self::that_knows(claims, launches, nodes, true)
    }

    /// One that has not seen all nodes yet.
    pub fn unsynced() -> Self {
        Self::that_knows(Vec::new(), Vec::new(), Vec::new(), false)
    }

    fn that_knows(claims: Vec<Claim>, launches: Vec<Launch>, nodes: Vec<NodeView>, synced: bool) -> Self {
        let epoch = Epoch(Timestamp::from_second(1_790_000_000).unwrap());
        let core = Provisioner::new(Settings::default(), epoch);
        let now = Instant::default();
        let done = Vec::new();
        let mut leader =
            Self { core, now, done, refuses_launches: false, lists: 0, claims, launches, instead: |_| None };
        let of = |name: &str| InstanceType { name: name.into(), arch: "arm64".into(), vcpus: 2, ..Default::default() };
        let catalog = Catalog {
            types: TYPES.map(|name| (name.to_owned(), of(name))).into(),
            zones: [("a".to_owned(), TYPES.map(str::to_owned).into())].into(),
            ..Catalog::default()
        };
        leader.hears(Input::CatalogRead(catalog.into()));
        nodes.into_iter().for_each(|node| leader.hears(Input::NodeSeen(node)));
        if synced {
            leader.hears(Input::NodesSynced);
        }
        leader.hears(Input::PoolsSynced);
        leader.hears(Input::LeaseHeld { until: Instant::from_millis(u64::MAX / 2) });
        leader
    }

    pub fn hears(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.core.handle(self.now, input, &mut effects);
        self.rests();
        self.does(effects);
    }

    /// What was due has been done: one that is to be woken at a moment that has passed keeps a processor busy.
    #[track_caller]
    fn rests(&self) {
        let due = self.core.next_wakeup();
        assert!(due.is_none_or(|at| at > self.now), "it would wake for ever: {due:?}, and it is {:?}", self.now);
    }

    /// Goes on to `after` from now, waking it whenever it wants to be.
    pub fn later(&mut self, after: Duration) {
        let until = self.now + after;
        for turn in 0.. {
            assert!(turn < 20_000, "it goes round in circles: {:?}", self.done.last());
            self.now = self.core.next_wakeup().map_or(until, |at| at.max(self.now)).min(until);
            let mut effects = Vec::new();
            self.core.wake(self.now, &mut effects);
            self.rests();
            self.does(effects);
            if self.now == until && self.core.next_wakeup().is_none_or(|at| at > until) {
                return;
            }
        }
    }

    pub fn does(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = match &effect {
                effect if (self.instead)(effect).is_some() => (self.instead)(effect),
                Effect::List => {
                    self.lists += 1;
                    Some(Input::Listed {
                        claims: self.claims.clone(),
                        launches: self.launches.clone(),
                        unread: Vec::new(),
                    })
                }
                Effect::Recall => Some(Input::Recalled { found: Ok(None) }),
                Effect::CreateLaunch { name, .. } if self.refuses_launches => {
                    let outcome = Created::Refused("admission webhook denied it".into());
                    Some(Input::LaunchCreated { name: name.clone(), outcome })
                }
                Effect::CreateLaunch { name, .. } if self.launches.iter().any(|of| of.name == *name) => {
                    Some(Input::LaunchCreated { name: name.clone(), outcome: Created::Exists })
                }
                Effect::CreateLaunch { name, .. } => {
                    let outcome = Created::Made { uid: format!("uid-{name}") };
                    Some(Input::LaunchCreated { name: name.clone(), outcome })
                }
                Effect::WriteClaim { name, .. } => {
                    Some(Input::ClaimWritten { name: name.clone(), outcome: Outcome::Done })
                }
                Effect::WriteLaunch { name, .. } => {
                    Some(Input::LaunchWritten { name: name.clone(), outcome: Outcome::Done })
                }
                Effect::DeleteClaim { name, .. } => {
                    Some(Input::ClaimDeleted { name: name.clone(), outcome: Outcome::Done })
                }
                _ => None,
            };
            self.done.push(effect);
            answer.into_iter().for_each(|input| self.hears(input));
        }
    }

    pub fn reads(&mut self, instances: Vec<Instance>) {
        self.hears(Input::InstancesRead { all: true, instances });
    }

    /// The market of every call so far.
    pub fn calls(&self) -> Vec<CapacityType> {
        let of = |effect: &Effect| match effect {
            Effect::Call { spec, .. } => Some(spec.capacity_type),
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    pub fn ends(&self) -> usize {
        self.done.iter().filter(|effect| matches!(effect, Effect::End { .. })).count()
    }

    pub fn said(&self, reason: &str) -> usize {
        let of = |e: &&Effect| matches!(e, Effect::Decided { because, .. } if because.reason() == reason);
        self.done.iter().filter(of).count()
    }
}

pub fn error(code: &str, instance_type: &str) -> FleetError {
    FleetError {
        code: code.into(),
        message: String::new(),
        instance_type: Some(instance_type.into()),
        zone: Some("a".into()),
        subnet_id: Some("subnet-a".into()),
    }
}
