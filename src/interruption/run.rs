//! The state machine: one instance's interruptions, one after the other.
//!
//! Everything that happened is taken in by a method of its own; then [`Keeper::advance`] brings what is to what should
//! be. It is idempotent, so that an input that says nothing new changes nothing, and a program that starts in the
//! middle continues from what the record, the node and IMDS say.

mod episode;
mod hearing;
mod hold;
mod node_writes;
mod record;
#[cfg(test)]
mod tests;
pub mod turn;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::because::Because;
use super::drain::{Plan, Terms};
use super::mark::{INTERRUPTION, Mark};
use super::merge::{Anchor, Heard, Imds, SETTLED_MAX, Written, settled};
use super::{DrainBy, Effect, Identity, Input, Outcome, Pace, Policy, Record};
use crate::api::interruption::ReplacementStatus;
use crate::api::interruption::{InterruptionStatus, Phase};
use crate::domain::node::Node;
use crate::domain::notice::Kind;
use crate::domain::policy::OnNode;
use crate::domain::time::{Epoch, Instant};
use crate::engine::Core;
use episode::Episode;
use node_writes::NodeWrites;
use record::StatusWrites;
use turn::{Part, Role, Turn};

/// How long a record waits for the node it is about, so that a later boot is known before the record is acted on.
const NODE_AWAITED: Duration = Duration::from_secs(3);

/// How long before a scheduled event's lead the pods are looked at, to learn the longest grace among them.
const PEEK: Duration = Duration::from_secs(3600);

/// Core 1: keeps one instance.
#[derive(Clone, Debug)]
pub struct Keeper {
    me: Identity,
    role: Role,
    turn: Turn,
    /// What this program was told.
    flags: Policy,
    /// The same, as far as the Node does not say otherwise.
    policy: Policy,
    epoch: Epoch,
    /// When it was last called.
    now: Instant,
    imds: Imds,
    node: Option<Node>,
    /// The latest record, while it waits for the node; since when.
    awaiting_node: Option<(Instant, Record)>,
    record: RecordKnown,
    /// What the record says of a replacement.
    replacement: Option<ReplacementStatus>,
    /// The version of the record that was seen last.
    version: String,
    /// What of the Node's annotations was said to be nonsense.
    unread: Vec<String>,
    /// Notices of episodes that are over.
    settled: Vec<String>,
    /// The number of the latest episode.
    number: i64,
    episode: Option<Episode>,
    anchor: Anchor,
    /// The record has just been taken over from an earlier run.
    taken_over: Option<TakenOver>,
    /// What the episode before knew of pods: asks may still be on their way when it ends.
    carried: Plan,
    node_writes: NodeWrites,
    status: StatusWrites,
    pace: Pace,
    stood_down: bool,
    /// What is said once only.
    said: BTreeSet<&'static str>,
}

/// What an earlier run of this program has left.
#[derive(Clone, Copy, Debug)]
struct TakenOver {
    /// The deadline of the open episode, as the record had it.
    deadline: Option<Timestamp>,
}

/// What is known of the Interruption of this instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RecordKnown {
    /// The API server has said at least once whether there is one.
    asked: bool,
    present: bool,
    /// Its status has been taken over.
    adopted: bool,
    /// It names another node: it is neither read nor written.
    contradicts: bool,
}

impl RecordKnown {
    /// A status is written only where there is a record, and on top of the status that is there: an earlier run of
    /// this program may have come further than this one.
    fn takes_status(self) -> bool {
        self.present && self.adopted && !self.contradicts
    }
}

