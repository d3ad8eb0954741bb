//! NodePools: what their fields mean, and whether they can work at all.
//!
//! - `serving`: which pool serves a doomed node, and what a claim of it asks for.
//! - `usage`: what counts against the limits, the floor and the cap.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::api::node_claim::{PATIENCE_MAX_SECONDS, Recipe};
use crate::api::node_pool::{Fallback, IntOrString, Limits, NodePoolSpec, NodePoolStatus, PoolTaint, TemplateMeta};
use crate::domain::offering::{CapacityType, Catalog, MicroDollars, Offering};
use crate::domain::policy::{DRAIN, MARGIN, MARGIN_MAX, REBALANCE};
use crate::domain::quantity;
use crate::domain::requirements::{CAPACITY_TYPE, INSTANCE_TYPE, Operator, Requirement, met};
use crate::domain::time::Instant;

use super::writes::Writes;
use crate::interruption::Outcome;

pub(super) mod serving;
pub mod usage;

/// The prefix of labels and annotations that are ours.
const OURS: &str = "spotkeeper.dev/";

/// The longest patience with spot that a claim takes.
pub const PATIENCE_MAX: Duration = Duration::from_secs(PATIENCE_MAX_SECONDS.unsigned_abs());

/// How long a pool may go unseen after a leader began until it is taken not to exist.
const SEEN_BY: Duration = Duration::from_secs(10);

/// A NodePool of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: String,
    pub uid: String,
    /// Of its spec.
    pub generation: i64,
    pub spec: NodePoolSpec,
    pub status: NodePoolStatus,
}

/// What is wrong with a pool: which field, and why it cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// In one CamelCase word.
    pub reason: &'static str,
    /// As in `kubectl explain`.
    pub field: String,
    pub why: String,
}

impl Fault {
    fn new(reason: &'static str, field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { reason, field: field.into(), why: why.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// A floor of on-demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    Nodes(u64),
    /// Of the pool's nodes, rounded up.
    Percent(u64),
}

impl Floor {
    /// How many nodes it means in a pool of so many.
    pub fn of(self, nodes: u64) -> u64 {
        match self {
            Self::Nodes(floor) => floor,
            Self::Percent(part) => (nodes * part).div_ceil(100),
        }
    }
}

/// When on-demand stand-ins are moved back to spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnToSpot {
    pub after: Duration,
    pub min_stay: Duration,
    /// `None`: as many as `surge` allows.
    pub max_per_hour: Option<u64>,
    /// 0: never.
    pub surge: u64,
}

impl Default for ReturnToSpot {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self { after: minutes(10), min_stay: minutes(30), max_per_hour: None, surge: 1 }
    }
}

/// What the fields of a pool mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub requirements: Vec<Requirement>,
    pub weight: i64,
    /// Its EC2NodeClass.
    pub class: String,
    pub metadata: TemplateMeta,
    pub taints: Vec<PoolTaint>,
    pub startup_taints: Vec<PoolTaint>,
    pub order: Vec<CapacityType>,
    pub spot_patience: Duration,
    pub return_to_spot: ReturnToSpot,
    pub floor: Floor,
    pub fallback_cost_max: Option<MicroDollars>,
    /// At most; `None` without end.
    pub vcpus_max: Option<u64>,
    pub memory_mib_max: Option<u64>,
    pub nodes_max: Option<u64>,
    /// What its nodes' agents are told: `(annotation, value)`.
    pub policies: Vec<(&'static str, Option<String>)>,
}

impl Rules {
    /// Whether anything about it depends on how many nodes it has.
    pub fn counts(&self) -> bool {
        let limited = self.vcpus_max.is_some() || self.memory_mib_max.is_some() || self.nodes_max.is_some();
        limited || self.floor != Floor::Nodes(0) || self.fallback_cost_max.is_some()
    }
}

