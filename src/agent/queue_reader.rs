//! Reads the queue, for all nodes: each message becomes entries of Interruptions, and is deleted once they are written.
//!
//! A reader's word touches no node: it wakes the node's own agent, which asks its own IMDS.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::runtime::watcher::{self, Event};
use tokio::sync::{Semaphore, mpsc, watch};

use super::observer::Observer;
use crate::adapters::kubernetes::wire::NodeObject;
use crate::adapters::kubernetes::{Kubernetes, Subject, one_line, watches};
use crate::adapters::lease::{self, Leases};
use crate::adapters::sqs::{Queue, Receipt, Received};
use crate::adapters::wall_clock::WallClock;
use crate::domain::node::Node;
use crate::domain::notice::InstanceId;
use crate::domain::time::Deadline;
use crate::domain::wire;
use crate::driver::Clock;
use crate::interruption::Input;
use crate::interruption::queue::{Delivery, Disposition, ForNode, Left, NodeRef, Then, dispose};

/// How many messages are worked on at once. While these are written, no more are received.
const IN_WORK_MAX: usize = 64;

/// How many instances of one message are written about at once: AWS Health may name a thousand.
const ENTRIES_AT_ONCE: usize = 8;

/// How many receipts may wait for their message's deletion.
const DONE_MAX: usize = 256;

/// How many messages are remembered of which trouble has been said.
const SAID_MAX: usize = 1024;

/// How long reading waits after the queue could not be read; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How long the first request waits for messages, and the first after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Reads one queue.
pub struct QueueReader {
    pub queue: Queue,
    pub kubernetes: Kubernetes,
    pub clock: Clock,
    pub wall_clock: WallClock,
    /// Who is named as the reporter: this agent's node, or for a reader without one its pod.
    pub reporter: String,
    /// The instance of this very node, and where its core listens: what concerns it goes there without the detour
    /// through the API server.
    pub own: Option<(InstanceId, mpsc::Sender<Input>)>,
    pub dry_run: bool,
    pub observer: Observer,
}

/// All nodes of the cluster, by instance.
type Nodes = Rc<RefCell<HashMap<InstanceId, NodeRef>>>;

/// Where receipts of messages go that have been dealt with.
type Done = mpsc::Sender<Receipt>;

/// Messages whose trouble has been said, by their ids.
#[derive(Default)]
struct Said(RefCell<HashSet<String>>);

impl Said {
    /// Whether it is to be said: once for each message, as far as so many are remembered.
    fn first(&self, message: &str) -> bool {
        let mut said = self.0.borrow_mut();
        if said.len() >= SAID_MAX {
            said.clear();
        }
        said.insert(message.to_owned())
    }
}

