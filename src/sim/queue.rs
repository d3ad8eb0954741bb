//! The queue, and whoever reads it: what becomes of a message is decided by the real code.

use super::scenario::{ApiState, Message};
use super::world::{Event, World};
use crate::domain::notice::{InstanceId, Notice, Source};
use crate::domain::time::Deadline;
use crate::domain::wire::queue::{Message as Parsed, Parsed as Body};
use crate::interruption::Input;
use crate::interruption::invariants::ledger::notice_kept;
use crate::interruption::queue::{Delivery, Disposition, ForNode, NodeRef, Then, dispose};

/// How long a message that was received stays hidden when it is neither deleted nor released.
const VISIBILITY_MS: u64 = 10_000;

/// How long it takes until somebody tries to receive again where nobody could.
const NOBODY_MS: u64 = 1_000;

pub(super) struct MessageSim {
    message: Message,
    sent_at: u64,
    receives: u32,
    deleted: bool,
    /// What its present reader is to write.
    entries: Vec<ForNode>,
}

impl World {
    pub fn send(&mut self, message: Message) {
        self.send_in(message, 0);
    }

    /// It comes into the queue so much later.
    pub fn send_in(&mut self, message: Message, after: u64) {
        self.messages.push(MessageSim {
            message,
            sent_at: self.now + after,
            receives: 0,
            deleted: false,
            entries: Vec::new(),
        });
        let at = self.now + after + self.rng.u64(5..80);
        self.schedule(at, Event::Receive { message: self.messages.len() - 1 });
    }

    /// One of the readers receives a message.
    pub fn receive(&mut self, index: usize) {
        if self.messages[index].deleted {
            return;
        }
        let stands = |node: &super::world::NodeSim| node.agent.as_ref().is_some_and(|agent| agent.standing);
        let readers: Vec<usize> = (0..self.nodes.len()).filter(|node| stands(&self.nodes[*node])).collect();
        let Some(reader) = self.rng.choice(readers) else {
            return self.schedule(self.now + NOBODY_MS, Event::Receive { message: index });
        };
        let life = self.nodes[reader].lives;
        self.messages[index].receives += 1;
        let disposition = self.disposition(index, reader);
        match disposition {
            Disposition::Record { entries, then: Then::Delete { .. }, .. } => {
                self.messages[index].entries = entries;
                self.notice_own(index, reader, life);
                let at = self.now + self.latency();
                self.schedule(at, Event::ReaderWrites { message: index, reader, life });
            }
            Disposition::Record { then: Then::Release { after }, .. } => self.again(index, after),
            Disposition::Delete { .. } => self.messages[index].deleted = true,
            Disposition::Leave { again_in, .. } => {
                let after = again_in.unwrap_or(std::time::Duration::from_millis(VISIBILITY_MS));
                self.again(index, after);
            }
        }
    }

    fn again(&mut self, index: usize, after: std::time::Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.schedule(self.now + after, Event::Receive { message: index });
    }

    fn disposition(&self, index: usize, reader: usize) -> Disposition {
        let MessageSim { message, sent_at, receives, .. } = &self.messages[index];
        let notice = |(name, subject): &(String, crate::domain::notice::Subject)| Notice {
            instance: self.node_named(name).map_or_else(
                || super::scenario::instance(usize::from(u16::MAX)),
                |node| self.nodes[node].instance.clone(),
            ),
            source: Source::Sqs,
            subject: subject.clone(),
            event_id: message.event_id.clone(),
            deadline: message.deadline_ms.map(World::announced),
        };
        let notices = message.about.iter().map(notice).collect();
        let delivery = Delivery { receives: *receives, age: std::time::Duration::from_millis(self.now - sent_at) };
        let body = Ok(Body::Message(Parsed { notices, problems: Vec::new() }));
        let node_of = |instance: &InstanceId| {
            let node = &self.nodes[self.node_of(instance)?];
            Some(NodeRef {
                name: node.name.clone(),
                uid: node.object.uid.clone(),
                provider_id: node.object.provider_id.clone()?,
            })
        };
        dispose(body, delivery, &self.nodes[reader].name, self.believes(reader), node_of)
    }

    /// What concerns the reader's own instance its core hears at once.
    fn notice_own(&mut self, index: usize, reader: usize, life: u32) {
        let own = &self.nodes[reader].instance;
        let entries = self.messages[index].entries.iter();
        let Some(notice) = entries.map(|e| &e.notice).find(|notice| notice.instance == *own).cloned() else {
            return;
        };
        let (now, reads) = (self.now, self.believes(reader));
        let Some(agent) = &self.nodes[reader].agent else {
            return;
        };
        let at = agent.at(now);
        let deadline = notice.deadline.map(|deadline| Deadline::place(deadline, reads, at));
        let input = Box::new(Input::Noticed { notice, deadline });
        self.schedule(now, Event::Input { node: reader, life, input });
    }

    /// The reader's writes reach the API server.
    pub fn reader_writes(&mut self, index: usize, reader: usize, life: u32) {
        let hidden_until = self.now + VISIBILITY_MS;
        let dead = !self.lives(reader, life);
        let fails = match self.api {
            ApiState::Away => true,
            ApiState::Flooded => self.rng.bool(),
            _ => self.chance(self.scenario.faults.refused_one_in),
        };
        if fails || (dead && self.rng.bool()) {
            return self.schedule(hidden_until, Event::Receive { message: index });
        }
        let entries = self.messages[index].entries.clone();
        for for_node in &entries {
            if let Some(node) = self.node_named(&for_node.node.name) {
                self.tell(node, || {
                    format!(
                        "recorded by {}: {}",
                        for_node.entry.reporter.as_deref().unwrap_or("?"),
                        for_node.entry.key()
                    )
                });
                self.write_notice(node, for_node.entry.clone());
            }
        }
        let lost = self.chance(self.scenario.faults.lost_answer_one_in);
        if dead || lost {
            return self.schedule(hidden_until, Event::Receive { message: index });
        }
        let at = self.now + self.latency();
        self.schedule(at, Event::ReaderDeletes { message: index, reader, life });
    }

    /// The reader deletes the message, once all it said is in the API.
    pub fn reader_deletes(&mut self, index: usize, reader: usize, life: u32) {
        if !self.lives(reader, life) {
            return self.schedule(self.now + VISIBILITY_MS, Event::Receive { message: index });
        }
        self.messages[index].deleted = true;
        let entries = self.messages[index].entries.clone();
        for for_node in entries {
            let Some(node) = self.node_named(&for_node.node.name) else {
                continue;
            };
            let key = for_node.entry.key();
            let record = self.nodes[node].record.as_ref();
            let kept = record.is_some_and(|r| r.notices.iter().any(|entry| entry.key() == key));
            let violation = notice_kept(&key.to_string(), kept);
            self.violated(node, violation.into_iter().collect());
        }
    }

    /// Whether a message is left in the queue.
    pub fn queue_left(&self) -> usize {
        self.messages.iter().filter(|message| !message.deleted).count()
    }
}
