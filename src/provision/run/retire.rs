//! Nodes of ours that are to go: their drain is asked for, and when they are empty their instances are ended.

use std::collections::BTreeMap;

use super::Provisioner;
use crate::api::node_claim::ClaimPhase;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::retire::{self, Reason};
use crate::provision::{Because, Effect, NodeView};

/// The Node of each instance; of two, of which one was left behind when it registered by another name, the Ready one.
pub(super) fn by_instance(nodes: &BTreeMap<String, NodeView>) -> BTreeMap<&InstanceId, &NodeView> {
    let mut all: BTreeMap<&InstanceId, &NodeView> = BTreeMap::new();
    for node in nodes.values() {
        let Some(instance) = &node.instance else { continue };
        let known = all.entry(instance).or_insert(node);
        if node.ready >= known.ready {
            *known = node;
        }
    }
    all
}

/// Why a node is to go, and the particulars.
type Why = (Reason, Option<String>);

impl Provisioner {
    /// The Node of an instance, as in [`by_instance`].
    pub(super) fn node_of(&self, instance: &InstanceId) -> Option<&NodeView> {
        let of = self.nodes.values().filter(|node| node.instance.as_ref() == Some(instance));
        of.max_by_key(|node| node.ready)
    }

    /// Which instances are to go, and why.
    fn to_retire(&self) -> BTreeMap<InstanceId, Why> {
        let mut wanted = BTreeMap::new();
        for run in self.claims.values() {
            let Some(instance) = run.instance() else { continue };
            if run.deleting {
                let why = run.leaves.unwrap_or(Reason::ClaimDeleted);
                wanted.insert(instance.clone(), (why, None));
            }
        }
        for instance in self.tidy.surplus() {
            wanted.insert(instance.clone(), (Reason::Surplus, None));
        }
        let returned = self.returned().into_iter().map(|instance| (instance, Reason::ReturnToSpot, None));
        for (instance, why, action) in returned.chain(self.bridged()).chain(self.stood_in_for_nothing()) {
            wanted.entry(instance).or_insert((why, action));
        }
        wanted
    }

    /// A claim whose node is empty, for whatever reason it was to be, is done with: there is no way back from here.
    fn let_go(&mut self, now: Instant, wanted: &BTreeMap<InstanceId, Why>, effects: &mut Vec<Effect>) {
        let mut said = Vec::new();
        for (instance, (why, _)) in wanted {
            if !self.is_drained(now, instance) {
                continue;
            }
            let run = self.claims.values_mut().find(|run| run.instance() == Some(instance) && !run.deleting);
            if let Some(run) = run {
                run.leaves = Some(*why);
                said.push((run.name.clone(), run.unwanted(why.words())));
            }
        }
        said.into_iter().for_each(|(name, because)| self.say(&name, because, effects));
    }

