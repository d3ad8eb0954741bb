//! What a whole system begins with, and what is done to it. All times are milliseconds since the world began.

use std::collections::BTreeMap;

use super::given::{Given, GivenBudget, GivenNode};
use crate::api::node_pool::NodePoolSpec;
use crate::domain::offering::{CapacityType, Catalog, InstanceType, MicroDollars, Offering};
use crate::domain::pod::OnInterruption;
use crate::interruption::Policy;
use crate::provision::Settings;
pub use crate::sim::scenario::{ApiState, Faults as ApiFaults, ImdsState};
pub use crate::sim::supply::scenario::{Faults as SupplyFaults, State};

/// How long AWS gives.
pub const TWO_MINUTES: u64 = 120_000;

/// A cluster, its cloud, and its script.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Names it in reports.
    pub name: String,
    pub seed: u64,
    /// How the agents are set.
    pub policy: Policy,
    /// How the provisioners are set.
    pub settings: Settings,
    pub cloud: Cloud,
    pub nodes: Vec<NodeGroup>,
    /// NodePools by name; all launch with the same class. None at all: what was lost is copied.
    pub pools: BTreeMap<String, NodePoolSpec>,
    /// Nodes that are there by name; they join before those of the groups.
    pub given_nodes: Vec<GivenNode>,
    /// Budgets over pods of several workloads.
    pub given_budgets: Vec<GivenBudget>,
    /// EC2NodeClasses by name beside the one that all others use: the zones of its subnets, or why it cannot be launched.
    pub classes: BTreeMap<String, Result<Vec<String>, String>>,
    pub workloads: Vec<Workload>,
    /// EventBridge puts notices into a queue, too.
    pub queue: bool,
    /// What goes wrong of itself between agents and the API server.
    pub api_faults: ApiFaults,
    /// What goes wrong of itself around the provisioners and EC2.
    pub supply_faults: SupplyFaults,
    pub script: Vec<(u64, Step)>,
    pub ends_ms: u64,
}

/// What EC2 has.
#[derive(Clone, Debug)]
pub struct Cloud {
    pub types: Vec<TypeSpec>,
    pub zones: Vec<String>,
    /// How many instances each pool of spot and each of on-demand has at first; `None`: without end.
    pub spot: Option<u32>,
    pub on_demand: Option<u32>,
    /// Capacity that is paid for already.
    pub reservations: Vec<Reservation>,
    /// The shortest boot, and how much longer one may take: until the kubelet has registered its Node.
    pub boot_ms: u64,
    pub boot_spread_ms: u64,
    /// The token bucket of `CreateFleet`: its size, and what comes back in a second.
    pub bucket: (u32, f64),
}

/// A capacity reservation.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub instance_type: String,
    pub zone: String,
    /// How many instances it still holds when the world begins.
    pub left: u32,
}

/// An instance type and its prices, the same in every zone.
#[derive(Clone, Debug)]
pub struct TypeSpec {
    pub of: InstanceType,
    /// `None`: nobody knows.
    pub spot: Option<MicroDollars>,
    pub on_demand: Option<MicroDollars>,
}

/// Nodes of one kind, spread over the zones (or in one).
#[derive(Clone, Debug)]
pub struct NodeGroup {
    pub count: usize,
    pub instance_type: String,
    pub capacity_type: CapacityType,
    /// `None`: one zone after the other.
    pub zone: Option<String>,
    /// The NodePool that they are labelled for.
    pub pool: Option<String>,
}

/// Pods of one kind.
#[derive(Clone, Debug)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    pub kind: WorkloadKind,
    pub replicas: u32,
    /// What a pod asks for, in thousandths of a CPU.
    pub cpu_millis: u32,
    pub grace_secs: u64,
    /// How long a pod takes to stop once it is asked; for one that keeps checkpoints: to save.
    pub stops_in_ms: u64,
    /// From the start of its containers until it is Ready.
    pub starts_in_ms: u64,
    pub policy: OnInterruption,
    /// A PodDisruptionBudget: how many of its pods may be missing at once.
    pub max_unavailable: Option<u32>,
    /// It saves its work this often. What came after the last time is lost with a pod that is killed.
    pub checkpoint_ms: Option<u64>,
    /// A volume keeps each pod in the zone where it began.
    pub zonal: bool,
    /// A node selector: its pods run on nodes of this NodePool alone.
    pub node_pool: Option<String>,
    /// What is given of it, where the world is a cluster that is there already.
    pub given: Given,
}

/// Who makes another pod, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum WorkloadKind {
    /// As soon as one is asked to end.
    Deployment,
    /// When the object of the one before is gone.
    StatefulSet,
    /// The same, for pods that work towards an end.
    Job,
    /// Nobody.
    Pod,
    /// The provisioner itself: a Deployment whose pods are the replicas that run core 2.
    Provisioner,
}

