//! EC2 as a witness: what it says of instances, what the queue says of them, and those that it takes unheard.

use super::ClaimAtEnd;
use super::agents::TWO_MINUTES;
use super::cloud::InstanceSim;
use super::world::{Event, Told, World, epoch, moment};
use crate::api::interruption::{InterruptionStatus, NoticeEntry, Phase};
use crate::domain::notice::{Action, InstanceId, Kind, Source};
use crate::provision::{Because, Doomed, Replacement, witness};

/// How soon before the deadline an IMDS that denies it refutes a notice.
const REFUTED_BEFORE: u64 = 5_000;

/// Who stands in for a silent agent begins after this.
const STANDS_IN_AFTER: u64 = 12_000;

impl World {
    /// AWS takes an instance: it has ended.
    pub fn is_taken(&mut self, index: usize) {
        if self.cloud.instances[index].died_ms.is_none() {
            self.cloud.instances[index].end.by_ec2 = true;
        }
        self.dies(index);
    }

    fn record_of(&self, index: usize) -> Doomed {
        let one = &self.cloud.instances[index];
        Doomed {
            instance: one.id.clone(),
            node: one.node(),
            episode: 0,
            phase: Phase::Noticed,
            kind: None,
            kept_in_zone: false,
            policy: None,
            notices: Vec::new(),
            settled: Vec::new(),
            replacement: Replacement::default(),
            record: Default::default(),
        }
    }

    /// The queue alone says that an instance will be taken, and its own IMDS denies it.
    pub fn queue_says(&mut self, index: usize, so: bool) {
        let Some(one) = self.cloud.instances.get(index).filter(|one| one.died_ms.is_none()) else { return };
        let id = one.id.clone();
        if self.doomed.contains_key(&id) || one.end.begun {
            return;
        }
        let ends = self.now + TWO_MINUTES;
        let entry = NoticeEntry {
            source: Source::Sqs,
            kind: Kind::SpotInterruption,
            event_id: format!("event-{}", self.now),
            action: Some(Action::Terminate.as_str().into()),
            reporter: None,
            noticed_at: Some(epoch().wall(moment(self.now))),
            deadline: Some(epoch().wall(moment(ends))),
        };
        let record = self.record_of(index);
        let kind = Some(Kind::SpotInterruption);
        self.doomed.insert(id.clone(), Doomed { episode: 1, kind, notices: vec![entry], ..record });
        self.doomed_changed(&id);
        self.schedule(ends - REFUTED_BEFORE, Event::Refutes { instance: index, episode: 1 });
        if so {
            let marks = self.now + self.below(3_000);
            self.schedule(marks, Event::Marks { instance: index });
            self.taken.insert(index);
            self.unheard.insert(index);
            self.schedule(ends, Event::Dies { instance: index });
        }
    }

    /// AWS takes an instance, and tells nobody.
    pub fn take_unheard(&mut self, index: usize) {
        let Some(one) = self.cloud.instances.get_mut(index).filter(|one| one.died_ms.is_none()) else { return };
        if self.doomed.contains_key(&one.id) || self.unwanted.contains(one.id.as_str()) {
            return;
        }
        (one.end.begun, one.end.by_ec2) = (true, true);
        self.taken.insert(index);
        self.unheard.insert(index);
        self.node_is(index, |node| node.ready = false);
        let ends = self.now + 500 + self.below(60_000);
        self.schedule(ends, Event::Dies { instance: index });
    }

    /// The record of an instance is over, and can be collected.
    pub fn is_over(&mut self, index: usize) {
        let id = self.cloud.instances[index].id.clone();
        let Some(doomed) = self.doomed.get_mut(&id) else { return };
        doomed.phase = Phase::Gone;
        doomed.record.uid = "uid-record".into();
        self.doomed_changed(&id);
    }

    /// P-11: EC2 has said what is written of it.
    fn check_seen(&mut self, instance: &InstanceId) {
        let of = self.find(instance).map(|index| self.cloud.instances[index].end);
        if of.is_none_or(|end| !end.marked && !end.by_ec2) {
            self.found("P-11", format!("that EC2 takes {instance} is written down, and it does not"));
        }
    }

