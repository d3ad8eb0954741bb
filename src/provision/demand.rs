//! Which interruptions want a replacement, and of what shape.

use super::copies::{Copy, copy_of};
use super::pools::serving::{Service, needs};
use super::pools::{Classes, Pools};
use super::{Because, Doomed, Instance, NodeView, Settings};
use crate::api::interruption::Phase;
use crate::api::node_claim::{NodeClaimSpec, PATIENCE_MAX_SECONDS, Purpose, RESOURCES_MAX, Replaces};
use crate::domain::notice::Kind;
use crate::domain::offering::{CapacityType, Catalog};
use crate::domain::policy::Rebalance;
use crate::domain::requirements::{ARCH, CPU, GPU_COUNT, INSTANCE_TYPE, MEMORY, Operator, Requirement, ZONE};

/// The label that Karpenter puts on its nodes.
pub(super) const KARPENTER: &str = "karpenter.sh/nodepool";

/// The claim for an episode: whoever makes it, and however often, it is the same one.
pub(super) fn claim_name(doomed: &Doomed) -> String {
    format!("{}-{}", doomed.instance, doomed.episode)
}

/// Whether a node in its place is wanted.
pub(super) fn wants(doomed: &Doomed, settings: &Settings) -> bool {
    let confirmed = doomed.phase >= Phase::Confirmed && !doomed.phase.ends_episode();
    let taken = match doomed.kind {
        Some(Kind::RebalanceRecommendation) => {
            let replaces = doomed.policy.is_some_and(|policy| policy.rebalance == Rebalance::Replace);
            replaces || settings.replace_on_rebalance
        }
        Some(_) => true,
        None => false,
    };
    // An instance that is gone is still to be replaced, where that was not asked for while it was there.
    // Whatever we retire has somebody in its place, or needs nobody, also when it is taken meanwhile.
    taken && !doomed.is_requested() && (confirmed || doomed.phase == Phase::Gone)
}

/// Whether its node is going, as far as is known.
pub(super) fn dooms(doomed: &Doomed) -> bool {
    doomed.phase >= Phase::Confirmed && !withdrawn(doomed)
}

/// Whether what was wanted is not wanted any more: it was not true, or was withdrawn.
pub(super) fn withdrawn(doomed: &Doomed) -> bool {
    matches!(doomed.phase, Phase::Cancelled | Phase::Refuted)
}

/// What is wanted in the place of a doomed node.
pub(super) enum Wish {
    Claim(Box<NodeClaimSpec>),
    /// None, and why.
    None(Because),
    /// EC2 is to be asked about the instance first.
    Unknown,
    /// It was made without a launch template: what it is made of is to be read first.
    Uncopied,
    /// The pool that is to serve cannot; the wish is looked at again with the next input.
    Waits(Because),
    /// It is not known yet what EC2 offers: a claim that is made now could name no other type than the lost one.
    Later,
}

impl Wish {
    /// The same again, in the place of another node.
    pub(super) fn like(spec: &NodeClaimSpec, doomed: &Doomed, settings: &Settings) -> Self {
        // A node that came back to spot asked for spot alone; whatever stands in for it may be on-demand again.
        let back = spec.purpose == Purpose::ReturnToSpot;
        let order = if back { settings.order.clone() } else { spec.order.clone() };
        let group = spec.replaces.as_ref().and_then(|of| of.group.clone()).filter(|_| !back);
        Self::Claim(Box::new(NodeClaimSpec {
            replaces: Some(replaces(doomed, group)),
            purpose: Purpose::Replacement,
            order,
            ..spec.clone()
        }))
    }

    /// In this zone, where a pod's volume keeps it there.
    pub(super) fn kept_in(mut self, zone: Option<&str>) -> Self {
        if let Self::Claim(spec) = &mut self {
            let kept = zone.map(|zone| Requirement::new(ZONE, Operator::In, [zone]));
            let new = kept.filter(|kept| !spec.requirements.contains(kept));
            spec.requirements.extend(new);
        }
        self
    }
}

/// A patience as a claim takes it.
fn in_seconds(patience: std::time::Duration) -> i64 {
    i64::try_from(patience.as_secs()).unwrap_or(i64::MAX).min(PATIENCE_MAX_SECONDS)
}

fn replaces(doomed: &Doomed, group: Option<String>) -> Replaces {
    let (instance_id, node_name) = (doomed.instance.clone(), doomed.node.clone());
    Replaces { instance_id, node_name, episode: doomed.episode, group }
}

pub(super) fn wish(
    doomed: &Doomed,
    view: Option<&NodeView>,
    instance: Option<(&Instance, Copy)>,
    catalog: &Catalog,
    (pools, classes): (&Pools, &Classes),
    settings: &Settings,
) -> Wish {
    let node = doomed.node.clone();
    if view.is_some_and(|node| node.labels.contains_key(KARPENTER)) {
        return Wish::None(Because::LeftToKarpenter { node });
    }
    let Some((instance, like)) = instance else { return Wish::Unknown };
    // A plugin may register dozens of devices of one kind; that some of them are there says that it has come.
    let resources = view.map(|node| node.resources.iter().take(RESOURCES_MAX).cloned().collect()).unwrap_or_default();
    let (pool, rules) = match pools.serving(view, &instance.offering, catalog, classes) {
        _ if catalog.is_empty() => return Wish::Later,
        Service::Waits(because) => return Wish::Waits(because),
        Service::Pool(served, rules) => (served.pool.name.clone(), rules),
        Service::Copy => return copy(doomed, (instance, like), resources, catalog, settings),
    };
    Wish::Claim(Box::new(NodeClaimSpec {
        requirements: needs(rules, catalog.types.get(&instance.offering.instance_type), catalog),
        order: rules.order.clone(),
        spot_patience_seconds: in_seconds(rules.spot_patience),
        recipe: None,
        node_pool: Some(pool),
        resources,
        replaces: Some(replaces(doomed, instance.group.clone())),
        purpose: Purpose::Replacement,
    }))
}

