//! Nodes whose instances EC2 takes while nobody hears of it: their agents are dead, the queue is not wired.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Provisioner, READ_AGAIN, Term};
use crate::api::interruption::{NoticeEntry, Phase};
use crate::api::node_claim::ClaimPhase;
use crate::domain::notice::{InstanceId, InstanceState};
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::demand::wants;
use crate::provision::witness;
use crate::provision::writes::Writes;
use crate::provision::{Because, Doomed, Effect, NodeView};

/// For how long a Node that went is remembered: also by a replica that leads only later.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How many are at most.
const REMEMBERED_MAX: usize = 5_000;

/// Nodes that went, and instances whose end is being written down.
#[derive(Clone, Debug, Default)]
pub(super) struct Unheard {
    went: BTreeMap<String, (Instant, NodeView)>,
    /// Instances that were heard of, and whose records are gone, since when.
    heard: BTreeMap<InstanceId, Instant>,
    taken: BTreeMap<InstanceId, Taken>,
}

/// One whose end is being written down.
#[derive(Clone, Debug)]
struct Taken {
    node: String,
    provider_id: String,
    entry: NoticeEntry,
    because: Because,
    writes: Writes<NoticeEntry>,
}

impl Unheard {
    /// What only a leader knows.
    pub(super) fn forget(&mut self) {
        self.taken.clear();
    }

    /// A Node is gone.
    pub(super) fn goes(&mut self, now: Instant, node: NodeView) {
        self.went.retain(|_, (at, _)| now.since(*at) < REMEMBERED);
        if node.instance.is_some() && self.went.len() < REMEMBERED_MAX {
            self.went.insert(node.name.clone(), (now, node));
        }
    }

    /// The record of a doomed instance is gone: it was heard of, and is not to be written down anew.
    pub(super) fn was_heard(&mut self, now: Instant, instance: InstanceId) {
        self.heard.retain(|_, at| now.since(*at) < REMEMBERED);
        self.heard.insert(instance, now);
    }

    /// Whether it had a record not long ago.
    pub(super) fn was_told_of(&self, instance: &InstanceId) -> bool {
        self.heard.contains_key(instance)
    }

    /// The Nodes that went not long ago.
    pub(super) fn went(&self, now: Instant) -> impl Iterator<Item = &NodeView> {
        self.went.values().filter(move |(at, _)| now.since(*at) < REMEMBERED).map(|(_, node)| node)
    }

    pub(super) fn node(&self, name: &str) -> Option<&NodeView> {
        self.went.get(name).map(|(_, node)| node)
    }

    /// The name and providerID of an instance's Node: of `nodes`, which are its own, or of one that went.
    pub(super) fn named<'a>(
        &'a self,
        mut nodes: impl Iterator<Item = &'a NodeView>,
        of: &InstanceId,
    ) -> Option<(String, String)> {
        let mut went = self.went.values().map(|(_, node)| node);
        let node = nodes.next().or_else(|| went.find(|node| node.instance.as_ref() == Some(of)))?;
        Some((node.name.clone(), node.provider_id.clone()?))
    }

    /// Whether the end of an instance is being written down.
    pub(super) fn writes(&self, instance: &InstanceId) -> bool {
        self.taken.contains_key(instance)
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.taken.values().filter_map(|one| one.writes.wakeup(&one.entry)).min()
    }
}

impl Provisioner {
    /// A Node went that nobody may have heard of: EC2 is asked why.
    pub(super) fn node_went(&mut self, now: Instant, node: NodeView) {
        let heard = node.instance.as_ref().is_none_or(|id| self.doomed.contains_key(id) || self.retires(id));
        // What was no Ready node yet is tried again as soon as it has ended.
        let tried_again = |id: &InstanceId| self.claims.of_instance(id).any(|run| run.phase() < ClaimPhase::Ready);
        if self.term == Term::Leading && (!heard || node.instance.as_ref().is_some_and(tried_again)) {
            self.reading.next = self.reading.next.min(now + READ_AGAIN);
        }
        self.unheard.goes(now, node);
    }

