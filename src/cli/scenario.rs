//! Scenarios as people write them: YAML, checked to the last word; a mistake is named with its line and column.
//!
//! docs/rehearse.md describes every field.

use serde::Deserialize;
use serde_saphyr::Spanned;

use self::cloud::{WrittenCloud, traced};
pub use self::mistake::Mistake;
use self::mistake::{wrong, wrong_somewhere};
use self::pools::WrittenPool;
use self::settings::{WrittenFaults, WrittenSettings};
use self::steps::WrittenStep;
use self::values::{Millis, Positive, Seconds, or_default};
use crate::domain::offering::CapacityType;
use crate::domain::pod::OnInterruption;
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{Cloud, NodeGroup, Workload, WorkloadKind, a_cluster, a_deployment};

mod cloud;
mod mistake;
mod pools;
mod settings;
mod steps;
mod values;

/// The most that one scenario may have: more is a slip of the pen.
const NODES_MAX: usize = 20_000;
const PODS_MAX: usize = 400_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    /// For `--list`.
    #[serde(rename = "description")]
    _description: String,
    /// How much time is simulated.
    duration: Positive,
    #[serde(default, deserialize_with = "or_default")]
    cloud: WrittenCloud,
    #[serde(default, deserialize_with = "or_default")]
    node_pools: Vec<WrittenPool>,
    nodes: Spanned<Vec<WrittenNodes>>,
    workloads: Option<Spanned<Vec<WrittenWorkload>>>,
    #[serde(default, deserialize_with = "or_default")]
    settings: WrittenSettings,
    #[serde(default, deserialize_with = "or_default")]
    faults: WrittenFaults,
    #[serde(default, deserialize_with = "or_default")]
    steps: Vec<WrittenStep>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenNodes {
    count: Spanned<usize>,
    instance_type: Option<Spanned<String>>,
    #[serde(default = "spot")]
    capacity_type: CapacityType,
    /// One zone after the other where it is not given.
    zone: Option<Spanned<String>>,
    /// The NodePool that they are labelled for.
    node_pool: Option<Spanned<String>>,
}

fn spot() -> CapacityType {
    CapacityType::Spot
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenWorkload {
    /// `namespace/name`.
    name: Spanned<String>,
    kind: WrittenKind,
    replicas: u32,
    cpu_millis: Option<Spanned<u32>>,
    grace: Option<Seconds>,
    stops_in: Option<Millis>,
    starts_in: Option<Millis>,
    /// A PodDisruptionBudget.
    max_unavailable: Option<u32>,
    checkpoint_every: Option<Positive>,
    #[serde(default)]
    zonal: bool,
    /// A node selector.
    node_pool: Option<Spanned<String>>,
    #[serde(default)]
    waits: bool,
}

/// Who makes another pod; the provisioner is there in any case.
#[derive(Clone, Copy, Deserialize)]
enum WrittenKind {
    Deployment,
    StatefulSet,
    Job,
    Pod,
}

impl From<WrittenKind> for WorkloadKind {
    fn from(kind: WrittenKind) -> Self {
        match kind {
            WrittenKind::Deployment => Self::Deployment,
            WrittenKind::StatefulSet => Self::StatefulSet,
            WrittenKind::Job => Self::Job,
            WrittenKind::Pod => Self::Pod,
        }
    }
}

/// Reads a scenario that names none but shipped files; `name` is what reports call it.
pub fn read(name: &str, text: &str) -> Result<Scenario, Mistake> {
    read_with(name, text, &|file| {
        let shipped = super::shipped::TRACES.iter().find(|(name, _)| *name == file);
        shipped.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "it is not shipped".to_owned())
    })
}

/// The text of a file that a scenario names, or why there is none.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads a scenario, and the files that it names.
pub fn read_with(name: &str, text: &str, file: ReadFile) -> Result<Scenario, Mistake> {
    let mut written: Written = serde_saphyr::from_str(text).map_err(|error| Mistake::of(&error, text))?;
    let mut scenario = a_cluster(0).named(name);
    let trace = written.cloud.trace.take();
    scenario.cloud = written.cloud.read()?;
    for pool in written.node_pools {
        let (name, pool) = pool.read(&scenario)?;
        scenario.pools.insert(name, pool);
    }
    let (of_nodes, groups) = (written.nodes.defined, written.nodes.value);
    scenario.nodes = groups.into_iter().map(|one| nodes(one, &scenario)).collect::<Result<_, _>>()?;
    let of_workloads = written.workloads.as_ref().map_or(of_nodes, |of| of.defined);
    for one in written.workloads.map(|of| of.value).unwrap_or_default() {
        let one = workload(one, &scenario)?;
        scenario.workloads.push(one);
    }
    sized(&scenario).map_err(|(what, why)| wrong(if what == "nodes" { &of_nodes } else { &of_workloads }, why))?;
    written.settings.put(&mut scenario)?;
    (scenario.api_faults, scenario.supply_faults) = written.faults.read();
    if let Some(trace) = trace {
        scenario = traced(trace, scenario, file)?;
    }
    scenario = scenario.until(written.duration.0);
    for step in written.steps {
        scenario = step.put(scenario)?;
    }
    Ok(scenario)
}

