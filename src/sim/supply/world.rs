//! The world: everything that is, and the events that move it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cloud::{self, Cloud};
use super::replicas::{Call, Replica};
use super::scenario::{State, Step, Supply};
use super::templates::Ours;
pub(in crate::sim) use super::told::Told;
use super::{ClaimAtEnd, Figures, Report};
use crate::api::interruption::Phase;
use crate::api::launch::LaunchSpec;
use crate::api::node_claim::{ClaimPhase, Recipe};
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::{CapacityType, Catalog, Offering};
use crate::domain::policy::Rebalance;
use crate::domain::time::{Epoch, Instant};
use crate::provision::witness::is_unheard;
use crate::provision::{Claim, Doomed, Input, Launch, NodeView, Pool, Settings};
use crate::sim::Finding;

/// How many effects one world may have: far more than any honest one needs.
const EFFECTS_MAX: u64 = 400_000;

pub(in crate::sim) struct World {
    pub now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub rng: fastrand::Rng,
    pub memory_rng: fastrand::Rng,
    pub supply: Supply,
    pub catalog: Arc<Catalog>,
    /// Nodes whose volumes have been let go.
    pub detached: BTreeSet<String>,
    /// Instances that AWS takes.
    pub taken: BTreeSet<usize>,
    /// Those of them that nobody is told of.
    pub unheard: BTreeSet<usize>,
    /// The group whose own node ends a claim, of every claim that there ever was.
    pub bridges: BTreeMap<String, String>,
    /// Budgets allow no eviction.
    pub blocked: bool,
    /// Instances that somebody wants to go, and claims that somebody has deleted: nobody is to stand in for them.
    pub unwanted: BTreeSet<String>,
    pub api: State,
    /// For how long something was not well, so far.
    pub bad_since: Option<u64>,
    pub bad_ms: u64,
    pub cloud: Cloud,
    pub claims: BTreeMap<String, Claim>,
    pub launches: BTreeMap<String, Launch>,
    pub doomed: BTreeMap<InstanceId, Doomed>,
    pub nodes: BTreeMap<String, NodeView>,
    /// Nodes whose pods have changed, which no watch has told yet, and what they still seem to be.
    pub late_pods: BTreeMap<String, bool>,
    pub pools: BTreeMap<String, Pool>,
    pub classes: BTreeMap<String, Result<Recipe, String>>,
    /// What leaders have left to the next ones: all that was ever written.
    pub memories: Vec<String>,
    pub ours: Ours,
    /// When each pool was changed last.
    pub pools_changed_ms: BTreeMap<String, u64>,
    /// The lease: who holds it, and until when.
    pub lease: Option<(usize, u64)>,
    /// When it was given up last.
    pub released_at: u64,
    pub replicas: Vec<Replica>,
    pub uids: u64,
    pub history: BTreeMap<String, ClaimAtEnd>,
    /// Every launch that was ever written, by its token.
    pub written: BTreeMap<String, LaunchSpec>,
    /// When each was written.
    pub written_ms: BTreeMap<String, u64>,
    /// The tokens of calls whose caller cannot know whether they were done.
    pub unsure: BTreeSet<String>,
    pub figures: Figures,
    pub findings: Vec<Finding>,
    pub story: Vec<String>,
    telling: bool,
    pub effects_max: u64,
    /// When the last thing was done to this world.
    pub last_step: u64,
    /// What another world is told that runs in step with this one; `None` where there is none.
    pub told: Option<Vec<Told>>,
}

/// What is going to happen. `life` names the replica's life that it is about.
pub(in crate::sim) enum Event {
    Step(usize),
    Start { replica: usize },
    Input { replica: usize, life: u32, input: Box<Input> },
    Wake { replica: usize, life: u32, generation: u32 },
    Renew { replica: usize, life: u32 },
    Arrive { replica: usize, life: u32, call: Box<Call>, sent: u64 },
    Boots { instance: usize },
    NodeReady { instance: usize },
    Settles { instance: usize },
    Dies { instance: usize },
    Marks { instance: usize },
    Confirms { instance: usize, episode: i64 },
    Refutes { instance: usize, episode: i64 },
    Detached { node: String },
    Reservations,
    PodsCome { instance: usize },
    PodsTold { node: String },
    Cordons { instance: usize, episode: i64 },
    Empties { instance: usize, episode: i64 },
}

