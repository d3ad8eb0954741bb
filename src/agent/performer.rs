//! Carries out the core's effects: each in a task of its own, its result sent back as an input.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use super::observer::Observer;
use crate::adapters::kubernetes::access::PodMode;
use crate::adapters::kubernetes::{Kubernetes, one_line, outcome, watches};
use crate::adapters::notice_server::Board;
use crate::adapters::wall_clock::WallClock;
use crate::api::interruption::InterruptionStatus;
use crate::domain::time::Instant;
use crate::driver::{Clock, Surroundings};
use crate::hands::{Hands, Watching, log_ask};
use crate::interruption::{Answer, Ask, Because, Effect, Identity, Input, Keeper, Outcome, Pace, Verb};

/// How long a call waits until it is known whether the Node is ours, and what this agent may do.
const ACCESS_AWAITED: Duration = Duration::from_secs(5);

/// How long an event is held back at least, and up to twice that: in the first seconds of a storm the API server has
/// better things to do. It carries the time of its decision.
const EVENTS_HELD: Duration = Duration::from_secs(2);

/// How many events may wait to be published; more are dropped.
const EVENTS_WAITING_MAX: usize = 256;

/// What every task needs.
pub struct Shared {
    hands: Hands,
    pub clock: Clock,
    /// What this agent may do, once the API server has said it.
    pub access: watch::Receiver<Option<(PodMode, Kubernetes)>>,
    pub inputs: mpsc::Sender<Input>,
    /// The Node is the one of our instance. Until that is known nothing is done to it, its pods or a record.
    pub verified: watch::Sender<bool>,
    pub dry_run: bool,
    pub observer: Observer,
    events: Semaphore,
    events_waiting: AtomicUsize,
}

impl Deref for Shared {
    type Target = Hands;
    fn deref(&self) -> &Hands {
        &self.hands
    }
}

impl Shared {
    pub fn new(
        me: Identity,
        clock: Clock,
        kubernetes: Kubernetes,
        access: watch::Receiver<Option<(PodMode, Kubernetes)>>,
        inputs: mpsc::Sender<Input>,
        dry_run: bool,
        observer: Observer,
    ) -> Arc<Self> {
        Arc::new(Self {
            hands: Hands::new(me, kubernetes),
            clock,
            access,
            inputs,
            verified: watch::Sender::new(false),
            dry_run,
            observer,
            events: Semaphore::new(2),
            events_waiting: AtomicUsize::new(0),
        })
    }

