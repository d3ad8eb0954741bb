//! Scenarios as people write them: YAML, checked to the last word; a mistake is named with its line and column.
//!
//! docs/rehearse.md describes every field.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use self::pools::WrittenPool;
use self::steps::WrittenStep;
use super::trace::table;
use crate::domain::offering::CapacityType;
use crate::domain::pod::OnInterruption;
use crate::domain::policy::{DrainStart, Rebalance};
use crate::domain::time::duration;
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{
    ApiFaults, Cloud, NodeGroup, Pools, Reservation, SupplyFaults, TypeSpec, Workload, WorkloadKind, a_cluster,
    a_deployment, a_type,
};

mod pools;
mod steps;

/// The most that one scenario may have: more is a slip of the pen.
const NODES_MAX: usize = 20_000;
const PODS_MAX: usize = 400_000;

/// A scenario cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line and column, from 1, where they are known.
    at: Option<(u64, u64)>,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Mistake {}

fn wrong(at: &Location, what: String) -> Mistake {
    Mistake { at: Some((at.line(), at.column())), what }
}

/// A duration as Kubernetes writes it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Millis(u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = duration(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(u64::try_from(read.as_millis()).unwrap_or(u64::MAX)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    /// For `--list`.
    #[serde(rename = "description")]
    _description: String,
    /// How much time is simulated.
    duration: Millis,
    #[serde(default)]
    cloud: WrittenCloud,
    #[serde(default)]
    node_pools: Vec<WrittenPool>,
    nodes: Vec<WrittenNodes>,
    #[serde(default)]
    workloads: Vec<WrittenWorkload>,
    #[serde(default)]
    settings: WrittenSettings,
    #[serde(default)]
    faults: WrittenFaults,
    #[serde(default)]
    steps: Vec<WrittenStep>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenCloud {
    zones: Option<Vec<String>>,
    instance_types: Option<Vec<WrittenType>>,
    /// How many instances each pool has at first; without it, without end.
    spot_left: Option<u32>,
    on_demand_left: Option<u32>,
    reservations: Vec<WrittenReservation>,
    boot: Option<Millis>,
    boot_spread: Option<Millis>,
    create_fleet_bucket: Option<(u32, f64)>,
    trace: Option<WrittenTrace>,
}

/// When spot pools have capacity: docs/traces.md describes the table.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenTrace {
    file: Spanned<String>,
    /// How many of a hundred instances are taken where a pool runs dry.
    takes_percent: Option<Spanned<u8>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenType {
    name: String,
    vcpus: u32,
    #[serde(rename = "memoryGiB")]
    memory_gib: u64,
    #[serde(default)]
    gpus: u32,
    arch: Option<String>,
    /// US dollars an hour.
    spot: Spanned<f64>,
    on_demand: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenReservation {
    instance_type: Spanned<String>,
    zone: Spanned<String>,
    left: u32,
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
    kind: Spanned<WorkloadKind>,
    replicas: u32,
    cpu_millis: Option<u32>,
    grace: Option<Millis>,
    stops_in: Option<Millis>,
    starts_in: Option<Millis>,
    /// A PodDisruptionBudget.
    max_unavailable: Option<u32>,
    checkpoint_every: Option<Millis>,
    #[serde(default)]
    zonal: bool,
    /// A node selector.
    node_pool: Option<Spanned<String>>,
    #[serde(default)]
    waits: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenSettings {
    order: Option<Vec<CapacityType>>,
    spot_patience: Option<Millis>,
    rebalance: Option<Rebalance>,
    drain: Option<DrainStart>,
    margin: Option<Millis>,
    return_after: Option<Millis>,
    return_min_stay: Option<Millis>,
    return_surge: Option<u64>,
    queue: Option<bool>,
}

/// What goes wrong of itself: one in so many.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenFaults {
    api_answer_lost: Option<u32>,
    api_refused: Option<u32>,
    eviction_throttled: Option<u32>,
    imds_failed: Option<u32>,
    ec2_answer_lost: Option<u32>,
    ec2_error: Option<u32>,
    instance_never_joins: Option<u32>,
    instance_shown_after: Option<Millis>,
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
    let mut written: Written = serde_saphyr::from_str(text).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column()));
        let what = error.without_snippet().to_string();
        // It says itself where, in the end.
        let told = at.map(|(line, column)| format!(" at line {line}, column {column}"));
        let what = told.and_then(|told| Some(what.strip_suffix(&told)?.to_owned())).unwrap_or(what);
        Mistake { at, what }
    })?;
    let mut scenario = a_cluster(0).named(name);
    let trace = written.cloud.trace.take();
    scenario.cloud = cloud(written.cloud)?;
    for pool in written.node_pools {
        let (name, pool) = pool.read(&scenario)?;
        scenario.pools.insert(name, pool);
    }
    scenario.nodes = written.nodes.into_iter().map(|one| nodes(one, &scenario)).collect::<Result<_, _>>()?;
    for one in written.workloads {
        let one = workload(one, &scenario)?;
        scenario.workloads.push(one);
    }
    sized(&scenario)?;
    settings(written.settings, &mut scenario);
    (scenario.api_faults, scenario.supply_faults) = faults(written.faults);
    if let Some(trace) = trace {
        scenario = traced(trace, scenario, file)?;
    }
    for step in written.steps {
        scenario = step.put(scenario)?;
    }
    Ok(scenario.until(written.duration.0))
}

