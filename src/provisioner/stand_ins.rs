//! The provisioner's part in drains: while this replica leads, each open Interruption has one that stands in for the
//! node's agent, where that is silent.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::observer::Observer;
use super::performer::OnTheirWay;
use crate::adapters::kubernetes::{Kubernetes, watches, wire};
use crate::adapters::wall_clock::WallClock;
use crate::api::interruption::{Interruption, Phase};
use crate::domain::node::Node;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::driver::{self, Clock, Surroundings};
use crate::hands::{Hands, Watching, log_ask};
use crate::interruption::{Effect, Identity, Input, Policy, StandIn};

/// How many inputs may wait for one of them.
const INPUTS_MAX: usize = 256;

/// How often those are let go whose Interruption is over, and for how long it must have been so.
const OVER_FOR: Duration = Duration::from_secs(30);

/// An Interruption as the watch has it; `None`: it is gone.
pub type Seen = (InstanceId, Option<Box<Interruption>>);

/// Keeps the stand-ins.
pub struct StandIns {
    pub kubernetes: Kubernetes,
    pub clock: Clock,
    pub observer: Observer,
    pub on_their_way: OnTheirWay,
}

/// One that runs until it is dropped.
struct Running {
    inputs: mpsc::Sender<Input>,
    _stop: watch::Sender<()>,
    over_since: Option<Instant>,
}

impl StandIns {
    /// Runs until nothing more can be seen.
    pub async fn keep(self, mut seen: mpsc::UnboundedReceiver<Seen>, mut leads: watch::Receiver<bool>) {
        let mut records: BTreeMap<InstanceId, Box<Interruption>> = BTreeMap::new();
        let mut running: BTreeMap<InstanceId, Running> = BTreeMap::new();
        let mut sweep = tokio::time::interval(OVER_FOR);
        loop {
            tokio::select! {
                one = seen.recv() => {
                    let Some((instance, record)) = one else { return };
                    match record {
                        Some(record) => {
                            if *leads.borrow() {
                                self.tell(&mut running, &instance, &record).await;
                            }
                            records.insert(instance, record);
                        }
                        None => {
                            records.remove(&instance);
                            if let Some(one) = running.remove(&instance) {
                                let _ = one.inputs.send(Input::RecordSeen(None)).await;
                            }
                        }
                    }
                }
                Ok(()) = leads.changed() => {
                    running.clear();
                    if *leads.borrow_and_update() {
                        for (instance, record) in &records {
                            self.tell(&mut running, instance, record).await;
                        }
                    }
                }
                _ = sweep.tick() => {
                    let now = self.clock.now();
                    running.retain(|_, one| one.over_since.is_none_or(|since| now.since(since) < OVER_FOR));
                }
            }
        }
    }

    /// Tells the stand-in of an Interruption what that says now; begins one where it is open.
    async fn tell(&self, running: &mut BTreeMap<InstanceId, Running>, instance: &InstanceId, object: &Interruption) {
        let phase = object.status.as_ref().and_then(|status| status.phase);
        let over = phase.is_some_and(Phase::ends_episode);
        if !running.contains_key(instance) {
            if over && object.spec.notices.is_empty() {
                return;
            }
            running.insert(instance.clone(), self.begin(instance, object));
        }
        let Some(one) = running.get_mut(instance) else { return };
        let now = self.clock.now();
        one.over_since = if over { one.over_since.or(Some(now)) } else { None };
        let record = wire::record(object.clone(), Timestamp::now(), Timestamp::now(), now);
        // It ends only when this is dropped.
        let _ = one.inputs.send(Input::RecordSeen(Some(record))).await;
    }