/// A claim for a copy of the lost instance.
fn copy(
    doomed: &Doomed,
    (instance, like): (&Instance, Copy),
    resources: Vec<String>,
    catalog: &Catalog,
    settings: &Settings,
) -> Wish {
    let node = doomed.node.clone();
    let like = match like {
        _ if instance.template.is_some() => None,
        Copy::Like(template) => Some(template),
        Copy::Unread => return Wish::Uncopied,
        Copy::Gone => {
            let why = "its instance was made without a launch template, and had ended before it could be read what it was \
                       made of: nothing is left to copy";
            return Wish::None(Because::NothingToCopy { instance: doomed.instance.clone(), node, why: why.into() });
        }
    };
    let Some(recipe) = copy_of(instance, like) else {
        let why = "no subnet is known that it could be launched in";
        return Wish::None(Because::NothingToCopy { instance: doomed.instance.clone(), node, why: why.into() });
    };
    let order = match instance.offering.capacity_type {
        CapacityType::Spot => settings.order.clone(),
        CapacityType::OnDemand => vec![CapacityType::OnDemand],
        CapacityType::Reserved => vec![CapacityType::Reserved, CapacityType::OnDemand],
    };
    Wish::Claim(Box::new(NodeClaimSpec {
        requirements: alike(&instance.offering.instance_type, catalog),
        order,
        spot_patience_seconds: in_seconds(settings.spot_patience),
        recipe: Some(recipe),
        node_pool: None,
        resources,
        replaces: Some(replaces(doomed, instance.group.clone())),
        purpose: Purpose::Replacement,
    }))
}

/// What can stand in for this type: the same architecture, at least its vCPUs, memory and GPUs, and at most twice.
fn alike(name: &str, catalog: &Catalog) -> Vec<Requirement> {
    let Some(of) = catalog.types.get(name).filter(|of| !of.bare_metal) else {
        return vec![Requirement::new(INSTANCE_TYPE, Operator::In, [name])];
    };
    let between = |key, least: u64| {
        [
            Requirement::new(key, Operator::Gt, [least.saturating_sub(1).to_string()]),
            Requirement::new(key, Operator::Lt, [(2 * least + 1).to_string()]),
        ]
    };
    let mut all = vec![Requirement::new(ARCH, Operator::In, [of.arch.as_str()])];
    all.extend(between(CPU, of.vcpus.into()));
    all.extend(between(MEMORY, of.memory_mib));
    if of.gpus == 0 {
        all.push(Requirement::new(GPU_COUNT, Operator::DoesNotExist, Vec::<String>::new()));
    } else {
        all.extend(between(GPU_COUNT, of.gpus.into()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::node_claim::Subnet;
    use crate::domain::offering::{InstanceType, Offering};
    use crate::provision::Replacement;

    #[test]
    fn a_rebalance_recommendation_is_replaced_where_its_node_is_kept_so() {
        let kept = |rebalance| crate::interruption::Policy { rebalance, ..Default::default() }.recorded();
        let doomed = |policy| Doomed {
            instance: "i-00000001".parse().unwrap(),
            node: "n".into(),
            episode: 1,
            phase: Phase::Cordoned,
            kind: Some(Kind::RebalanceRecommendation),
            kept_in_zone: false,
            policy,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        };
        let settings = Settings::default();
        assert!(wants(&doomed(Some(kept(Rebalance::Replace))), &settings));
        assert!(!wants(&doomed(Some(kept(Rebalance::Avoid))), &settings));
        assert!(!wants(&doomed(None), &settings));
        assert!(wants(&doomed(None), &Settings { replace_on_rebalance: true, ..settings }));
    }

    #[test]
    fn no_claim_is_made_before_it_is_known_what_there_is() {
        let id: crate::domain::notice::InstanceId = "i-00000001".parse().unwrap();
        let doomed = Doomed {
            instance: id.clone(),
            node: "n".into(),
            episode: 1,
            phase: Phase::Confirmed,
            kind: Some(Kind::SpotInterruption),
            kept_in_zone: false,
            policy: None,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        };
        let offering =
            Offering { instance_type: "m7g.large".into(), zone: "a".into(), capacity_type: CapacityType::Spot };
        let instance = Instance {
            id,
            alive: true,
            addresses: Default::default(),
            block: None,
            offering,
            subnets: [Subnet { id: "s".into(), zone: "a".into() }].into(),
            template: Some(("lt-1".into(), "1".into())),
            tags: Default::default(),
            pool: None,
            launch: None,
            group: None,
            launched_at: None,
            terminated: false,
            taken: None,
        };
        let wish = |catalog: &Catalog| {
            wish(
                &doomed,
                None,
                Some((&instance, Copy::Unread)),
                catalog,
                (&Pools::default(), &Classes::new()),
                &Settings::default(),
            )
        };
        assert!(matches!(wish(&Catalog::default()), Wish::Later));
        let mut catalog = Catalog::default();
        let of = InstanceType { name: "m7g.large".into(), arch: "arm64".into(), vcpus: 2, ..InstanceType::default() };
        catalog.zones.insert("a".into(), [of.name.clone()].into());
        catalog.types.insert(of.name.clone(), of);
        let Wish::Claim(spec) = wish(&catalog) else { panic!("a claim is wanted") };
        assert!(spec.requirements.iter().all(|one| one.key != INSTANCE_TYPE), "any type that is alike will do");
    }
}