    /// A notice of the provisioner's reaches a record.
    pub fn seen_in_ec2(&mut self, instance: &InstanceId, entry: NoticeEntry) {
        self.check_seen(instance);
        if self.told.is_some() {
            return self.outward(Told::SeenInEc2 { instance: instance.clone(), entry });
        }
        let Some(index) = self.find(instance) else { return };
        let fresh = self.record_of(index);
        let doomed = self.doomed.entry(instance.clone()).or_insert(fresh);
        doomed.notices.retain(|known| known.key() != entry.key());
        doomed.notices.push(entry);
        let episode = doomed.episode;
        // Its agent is dead where the instance is going already.
        let later = if self.cloud.instances[index].end.begun { STANDS_IN_AFTER } else { 100 + self.below(200) };
        self.doomed_changed(instance);
        self.schedule(self.now + later, Event::Confirms { instance: index, episode });
    }

    /// A record is made of what was taken unheard.
    pub fn taken_unheard(&mut self, instance: &InstanceId, entry: NoticeEntry, because: Because) {
        self.check_seen(instance);
        if self.told.is_some() {
            return self.outward(Told::TakenUnheard { instance: instance.clone(), entry, because });
        }
        let Some(index) = self.find(instance) else { return };
        let fresh = self.record_of(index);
        let doomed = self.doomed.entry(instance.clone()).or_insert(fresh);
        doomed.notices.retain(|known| known.key() != entry.key());
        doomed.notices.push(entry);
        let status = InterruptionStatus {
            episode: doomed.episode,
            phase: Some(doomed.phase),
            kind: doomed.kind,
            settled: doomed.settled.clone(),
            ..InterruptionStatus::default()
        };
        let wall = epoch().wall(moment(self.now));
        if let Some(next) = witness::taken(&status, &doomed.notices, because.to_string(), wall) {
            (doomed.episode, doomed.settled) = (next.episode, next.settled);
            (doomed.phase, doomed.kind) = (Phase::Gone, next.kind);
            doomed.replacement = Replacement::default();
            let name = format!("{instance}-{}", doomed.episode);
            let wanted_ms = self.now;
            self.history.entry(name).or_insert_with(|| ClaimAtEnd { wanted_ms, ..ClaimAtEnd::default() });
        }
        self.doomed_changed(instance);
    }

    /// The agent of a node, or who stands in for it, acts by what was seen in EC2.
    pub fn confirms(&mut self, index: usize, episode: i64) {
        let id = self.cloud.instances[index].id.clone();
        let alive = self.cloud.instances[index].died_ms.is_none();
        let Some(doomed) = self.doomed.get_mut(&id).filter(|of| alive && of.episode == episode) else { return };
        if doomed.phase >= Phase::Confirmed && !doomed.phase.ends_episode() {
            return;
        }
        if doomed.phase.ends_episode() || doomed.episode == 0 {
            doomed.episode += 1;
        }
        let kind =
            doomed.notices.iter().rev().find(|entry| entry.source == Source::Provisioner).map(|entry| entry.kind);
        (doomed.phase, doomed.kind) = (Phase::Confirmed, kind);
        let (name, wanted_ms) = (format!("{id}-{}", doomed.episode), self.now);
        self.history.entry(name).or_insert_with(|| ClaimAtEnd { wanted_ms, ..ClaimAtEnd::default() });
        self.doomed_changed(&id);
    }

    /// The agent's own IMDS has denied it to the end.
    pub fn refutes(&mut self, index: usize, episode: i64) {
        let id = self.cloud.instances[index].id.clone();
        let Some(doomed) = self.doomed.get_mut(&id).filter(|of| of.episode == episode) else { return };
        let seen = doomed.notices.iter().any(|entry| entry.source == Source::Provisioner);
        if doomed.phase == Phase::Noticed && !seen {
            doomed.phase = Phase::Refuted;
            doomed.settled = doomed.notices.iter().map(crate::interruption::merge::settled).collect();
            self.doomed_changed(&id);
        }
    }

    /// What was taken unheard is heard of in the end.
    pub fn check_unheard(&mut self) {
        let heard =
            |of: &Doomed| of.phase >= Phase::Confirmed && !matches!(of.phase, Phase::Cancelled | Phase::Refuted);
        let known = |id: &InstanceId| self.doomed.get(id).is_some_and(heard) || self.unwanted.contains(id.as_str());
        // Somebody may have ended it first, and the announcement of its end may have been withdrawn.
        let ended = |one: &&InstanceSim| one.died_ms.is_some() && one.end.by_ec2;
        let taken = self.unheard.iter().map(|index| &self.cloud.instances[*index]).filter(ended).map(|one| &one.id);
        let missed: Vec<String> = taken.filter(|id| !known(id)).map(ToString::to_string).collect();
        if !missed.is_empty() {
            self.found("live", format!("taken, and nobody has written it down: {}", missed.join(", ")));
        }
    }
}