/// Whether it can be rehearsed at all.
fn sized(scenario: &Scenario) -> Result<(), Mistake> {
    let count: usize = scenario.nodes.iter().map(|group| group.count).sum();
    let pods: usize = scenario.workloads.iter().map(|one| one.replicas as usize).sum();
    let what = match () {
        () if count == 0 || count > NODES_MAX => format!("nodes: {count} in all; 1 to {NODES_MAX} can be rehearsed"),
        () if pods > PODS_MAX => format!("workloads: {pods} pods; {PODS_MAX} at most can be rehearsed"),
        () => return Ok(()),
    };
    Err(Mistake { at: None, what })
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
    sized(&scenario)?;
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

fn cloud(written: WrittenCloud) -> Result<Cloud, Mistake> {
    let mut cloud = Cloud::default();
    if let Some(types) = written.instance_types {
        cloud.types = types.into_iter().map(instance_type).collect::<Result<_, _>>()?;
    }
    cloud.zones = written.zones.unwrap_or(cloud.zones);
    (cloud.spot, cloud.on_demand) = (written.spot_left, written.on_demand_left);
    cloud.boot_ms = written.boot.map_or(cloud.boot_ms, |it| it.0);
    cloud.boot_spread_ms = written.boot_spread.map_or(cloud.boot_spread_ms, |it| it.0);
    cloud.bucket = written.create_fleet_bucket.unwrap_or(cloud.bucket);
    for WrittenReservation { instance_type, zone, left } in written.reservations {
        let (instance_type, zone) = (known_type(&instance_type, &cloud)?, known_zone(&zone, &cloud)?);
        cloud.reservations.push(Reservation { instance_type, zone, left });
    }
    let unique: BTreeSet<&String> = cloud.zones.iter().collect();
    let (size, per_sec) = cloud.bucket;
    let what = match () {
        () if cloud.zones.is_empty() || unique.len() < cloud.zones.len() => "cloud.zones: at least one, none twice",
        () if cloud.types.is_empty() => "cloud.instanceTypes: at least one",
        () if size == 0 || !per_sec.is_finite() || per_sec <= 0.0 => {
            "cloud.createFleetBucket: its size and its tokens a second, both more than zero"
        }
        () => return Ok(cloud),
    };
    Err(Mistake { at: None, what: what.into() })
}

/// What the pools of a trace have, as steps of the scenario.
fn traced(written: WrittenTrace, mut scenario: Scenario, file: ReadFile) -> Result<Scenario, Mistake> {
    let name = &written.file;
    let text = file(&name.value).map_err(|why| wrong(&name.defined, format!("{}: {why}", name.value)))?;
    let table = table::read(&text).map_err(|mistake| wrong(&name.defined, format!("{}, {mistake}", name.value)))?;
    let percent = match written.takes_percent {
        Some(percent) if percent.value > 100 => {
            let what = format!("{} of a hundred: 0 to 100", percent.value);
            return Err(wrong(&percent.defined, what));
        }
        percent => percent.map_or(100, |percent| percent.value),
    };
    for (pool, points) in &table.pools {
        let types: Vec<&str> = scenario.cloud.types.iter().map(|one| one.of.name.as_str()).collect();
        let unknown = match () {
            () if !types.contains(&pool.instance_type.as_str()) => Some(("instance type", types.join(", "))),
            () if !scenario.cloud.zones.contains(&pool.zone) => Some(("zone", scenario.cloud.zones.join(", "))),
            () => None,
        };
        if let Some((what, known)) = unknown {
            let line = table.lines.get(pool).copied().unwrap_or(1);
            let what = format!("{}, line {line}: {pool}: the scenario has the {what}s {known}", name.value);
            return Err(wrong(&name.defined, what));
        }
        let of = Pools {
            capacity_type: CapacityType::Spot,
            instance_type: Some(pool.instance_type.clone()),
            zone: Some(pool.zone.clone()),
        };
        scenario = scenario.trace(&of, percent, points);
    }
    Ok(scenario)
}

fn instance_type(written: WrittenType) -> Result<TypeSpec, Mistake> {
    let micro = |price: Spanned<f64>, field: &str| {
        if price.value.is_finite() && (0.0..10_000.0).contains(&price.value) {
            return Ok((price.value * 1e6).round() as u64);
        }
        let what = format!("{field}: {} is no price in US dollars an hour (0 to 10,000)", price.value);
        Err(wrong(&price.defined, what))
    };
    let (spot, on_demand) = (micro(written.spot, "spot")?, micro(written.on_demand, "onDemand")?);
    let mut one = a_type(&written.name, written.vcpus, written.memory_gib, spot, on_demand);
    one.of.gpus = written.gpus;
    one.of.arch = written.arch.unwrap_or(one.of.arch);
    Ok(one)
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
    if two.is_none() {
        return Err(wrong(&name.defined, format!("`{}`: write it as namespace/name", name.value)));
    }
    if written.kind.value == WorkloadKind::Provisioner {
        let what = "the provisioner is there already; Deployment, StatefulSet, Job or Pod is meant".to_owned();
        return Err(wrong(&written.kind.defined, what));
    }
    let of = a_deployment(&name.value, written.replicas);
    Ok(Workload {
        kind: written.kind.value,
        cpu_millis: written.cpu_millis.unwrap_or(of.cpu_millis),
        grace_secs: written.grace.map_or(of.grace_secs, |it| it.0 / 1_000),
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

fn settings(written: WrittenSettings, scenario: &mut Scenario) {
    let time = |it: Millis| std::time::Duration::from_millis(it.0);
    let (policy, core) = (&mut scenario.policy, &mut scenario.settings);
    policy.rebalance = written.rebalance.unwrap_or(policy.rebalance);
    policy.drain = written.drain.unwrap_or(policy.drain);
    policy.margin = written.margin.map_or(policy.margin, time);
    core.order = written.order.unwrap_or_else(|| core.order.clone());
    core.spot_patience = written.spot_patience.map_or(core.spot_patience, time);
    core.returns.after = written.return_after.map_or(core.returns.after, time);
    core.returns.min_stay = written.return_min_stay.map_or(core.returns.min_stay, time);
    core.returns.surge = written.return_surge.unwrap_or(core.returns.surge);
    scenario.queue = written.queue.unwrap_or(scenario.queue);
}

fn faults(written: WrittenFaults) -> (ApiFaults, SupplyFaults) {
    let api = ApiFaults {
        lost_answer_one_in: written.api_answer_lost,
        refused_one_in: written.api_refused,
        throttled_one_in: written.eviction_throttled,
        imds_one_in: written.imds_failed,
        ..ApiFaults::default()
    };
    let supply = SupplyFaults {
        api_lost_one_in: written.api_answer_lost,
        api_refused_one_in: written.api_refused,
        ec2_lost_one_in: written.ec2_answer_lost,
        ec2_error_one_in: written.ec2_error,
        never_joins_one_in: written.instance_never_joins,
        shown_after_ms: written.instance_shown_after.map_or(0, |it| it.0),
        ..SupplyFaults::default()
    };
    (api, supply)
}