/// Which nodes a step is about, among those that live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By the order in which they joined.
    Node(usize),
    /// So many, one after the other from this one.
    Nodes {
        from: usize,
        count: usize,
    },
    Zone(String),
    Spot,
    All,
    /// The one that joined first of those that stand in for another.
    StandIn,
    /// Those on which a replica of the provisioner runs.
    Provisioners,
}

/// Which pools a step is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    pub capacity_type: CapacityType,
    /// `None`: every one.
    pub instance_type: Option<String>,
    pub zone: Option<String>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// EC2 will take their instances so much later, where they are spot: IMDS says so, and the queue where there is one.
    Interrupt {
        of: Which,
        notice_ms: u64,
    },
    /// IMDS recommends to rebalance.
    Rebalance {
        of: Which,
    },
    /// What is left in pools from now on. Where that is nothing, so many of a hundred of the spot instances in them are
    /// interrupted within a minute.
    Pools {
        of: Pools,
        left: Option<u32>,
        takes_percent: u8,
    },
    /// Every launch of a capacity type is answered with this error code; `None`: no more.
    Refuse {
        capacity_type: CapacityType,
        code: Option<&'static str>,
    },
    /// Instances launched from now on become nodes, or do not.
    Join(bool),
    Api(ApiState),
    Ec2(State),
    Imds {
        of: Which,
        state: ImdsState,
    },
    /// Agents are killed, and start again after this.
    KillAgents {
        of: Which,
        down_ms: u64,
    },
    KillProvisioner {
        replica: usize,
        down_ms: u64,
    },
    KillLeader {
        down_ms: u64,
    },
    /// Nothing goes wrong of itself any more.
    NoFaults,
}

/// A quiet cluster of spot nodes in three zones, with capacity everywhere.
pub fn a_cluster(nodes: usize) -> Scenario {
    Scenario {
        name: "a cluster".into(),
        seed: 0,
        policy: Policy::default(),
        settings: Settings::default(),
        cloud: Cloud::default(),
        nodes: vec![NodeGroup {
            count: nodes,
            instance_type: "m7g.2xlarge".into(),
            capacity_type: CapacityType::Spot,
            zone: None,
            pool: None,
        }],
        pools: BTreeMap::new(),
        given_nodes: Vec::new(),
        given_budgets: Vec::new(),
        classes: BTreeMap::new(),
        workloads: vec![the_provisioner()],
        queue: true,
        api_faults: ApiFaults::default(),
        supply_faults: SupplyFaults::default(),
        script: Vec::new(),
        ends_ms: 10 * 60_000,
    }
}

/// A Deployment, given as `namespace/name`: pods of one CPU that are Ready after ten seconds and stop within two.
pub fn a_deployment(path: &str, replicas: u32) -> Workload {
    let (namespace, name) = path.split_once('/').unwrap_or(("default", path));
    Workload {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        kind: WorkloadKind::Deployment,
        replicas,
        cpu_millis: 1_000,
        grace_secs: 30,
        stops_in_ms: 2_000,
        starts_in_ms: 10_000,
        policy: OnInterruption::Evict,
        max_unavailable: None,
        checkpoint_ms: None,
        zonal: false,
        node_pool: None,
        given: Given::default(),
    }
}

/// A StatefulSet whose pods have volumes in their zones.
pub fn a_stateful_set(path: &str, replicas: u32) -> Workload {
    Workload { kind: WorkloadKind::StatefulSet, zonal: true, ..a_deployment(path, replicas) }
}

/// A training job: its pods fill half a node, save every ten minutes, and take twenty seconds to do so.
pub fn a_training_job(path: &str, replicas: u32) -> Workload {
    Workload {
        kind: WorkloadKind::Job,
        cpu_millis: 4_000,
        grace_secs: 60,
        stops_in_ms: 20_000,
        starts_in_ms: 30_000,
        checkpoint_ms: Some(10 * 60_000),
        ..a_deployment(path, replicas)
    }
}

/// As the manifests have it: two replicas, one of which may be missing.
fn the_provisioner() -> Workload {
    Workload {
        kind: WorkloadKind::Provisioner,
        cpu_millis: 100,
        grace_secs: 20,
        stops_in_ms: 500,
        starts_in_ms: 1_500,
        max_unavailable: Some(1),
        ..a_deployment("spotkeeper/spotkeeper-provisioner", 2)
    }
}

impl Workload {
    pub fn cpu(mut self, millis: u32) -> Self {
        self.cpu_millis = millis;
        self
    }

    pub fn grace(mut self, secs: u64) -> Self {
        self.grace_secs = secs;
        self
    }

    pub fn stops_in(mut self, millis: u64) -> Self {
        self.stops_in_ms = millis;
        self
    }

    pub fn starts_in(mut self, millis: u64) -> Self {
        self.starts_in_ms = millis;
        self
    }

    pub fn budget(mut self, max_unavailable: u32) -> Self {
        self.max_unavailable = Some(max_unavailable);
        self
    }