/// Reads the fields of a pool. What the schema refuses is refused here, too: it may be older than the pool.
pub fn read(spec: &NodePoolSpec) -> Result<Rules, Fault> {
    let template = &spec.template.spec;
    for (index, one) in template.requirements.iter().enumerate() {
        one.check().map_err(|error| {
            Fault::new("InvalidRequirement", format!("spec.template.spec.requirements[{index}]"), error.to_string())
        })?;
    }
    let metadata = spec.template.metadata.clone().unwrap_or_default();
    for (field, keys) in [("labels", metadata.labels.keys()), ("annotations", metadata.annotations.keys())] {
        if let Some(key) = keys.into_iter().find(|key| key.starts_with(OURS)) {
            let field = format!("spec.template.metadata.{field}");
            return Err(Fault::new(
                "ReservedKey",
                field,
                format!("`{key}` is spotkeeper's own: choose another prefix"),
            ));
        }
    }
    let fallback = spec.fallback.clone().unwrap_or_default();
    let order = order(&fallback, &template.requirements)?;
    let floor = fallback.on_demand_floor.as_ref().map_or(Ok(Floor::Nodes(0)), floor)?;
    if floor != Floor::Nodes(0) && !order.iter().any(|one| *one != CapacityType::Spot) {
        let why = "neither on-demand nor reserved is in spec.fallback.order";
        return Err(Fault::new("InvalidFloor", "spec.fallback.onDemandFloor", why));
    }
    let limits = spec.limits.clone().unwrap_or_default();
    Ok(Rules {
        requirements: template.requirements.clone(),
        weight: spec.weight.unwrap_or(0),
        class: template.node_class_ref.name.clone(),
        metadata,
        taints: template.taints.clone(),
        startup_taints: template.startup_taints.clone(),
        order,
        spot_patience: spot_patience(&fallback)?,
        return_to_spot: return_to_spot(&fallback)?,
        floor,
        fallback_cost_max: cost_max(&fallback)?,
        vcpus_max: amount("spec.limits.cpu", &limits.cpu, quantity::vcpus)?,
        memory_mib_max: amount("spec.limits.memory", &limits.memory, quantity::mib)?,
        nodes_max: nodes_max(&limits)?,
        policies: policies(spec)?,
    })
}

fn order(fallback: &Fallback, requirements: &[Requirement]) -> Result<Vec<CapacityType>, Fault> {
    const FIELD: &str = "spec.fallback.order";
    let on = requirements.iter().filter(|one| one.key == CAPACITY_TYPE).collect::<Vec<_>>();
    let allowed = |one: &CapacityType| on.iter().all(|requirement| requirement.allows(Some(one.as_str())));
    let order = match &fallback.order {
        None => CapacityType::ALL.iter().copied().filter(allowed).collect::<Vec<_>>(),
        Some(order) => order.clone(),
    };
    if let Some(forbidden) = order.iter().find(|one| !allowed(one)) {
        let why = format!("names {forbidden}, which the requirement on {CAPACITY_TYPE} forbids");
        return Err(Fault::new("InvalidOrder", FIELD, why));
    }
    if let Some(twice) = order.iter().enumerate().find(|(index, one)| order[..*index].contains(one)) {
        return Err(Fault::new("InvalidOrder", FIELD, format!("names {} twice", twice.1)));
    }
    if order.is_empty() && fallback.order.is_some() {
        return Err(Fault::new("InvalidOrder", FIELD, "names no capacity type"));
    }
    if order.is_empty() {
        let why = format!("the requirement on {CAPACITY_TYPE} allows none of reserved, spot, on-demand");
        return Err(Fault::new("InvalidRequirement", "spec.template.spec.requirements", why));
    }
    Ok(order)
}

fn floor(floor: &IntOrString) -> Result<Floor, Fault> {
    let text = floor.to_string();
    let read = match text.strip_suffix('%') {
        Some(part) => part.parse().ok().filter(|part| *part <= 100).map(Floor::Percent),
        None => text.parse().ok().map(Floor::Nodes),
    };
    read.ok_or_else(|| {
        let why = format!("`{text}` is neither a number of nodes such as 2 nor a percentage such as 20%");
        Fault::new("InvalidFloor", "spec.fallback.onDemandFloor", why)
    })
}

fn cost_max(fallback: &Fallback) -> Result<Option<MicroDollars>, Fault> {
    let Some(text) = &fallback.max_hourly_fallback_cost else { return Ok(None) };
    let wrong = || {
        let why = format!("`{text}` is no amount of US dollars an hour such as 12.50");
        Fault::new("InvalidCost", "spec.fallback.maxHourlyFallbackCost", why)
    };
    quantity::dollars(text).map(Some).ok_or_else(wrong)
}

fn duration(field: &str, text: Option<&str>, otherwise: Duration) -> Result<Duration, Fault> {
    let read = text.map(crate::domain::time::duration).transpose();
    read.map(|read| read.unwrap_or(otherwise)).map_err(|why| Fault::new("InvalidDuration", field, why))
}

fn spot_patience(fallback: &Fallback) -> Result<Duration, Fault> {
    const FIELD: &str = "spec.fallback.spotPatience";
    let patience = duration(FIELD, fallback.spot_patience.as_deref(), Duration::ZERO)?;
    if patience > PATIENCE_MAX {
        let why =
            "more than 24h: leave on-demand out of spec.fallback.order where spot is to be waited for without end";
        return Err(Fault::new("InvalidDuration", FIELD, why));
    }
    Ok(patience)
}

