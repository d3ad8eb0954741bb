//! The API server: what it has, what a call does to it, and what a watch shows of it.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::{InterruptionStatus, NoticeEntry};
use spotkeeper::domain::node::Node;
use spotkeeper::domain::pod::{OnInterruption, Pod, PodUid};
use spotkeeper::domain::time::Deadline;
use spotkeeper::interruption::mark::{Mark, mark_patch, unmark_patch};
use spotkeeper::interruption::{Answer, Ask, Effect, Input, Outcome, Record, Verb};
use spotkeeper::sim::apply_patch;

use super::world::{NAMESPACE, NODE, What, World, wall};
use super::{Drain, Seen};
use crate::explore::at;

/// What the API server has.
#[derive(Clone, Debug)]
pub struct Api {
    pub node: Node,
    pub record: Option<Object>,
    pub pods: Vec<PodSim>,
}

/// The Interruption.
#[derive(Clone, Debug)]
pub struct Object {
    version: u64,
    notices: Vec<NoticeEntry>,
    pub status: InterruptionStatus,
}

#[derive(Clone, Debug)]
pub struct PodSim {
    pub uid: PodUid,
    pub name: &'static str,
    pub grace: u64,
    /// When its grace runs out.
    pub going: Option<u64>,
    pub gone: bool,
}

impl World {
    pub(super) fn done(&mut self, model: &Drain, effect: &Effect, noted: Option<(usize, usize)>) -> Input {
        match effect {
            Effect::Mark(mark) => self.patches(Some(mark)),
            Effect::Unmark => self.patches(None),
            Effect::RecordNotice(entry) => {
                self.apply(entry);
                Input::NoticeRecorded { key: entry.key(), outcome: Outcome::Done }
            }
            Effect::RecordStatus(status) => Input::StatusRecorded(self.writes(status)),
            Effect::RecordStatusOn { version, status } => {
                let is = self.api.record.as_ref().is_some_and(|record| record.version.to_string() == *version);
                Input::StatusRecorded(if is { self.writes(status) } else { Outcome::Failed("409 Conflict".into()) })
            }
            Effect::Ask(ask) => asked(ask, self.asks(model, ask, noted)),
            other => unreachable!("no call: {other:?}"),
        }
    }

    pub(super) fn patches(&mut self, mark: Option<&Mark>) -> Input {
        let from = self.api.node.clone();
        let patch = match mark {
            Some(mark) => mark_patch(&from, mark),
            None => unmark_patch(&from),
        };
        if let Some(patch) = patch {
            self.api.change(|api| {
                apply_patch(&mut api.node, &patch);
                let version: u64 = api.node.resource_version.parse().unwrap_or(0);
                api.node.resource_version = (version + 1).to_string();
            });
            self.watch(What::Node);
        }
        Input::Marked(Outcome::Done)
    }

    pub(super) fn apply(&mut self, entry: &NoticeEntry) {
        let changed = self.api.change(|api| {
            let record = api.record.get_or_insert_with(|| Object {
                version: 0,
                notices: Vec::new(),
                status: InterruptionStatus::default(),
            });
            let new = !record.notices.iter().any(|known| known.key() == entry.key());
            if new {
                record.notices.push(entry.clone());
                record.version += 1;
            }
            new
        });
        if changed {
            self.watch(What::Record);
        }
    }

    pub(super) fn writes(&mut self, status: &InterruptionStatus) -> Outcome {
        let now = at(self.now);
        let Some(record) = &self.api.record else { return Outcome::Failed("404 NotFound".into()) };
        if record.status == *status {
            return Outcome::Done;
        }
        self.api.change(|api| {
            api.record.iter_mut().for_each(|record| {
                record.version += 1;
                record.status = status.clone();
            });
        });
        self.ledger.change(|ledger| ledger.statuses.push((now, status.clone())));
        self.watch(What::Record);
        Outcome::Done
    }

    pub(super) fn asks(&mut self, model: &Drain, ask: &Ask, noted: Option<(usize, usize)>) -> Answer {
        let Some((index, place)) = noted else { return Answer::Gone };
        let pod = &self.api.pods[index];
        if pod.gone {
            return Answer::Gone;
        }
        if ask.verb == Verb::Evict && pod.name == "held" && pod.going.is_none() {
            model.saw(Seen::Blocked);
            return Answer::Blocked { budget: Some("never".into()) };
        }
        if ask.verb == Verb::Delete {
            model.saw(Seen::Deleted);
            if model.swallows_deletes {
                return Answer::Accepted;
            }
        }
        let grace = ask.grace_secs.map_or(pod.grace, u64::from);
        let ends = (self.now + grace * 1_000).min(pod.going.unwrap_or(u64::MAX));
        self.api.change(|api| api.pods[index].going = Some(ends));
        self.ledger.change(|ledger| ledger.pods[index].asks[place].ends_at = Some(at(ends)));
        self.pod_changed(index);
        Answer::Accepted
    }

    pub(super) fn pod_changed(&mut self, pod: usize) {
        if self.agent.up.as_ref().is_some_and(|up| up.watches) {
            self.watch(What::Pod(pod));
        }
    }

    pub(super) fn watch(&mut self, what: What) {
        if self.agent.up.is_some() {
            self.send(what);
        }
    }

    /// A pod as the agent sees it.
    pub(super) fn pod(&self, index: usize) -> Pod {
        let (pod, born) = (&self.api.pods[index], self.agent.up.as_ref().map_or(0, |up| up.born));
        Pod {
            uid: pod.uid.clone(),
            namespace: NAMESPACE.into(),
            name: pod.name.into(),
            grace: Duration::from_secs(pod.grace),
            policy: OnInterruption::Evict,
            bound_to_node: None,
            kept_in_zone: false,
            finished: false,
            ends_at: pod.going.map(|ends| at(ends.saturating_sub(born))),
        }
    }

    /// The record as the agent sees it.
    pub(super) fn record(&self) -> Option<Record> {
        let object = self.api.record.as_ref()?;
        let up = self.agent.up.as_ref()?;
        let (here, reads) = (at(self.now - up.born), wall(self.now));
        let placed = |deadline: Option<Timestamp>| deadline.map(|deadline| Deadline::place(deadline, reads, here));
        let asked = object.status.timeline.first_eviction_at;
        Some(Record {
            version: object.version.to_string(),
            node: NODE.into(),
            provider_id: self.api.node.provider_id.clone().unwrap_or_default(),
            notices: object.notices.iter().map(|entry| (entry.clone(), placed(entry.deadline))).collect(),
            deadline: placed(object.status.deadline),
            asked_for: asked.and_then(|first| Duration::try_from(reads.duration_since(first)).ok()),
            status: object.status.clone(),
        })
    }
}

pub(super) fn asked(ask: &Ask, answer: Answer) -> Input {
    Input::Asked { uid: ask.uid.clone(), verb: ask.verb, answer }
}

pub(super) fn failed(effect: &Effect) -> Input {
    let outcome = Outcome::Failed("connection lost".into());
    match effect {
        Effect::RecordNotice(entry) => Input::NoticeRecorded { key: entry.key(), outcome },
        Effect::RecordStatus(_) | Effect::RecordStatusOn { .. } => Input::StatusRecorded(outcome),
        Effect::Ask(ask) => asked(ask, Answer::Failed("connection lost".into())),
        _ => Input::Marked(outcome),
    }
}