    fn begin(&self, instance: &InstanceId, object: &Interruption) -> Running {
        let me = Identity {
            instance: instance.clone(),
            node: object.spec.node_name.clone(),
            provider_id: object.spec.provider_id.clone(),
        };
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        let (stop, mut stopped) = watch::channel(());
        let performer = Performer {
            hands: Rc::new(Hands::new(me.clone(), self.kubernetes.clone())),
            clock: self.clock,
            inputs: inputs.downgrade(),
            observer: self.observer.clone(),
            on_their_way: self.on_their_way.clone(),
            pods: Watching::default(),
            node: Watching::default(),
        };
        let core = StandIn::new(me, Policy::default(), self.clock.epoch());
        let stop_asked = async move { while stopped.changed().await.is_ok() {} };
        tokio::task::spawn_local(driver::run(core, self.clock, receiver, performer, stop_asked));
        Running { inputs, _stop: stop, over_since: None }
    }
}

/// Performs effects for one [`StandIn`].
struct Performer {
    hands: Rc<Hands>,
    clock: Clock,
    /// Weak, so that it ends with the one that tells it of its record.
    inputs: mpsc::WeakSender<Input>,
    observer: Observer,
    on_their_way: OnTheirWay,
    pods: Watching,
    node: Watching,
}

impl Performer {
    /// Runs `call` in a task and sends what comes of it back to the core.
    fn start(&self, call: impl Future<Output = Input> + 'static) {
        let (inputs, tasks) = (self.inputs.clone(), self.on_their_way.clone());
        tasks.begins();
        tokio::task::spawn_local(async move {
            let input = call.await;
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.send(input).await;
            }
            tasks.ends();
        });
    }

    fn watch_pods(&mut self) {
        let Some(inputs) = self.inputs.upgrade() else { return };
        let (hands, clock) = (self.hands.clone(), self.clock);
        let task = tokio::task::spawn_local(async move {
            watches::pods(hands.kubernetes.all_pods(), &hands.me.node, clock, WallClock::default(), inputs).await;
        });
        self.pods.by(&task);
    }

    fn watch_node(&mut self) {
        let Some(inputs) = self.inputs.upgrade() else { return };
        let hands = self.hands.clone();
        let task = tokio::task::spawn_local(async move {
            let seen = async |object| {
                let node = Node::from(object);
                hands.set_node(node.clone());
                let _ = inputs.send(Input::NodeSeen(node)).await;
            };
            watches::own_node(hands.kubernetes.nodes(), &hands.me.node, seen).await;
        });
        self.node.by(&task);
    }
}

impl Surroundings<StandIn> for Performer {
    fn took_in(&mut self, _now: Instant, _input: &Input) {}

    fn perform(&mut self, _now: Instant, effect: Effect) {
        let hands = self.hands.clone();
        match effect {
            Effect::Mark(mark) => self.start(async move { Input::Marked(hands.mark(&mark).await) }),
            Effect::Unmark => self.start(async move { Input::Marked(hands.unmark().await) }),
            Effect::RecordStatusOn { version, status } => {
                self.start(async move { Input::StatusRecorded(hands.record_status(&status, Some(&version)).await) })
            }
            Effect::WatchPods => self.watch_pods(),
            Effect::ForgetPods => self.pods.end(),
            Effect::Ask(ask) => {
                log_ask(&ask);
                self.start(async move {
                    let answer = hands.kubernetes.ask(&ask).await;
                    Input::Asked { uid: ask.uid, verb: ask.verb, answer }
                });
            }
            Effect::Decided(because) => {
                hands.log(&because);
                self.observer.stood_in(&because);
            }
            // The node's own agent's alone: one who stands in emits none of these.
            Effect::Tell(_)
            | Effect::Retract
            | Effect::RecordNotice(_)
            | Effect::RecordStatus(_)
            | Effect::PollImds(_)
            | Effect::StandDown
            | Effect::StandUp => {}
        }
    }

    fn beat(&mut self, core: &StandIn) {
        if core.acts() && !self.node.is_on() {
            self.watch_node();
        } else if !core.acts() {
            self.node.end();
        }
    }
}