fn return_to_spot(fallback: &Fallback) -> Result<ReturnToSpot, Fault> {
    let (of, default) = (fallback.return_to_spot.clone().unwrap_or_default(), ReturnToSpot::default());
    let number = |field: &str, number: Option<i64>| {
        let wrong = |_| Fault::new("InvalidNumber", format!("spec.fallback.returnToSpot.{field}"), "is less than zero");
        number.map(u64::try_from).transpose().map_err(wrong)
    };
    Ok(ReturnToSpot {
        after: duration("spec.fallback.returnToSpot.after", of.after.as_deref(), default.after)?,
        min_stay: duration("spec.fallback.returnToSpot.minStay", of.min_stay.as_deref(), default.min_stay)?,
        max_per_hour: number("maxPerHour", of.max_per_hour)?,
        surge: number("surge", of.surge)?.unwrap_or(default.surge),
    })
}

fn amount(
    field: &str,
    text: &Option<IntOrString>,
    read: fn(&str) -> Result<u64, String>,
) -> Result<Option<u64>, Fault> {
    let read = text.as_ref().map(|text| read(&text.to_string())).transpose();
    read.map_err(|why| Fault::new("InvalidLimit", field, why))
}

fn nodes_max(limits: &Limits) -> Result<Option<u64>, Fault> {
    let wrong = |_| Fault::new("InvalidLimit", "spec.limits.nodes", "is less than zero");
    limits.nodes.map(u64::try_from).transpose().map_err(wrong)
}

/// What the agents of its nodes are told; an annotation without a value is taken off.
fn policies(spec: &NodePoolSpec) -> Result<Vec<(&'static str, Option<String>)>, Fault> {
    let of = spec.interruption.clone().unwrap_or_default();
    const FIELD: &str = "spec.interruption.margin";
    if duration(FIELD, of.margin.as_deref(), Duration::ZERO)? > MARGIN_MAX {
        return Err(Fault::new("InvalidDuration", FIELD, "more than 60s leaves too little of a spot notice"));
    }
    Ok(vec![
        (REBALANCE, of.rebalance.map(|policy| policy.to_string())),
        (DRAIN, of.drain.map(|policy| policy.to_string())),
        (MARGIN, of.margin),
    ])
}

/// The first thing that is wrong with a pool where EC2 offers this; the API server may not have been asked.
pub fn faults_with(spec: &NodePoolSpec, catalog: &Catalog) -> Option<Fault> {
    read(spec).and_then(|rules| possible(&rules, catalog)).err()
}

/// Whether anything that EC2 offers meets the needs of a pool; a note on what of them is nothing.
fn possible(rules: &Rules, catalog: &Catalog) -> Result<Option<String>, Fault> {
    const FIELD: &str = "spec.template.spec.requirements";
    let mut note = None;
    for (index, one) in rules.requirements.iter().enumerate() {
        if one.key != INSTANCE_TYPE || one.operator != Operator::In {
            continue;
        }
        let unknown: Vec<&str> =
            one.values.iter().filter(|name| !catalog.types.contains_key(*name)).map(String::as_str).collect();
        let named = unknown.join(", ");
        if unknown.len() == one.values.len() {
            let why = format!("EC2 has no instance type {named} in this region");
            return Err(Fault::new("UnknownInstanceType", format!("{FIELD}[{index}].values"), why));
        }
        if !unknown.is_empty() {
            note = Some(format!("EC2 has no instance type {named} in this region: passed over"));
        }
    }
    if offered(&rules.requirements, &rules.order, catalog) {
        return Ok(note);
    }
    // The first that leaves nothing, alone or together with those before it.
    let alone = |one: &Requirement| !offered(std::slice::from_ref(one), &rules.order, catalog);
    let empty = |index: &usize| !offered(&rules.requirements[..=*index], &rules.order, catalog);
    let all = 0..rules.requirements.len();
    let (index, why) = match all.clone().find(|index| alone(&rules.requirements[*index])) {
        Some(index) => (index, "nothing that EC2 offers here meets it"),
        None => (all.into_iter().find(empty).unwrap_or(0), "together with those before it it leaves nothing"),
    };
    let of = rules.requirements.get(index).map(|one| format!(" ({} {})", one.key, one.operator)).unwrap_or_default();
    Err(Fault::new("ContradictoryRequirements", format!("{FIELD}[{index}]"), format!("{why}{of}")))
}

/// Whether there is an offering of one of these capacity types that meets them; what is reserved may be used up now.
fn offered(requirements: &[Requirement], order: &[CapacityType], catalog: &Catalog) -> bool {
    catalog.zones.iter().any(|(zone, names)| {
        names.iter().filter_map(|name| catalog.types.get(name)).any(|of| {
            order.iter().any(|capacity_type| {
                let (instance_type, zone) = (of.name.clone(), zone.clone());
                met(requirements, of, &Offering { instance_type, zone, capacity_type: *capacity_type })
            })
        })
    })
}

