//! What EC2 has in a scenario.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::mistake::{Mistake, wrong};
use super::values::{Millis, Percent};
use super::{ReadFile, known_type, known_zone};
use crate::cli::trace::table;
use crate::domain::offering::CapacityType;
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{Cloud, Pools, Reservation, TypeSpec, a_type};

/// More than any instance type has.
const VCPUS_MAX: u32 = 10_000;
const GIB_MAX: u64 = 1 << 20;
const GPUS_MAX: u32 = 1_000;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WrittenCloud {
    zones: Option<Spanned<Vec<Spanned<String>>>>,
    instance_types: Option<Spanned<Vec<WrittenType>>>,
    /// How many instances each pool has at first; without it, without end.
    spot_left: Option<u32>,
    on_demand_left: Option<u32>,
    reservations: Vec<WrittenReservation>,
    boot: Option<Millis>,
    boot_spread: Option<Millis>,
    create_fleet_bucket: Option<Spanned<(u32, f64)>>,
    pub trace: Option<WrittenTrace>,
}

/// When spot pools have capacity: docs/traces.md describes the table.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenTrace {
    file: Spanned<String>,
    /// How many of a hundred instances are taken where a pool runs dry.
    takes_percent: Option<Percent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenType {
    name: Spanned<String>,
    vcpus: Spanned<u32>,
    #[serde(rename = "memoryGiB")]
    memory_gib: Spanned<u64>,
    gpus: Option<Spanned<u32>>,
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

impl WrittenCloud {
    pub(super) fn read(self) -> Result<Cloud, Mistake> {
        let mut cloud = Cloud::default();
        if let Some(types) = self.instance_types {
            cloud.types.clear();
            for one in types.value {
                let known = cloud.types.iter().any(|of| of.of.name == one.name.value);
                if known || one.name.value.trim().is_empty() {
                    let what = format!("`{}`: every instance type has a name of its own", one.name.value);
                    return Err(wrong(&one.name.defined, what));
                }
                cloud.types.push(one.read()?);
            }
            if cloud.types.is_empty() {
                return Err(wrong(&types.defined, "cloud.instanceTypes: at least one"));
            }
        }
        if let Some(zones) = self.zones {
            cloud.zones.clear();
            for one in zones.value {
                if one.value.trim().is_empty() || cloud.zones.contains(&one.value) {
                    let what =
                        format!("`{}`: cloud.zones: at least one, none twice and none without a name", one.value);
                    return Err(wrong(&one.defined, what));
                }
                cloud.zones.push(one.value);
            }
            if cloud.zones.is_empty() {
                return Err(wrong(&zones.defined, "cloud.zones: at least one, none twice"));
            }
        }
        (cloud.spot, cloud.on_demand) = (self.spot_left, self.on_demand_left);
        cloud.boot_ms = self.boot.map_or(cloud.boot_ms, |it| it.0);
        cloud.boot_spread_ms = self.boot_spread.map_or(cloud.boot_spread_ms, |it| it.0);
        if let Some(bucket) = self.create_fleet_bucket {
            let (size, per_sec) = bucket.value;
            if size == 0 || !per_sec.is_finite() || per_sec <= 0.0 {
                let what = "cloud.createFleetBucket: its size and its tokens a second, both more than zero";
                return Err(wrong(&bucket.defined, what));
            }
            cloud.bucket = bucket.value;
        }
        for WrittenReservation { instance_type, zone, left } in self.reservations {
            let (instance_type, zone) = (known_type(&instance_type, &cloud)?, known_zone(&zone, &cloud)?);
            cloud.reservations.push(Reservation { instance_type, zone, left });
        }
        Ok(cloud)
    }
}

impl WrittenType {
    fn read(self) -> Result<TypeSpec, Mistake> {
        let micro = |price: Spanned<f64>, field: &str| {
            if price.value.is_finite() && (0.0..10_000.0).contains(&price.value) {
                return Ok((price.value * 1e6).round() as u64);
            }
            let what = format!("{field}: {} is no price in US dollars an hour (0 to 10,000)", price.value);
            Err(wrong(&price.defined, what))
        };
        if !(1..=VCPUS_MAX).contains(&self.vcpus.value) {
            let what = format!("vcpus: {} of them; 1 to {VCPUS_MAX} are possible", self.vcpus.value);
            return Err(wrong(&self.vcpus.defined, what));
        }
        if !(1..=GIB_MAX).contains(&self.memory_gib.value) {
            let what = format!("memoryGiB: {} GiB; 1 to {GIB_MAX} are possible", self.memory_gib.value);
            return Err(wrong(&self.memory_gib.defined, what));
        }
        if let Some(gpus) = self.gpus.as_ref().filter(|gpus| gpus.value > GPUS_MAX) {
            let what = format!("gpus: {} of them; 0 to {GPUS_MAX} are possible", gpus.value);
            return Err(wrong(&gpus.defined, what));
        }
        let (spot, on_demand) = (micro(self.spot, "spot")?, micro(self.on_demand, "onDemand")?);
        let mut one = a_type(&self.name.value, self.vcpus.value, self.memory_gib.value, spot, on_demand);
        one.of.gpus = self.gpus.map_or(0, |gpus| gpus.value);
        one.of.arch = self.arch.unwrap_or(one.of.arch);
        Ok(one)
    }
}

/// What the pools of a trace have, as steps of the scenario.
pub(super) fn traced(written: WrittenTrace, mut scenario: Scenario, file: ReadFile) -> Result<Scenario, Mistake> {
    let name = &written.file;
    let text = file(&name.value).map_err(|why| wrong(&name.defined, format!("{}: {why}", name.value)))?;
    let table = table::read(&text).map_err(|mistake| wrong(&name.defined, format!("{}, {mistake}", name.value)))?;
    let percent = written.takes_percent.map_or(100, |percent| percent.0);
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
