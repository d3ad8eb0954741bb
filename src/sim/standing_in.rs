//! The provisioner's part in drains: for each node one that stands in for its agent, and who is able to drain.

use super::agents::{Agent, Watching};
use super::scenario::ApiState;
use super::world::{Event, NodeSim, World, moment};
use crate::api::interruption::Phase;
use crate::domain::time::{Epoch, Instant};
use crate::engine::Core;
use crate::interruption::invariants::Witness;
use crate::interruption::invariants::ledger::Able;
use crate::interruption::{DrainBy, Effect, Identity, Input, Keeper, Pace, StandIn};

/// Marks the lives of stand-ins, so that none is taken for a life of the agent.
const STAND_IN_LIVES: u32 = 1 << 31;

/// How long a call hangs, and is then tried again.
const AFTERMATH_MS: u64 = 7_000;

/// How long a drain that is wanted may be nobody's: the silence, the pause, and what it takes to look.
const NOBODYS_MS: u64 = 20_000;

/// The core that an actor runs.
pub(super) enum Brain {
    Keeper(Box<Keeper>),
    StandIn(Box<StandIn>),
}

impl Brain {
    pub fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match self {
            Self::Keeper(core) => core.handle(now, input, effects),
            Self::StandIn(core) => core.handle(now, input, effects),
        }
    }

    pub fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match self {
            Self::Keeper(core) => core.wake(now, effects),
            Self::StandIn(core) => core.wake(now, effects),
        }
    }

    pub fn next_wakeup(&self) -> Option<Instant> {
        match self {
            Self::Keeper(core) => core.next_wakeup(),
            Self::StandIn(core) => core.next_wakeup(),
        }
    }

    pub fn phase(&self) -> Option<Phase> {
        match self {
            Self::Keeper(core) => core.phase(),
            Self::StandIn(core) => core.phase(),
        }
    }

    /// Whether the drain, where there is one, is its own.
    fn drains(&self) -> bool {
        match self {
            Self::Keeper(core) => core.drains(),
            Self::StandIn(core) => core.drains(),
        }
    }
}

impl NodeSim {
    pub fn actor(&self, life: u32) -> Option<&Agent> {
        let actor = if life & STAND_IN_LIVES == 0 { &self.agent } else { &self.stand_in };
        actor.as_ref().filter(|actor| actor.life == life)
    }

    pub fn actor_mut(&mut self, life: u32) -> Option<&mut Agent> {
        let actor = if life & STAND_IN_LIVES == 0 { &mut self.agent } else { &mut self.stand_in };
        actor.as_mut().filter(|actor| actor.life == life)
    }

    /// Whether the caller was killed and nobody has begun in its place.
    pub fn was_last(&self, life: u32) -> bool {
        self.lives == life || self.stand_in_lives == life
    }

    /// Whether the API server takes nothing of this caller's about Interruptions.
    pub fn is_mute(&self, life: u32, now: u64) -> bool {
        life & STAND_IN_LIVES == 0 && now < self.mute_until
    }

    /// The watches that deliver changes of pods, by the lives that have them.
    pub fn pod_watches(&self) -> Vec<(u32, u32)> {
        let actors = self.agent.iter().chain(&self.stand_in);
        actors.filter(|actor| actor.watching == Watching::Yes).map(|actor| (actor.life, actor.watch)).collect()
    }
}

impl World {
    pub fn start_stand_in(&mut self, node: usize) {
        if self.nodes[node].stand_in.is_some() {
            return;
        }
        let (born, policy) = (self.now, self.scenario.policy.clone());
        let epoch = Epoch(World::wall(born));
        let sim = &mut self.nodes[node];
        let me = Identity {
            instance: sim.instance.clone(),
            node: sim.name.clone(),
            provider_id: sim.object.provider_id.clone().unwrap_or_default(),
        };
        sim.stand_in_lives = (sim.stand_in_lives + 1) | STAND_IN_LIVES;
        let life = sim.stand_in_lives;
        sim.stand_in = Some(Agent {
            life,
            born,
            core: Brain::StandIn(Box::new(StandIn::new(me, policy.clone(), epoch))),
            witness: Witness::of_stand_in(policy, epoch),
            cached: None,
            pace: Pace::Usual,
            polls: 0,
            asked_seldom: None,
            dozes_from: None,
            wakes: 0,
            watch: 0,
            watching: Watching::No,
            delivered: born,
            standing: false,
            offset_secs: 0,
        });
        let list = self.rng.u64(1..60);
        self.schedule(self.now + list, Event::List { node, life });
    }

    /// The provisioner leads no more; another does after a while.
    pub fn kill_stand_ins(&mut self, down_ms: u64) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].stand_in.take().is_some() {
                self.tell(node, || "-- the provisioner leads no more".into());
                self.schedule(self.now + down_ms, Event::StartStandIn { node });
                self.note_ability(node);
            }
        }
    }

    /// Notes in the ledger from when to when somebody could act on a deadline that he knew; and that a drain that is
    /// wanted is somebody's.
    pub fn note_ability(&mut self, node: usize) {
        let now = self.now;
        // A call that was sent while it was away may hang for its time-out yet.
        let well = self.api == ApiState::Well && (self.api_since == 0 || now >= self.api_since + AFTERMATH_MS);
        let by_agent = self.scenario.policy.drain_by == DrainBy::Agent;
        let sim = &mut self.nodes[node];
        let wanted = |actor: &Agent| {
            let must = actor.witness.must_drain()?;
            let deadline = actor.in_world(must.deadline);
            (well && sim.alive && actor.in_world(must.from) <= now && deadline > now).then_some(deadline)
        };
        let actors = [&sim.agent, &sim.stand_in].map(Option::as_ref);
        let able = actors.map(|actor| actor.filter(|actor| actor.core.drains()).and_then(wanted));
        let agents = actors[0].filter(|_| by_agent).and_then(wanted);
        // A stand-in knows what the record says and no more; what is done is nobody's any more.
        let phase = sim.record.as_ref().and_then(|record| record.status.phase);
        let knows = |_: &&Agent| sim.record.is_some();
        let is_wanted = agents.is_some() || actors[1].filter(knows).and_then(wanted).is_some();
        let is_wanted = is_wanted && phase < Some(Phase::Drained);
        let takes_part = |actor: &Agent| actor.core.drains() && actor.core.phase().is_some();
        let drain_is_somebodys = actors.into_iter().flatten().any(takes_part);
        for (index, deadline) in able.into_iter().enumerate() {
            if sim.able[index].map(|(_, deadline)| deadline) == deadline {
                continue;
            }
            let opened = deadline.map(|deadline| (now, deadline));
            if let Some((from, deadline)) = std::mem::replace(&mut sim.able[index], opened) {
                sim.ledger.able.push(Able { from: moment(from), to: moment(now), deadline: moment(deadline) });
            }
        }
        // One who drains by what he knows may know it otherwise: a clock is off, an event was moved.
        let nobodys = is_wanted && !drain_is_somebodys;
        let since = if nobodys { Some(sim.nobodys.unwrap_or(now)) } else { None };
        let before = std::mem::replace(&mut sim.nobodys, since);
        let slack = u64::try_from(sim.ledger.slack.as_millis()).unwrap_or(0);
        if let Some(since) = before.filter(|since| since + NOBODYS_MS + slack < now) {
            self.nodes[node].nobodys = None;
            self.found(node, "live", format!("a drain was wanted from {since} ms on and nobody's until {now} ms"));
        }
    }
}
