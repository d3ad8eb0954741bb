//! What a world of supply begins with, and what is done to it. All times are milliseconds since the world began.

use std::collections::BTreeMap;

use crate::api::node_pool::{Fallback, IntOrString, Limits, NodePoolSpec};
use crate::domain::offering::CapacityType;
use crate::provision::Settings;

/// A world, and its script.
#[derive(Clone, Debug)]
pub struct Supply {
    pub seed: u64,
    pub settings: Settings,
    /// How many instance types there are that can stand in for another; each in every zone.
    pub types: usize,
    pub zones: usize,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many spot and on-demand instances each pool holds; `None` without end.
    pub spot: Option<u32>,
    pub on_demand: Option<u32>,
    /// How many instances a reservation of the first type in the first zone holds; 0: there is none.
    pub reserved: u32,
    pub boot_ms: u64,
    /// How much longer than that a boot may take.
    pub boot_spread_ms: u64,
    /// The longest that a drain takes that was asked for.
    pub drain_ms: u64,
    /// How much later than everything else the replicas are told that pods have come to a node, or have gone.
    pub pods_late_ms: u64,
    /// Nodes stay when their instances end: no cloud controller removes them.
    pub nodes_stay: bool,
    /// How many volumes each of them has attached.
    pub volumes: usize,
    /// EC2's own buckets: size and rate a second.
    pub bucket: (u32, f64),
    pub faults: Faults,
    /// By how much the clocks of the two replicas are off.
    pub clocks_off_ms: [i64; 2],
    /// Labels that new nodes join with: user data's.
    pub joins_with: BTreeMap<String, String>,
    /// New nodes have no providerID: there is no cloud controller.
    pub nameless: bool,
    /// How long after a new node says that it is Ready its startup taint goes and its device plugin registers; `None`: it
    /// has neither.
    pub settles_ms: Option<u64>,
    /// NodePools by name; all of class [`CLASS`].
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// EC2NodeClasses beside [`CLASS`]: the zones of its subnets, or why it cannot be launched.
    pub classes: BTreeMap<String, Result<Vec<String>, String>>,
    /// The pool that the cluster's nodes are labelled for.
    pub labelled: Option<String>,
    /// Every node whose number leaves less than this when divided by four was made without a launch template.
    pub plain_of_four: usize,
    /// How many different ones there are among these.
    pub plain_kinds: usize,
    /// The class of all pools says what is launched, and a launch template is made of it.
    pub inline_class: bool,
    pub script: Vec<(u64, Step)>,
    pub ends_ms: u64,
    /// The replicas look at everything with every input, rather than at what it may have changed.
    pub thorough: bool,
}

/// What goes wrong of itself.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// One in this many writes is done and its answer lost; one in this many is refused.
    pub api_lost_one_in: Option<u32>,
    pub api_refused_one_in: Option<u32>,
    /// One in this many launches is done and its answer lost; is done long after it was given up; is answered 5xx and not
    /// done.
    pub ec2_lost_one_in: Option<u32>,
    pub ec2_late_one_in: Option<u32>,
    pub ec2_error_one_in: Option<u32>,
    /// The longest time until a new instance is shown.
    pub shown_after_ms: u64,
    /// One in this many instances never becomes a node.
    pub never_joins_one_in: Option<u32>,
    /// One in this many answers names only one of the offerings that gave nothing, or none.
    pub names_one_one_in: Option<u32>,
    /// One in this many readings of what a leader has left gives something older, a part of it, or beliefs without end.
    pub memory_odd_one_in: Option<u32>,
    /// What a leader has left can never be read.
    pub memory_fails: bool,
}