impl Keeper {
    pub fn new(me: Identity, policy: Policy, epoch: Epoch) -> Self {
        Self {
            me,
            role: Role::Agent,
            turn: Turn::default(),
            flags: policy.clone(),
            policy,
            epoch,
            now: Instant::default(),
            imds: Imds::default(),
            node: None,
            awaiting_node: None,
            record: RecordKnown::default(),
            replacement: None,
            version: String::new(),
            unread: Vec::new(),
            settled: Vec::new(),
            number: 0,
            episode: None,
            anchor: Anchor::default(),
            taken_over: None,
            carried: Plan::default(),
            node_writes: NodeWrites::default(),
            status: StatusWrites::default(),
            pace: Pace::Usual,
            stood_down: false,
            said: BTreeSet::new(),
        }
    }

    /// One that drains in the place of a node's silent agent. It knows what the record says; it has no IMDS, tells no
    /// workloads and writes no notices.
    pub(super) fn standing_in(me: Identity, policy: Policy, epoch: Epoch) -> Self {
        Self { role: Role::StandIn, ..Self::new(me, policy, epoch) }
    }

    /// Whether what is confirmed asks for a drain, and that is not done; or is, and is to be kept so (`ended`).
    pub(super) fn wants_a_drain(&self, ended: bool) -> bool {
        let wants = |episode: &Episode| episode.is_to_drain() && (ended || episode.phase < Phase::Drained);
        !self.policy.cordon_only && self.episode.as_ref().is_some_and(wants)
    }

    pub(super) fn watches_pods(&self) -> bool {
        self.episode.as_ref().is_some_and(|episode| episode.watching)
    }

    /// Whether the drain, where there is one, is its own, and has no other's to wait for.
    pub fn drains(&self) -> bool {
        self.episode.as_ref().is_none_or(Episode::is_its_own)
    }

    /// Whether nothing is left to be written.
    pub(super) fn is_idle(&self) -> bool {
        self.node_writes.is_idle() && self.status.is_idle()
    }

    pub(super) fn heartbeat(&self) -> i64 {
        self.episode.as_ref().map_or(0, |episode| episode.heartbeat)
    }

    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// The one that is stood in for has ended the episode, and has written so.
    pub(super) fn ended_elsewhere(&mut self, now: Instant, status: InterruptionStatus, effects: &mut Vec<Effect>) {
        self.end(now, status.phase.unwrap_or(Phase::Cancelled), &Because::EndedByAgent, effects);
        self.status.is_as(status);
        self.advance(now, effects);
    }

    /// The phase of the open episode; `None` where none is open.
    pub fn phase(&self) -> Option<Phase> {
        self.episode.as_ref().map(|episode| episode.phase)
    }

    /// Ends the episode: what was done to the node is undone.
    fn end(&mut self, now: Instant, phase: Phase, because: &Because, effects: &mut Vec<Effect>) {
        let Some(mut episode) = self.episode.take() else {
            return;
        };
        for heard in episode.notices.heard.values() {
            remember(&mut self.settled, settled(&heard.entry));
        }
        episode.phase = phase;
        episode.because = because.to_string();
        episode.timeline.ended_at.get_or_insert(self.epoch.wall(now));
        if episode.told.is_some() {
            effects.push(Effect::Retract);
        }
        if episode.watching {
            effects.push(Effect::ForgetPods);
        }
        if std::mem::take(&mut self.stood_down) {
            effects.push(Effect::StandUp);
        }
        self.said.clear();
        let drainer = self.drainer();
        episode.status(drainer, &self.policy, &self.settled, self.node.as_ref(), self.status.wanted());
        self.carried = episode.plan.carry_over();
    }