impl QueueReader {
    /// Reads while a lease is held; for ever.
    ///
    /// A node that is about to go offers its lease to those that stay, and reads on until one of them has it: where
    /// every node goes at once, somebody still reads.
    pub async fn read_under_lease(self: Rc<Self>, leases: Leases, mut standing: watch::Receiver<bool>) {
        loop {
            let stays = *standing.borrow_and_update();
            match leases.take_one(stays).await {
                Ok(Some(held)) => {
                    tracing::info!(lease = held.name(), "reading the queue");
                    self.observer.reads_queue(true);
                    let stop = watch::Sender::new(false);
                    let reading = tokio::task::spawn_local(self.clone().read(stop.subscribe()));
                    keep(&leases, held, &mut standing).await;
                    self.observer.reads_queue(false);
                    stop.send_replace(true);
                    // What has been received is not left to its visibility time-out: other nodes wait for it.
                    if let Err(error) = reading.await {
                        tracing::error!(%error, "reading the queue ended");
                    }
                    tracing::info!("not reading the queue any more");
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = one_line(&error), "no lease for the queue could be taken"),
            }
            tokio::time::sleep(lease::LOOK_EVERY.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Reads until `stop` says so, and then until everything that was received is dealt with.
    pub async fn read(self: Rc<Self>, stop: watch::Receiver<bool>) {
        let nodes = Nodes::default();
        let listed = Rc::new(watch::Sender::new(false));
        let reading = async {
            let mut ready = listed.subscribe();
            let mut stopped = stop.clone();
            // Without the nodes every message would look as if it were for another cluster.
            tokio::select! {
                _ = ready.wait_for(|listed| *listed) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            if self.own.is_none() {
                // A reader without a node has no other sign that the API server answers.
                self.observer.node(None);
            }
            let (done, dealt_with) = mpsc::channel(DONE_MAX);
            tokio::join!(self.receive(&nodes, done, stop.clone()), self.delete_done(dealt_with));
        };
        tokio::select! {
            () = reading => {}
            () = watch_nodes(&self.kubernetes, nodes.clone(), listed.clone()) => {}
        }
    }

    /// Receives batch after batch, each message worked on in a task of its own.
    async fn receive(self: &Rc<Self>, nodes: &Nodes, done: Done, stop: watch::Receiver<bool>) {
        let in_work = Arc::new(Semaphore::new(IN_WORK_MAX));
        let said = Rc::new(Said::default());
        let mut failures = 0u32;
        let mut answers = false;
        while !*stop.borrow() {
            // Room for a whole batch first: what has been received must not wait for its turn while its visibility
            // time-out runs.
            if in_work.acquire_many(Queue::BATCH_MAX).await.is_err() {
                return;
            }
            // Whether the queue can be read at all is known as soon as possible: readiness waits for it.
            let received = if answers { self.queue.receive().await } else { self.queue.receive_for(FIRST_WAIT).await };
            answers = received.is_ok();
            match received {
                Ok(messages) => {
                    if failures > 0 {
                        tracing::info!(failures, "the queue can be read again");
                        failures = 0;
                    }
                    self.observer.queue_answered(Ok(()));
                    for message in messages {
                        let Ok(turn) = in_work.clone().acquire_owned().await else { return };
                        let (reader, nodes, done, said) = (self.clone(), nodes.clone(), done.clone(), said.clone());
                        tokio::task::spawn_local(async move {
                            reader.work_on(message, &nodes, &done, &said).await;
                            drop(turn);
                        });
                    }
                }
                Err(error) => {
                    let text = one_line(&error);
                    if failures == 0 {
                        tracing::warn!(error = text, "the queue cannot be read");
                    }
                    self.observer.queue_answered(Err(text));
                    let wait = RETRY_FIRST.saturating_mul(1 << failures.min(6)).min(RETRY_MAX);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(wait).await;
                }
            }
        }
        // All turns are back when all messages are dealt with.
        let all = u32::try_from(IN_WORK_MAX).unwrap_or(u32::MAX);
        drop(in_work.acquire_many(all).await);
    }

    async fn work_on(&self, message: Received, nodes: &Nodes, done: &Done, said: &Said) {
        let parsed = wire::queue::parse(message.body.as_bytes());
        let delivery = Delivery { receives: message.receives, age: message.age };
        let node_of = |instance: &InstanceId| nodes.borrow().get(instance).cloned();
        let id = message.id.as_str();
        match dispose(parsed, delivery, &self.reporter, self.wall_clock.reads(), node_of) {
            Disposition::Record { entries, then, problems } => {
                if !problems.is_empty() && said.first(id) {
                    for problem in problems {
                        tracing::warn!(message = id, %problem, "a part of a message cannot be read");
                    }
                }
                let writes = stream::iter(&entries).map(|entry| self.record(id, entry));
                let written = writes.buffer_unordered(ENTRIES_AT_ONCE).fold(true, async |all, one| all & one).await;
                match then {
                    _ if !written => self.leave(message, delivery.pause(), "unwritten").await,
                    Then::Delete { .. } => self.delete(message, "recorded", done).await,
                    Then::Release { after } => self.release(message, after, "recorded in part").await,
                }
            }
            Disposition::Delete { because } => {
                tracing::debug!(message = id, reason = because.reason(), "not for us: {because}");
                self.delete(message, because.reason(), done).await;
            }
            Disposition::Leave { because, again_in } => {
                match because {
                    Left::Unreadable(_) if said.first(id) => {
                        tracing::warn!(message = id, reason = because.reason(), "left in the queue: {because}");
                    }
                    Left::Unreadable(_) => tracing::debug!(message = id, "left in the queue once more"),
                    Left::MayBeJoining { .. } => {
                        tracing::info!(message = id, reason = because.reason(), "left in the queue: {because}");
                    }
                }
                self.leave(message, again_in, because.reason()).await;
            }
        }
    }

    /// Neither deleted nor dealt with: it comes again after `after`, or when its visibility time-out ends.
    async fn leave(&self, message: Received, after: Option<Duration>, result: &'static str) {
        match after {
            Some(after) => self.release(message, after, result).await,
            None => self.observer.message(result),
        }
    }

    /// Writes one entry; returns whether it is in the API now.
    async fn record(&self, message: &str, of: &ForNode) -> bool {
        self.observer.noticed(of.entry.source, of.entry.kind);
        let (instance, node) = (&of.notice.instance, &of.node.name);
        if let Some((own, inputs)) = &self.own
            && own == instance
        {
            let now = self.clock.now();
            let deadline = of.notice.deadline.map(|d| Deadline::place(d, self.wall_clock.reads(), now));
            let _ = inputs.send(Input::Noticed { notice: of.notice.clone(), deadline }).await;
        }
        if self.dry_run {
            tracing::info!(message, %instance, node, notice = %of.entry.key(), "dry run: not recorded");
            return true;
        }
        let subject = Subject {
            instance: instance.clone(),
            node: node.clone(),
            provider_id: of.node.provider_id.clone(),
            node_uid: Some(of.node.uid.clone()).filter(|uid| !uid.is_empty()),
        };
        match self.kubernetes.record_notice(&subject, &of.entry).await {
            Ok(()) => {
                tracing::info!(message, %instance, node, notice = %of.entry.key(), "recorded");
                true
            }
            Err(error) => {
                tracing::warn!(message, %instance, node, error = one_line(&error), "the notice could not be recorded; the message stays");
                false
            }
        }
    }

    async fn delete(&self, message: Received, result: &'static str, done: &Done) {
        self.observer.message(result);
        if !self.dry_run {
            // The receiver is gone only when reading has ended: the message comes again then, and changes nothing.
            let _ = done.send(message.receipt).await;
        }
    }

    /// Deletes what has been dealt with, as many at once as have come together.
    async fn delete_done(&self, mut done: mpsc::Receiver<Receipt>) {
        let mut receipts = Vec::new();
        while done.recv_many(&mut receipts, 10 * Queue::BATCH_MAX as usize).await > 0 {
            match self.queue.delete_all(&receipts).await {
                Ok(left) => {
                    for undeleted in left {
                        tracing::warn!(code = undeleted.code, why = undeleted.why, "a message could not be deleted");
                    }
                }
                // They come again, and change nothing.
                Err(error) => tracing::warn!(
                    messages = receipts.len(),
                    error = one_line(&error),
                    "messages that were dealt with could not be deleted"
                ),
            }
            receipts.clear();
        }
    }

    async fn release(&self, message: Received, after: Duration, result: &'static str) {
        self.observer.message(result);
        if self.dry_run {
            return;
        }
        if let Err(error) = self.queue.release(message.receipt, after).await {
            tracing::warn!(
                message = message.id,
                error = one_line(&error),
                "the message could not be made visible again"
            );
        }
    }
}

/// Renews the lease until it is lost.
async fn keep(leases: &Leases, mut held: lease::Held, standing: &mut watch::Receiver<bool>) {
    let mut valid_until = tokio::time::Instant::now() + lease::DURATION;
    loop {
        tokio::select! {
            () = tokio::time::sleep(lease::RENEW_EVERY) => {}
            changed = standing.changed() => if changed.is_err() { return },
        }
        let stays = *standing.borrow_and_update();
        match leases.renew(&held, stays).await {
            Ok(Some(renewed)) => {
                valid_until = tokio::time::Instant::now() + lease::DURATION;
                held = renewed;
            }
            Ok(None) => return,
            Err(_) if tokio::time::Instant::now() < valid_until => {}
            Err(error) => {
                tracing::warn!(error = one_line(&error), "the lease has run out");
                return;
            }
        }
    }
}

/// Keeps `nodes` as the API server has them.
async fn watch_nodes(kubernetes: &Kubernetes, nodes: Nodes, listed: Rc<watch::Sender<bool>>) {
    let mut fresh = HashMap::new();
    let entry = |object: NodeObject| {
        let node = Node::from(object);
        let provider_id = node.provider_id?;
        let instance = InstanceId::from_provider_id(&provider_id)?;
        Some((instance, NodeRef { name: node.name, uid: node.uid, provider_id }))
    };
    watches::follow(
        "nodes",
        kubernetes.nodes(),
        watcher::Config::default().any_semantic(),
        async |event| match event {
            Event::Init => fresh.clear(),
            Event::InitApply(object) => fresh.extend(entry(object)),
            Event::InitDone => {
                *nodes.borrow_mut() = std::mem::take(&mut fresh);
                listed.send_replace(true);
            }
            Event::Apply(object) => nodes.borrow_mut().extend(entry(object)),
            Event::Delete(object) => {
                if let Some((instance, _)) = entry(object) {
                    nodes.borrow_mut().remove(&instance);
                }
            }
        },
    )
    .await;
}