/// What happens in a world.
#[derive(Clone, Debug)]
pub enum Step {
    /// AWS will take the instance of this node, two minutes from now.
    Doom {
        node: usize,
    },
    /// So many nodes, one after the other from this one.
    DoomMany {
        from: usize,
        count: usize,
    },
    /// The queue alone tells of the end of a node's instance, and its IMDS denies it; in EC2 it is `so`, or not.
    QueueSays {
        node: usize,
        so: bool,
    },
    /// AWS takes the instance of this node, and nobody is told.
    TakeUnheard {
        node: usize,
    },
    /// Somebody ends the instance of this node by hand.
    Shut {
        node: usize,
    },
    /// Somebody deletes the record of this node's instance.
    DeleteRecord {
        node: usize,
    },
    /// The record of this node's instance says that it is over.
    Over {
        node: usize,
    },
    /// The announcement was not true after all.
    Withdraw {
        node: usize,
    },
    /// What is left in every pool of this capacity type, or of one zone (by number).
    Left {
        capacity: CapacityType,
        zone: Option<usize>,
        left: Option<u32>,
    },
    /// Every launch is answered with this error code, for this capacity type; `None`: no more.
    Refuse {
        capacity: CapacityType,
        code: Option<&'static str>,
    },
    /// Instances launched from now on become nodes, or do not.
    Join(bool),
    Api(State),
    Ec2(State),
    /// A replica is killed, and starts again after this.
    Kill {
        replica: usize,
        down_ms: u64,
    },
    /// The replica that leads is killed.
    KillLeader {
        down_ms: u64,
    },
    /// A NodePool is made or changed.
    Pool(&'static str, Box<NodePoolSpec>),
    PoolGone(&'static str),
    /// The class of all pools can be launched, or why not.
    Class(Result<(), &'static str>),
    /// The class of all pools says something else from now on, so that another template is made of it.
    ClassMoves,
    /// Somebody deletes every launch template of ours.
    DeleteTemplates,
    /// The instance of a stand-in is interrupted, whoever stands in.
    DoomStandIn,
    /// The instance of this node is in the Auto Scaling group of that number.
    InGroup {
        node: usize,
        group: usize,
    },
    /// The group launches one of its own.
    GroupLaunches {
        group: usize,
    },
    /// The same of the first spot stand-in alone.
    DoomSpotStandIn,
    /// A rebalance recommendation for this node.
    Recommend {
        node: usize,
    },
    /// A person deletes the NodeClaim of a stand-in.
    DeleteClaim,
    /// Budgets allow no eviction from now on, or do again.
    Block(bool),
    /// A pod that is never asked to go runs on the first stand-in.
    Stay,
    /// The Node of the first spot stand-in says that it is Ready, or that it is not.
    SpotStandInIs {
        ready: bool,
    },
    /// A person deletes the NodeClaims that have failed.
    DeleteFailed,
    /// Somebody deletes every Launch, and takes off the finalizer that would keep it.
    DeleteLaunches,
    /// An instance turns up of the first call that there was.
    TurnsUp,
    /// All NodeClaims and Launches are gone: somebody has deleted the CRDs, or restored an older etcd.
    LoseRecords,
    /// Somebody writes this where leaders leave what they know.
    Memory(&'static str),
}

/// How a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Well,
    /// Nothing gets through; calls time out.
    Away,
    /// Calls are throttled.
    Throttles,
    /// Every write is refused; what is read is answered.
    Refuses,
}

/// The EC2NodeClass of all pools.
pub const CLASS: &str = "default";

/// The startup taint of new nodes, and what a device plugin registers.
pub const STARTING: &str = "example.com/starting";
pub const DEVICE: &str = "example.com/device";

/// A pool that takes everything.
pub fn a_pool() -> NodePoolSpec {
    let mut spec = NodePoolSpec::default();
    spec.template.spec.node_class_ref.name = CLASS.into();
    spec.fallback =
        Some(Fallback { order: Some(vec![CapacityType::Spot, CapacityType::OnDemand]), ..Fallback::default() });
    spec
}

impl NodePoolSpec {
    /// At most so many nodes.
    pub fn nodes_max(mut self, nodes: i64) -> Self {
        self.limits = Some(Limits { nodes: Some(nodes), ..self.limits.unwrap_or_default() });
        self
    }

    /// At most so many vCPUs.
    pub fn vcpus_max(mut self, vcpus: i64) -> Self {
        let cpu = Some(IntOrString::Int(vcpus));
        self.limits = Some(Limits { cpu, ..self.limits.unwrap_or_default() });
        self
    }

    /// At least so many on-demand: `2` or `20%`.
    pub fn floor(mut self, floor: &str) -> Self {
        let floor = Some(IntOrString::String(floor.into()));
        self.fallback = Some(Fallback { on_demand_floor: floor, ..self.fallback.unwrap_or_default() });
        self
    }

    /// Fallback costs at most so much an hour.
    pub fn cost_max(mut self, dollars: &str) -> Self {
        let cost = Some(dollars.to_owned());
        self.fallback = Some(Fallback { max_hourly_fallback_cost: cost, ..self.fallback.unwrap_or_default() });
        self
    }
}

/// A quiet cluster with room everywhere, to which a scenario does something.
pub fn a_cluster(nodes: usize) -> Supply {
    Supply {
        seed: 0,
        settings: Settings::default(),
        types: 4,
        zones: 3,
        nodes,
        spot: None,
        on_demand: None,
        reserved: 0,
        boot_ms: 45_000,
        boot_spread_ms: 10_000,
        drain_ms: 20_000,
        pods_late_ms: 0,
        nodes_stay: false,
        volumes: 0,
        bucket: (50, 5.0),
        faults: Faults::default(),
        clocks_off_ms: [0, 0],
        joins_with: BTreeMap::new(),
        nameless: false,
        settles_ms: None,
        pools: BTreeMap::new(),
        classes: BTreeMap::new(),
        labelled: None,
        plain_of_four: 0,
        plain_kinds: 1,
        inline_class: false,
        script: Vec::new(),
        ends_ms: 15 * 60_000,
        thorough: false,
    }
}

impl Supply {
    /// All nodes are labelled for this pool.
    pub fn of(mut self, name: &str, pool: NodePoolSpec) -> Self {
        self.labelled = Some(name.to_owned());
        self.beside(name, pool)
    }

    /// There is this pool, too.
    pub fn beside(mut self, name: &str, pool: NodePoolSpec) -> Self {
        self.pools.insert(name.to_owned(), pool);
        self
    }

    pub fn at(mut self, at_ms: u64, step: Step) -> Self {
        self.script.push((at_ms, step));
        self.ends_ms = self.ends_ms.max(at_ms + 15 * 60_000);
        self
    }

    pub fn until(mut self, ends_ms: u64) -> Self {
        self.ends_ms = ends_ms;
        self
    }
}
