//! The agents, as far as the provisioner depends on them: a node whose drain is asked for is cordoned, and empty a while
//! later, as budgets allow; what was done is undone when the request is taken back.

use std::collections::{BTreeMap, BTreeSet};

use super::ClaimAtEnd;
use super::world::{Event, World};
use crate::api::interruption::{NoticeEntry, Phase};
use crate::domain::notice::{InstanceId, Kind, Source};
use crate::provision::{Doomed, Input, NodeView, Replacement, Request};

/// How long AWS gives.
pub(super) const TWO_MINUTES: u64 = 120_000;

impl World {
    /// The scheduler finds the new node.
    pub fn pods_come(&mut self, index: usize) {
        self.node_is(index, |node| node.workloads |= node.ready && !node.cordoned);
    }

    pub fn node_is(&mut self, index: usize, change: impl FnOnce(&mut NodeView)) {
        let name = self.cloud.instances[index].node();
        let Some(before) = self.nodes.get(&name) else { return };
        let mut node = before.clone();
        change(&mut node);
        if node != *before {
            self.node_changed(node);
        }
    }

    /// The watch of pods is another one than that of nodes, and may be behind it.
    pub fn pods_changed(&mut self, before: &NodeView, node: &NodeView) {
        if before.workloads != node.workloads && self.supply.pods_late_ms > 0 {
            self.late_pods.entry(node.name.clone()).or_insert(before.workloads);
            self.schedule(self.now + self.supply.pods_late_ms, Event::PodsTold { node: node.name.clone() });
        }
    }

    pub fn pods_told(&mut self, node: &str) {
        self.late_pods.remove(node);
        if let Some(node) = self.nodes.get(node).cloned() {
            self.node_changed(node);
        }
    }

    /// One of these Nodes that runs pods of which no watch has told. That one runs what was told is for P-6 to find.
    pub fn unseen_pods(&self, nodes: &[String]) -> Option<String> {
        let runs = |name: &&String| self.nodes.get(*name).is_some_and(|node| node.workloads);
        nodes.iter().filter(|name| self.late_pods.contains_key(*name)).find(runs).cloned()
    }

