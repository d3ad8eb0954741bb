//! The Nodes of claims: labelled when they register, Ready when nothing is missing, told how their pool has them treated.

use super::Provisioner;
use super::watched::Pace;
use crate::api::node_claim::ClaimPhase;
use crate::domain::requirements::NODE_POOL;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::labels::{NodePatch, at_registration, policies};
use crate::provision::writes::Writes;
use crate::provision::{Because, Effect};

/// What is being written to a Node.
#[derive(Clone, Debug)]
pub(super) struct Labelling {
    wanted: NodePatch,
    writes: Writes<NodePatch>,
    /// The claim that registers by it.
    claim: Option<String>,
}

impl Provisioner {
    /// What the Nodes say of the claims.
    pub(super) fn follow_nodes(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        let mut names = self.claims.to_look_at(Pace::Changed);
        for node in self.nodes.looked_at(Pace::Changed) {
            let of = node.instance.iter().flat_map(|instance| self.claims.of_instance(instance));
            names.extend(of.map(|run| run.name.clone()));
        }
        let (mut said, mut new) = (Vec::new(), Vec::new());
        for name in names {
            let instance = self.claims.get(&name).filter(|run| run.phase() < ClaimPhase::Ready);
            let Some(node) = instance.and_then(|run| self.found.node_of(&self.nodes, run.instance()?)) else {
                continue;
            };
            let Some(run) = self.claims.quietly(&name) else { continue };
            let was_labelled = run.labelled;
            let rules = run
                .spec
                .node_pool
                .as_deref()
                .and_then(|name| Some((name, self.pools.get(name).and_then(|served| served.rules.as_ref().ok())?)));
            let starts = rules.is_some_and(|(_, rules)| {
                let is = |has: &crate::domain::node::Taint| {
                    rules.startup_taints.iter().any(|of| of.key == has.key && of.effect.as_str() == has.effect)
                };
                node.taints.iter().any(is)
            });
            if !run.labelled && !self.labelling.contains_key(&node.name) {
                let capacity = run.status.offering.as_ref().map(|offering| offering.capacity_type);
                let (patch, wrong) =
                    capacity.map(|capacity| at_registration(node, capacity, rules)).unwrap_or_default();
                run.labelled = patch.is_empty();
                if !wrong.is_empty() {
                    let because = Because::Relabelled { node: node.name.clone(), wrong: wrong.join("; ") };
                    said.push((run.name.clone(), because));
                }
                if !patch.is_empty() {
                    let claim = Some(run.name.clone());
                    new.push((node.name.clone(), Labelling { wanted: patch, writes: Writes::from(None), claim }));
                }
            }
            let whole = run.spec.resources.iter().all(|name| node.resources.contains(name));
            let ready = node.ready && !node.starting && !starts && whole && run.labelled;
            let because = run.node(now, &self.epoch, (&node.name, ready), self.settings.registration);
            if because.is_some() || run.labelled != was_labelled {
                self.claims.touch(&name);
            }
            said.extend(because.map(|because| (name, because)));
        }
        self.labelling.extend(new);
        for (name, because) in said {
            self.say(&name, because, effects);
        }
        self.claims.index(now);
        self.tell_policies();
    }

    /// What a claim's instance is has turned out to be another capacity type than its Node says.
    pub(super) fn relabel(&mut self, name: &str) {
        let Some(run) = self.claims.get_mut(name) else { return };
        if run.phase() < ClaimPhase::Ready {
            run.labelled = false;
            let waits = |of: &Labelling| of.claim.as_deref() == Some(name);
            self.labelling.retain(|_, of| !waits(of));
            return;
        }
        let capacity = run.status.offering.as_ref().map(|offering| offering.capacity_type);
        let node = run.instance().and_then(|instance| self.found.node_of(&self.nodes, instance));
        let Some((capacity, node)) = capacity.zip(node) else { return };
        let (NodePatch { labels, .. }, _) = at_registration(node, capacity, None);
        let wanted = NodePatch { labels, ..NodePatch::default() };
        if !wanted.is_empty() {
            let labelling = Labelling { wanted, writes: Writes::from(None), claim: None };
            self.labelling.insert(node.name.clone(), labelling);
        }
    }

    /// Every Node of a pool says how the pool has it treated, whoever launched it.
    fn tell_policies(&mut self) {
        let of = self.claims.looked_at(Pace::Changed);
        let of = of.filter_map(|run| self.nodes.get(run.status.node_name.as_ref()?));
        let mut new = Vec::new();
        for node in
            self.nodes.looked_at(Pace::Changed).chain(of).filter(|node| !self.labelling.contains_key(&node.name))
        {
            let run = self.claims.of_node(&node.name).next_back();
            let pool = run.and_then(|run| run.spec.node_pool.as_ref()).or_else(|| node.labels.get(NODE_POOL));
            let rules = pool.and_then(|pool| self.pools.get(pool)).and_then(|served| served.rules.as_ref().ok());
            // One that registers is told with all the rest.
            let registers = run.is_some_and(|run| !run.labelled);
            let Some(rules) = rules.filter(|_| !registers) else { continue };
            let annotations = policies(node, rules);
            if !annotations.is_empty() {
                let wanted = NodePatch { annotations, ..NodePatch::default() };
                new.push((node.name.clone(), Labelling { wanted, writes: Writes::from(None), claim: None }));
            }
        }
        self.labelling.extend(new);
    }

    /// Writes what the Nodes are to say.
    pub(super) fn write_labels(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let nodes = &self.nodes;
        self.labelling.retain(|node, _| nodes.contains_key(node));
        for (node, labelling) in &mut self.labelling {
            if let Some(patch) = labelling.writes.next(now, &labelling.wanted) {
                effects.push(Effect::Label { node: node.clone(), patch: Box::new(patch) });
            }
        }
    }

    pub(super) fn labelled(&mut self, now: Instant, node: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(labelling) = self.labelling.get_mut(node) else { return };
        // Without the right to it the node works, and says less; that is no reason to wait with it.
        let done = matches!(outcome, Outcome::Done | Outcome::Refused(_));
        let why = labelling.writes.answered(now, outcome);
        if let Some(why) = why {
            self.say(node, Because::WriteFailed { what: format!("the labels of Node {node}"), why }, effects);
        }
        if done && let Some(run) = self.labelling.get(node).and_then(|of| self.claims.get_mut(of.claim.as_ref()?)) {
            run.labelled = true;
        }
        if self.labelling.get(node).is_some_and(|of| of.writes.has(&of.wanted)) {
            // What was written is seen before it is looked at again.
            if let (Some(of), Some(view)) = (self.labelling.remove(node), self.nodes.get_mut(node)) {
                for (key, value) in of.wanted.annotations {
                    match value {
                        Some(value) => view.annotations.insert(key, value),
                        None => view.annotations.remove(&key),
                    };
                }
            }
        }
    }

    pub(super) fn labels_wakeup(&self) -> Option<Instant> {
        self.labelling.values().filter_map(|of| of.writes.retry()).min()
    }
}
