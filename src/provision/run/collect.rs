//! Interruptions: kept for a while when they are over, beyond their Nodes, and then collected.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::Provisioner;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::{Because, Doomed, Effect};

/// How often they are looked through.
const EVERY: Duration = Duration::from_secs(10);

/// For how long after its last change one whose instance has no Node may still be about one that joins.
const JOINS_WITHIN: Duration = Duration::from_secs(600);

/// How many are collected at a time.
const AT_ONCE: usize = 20;

/// What is on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Collecting {
    next: Instant,
    on_their_way: BTreeMap<InstanceId, Instant>,
    /// The last write failed.
    failing: bool,
}

impl Collecting {
    pub(super) fn wakeup(&self) -> Instant {
        self.next
    }

    /// It was answered, one way or the other: it is looked at again. Returns what went wrong, the first time in a row.
    fn answered(&mut self, instance: &InstanceId, outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Done => {
                self.failing = false;
                self.on_their_way.remove(instance);
                None
            }
            // What was refused is not tried in a hurry.
            Outcome::Refused(why) | Outcome::Failed(why) => {
                (!std::mem::replace(&mut self.failing, true)).then_some(why)
            }
        }
    }
}

impl Provisioner {
    pub(super) fn record_written(&mut self, instance: &InstanceId, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let Some(why) = self.collecting.answered(instance, outcome) {
            let what = format!("the end of Interruption {instance}");
            self.say(instance.as_str(), Because::WriteFailed { what, why }, effects);
        }
    }

    /// Takes records off their Nodes, and collects those that are over.
    pub(super) fn collect(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if now < self.collecting.next || !self.nodes_synced {
            return;
        }
        self.collecting.next = now + EVERY;
        self.collecting.on_their_way.retain(|_, at| now.since(*at) < EVERY * 3);
        // One that has registered by another name may have left its first Node behind: two of one instance.
        let mut nodes_of: BTreeMap<&InstanceId, Vec<&str>> = BTreeMap::new();
        for node in self.nodes.values() {
            node.instance.as_ref().into_iter().for_each(|id| nodes_of.entry(id).or_default().push(&node.name));
        }
        let wall = self.epoch.wall(now);
        let age = |of: &Doomed| of.record.latest.map(|at| wall.duration_since(at).unsigned_abs());
        // Whoever stands in for it is named after it, and another is still to come while it is wanted.
        let kept = |id: &InstanceId| self.claims.replacing(id).next().is_some() || self.found.unmet.contains(id);
        let mut over: Vec<(Option<Timestamp>, &InstanceId)> = Vec::new();
        let mut goes: Vec<(&InstanceId, Because)> = Vec::new();
        let mut disowned = Vec::new();
        for doomed in self.doomed.values().filter(|doomed| !doomed.record.uid.is_empty()) {
            let nodes = nodes_of.get(&doomed.instance);
            if let Some(nodes) = nodes.filter(|nodes| !nodes.contains(&doomed.node.as_str())) {
                let because = Because::Contradicts { record: doomed.node.clone(), node: nodes.join(", ") };
                goes.push((&doomed.instance, because));
                continue;
            }
            if doomed.record.owned {
                disowned.push((doomed.instance.clone(), doomed.record.uid.clone()));
            }
            let left = nodes.is_none() && age(doomed).is_some_and(|age| age >= JOINS_WITHIN);
            if (doomed.phase.ends_episode() || left) && !kept(&doomed.instance) {
                over.push((doomed.record.latest, &doomed.instance));
            }
        }
        over.sort();
        let surplus = over.len().saturating_sub(self.settings.keep_interruptions);
        for (index, (latest, instance)) in over.into_iter().enumerate() {
            let old = latest.is_some_and(|at| wall.duration_since(at).unsigned_abs() >= self.settings.keep_for);
            if old || index < surplus {
                goes.push((instance, Because::Collected));
            }
        }
        let goes: Vec<(InstanceId, Because)> = goes.into_iter().map(|(id, because)| (id.clone(), because)).collect();
        let mut begun = 0;
        for (instance, because) in goes {
            let uid = self.doomed.get(&instance).map(|doomed| doomed.record.uid.clone());
            if begun < AT_ONCE && self.collecting.on_their_way.insert(instance.clone(), now).is_none() {
                begun += 1;
                self.say(instance.as_str(), because, effects);
                effects.push(Effect::DeleteInterruption { instance, uid: uid.unwrap_or_default() });
            }
        }
        for (instance, uid) in disowned {
            if self.collecting.on_their_way.insert(instance.clone(), now).is_none() {
                effects.push(Effect::Disown { instance, uid });
            }
        }
    }
}