    /// AWS will take an instance in two minutes.
    pub fn doom(&mut self, index: usize) {
        let Some(one) = self.cloud.instances.get(index).filter(|one| one.died_ms.is_none()) else { return };
        let (id, node) = (one.id.clone(), one.node());
        let mut doomed = Doomed {
            instance: id.clone(),
            node,
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
        if let Some(known) = self.doomed.get_mut(&id) {
            // It is being drained already: what is announced now has a deadline.
            if known.kind != Some(Kind::Requested) {
                return;
            }
            if !known.phase.ends_episode() {
                known.kind = Some(Kind::SpotInterruption);
                self.doomed_changed(&id);
                self.taken.insert(index);
                self.cloud.instances[index].end.marked = true;
                self.schedule(self.now + TWO_MINUTES, Event::Dies { instance: index });
                return;
            }
            self.unwanted.remove(id.as_str());
            doomed.episode = known.episode + 1;
        }
        let wanted = ClaimAtEnd { wanted_ms: self.now, ..ClaimAtEnd::default() };
        self.history.insert(format!("{id}-{}", doomed.episode), wanted);
        self.taken.insert(index);
        self.cloud.instances[index].end.marked = true;
        self.doomed.insert(id.clone(), doomed);
        self.doomed_changed(&id);
        self.schedule(self.now + TWO_MINUTES, Event::Dies { instance: index });
    }

    /// EC2 thinks that the instance of a node is likely to be taken; its agent lets it take no new pods.
    pub fn recommend(&mut self, index: usize) {
        let Some(one) = self.cloud.instances.get(index).filter(|one| one.died_ms.is_none()) else { return };
        let (id, node) = (one.id.clone(), one.node());
        if self.doomed.contains_key(&id) {
            return;
        }
        if self.supply.settings.replace_on_rebalance {
            let wanted = super::ClaimAtEnd { wanted_ms: self.now, ..Default::default() };
            self.history.insert(format!("{id}-1"), wanted);
        }
        let doomed = Doomed {
            instance: id.clone(),
            node,
            episode: 1,
            phase: Phase::Cordoned,
            kind: Some(Kind::RebalanceRecommendation),
            kept_in_zone: false,
            policy: None,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        };
        self.doomed.insert(id.clone(), doomed);
        self.doomed_changed(&id);
        self.node_is(index, |node| node.cordoned = true);
    }

    /// The provisioner asks for a drain.
    pub fn asked_to_drain(
        &mut self,
        instance: &InstanceId,
        event_id: String,
        action: Option<String>,
        since: jiff::Timestamp,
    ) {
        self.figures.requests += 1;
        let Some(index) = self.find(instance) else { return };
        self.unwanted.insert(instance.to_string());
        let node = self.cloud.instances[index].node();
        let fresh = Doomed {
            instance: instance.clone(),
            node,
            episode: 0,
            phase: Phase::Cancelled,
            kind: None,
            kept_in_zone: false,
            policy: None,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        };
        let doomed = self.doomed.entry(instance.clone()).or_insert(fresh);
        let before = doomed.clone();
        let begins = doomed.phase.ends_episode();
        let entry = NoticeEntry {
            source: Source::Provisioner,
            kind: Kind::Requested,
            event_id,
            action,
            reporter: None,
            noticed_at: Some(since),
            deadline: None,
        };
        match doomed.notices.iter_mut().find(|known| known.key() == entry.key()) {
            Some(known) => *known = entry,
            None => doomed.notices.push(entry),
        }
        if begins {
            doomed.episode += 1;
            doomed.phase = Phase::Confirmed;
            doomed.kind = Some(Kind::Requested);
            doomed.replacement = Replacement::default();
        }
        let episode = doomed.episode;
        // An apply of what is there already is no change.
        if *doomed != before {
            self.doomed_changed(instance);
        }
        if begins {
            let later = self.now + 100 + self.below(2_000);
            self.schedule(later, Event::Cordons { instance: index, episode });
        }
    }

    fn reaches(&mut self, index: usize, episode: i64, phase: Phase) -> bool {
        let id = self.cloud.instances[index].id.clone();
        let alive = self.cloud.instances[index].died_ms.is_none();
        let Some(doomed) = self.doomed.get_mut(&id).filter(|d| alive && d.episode == episode && d.phase < phase) else {
            return false;
        };
        doomed.phase = phase;
        self.doomed_changed(&id);
        true
    }

    pub fn cordons(&mut self, index: usize, episode: i64) {
        if self.reaches(index, episode, Phase::Cordoned) {
            self.node_is(index, |node| node.cordoned = true);
            let later = self.now + 500 + self.below(self.supply.drain_ms);
            self.schedule(later, Event::Empties { instance: index, episode });
        }
    }

    pub fn empties(&mut self, index: usize, episode: i64) {
        if let Some(by) = self.held_by(index) {
            let id = self.cloud.instances[index].id.clone();
            self.doomed.get_mut(&id).into_iter().for_each(|doomed| doomed.record.blocked = Some(by.to_owned()));
            self.doomed_changed(&id);
            self.schedule(self.now + 5_000, Event::Empties { instance: index, episode });
        } else if self.reaches(index, episode, Phase::Drained) {
            self.node_is(index, |node| node.workloads = false);
        }
    }

    /// The request is taken back: the agent undoes what it did, unless there is more than the request.
    pub fn left_alone(&mut self, instance: &InstanceId, event_id: &str) {
        if self.told.is_some() {
            return;
        }
        let Some(doomed) = self.doomed.get_mut(instance) else { return };
        doomed.notices.retain(|entry| Request::of(entry).is_none_or(|of| of.event_id != event_id));
        let over = !doomed.is_requested() && doomed.kind == Some(Kind::Requested) && !doomed.phase.ends_episode();
        if over {
            doomed.phase = Phase::Cancelled;
        }
        self.doomed_changed(instance);
        if let Some(index) = self.find(instance).filter(|_| over) {
            self.node_is(index, |node| node.cordoned = false);
            self.schedule(self.now + 5_000, Event::PodsCome { instance: index });
        }
    }

    /// No Node is deleted whose instance has not ended.
    pub fn check_dead(&mut self, node: &str) {
        let lives = self.cloud.instances.iter().any(|one| one.node() == node && one.died_ms.is_none());
        if lives {
            self.found("gone", format!("{node} is deleted, and its instance runs"));
        }
    }

    /// P-6: no instance of ours is ended that runs workload pods. P-9: nor one for a return to spot that has not come.
    pub fn check_empty(&mut self, instance: &InstanceId) {
        let requests = || self.doomed.get(instance).into_iter().flat_map(|doomed| doomed.requests());
        // Where it is to go anyhow no spot node is waited for.
        if requests().count() == 1 && requests().all(|request| request.event_id == "return-to-spot") {
            // By what was launched for it: that its claim has it may not be written yet.
            let prefix = format!("{instance}-return-");
            let tokens =
                self.written.iter().filter(|(_, spec)| spec.claims.iter().any(|of| of.name.starts_with(&prefix)));
            let tokens: BTreeSet<&String> = tokens.map(|(token, _)| token).collect();
            let launched =
                self.cloud.instances.iter().filter(|one| one.token.as_ref().is_some_and(|t| tokens.contains(t)));
            let ready = |one: &super::cloud::InstanceSim| self.nodes.get(&one.node()).is_some_and(|node| node.ready);
            if !launched.into_iter().any(ready) {
                self.found("P-9", format!("{instance} is ended for a spot node that is not Ready"));
            }
            self.figures.returned += 1;
        }
        let Some(index) = self.find(instance).filter(|index| self.cloud.instances[*index].died_ms.is_none()) else {
            return;
        };
        if self.nodes.get(&self.cloud.instances[index].node()).is_some_and(|node| node.workloads) {
            self.found("P-6", format!("{instance} is ended, and pods run on it"));
        }
    }

    /// A person deletes the first claim that has a Node.
    pub fn delete_claim(&mut self) {
        let Some(claim) = self.claims.values_mut().find(|claim| claim.status.node_name.is_some() && !claim.deleting)
        else {
            return;
        };
        claim.deleting = true;
        let claim = claim.clone();
        self.unwanted.insert(claim.name.clone());
        self.unwanted.extend(claim.status.instance_id.as_ref().map(ToString::to_string));
        self.broadcast(&Input::ClaimSeen(claim));
    }

    pub fn block(&mut self, blocked: bool) {
        self.blocked = blocked;
    }
}

/// Sets what has a value and takes off what has none.
pub(super) fn patched(all: &mut BTreeMap<String, String>, patch: &BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => all.insert(key.clone(), value.clone()),
            None => all.remove(key),
        };
    }
}
