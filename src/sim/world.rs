//! The world: everything that is, and the events that move it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::agents::Agent;
use super::api::{Call, RecordObject};
use super::queue::MessageSim;
use super::scenario::{ApiState, BudgetSpec, ImdsState, NodeSpec, PodSpec, Scenario};
use super::watches::Change;
use super::workloads::PodSim;
use super::{Figures, Finding, NodeAtEnd, Report, scenario};
use crate::api::interruption::ReplacementStatus;
use crate::domain::node::{Node, Taint};
use crate::domain::notice::{Action, InstanceId};
use crate::domain::policy::OnNode;
use crate::domain::time::Instant;
use crate::interruption::invariants::Violation;
use crate::interruption::invariants::ledger::{Foreign, Ledger};
use crate::interruption::mark::EXCLUDE_FROM_LOAD_BALANCERS;
use crate::interruption::{Because, Input};

/// How many effects one world may have: far more than any honest one needs.
const EFFECTS_MAX: u64 = 60_000;

pub(super) struct World {
    pub now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub rng: fastrand::Rng,
    pub scenario: Scenario,
    pub api: ApiState,
    /// When the API server's state changed last.
    pub api_since: u64,
    pub nodes: Vec<NodeSim>,
    pub names: BTreeMap<String, usize>,
    instances: BTreeMap<InstanceId, usize>,
    pub pods: Vec<PodSim>,
    pub budgets: Vec<BudgetSim>,
    pub messages: Vec<MessageSim>,
    pub figures: Figures,
    pub findings: Vec<Finding>,
    pub story: Vec<String>,
    telling: bool,
    pub effects_max: u64,
    /// Agents whose IMDS has nothing to say are not seen asking: it would change nothing, and takes most of the time.
    pub dozes: bool,
    /// What another world is told that runs in step with this one; `None` where there is none.
    pub told: Option<Vec<Told>>,
}

/// What has happened here that another world may have to know of.
pub(super) enum Told {
    /// A node's Interruption has changed.
    Record { node: usize },
    /// A Node has changed.
    Node { node: usize },
    /// A pod was asked to end.
    PodGoing { pod: usize },
    /// A pod's containers have stopped; `whole`: by themselves, rather than at the end of their grace.
    PodOut { pod: usize, whole: bool },
    /// A pod was killed with its instance.
    PodKilled { pod: usize },
    /// A pod's object is gone.
    PodGone { pod: usize },
    /// An agent has decided something.
    Decided { node: usize, because: Because },
}

/// One node with everything about it.
pub(super) struct NodeSim {
    pub name: String,
    pub instance: InstanceId,
    /// As the API server has it.
    pub object: Node,
    pub foreign: Foreign,
    pub record: Option<RecordObject>,
    /// The episode that the provisioner has heard of.
    pub answered: Option<i64>,
    pub imds: ImdsSim,
    pub alive: bool,
    pub boots: u32,
    /// How far the node's wall clock is off.
    pub skew_secs: i64,
    pub agent: Option<Agent>,
    pub lives: u32,
    /// The provisioner's part.
    pub stand_in: Option<Agent>,
    pub stand_in_lives: u32,
    /// Until then the agent's writes to Interruptions fail.
    pub mute_until: u64,
    pub ledger: Ledger,
    /// The open spans of [`Ledger::able`], of the agent and of its stand-in: since when, for which deadline.
    pub able: [Option<(u64, u64)>; 2],
    /// Since when a drain is wanted that is nobody's.
    pub nobodys: Option<u64>,
    /// All pods that ever were on it, by their places in the world.
    pub pods: Vec<usize>,
}

pub(super) struct ImdsSim {
    pub state: ImdsState,
    pub spot: Option<SpotSaid>,
    pub rebalance: Option<Timestamp>,
    pub scheduled: Vec<ScheduledSaid>,
    pub lifecycle: Option<String>,
}

impl ImdsSim {
    /// Whether there is nothing that it would answer with.
    pub fn says_nothing(&self) -> bool {
        self.spot.is_none() && self.rebalance.is_none() && self.scheduled.is_empty() && self.lifecycle.is_none()
    }
}

pub(super) struct SpotSaid {
    pub action: Action,
    pub deadline_ms: u64,
    pub slides: bool,
}

pub(super) struct ScheduledSaid {
    pub event_id: String,
    pub code: String,
    pub not_before_ms: u64,
    pub over: bool,
}

pub(super) struct BudgetSim {
    pub spec: BudgetSpec,
    pub missing: u32,
}

