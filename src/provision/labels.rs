//! What the Node of a claim is to say of itself: whose it is, how it is paid for, what its pool gives it.

use std::collections::BTreeMap;

use super::NodeView;
use super::pools::Rules;
use crate::domain::node::Taint;
use crate::domain::offering::{CapacityType, Offering};
use crate::domain::requirements::{CAPACITY_TYPE, INSTANCE_TYPE, NODE_POOL, ZONE};

/// Labels of node groups. A stand-in is launched with a group's template and gets its name from the user data, and is none
/// of its nodes: whoever counts the group by this label would count it.
const GROUPS: [&str; 2] = ["eks.amazonaws.com/nodegroup", "alpha.eksctl.io/nodegroup-name"];

/// One patch of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePatch {
    /// `None` takes it off.
    pub labels: BTreeMap<String, Option<String>>,
    pub annotations: BTreeMap<String, Option<String>>,
    /// Taints that it has besides those that it has already.
    pub taints: Vec<Taint>,
}

impl NodePatch {
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty() && self.taints.is_empty()
    }
}

/// Labels that say how a node is paid for, in others' words.
fn paid_for(capacity: CapacityType) -> [(&'static str, &'static str); 2] {
    let eks = if capacity == CapacityType::Spot { "SPOT" } else { "ON_DEMAND" };
    [("eks.amazonaws.com/capacityType", eks), ("karpenter.sh/capacity-type", capacity.as_str())]
}

/// What a new Node of this capacity type and pool lacks, and what on it was wrong, for people.
pub fn at_registration(
    node: &NodeView,
    capacity: CapacityType,
    pool: Option<(&str, &Rules)>,
) -> (NodePatch, Vec<String>) {
    let mut patch = NodePatch::default();
    let mut wrong = Vec::new();
    let mut set = |key: &str, value: &str| {
        if node.labels.get(key).is_none_or(|is| is != value) {
            patch.labels.insert(key.to_owned(), Some(value.to_owned()));
        }
    };
    set(CAPACITY_TYPE, capacity.as_str());
    if let Some((name, rules)) = pool {
        set(NODE_POOL, name);
        rules.metadata.labels.iter().for_each(|(key, value)| set(key, value));
    }
    for (key, value) in paid_for(capacity) {
        if let Some(is) = node.labels.get(key).filter(|is| *is != value) {
            wrong.push(format!("{key} was {is} and is {value}"));
            patch.labels.insert(key.to_owned(), Some(value.to_owned()));
        }
    }
    for key in GROUPS {
        let given = pool.is_some_and(|(_, rules)| rules.metadata.labels.contains_key(key));
        if let Some(is) = node.labels.get(key).filter(|_| !given) {
            wrong.push(format!("{key} was {is} and is taken off"));
            patch.labels.insert(key.to_owned(), None);
        }
    }
    if let Some((_, rules)) = pool {
        let all = rules.metadata.annotations.iter();
        patch.annotations.extend(all.map(|(key, value)| (key.clone(), Some(value.clone()))));
        patch.annotations.extend(policies(node, rules));
        let has = |key: &str, effect: &str| node.taints.iter().any(|taint| taint.key == key && taint.effect == effect);
        let missing = rules.taints.iter().filter(|taint| !has(&taint.key, taint.effect.as_str()));
        patch.taints.extend(missing.map(|taint| Taint {
            key: taint.key.clone(),
            value: taint.value.clone(),
            effect: taint.effect.to_string(),
            time_added: None,
        }));
    }
    (patch, wrong)
}

/// What of its pool's policies a Node does not say, or says otherwise.
pub fn policies(node: &NodeView, rules: &Rules) -> BTreeMap<String, Option<String>> {
    let differs = |(key, value): &&(&str, Option<String>)| node.annotations.get(*key) != value.as_ref();
    rules.policies.iter().filter(differs).map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

impl NodeView {
    /// What its labels say that it runs on.
    pub(crate) fn offering(&self) -> Offering {
        let label = |key: &str| self.labels.get(key).cloned().unwrap_or_default();
        let capacity_type = CapacityType::from_word(&label(CAPACITY_TYPE)).unwrap_or(CapacityType::Spot);
        Offering { instance_type: label(INSTANCE_TYPE), zone: label(ZONE), capacity_type }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::node_pool::{NodePoolSpec, OnInterruption, PoolTaint, TaintEffect, TemplateMeta};
    use crate::domain::policy::{MARGIN, REBALANCE, Rebalance};
    use crate::provision::pools::read;

    fn node(labels: &[(&str, &str)]) -> NodeView {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        NodeView { name: "n".into(), labels, ..NodeView::default() }
    }

    #[test]
    fn what_user_data_says_wrongly_is_put_right_and_said() {
        let node = node(&[
            ("eks.amazonaws.com/capacityType", "SPOT"),
            ("eks.amazonaws.com/nodegroup", "workers"),
            ("karpenter.sh/capacity-type", "on-demand"),
            ("team", "a"),
        ]);
        let (patch, wrong) = at_registration(&node, CapacityType::OnDemand, None);
        assert_eq!(patch.labels["eks.amazonaws.com/capacityType"].as_deref(), Some("ON_DEMAND"));
        assert_eq!(patch.labels["eks.amazonaws.com/nodegroup"], None);
        assert_eq!(patch.labels[CAPACITY_TYPE].as_deref(), Some("on-demand"));
        assert_eq!((patch.labels.len(), wrong.len()), (3, 2), "what is right stays: {wrong:?}");
        assert!(patch.annotations.is_empty() && patch.taints.is_empty());
    }

    #[test]
    fn a_pool_gives_its_labels_annotations_taints_and_policies_and_only_those_that_are_missing() {
        let mut spec = NodePoolSpec::default();
        let of = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        spec.template.metadata = Some(TemplateMeta { labels: of("team", "a"), annotations: of("note", "x") });
        let effect = TaintEffect::NoSchedule;
        spec.template.spec.taints = vec![PoolTaint { key: "gpu".into(), value: Some("yes".into()), effect }];
        spec.interruption = Some(OnInterruption { rebalance: Some(Rebalance::Drain), ..OnInterruption::default() });
        let rules = read(&spec).unwrap();
        let mut node = node(&[]);
        node.annotations.insert(MARGIN.into(), "9s".into());
        let (patch, wrong) = at_registration(&node, CapacityType::Spot, Some(("general", &rules)));
        assert_eq!(patch.labels[NODE_POOL].as_deref(), Some("general"));
        assert_eq!((patch.labels["team"].as_deref(), patch.annotations["note"].as_deref()), (Some("a"), Some("x")));
        assert_eq!(patch.annotations[REBALANCE].as_deref(), Some("Drain"));
        assert_eq!(patch.annotations[MARGIN], None, "the pool does not say one");
        assert_eq!(patch.taints[0].key, "gpu");
        assert!(wrong.is_empty());
        for (key, value) in patch.labels {
            node.labels.extend(value.map(|value| (key, value)));
        }
        node.annotations = [(REBALANCE.to_owned(), "Drain".to_owned())].into();
        node.taints = patch.taints;
        let (patch, _) = at_registration(&node, CapacityType::Spot, Some(("general", &rules)));
        assert!(patch.labels.is_empty() && patch.taints.is_empty() && patch.annotations.len() == 1, "{patch:?}");
        assert!(policies(&node, &rules).is_empty());
    }
}
