//! Nodes without a providerID, as in a cluster without a cloud controller: the instance is found by what both are called
//! in their network.
//!
//! Only instances of our own launches are looked for in this way. A Node of somebody else's machine, in a network that
//! happens to use the same addresses, must not pass for an instance that is none of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Provisioner;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::NodeView;

/// Nodes whose instances are not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Nameless {
    /// The uid of each, and whether EC2's list was searched for it.
    nodes: BTreeMap<String, (String, bool)>,
}

impl Nameless {
    /// Whether it may still be found by the next list of instances.
    pub(super) fn may_be_found(&self, node: &NodeView) -> bool {
        self.nodes.get(&node.name).is_some_and(|(_, searched)| !searched)
    }

    pub(super) fn gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }
}

impl Provisioner {
    /// The Node with what is known of its instance, where its object does not say it: what was found for it once holds as
    /// long as it is the same Node. EC2's list is read soon where it is not known yet.
    pub(super) fn named(&mut self, now: Instant, mut node: NodeView) -> NodeView {
        if node.provider_id.is_some() || node.addresses.is_empty() {
            self.nameless.gone(&node.name);
            return node;
        }
        let known = self.nodes.get(&node.name).filter(|known| known.uid == node.uid && known.instance.is_some());
        if let Some(known) = known {
            (node.instance, node.provider_id) = (known.instance.clone(), known.provider_id.clone());
            return node;
        }
        // One that is not Ready may be left behind by a machine that had this address before.
        if !node.ready {
            return node;
        }
        let is_new = self.nameless.nodes.get(&node.name).is_none_or(|(uid, _)| *uid != node.uid);
        if is_new {
            self.nameless.nodes.insert(node.name.clone(), (node.uid.clone(), false));
            self.reading.next = self.reading.next.min(now);
        }
        self.of_its_addresses(node)
    }

    /// A whole list of instances has come: whose instances are in it.
    pub(super) fn name_nodes(&mut self) {
        self.nameless.nodes.values_mut().for_each(|(_, searched)| *searched = true);
        let of = self.nameless.nodes.keys().filter_map(|name| self.nodes.get(name)).filter(|node| node.ready);
        for node in of.cloned().collect::<Vec<_>>() {
            let node = self.of_its_addresses(node);
            if node.instance.is_some() {
                self.set_node(node);
            }
        }
    }

    /// The Node with the one living instance of ours that has one of its addresses; without, where there are two.
    fn of_its_addresses(&mut self, mut node: NodeView) -> NodeView {
        let same = |of: &BTreeSet<String>| of.iter().any(|one| node.addresses.contains(one));
        let mut all = self.instances.values().filter(|one| one.alive && one.launch.is_some() && same(&one.addresses));
        let only: Option<InstanceId> = match (all.next(), all.next()) {
            (Some(one), None) => Some(one.id.clone()),
            _ => None,
        };
        if let Some((id, zone)) = only.and_then(|id| Some((id.clone(), &self.instances.get(&id)?.offering.zone))) {
            node.provider_id = Some(format!("aws:///{zone}/{id}"));
            node.instance = Some(id);
            self.nameless.gone(&node.name);
        }
        node
    }
}
