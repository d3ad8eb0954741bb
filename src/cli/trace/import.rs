//! Makes a trace of the records that the provisioner has left in the API server.
//!
//! What tells of a spot pool: a launch that gave an instance (there was capacity), one that asked for this pool alone and
//! gave none for want of capacity, what the leader remembers of pools that EC2 named as short or interrupted, a claim's
//! instance, and a spot interruption (there is none any more). A launch of several pools that gave nothing says of none of
//! them that it was short: EC2 does not try all of them, and the record keeps the first of its errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Pool;
use crate::api::interruption::{InterruptionSpec, InterruptionStatus, Phase};
use crate::api::launch::{LaunchOutcome, LaunchSpec, LaunchStatus, Override};
use crate::api::node_claim::NodeClaimStatus;
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::{CapacityType, Offering};
use crate::provision::failure::{Class, class};
use crate::provision::memory::{self, Memory};

/// Records, of one file or more. The same one may be in several.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// What is known of instances that are or were spot.
    pools: BTreeMap<InstanceId, Pool>,
    /// Instances that are known not to be spot.
    others: BTreeSet<InstanceId>,
    /// There was capacity (`true`), or none. One that says that there was none counts for more at the same moment.
    points: BTreeMap<Pool, BTreeMap<Timestamp, bool>>,
    /// Interruptions, whose pools are known when everything is read.
    interrupted: BTreeSet<(InstanceId, Timestamp)>,
    /// Launches of several pools that gave nothing, by their names: of which of the pools that is, is not known.
    ambiguous: BTreeSet<String>,
    /// What the leader remembers was among the records.
    remembered: bool,
    passed_over: usize,
}

/// What was made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub table: String,
    /// How many rows it has.
    pub points: usize,
    /// What could not be used, and why.
    pub notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    data: Value,
}

impl Record {
    fn name(&self) -> &str {
        self.metadata.get("name").and_then(Value::as_str).unwrap_or("without a name")
    }
}

/// A part of a record; what was never written is as if it were empty.
fn part<T: DeserializeOwned>(record: &Record, what: &str, value: &Value) -> Result<T, String> {
    let value = if value.is_null() { Value::Object(Default::default()) } else { value.clone() };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { format!(".{path}") };
        format!("{} {}: {what}{path}: {}", record.kind, record.name(), error.inner())
    })
}

