//! The whole: the world of the agents and the world of supply, in step, and what neither of them has.
//!
//! There is one virtual time. What happens next in any of the three queues happens; then each world hears what of it
//! concerns it, before anything else happens anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::given::{BudgetOf, Room, budgets};
use super::outcome::{Decision, NodeState, NodeTimeline, Report};
use super::pools::PoolSim;
use super::scenario::{Scenario, Step};
use super::workloads::{PodLife, Slot, WorkloadSim};
use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, Offering};
use crate::provision::because::Because as ProvisionBecause;
use crate::sim::scenario::{NodeSpec, Scenario as AgentsScenario, a_cluster, a_node};
use crate::sim::supply::scenario::Supply;
use crate::sim::{Finding, supply, world as agents};

/// How many effects there may be for each node and pod, and beside them: far more than any honest world needs.
const EFFECTS_EACH: u64 = 2_000;
const EFFECTS_MORE: u64 = 400_000;

pub(super) struct System {
    pub now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub rng: fastrand::Rng,
    pub scenario: Scenario,
    pub agents: agents::World,
    pub supply: supply::world::World,
    pub nodes: Vec<NodeSim>,
    /// The node of an instance, by the instance's place in the world of supply.
    node_of: BTreeMap<usize, usize>,
    /// Instances that AWS takes, and when.
    pub taken: BTreeMap<usize, u64>,
    pub workloads: Vec<WorkloadSim>,
    pub slots: Vec<Slot>,
    /// The slots of the provisioner's replicas.
    pub own: Vec<usize>,
    /// What every pod of the agents' world is here, by its place there.
    pub pods: Vec<usize>,
    pub lives: Vec<PodLife>,
    /// Slots that wait for a node, first come first served; the system's own before the others.
    pub pending: BTreeSet<(u8, u64, usize)>,
    pub arrivals: u64,
    pub scheduling: bool,
    /// Free CPU and node, of the nodes that take pods, by zone and NodePool.
    pub room: BTreeMap<Place, BTreeSet<(u32, usize)>>,
    pub pools: BTreeMap<Offering, PoolSim>,
    /// In the order of the agents' world.
    pub budgets: Vec<BudgetOf>,
    pub decisions: Vec<Decision>,
    pub findings: Vec<Finding>,
    pub story: Vec<String>,
    pub telling: bool,
    /// Instances that were taken and nobody had heard of it then.
    pub unheard: BTreeSet<InstanceId>,
    /// When the last thing was done to the world, as far as the script goes.
    pub last_step: u64,
}

/// A node, as far as neither world knows it.
pub(super) struct NodeSim {
    pub name: String,
    /// Its place in the world of supply.
    pub instance: usize,
    pub zone: String,
    pub pool: Option<String>,
    pub cpu_millis: u32,
    pub used_millis: u32,
    pub memory_mib: u64,
    pub used_mib: u64,
    pub overhead: Room,
    /// The node of the beginning that it stands in for, in the end.
    pub in_place_of: Option<usize>,
    /// Pods of workloads on it, and those of them that a volume keeps in the zone.
    pub busy: u32,
    pub bound: u32,
    pub ready: bool,
    /// It takes pods.
    pub open: bool,
    pub gone: bool,
    pub stands_in: bool,
    /// When AWS announced its end, and for when.
    pub announced: Option<(u64, u64)>,
    pub states: Vec<(u64, NodeState)>,
}

/// Where a node is, as far as pods ask for it: its zone and its NodePool.
pub(super) type Place = (String, Option<String>);

impl NodeSim {
    pub fn place(&self) -> Place {
        (self.zone.clone(), self.pool.clone())
    }
}

/// What is going to happen that is neither world's business.
pub(super) enum Event {
    Step(usize),
    Schedule,
    /// A pod's containers run and are Ready.
    Started {
        life: usize,
    },
    /// A pod that was killed with its instance is removed from the API.
    Collected {
        pod: usize,
    },
    Agent {
        node: usize,
    },
    Interrupt {
        instance: usize,
        notice_ms: u64,
    },
}