    pub fn waits(mut self) -> Self {
        self.policy = OnInterruption::Wait;
        self
    }

    pub fn checkpoints(mut self, every_ms: u64) -> Self {
        self.checkpoint_ms = Some(every_ms);
        self
    }

    /// Agents and provisioners take it to be kept in its zone.
    pub(super) fn has_volume(&self) -> bool {
        self.zonal || self.given.has_volume
    }

    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Default for Cloud {
    fn default() -> Self {
        Self {
            types: vec![
                a_type("m7g.2xlarge", 8, 32, 146_000, 364_800),
                a_type("m6g.2xlarge", 8, 32, 138_000, 344_000),
                a_type("m8g.2xlarge", 8, 32, 161_000, 401_100),
                a_type("r7g.2xlarge", 8, 64, 188_000, 478_800),
            ],
            zones: ["eu-west-1a", "eu-west-1b", "eu-west-1c"].map(str::to_owned).to_vec(),
            spot: None,
            on_demand: None,
            reservations: Vec::new(),
            boot_ms: 45_000,
            boot_spread_ms: 10_000,
            bucket: (50, 5.0),
        }
    }
}

/// An instance type: vCPUs, memory in GiB, and what an hour costs in millionths of a dollar.
pub fn a_type(name: &str, vcpus: u32, gib: u64, spot: MicroDollars, on_demand: MicroDollars) -> TypeSpec {
    let of = InstanceType {
        name: name.to_owned(),
        arch: "arm64".into(),
        vcpus,
        memory_mib: gib * 1_024,
        ..InstanceType::default()
    };
    TypeSpec { of, spot: Some(spot), on_demand: Some(on_demand) }
}

impl Cloud {
    /// What EC2 says that it offers.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for TypeSpec { of, spot, on_demand } in &self.types {
            for zone in &self.zones {
                for (capacity_type, price) in [(CapacityType::Spot, *spot), (CapacityType::OnDemand, *on_demand)] {
                    let offering = Offering { instance_type: of.name.clone(), zone: zone.clone(), capacity_type };
                    catalog.prices.extend(price.map(|price| (offering, price)));
                }
                catalog.zones.entry(zone.clone()).or_default().insert(of.name.clone());
            }
            catalog.types.insert(of.name.clone(), of.clone());
        }
        for Reservation { instance_type, zone, left } in &self.reservations {
            *catalog.reserved.entry((instance_type.clone(), zone.clone())).or_default() += left;
        }
        catalog
    }
}

impl Pools {
    pub fn of(capacity_type: CapacityType) -> Self {
        Self { capacity_type, instance_type: None, zone: None }
    }

    pub fn in_zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }

    pub fn has(&self, offering: &Offering) -> bool {
        self.capacity_type == offering.capacity_type
            && self.instance_type.as_ref().is_none_or(|name| *name == offering.instance_type)
            && self.zone.as_ref().is_none_or(|zone| *zone == offering.zone)
    }
}

impl Scenario {
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub fn workload(mut self, workload: Workload) -> Self {
        self.workloads.push(workload);
        self
    }

    /// More nodes of the first group's type.
    pub fn nodes(mut self, count: usize, capacity_type: CapacityType, zone: Option<&str>) -> Self {
        let instance_type = self.nodes.first().map_or("m7g.2xlarge".into(), |group| group.instance_type.clone());
        self.nodes.push(NodeGroup { count, instance_type, capacity_type, zone: zone.map(str::to_owned), pool: None });
        self
    }

    /// A NodePool, for which the nodes are labelled that there are so far.
    pub fn of_pool(mut self, name: &str, pool: NodePoolSpec) -> Self {
        self.nodes.iter_mut().for_each(|group| group.pool = Some(name.to_owned()));
        self.pools.insert(name.to_owned(), pool);
        self
    }

    pub fn boots_in(mut self, millis: u64, spread_ms: u64) -> Self {
        (self.cloud.boot_ms, self.cloud.boot_spread_ms) = (millis, spread_ms);
        self
    }

    pub fn at(mut self, millis: u64, step: Step) -> Self {
        self.script.push((millis, step));
        self.ends_ms = self.ends_ms.max(millis + 10 * 60_000);
        self
    }

    /// AWS announces that it takes these, with two minutes' notice.
    pub fn interrupts(self, millis: u64, of: Which) -> Self {
        self.at(millis, Step::Interrupt { of, notice_ms: TWO_MINUTES })
    }

    /// What is left in these pools, as a list of when and how many. Where that is nothing, `takes_percent` of the spot
    /// instances in them are interrupted.
    pub fn trace(mut self, of: &Pools, takes_percent: u8, points: &[(u64, Option<u32>)]) -> Self {
        for (at, left) in points {
            self = self.at(*at, Step::Pools { of: of.clone(), left: *left, takes_percent });
        }
        self
    }

    pub fn until(mut self, millis: u64) -> Self {
        self.ends_ms = millis;
        self
    }
}
