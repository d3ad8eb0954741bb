//! Agents: the real core, its witness, and the performer and driver around them in virtual time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::api::Call;
use super::scenario::{ApiState, ImdsState, interval_ms};
use super::standing_in::Brain;
use super::world::{Event, NodeSim, Told, World};
use crate::domain::node::Node;
use crate::domain::notice::ScheduleCode;
use crate::domain::time::{Deadline, Epoch, Instant};
use crate::interruption::invariants::Witness;
use crate::interruption::{Effect, Identity, Input, Keeper, Pace, Reading, ScheduledEvent, SpotAction};

/// How often IMDS is asked for scheduled events and the lifecycle state, beside the urgent pace.
const SELDOM_MS: u64 = 30_000;

/// The driver wakes the core at least this often.
const BEAT_MS: u64 = 5_000;

/// One life of an agent.
pub(super) struct Agent {
    pub life: u32,
    pub born: u64,
    pub core: Brain,
    pub witness: Witness,
    /// The Node as the performer knows it: from the watch, or from the answer to its own patch.
    pub cached: Option<Node>,
    pub pace: Pace,
    pub polls: u32,
    pub asked_seldom: Option<u64>,
    /// It asks IMDS unseen, first at this time and then at its usual pace.
    pub dozes_from: Option<u64>,
    pub wakes: u32,
    /// Names the watch on the pods: one that was given up delivers nothing.
    pub watch: u32,
    pub watching: Watching,
    /// When the last change is delivered: watches keep their order.
    pub delivered: u64,
    /// It takes part in reading the queue.
    pub standing: bool,
    /// From the node's wall clock to the one that is believed: the date of IMDS's last answer.
    pub offset_secs: i64,
}

/// How far a wall clock may be off before IMDS's is believed.
const CLOCK_TOLERANCE_SECS: u64 = 3;

/// How far the watch on the pods has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Watching {
    No,
    /// Asked for, not listed yet.
    Listing,
    Yes,
}

impl Agent {
    /// A moment of the world on the agent's own clock.
    pub fn at(&self, world_ms: u64) -> Instant {
        Instant::from_millis(world_ms.saturating_sub(self.born))
    }

    /// A moment of the agent's own clock in the world.
    pub fn in_world(&self, instant: Instant) -> u64 {
        self.born.saturating_add(instant.as_millis())
    }
}