/// What is going to happen. `life` names the agent's life that it is about: a later life knows nothing of it.
pub(super) enum Event {
    Step(usize),
    Start {
        node: usize,
    },
    StartStandIn {
        node: usize,
    },
    Input {
        node: usize,
        life: u32,
        input: Box<Input>,
    },
    /// An answer to an ask, whose acknowledgement the ledger notes.
    Answered {
        node: usize,
        life: u32,
        input: Box<Input>,
        pod: usize,
        ask: usize,
    },
    Wake {
        node: usize,
        life: u32,
        generation: u32,
    },
    Poll {
        node: usize,
        life: u32,
        generation: u32,
    },
    Arrive {
        node: usize,
        life: u32,
        call: Box<Call>,
        sent: u64,
    },
    List {
        node: usize,
        life: u32,
    },
    ListPods {
        node: usize,
        life: u32,
        watch: u32,
    },
    Deliver {
        node: usize,
        life: u32,
        change: Box<Change>,
    },
    PodEnds {
        pod: usize,
        version: u32,
    },
    ObjectGoes {
        pod: usize,
    },
    Replaced {
        budget: usize,
    },
    Recreate {
        node: usize,
        pod: Box<PodSpec>,
    },
    Receive {
        message: usize,
    },
    ReaderWrites {
        message: usize,
        reader: usize,
        life: u32,
    },
    /// The provisioner writes of a replacement in an episode.
    Provides {
        node: usize,
        replacement: Box<ReplacementStatus>,
    },
    ReaderDeletes {
        message: usize,
        reader: usize,
        life: u32,
    },
}

impl World {
    pub fn new(scenario: Scenario, telling: bool) -> Self {
        let mut world = Self {
            now: 0,
            sequence: 0,
            events: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(scenario.seed),
            api: ApiState::Well,
            api_since: 0,
            nodes: Vec::new(),
            names: BTreeMap::new(),
            instances: BTreeMap::new(),
            pods: Vec::new(),
            budgets: Vec::new(),
            messages: Vec::new(),
            figures: Figures::default(),
            findings: Vec::new(),
            story: Vec::new(),
            telling,
            effects_max: EFFECTS_MAX,
            dozes: false,
            told: None,
            scenario,
        };
        let budgets = std::mem::take(&mut world.scenario.budgets);
        world.budgets = budgets.into_iter().map(|spec| BudgetSim { spec, missing: 0 }).collect();
        for (index, spec) in std::mem::take(&mut world.scenario.nodes).into_iter().enumerate() {
            world.add_node(spec, scenario::instance(index), Some(0));
        }
        let steps: Vec<u64> = world.scenario.script.iter().map(|(at, _)| *at).collect();
        for (index, at) in steps.into_iter().enumerate() {
            world.schedule(at, Event::Step(index));
        }
        world
    }

    /// A node joins; its agent starts then, or when it is started.
    pub fn add_node(&mut self, spec: NodeSpec, instance: InstanceId, agent_at: Option<u64>) {
        let index = self.nodes.len();
        self.names.insert(spec.name.clone(), index);
        self.instances.insert(instance.clone(), index);
        let taint =
            |key: &String| Taint { key: key.clone(), value: None, effect: "NoSchedule".into(), time_added: None };
        let foreign = Foreign {
            cordoned: spec.cordoned,
            excluded: spec.excluded,
            taints: spec.taints.iter().map(taint).collect(),
        };
        let mut object = Node {
            name: spec.name.clone(),
            uid: format!("uid-{}", spec.name),
            resource_version: "1".into(),
            provider_id: Some(format!("aws:///eu-west-1a/{instance}")),
            boot_id: Some("boot-1".into()),
            unschedulable: foreign.cordoned,
            taints: foreign.taints.clone(),
            ..Node::default()
        };
        object.annotations.extend(spec.annotations);
        if foreign.excluded {
            object.labels.insert(EXCLUDE_FROM_LOAD_BALANCERS.into(), "true".into());
        }
        let policy = self.scenario.policy.on(&OnNode::read(&object.annotations));
        let mut ledger = Ledger { slack: self.scenario.faults.slack(), ..Ledger::default() };
        ledger.is_kept_by(&policy);
        self.nodes.push(NodeSim {
            name: spec.name,
            instance,
            object,
            foreign,
            record: None,
            answered: None,
            imds: ImdsSim {
                state: ImdsState::Well,
                spot: None,
                rebalance: None,
                scheduled: Vec::new(),
                lifecycle: None,
            },
            alive: true,
            boots: 1,
            skew_secs: 0,
            agent: None,
            lives: 0,
            stand_in: None,
            stand_in_lives: 0,
            mute_until: 0,
            ledger,
            able: [None, None],
            nobodys: None,
            pods: Vec::new(),
        });
        for pod in spec.pods {
            self.add_pod(index, pod);
        }
        if let Some(at) = agent_at {
            self.schedule(at, Event::Start { node: index });
        }
        if self.scenario.takes_over {
            self.schedule(self.now, Event::StartStandIn { node: index });
        }
    }