    /// A whole list of instances has come: which of those that have, or had, a Node were taken unheard.
    pub(super) fn look_for_unheard(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut found: BTreeMap<InstanceId, (String, String, InstanceState)> = BTreeMap::new();
        let seen = self.unheard.went(now).chain(self.nodes.values());
        let seen = seen.filter_map(|node| Some((node.instance.as_ref()?, &node.name, node.provider_id.as_ref())));
        let begun = self.doomed.values().filter(|doomed| is_begun(doomed));
        let begun = begun.map(|doomed| (&doomed.instance, &doomed.node, Some(&doomed.record.provider_id)));
        for (id, node, provider_id) in begun.chain(seen) {
            let state = self.instances.get(id).and_then(|one| one.taken);
            let ends = state.filter(|of| matches!(of, InstanceState::ShuttingDown | InstanceState::Terminated));
            if let Some(state) = ends.filter(|state| !self.is_heard(now, id, *state)) {
                found.insert(id.clone(), (node.clone(), provider_id.cloned().unwrap_or_default(), state));
            }
        }
        let wall = self.epoch.wall(now);
        for (instance, (name, provider_id, state)) in found {
            let because = Because::TakenUnheard { node: name.clone(), instance: instance.clone(), state };
            let entry = witness::unheard(state, wall);
            if state != InstanceState::Terminated {
                // Its agent may live yet, and whoever stands in for it begins by the notice.
                if !self.looks.writes(&instance, &entry.key()) {
                    self.say(&name, because, effects);
                    self.write_down(&instance, entry);
                }
                continue;
            }
            if !self.unheard.writes(&instance) {
                self.say(&name, because.clone(), effects);
                let taken = Taken { node: name, provider_id, entry, because, writes: Writes::from(None) };
                self.unheard.taken.insert(instance, taken);
            }
        }
    }

    /// A whole list of instances has come: which of those that have a Node run in a capacity block that ends.
    pub(super) fn look_for_ending_blocks(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let wall = self.epoch.wall(now);
        let mut found = Vec::new();
        for instance in self.instances.values().filter(|one| one.alive) {
            let Some(entry) = instance.block.as_ref().and_then(|block| witness::block_ends(block, wall)) else {
                continue;
            };
            let key = entry.key();
            let told = self.doomed.get(&instance.id).is_some_and(|of| of.notices.iter().any(|one| one.key() == key));
            if !told && !self.looks.writes(&instance.id, &key) && self.node_of(&instance.id).is_some() {
                found.push((instance.id.clone(), entry));
            }
        }
        for (instance, entry) in found {
            let node = self.node_of(&instance).map(|node| node.name.clone()).unwrap_or_default();
            let because = Because::BlockEnds { node: node.clone(), block: entry.event_id.clone() };
            self.say(&node, because, effects);
            self.write_down(&instance, entry);
        }
    }

    /// Whether an instance that EC2 takes is heard of: a record says so, or it is to go anyhow.
    fn is_heard(&self, now: Instant, instance: &InstanceId, state: InstanceState) -> bool {
        // One that was no Ready node yet is tried again by its claim.
        let early = || self.claims.of_instance(instance).any(|run| run.phase() != ClaimPhase::Ready);
        if self.unheard.heard.get(instance).is_some_and(|at| now.since(*at) < REMEMBERED) {
            return true;
        }
        if self.retires(instance) || self.tidy.ends(instance) || early() {
            return true;
        }
        let Some(doomed) = self.doomed.get(instance) else { return false };
        let over = state == InstanceState::Terminated;
        let said = || doomed.notices.iter().any(witness::is_unheard);
        match doomed.phase {
            _ if doomed.is_requested() => true,
            Phase::Cancelled | Phase::Refuted => !over && said(),
            // What was over long ago was another life of it: it was stopped and started again.
            Phase::Gone => said() || doomed.record.latest.is_none_or(|at| self.epoch.ago(at, now) < REMEMBERED),
            Phase::Noticed => !over,
            _ => !over || wants(doomed, &self.settings),
        }
    }

    pub(super) fn taken_recorded(
        &mut self,
        now: Instant,
        instance: &InstanceId,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let why = self.unheard.taken.get_mut(instance).and_then(|one| one.writes.answered(now, outcome));
        if let Some(why) = why {
            let what = format!("the end of {instance}");
            self.say(instance.as_str(), Because::WriteFailed { what, why }, effects);
        }
    }

    /// Writes down what was taken, until the record has it.
    pub(super) fn record_taken(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        let over: Vec<InstanceId> =
            self.unheard.taken.keys().filter(|id| self.is_heard(now, id, InstanceState::Terminated)).cloned().collect();
        over.iter().for_each(|id| drop(self.unheard.taken.remove(id)));
        for (instance, one) in &mut self.unheard.taken {
            if let Some(entry) = one.writes.next(now, &one.entry) {
                effects.push(Effect::RecordTaken {
                    instance: instance.clone(),
                    node: one.node.clone(),
                    provider_id: one.provider_id.clone(),
                    entry,
                    because: one.because.clone(),
                });
            }
        }
    }
}

/// Whether it was begun to be written down that an instance was taken unheard: while it shut down. Whoever leads when it
/// has ended may never have seen its Node.
pub(super) fn is_begun(doomed: &Doomed) -> bool {
    doomed.phase == Phase::Noticed && doomed.notices.iter().any(witness::is_unheard)
}
