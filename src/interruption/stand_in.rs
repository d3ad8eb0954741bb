//! The provisioner's part in one interruption: it watches the record, and when the node's agent is silent it drains in
//! its place, by the same state machine.
//!
//! ```text
//!  record, Node ──> scout: would a drain be under way? ──┐
//!  heartbeat ─────> has it stood still for 10 s? ────────┴─> Keeper, standing in ──> mark, status, asks
//! ```
//!
//! The scout is a [`Keeper`] that is told what the record says, and whose effects are dropped. It is made anew for every
//! version of the record, so that it rests on nothing but that; so is the keeper that acts, once.

use std::time::Duration;

use super::run::turn::{SILENT_AFTER, STAND_IN};
use super::{Because, DrainBy, Effect, Identity, Input, Keeper, Policy, Record};
use crate::api::interruption::Phase;
use crate::domain::node::Node;
use crate::domain::time::{Epoch, Instant};
use crate::engine::Core;

/// How long an ask of its own may be on its way after it has ceased: as long as a call takes.
const ASKS_END: Duration = Duration::from_secs(6);

/// Stands in for one node's agent, where that is silent.
#[derive(Debug)]
pub struct StandIn {
    me: Identity,
    /// How a node is kept whose agent has not written how.
    flags: Policy,
    epoch: Epoch,
    node: Option<Node>,
    record: Option<Record>,
    beat: Beat,
    /// Since when a drain has been wanted.
    wanted: Option<Instant>,
    scout: Option<Keeper>,
    acting: Option<Acting>,
    /// It does not begin again before this.
    rests_until: Instant,
}

/// The heartbeat in the record, and since when it stands at that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Beat {
    drainer: Option<String>,
    heartbeat: i64,
    episode: i64,
    since: Instant,
}

#[derive(Debug)]
struct Acting {
    keeper: Keeper,
    /// The heartbeat with which it named itself.
    claim: i64,
    episode: i64,
}

impl StandIn {
    pub fn new(me: Identity, flags: Policy, epoch: Epoch) -> Self {
        Self {
            me,
            flags,
            epoch,
            node: None,
            record: None,
            beat: Beat::default(),
            wanted: None,
            scout: None,
            acting: None,
            rests_until: Instant::default(),
        }
    }

    /// Whether it drains now.
    pub fn acts(&self) -> bool {
        self.acting.is_some()
    }

    /// Whether the drain is its own by now.
    pub fn drains(&self) -> bool {
        self.acting.as_ref().is_some_and(|acting| acting.keeper.drains())
    }

    /// The phase of the episode that it drains in.
    pub fn phase(&self) -> Option<Phase> {
        self.acting.as_ref().and_then(|acting| acting.keeper.phase())
    }

    fn policy(&self) -> Policy {
        let recorded = self.record.as_ref().and_then(|record| record.status.policy.as_ref());
        recorded.map_or_else(|| self.flags.clone(), Policy::from_record)
    }

    /// A keeper that knows what the record and the Node say.
    fn keeper(&self, now: Instant, effects: &mut Vec<Effect>) -> Keeper {
        let mut keeper = Keeper::standing_in(self.me.clone(), self.policy(), self.epoch);
        if let Some(node) = &self.node {
            keeper.handle(now, Input::NodeSeen(node.clone()), effects);
        }
        if let Some(record) = &self.record {
            keeper.handle(now, Input::RecordSeen(Some(record.clone())), effects);
        }
        keeper
    }

    fn record_seen(&mut self, now: Instant, record: Option<Record>, effects: &mut Vec<Effect>) {
        self.record = record;
        let Some(record) = &self.record else {
            // It stands in for what the record says, and for nothing else.
            self.cease(now, effects);
            self.wanted = None;
            self.scout = None;
            return;
        };
        let status = &record.status;
        let beat = Beat {
            drainer: status.drainer.clone(),
            heartbeat: status.heartbeat,
            episode: status.episode,
            since: self.beat.since,
        };
        if beat != self.beat {
            self.beat = Beat { since: now, ..beat };
        }
        if let Some(acting) = &mut self.acting {
            let theirs = status.drainer.as_deref().is_some_and(|drainer| drainer != STAND_IN);
            let over = status.phase.is_some_and(Phase::ends_episode);
            if status.episode > acting.episode || (theirs && status.heartbeat >= acting.claim) {
                // The agent is back and has named itself, or has begun anew.
                effects.push(Effect::Decided(Because::HandedBack));
                self.cease(now, effects);
            } else if over && acting.keeper.phase().is_some() {
                // The agent knows that it is off, and what it has ended ends here too.
                acting.keeper.ended_elsewhere(now, status.clone(), effects);
            } else {
                acting.keeper.handle(now, Input::RecordSeen(self.record.clone()), effects);
            }
        }
        self.scout_anew(now);
    }

