//! What a simulated world begins with, and what is done to it: written by hand or drawn from a seed.
//!
//! All times are milliseconds since the world began.

use crate::domain::notice::{Action, InstanceId, Subject};
use crate::domain::pod::{BoundToNode, OnInterruption};
use crate::interruption::{Pace, Policy};

/// A world, and its script.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub policy: Policy,
    pub nodes: Vec<NodeSpec>,
    pub budgets: Vec<BudgetSpec>,
    pub faults: Faults,
    pub provisioner: ProvisionerSpec,
    /// A provisioner takes over the drains of silent agents.
    pub takes_over: bool,
    pub script: Vec<(u64, Step)>,
    pub ends_ms: u64,
}

/// How replacements are provided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvisionerSpec {
    /// There is no provisioner.
    #[default]
    Absent,
    /// It says so late after a confirmed notice, and its replacement is Ready so long after that; `None`: never.
    Provides { answers_in_ms: u64, ready_in_ms: Option<u64> },
    /// It says that none comes.
    Declines { answers_in_ms: u64 },
}

/// One node, its instance and its agent.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    pub pods: Vec<PodSpec>,
    pub cordoned: bool,
    pub excluded: bool,
    pub taints: Vec<String>,
    /// Annotations that say how it is to be treated.
    pub annotations: Vec<(String, String)>,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub namespace: String,
    pub name: String,
    pub grace_secs: u64,
    pub stops_in_ms: u64,
    pub policy: OnInterruption,
    pub bound: Option<BoundToNode>,
    /// A volume keeps it in the zone.
    pub zonal: bool,
    pub budgets: Vec<String>,
    /// Its controller starts another under the same name when it is gone.
    pub stateful: bool,
    pub finished: bool,
    /// A finalizer keeps the object for this long after the containers have stopped.
    pub finalizer_ms: Option<u64>,
    /// Somebody has asked it to go when the world begins.
    pub terminating: bool,
}

/// A PodDisruptionBudget, and how soon the workload behind it has another pod Ready elsewhere.
#[derive(Clone, Debug)]
pub struct BudgetSpec {
    pub name: String,
    /// How many of its pods may be missing at once.
    pub max_unavailable: u32,
    /// `None`: never, for want of room.
    pub replaced_in_ms: Option<u64>,
    /// A pod that is not Ready is let go only while no more than that are missing, as with `IfHealthyBudget`.
    pub guards_unready: bool,
}

/// What goes wrong of itself.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One in this many calls is done, and its answer lost.
    pub lost_answer_one_in: Option<u32>,
    /// One in this many calls is refused with 500 or 503.
    pub refused_one_in: Option<u32>,
    /// One in this many asks is throttled.
    pub throttled_one_in: Option<u32>,
    /// The longest time that a call takes beside the usual.
    pub slow_ms: u64,
    /// The longest time that a watch lags behind.
    pub watch_lag_ms: u64,
    /// One in this many answers of IMDS fails.
    pub imds_one_in: Option<u32>,
}

/// How the API server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiState {
    Well,
    /// Every call takes two seconds more.
    Slow,
    /// Nothing gets through.
    Away,
    /// Most calls are throttled.
    Flooded,
}

/// How an IMDS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdsState {
    Well,
    /// Refuses at once, answers 503 or garbage.
    Refuses,
    /// Answers nothing; the request times out.
    Hangs,
}

/// A message of the queue, as its parser gives it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The nodes that it is about, by name, and what of them.
    pub about: Vec<(String, Subject)>,
    pub event_id: String,
    /// When the instance will be taken, in milliseconds of the world.
    pub deadline_ms: Option<u64>,
}