pub(in crate::sim) fn moment(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// When a world begins, for people.
pub(in crate::sim) fn epoch() -> Epoch {
    Epoch(crate::sim::world::World::wall(0))
}

impl World {
    pub fn new(supply: Supply, telling: bool) -> Self {
        let mut catalog = cloud::catalog(supply.types, supply.zones);
        if supply.reserved > 0
            && let Some(name) = catalog.types.keys().next().cloned()
        {
            catalog.reserved.insert((name, cloud::zone(0)), supply.reserved);
        }
        Self::with_catalog(supply, catalog, telling)
    }

    /// A world whose EC2 offers this.
    pub fn with_catalog(supply: Supply, catalog: Catalog, telling: bool) -> Self {
        let cloud = Cloud::new(&catalog, supply.spot, supply.on_demand, supply.bucket);
        let mut world = Self {
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(supply.seed),
            memory_rng: fastrand::Rng::with_seed(supply.seed ^ 0x3e30_4717),
            catalog: Arc::new(catalog),
            detached: BTreeSet::new(),
            taken: BTreeSet::new(),
            unheard: BTreeSet::new(),
            bridges: BTreeMap::new(),
            blocked: false,
            unwanted: BTreeSet::new(),
            api: State::Well,
            bad_since: None,
            bad_ms: 0,
            cloud,
            claims: BTreeMap::new(),
            launches: BTreeMap::new(),
            doomed: BTreeMap::new(),
            nodes: BTreeMap::new(),
            late_pods: BTreeMap::new(),
            pools: BTreeMap::new(),
            classes: BTreeMap::new(),
            memories: Vec::new(),
            ours: Ours::default(),
            pools_changed_ms: BTreeMap::new(),
            lease: None,
            released_at: 0,
            replicas: Vec::new(),
            uids: 0,
            history: BTreeMap::new(),
            written: BTreeMap::new(),
            written_ms: BTreeMap::new(),
            unsure: BTreeSet::new(),
            figures: Figures::default(),
            findings: Vec::new(),
            story: Vec::new(),
            telling,
            effects_max: EFFECTS_MAX,
            last_step: supply.script.last().map_or(0, |(at, _)| *at),
            told: None,
            supply,
        };
        for index in 0..world.supply.nodes {
            world.add_node(index);
        }
        world.found_pools();
        if !world.catalog.reserved.is_empty() {
            world.schedule(0, Event::Reservations);
        }
        for replica in 0..2 {
            world.replicas.push(Replica::default());
            world.schedule(replica as u64 * 100, Event::Start { replica });
        }
        for index in 0..world.supply.script.len() {
            let at = world.supply.script[index].0;
            world.schedule(at, Event::Step(index));
        }
        world
    }

    /// A spot node of the cluster, in one zone after the other.
    fn add_node(&mut self, index: usize) {
        let Some(name) = self.catalog.types.keys().next().cloned() else { return };
        let offering = Offering {
            instance_type: name,
            zone: cloud::zone(index % self.supply.zones),
            capacity_type: CapacityType::Spot,
        };
        let place = self.add_instance(offering, self.supply.labelled.clone());
        if index % 4 < self.supply.plain_of_four {
            self.cloud.instances[place].template = None;
        }
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        let end = self.supply.ends_ms;
        while self.next_at().is_some_and(|at| at <= end) && self.run_next() {}
        self.conclude(end)
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets happen what is next. Returns whether it can go on.
    pub fn run_next(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at;
        self.figures.events += 1;
        self.happens(event);
        let most = self.effects_max;
        if self.figures.effects > most {
            self.found("live", format!("more than {most} effects: it goes round in circles"));
        }
        self.figures.effects <= most
    }

    /// The end has come: it is judged.
    pub fn conclude(mut self, end: u64) -> Report {
        self.now = end.max(self.now);
        self.verdict();
        Report {
            seed: self.supply.seed,
            findings: self.findings,
            story: self.story,
            figures: self.figures,
            claims: self.history,
            labels: self.nodes.iter().map(|(name, node)| (name.clone(), node.labels.clone())).collect(),
            pool_of: self.claims.values().filter_map(|c| Some((c.name.clone(), c.spec.node_pool.clone()?))).collect(),
            claims_left: self.claims.into_keys().collect(),
            templates_deleted: self.ours.deleted,
            templates_left: self.cloud.templates.into_keys().collect(),
            nodes_left: self.nodes.keys().cloned().collect(),
            cordoned: self.nodes.into_values().filter(|node| node.cordoned).map(|node| node.name).collect(),
        }
    }

    /// Tells the world that runs in step with this one, where there is one.
    pub fn outward(&mut self, told: Told) {
        if let Some(all) = &mut self.told {
            all.push(told);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Step(index) => {
                let step = self.supply.script[index].1.clone();
                self.step(step);
            }
            Event::Start { replica } => self.start_replica(replica),
            Event::Input { replica, life, input } => self.feed(replica, life, *input),
            Event::Wake { replica, life, generation } => self.wake(replica, life, generation),
            Event::Renew { replica, life } => self.renew(replica, life),
            Event::Arrive { replica, life, call, sent } => self.arrive(replica, life, *call, sent),
            Event::Boots { instance } => self.boots(instance),
            Event::NodeReady { instance } => self.node_ready(instance),
            Event::Dies { instance } if self.taken.contains(&instance) => self.is_taken(instance),
            Event::Dies { .. } => {}
            Event::Marks { instance } => self.cloud.instances[instance].end.marked = true,
            Event::Confirms { instance, episode } => self.confirms(instance, episode),
            Event::Refutes { instance, episode } => self.refutes(instance, episode),
            Event::Settles { instance } => self.settles(instance),
            Event::Detached { node } => drop(self.detached.insert(node)),
            Event::Reservations => self.read_reservations(),
            Event::PodsCome { instance } => self.pods_come(instance),
            Event::PodsTold { node } => self.pods_told(&node),
            Event::Cordons { instance, episode } => self.cordons(instance, episode),
            Event::Empties { instance, episode } => self.empties(instance, episode),
        }
    }

    pub fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.rng.u64(..=most)
    }

    pub fn chance(&mut self, one_in: Option<u32>) -> bool {
        one_in.is_some_and(|one_in| self.rng.u32(..one_in.max(1)) == 0)
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.telling {
            let line = format!("{:9.3} s  {}", self.now as f64 / 1_000.0, line());
            self.story.push(line);
        }
    }

    pub fn found(&mut self, code: &'static str, what: String) {
        self.tell(|| format!("!! {code}: {what}"));
        self.findings.push(Finding { at_ms: self.now, node: String::new(), code, what });
    }

    fn step(&mut self, step: Step) {
        self.tell(|| format!("-- {step:?}"));
        match step {
            Step::Doom { node } => self.doom(node),
            Step::DoomMany { from, count } => (from..from + count).for_each(|node| self.doom(node)),
            Step::Withdraw { node } => {
                // Whoever would withdraw it has ended with its node.
                let living = self.cloud.instances.get(node).filter(|one| one.died_ms.is_none());
                if let Some(id) = living.map(|one| one.id.clone())
                    && let Some(doomed) = self.doomed.get_mut(&id)
                {
                    doomed.phase = Phase::Cancelled;
                    self.taken.remove(&node);
                    self.doomed_changed(&id);
                }
            }
            Step::Left { capacity, zone, left } => {
                let zone = zone.map(cloud::zone);
                let of = |offering: &Offering| {
                    offering.capacity_type == capacity && zone.as_ref().is_none_or(|zone| *zone == offering.zone)
                };
                self.cloud.pools.iter_mut().filter(|(o, _)| of(o)).for_each(|(_, pool)| *pool = left);
            }
            Step::Refuse { capacity, code: Some(code) } => drop(self.cloud.refuses.insert(capacity, code)),
            Step::Refuse { capacity, code: None } => drop(self.cloud.refuses.remove(&capacity)),
            Step::Join(joins) => self.cloud.joins = joins,
            Step::Api(state) => {
                self.api = state;
                self.weather();
            }
            Step::Ec2(state) => {
                self.cloud.state = state;
                self.weather();
            }
            Step::Kill { replica, down_ms } => self.kill(replica, down_ms),
            Step::KillLeader { down_ms } => {
                let leader = self.lease.filter(|(_, until)| *until > self.now).map(|(holder, _)| holder);
                leader.into_iter().for_each(|replica| self.kill(replica, down_ms));
            }
            Step::Pool(name, spec) => self.pool_changed(name, *spec),
            Step::PoolGone(name) => self.pool_gone(name),
            Step::Class(state) => self.class_changed(state),
            Step::ClassMoves => self.class_moves(),
            Step::DeleteTemplates => self.delete_templates(),
            Step::DoomStandIn => {
                let stands_in = |one: &cloud::InstanceSim| one.token.is_some() && one.died_ms.is_none();
                if let Some(index) = self.cloud.instances.iter().position(stands_in) {
                    self.doom(index);
                }
            }
            Step::InGroup { node, group } => self.in_group(node, group),
            Step::GroupLaunches { group } => self.group_launches(group),
            Step::DoomSpotStandIn => {
                let stands_in = |one: &cloud::InstanceSim| {
                    let spot = one.offering.capacity_type == CapacityType::Spot;
                    spot && one.token.is_some() && one.died_ms.is_none()
                };
                if let Some(index) = self.cloud.instances.iter().position(stands_in) {
                    self.doom(index);
                }
            }
            Step::Recommend { node } => self.recommend(node),
            Step::QueueSays { node, so } => self.queue_says(node, so),
            Step::TakeUnheard { node } => self.take_unheard(node),
            Step::Shut { node } => self.dies(node),
            Step::Over { node } => self.is_over(node),
            Step::DeleteRecord { node } => self.record_deleted(&self.cloud.instances[node].id.clone()),
            Step::DeleteClaim => self.delete_claim(),
            Step::Block(blocked) => self.block(blocked),
            Step::Stay => self.pod_stays(),
            Step::SpotStandInIs { ready } => self.spot_stand_in_is(ready),
            Step::DeleteFailed => self.delete_failed(),
            Step::DeleteLaunches => self.launches.clear(),
            Step::TurnsUp => self.turns_up(),
            Step::LoseRecords => self.lose_records(),
            Step::Memory(text) => self.memories.push(text.to_owned()),
        }
    }

    /// An Interruption is new or has changed, but for its replacement, which is written here.
    pub fn interruption(&mut self, seen: Doomed) {
        let id = seen.instance.clone();
        let replacement = self.doomed.get(&id).map(|known| known.replacement.clone()).unwrap_or_default();
        let seen = Doomed { replacement, ..seen };
        if self.doomed.get(&id) == Some(&seen) {
            return;
        }
        let unheard = seen.phase == Phase::Gone && seen.notices.iter().any(is_unheard);
        let counts = unheard || (seen.phase >= Phase::Confirmed && !seen.phase.ends_episode());
        if counts && wanted(&seen, &self.supply.settings) {
            let wanted_ms = self.now;
            let claim = || ClaimAtEnd { wanted_ms, ..ClaimAtEnd::default() };
            self.history.entry(format!("{id}-{}", seen.episode)).or_insert_with(claim);
        }
        self.doomed.insert(id.clone(), seen);
        self.doomed_changed(&id);
    }

    pub fn doomed_changed(&mut self, id: &InstanceId) {
        if let Some(doomed) = self.doomed.get(id).cloned() {
            self.broadcast(&Input::InterruptionSeen(doomed));
        }
    }

    pub fn node_changed(&mut self, node: NodeView) {
        let before = self.nodes.insert(node.name.clone(), node.clone());
        before.into_iter().for_each(|before| self.pods_changed(&before, &node));
        self.broadcast(&Input::NodeSeen(self.shown(node)));
    }

    /// A Node as its object says it.
    pub fn shown(&self, mut node: NodeView) -> NodeView {
        node.workloads = self.late_pods.get(&node.name).copied().unwrap_or(node.workloads);
        let of_ours = node.instance.as_ref().and_then(|id| self.find(id));
        if !self.supply.nameless || of_ours.is_none_or(|index| self.cloud.instances[index].token.is_none()) {
            return node;
        }
        NodeView { addresses: [node.name.clone()].into(), instance: None, provider_id: None, ..node }
    }

    pub fn node_gone(&mut self, name: &str) {
        if self.nodes.remove(name).is_some() {
            self.broadcast(&Input::NodeGone { name: name.to_owned() });
        }
    }

    pub fn record_deleted(&mut self, instance: &InstanceId) {
        self.doomed.remove(instance);
        self.broadcast(&Input::InterruptionGone { instance: instance.clone() });
    }

    /// The uid of another object.
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    /// How far a claim has come.
    pub fn note_claim(&mut self, claim: &Claim) {
        let Some(history) = self.history.get_mut(&claim.name) else { return };
        history.attempts = history.attempts.max(u64::try_from(claim.status.attempts_total).unwrap_or(0));
        if claim.status.phase == Some(ClaimPhase::Ready) && history.ready_ms.is_none() {
            history.ready_ms = Some(self.now);
            history.capacity = claim.status.offering.as_ref().map(|offering| offering.capacity_type);
            self.figures.ready += 1;
        }
    }

    /// A call asks on behalf of claims.
    pub fn note_asked(&mut self, spec: &LaunchSpec) {
        for of in &spec.claims {
            if let Some(claim) = self.history.get_mut(&of.name) {
                claim.asked_ms.entry(spec.capacity_type).or_insert(self.now);
            }
        }
    }
}

/// Whether an interruption of this kind is one that a node stands in for.
fn wanted(doomed: &Doomed, settings: &Settings) -> bool {
    match doomed.kind {
        Some(Kind::RebalanceRecommendation) => {
            let replaces = doomed.policy.is_some_and(|policy| policy.rebalance == Rebalance::Replace);
            replaces || settings.replace_on_rebalance
        }
        kind => kind.is_some() && !doomed.is_requested(),
    }
}
