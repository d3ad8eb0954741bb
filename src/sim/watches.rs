//! Watches: what changes in the API reaches an agent, in order, later, and after a break as a list.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::agents::Watching;
use super::api::RecordObject;
use super::scenario::ApiState;
use super::world::{Event, World};
use crate::domain::node::Node;
use crate::domain::pod::{Pod, PodUid};
use crate::domain::time::{Deadline, Instant};
use crate::interruption::{Input, Record};

/// What a watch delivers. Wall-clock times are placed on the agent's clock when it is delivered.
#[derive(Clone)]
pub(super) enum Change {
    Node(Node),
    Record(Option<Box<RecordObject>>),
    /// With the number of the watch that delivers it.
    Pods(u32, Vec<PodView>),
    Pod(u32, PodView),
    PodGone(u32, PodUid),
}

/// A pod as the API server shows it.
#[derive(Clone)]
pub(super) struct PodView {
    pub pod: Pod,
    /// `deletionTimestamp` and `deletionGracePeriodSeconds`.
    pub deletion: Option<(Timestamp, u64)>,
}

impl PodView {
    fn placed(self, reads: Timestamp, now: Instant) -> Pod {
        let ends_at = self.deletion.map(|(ends, grace)| {
            let left = ends.duration_since(reads).max(SignedDuration::ZERO).unsigned_abs();
            now + left.min(Duration::from_secs(grace))
        });
        Pod { ends_at, ..self.pod }
    }
}

impl World {
    /// Something about a node has changed: its agent hears of it, where it watches.
    pub fn changed(&mut self, node: usize, change: Change) {
        let lag = self.scenario.faults.watch_lag_ms;
        let lag = if lag == 0 { 0 } else { self.rng.u64(0..=lag) };
        let at = self.now + self.rng.u64(1..15) + lag;
        let (agent, stand_in) = (&self.nodes[node].agent, &self.nodes[node].stand_in);
        let (agent, stand_in) = (agent.as_ref().map(|actor| actor.life), stand_in.as_ref().map(|actor| actor.life));
        if let Some(life) = stand_in {
            self.changed_for(node, life, change.clone());
        }
        if let Some(life) = agent {
            self.deliver_at(at, node, life, change);
        }
    }

    /// Something has changed that this one watches.
    pub fn changed_for(&mut self, node: usize, life: u32, change: Change) {
        let lag = self.scenario.faults.watch_lag_ms;
        let lag = if lag == 0 { 0 } else { self.rng.u64(0..=lag) };
        let at = self.now + self.rng.u64(1..15) + lag;
        self.deliver_at(at, node, life, change);
    }

    fn deliver_at(&mut self, at: u64, node: usize, life: u32, change: Change) {
        let Some(actor) = self.nodes[node].actor_mut(life) else { return };
        actor.delivered = actor.delivered.max(at);
        let at = actor.delivered;
        self.schedule(at, Event::Deliver { node, life, change: Box::new(change) });
    }

    pub fn deliver(&mut self, node: usize, life: u32, change: Change) {
        let stands_in = self.nodes[node].stand_in_lives == life;
        let (reads, local) = if stands_in {
            (World::wall(self.now), World::wall(self.now))
        } else {
            (self.believes(node), self.reads(node))
        };
        let now = self.now;
        let Some(agent) = self.nodes[node].actor_mut(life) else {
            return;
        };
        let at = agent.at(now);
        let current = |watch: u32| watch == agent.watch;
        let input = match change {
            Change::Node(object) => Input::NodeSeen(object),
            Change::Record(record) => Input::RecordSeen(record.map(|record| placed(*record, reads, local, at))),
            Change::Pods(watch, pods) if current(watch) => {
                agent.watching = Watching::Yes;
                Input::PodsListed(pods.into_iter().map(|pod| pod.placed(reads, at)).collect())
            }
            Change::Pod(watch, pod) if current(watch) => Input::PodSeen(pod.placed(reads, at)),
            Change::PodGone(watch, uid) if current(watch) => Input::PodGone(uid),
            Change::Pods(..) | Change::Pod(..) | Change::PodGone(..) => return,
        };
        self.feed(node, life, input);
    }

    /// Lists the Node and the record, at start and after a break.
    pub fn list(&mut self, node: usize, life: u32) {
        if !self.lives(node, life) {
            return;
        }
        if !self.answers_lists() {
            let again = self.now + self.rng.u64(200..1_000);
            return self.schedule(again, Event::List { node, life });
        }
        let object = self.nodes[node].object.clone();
        let record = self.nodes[node].record.clone().map(Box::new);
        // The two watches are independent: either may come first.
        let (first, second) = (Change::Node(object), Change::Record(record));
        if self.rng.bool() {
            self.changed_for(node, life, first);
            self.changed_for(node, life, second);
        } else {
            self.changed_for(node, life, second);
            self.changed_for(node, life, first);
        }
    }

    /// Lists the pods of a node, for the watch that asked for it.
    pub fn list_pods(&mut self, node: usize, life: u32, watch: u32) {
        let current = self.nodes[node].actor(life).is_some_and(|actor| actor.watch == watch);
        if !current {
            return;
        }
        if !self.answers_lists() {
            let again = self.now + self.rng.u64(200..1_000);
            return self.schedule(again, Event::ListPods { node, life, watch });
        }
        let pods = self.pod_views(node);
        if let Some(agent) = self.nodes[node].actor_mut(life) {
            // From here on the watch delivers what changes, after the list.
            agent.watching = Watching::Yes;
        }
        self.changed_for(node, life, Change::Pods(watch, pods));
    }

    /// The agent's watch on the pods broke and starts anew.
    pub fn relist_pods(&mut self, node: usize) {
        if let Some(life) = self.nodes[node].agent.as_ref().map(|agent| agent.life) {
            self.relist_pods_of(node, life);
        }
    }

    fn relist_pods_of(&mut self, node: usize, life: u32) {
        let Some(actor) = self.nodes[node].actor_mut(life).filter(|actor| actor.watching != Watching::No) else {
            return;
        };
        actor.watching = Watching::Listing;
        let watch = actor.watch;
        let at = self.now + self.rng.u64(1..500);
        self.schedule(at, Event::ListPods { node, life, watch });
    }

    /// Every watch broke, and starts anew now that the API server is back.
    pub fn relist_all(&mut self) {
        for node in 0..self.nodes.len() {
            let sim = &self.nodes[node];
            let lives: Vec<u32> = sim.agent.iter().chain(&sim.stand_in).map(|actor| actor.life).collect();
            for life in lives {
                self.relist_pods_of(node, life);
                let at = self.now + self.rng.u64(1..1_000);
                self.schedule(at, Event::List { node, life });
            }
        }
    }

    fn answers_lists(&mut self) -> bool {
        match self.api {
            ApiState::Well | ApiState::Slow => true,
            ApiState::Away => false,
            ApiState::Flooded => self.rng.bool(),
        }
    }
}

fn placed(record: RecordObject, reads: Timestamp, local: Timestamp, now: Instant) -> Record {
    let place = |deadline: Option<Timestamp>| deadline.map(|d| Deadline::place(d, reads, now));
    let notices = record.notices.into_iter().map(|entry| {
        let deadline = place(entry.deadline);
        (entry, deadline)
    });
    let first_ask = record.status.timeline.first_eviction_at;
    Record {
        version: record.version.to_string(),
        node: record.node,
        provider_id: record.provider_id,
        notices: notices.collect(),
        deadline: place(record.status.deadline),
        asked_for: first_ask.and_then(|first| Duration::try_from(local.duration_since(first)).ok()),
        status: record.status,
    }
}