impl System {
    pub fn new(scenario: Scenario, telling: bool) -> Self {
        let catalog = scenario.cloud.catalog();
        let mut agents = agents::World::new(agents_of(&scenario), telling);
        let mut supply = supply::world::World::with_catalog(supply_of(&scenario), catalog, telling);
        let pods: u64 = scenario.workloads.iter().map(|of| u64::from(of.replicas)).sum();
        let nodes: u64 =
            scenario.nodes.iter().map(|of| of.count as u64).sum::<u64>() + scenario.given_nodes.len() as u64;
        let effects_max = EFFECTS_MORE + EFFECTS_EACH * (nodes + pods);
        (agents.effects_max, supply.effects_max) = (effects_max, effects_max);
        (agents.told, supply.told) = (Some(Vec::new()), Some(Vec::new()));
        agents.dozes = true;
        let mut system = Self {
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(scenario.seed ^ 0x5757_e111),
            agents,
            supply,
            nodes: Vec::new(),
            node_of: BTreeMap::new(),
            taken: BTreeMap::new(),
            workloads: Vec::new(),
            slots: Vec::new(),
            own: Vec::new(),
            pods: Vec::new(),
            lives: Vec::new(),
            pending: BTreeSet::new(),
            arrivals: 0,
            scheduling: false,
            room: BTreeMap::new(),
            pools: BTreeMap::new(),
            budgets: Vec::new(),
            decisions: Vec::new(),
            findings: Vec::new(),
            story: Vec::new(),
            telling,
            unheard: BTreeSet::new(),
            last_step: scenario.script.iter().map(|(at, _)| *at).max().unwrap_or(0),
            scenario,
        };
        system.supply.last_step = system.last_step;
        system.begin();
        system
    }

    fn begin(&mut self) {
        let offered: Vec<Offering> = self.supply.cloud.pools.keys().cloned().collect();
        for offering in offered {
            self.pool_changed(&offering);
        }
        self.begin_given();
        let zones = self.scenario.cloud.zones.clone();
        let mut joined = 0;
        for group in std::mem::take(&mut self.scenario.nodes) {
            for _ in 0..group.count {
                let zone = group.zone.clone().unwrap_or_else(|| zones[joined % zones.len()].clone());
                joined += 1;
                let instance_type = group.instance_type.clone();
                let capacity_type = group.capacity_type;
                let instance =
                    self.supply.add_instance(Offering { instance_type, zone, capacity_type }, group.pool.clone());
                self.supply.cloud.instances[instance].shown_ms = 0;
                let name = a_node(&self.supply.cloud.instances[instance].node());
                let node = self.add_node(instance, name, Some(0));
                self.node_ready(node);
            }
        }
        self.begin_budgets();
        self.begin_workloads();
        let steps: Vec<u64> = self.scenario.script.iter().map(|(at, _)| *at).collect();
        for (index, at) in steps.into_iter().enumerate() {
            self.schedule(at, Event::Step(index));
        }
        self.exchange();
    }