impl Records {
    /// Takes in what `kubectl get … -o json` prints: a List, one record, or several of them one after the other.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        let mut any = false;
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            self.take_all(value.map_err(|error| format!("this is no JSON: {error}"))?)?;
            any = true;
        }
        if any { Ok(()) } else { Err("it is empty: whoever wrote it has failed".into()) }
    }

    fn take_all(&mut self, mut value: Value) -> Result<(), String> {
        if value.get("kind").is_some_and(|kind| kind == "Status") {
            let message = value.get("message").and_then(Value::as_str).unwrap_or("without a word why");
            return Err(format!("the API server did not give what was asked of it: {message}"));
        }
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            // Go writes a list of nothing so.
            Some(Value::Null) => Vec::new(),
            Some(_) => return Err("`items` is no list".into()),
            None => vec![value],
        };
        for (at, item) in items.into_iter().enumerate() {
            let record: Record = Some(item).filter(Value::is_object).map_or_else(
                || Err("it is no object".to_owned()),
                |item| serde_json::from_value(item).map_err(|error| error.to_string()),
            ).map_err(|why| {
                format!(
                    "items[{at}]: {why}; the records are what `kubectl get interruptions,nodeclaims.spotkeeper.dev,launches,nodes -o \
                     json` prints"
                )
            })?;
            self.take(&record)?;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<(), String> {
        let group = record.api_version.split_once('/').map_or("", |(group, _)| group);
        let ours = group == "spotkeeper.dev" || record.api_version.is_empty();
        match record.kind.as_str() {
            "Launch" if ours => {
                let (spec, status) = (part(record, "spec", &record.spec)?, part(record, "status", &record.status)?);
                self.launch(record.name(), &spec, &status);
            }
            "NodeClaim" if ours => self.claim(&part(record, "status", &record.status)?),
            "Interruption" if ours => {
                self.interruption(&part(record, "spec", &record.spec)?, &part(record, "status", &record.status)?);
            }
            "Node" if group.is_empty() => self.node(record),
            "ConfigMap" if group.is_empty() && record.name() == memory::CONFIG_MAP => self.memory(record)?,
            _ => self.passed_over += 1,
        }
        Ok(())
    }

    fn is(&mut self, instance: &InstanceId, offering: &Offering) -> Option<Pool> {
        let Offering { instance_type, zone, capacity_type } = offering.clone();
        if capacity_type != CapacityType::Spot {
            self.others.insert(instance.clone());
            return None;
        }
        let pool = Pool { instance_type, zone };
        self.pools.insert(instance.clone(), pool.clone());
        Some(pool)
    }

    fn point(&mut self, pool: Pool, at: Timestamp, available: bool) {
        let known = self.points.entry(pool).or_default().entry(at).or_insert(available);
        *known &= available;
    }

    fn launch(&mut self, name: &str, spec: &LaunchSpec, status: &LaunchStatus) {
        let Some(at) = status.answered_at else { return };
        for got in &status.instances {
            let pool = self.is(&got.instance_id, &got.offering);
            pool.into_iter().for_each(|pool| self.point(pool, at, true));
        }
        // `0 came; InsufficientInstanceCapacity: …`
        let because = status.because.as_deref().unwrap_or_default();
        let code = because.strip_prefix("0 came; ").and_then(|rest| rest.split_once(':')).map(|(code, _)| code);
        let short = code.is_some_and(|code| class(code) == Class::Capacity);
        if spec.capacity_type == CapacityType::Spot && status.outcome == Some(LaunchOutcome::Nothing) && short {
            let of = |one: &Override| Pool { instance_type: one.instance_type.clone(), zone: one.zone.clone() };
            let mut pools: BTreeSet<Pool> = spec.overrides.iter().map(of).collect();
            match pools.pop_first() {
                Some(only) if pools.is_empty() => self.point(only, at, false),
                _ => drop(self.ambiguous.insert(name.to_owned())),
            }
        }
    }

    /// What the leader remembers: pools that EC2 named as short, and those in which something was interrupted.
    fn memory(&mut self, record: &Record) -> Result<(), String> {
        let Some(text) = record.data.get(memory::KEY).and_then(Value::as_str) else { return Ok(()) };
        let what = || format!("ConfigMap {}: data.{}", memory::CONFIG_MAP, memory::KEY);
        let memory = Memory::read(text).map_err(|why| format!("{}: {why}", what()))?;
        let interrupted = memory.trouble.iter().filter_map(|one| Some((&one.pool, one.interrupted_at?)));
        for (Offering { instance_type, zone, capacity_type }, at) in memory.gave_nothing().chain(interrupted) {
            if *capacity_type == CapacityType::Spot {
                let pool = Pool { instance_type: instance_type.clone(), zone: zone.clone() };
                self.point(pool, at, false);
            }
        }
        self.remembered = true;
        Ok(())
    }

    fn claim(&mut self, status: &NodeClaimStatus) {
        let (Some(instance), Some(offering)) = (&status.instance_id, &status.offering) else { return };
        let pool = self.is(instance, offering);
        if let (Some(pool), Some(at)) = (pool, status.launched_at) {
            self.point(pool, at, true);
        }
    }

    fn interruption(&mut self, spec: &InterruptionSpec, status: &InterruptionStatus) {
        let told = status.phase.is_some_and(|phase| phase >= Phase::Confirmed);
        let true_one = told && !matches!(status.phase, Some(Phase::Cancelled | Phase::Refuted));
        let at = status.timeline.noticed_at.or(status.timeline.confirmed_at);
        if let Some(at) = at.filter(|_| true_one && status.kind == Some(Kind::SpotInterruption)) {
            self.interrupted.insert((spec.instance_id.clone(), at));
        }
    }

    /// A Node says what its instance is, also where no claim launched it.
    fn node(&mut self, record: &Record) {
        let label = |key: &str| record.metadata.get("labels")?.get(key)?.as_str().map(str::to_owned);
        let instance = record.spec.get("providerID").and_then(Value::as_str).and_then(|id| id.rsplit('/').next());
        let instance = instance.and_then(|id| id.parse::<InstanceId>().ok());
        let two = label("node.kubernetes.io/instance-type").zip(label("topology.kubernetes.io/zone"));
        if let (Some(instance), Some((instance_type, zone))) = (instance, two) {
            self.pools.entry(instance).or_insert(Pool { instance_type, zone });
        }
    }

    /// The trace.
    pub fn imported(mut self) -> Imported {
        let mut unknown = 0;
        for (instance, at) in std::mem::take(&mut self.interrupted) {
            match self.pools.get(&instance).filter(|_| !self.others.contains(&instance)).cloned() {
                Some(pool) => self.point(pool, at, false),
                None => unknown += 1,
            }
        }
        let mut rows: Vec<(Timestamp, Pool, bool)> = Vec::new();
        for (pool, points) in self.points {
            let mut last = None;
            for (at, available) in points {
                if last.replace(available) != Some(available) {
                    rows.push((at, pool.clone(), available));
                }
            }
        }
        rows.sort();
        let mut table = "# What was seen of spot pools: between two rows of a pool nothing is known to have changed.\n\
                         at,instance_type,zone,available\n"
            .to_owned();
        for (at, Pool { instance_type, zone }, available) in &rows {
            // Writing into a String cannot fail.
            let _ = writeln!(table, "{at},{instance_type},{zone},{available}");
        }
        let mut notes = Vec::new();
        if !self.ambiguous.is_empty() && !self.remembered {
            notes.push(format!(
                "{0} launches that asked for several pools at once and gave nothing are left out: which of the pools were \
                 short, the ConfigMap {1} alone says (kubectl -n spotkeeper get configmap {1} -o json)",
                self.ambiguous.len(),
                memory::CONFIG_MAP
            ));
        }
        if unknown > 0 {
            notes.push(format!(
                "{unknown} spot interruptions are left out: the type and zone of their instances are in no claim, launch \
                 or node of these records"
            ));
        }
        if self.passed_over > 0 {
            notes.push(format!(
                "{} records are left out: they are no Interruption, Launch, Node or NodeClaim of spotkeeper.dev",
                self.passed_over
            ));
        }
        Imported { table, points: rows.len(), notes }
    }
}

#[cfg(test)]
mod tests;
