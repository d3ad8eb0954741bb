//! Makes a trace of the records that the provisioner has left in the API server.
//!
//! What tells of a spot pool: a launch that gave an instance (there was capacity), one that gave none for want of capacity
//! (there was none in any pool that it named), a claim's instance, and a spot interruption (there is none any more).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Pool;
use crate::api::interruption::{InterruptionSpec, InterruptionStatus, Phase};
use crate::api::launch::{LaunchOutcome, LaunchSpec, LaunchStatus};
use crate::api::node_claim::NodeClaimStatus;
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::{CapacityType, Offering};
use crate::provision::failure::{Class, class};

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
struct Record {
    kind: String,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

/// A part of a record; what was never written is as if it were empty.
fn part<T: DeserializeOwned>(record: &Record, what: &str, value: &Value) -> Result<T, String> {
    let value = if value.is_null() { Value::Object(Default::default()) } else { value.clone() };
    serde_json::from_value(value).map_err(|error| {
        let name = record.metadata.get("name").and_then(Value::as_str).unwrap_or("without a name");
        format!("{} {name}: {what}: {error}", record.kind)
    })
}

impl Records {
    /// Takes in what `kubectl get … -o json` prints: a List, or one record.
    pub fn read(&mut self, text: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
        let items = match value.get("items") {
            Some(Value::Array(items)) => items.clone(),
            Some(_) => return Err("`items` is no list".into()),
            None => vec![value],
        };
        for item in items {
            let record: Record = serde_json::from_value(item).map_err(|error| {
                format!(
                    "{error}: the records are what `kubectl get interruptions,nodeclaims,launches,nodes -o json` prints"
                )
            })?;
            self.take(&record)?;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<(), String> {
        let spotkeeper = record.kind != "NodeClaim" || record.spec.get("order").is_some();
        match record.kind.as_str() {
            "Launch" => self.launch(&part(record, "spec", &record.spec)?, &part(record, "status", &record.status)?),
            "NodeClaim" if spotkeeper => self.claim(&part(record, "status", &record.status)?),
            "Interruption" => {
                self.interruption(&part(record, "spec", &record.spec)?, &part(record, "status", &record.status)?);
            }
            "Node" => self.node(record),
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

    fn launch(&mut self, spec: &LaunchSpec, status: &LaunchStatus) {
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
            for one in &spec.overrides {
                let pool = Pool { instance_type: one.instance_type.clone(), zone: one.zone.clone() };
                self.point(pool, at, false);
            }
        }
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