    fn cease(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(acting) = self.acting.take() else { return };
        if acting.keeper.watches_pods() {
            effects.push(Effect::ForgetPods);
        }
        self.beat.since = now;
        self.rests_until = now + ASKS_END;
    }

    fn scout_anew(&mut self, now: Instant) {
        self.scout = (self.acting.is_none() && self.record.is_some()).then(|| self.keeper(now, &mut Vec::new()));
    }

    /// Begins where it is time to.
    fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(acting) = &self.acting {
            if acting.keeper.phase().is_some() || !acting.keeper.is_idle() {
                return;
            }
            // It is over. The next episode is the agent's again, as long as that is not silent.
            self.cease(now, effects);
            self.scout_anew(now);
        }
        let named = self.beat.drainer.as_deref() == Some(STAND_IN);
        if !self.scout.as_ref().is_some_and(|scout| scout.wants_a_drain(named)) {
            self.wanted = None;
            return;
        }
        self.wanted.get_or_insert(now);
        let Some(because) = self.due().filter(|(at, _)| *at <= now).map(|(_, because)| because) else { return };
        effects.push(Effect::Decided(because));
        let mut began = Vec::new();
        let keeper = self.keeper(now, &mut began);
        // What the agent has said already is not said again.
        effects.extend(began.into_iter().filter(|effect| !matches!(effect, Effect::Decided(_))));
        self.acting = Some(Acting { claim: keeper.heartbeat(), episode: keeper.number(), keeper });
        self.scout = None;
    }

    /// When it begins, where nothing changes until then, and why.
    fn due(&self) -> Option<(Instant, Because)> {
        let wanted = self.wanted?.max(self.rests_until);
        let status = self.record.as_ref().map(|record| &record.status);
        let left = status.and_then(|s| s.policy).is_some_and(|policy| policy.drain_by == DrainBy::Provisioner);
        // Not before its agent has confirmed it and written so: until then the status is the agent's.
        let confirmed = status.and_then(|s| s.phase).is_some_and(|p| p >= Phase::Confirmed && !p.ends_episode());
        if left && confirmed {
            return Some((wanted, Because::StandsIn { silent: Duration::ZERO }));
        }
        let open = status.and_then(|s| s.phase).is_some_and(|p| !p.ends_episode());
        if open && self.beat.drainer.as_deref() == Some(STAND_IN) {
            return Some((wanted, Because::GoesOn));
        }
        let at = wanted.max(self.beat.since) + SILENT_AFTER;
        Some((at, Because::StandsIn { silent: SILENT_AFTER }))
    }
}

impl Core for StandIn {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::RecordSeen(record) => self.record_seen(now, record, effects),
            Input::NodeSeen(node) => {
                self.node = Some(node.clone());
                match &mut self.acting {
                    Some(acting) => acting.keeper.handle(now, Input::NodeSeen(node), effects),
                    None => self.scout_anew(now),
                }
            }
            input => {
                if let Some(acting) = &mut self.acting {
                    acting.keeper.handle(now, input, effects);
                }
            }
        }
        self.look(now, effects);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        if let Some(acting) = &self.acting {
            return acting.keeper.next_wakeup();
        }
        let scout = self.scout.as_ref().and_then(Core::next_wakeup);
        [scout, self.due().map(|(at, _)| at)].into_iter().flatten().min()
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(acting) = &mut self.acting {
            acting.keeper.wake(now, effects);
        } else if let Some(scout) = &mut self.scout {
            scout.wake(now, &mut Vec::new());
        }
        self.look(now, effects);
    }
}
