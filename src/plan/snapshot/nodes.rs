//! Nodes: what their labels and their status say of their instances.

use std::collections::{BTreeMap, BTreeSet};

use super::{NodeFacts, extended, room};
use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, InstanceType};
use crate::domain::requirements::{ARCH, CAPACITY_TYPE, INSTANCE_TYPE, ZONE};
use crate::plan::objects::{Node, is_ready};
use crate::plan::reading::Gap;

/// Labels that say how a node is paid for, by whoever made it.
const CAPACITY_LABELS: [&str; 5] = [
    CAPACITY_TYPE,
    "karpenter.sh/capacity-type",
    "eks.amazonaws.com/capacityType",
    "node.kubernetes.io/lifecycle",
    "lifecycle",
];

const OURS: &str = "spotkeeper.dev/";

/// Ids that worlds give to what they launch begin so.
const MADE_UP: &str = "i-00000000";

pub(super) fn facts(node: Node, gaps: &mut BTreeSet<Gap>) -> NodeFacts {
    let Node { metadata, spec, status } = node;
    let name = metadata.name;
    let capacity = room(&status.capacity, &format!("Node {name}: status.capacity"), gaps);
    let says = |amount: &str| status.capacity.contains_key(amount) || status.allocatable.contains_key(amount);
    if !says("cpu") || !says("memory") {
        gaps.insert(Gap(format!("Node {name} does not say its CPU and memory (status.allocatable)")));
    }
    let allocatable = match status.allocatable.is_empty() {
        true => capacity,
        false => room(&status.allocatable, &format!("Node {name}: status.allocatable"), gaps),
    };
    let label = |key: &str| metadata.labels.get(key).filter(|value| !value.is_empty()).cloned();
    let extended = extended(&status.allocatable);
    let gpus = extended.iter().filter(|(name, _)| name.ends_with("/gpu")).map(|(_, count)| *count).sum::<u64>();
    let of = InstanceType {
        name: label(INSTANCE_TYPE).or(label("beta.kubernetes.io/instance-type")).unwrap_or_default(),
        arch: label(ARCH).unwrap_or("amd64".into()),
        vcpus: capacity.cpu_millis.div_ceil(1_000),
        memory_mib: capacity.memory_mib,
        gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
        bare_metal: label(INSTANCE_TYPE).is_some_and(|name| name.contains(".metal")),
    };
    let instance = spec.provider_id.rsplit('/').next().filter(|id| !id.starts_with(MADE_UP));
    NodeFacts {
        instance: instance.and_then(|id| id.parse::<InstanceId>().ok()),
        zone: label(ZONE).or(label("failure-domain.beta.kubernetes.io/zone")),
        capacity_type: capacity_type(&metadata.labels),
        of,
        annotations: metadata.annotations.into_iter().filter(|(key, _)| key.starts_with(OURS)).collect(),
        labels: metadata.labels,
        taints: spec.taints,
        allocatable,
        capacity,
        extended,
        ready: is_ready(&status.conditions),
        cordoned: spec.unschedulable,
        name,
    }
}

fn capacity_type(labels: &BTreeMap<String, String>) -> Option<CapacityType> {
    let value = CAPACITY_LABELS.iter().find_map(|key| labels.get(*key))?;
    match value.to_ascii_lowercase().replace('_', "-").as_str() {
        "spot" | "ec2spot" => Some(CapacityType::Spot),
        "reserved" | "capacity-block" => Some(CapacityType::Reserved),
        "on-demand" | "ondemand" | "normal" => Some(CapacityType::OnDemand),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_made_a_node_says_in_its_own_words_how_it_is_paid_for() {
        for (key, value, expected) in [
            ("spotkeeper.dev/capacity-type", "on-demand", Some(CapacityType::OnDemand)),
            ("karpenter.sh/capacity-type", "spot", Some(CapacityType::Spot)),
            ("eks.amazonaws.com/capacityType", "ON_DEMAND", Some(CapacityType::OnDemand)),
            ("eks.amazonaws.com/capacityType", "SPOT", Some(CapacityType::Spot)),
            ("lifecycle", "Ec2Spot", Some(CapacityType::Spot)),
            ("node.kubernetes.io/lifecycle", "normal", Some(CapacityType::OnDemand)),
            ("lifecycle", "prod", None),
            ("app", "spot", None),
        ] {
            assert_eq!(capacity_type(&[(key.to_owned(), value.to_owned())].into()), expected, "{key}={value}");
        }
    }
}
