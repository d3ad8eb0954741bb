//! Nodes whose instances have ended for good.

use std::collections::{BTreeMap, BTreeSet};

use super::watched::Pace;
use super::{NOT_SHOWN_YET, Provisioner};
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::{Because, Effect, NodeView, gone};

/// The Nodes that are to go.
#[derive(Clone, Debug, Default)]
pub(super) struct Gone {
    nodes: BTreeMap<String, gone::Run>,
    /// Which instances EC2 was asked for last.
    asked: BTreeSet<InstanceId>,
    /// Those that it did not show, since when.
    missing: BTreeMap<InstanceId, Instant>,
}

impl Gone {
    pub(super) fn asks(&mut self, of: &BTreeSet<InstanceId>) {
        self.asked.clone_from(of);
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.nodes.values().filter_map(gone::Run::wakeup).min()
    }
}

/// By which it is remembered that this was said of a Node.
pub(super) fn no_provider_id(node: &str) -> String {
    format!("no providerID: {node}")
}

impl Provisioner {
    /// A whole list of instances has come: which Nodes have lost theirs.
    pub(super) fn look_for_gone(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let asked = std::mem::take(&mut self.gone.asked);
        let instances = &self.instances;
        self.gone.missing.retain(|id, _| asked.contains(id) && !instances.contains_key(id));
        for id in asked.into_iter().filter(|id| !instances.contains_key(id)) {
            self.gone.missing.entry(id).or_insert(now);
        }
        let lost = |node: &&NodeView| node.instance.as_ref().is_some_and(|id| self.is_lost(now, id, node.ready));
        let found: Vec<NodeView> = self.nodes.values().filter(lost).cloned().collect();
        for node in found {
            let Some(instance) = node.instance.filter(|_| !self.gone.nodes.contains_key(&node.name)) else { continue };
            let because = Because::NodeGone { node: node.name.clone(), instance: instance.clone() };
            self.say(&node.name, because, effects);
            self.gone.nodes.insert(node.name.clone(), gone::Run::new(now, node.name, node.uid));
        }
    }

    /// Whether an instance is one whose Node is our business, and EC2 says that it has ended for good, or has not known
    /// it for long. That it is not known says nothing against a kubelet that answers: EC2 may have been asked in another
    /// region, or as another account.
    fn is_lost(&self, now: Instant, instance: &InstanceId, ready: bool) -> bool {
        let seen = self.instances.get(instance);
        let ours = seen.is_some_and(|one| one.launch.is_some())
            || self.doomed.contains_key(instance)
            || self.claims.has(instance)
            || self.unheard.was_told_of(instance);
        let unknown =
            || !ready && self.gone.missing.get(instance).is_some_and(|since| now.since(*since) >= NOT_SHOWN_YET);
        // First it is written down that nobody had heard of it.
        ours && !self.unheard.writes(instance) && seen.map_or_else(unknown, |one| one.terminated)
    }

    /// Lets them go.
    pub(super) fn let_nodes_go(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (nodes, instances) = (&self.nodes, &self.instances);
        let lives =
            |node: &NodeView| node.instance.as_ref().is_some_and(|id| instances.get(id).is_some_and(|i| i.alive));
        let is_gone = |node: &NodeView, run: &gone::Run| node.uid == run.uid && !lives(node);
        self.gone.nodes.retain(|name, run| nodes.get(name).is_some_and(|node| is_gone(node, run)));
        effects.extend(self.gone.nodes.values_mut().filter_map(|run| run.advance(now)));
        self.nodes_without_instance(effects);
    }

    /// What runs where cannot be told of a Node without a providerID that is no instance of ours: it is left alone, and
    /// said.
    fn nodes_without_instance(&mut self, effects: &mut Vec<Effect>) {
        let unknown = |node: &&NodeView| node.provider_id.is_none() && node.ready && !node.starting;
        let of = self.nodes.looked_at(Pace::Changed).filter(unknown);
        let of = of.filter(|node| !self.nameless.may_be_found(node));
        for node in of.map(|node| node.name.clone()).collect::<Vec<_>>() {
            if self.said.insert(no_provider_id(&node)) {
                self.say(&node.clone(), Because::NoProviderId { node }, effects);
            }
        }
    }

    pub(super) fn attachments_read(
        &mut self,
        now: Instant,
        node: &str,
        found: Result<usize, String>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.gone.nodes.get_mut(node) else { return };
        let because = match run.attachments(now, found) {
            Ok(None) => return,
            Ok(Some(volumes)) => Because::OutOfService { node: node.to_owned(), volumes },
            Err(why) => Because::ReadFailed { what: "the list of VolumeAttachments", why },
        };
        self.say(node, because, effects);
    }

    pub(super) fn node_tainted(&mut self, now: Instant, node: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let why = self.gone.nodes.get_mut(node).and_then(|run| run.tainted(now, outcome));
        if let Some(why) = why {
            self.say(node, Because::WriteFailed { what: format!("the taint of Node {node}"), why }, effects);
        }
    }

    pub(super) fn node_deleted(&mut self, now: Instant, node: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let why = self.gone.nodes.get_mut(node).and_then(|run| run.deleted(now, outcome));
        if let Some(why) = why {
            self.say(node, Because::WriteFailed { what: format!("the deletion of Node {node}"), why }, effects);
        }
    }
}