/// What happens in a world.
#[derive(Clone, Debug)]
pub enum Step {
    /// `spot/instance-action` of a node; `slides`: its time moves with every answer.
    ImdsSpot {
        node: String,
        action: Action,
        deadline_ms: u64,
        slides: bool,
    },
    ImdsRebalance {
        node: String,
    },
    /// Adds or changes a scheduled event.
    ImdsScheduled {
        node: String,
        event_id: String,
        code: String,
        not_before_ms: u64,
        over: bool,
    },
    /// The event is listed no more.
    ImdsUnscheduled {
        node: String,
        event_id: String,
    },
    ImdsLifecycle {
        node: String,
        state: String,
    },
    Imds {
        node: String,
        state: ImdsState,
    },
    Queue(Message),
    /// The provisioner has seen in EC2 what a notice says, and writes that into the record.
    Ec2Confirms {
        node: String,
        subject: Subject,
        event_id: String,
        deadline_ms: Option<u64>,
    },
    /// A person's entry in the record, set or removed.
    Request {
        node: String,
        deadline_ms: Option<u64>,
    },
    /// The provisioner's: it is to go, and nobody takes it.
    Retire {
        node: String,
    },
    Withdraw {
        node: String,
    },
    /// The record is deleted by somebody.
    DeleteRecord {
        node: String,
    },
    Kill {
        node: String,
        down_ms: u64,
    },
    /// The provisioner is killed, or its replica leads no more; another goes on after this long.
    KillProvisioner {
        down_ms: u64,
    },
    /// The agent of a node goes on, and its writes to Interruptions fail for this long.
    Mute {
        node: String,
        millis: u64,
    },
    /// The wall clock of a node is stepped.
    Clock {
        node: String,
        by_secs: i64,
    },
    Api(ApiState),
    /// Somebody adds a taint of his own.
    Taint {
        node: String,
        key: String,
    },
    /// The node object changes without mattering (a kubelet's heartbeat).
    Touch {
        node: String,
    },
    NewPod {
        node: String,
        pod: PodSpec,
    },
    Relist {
        node: String,
    },
    /// The instance starts anew: other boot, same pods; its announcements are over.
    Reboot {
        node: String,
        down_ms: u64,
    },
    /// Somebody deletes the Node, and the kubelet registers it anew: another uid, nothing on it, and its record goes
    /// with the old one.
    Recreate {
        node: String,
    },
    /// The instance is taken.
    Die {
        node: String,
    },
}

/// A world without nodes, to be filled.
pub fn a_cluster() -> Scenario {
    Scenario {
        seed: 0,
        policy: Policy::default(),
        nodes: Vec::new(),
        budgets: Vec::new(),
        faults: Faults::default(),
        provisioner: ProvisionerSpec::default(),
        takes_over: false,
        script: Vec::new(),
        ends_ms: 0,
    }
}

/// A node without pods.
pub fn a_node(name: &str) -> NodeSpec {
    NodeSpec {
        name: name.to_owned(),
        pods: Vec::new(),
        cordoned: false,
        excluded: false,
        taints: Vec::new(),
        annotations: Vec::new(),
    }
}

/// A pod of a Deployment, given as `namespace/name`, that stops within two of its thirty seconds.
pub fn a_pod(path: &str) -> PodSpec {
    let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
    PodSpec {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        grace_secs: 30,
        stops_in_ms: 2_000,
        policy: OnInterruption::Evict,
        bound: None,
        zonal: false,
        budgets: Vec::new(),
        stateful: false,
        finished: false,
        finalizer_ms: None,
        terminating: false,
    }
}

impl PodSpec {
    pub fn grace(mut self, secs: u64) -> Self {
        self.grace_secs = secs;
        self
    }

    pub fn stops_in(mut self, millis: u64) -> Self {
        self.stops_in_ms = millis;
        self
    }

    pub fn waits(mut self) -> Self {
        self.policy = OnInterruption::Wait;
        self
    }

    pub fn stays(mut self) -> Self {
        self.policy = OnInterruption::Stay;
        self
    }

    pub fn of_a_daemon_set(mut self) -> Self {
        self.bound = Some(BoundToNode::DaemonSet);
        self
    }

    pub fn mirror(mut self) -> Self {
        self.bound = Some(BoundToNode::Mirror);
        self
    }

    pub fn budget(mut self, name: &str) -> Self {
        self.budgets.push(name.to_owned());
        self
    }

    pub fn of_a_stateful_set(mut self) -> Self {
        self.stateful = true;
        self
    }

    pub fn finished(mut self) -> Self {
        self.finished = true;
        self
    }

    pub fn finalizer(mut self, millis: u64) -> Self {
        self.finalizer_ms = Some(millis);
        self
    }

    pub fn terminating(mut self) -> Self {
        self.terminating = true;
        self
    }
}

impl NodeSpec {
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn with(mut self, pod: PodSpec) -> Self {
        self.pods.push(pod);
        self
    }

    pub fn cordoned_by_somebody(mut self) -> Self {
        self.cordoned = true;
        self
    }

