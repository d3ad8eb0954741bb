//! What EC2 has to offer, and what of it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::notice::words;

words! {
    /// How capacity is paid for, in the usual order of the ladder.
    CapacityType {
        /// Out of a capacity reservation: paid for already.
        Reserved = "reserved",
        Spot = "spot",
        OnDemand = "on-demand",
    }
}

/// An instance type in one zone under one capacity type: what a launch may ask for, and what may be short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Offering {
    /// Such as `m7g.2xlarge`.
    pub instance_type: String,
    /// The zone's name, such as `eu-west-1a`.
    pub zone: String,
    /// `reserved`, `spot` or `on-demand`.
    pub capacity_type: CapacityType,
}

impl fmt::Display for Offering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.capacity_type, self.instance_type, self.zone)
    }
}

/// Parts of 1,000,000 of a US dollar an hour.
pub type MicroDollars = u64;

/// An instance type, as far as a choice depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceType {
    pub name: String,
    /// As Kubernetes says it: `amd64` or `arm64`.
    pub arch: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    #[serde(default)]
    pub gpus: u32,
    /// Runs on hardware of its own, burstable, or without a hypervisor: only where it is asked for.
    #[serde(default)]
    pub bare_metal: bool,
}

impl InstanceType {
    /// The part before the dot: `m7g`.
    pub fn family(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The letters that a family begins with: `m`.
    pub fn category(&self) -> &str {
        let family = self.family();
        let end = family.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(family.len());
        &family[..end]
    }

    /// The number after the category: 7.
    pub fn generation(&self) -> Option<u32> {
        let rest = &self.family()[self.category().len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    }

    /// The class under which EC2 counts vCPUs against a quota.
    pub fn quota_class(&self) -> QuotaClass {
        match self.category() {
            "f" => QuotaClass::F,
            "g" | "gr" | "vt" => QuotaClass::G,
            "inf" => QuotaClass::Inf,
            "p" => QuotaClass::P,
            "x" => QuotaClass::X,
            "dl" => QuotaClass::Dl,
            "trn" => QuotaClass::Trn,
            "u" => QuotaClass::HighMemory,
            "hpc" => QuotaClass::Hpc,
            _ => QuotaClass::Standard,
        }
    }
}

words! {
    /// What EC2's vCPU quotas are counted by.
    QuotaClass {
        /// A, C, D, H, I, M, R, T and Z.
        Standard = "Standard",
        F = "F",
        /// G and VT.
        G = "G",
        Inf = "Inf",
        P = "P",
        X = "X",
        Dl = "DL",
        Trn = "Trn",
        HighMemory = "HighMemory",
        Hpc = "HPC",
    }
}

/// Which types there are, in which zones, and at what price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Catalog {
    /// By name.
    pub types: BTreeMap<String, InstanceType>,
    /// The types that a zone has, by zone.
    pub zones: BTreeMap<String, BTreeSet<String>>,
    /// What is known of prices; a missing one is unknown, not zero.
    #[serde(skip)]
    pub prices: BTreeMap<Offering, MicroDollars>,
    /// How many instances a reservation still holds, by type and zone.
    #[serde(skip)]
    pub reserved: BTreeMap<(String, String), u32>,
    /// How often that was read: what was launched since is not in it.
    #[serde(skip)]
    pub reserved_readings: u64,
}

impl Catalog {
    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() || self.zones.is_empty()
    }

    /// What there is of one capacity type.
    pub fn offerings(&self, capacity: CapacityType) -> impl Iterator<Item = (&InstanceType, Offering)> {
        let has = move |name: &str, zone: &str| {
            capacity != CapacityType::Reserved
                || self.reserved.get(&(name.to_owned(), zone.to_owned())).is_some_and(|left| *left > 0)
        };
        self.zones.iter().flat_map(move |(zone, names)| {
            names.iter().filter(move |name| has(name, zone)).filter_map(move |name| {
                let of = self.types.get(name)?;
                let offering = Offering { instance_type: name.clone(), zone: zone.clone(), capacity_type: capacity };
                Some((of, offering))
            })
        })
    }

    pub fn price(&self, offering: &Offering) -> Option<MicroDollars> {
        // Reserved capacity is paid for whether it is used or not.
        if offering.capacity_type == CapacityType::Reserved { Some(0) } else { self.prices.get(offering).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> InstanceType {
        InstanceType { name: name.into(), ..InstanceType::default() }
    }

    #[test]
    fn a_name_says_family_category_generation_and_quota_class() {
        for (name, family, category, generation, class) in [
            ("m7g.2xlarge", "m7g", "m", Some(7), QuotaClass::Standard),
            ("inf2.xlarge", "inf2", "inf", Some(2), QuotaClass::Inf),
            ("x2iedn.32xlarge", "x2iedn", "x", Some(2), QuotaClass::X),
            ("gr6.4xlarge", "gr6", "gr", Some(6), QuotaClass::G),
            ("u-6tb1.metal", "u-6tb1", "u", None, QuotaClass::HighMemory),
            ("", "", "", None, QuotaClass::Standard),
        ] {
            let of = named(name);
            assert_eq!((of.family(), of.category(), of.generation()), (family, category, generation), "{name}");
            assert_eq!(of.quota_class(), class, "{name}");
        }
    }

    #[test]
    fn reserved_capacity_is_offered_while_some_is_left_and_costs_nothing_more() {
        let mut catalog = Catalog::default();
        catalog.types.insert("p5.48xlarge".into(), named("p5.48xlarge"));
        catalog.zones.insert("z".into(), ["p5.48xlarge".into()].into());
        assert_eq!(catalog.offerings(CapacityType::Reserved).count(), 0);
        catalog.reserved.insert(("p5.48xlarge".into(), "z".into()), 1);
        let (_, offering) = catalog.offerings(CapacityType::Reserved).next().unwrap();
        assert_eq!(catalog.price(&offering), Some(0));
        assert_eq!(catalog.price(&Offering { capacity_type: CapacityType::Spot, ..offering }), None);
    }
}