impl World {
    pub fn start_agent(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].agent.is_some() {
            return;
        }
        let epoch = Epoch(self.reads(node));
        let (born, policy) = (self.now, self.scenario.policy.clone());
        let sim = &mut self.nodes[node];
        sim.lives += 1;
        let me = Identity {
            instance: sim.instance.clone(),
            node: sim.name.clone(),
            provider_id: sim.object.provider_id.clone().unwrap_or_default(),
        };
        let life = sim.lives;
        sim.agent = Some(Agent {
            life,
            born,
            core: Brain::Keeper(Box::new(Keeper::new(me, policy.clone(), epoch))),
            witness: Witness::new(policy),
            cached: None,
            pace: Pace::Usual,
            polls: 0,
            asked_seldom: None,
            dozes_from: None,
            wakes: 0,
            watch: 0,
            watching: Watching::No,
            delivered: self.now,
            standing: true,
            offset_secs: 0,
        });
        if self.nodes[node].imds.state == ImdsState::Well {
            // It has asked which instance this is.
            self.learn_time(node);
        }
        self.tell(node, || format!("the agent starts (life {life})"));
        let (list, poll) = (self.rng.u64(1..60), self.rng.u64(1..60));
        self.schedule(self.now + list, Event::List { node, life });
        self.schedule(self.now + poll, Event::Poll { node, life, generation: 0 });
    }

    pub fn kill_agent(&mut self, node: usize) {
        if self.nodes[node].agent.take().is_some() {
            self.figures.kills += 1;
            self.tell(node, || "the agent is killed".into());
            self.note_ability(node);
        }
    }

    /// Gives the core an input.
    pub fn feed(&mut self, node: usize, life: u32, input: Input) {
        let now = self.now;
        let Some(agent) = self.nodes[node].actor_mut(life) else {
            return;
        };
        if let Input::NodeSeen(seen) = &input {
            agent.cached = Some(seen.clone());
        }
        let at = agent.at(now);
        let violations = agent.witness.input(at, &input);
        let mut effects = Vec::new();
        agent.core.handle(at, input, &mut effects);
        let busy = agent.core.phase().is_some();
        self.violated(node, violations);
        self.note_ability(node);
        self.perform(node, life, effects);
        self.plan_wake(node, life);
        if busy {
            self.rouse(node);
        }
    }

    pub fn wake(&mut self, node: usize, life: u32, generation: u32) {
        let now = self.now;
        let agent = self.nodes[node].actor_mut(life);
        let Some(agent) = agent.filter(|a| a.wakes == generation) else {
            return;
        };
        let at = agent.at(now);
        let mut effects = Vec::new();
        agent.core.wake(at, &mut effects);
        let stuck = effects.is_empty() && agent.core.next_wakeup().is_some_and(|next| next <= at);
        if stuck {
            let next = agent.core.next_wakeup();
            self.found(node, "live", format!("woken at {at:?} it did nothing, and wants to be woken at {next:?}"));
            // The world would stand still: it goes on at the next input.
            return;
        }
        self.note_ability(node);
        self.perform(node, life, effects);
        self.plan_wake(node, life);
    }

    fn plan_wake(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(agent) = self.nodes[node].actor_mut(life) else {
            return;
        };
        agent.wakes += 1;
        let generation = agent.wakes;
        if agent.dozes_from.is_some() && agent.core.next_wakeup().is_none() {
            return;
        }
        let beat = now + BEAT_MS;
        let at = agent.core.next_wakeup().map_or(beat, |next| agent.in_world(next).min(beat));
        self.schedule(at, Event::Wake { node, life, generation });
    }

    fn perform(&mut self, node: usize, life: u32, effects: Vec<Effect>) {
        for effect in effects {
            self.figures.effects += 1;
            let now = self.now;
            let Some(agent) = self.nodes[node].actor_mut(life) else {
                return;
            };
            let violations = agent.witness.effect(agent.at(now), &effect);
            self.violated(node, violations);
            self.begin(node, life, effect);
        }
    }

    fn begin(&mut self, node: usize, life: u32, effect: Effect) {
        let Some(agent) = self.nodes[node].actor_mut(life) else {
            return;
        };
        match effect {
            Effect::Tell(said) => self.tell(node, || {
                let deadline = said.deadline.map(|deadline| deadline.announced.to_string());
                format!("tells the workloads: {} {deadline:?}", said.kind)
            }),
            Effect::Retract => self.tell(node, || "tells the workloads no more".into()),
            Effect::Mark(mark) => {
                let from = agent.cached.clone();
                self.call(node, life, Call::PatchNode { mark: Some(mark), from, tries: 0 });
            }
            Effect::Unmark => {
                let from = agent.cached.clone();
                self.call(node, life, Call::PatchNode { mark: None, from, tries: 0 });
            }
            Effect::RecordNotice(entry) => self.call(node, life, Call::Notice(entry)),
            Effect::RecordStatus(status) => self.call(node, life, Call::Status(status)),
            Effect::RecordStatusOn { version, status } => self.call(node, life, Call::StatusOn(version, status)),
            Effect::WatchPods => {
                agent.watch += 1;
                agent.watching = Watching::Listing;
                let watch = agent.watch;
                let latency = self.latency();
                self.schedule(self.now + latency, Event::ListPods { node, life, watch });
            }
            Effect::ForgetPods => {
                agent.watch += 1;
                agent.watching = Watching::No;
            }
            Effect::Ask(ask) => {
                self.figures.asks += 1;
                self.tell(node, || {
                    let (verb, grace) = (ask.verb, ask.grace_secs);
                    format!("asks {}/{} to go: {verb:?}, {grace:?} s, {}", ask.namespace, ask.name, ask.because)
                });
                let noted = self.note_ask(node, &ask);
                self.call(node, life, Call::Ask { ask, noted });
            }
            Effect::PollImds(pace) => {
                agent.pace = pace;
                agent.polls += 1;
                agent.dozes_from = None;
                let generation = agent.polls;
                self.schedule(self.now, Event::Poll { node, life, generation });
            }
            Effect::StandDown => agent.standing = false,
            Effect::StandUp => agent.standing = true,
            Effect::Decided(because) => {
                self.tell(node, || format!("{}: {because}", because.reason()));
                self.outward(Told::Decided { node, because });
            }
        }
    }

    /// One round of questions to IMDS.
    pub fn poll(&mut self, node: usize, life: u32, generation: u32) {
        let now = self.now;
        let agent = self.nodes[node].agent.as_mut();
        let Some(agent) = agent.filter(|a| a.life == life && a.polls == generation) else {
            return;
        };
        let seldom = agent.pace == Pace::Urgent || agent.asked_seldom.is_none_or(|at| now >= at + SELDOM_MS);
        let next = now + interval_ms(agent.pace);
        let state = self.nodes[node].imds.state;
        let fails = self.chance(self.scenario.faults.imds_one_in);
        let (after, input) = match state {
            ImdsState::Well if !fails => {
                if seldom && let Some(agent) = &mut self.nodes[node].agent {
                    agent.asked_seldom = Some(now);
                }
                self.learn_time(node);
                (self.rng.u64(1..20), Input::ImdsAnswered(self.reading(node, seldom)))
            }
            ImdsState::Hangs => (500, Input::ImdsFailed),
            _ => (self.rng.u64(1..20), Input::ImdsFailed),
        };
        let input = Box::new(input);
        self.schedule(now + after, Event::Input { node, life, input });
        let next = next.max(now + after);
        if self.may_doze(node)
            && let Some(agent) = &mut self.nodes[node].agent
        {
            agent.dozes_from = Some(next);
            return;
        }
        self.schedule(next, Event::Poll { node, life, generation });
    }

    /// Whether asking IMDS again changes nothing until something happens.
    fn may_doze(&self, node: usize) -> bool {
        let NodeSim { imds, agent: Some(agent), .. } = &self.nodes[node] else {
            return false;
        };
        self.dozes
            && self.scenario.faults.imds_one_in.is_none()
            && imds.state == ImdsState::Well
            && imds.says_nothing()
            && agent.pace == Pace::Usual
            && agent.core.phase().is_none()
    }

    /// Something has happened that the next answers of IMDS may matter for.
    pub fn rouse(&mut self, node: usize) {
        let now = self.now;
        let Some(agent) = &mut self.nodes[node].agent else {
            return;
        };
        let Some(from) = agent.dozes_from.take() else {
            return;
        };
        let interval = interval_ms(agent.pace);
        let at = from + now.saturating_sub(from).div_ceil(interval) * interval;
        let (life, generation) = (agent.life, agent.polls);
        self.schedule(at, Event::Poll { node, life, generation });
        self.plan_wake(node, life);
    }

    /// Every answer of IMDS says what time it is.
    fn learn_time(&mut self, node: usize) {
        let sim = &mut self.nodes[node];
        let off = sim.skew_secs.unsigned_abs() > CLOCK_TOLERANCE_SECS;
        if let Some(agent) = &mut sim.agent {
            agent.offset_secs = if off { -sim.skew_secs } else { 0 };
        }
    }

    /// What time the agent of a node believes it to be.
    pub fn believes(&self, node: usize) -> Timestamp {
        let offset = self.nodes[node].agent.as_ref().map_or(0, |agent| agent.offset_secs);
        self.reads(node).checked_add(SignedDuration::from_secs(offset)).unwrap_or(Timestamp::MAX)
    }

    fn reading(&mut self, node: usize, seldom: bool) -> Reading {
        let (now, reads) = (self.now, self.believes(node));
        let sim = &mut self.nodes[node];
        let Some(agent) = &sim.agent else {
            return Reading::default();
        };
        let at = agent.at(now);
        let placed = |ms: u64| Deadline::place(World::announced(ms), reads, at);
        let imds = &mut sim.imds;
        let spot = imds.spot.as_mut().map(|spot| {
            let said = SpotAction { action: spot.action, deadline: placed(spot.deadline_ms) };
            if spot.slides {
                spot.deadline_ms += 1_000;
            }
            said
        });
        let event = |said: &super::world::ScheduledSaid| ScheduledEvent {
            event_id: said.event_id.clone(),
            code: ScheduleCode(said.code.clone()),
            not_before: placed(said.not_before_ms),
            over: said.over,
        };
        Reading {
            spot,
            rebalance: imds.rebalance,
            scheduled: seldom.then(|| imds.scheduled.iter().map(event).collect()),
            lifecycle: imds.lifecycle.clone().filter(|_| seldom),
        }
    }

    /// How long a message to or from the API server is on its way.
    pub fn latency(&mut self) -> u64 {
        let slow = self.scenario.faults.slow_ms;
        let more = if slow == 0 { 0 } else { self.rng.u64(0..=slow) };
        let state = if self.api == ApiState::Slow { 2_000 } else { 0 };
        self.rng.u64(1..25) + more / 2 + state / 2
    }
}

/// The time-out of one call, as the performer has it.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