    /// Brings what is to what should be.
    fn advance(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.now = now;
        self.adopt_when_ready(now, effects);
        self.end_if_rebooted(now, effects);
        if self.taken_over.is_some()
            && let Some(active) = self.imds.active_events()
        {
            // What IMDS has said before the record was read holds for what the record says.
            self.scheduled_withdrawn(now, &active, effects);
        }
        self.confirm_and_refute(now, effects);
        self.begin_next_if_later();
        if let Some(episode) = &mut self.episode {
            episode.hears_of(self.replacement.as_ref());
            let agent = (self.role == Role::Agent).then_some(&self.me);
            let terms = episode.begin(now, agent, &self.policy, &self.epoch, effects);
            let drains = terms.is_some();
            if drains && agent.is_some() && !self.stood_down {
                self.stood_down = true;
                effects.push(Effect::StandDown);
            }
            self.node_writes.want(episode.mark());
        } else {
            self.node_writes.want(None);
        }
        let settled_down = self.record.asked && self.imds.known() && self.awaiting_node.is_none();
        if self.episode.is_none() || self.writes_the_node() {
            self.node_writes.advance(now, self.node.as_ref(), settled_down, effects);
        }
        let writes = self.node_writes.goes_first(now).is_none();
        if writes {
            self.write_notices(now, effects);
        }
        let part = if self.episode.as_ref().is_some_and(Episode::is_to_drain) {
            self.part(now, effects)
        } else {
            Part::Drains
        };
        if let Some(episode) = &mut self.episode {
            episode.drain(now, part, &self.policy, &self.epoch, effects);
        }
        if writes {
            self.write_status(now, effects);
        }
        self.set_pace(effects);
    }

    /// Whether the marks of an open episode are its own to make.
    fn writes_the_node(&self) -> bool {
        self.role == Role::StandIn || self.policy.drain_by == DrainBy::Agent
    }

    /// A later boot of the instance ends the episode: what was announced for the boot before has happened.
    fn end_if_rebooted(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(boot) = self.node.as_ref().and_then(|node| node.boot_id.clone()) else {
            return;
        };
        let Some(episode) = &mut self.episode else {
            return;
        };
        let known = episode.boot_id.get_or_insert_with(|| boot.clone());
        if *known == boot {
            return;
        }
        // What this boot's own IMDS says now is about this boot; a scheduled event has had its reboot.
        let live: Vec<Heard> = episode
            .notices
            .heard
            .values()
            .filter(|h| !h.inherited && h.entry.kind != Kind::ScheduledChange)
            .filter(|h| h.deadline.is_none_or(|d| !d.passed(now)))
            .cloned()
            .collect();
        for heard in &live {
            episode.notices.heard.remove(&heard.entry.key());
        }
        effects.push(Effect::Decided(Because::Rebooted));
        self.end(now, Phase::Gone, &Because::Rebooted, effects);
        for heard in live {
            self.hear(now, heard.entry, heard.subject, heard.deadline, heard.written, effects);
        }
    }

    fn confirm_and_refute(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        for (kind, by, deadline) in episode.notices.confirm(&self.imds) {
            episode.confirmed(now, &self.epoch, kind, by, deadline, effects);
        }
        // An earlier run may have confirmed it: nothing is given up before the record has been read, and nothing by one
        // who has no IMDS.
        if (!self.record.adopted && !self.record.contradicts) || self.role == Role::StandIn {
            return;
        }
        for (key, because) in episode.notices.refuted(now, self.policy.margin) {
            self.drop_notice(now, &key, Phase::Refuted, because, effects);
        }
    }

    /// An earlier run may have had the deadline moved, and have been stopped before the record said so: within an
    /// episode it never moves later.
    fn begin_next_if_later(&mut self) {
        let recorded = self.taken_over.take().and_then(|taken_over| taken_over.deadline);
        if self.role == Role::StandIn {
            // It has heard nothing that the record does not say.
            return;
        }
        let Some((episode, recorded)) = self.episode.as_mut().zip(recorded) else {
            return;
        };
        if episode.notices.announced().is_some_and(|announced| announced > recorded) {
            self.number += 1;
            episode.roll(self.number);
        }
    }

    fn set_pace(&mut self, effects: &mut Vec<Effect>) {
        let waits = self.episode.as_ref().is_some_and(|episode| episode.notices.waits_for_imds());
        let pace = if waits { Pace::Urgent } else { Pace::Usual };
        if pace != self.pace && self.role == Role::Agent {
            self.pace = pace;
            effects.push(Effect::PollImds(pace));
        }
    }

