//! Nodes of ours that are to go: their drain is asked for, and when they are empty their instances are ended.

use std::collections::BTreeMap;

use super::Provisioner;
use super::claims::That;
use super::watched::Pace;
use crate::api::node_claim::ClaimPhase;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::claim::Run;
use crate::provision::retire::{self, Reason, Request};
use crate::provision::{Because, Effect};

/// Why a node is to go, and the particulars.
type Why = (Reason, Option<String>);

impl Provisioner {
    /// Which instances are to go, and why.
    fn to_retire(&self) -> BTreeMap<InstanceId, Why> {
        let mut wanted = BTreeMap::new();
        for run in self.claims.that(That::Leaves) {
            let why = run.leaves.unwrap_or(Reason::ClaimDeleted);
            run.instance().into_iter().for_each(|instance| drop(wanted.insert(instance.clone(), (why, None))));
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
        let drained = wanted.iter().filter(|(instance, _)| self.is_drained(now, instance));
        let of = |(instance, (why, _)): (&InstanceId, &Why)| {
            let run = self.claims.of_instance(instance).find(|run| !run.deleting)?;
            Some((run.name.clone(), *why))
        };
        // All are found before any is changed: by its instance a claim is found by what it was when the turn began.
        for (name, why) in drained.filter_map(of).collect::<Vec<_>>() {
            if let Some(run) = self.claims.get_mut(&name) {
                run.leaves = Some(why);
                said.push((name, run.unwanted(why.words())));
            }
        }
        said.into_iter().for_each(|(name, because)| self.say(&name, because, effects));
    }

    /// Asks for the drains that are wanted, and takes back those that are not wanted any more.
    pub(super) fn retire(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
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
        let asked = self.found.asked.iter().filter_map(|id| self.doomed.get(id));
        for doomed in asked.filter(|doomed| !wanted.contains_key(&doomed.instance)) {
            let request = doomed.requested_for(Reason::ReturnToSpot);
            if request.is_some() && self.node_of(&doomed.instance).is_some() {
                let run = || retire::Run::new(now, Reason::ReturnToSpot, None);
                self.retiring.entry(doomed.instance.clone()).or_insert_with(run);
            }
        }
    }

    /// A claim that somebody has deleted says so.
    pub(super) fn claims_that_leave(&mut self, effects: &mut Vec<Effect>) {
        let mut said = Vec::new();
        let is_new = |run: &&Run| run.deleting && run.phase() != ClaimPhase::Terminating && run.launch.is_none();
        let leave = self.claims.looked_at(Pace::Changed).filter(is_new).map(|run| run.name.clone());
        for name in leave.collect::<Vec<_>>() {
            if let Some(run) = self.claims.get_mut(&name) {
                said.push((name, run.goes(Reason::ClaimDeleted.words())));
            }
        }
        said.into_iter().for_each(|(name, because)| self.say(&name, because, effects));
    }

    fn send_requests(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut over = Vec::new();
        for (instance, run) in &mut self.retiring {
            let (said, former): (Vec<_>, Vec<_>) = match (self.doomed.get(instance), run.is_withdrawn()) {
                (Some(doomed), true) => (doomed.requests().collect(), Vec::new()),
                (Some(doomed), false) => doomed.requests().partition(|of| of.event_id == run.why.as_str()),
                (None, _) => (Vec::new(), Vec::new()),
            };
            let Some(node) = self.found.node_of(&self.nodes, instance) else {
                over.push(instance.clone());
                continue;
            };
            let withdraws =
                |of: &Request| Effect::Withdraw { instance: instance.clone(), event_id: of.event_id.clone() };
            if run.is_over(!said.is_empty()) {
                over.push(instance.clone());
            } else if run.sends(now, !said.is_empty()) {
                effects.push(match (run.is_withdrawn(), said.first()) {
                    (true, Some(request)) => withdraws(request),
                    _ => Effect::Request {
                        instance: instance.clone(),
                        node: node.name.clone(),
                        provider_id: node.provider_id.clone().unwrap_or_default(),
                        event_id: run.why.as_str().to_owned(),
                        action: run.action.clone(),
                        since: self.epoch.wall(run.since()),
                    },
                });
            } else if let Some(former) = former.first().filter(|_| !said.is_empty() && run.drops(now)) {
                // The reason is another one by now, and that stands in the record.
                effects.push(withdraws(former));
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
        may && !self.is_busy(instance)
    }

    /// The instances that are being retired for good: they need nobody in their place.
    pub(super) fn retires(&self, instance: &InstanceId) -> bool {
        self.claims.of_instance(instance).any(|run| run.deleting)
            || self.retiring.get(instance).is_some_and(|run| !run.is_withdrawn())
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