/// A pool, as the leader serves it.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) pool: Pool,
    pub(super) rules: Result<Rules, Fault>,
    /// A note on what works only in part; the fault where it cannot work with what EC2 offers.
    pub(super) possible: Result<Option<String>, Fault>,
    pub(super) status: NodePoolStatus,
    pub(super) writes: Writes<NodePoolStatus>,
}

/// What is launched with each EC2NodeClass, or why nothing can be.
pub(super) type Classes = BTreeMap<String, Result<Recipe, String>>;

/// All pools.
#[derive(Clone, Debug, Default)]
pub(super) struct Pools {
    all: BTreeMap<String, Served>,
    synced: bool,
}

impl Pools {
    /// A pool is new or has changed. Returns whether anything but its status did.
    pub(super) fn seen(&mut self, pool: Pool, catalog: &Catalog) -> bool {
        let known = self.all.get(&pool.name).filter(|known| known.pool.uid == pool.uid);
        if let Some(known) = known
            && known.pool.spec == pool.spec
        {
            return false;
        }
        let rules = read(&pool.spec);
        let possible = judged(&rules, catalog);
        let (status, writes) = match known {
            Some(known) => (known.status.clone(), known.writes.clone()),
            None => (pool.status.clone(), Writes::from(Some(pool.status.clone()))),
        };
        self.all.insert(pool.name.clone(), Served { pool, rules, possible, status, writes });
        true
    }

    pub(super) fn gone(&mut self, name: &str) {
        self.all.remove(name);
    }

    pub(super) fn synced(&mut self) {
        self.synced = true;
    }

    /// What EC2 offers has changed.
    pub(super) fn offered(&mut self, catalog: &Catalog) {
        for served in self.all.values_mut() {
            served.possible = judged(&served.rules, catalog);
        }
    }

    /// A new term: what an earlier one has written need not be there.
    pub(super) fn forget(&mut self) {
        for served in self.all.values_mut() {
            served.writes = Writes::from(Some(served.pool.status.clone()));
        }
    }

    /// Whether all of them are known. Where they cannot be watched they are taken not to exist after a while.
    pub(super) fn are_known(&self, now: Instant, since: Instant) -> bool {
        self.synced || now.since(since) >= SEEN_BY
    }

    /// When something of them is due: what is missing is taken not to exist; a status is written again.
    pub(super) fn wakeup(&self, now: Instant, since: Instant) -> Option<Instant> {
        let settled = Some(since + SEEN_BY).filter(|at| *at > now && !(self.synced && self.all.is_empty()));
        let writes = self.all.values().filter_map(|served| served.writes.wakeup(&served.status));
        writes.chain(settled).min()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Served> {
        self.all.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Served)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Served> {
        self.all.values_mut()
    }

    /// Whether what is missing is rather missing than not seen yet.
    pub(super) fn are_settled(&self, now: Instant, since: Instant) -> bool {
        now.since(since) >= SEEN_BY
    }

    /// The API server has answered the write of a status.
    pub(super) fn written(&mut self, now: Instant, name: &str, outcome: Outcome) -> Option<String> {
        self.all.get_mut(name).and_then(|served| served.writes.answered(now, outcome))
    }

    /// What stands in a pool's way, whatever it is.
    pub(super) fn fault(served: &Served, classes: &Classes) -> Option<Fault> {
        let class = |class: &String| {
            let why = match classes.get(class) {
                Some(Ok(_)) => return None,
                Some(Err(why)) => format!("EC2NodeClass {class}: {why}"),
                None => format!("there is no EC2NodeClass {class}"),
            };
            let reason = if classes.contains_key(class) { "NodeClassNotReady" } else { "NodeClassNotFound" };
            Some(Fault::new(reason, "spec.template.spec.nodeClassRef.name", why))
        };
        match (&served.rules, &served.possible) {
            (Err(fault), _) | (_, Err(fault)) => Some(fault.clone()),
            (Ok(rules), Ok(_)) => class(&rules.class),
        }
    }

    /// What is launched for a pool's claims; or why nothing can be.
    pub(super) fn recipe<'a>(&self, name: &str, classes: &'a Classes) -> Result<&'a Recipe, String> {
        let Some(served) = self.all.get(name) else { return Err(format!("there is no NodePool {name} any more")) };
        if let Some(fault) = Self::fault(served, classes) {
            return Err(format!("NodePool {name}: {fault}"));
        }
        let rules = served.rules.as_ref().map_err(|fault| fault.to_string())?;
        let recipe = classes.get(&rules.class).and_then(|recipe| recipe.as_ref().ok());
        recipe.ok_or_else(|| format!("there is no EC2NodeClass {}", rules.class))
    }
}

fn judged(rules: &Result<Rules, Fault>, catalog: &Catalog) -> Result<Option<String>, Fault> {
    match rules {
        // Without a catalog nothing is known of what there is.
        Ok(rules) if !catalog.is_empty() => possible(rules, catalog),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