    /// Asks for the drains that are wanted, and takes back those that are not wanted any more.
    pub(super) fn retire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let wanted = self.to_retire();
        for (instance, (why, action)) in &wanted {
            let Some(node) = self.node_of(instance).map(|node| node.name.clone()) else { continue };
            match self.retiring.get_mut(instance) {
                Some(run) => run.wanted(now, *why, action.clone()),
                None => {
                    self.retiring.insert(instance.clone(), retire::Run::new(now, *why, action.clone()));
                    self.say(&node, Because::Retires { node: node.clone(), why: why.words() }, effects);
                }
            }
        }
        self.recall_returns(now, &wanted);
        let stays = |id: &InstanceId| !wanted.contains_key(id) && !self.tidy.ends(id);
        self.retiring.iter_mut().filter(|(id, _)| stays(id)).for_each(|(_, run)| run.withdraw());
        self.let_go(now, &wanted, effects);
        self.send_requests(now, effects);
    }

    /// An earlier leader has asked for the drain of a node for a return that is off by now: that is taken back. All other
    /// reasons are for good.
    fn recall_returns(&mut self, now: Instant, wanted: &BTreeMap<InstanceId, Why>) {
        for doomed in self.doomed.values().filter(|doomed| !wanted.contains_key(&doomed.instance)) {
            let request = doomed.request().filter(|of| of.event_id == Reason::ReturnToSpot.as_str());
            if request.is_some() && self.node_of(&doomed.instance).is_some() {
                let run = || retire::Run::new(now, Reason::ReturnToSpot, None);
                self.retiring.entry(doomed.instance.clone()).or_insert_with(run);
            }
        }
    }

    /// A claim that somebody has deleted says so.
    pub(super) fn claims_that_leave(&mut self, effects: &mut Vec<Effect>) {
        let mut said = Vec::new();
        for run in self.claims.values_mut() {
            if run.deleting && run.phase() != ClaimPhase::Terminating && run.launch.is_none() {
                said.push((run.name.clone(), run.unwanted(Reason::ClaimDeleted.words())));
            }
        }
        said.into_iter().for_each(|(name, because)| self.say(&name, because, effects));
    }

    fn send_requests(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let by_instance = by_instance(&self.nodes);
        let mut over = Vec::new();
        for (instance, run) in &mut self.retiring {
            let request = self.doomed.get(instance).and_then(|doomed| doomed.request());
            let said = match run.is_withdrawn() {
                true => request.is_some(),
                false => request.as_ref().is_some_and(|request| request.event_id == run.why.as_str()),
            };
            let Some(node) = by_instance.get(instance) else {
                over.push(instance.clone());
                continue;
            };
            if run.is_over(said) {
                over.push(instance.clone());
            } else if run.sends(now, said) {
                effects.push(match (run.is_withdrawn(), request) {
                    (true, Some(request)) => {
                        Effect::Withdraw { instance: instance.clone(), event_id: request.event_id }
                    }
                    _ => Effect::Request {
                        instance: instance.clone(),
                        node: node.name.clone(),
                        provider_id: node.provider_id.clone().unwrap_or_default(),
                        event_id: run.why.as_str().to_owned(),
                        action: run.action.clone(),
                    },
                });
            }
        }
        over.into_iter().for_each(|instance| drop(self.retiring.remove(&instance)));
    }

    /// Whether the instance may be ended: no workload runs on it, and none can come any more.
    pub(super) fn is_drained(&self, now: Instant, instance: &InstanceId) -> bool {
        if !self.nodes_synced {
            return false;
        }
        let Some(node) = self.node_of(instance) else { return true };
        let may = self.retiring.get(instance).is_some_and(|run| !run.is_withdrawn() && run.may_end(now, node.cordoned));
        may && !self.nodes.values().any(|node| node.instance.as_ref() == Some(instance) && node.workloads)
    }

    /// The instances that are being retired for good: they need nobody in their place.
    pub(super) fn retires(&self, instance: &InstanceId) -> bool {
        let leaves = |run: &crate::provision::claim::Run| run.deleting && run.instance() == Some(instance);
        self.claims.values().any(leaves) || self.retiring.get(instance).is_some_and(|run| !run.is_withdrawn())
    }

    /// Nodes that are asked to be empty, for metrics.
    pub fn retiring(&self) -> usize {
        self.retiring.values().filter(|run| !run.is_withdrawn()).count()
    }

    pub(super) fn requested(
        &mut self,
        now: Instant,
        instance: &InstanceId,
        withdrawal: bool,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let why = self.retiring.get_mut(instance).and_then(|run| run.answered(now, withdrawal, outcome));
        if let Some(why) = why {
            let what = format!("the request to drain {instance}");
            self.say(instance.as_str(), Because::WriteFailed { what, why }, effects);
        }
    }

    pub(super) fn retire_wakeup(&self) -> Option<Instant> {
        self.retiring.values().filter_map(|run| run.wakeup(self.now)).min()
    }
}