    /// Runs to the end.
    pub fn run(mut self) -> (Report, Vec<NodeAtEnd>) {
        let end = self.scenario.end();
        while self.next_at().is_some_and(|at| at <= end) && self.run_next() {}
        self.conclude(end)
    }

    /// When something happens next.
    pub fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets happen what is next. Returns whether it can go on.
    pub fn run_next(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return false;
        };
        self.now = at;
        self.figures.events += 1;
        self.happens(event);
        let most = self.effects_max;
        if self.figures.effects > most {
            self.found(0, "live", format!("more than {most} effects: it goes round in circles"));
        }
        self.figures.effects <= most
    }

    /// The end has come: it is judged.
    pub fn conclude(mut self, end: u64) -> (Report, Vec<NodeAtEnd>) {
        self.now = end;
        self.verdict();
        let nodes = self.at_end();
        let report =
            Report { seed: self.scenario.seed, findings: self.findings, story: self.story, figures: self.figures };
        (report, nodes)
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Step(index) => self.step(index),
            Event::Start { node } => self.start_agent(node),
            Event::StartStandIn { node } => self.start_stand_in(node),
            Event::Input { node, life, input } => self.feed(node, life, *input),
            Event::Answered { node, life, input, pod, ask } => {
                if self.lives(node, life) {
                    self.acknowledged(pod, ask, &input);
                    self.feed(node, life, *input);
                }
            }
            Event::Wake { node, life, generation } => self.wake(node, life, generation),
            Event::Poll { node, life, generation } => self.poll(node, life, generation),
            Event::Arrive { node, life, call, sent } => self.arrive(node, life, *call, sent),
            Event::List { node, life } => self.list(node, life),
            Event::ListPods { node, life, watch } => self.list_pods(node, life, watch),
            Event::Deliver { node, life, change } => self.deliver(node, life, *change),
            Event::PodEnds { pod, version } => self.pod_ends(pod, version),
            Event::ObjectGoes { pod } => self.object_goes(pod),
            Event::Replaced { budget } => {
                let budget = &mut self.budgets[budget];
                budget.missing = budget.missing.saturating_sub(1);
            }
            Event::Recreate { node, pod } => self.recreate(node, *pod),
            Event::Receive { message } => self.receive(message),
            Event::ReaderWrites { message, reader, life } => self.reader_writes(message, reader, life),
            Event::Provides { node, replacement } => self.provides(node, *replacement),
            Event::ReaderDeletes { message, reader, life } => self.reader_deletes(message, reader, life),
        }
    }

    pub fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at.max(self.now), self.sequence), event);
    }

    /// Whether this life of the agent goes on.
    pub fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].actor(life).is_some()
    }

    /// Whether chance has it, one time in `one_in`.
    pub fn chance(&mut self, one_in: Option<u32>) -> bool {
        one_in.is_some_and(|n| self.rng.u32(0..n.max(1)) == 0)
    }

    /// The right wall-clock time of a moment.
    pub fn wall(at_ms: u64) -> Timestamp {
        let began = Timestamp::from_second(1_777_050_000).unwrap_or_default();
        let millis = i64::try_from(at_ms).unwrap_or(i64::MAX);
        began.checked_add(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MAX)
    }

    /// The same in whole seconds, as AWS announces times.
    pub fn announced(at_ms: u64) -> Timestamp {
        Self::wall(at_ms / 1000 * 1000)
    }

    /// What the wall clock of a node reads now.
    pub fn reads(&self, node: usize) -> Timestamp {
        let skew = SignedDuration::from_secs(self.nodes[node].skew_secs);
        Self::wall(self.now).checked_add(skew).unwrap_or(Timestamp::MAX)
    }

    pub fn node_named(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub fn node_of(&self, instance: &InstanceId) -> Option<usize> {
        self.instances.get(instance).copied()
    }

    /// Tells the world that runs in step with this one, where there is one.
    pub fn outward(&mut self, told: Told) {
        if let Some(all) = &mut self.told {
            all.push(told);
        }
    }

    pub fn tell(&mut self, node: usize, line: impl FnOnce() -> String) {
        if self.telling {
            let name = &self.nodes[node].name;
            self.story.push(format!("{:9.3} s  {name}: {}", self.now as f64 / 1000.0, line()));
        }
    }

    pub fn found(&mut self, node: usize, code: &'static str, what: String) {
        self.tell(node, || format!("!! {code}: {what}"));
        let finding = Finding { at_ms: self.now, node: self.nodes[node].name.clone(), code, what };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub fn violated(&mut self, node: usize, violations: Vec<Violation>) {
        for violation in violations {
            self.found(node, violation.invariant.code(), violation.what);
        }
    }
}

/// A moment of the world as the ledger writes it.
pub(super) fn moment(at_ms: u64) -> Instant {
    Instant::from_millis(at_ms)
}