    /// Runs to the end.
    pub fn run(mut self) -> Report {
        let end = self.scenario.ends_ms;
        let mut goes_on = true;
        while goes_on && let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.set_now(at);
            let (own, agents, supply) = (self.own_next(), self.agents.next_at(), self.supply.next_at());
            goes_on = if own == Some(at) {
                if let Some((_, event)) = self.events.pop_first() {
                    self.happens(event);
                }
                true
            } else if agents == Some(at) {
                self.agents.run_next()
            } else {
                debug_assert_eq!(supply, Some(at));
                self.supply.run_next()
            };
            self.exchange();
        }
        self.set_now(end);
        self.conclude()
    }

    fn own_next(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    fn next_at(&self) -> Option<u64> {
        [self.own_next(), self.agents.next_at(), self.supply.next_at()].into_iter().flatten().min()
    }

    fn set_now(&mut self, at: u64) {
        (self.now, self.agents.now, self.supply.now) = (at, at, at);
    }

    pub fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Step(index) => {
                let step = self.scenario.script[index].1.clone();
                self.step(step);
            }
            Event::Schedule => self.schedule_pods(),
            Event::Started { life } => self.started(life),
            Event::Collected { pod } => self.agents.object_goes(pod),
            Event::Agent { node } => self.agents.start_agent(node),
            Event::Interrupt { instance, notice_ms } => self.interrupt(instance, notice_ms),
        }
    }

    /// Each world hears what has happened in the other.
    fn exchange(&mut self) {
        loop {
            self.tell_in_order();
            let from_agents = self.agents.told.as_mut().map(std::mem::take).unwrap_or_default();
            let from_supply = self.supply.told.as_mut().map(std::mem::take).unwrap_or_default();
            if from_agents.is_empty() && from_supply.is_empty() {
                return;
            }
            from_agents.into_iter().for_each(|told| self.hear_agents(told));
            from_supply.into_iter().for_each(|told| self.hear_supply(told));
        }
    }

    fn hear_agents(&mut self, told: agents::Told) {
        match told {
            agents::Told::Record { node } => self.record_changed(node),
            agents::Told::Node { node } => self.look_at(node),
            agents::Told::PodGoing { pod } => self.pod_going(pod),
            agents::Told::PodOut { pod, whole } => self.pod_out(pod, whole),
            agents::Told::PodKilled { pod } => self.pod_killed(pod),
            agents::Told::PodGone { pod } => self.pod_gone(pod),
            agents::Told::Decided { node, because } => self.decisions.push(Decision {
                at_ms: self.now,
                by: "agent".into(),
                about: self.nodes[node].name.clone(),
                reason: because.reason(),
                because: because.to_string(),
            }),
        }
    }

    fn hear_supply(&mut self, told: supply::world::Told) {
        use supply::world::Told;
        match told {
            Told::Replacement { instance } => self.replacement_written(&instance),
            Told::Requested { instance, event_id, action } => self.drain_requested(&instance, &event_id, action),
            Told::SeenInEc2 { instance, entry } => self.seen_in_ec2(&instance, entry),
            Told::TakenUnheard { instance, entry, because } => {
                self.taken_unheard(&instance, entry, &because.to_string())
            }
            Told::Withdrawn { instance, event_id } => self.request_withdrawn(&instance, &event_id),
            Told::Launched { instance } => self.tell(|world| {
                let one = &world.supply.cloud.instances[instance];
                format!("-- EC2 starts {}: {}", one.id, one.offering)
            }),
            Told::Joined { instance } => {
                let spec = a_node(&self.supply.cloud.instances[instance].node());
                let node = self.add_node(instance, spec, None);
                self.nodes[node].stands_in = true;
                self.is_in_place(node);
                if let Some(deadline) = self.taken.get(&instance).copied() {
                    self.announce(node, deadline);
                }
            }
            Told::Ready { instance } => {
                if let Some(node) = self.node_of.get(&instance).copied() {
                    let at = self.now + self.rng.u64(1_000..3_000);
                    self.schedule(at, Event::Agent { node });
                    self.node_ready(node);
                }
            }
            Told::Annotated { node, annotations } => {
                if let Some(node) = self.agents.names.get(&node).copied() {
                    self.agents.annotate(node, annotations);
                }
            }
            Told::Died { instance } => self.instance_died(instance),
            Told::Taken { offering } => self.pool_changed(&offering),
            Told::Decided { replica, about, because } => {
                if let ProvisionBecause::Short { what, believed, .. } = &because {
                    self.believed_short(what, *believed);
                }
                if let ProvisionBecause::Recovered { what } = &because {
                    self.believed_open(what);
                }
                self.decisions.push(Decision {
                    at_ms: self.now,
                    by: format!("provisioner {replica}"),
                    about,
                    reason: because.reason(),
                    because: because.to_string(),
                });
            }
        }
    }

    /// The stories of both worlds go into this one's, in the order in which things happen.
    fn tell_in_order(&mut self) {
        if self.telling {
            self.story.append(&mut self.agents.story);
            self.story.append(&mut self.supply.story);
        }
    }

    pub fn tell(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.telling {
            let line = format!("{:9.3} s  {}", self.now as f64 / 1_000.0, line(self));
            self.story.push(line);
        }
    }

    pub fn found(&mut self, node: &str, code: &'static str, what: String) {
        self.tell(|_| format!("!! {node} {code}: {what}"));
        self.findings.push(Finding { at_ms: self.now, node: node.to_owned(), code, what });
    }

    /// The node of an instance joins: the other world gets a Node for it.
    pub fn add_node(&mut self, instance: usize, spec: NodeSpec, agent_at: Option<u64>) -> usize {
        let one = &self.supply.cloud.instances[instance];
        let (id, name, offering) = (one.id.clone(), one.node(), one.offering.clone());
        let pool = self.supply.pool_of(one).map(str::to_owned);
        let of = self.supply.catalog.types.get(&offering.instance_type);
        let (cpus, memory_mib) = of.map_or((0, 0), |of| (of.vcpus, of.memory_mib));
        self.agents.add_node(spec, id, agent_at);
        let node = self.nodes.len();
        self.node_of.insert(instance, node);
        self.nodes.push(NodeSim {
            name,
            instance,
            zone: offering.zone,
            pool,
            cpu_millis: cpus * 1_000,
            used_millis: 0,
            memory_mib,
            used_mib: 0,
            overhead: Room::default(),
            in_place_of: agent_at.map(|_| node),
            busy: 0,
            bound: 0,
            ready: false,
            open: false,
            gone: false,
            stands_in: false,
            announced: None,
            states: vec![(self.now, NodeState::Joining)],
        });
        self.set_busy(node);
        node
    }

    pub fn node_ready(&mut self, node: usize) {
        self.nodes[node].ready = true;
        self.state(node, NodeState::Ready);
        self.look_at(node);
    }

    pub fn state(&mut self, node: usize, state: NodeState) {
        let (now, states) = (self.now, &mut self.nodes[node].states);
        match states.last_mut() {
            Some((_, last)) if *last == state => {}
            Some((at, last)) if *at == now => *last = state,
            _ => states.push((now, state)),
        }
    }

    /// Whether pods run on a node is told to the provisioners, whenever it changes.
    pub fn set_busy(&mut self, node: usize) {
        let NodeSim { name, busy, bound, .. } = &self.nodes[node];
        let (workloads, bound_to_zone) = (*busy > 0, *bound > 0);
        if let Some(view) = self.supply.nodes.get(name)
            && (view.workloads, view.bound_to_zone) != (workloads, bound_to_zone)
        {
            let view = crate::provision::NodeView { workloads, bound_to_zone, ..view.clone() };
            self.supply.node_changed(view);
        }
    }

    /// Whether a node takes pods is told to the provisioners, whenever it changes.
    pub fn set_cordoned(&mut self, node: usize) {
        let cordoned = self.agents.nodes[node].object.unschedulable;
        if let Some(view) = self.supply.nodes.get(&self.nodes[node].name)
            && view.cordoned != cordoned
        {
            let view = crate::provision::NodeView { cordoned, ..view.clone() };
            self.supply.node_changed(view);
        }
    }

    pub fn node_of(&self, instance: usize) -> Option<usize> {
        self.node_of.get(&instance).copied()
    }

    pub fn timelines(&mut self) -> Vec<NodeTimeline> {
        let nodes = std::mem::take(&mut self.nodes);
        let of = |node: NodeSim| {
            let one = &self.supply.cloud.instances[node.instance];
            NodeTimeline {
                name: node.name,
                instance: one.id.to_string(),
                instance_type: one.offering.instance_type.clone(),
                zone: one.offering.zone.clone(),
                capacity_type: one.offering.capacity_type,
                stands_in: node.stands_in,
                announced_ms: node.announced.map(|(at, _)| at),
                taken_ms: node.announced.map(|(_, ends)| ends),
                states: node.states,
            }
        };
        nodes.into_iter().map(of).collect()
    }

    fn step(&mut self, step: Step) {
        self.tell(|_| format!("-- {step:?}"));
        self.do_step(step);
        self.exchange();
    }
}

fn agents_of(scenario: &Scenario) -> AgentsScenario {
    let mut agents = a_cluster();
    agents.seed = scenario.seed;
    agents.policy = scenario.policy.clone();
    agents.faults = scenario.api_faults.clone();
    agents.budgets = budgets(&scenario.workloads, &scenario.given_budgets);
    agents
}

fn supply_of(scenario: &Scenario) -> Supply {
    let cloud = &scenario.cloud;
    let mut supply = supply::scenario::a_cluster(0);
    supply.seed = scenario.seed;
    supply.settings = scenario.settings.clone();
    (supply.spot, supply.on_demand) = (cloud.spot, cloud.on_demand);
    (supply.boot_ms, supply.boot_spread_ms) = (cloud.boot_ms, cloud.boot_spread_ms);
    supply.bucket = cloud.bucket;
    supply.pools = scenario.pools.clone();
    supply.classes = scenario.classes.clone();
    supply.faults = scenario.supply_faults.clone();
    supply
}

/// Whether a capacity type is one that AWS may take back.
pub(super) fn is_spot(offering: &Offering) -> bool {
    offering.capacity_type == CapacityType::Spot
}
