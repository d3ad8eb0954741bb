//! What each NodePool has. It is counted anew only where what it rests on has changed: in a storm the least of a hundred
//! thousand inputs change it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;

use super::Provisioner;
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::{CapacityType, Offering};
use crate::domain::requirements::NODE_POOL;
use crate::provision::demand::{dooms, wants};
use crate::provision::pools::usage::{Size, Usage};
use crate::provision::{Doomed, NodeView};

/// What was counted last, without the calls on their way.
#[derive(Clone, Default)]
pub(super) struct Counted {
    usages: OnceLock<BTreeMap<String, Usage>>,
    /// It is counted anew each time: to be compared with.
    always: bool,
}

/// It says nothing that is not said elsewhere.
impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl Counted {
    pub(super) fn counts_always(&mut self) {
        self.always = true;
    }
}

/// How something is paid for that EC2 has not shown yet: until it does, what came of a reservation may be a plain on-demand
/// instance.
fn at_worst(capacity: CapacityType) -> CapacityType {
    match capacity {
        CapacityType::Reserved => CapacityType::OnDemand,
        capacity => capacity,
    }
}

/// Whether two views of a Node count as the same.
pub(super) fn counts_alike(a: &NodeView, b: &NodeView) -> bool {
    a.instance == b.instance && a.labels == b.labels
}

impl Provisioner {
    /// Something has changed that the pools' usages rest on.
    pub(super) fn count_again(&mut self) {
        self.counted.usages.take();
    }

    /// Whether an instance does not count: AWS will take it, or it is to go, and that is confirmed.
    pub(super) fn leaves(&self, doomed: &Doomed) -> bool {
        dooms(doomed) && (doomed.kind != Some(Kind::RebalanceRecommendation) || wants(doomed, &self.settings))
    }

    /// What a pool has, if this instance were gone.
    pub(super) fn usage_of(&self, pool: &str, gone: Option<&InstanceId>) -> Usage {
        let again = gone.is_some() || self.counted.always || self.claims.are_to_be_counted();
        let all = match again {
            true => Cow::Owned(self.count(gone)),
            false => Cow::Borrowed(self.counted.usages.get_or_init(|| self.count(None))),
        };
        debug_assert!(again || *all == self.count(None), "something changed what pools have and did not say so");
        let mut usage = all.get(pool).cloned().unwrap_or_default();
        if self.pools.get(pool).is_none() {
            return usage;
        }
        for launch in self.launches.values().filter(|launch| !launch.told) {
            if launch.spec.node_pool.as_deref() == Some(pool) {
                let capacity = at_worst(launch.spec.capacity_type);
                let size = Size::largest(&launch.spec.overrides, capacity, &self.catalog);
                usage.add(capacity, size, u64::try_from(launch.spec.count).unwrap_or(0));
            }
        }
        usage
    }

    /// Counts what each pool has: instances that its claims name, that EC2 shows with its tag or whose Nodes have its label.
    fn count(&self, gone: Option<&InstanceId>) -> BTreeMap<String, Usage> {
        let mut all: BTreeMap<String, Usage> =
            self.pools.iter().map(|(name, _)| (name.clone(), Usage::default())).collect();
        if all.is_empty() {
            return all;
        }
        let leaving = self.doomed.values().filter(|doomed| self.leaves(doomed));
        let mut counted: BTreeSet<&InstanceId> = leaving.map(|doomed| &doomed.instance).collect();
        counted.extend(gone);
        let catalog = &self.catalog;
        let claimed = self.claims.values().filter_map(|run| {
            let (instance, offering) = (run.instance()?, run.status.offering.as_ref()?);
            let offering = match self.instances.contains_key(instance) {
                true => Cow::Borrowed(offering),
                false => Cow::Owned(Offering { capacity_type: at_worst(offering.capacity_type), ..offering.clone() }),
            };
            Some((run.spec.node_pool.as_deref()?, instance, offering))
        });
        let shown = self.instances.values().filter(|one| one.alive);
        let tagged = shown.filter_map(|one| Some((one.pool.as_deref()?, &one.id, Cow::Borrowed(&one.offering))));
        let labelled = self.nodes.values().filter_map(|node| {
            let instance = node.instance.as_ref()?;
            let pool = node.labels.get(NODE_POOL)?.as_str();
            let offering = match self.instances.get(instance) {
                Some(seen) => Some(Cow::Borrowed(&seen.offering)).filter(|_| seen.alive)?,
                None => Cow::Owned(node.offering()),
            };
            Some((pool, instance, offering))
        });
        for (pool, instance, offering) in claimed.chain(tagged).chain(labelled) {
            if counted.insert(instance)
                && let Some(usage) = all.get_mut(pool)
            {
                usage.add(offering.capacity_type, Size::of(&offering, catalog), 1);
            }
        }
        all
    }
}