    /// The Node says how it is to be treated, over what this program was told. What cannot be used is said once.
    fn node_seen(&mut self, node: Node, effects: &mut Vec<Effect>) {
        let on_node = OnNode::read(&node.annotations);
        self.policy = self.flags.on(&on_node);
        if self.unread != on_node.nonsense {
            let new = on_node.nonsense.iter().filter(|why| !self.unread.contains(why));
            effects.extend(new.map(|why| Effect::Decided(Because::PolicyUnread { why: why.clone() })));
            self.unread = on_node.nonsense;
        }
        if self.node.as_ref().is_some_and(|known| known.uid != node.uid) {
            self.node_writes.forget();
        }
        self.node = Some(node);
    }

    fn marked(&mut self, now: Instant, outcome: Outcome, effects: &mut Vec<Effect>) {
        match self.node_writes.answered(now, outcome, effects) {
            Some(Some(_)) => {
                if let Some(episode) = &mut self.episode {
                    episode.cordoned(now, &self.epoch, effects);
                }
            }
            Some(None) => {
                // The watch may lag behind what was just acknowledged.
                if let Some(node) = &mut self.node {
                    node.annotations.remove(INTERRUPTION);
                    node.taints.retain(|taint| taint.key != INTERRUPTION);
                }
            }
            None => {}
        }
    }
}

impl Core for Keeper {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::ImdsAnswered(reading) => self.imds_answered(now, reading, effects),
            Input::ImdsFailed => self.imds.failed(),
            Input::Noticed { notice, deadline } if notice.instance == self.me.instance => {
                let entry = self.entry(now, notice.source, &notice.subject, notice.event_id, deadline);
                self.hear(now, entry, notice.subject, deadline, Written::No, effects);
            }
            Input::Noticed { .. } => {}
            Input::RecordSeen(record) => self.record_seen(now, record, effects),
            Input::NodeSeen(node) => self.node_seen(node, effects),
            Input::PodsListed(pods) => self.with_plan(|plan| plan.list(now, pods)),
            Input::PodSeen(pod) => self.with_plan(|plan| plan.see(now, pod)),
            Input::PodGone(uid) => self.with_plan(|plan| plan.gone(&uid)),
            Input::Marked(outcome) => self.marked(now, outcome, effects),
            Input::NoticeRecorded { key, outcome } => self.notice_recorded(now, &key, outcome, effects),
            Input::StatusRecorded(outcome) => self.status_recorded(now, outcome, effects),
            Input::Asked { uid, verb, answer } => {
                if let Some(episode) = &mut self.episode {
                    episode.asked(now, &uid, verb, answer, &self.policy, effects);
                } else {
                    // The episode ended while the ask was on its way: the next one is to know of it.
                    let terms = Terms::without_deadline(self.policy.margin);
                    self.carried.answered(now, &uid, verb, answer, &terms, &mut Vec::new());
                }
            }
        }
        self.advance(now, effects);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let episode = self.episode.as_ref();
        let goes_first = self.node_writes.goes_first(self.now);
        let after = |at: Instant| goes_first.map_or(at, |until| at.max(until));
        [
            self.awaiting_node.as_ref().map(|(since, _)| *since + NODE_AWAITED),
            self.node_writes.wakeup().filter(|_| episode.is_none() || self.writes_the_node()),
            goes_first,
            self.status.wakeup().filter(|_| self.record.takes_status() && !self.leaves_status()).map(after),
            episode.and_then(Episode::writes_again).map(after),
            self.turn_wakeup().filter(|_| episode.is_some_and(Episode::is_to_drain)),
            episode.and_then(|episode| episode.wakeup(self.now, &self.policy)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.advance(now, effects);
    }
}

fn remember(settled: &mut Vec<String>, what: String) {
    if !settled.contains(&what) {
        settled.push(what);
        if settled.len() > SETTLED_MAX {
            settled.remove(0);
        }
    }
}
