//! What is found quickly: Nodes by their instances, Interruptions by what they say, instances that nobody names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::counting::counts_alike;
use super::watched::Watched;
use super::{Provisioner, Term};
use crate::api::node_claim::NodeClaimSpec;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::demand::{dooms, withdrawn};
use crate::provision::{Doomed, Instance, NodeView};

type Nodes = Watched<String, NodeView>;

/// Of Nodes, Interruptions and instances. What is forgotten with the term is empty after it.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// The Nodes of each instance: of two, one was left behind when it registered by another name.
    nodes_of: BTreeMap<InstanceId, BTreeSet<String>>,
    /// Whose drain is asked for.
    pub(super) asked: BTreeSet<InstanceId>,
    /// Whose announcement was withdrawn, or was not true.
    pub(super) withdrawn: BTreeSet<InstanceId>,
    /// What is not known to make its pool risky, because it is not known yet which pool that is.
    pub(super) unweighed: BTreeSet<InstanceId>,
    /// Whose replacement is wanted, and cannot be claimed yet.
    pub(super) unmet: BTreeSet<InstanceId>,
    /// What is to be written to their records, but for what is on its way there.
    pub(super) unwritten: BTreeSet<InstanceId>,
    /// Whose claim had failed and was deleted by a person, and what it asked for: it is made anew.
    pub(super) failed: BTreeMap<InstanceId, NodeClaimSpec>,
    /// Instances of ours that live, and that no claim names.
    pub(super) orphans: BTreeSet<InstanceId>,
}

/// It says nothing that is not said elsewhere.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Found")
    }
}

impl Found {
    /// The Nodes of an instance.
    pub(super) fn nodes_of<'a>(
        &'a self,
        nodes: &'a Nodes,
        instance: &InstanceId,
    ) -> impl Iterator<Item = &'a NodeView> {
        self.nodes_of.get(instance).into_iter().flatten().filter_map(|name| nodes.get(name))
    }

    /// The Node of an instance; of two the Ready one.
    pub(super) fn node_of<'a>(&'a self, nodes: &'a Nodes, instance: &InstanceId) -> Option<&'a NodeView> {
        self.nodes_of(nodes, instance).max_by_key(|node| node.ready)
    }

    /// A term is over: what only a leader knows is forgotten.
    pub(super) fn forget(&mut self) {
        self.unmet.clear();
        self.unwritten.clear();
        self.failed.clear();
        self.orphans.clear();
    }
}

impl Provisioner {
    /// An Interruption is there, or has changed.
    pub(super) fn interruption_seen(&mut self, now: Instant, doomed: Doomed) {
        if self.term == Term::Leading {
            self.seek(now, &doomed);
        }
        let mark = |set: &mut BTreeSet<InstanceId>, is: bool| match is {
            true => set.insert(doomed.instance.clone()),
            false => set.remove(&doomed.instance),
        };
        mark(&mut self.found.asked, doomed.is_requested());
        mark(&mut self.found.withdrawn, withdrawn(&doomed));
        let left = self.doomed.get(&doomed.instance).is_some_and(|known| self.leaves(known));
        if left != self.leaves(&doomed) {
            self.count_again();
        }
        self.doomed.insert(doomed.instance.clone(), doomed);
    }

    pub(super) fn interruption_gone(&mut self, now: Instant, instance: &InstanceId) {
        let doomed = self.doomed.remove(instance);
        self.looks.gone(instance);
        self.count_again();
        if doomed.as_ref().is_some_and(dooms) {
            self.unheard.was_heard(now, instance.clone());
        }
        doomed.and_then(|doomed| self.gone_nodes.remove(&doomed.node));
        self.risks.forget(instance);
        let found = &mut self.found;
        for set in [&mut found.asked, &mut found.withdrawn, &mut found.unweighed, &mut found.unmet] {
            set.remove(instance);
        }
        found.unwritten.remove(instance);
        found.failed.remove(instance);
        // What was said of its claims may be said again of another's.
        let of = format!("{instance}-");
        let said: Vec<String> =
            self.said.range(of.clone()..).take_while(|said| said.starts_with(&of)).cloned().collect();
        for one in said {
            self.said.remove(&one);
        }
        self.replacements.remove(instance);
    }

    /// A Node is there, or has changed: what it was before is not found any more.
    pub(super) fn set_node(&mut self, node: NodeView) {
        let name = node.name.clone();
        if let Some(instance) = &node.instance {
            self.found.nodes_of.entry(instance.clone()).or_default().insert(name.clone());
        }
        let instance = node.instance.clone();
        if !self.nodes.get(&name).is_some_and(|known| counts_alike(known, &node)) {
            self.count_again();
        }
        if let Some(old) = self.nodes.insert(name, node).filter(|old| old.instance != instance) {
            self.no_node_of(&old);
        }
    }

    pub(super) fn take_node(&mut self, name: &str) -> Option<NodeView> {
        let node = self.nodes.remove(name)?;
        self.count_again();
        self.no_node_of(&node);
        Some(node)
    }

    fn no_node_of(&mut self, node: &NodeView) {
        let Some(instance) = &node.instance else { return };
        if let Some(names) = self.found.nodes_of.get_mut(instance) {
            names.remove(&node.name);
            if names.is_empty() {
                self.found.nodes_of.remove(instance);
            }
        }
    }

    /// The Node of an instance; of two the Ready one.
    pub(super) fn node_of(&self, instance: &InstanceId) -> Option<&NodeView> {
        self.found.node_of(&self.nodes, instance)
    }

    /// Whether pods of workloads run on a Node of this instance.
    pub(super) fn is_busy(&self, instance: &InstanceId) -> bool {
        self.found.nodes_of(&self.nodes, instance).any(|node| node.workloads)
    }

    /// What is not known of one Node or Interruption alone has changed: all are looked at.
    pub(super) fn looks_at_all(&mut self) {
        self.count_again();
        self.claims.touch_all();
        self.doomed.touch_all();
        self.nodes.touch_all();
    }

    /// Instances that live and that no claim names, as far as that may have changed.
    pub(super) fn find_orphans(&mut self, now: Instant) {
        self.claims.index(now);
        for id in self.claims.take_reassigned() {
            self.is_orphan(&id);
        }
    }

    /// The same of all, where they have been read anew.
    pub(super) fn find_all_orphans(&mut self, now: Instant) {
        self.claims.index(now);
        let claims = &self.claims;
        let orphans = self.instances.values().filter(|one| lives(one) && !claims.has(&one.id));
        self.found.orphans = orphans.map(|one| one.id.clone()).collect();
    }

    fn is_orphan(&mut self, id: &InstanceId) {
        match self.instances.get(id).is_some_and(lives) && !self.claims.has(id) {
            true => self.found.orphans.insert(id.clone()),
            false => self.found.orphans.remove(id),
        };
    }
}

/// It lives, and a Launch has made it.
fn lives(one: &Instance) -> bool {
    one.alive && one.launch.is_some()
}