    pub fn kept_from_load_balancers_by_somebody(mut self) -> Self {
        self.excluded = true;
        self
    }

    pub fn tainted_by_somebody(mut self, key: &str) -> Self {
        self.taints.push(key.to_owned());
        self
    }
}

impl Scenario {
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.nodes.push(node);
        self
    }

    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.policy);
        self
    }

    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// A budget of which nothing may be missing, ever, where `max_unavailable` is 0.
    pub fn budget(mut self, name: &str, max_unavailable: u32, replaced_in_ms: Option<u64>) -> Self {
        let name = name.to_owned();
        self.budgets.push(BudgetSpec { name, max_unavailable, replaced_in_ms, guards_unready: false });
        self
    }

    pub fn at(mut self, millis: u64, step: Step) -> Self {
        self.script.push((millis, step));
        self
    }

    /// IMDS of `node` announces its end, and its end comes.
    pub fn spot_interruption(self, millis: u64, node: &str, left_ms: u64) -> Self {
        self.imds_says(millis, node, millis + left_ms).at(millis + left_ms, Step::Die { node: node.to_owned() })
    }

    /// IMDS of `node` announces its end; it need not come.
    pub fn imds_says(self, millis: u64, node: &str, deadline_ms: u64) -> Self {
        let node = node.to_owned();
        let action = Action::Terminate;
        self.at(millis, Step::ImdsSpot { node, action, deadline_ms, slides: false })
    }

    /// The queue has a spot interruption warning about `node`.
    pub fn queue_says(self, millis: u64, node: &str, event_id: &str, deadline_ms: u64) -> Self {
        let subject = Subject::SpotInterruption(Action::Terminate);
        self.queue_has(millis, node, subject, event_id, Some(deadline_ms))
    }

    /// The queue has a message of any kind about `node`.
    pub fn queue_has(
        self,
        millis: u64,
        node: &str,
        subject: Subject,
        event_id: &str,
        deadline_ms: Option<u64>,
    ) -> Self {
        let message = Message { about: vec![(node.to_owned(), subject)], event_id: event_id.to_owned(), deadline_ms };
        self.at(millis, Step::Queue(message))
    }

    /// The provisioner has seen in EC2 what the queue says.
    pub fn ec2_confirms(
        self,
        millis: u64,
        node: &str,
        subject: Subject,
        event_id: &str,
        deadline_ms: Option<u64>,
    ) -> Self {
        let (node, event_id) = (node.to_owned(), event_id.to_owned());
        self.at(millis, Step::Ec2Confirms { node, subject, event_id, deadline_ms })
    }

    /// Maintenance is announced by IMDS, or moved.
    pub fn maintenance(self, millis: u64, node: &str, event_id: &str, not_before_ms: u64) -> Self {
        let step = Step::ImdsScheduled {
            node: node.to_owned(),
            event_id: event_id.to_owned(),
            code: "system-reboot".to_owned(),
            not_before_ms,
            over: false,
        };
        self.at(millis, step)
    }

    pub fn api(self, millis: u64, state: ApiState) -> Self {
        self.at(millis, Step::Api(state))
    }

    pub fn imds(self, millis: u64, node: &str, state: ImdsState) -> Self {
        self.at(millis, Step::Imds { node: node.to_owned(), state })
    }

    pub fn kill(self, millis: u64, node: &str, down_ms: u64) -> Self {
        self.at(millis, Step::Kill { node: node.to_owned(), down_ms })
    }

    /// The world ends this long after its last step, or later if asked for by `ends_ms`.
    pub(super) fn end(&self) -> u64 {
        let last = self.script.iter().map(|(at, _)| *at).max().unwrap_or(0);
        self.ends_ms.max(last + 60_000)
    }

    pub fn until(mut self, millis: u64) -> Self {
        self.ends_ms = millis;
        self
    }
}

/// How long one round of polls takes at a pace.
pub(super) fn interval_ms(pace: Pace) -> u64 {
    match pace {
        Pace::Usual => 1_000,
        Pace::Urgent => 250,
    }
}

/// The instance of the node at `index`.
pub(super) fn instance(index: usize) -> InstanceId {
    let text = format!("i-{:017x}", 0xa0_0000 + index);
    // Seventeen hexadecimal digits are an instance id.
    text.parse().unwrap_or_else(|_| unreachable!("{text} is an instance id"))
}