/// Whether it can be rehearsed at all; else the field and why not.
fn sized(scenario: &Scenario) -> Result<(), (&'static str, String)> {
    let count: usize = scenario.nodes.iter().map(|group| group.count).sum();
    let pods: usize = scenario.workloads.iter().map(|one| one.replicas as usize).sum();
    match () {
        () if count == 0 || count > NODES_MAX => {
            Err(("nodes", format!("nodes: {count} in all; 1 to {NODES_MAX} can be rehearsed")))
        }
        () if pods > PODS_MAX => {
            Err(("workloads", format!("workloads: {pods} pods; {PODS_MAX} at most can be rehearsed")))
        }
        () => Ok(()),
    }
}

/// The same with so many times the nodes and the pods, and budgets to match.
pub fn times(mut scenario: Scenario, times: u32) -> Result<Scenario, Mistake> {
    for group in &mut scenario.nodes {
        group.count = group.count.saturating_mul(times as usize);
    }
    let own = WorkloadKind::Provisioner;
    for one in scenario.workloads.iter_mut().filter(|one| one.kind != own) {
        one.replicas = one.replicas.saturating_mul(times);
        one.max_unavailable = one.max_unavailable.map(|most| most.saturating_mul(times));
    }
    sized(&scenario).map_err(|(_, why)| wrong_somewhere(why))?;
    Ok(scenario)
}

/// What `--list` says of a scenario.
pub fn description(text: &str) -> String {
    #[derive(Deserialize)]
    struct Described {
        description: String,
    }
    serde_saphyr::from_str::<Described>(text).map(|one| one.description).unwrap_or_default()
}

fn known_zone(zone: &Spanned<String>, cloud: &Cloud) -> Result<String, Mistake> {
    if cloud.zones.contains(&zone.value) {
        return Ok(zone.value.clone());
    }
    let what = format!("there is no zone `{}`; there are {}", zone.value, cloud.zones.join(", "));
    Err(wrong(&zone.defined, what))
}

fn known_type(name: &Spanned<String>, cloud: &Cloud) -> Result<String, Mistake> {
    if cloud.types.iter().any(|one| one.of.name == name.value) {
        return Ok(name.value.clone());
    }
    let known: Vec<&str> = cloud.types.iter().map(|one| one.of.name.as_str()).collect();
    let what = format!("there is no instance type `{}`; there are {}", name.value, known.join(", "));
    Err(wrong(&name.defined, what))
}

fn known_pool(name: &Spanned<String>, scenario: &Scenario) -> Result<String, Mistake> {
    if scenario.pools.contains_key(&name.value) {
        return Ok(name.value.clone());
    }
    let known: Vec<&str> = scenario.pools.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none is written in nodePools".to_owned() } else { known.join(", ") };
    Err(wrong(&name.defined, format!("there is no NodePool `{}`; there are: {known}", name.value)))
}

fn nodes(written: WrittenNodes, scenario: &Scenario) -> Result<NodeGroup, Mistake> {
    let cloud = &scenario.cloud;
    let first = cloud.types.first().map(|one| one.of.name.clone()).unwrap_or_default();
    Ok(NodeGroup {
        count: written.count.value.min(NODES_MAX + 1),
        instance_type: written.instance_type.map_or(Ok(first), |name| known_type(&name, cloud))?,
        capacity_type: written.capacity_type,
        zone: written.zone.map(|zone| known_zone(&zone, cloud)).transpose()?,
        pool: written.node_pool.map(|pool| known_pool(&pool, scenario)).transpose()?,
    })
}

fn workload(written: WrittenWorkload, scenario: &Scenario) -> Result<Workload, Mistake> {
    let name = &written.name;
    let two = name.value.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    if two.is_none_or(|(_, name)| name.contains('/')) {
        return Err(wrong(&name.defined, format!("`{}`: write it as namespace/name", name.value)));
    }
    if scenario.workloads.iter().any(|one| one.path() == name.value) {
        return Err(wrong(
            &name.defined,
            format!("`{}` is there already: every workload has its own name", name.value),
        ));
    }
    let largest = scenario.cloud.types.iter().map(|one| one.of.vcpus.saturating_mul(1_000)).max().unwrap_or(0);
    if let Some(cpu) = written.cpu_millis.as_ref().filter(|cpu| cpu.value > largest) {
        let what = format!("cpuMillis: {}, and no instance type of this scenario has more than {largest}", cpu.value);
        return Err(wrong(&cpu.defined, what));
    }
    let of = a_deployment(&name.value, written.replicas);
    Ok(Workload {
        kind: written.kind.into(),
        cpu_millis: written.cpu_millis.map_or(of.cpu_millis, |cpu| cpu.value),
        grace_secs: written.grace.map_or(of.grace_secs, |it| it.0),
        stops_in_ms: written.stops_in.map_or(of.stops_in_ms, |it| it.0),
        starts_in_ms: written.starts_in.map_or(of.starts_in_ms, |it| it.0),
        max_unavailable: written.max_unavailable,
        checkpoint_ms: written.checkpoint_every.map(|it| it.0),
        zonal: written.zonal,
        node_pool: written.node_pool.map(|pool| known_pool(&pool, scenario)).transpose()?,
        policy: if written.waits { OnInterruption::Wait } else { of.policy },
        ..of
    })
}
