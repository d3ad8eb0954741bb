//! Whose turn it is to drain: the node's own agent's, or the provisioner's that stands in for it.
//!
//! The record names the drainer, and whom it does not name asks nothing. An agent takes the drain where the record
//! names nobody. A stand-in names itself when the heartbeat has not moved for [`SILENT_AFTER`]; an agent that finds
//! itself replaced keeps still, and names itself again when the stand-in's heartbeat has not moved for
//! [`TAKEN_BACK_AFTER`]. Whoever begins waits for [`PAUSE`] after it has named itself, so that the other one has heard of
//! it before the first pod is asked; where both name themselves, the record has one of them in the end, and both obey it.

use std::time::Duration;

use super::Keeper;
use crate::api::interruption::{InterruptionStatus, Phase};
use crate::domain::policy::DrainBy;
use crate::domain::time::Instant;
use crate::interruption::{Because, Effect};

/// How a stand-in is named in the record.
pub const STAND_IN: &str = "provisioner";

/// How long a heartbeat stands still until the agent counts as silent.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);

/// How long a stand-in's heartbeat stands still until the agent takes the drain back. Longer than a new leader of the
/// provisioners needs to go on.
pub const TAKEN_BACK_AFTER: Duration = Duration::from_secs(15);

/// From being named until the first pod is asked.
pub const PAUSE: Duration = Duration::from_secs(2);

/// How long an agent that has just started waits for the record, which may name another.
const RECORD_AWAITED: Duration = Duration::from_secs(2);

/// Whose keeper it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The node's own agent.
    Agent,
    /// The provisioner, for a node whose agent is silent.
    StandIn,
}

/// What this one does of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Drains,
    /// Its heartbeat moves; nobody is asked yet.
    Claims,
    /// It follows the pods; nobody is asked.
    Watches,
    /// Nothing.
    LooksOn,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    theirs: Option<Theirs>,
    /// When this one named itself, and the API server acknowledged it.
    named_at: Option<Instant>,
    /// The drain is this one's again, from then on.
    not_before: Option<Instant>,
    said: bool,
    /// The episode and the heartbeat that this one has written last.
    written: (i64, i64),
}

/// The record names the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Theirs {
    episode: i64,
    heartbeat: i64,
    /// Since when the heartbeat stands at this.
    since: Instant,
}

impl Keeper {
    /// The record says who drains. Called for every version of it that is about this node.
    pub(super) fn turn_seen(&mut self, now: Instant, status: &InterruptionStatus) {
        if self.role == Role::StandIn {
            return;
        }
        let open = status.phase.is_some_and(|phase| !phase.ends_episode());
        if !open || status.drainer.as_deref() != Some(STAND_IN) {
            return self.turn_lost(now);
        }
        if let Some(episode) = self.episode.as_mut().filter(|episode| episode.number == status.episode) {
            if (status.episode, status.heartbeat) < self.turn.written {
                // Older than what this one has written since.
                return;
            }
            episode.adopt_progress(status);
        }
        let seen = Theirs { episode: status.episode, heartbeat: status.heartbeat, since: now };
        let stands = |of: Theirs| Theirs { since: now, ..of } == seen;
        if !self.turn.theirs.is_some_and(stands) {
            self.turn.theirs = Some(seen);
        }
    }

    /// There is no record any more, and so nobody that it names.
    pub(super) fn turn_lost(&mut self, now: Instant) {
        if self.turn.theirs.take().is_some() {
            self.turn.not_before = Some(now + PAUSE);
        }
    }

    /// The API server has this status: perhaps it names this one.
    pub(super) fn turn_written(&mut self, now: Instant, status: &InterruptionStatus) {
        self.turn.written = (status.episode, status.heartbeat);
        if self.role == Role::StandIn && status.drainer.as_deref() == Some(STAND_IN) {
            self.turn.named_at.get_or_insert(now);
        }
    }

    fn theirs(&self) -> Option<Theirs> {
        let number = self.episode.as_ref().map(|episode| episode.number);
        self.turn.theirs.filter(|theirs| Some(theirs.episode) == number)
    }

    /// Whether another one drains in this episode, and writes its status.
    pub(super) fn yields(&self) -> bool {
        self.theirs().is_some()
    }

    /// What this one does of the drain at `now`.
    pub(super) fn part(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Part {
        match (self.role, self.policy.drain_by) {
            (Role::StandIn, by) => {
                let pause = if by == DrainBy::Provisioner { Duration::ZERO } else { PAUSE };
                let begins = self.turn.named_at.map(|at| at + pause);
                if begins.is_some_and(|at| at <= now) { Part::Drains } else { Part::Claims }
            }
            (Role::Agent, DrainBy::Provisioner) => {
                self.say_once(Because::LeftToProvisioner, effects);
                Part::LooksOn
            }
            (Role::Agent, DrainBy::Agent) => self.part_of_agent(now, effects),
        }
    }

    fn part_of_agent(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Part {
        if !self.record.asked && now < Instant::default() + RECORD_AWAITED {
            return Part::Watches;
        }
        if let Some(theirs) = self.theirs() {
            if now < theirs.since + TAKEN_BACK_AFTER || self.is_done() {
                self.say_once(Because::Yielded, effects);
                return Part::Watches;
            }
            self.turn = Turn { not_before: Some(now + PAUSE), written: self.turn.written, ..Turn::default() };
            effects.push(Effect::Decided(Because::TakenBack));
        }
        if self.turn.not_before.is_some_and(|at| now < at) { Part::Claims } else { Part::Drains }
    }

    /// Whether no pod is left to be asked by anybody.
    fn is_done(&self) -> bool {
        self.episode.as_ref().is_some_and(|e| e.phase == Phase::Drained && e.plan.listed() && e.plan.left() == 0)
    }

    fn say_once(&mut self, because: Because, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.turn.said, true) {
            effects.push(Effect::Decided(because));
        }
    }

    /// When [`part`](Self::part) may say something else.
    pub(super) fn turn_wakeup(&self) -> Option<Instant> {
        let pause = if self.policy.drain_by == DrainBy::Provisioner { Duration::ZERO } else { PAUSE };
        let back = self.theirs().filter(|_| self.policy.drain_by == DrainBy::Agent && !self.is_done());
        [
            self.turn.named_at.map(|at| at + pause),
            self.turn.not_before,
            back.map(|theirs| theirs.since + TAKEN_BACK_AFTER),
            (!self.record.asked).then(|| Instant::default() + RECORD_AWAITED),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > self.now)
        .min()
    }

    /// Whom the record is to name.
    pub(super) fn drainer(&self) -> Option<String> {
        match (self.role, self.policy.drain_by) {
            (Role::StandIn, _) => Some(STAND_IN.to_owned()),
            (Role::Agent, DrainBy::Provisioner) => None,
            (Role::Agent, DrainBy::Agent) => Some(self.me.node.clone()),
        }
    }
}