    /// Waits until it is known that the Node is ours; what stands in the way where it is not.
    async fn ours(&self) -> Result<(), String> {
        let mut verified = self.verified.subscribe();
        match tokio::time::timeout(ACCESS_AWAITED, verified.wait_for(|verified| *verified)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!("it is not known whether node {} runs on instance {}", self.me.node, self.me.instance)),
        }
    }

    /// The client for pods, once it is known whose they are, and with whose rights.
    async fn pods(&self) -> Result<Kubernetes, Answer> {
        self.ours().await.map_err(Answer::Failed)?;
        let mut access = self.access.clone();
        let known = tokio::time::timeout(ACCESS_AWAITED, access.wait_for(Option::is_some)).await;
        match known.ok().and_then(Result::ok).and_then(|access| access.clone()) {
            Some((PodMode::None, _)) => Err(Answer::Forbidden("--pod-access=none".to_owned())),
            Some((_, kubernetes)) => Ok(kubernetes),
            None => Err(Answer::Failed("the API server has not said yet what this agent may do".to_owned())),
        }
    }

    /// What a write to the Node comes to, once it is known that it is ours.
    async fn on_our_node(&self, write: impl Future<Output = Outcome>) -> Outcome {
        match self.ours().await {
            Ok(()) => write.await,
            Err(why) => Outcome::Failed(why),
        }
    }

    async fn publish(self: Arc<Self>, because: Because, at: Instant) {
        tokio::time::sleep(EVENTS_HELD.mul_f64(1.0 + fastrand::f64())).await;
        if self.events_waiting.fetch_add(1, Ordering::Relaxed) < EVENTS_WAITING_MAX
            && let Ok(_turn) = self.events.acquire().await
            && let Err(error) = self.kubernetes.publish(&self.subject(), &because, self.clock.epoch().wall(at)).await
        {
            tracing::debug!(error = one_line(&error), reason = because.reason(), "the event could not be published");
        }
        self.events_waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Performs effects for one [`Keeper`].
pub struct Performer {
    pub shared: Arc<Shared>,
    pub board: Board,
    pub pace: watch::Sender<Pace>,
    pub standing: watch::Sender<bool>,
    wall_clock: WallClock,
    pod_watch: Watching,
}

impl Performer {
    pub fn new(
        shared: Arc<Shared>,
        board: Board,
        pace: watch::Sender<Pace>,
        standing: watch::Sender<bool>,
        wall_clock: WallClock,
    ) -> Self {
        Self { shared, board, pace, standing, wall_clock, pod_watch: Watching::default() }
    }

    /// Runs `call` in a task and sends what comes of it back to the core. In a dry run nothing is called, and the core
    /// is told that it worked.
    fn start(&self, what: &'static str, dry: Input, call: impl Future<Output = Input> + Send + 'static) {
        let inputs = self.shared.inputs.clone();
        let dry_run = self.shared.dry_run;
        if dry_run {
            tracing::info!(what, "dry run: not done");
        }
        tokio::task::spawn_local(async move {
            let input = if dry_run { dry } else { call.await };
            // The receiver is gone only when the program ends.
            let _ = inputs.send(input).await;
        });
    }

    fn decided(&self, now: Instant, because: Because) {
        self.shared.log(&because);
        if !self.shared.dry_run && because.is_event() {
            tokio::task::spawn_local(self.shared.clone().publish(because, now));
        }
    }

    fn ask(&self, ask: Ask) {
        let shared = self.shared.clone();
        log_ask(&ask);
        let (uid, verb) = (ask.uid.clone(), ask.verb);
        let dry = Input::Asked { uid: uid.clone(), verb, answer: Answer::Accepted };
        self.start(if verb == Verb::Evict { "evict" } else { "delete" }, dry, async move {
            let answer = match shared.pods().await {
                Ok(kubernetes) => kubernetes.ask(&ask).await,
                Err(answer) => answer,
            };
            Input::Asked { uid, verb, answer }
        });
    }

    fn record_status(&self, status: Box<InterruptionStatus>, on: Option<String>) {
        let shared = self.shared.clone();
        self.start("record the status", Input::StatusRecorded(Outcome::Done), async move {
            Input::StatusRecorded(shared.hands.record_status(&status, on.as_deref()).await)
        });
    }

    fn watch_pods(&mut self) {
        let (shared, wall_clock) = (self.shared.clone(), self.wall_clock.clone());
        let watch = tokio::task::spawn_local(async move {
            let kubernetes = loop {
                match shared.pods().await {
                    Ok(kubernetes) => break kubernetes,
                    // Without any access there are no pods to know of; without an answer it is asked again.
                    Err(Answer::Forbidden(_)) => return,
                    Err(_) => {}
                }
            };
            let inputs = shared.inputs.clone();
            watches::pods(kubernetes.all_pods(), &shared.me.node, shared.clock, wall_clock, inputs).await;
        });
        self.pod_watch.by(&watch);
    }
}

impl Surroundings<Keeper> for Performer {
    fn took_in(&mut self, now: Instant, input: &Input) {
        self.shared.observer.took_in(now, input);
    }

    fn perform(&mut self, now: Instant, effect: Effect) {
        self.shared.observer.performs(now, &effect);
        let shared = self.shared.clone();
        match effect {
            Effect::Tell(announcement) if !shared.dry_run => {
                self.board.tell(&announcement);
            }
            Effect::Tell(announcement) => {
                tracing::info!(kind = %announcement.kind, "dry run: workloads are not told")
            }
            Effect::Retract => self.board.retract(),
            Effect::Mark(mark) => self.start("mark the node", Input::Marked(Outcome::Done), async move {
                Input::Marked(shared.on_our_node(shared.mark(&mark)).await)
            }),
            Effect::Unmark => self.start("undo the node's mark", Input::Marked(Outcome::Done), async move {
                Input::Marked(shared.on_our_node(shared.unmark()).await)
            }),
            Effect::RecordNotice(entry) => {
                let key = entry.key();
                let dry = Input::NoticeRecorded { key: key.clone(), outcome: Outcome::Done };
                self.start("record the notice", dry, async move {
                    let outcome = match shared.ours().await {
                        Ok(()) => outcome(&shared.kubernetes.record_notice(&shared.subject(), &entry).await),
                        Err(why) => Outcome::Failed(why),
                    };
                    Input::NoticeRecorded { key, outcome }
                });
            }
            Effect::RecordStatus(status) => self.record_status(status, None),
            Effect::RecordStatusOn { version, status } => self.record_status(status, Some(version)),
            Effect::WatchPods => self.watch_pods(),
            Effect::ForgetPods => self.pod_watch.end(),
            Effect::Ask(ask) => self.ask(ask),
            Effect::PollImds(pace) => drop(self.pace.send_replace(pace)),
            Effect::StandDown => drop(self.standing.send_replace(false)),
            Effect::StandUp => drop(self.standing.send_replace(true)),
            Effect::Decided(because) => self.decided(now, because),
        }
    }

    fn beat(&mut self, core: &Keeper) {
        self.shared.observer.beat(core.phase());
    }
}
