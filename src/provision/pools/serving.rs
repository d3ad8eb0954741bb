//! Which pool serves a doomed node, and what a claim of it asks for.

use super::{Classes, Pools, Rules, Served, offered};
use crate::domain::offering::{Catalog, InstanceType, Offering};
use crate::domain::requirements::{ARCH, CAPACITY_TYPE, CPU, GPU_COUNT, MEMORY, NODE_POOL, Operator, Requirement, met};
use crate::provision::{Because, NodeView};

/// Who serves a node.
pub(in crate::provision) enum Service<'a> {
    /// This pool, by its rules.
    Pool(&'a Served, &'a Rules),
    /// None does: the instance is copied.
    Copy,
    /// Its pool cannot work as it is; it is asked again when that changes.
    Waits(Because),
}

impl Pools {
    /// Which pool serves the node that runs on `lost`: the one that its label names; else of those that can work the first
    /// by weight and name whose requirements it meets and whose taints it has.
    pub(in crate::provision) fn serving(
        &self,
        node: Option<&NodeView>,
        lost: &Offering,
        catalog: &Catalog,
        classes: &Classes,
    ) -> Service<'_> {
        let named = node.and_then(|node| node.labels.get(NODE_POOL));
        if let Some(served) = named.and_then(|name| self.get(name)) {
            return match (&served.rules, &served.possible) {
                (Ok(rules), Ok(_)) => Service::Pool(served, rules),
                (Err(fault), _) | (_, Err(fault)) => {
                    let pool = served.pool.name.clone();
                    Service::Waits(Because::PoolCannotWork { pool, fault: fault.clone() })
                }
            };
        }
        let Some(of) = catalog.types.get(&lost.instance_type) else { return Service::Copy };
        let fits = |rules: &Rules| {
            let needs = rules.requirements.iter().filter(|one| one.key != CAPACITY_TYPE).cloned().collect::<Vec<_>>();
            let tolerated = rules.taints.iter().all(|taint| {
                node.is_some_and(|node| {
                    node.taints.iter().any(|has| has.key == taint.key && has.effect == taint.effect.as_str())
                })
            });
            tolerated && met(&needs, of, lost)
        };
        let able = self.iter().filter(|(_, served)| Self::fault(served, classes).is_none());
        let able = able.filter_map(|(name, served)| Some((name, served, served.rules.as_ref().ok()?)));
        let best = able
            .filter(|(_, _, rules)| fits(rules))
            .min_by_key(|(name, _, rules)| (std::cmp::Reverse(rules.weight), (*name).clone()));
        best.map_or(Service::Copy, |(_, served, rules)| Service::Pool(served, rules))
    }
}

/// What a claim of a pool asks for in the place of an instance of this type: what the pool requires, on the same
/// architecture, at least its vCPUs, memory and GPUs, and at most twice where EC2 offers such.
pub(in crate::provision) fn needs(rules: &Rules, lost: Option<&InstanceType>, catalog: &Catalog) -> Vec<Requirement> {
    let mut all = rules.requirements.clone();
    let Some(of) = lost else { return all };
    let arch = Requirement::new(ARCH, Operator::In, [of.arch.as_str()]);
    // Where the pool has left the lost node's architecture its workloads are taken to have, too.
    if all.iter().filter(|one| one.key == ARCH).all(|one| one.allows(Some(&of.arch))) {
        all.push(arch);
    }
    let (mut least, mut most) = (Vec::new(), Vec::new());
    let mut between = |key: &str, amount: u64| {
        least.push(Requirement::new(key, Operator::Gt, [amount.saturating_sub(1).to_string()]));
        most.push(Requirement::new(key, Operator::Lt, [(2 * amount + 1).to_string()]));
    };
    between(CPU, of.vcpus.into());
    between(MEMORY, of.memory_mib);
    if of.gpus > 0 {
        between(GPU_COUNT, of.gpus.into());
    } else if all.iter().all(|one| one.key != GPU_COUNT) {
        least.push(Requirement::new(GPU_COUNT, Operator::DoesNotExist, Vec::<String>::new()));
    }
    let with = |more: &[Requirement]| [all.as_slice(), least.as_slice(), more].concat();
    let bounded = with(&most);
    if offered(&bounded, &rules.order, catalog) { bounded } else { with(&[]) }
}
