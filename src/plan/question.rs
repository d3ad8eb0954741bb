//! What is asked: which nodes AWS takes, and how spotkeeper is set.

use std::collections::BTreeMap;

use super::snapshot::Snapshot;
use crate::domain::offering::{CapacityType, InstanceType, MicroDollars};
use crate::interruption::Policy;
use crate::provision::Settings;

/// Which nodes AWS takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outage {
    /// These, however they are paid for.
    Nodes(Vec<String>),
    /// All spot nodes of a zone.
    Zone(String),
    AllSpot,
}

/// A question to a cluster.
#[derive(Clone, Debug)]
pub struct Question {
    pub outage: Outage,
    /// How the agents are set.
    pub policy: Policy,
    /// How the provisioner is set.
    pub settings: Settings,
    /// EC2 has no spot capacity left.
    pub without_spot: bool,
    /// From the start of its containers until a pod is Ready.
    pub starts_in_ms: u64,
    /// From the launch until the Node is there.
    pub boots_in_ms: u64,
    /// What an hour costs on demand, by instance type.
    pub prices: BTreeMap<String, MicroDollars>,
    /// What EC2 has, where it was asked; else what the cluster's own nodes are.
    pub types: Option<BTreeMap<String, InstanceType>>,
    pub seed: u64,
}

/// Nothing can be asked of this cluster in this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    #[error("--nodes: there is no Node `{name}`; there are {known}")]
    NoNode { name: String, known: String },
    #[error("--zone: no Node is in zone `{zone}`; there are {known}")]
    NoZone { zone: String, known: String },
    #[error(
        "{flag}: no Node there says that it is a spot node (by the label spotkeeper.dev/capacity-type, \
         karpenter.sh/capacity-type or eks.amazonaws.com/capacityType); name those that are with --nodes"
    )]
    NoSpot { flag: &'static str },
}

/// How many names an error lists.
const LISTED_MAX: usize = 12;

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    let more = all.len().saturating_sub(LISTED_MAX);
    let first = all.into_iter().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    match (first.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => first,
        (false, more) => format!("{first} and {more} more"),
    }
}

impl Outage {
    /// The places of the nodes that are meant, in their order.
    pub fn of(&self, snapshot: &Snapshot) -> Result<Vec<usize>, QuestionError> {
        let nodes = snapshot.nodes.iter().enumerate();
        let spot = |at: &usize| snapshot.nodes[*at].capacity_type == Some(CapacityType::Spot);
        let (flag, found): (_, Vec<usize>) = match self {
            Self::Nodes(names) => {
                let mut places = Vec::new();
                for name in names {
                    let at = snapshot.nodes.iter().position(|node| node.name == *name);
                    let known = || listed(snapshot.nodes.iter().map(|node| node.name.as_str()));
                    places.push(at.ok_or_else(|| QuestionError::NoNode { name: name.clone(), known: known() })?);
                }
                places.sort_unstable();
                places.dedup();
                return Ok(places);
            }
            Self::Zone(zone) => {
                let there: Vec<usize> =
                    nodes.filter(|(_, node)| node.zone.as_ref() == Some(zone)).map(|(at, _)| at).collect();
                if there.is_empty() {
                    let known = listed(snapshot.nodes.iter().filter_map(|node| node.zone.as_deref()));
                    return Err(QuestionError::NoZone { zone: zone.clone(), known });
                }
                ("--zone", there.into_iter().filter(spot).collect())
            }
            Self::AllSpot => ("--all-spot", nodes.map(|(at, _)| at).filter(spot).collect()),
        };
        if found.is_empty() { Err(QuestionError::NoSpot { flag }) } else { Ok(found) }
    }
}
