//! What must always hold, as predicates with three users: a production metric, the simulator, and models.
//!
//! - [`Witness`] stands beside one running agent. It sees the inputs and the effects, and knows nothing of what the
//!   core thinks: whether a notice is confirmed, which deadline holds and when a pod was first asked it works out
//!   itself. Its memory is bounded by the pods of one node and the notices of one instance.
//! - [`ledger`] judges the world afterwards: what only one who saw every life of the agent, and the API server itself,
//!   can know.
//!
//! | | the witness sees | the ledger adds |
//! |---|---|---|
//! | I-1 | asks within one life | over restarts |
//! | I-2 | every delete, and every ask after the deadline | |
//! | I-3 | every mark, ask and announcement | what is left on the node |
//! | I-4, I-5 | the statuses that are sent | the statuses that the API server took |
//! | I-6 | that nothing confirmed is given up | every pod that could have been out |
//! | I-7 | | every message that was deleted |
//! | I-8 | every ask | |

pub mod ledger;
mod notices;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::drain::{ASKED_FOR, SHORTEST_GRACE};
use super::{Answer, Ask, Because, Effect, Input, Policy, Rebalance, Record, Verb};
use crate::api::interruption::{InterruptionStatus, Phase};
use crate::domain::notice::Kind;
use crate::domain::pod::{Pod, PodUid};
use crate::domain::policy::OnNode;
use crate::domain::time::{Epoch, Instant};
use notices::Announced;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I-1: what was acknowledged for a pod's uid is not asked again, save with a shorter grace for a pod that would
    /// outlive `D − m`; and nothing is asked twice at once.
    AskedOnce,
    /// I-2: no pod is deleted before its latest start, none without a deadline, and none is asked after it.
    NotDeletedEarly,
    /// I-3: nothing of ours is done without a confirmed notice, or to pods that a drain is not about; and nothing of
    /// ours stays when it is over.
    NothingUnconfirmed,
    /// I-4: within an episode phases only move forward.
    PhasesForward,
    /// I-5: within an episode the deadline never moves later.
    DeadlineNeverLater,
    /// I-6: every pod that could be out by `D − m` is out, or was asked in time.
    EveryPodInTime,
    /// I-7: a notice that was acknowledged at its source is in the API.
    NoticesKept,
    /// I-8: grace is never sent as 0 for a pod whose own is not, is never more than its own, and is left alone where
    /// there is no deadline.
    GraceKept,
}

impl Invariant {
    /// Every one, in order.
    pub const ALL: [Self; 8] = [
        Self::AskedOnce,
        Self::NotDeletedEarly,
        Self::NothingUnconfirmed,
        Self::PhasesForward,
        Self::DeadlineNeverLater,
        Self::EveryPodInTime,
        Self::NoticesKept,
        Self::GraceKept,
    ];

    /// `I-1` to `I-8`: a metric's label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::AskedOnce => "I-1",
            Self::NotDeletedEarly => "I-2",
            Self::NothingUnconfirmed => "I-3",
            Self::PhasesForward => "I-4",
            Self::DeadlineNeverLater => "I-5",
            Self::EveryPodInTime => "I-6",
            Self::NoticesKept => "I-7",
            Self::GraceKept => "I-8",
        }
    }

    pub(crate) fn violated(self, what: impl Into<String>) -> Violation {
        Violation { invariant: self, what: what.into() }
    }
}

/// An invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.code(), self.what)
    }
}

/// Watches one life of one agent.
#[derive(Clone, Debug)]
pub struct Witness {
    flags: Policy,
    policy: Policy,
    announced: Announced,
    pods: BTreeMap<PodUid, Followed>,
    /// Who was blocked as an earlier run's record says, by `namespace/name`, and for how long he had been asked.
    asked_before: BTreeMap<String, Duration>,
    /// There was no record at first: whatever it says later is this run's own.
    had_no_record: bool,
    statuses: StatusOrder,
}

/// A pod, and what was asked of it.
#[derive(Clone, Debug)]
struct Followed {
    pod: Pod,
    first_ask: Option<Instant>,
    /// On its way: with which grace.
    asked: Option<Option<u32>>,
    /// Acknowledged: when it will have ended.
    ends_at: Option<Instant>,
}

/// The deadline that must be kept, as a witness knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MustDrain {
    pub deadline: Instant,
    /// A drain is not demanded before this: a scheduled event far ahead begins later.
    pub from: Instant,
}

impl Witness {
    pub fn new(policy: Policy) -> Self {
        Self {
            announced: Announced::new(policy.clone()),
            flags: policy.clone(),
            policy,
            pods: BTreeMap::new(),
            asked_before: BTreeMap::new(),
            had_no_record: false,
            statuses: StatusOrder::default(),
        }
    }

    /// Watches one that stands in for a node's agent.
    pub fn of_stand_in(policy: Policy, epoch: Epoch) -> Self {
        let witness = Self::new(policy);
        Self { announced: witness.announced.standing_in(epoch), ..witness }
    }

    /// Sees an input, before the core does.
    pub fn input(&mut self, now: Instant, input: &Input) -> Vec<Violation> {
        if let Input::NodeSeen(node) = input {
            self.policy = self.flags.on(&OnNode::read(&node.annotations));
            self.announced.obeys(self.policy.clone());
        }
        let record_read = self.announced.record_read();
        self.announced.input(now, input);
        match input {
            Input::PodsListed(pods) => {
                self.pods.retain(|uid, _| pods.iter().any(|p| p.uid == *uid));
                pods.iter().for_each(|pod| self.see(pod));
            }
            Input::RecordSeen(None) => {
                self.had_no_record = true;
                if self.announced.stands_in() {
                    // The next record begins another history, of which one who stands in knows from its beginning.
                    self.statuses = StatusOrder::default();
                }
            }
            // One who stands in begins from the latest record.
            Input::RecordSeen(Some(record)) if (!record_read && !self.had_no_record) || self.announced.stands_in() => {
                self.asked_before.extend(asked_before(record));
            }
            Input::PodSeen(pod) => self.see(pod),
            Input::PodGone(uid) => drop(self.pods.remove(uid)),
            Input::Asked { uid, answer, .. } => self.answered(now, uid, answer),
            _ => {}
        }
        Vec::new()
    }

    /// Sees an effect, in the order in which the core began it.
    pub fn effect(&mut self, now: Instant, effect: &Effect) -> Vec<Violation> {
        let mut violations = Vec::new();
        self.announced.passes(now);
        match effect {
            Effect::Tell(announcement) => self.needs(announcement.kind, "told", &mut violations),
            Effect::Mark(mark) => self.needs(mark.kind, "marked", &mut violations),
            Effect::Ask(ask) => self.asks(now, ask, &mut violations),
            Effect::RecordStatus(status) | Effect::RecordStatusOn { status, .. } => {
                violations.extend(self.statuses.next(status))
            }
            Effect::Decided(because) => self.decided(now, because, &mut violations),
            _ => {}
        }
        violations
    }

    /// The earliest confirmed deadline that demands a drain, where one does.
    pub fn must_drain(&self) -> Option<MustDrain> {
        if self.policy.cordon_only {
            return None;
        }
        self.announced.must_drain()
    }

    /// Whether anything is confirmed that the node bears a mark for.
    pub fn confirmed(&self) -> bool {
        self.announced.confirmed().next().is_some()
    }

    fn see(&mut self, pod: &Pod) {
        let followed = self.pods.entry(pod.uid.clone()).or_insert_with(|| Followed {
            pod: pod.clone(),
            first_ask: None,
            asked: None,
            ends_at: None,
        });
        followed.pod = pod.clone();
    }

    fn answered(&mut self, now: Instant, uid: &PodUid, answer: &Answer) {
        let Some(followed) = self.pods.get_mut(uid) else {
            return;
        };
        let grace = followed.asked.take();
        if let (Answer::Accepted, Some(grace)) = (answer, grace) {
            let grace = grace.map_or(followed.pod.grace, |secs| Duration::from_secs(secs.into()));
            followed.ends_at = Some(now + grace);
        }
    }

    fn needs(&self, kind: Kind, what: &str, violations: &mut Vec<Violation>) {
        if !self.announced.confirmed().any(|said| said.subject.kind() == kind) {
            violations.push(
                Invariant::NothingUnconfirmed.violated(format!("{what} for {kind}, of which no notice is confirmed")),
            );
        }
    }

    fn asks(&mut self, now: Instant, ask: &Ask, violations: &mut Vec<Violation>) {
        let path = format!("{}/{}", ask.namespace, ask.name);
        let drains = self.announced.confirmed().any(|said| {
            said.subject.kind() != Kind::RebalanceRecommendation
                || self.policy.rebalance == Rebalance::Drain
                || (self.policy.rebalance == Rebalance::Replace && self.announced.replaced())
        });
        if !drains || self.policy.cordon_only {
            violations.push(
                Invariant::NothingUnconfirmed
                    .violated(format!("{path} was asked to go, though nothing confirmed drains the node")),
            );
        }
        let deadlines = self.announced.deadlines();
        let Some(followed) = self.pods.get_mut(&ask.uid).filter(|f| f.pod.evictable()) else {
            violations.push(
                Invariant::NothingUnconfirmed.violated(format!("{path} was asked to go, which no drain is about")),
            );
            return;
        };
        let margin = self.policy.margin;
        let before = self.asked_before.get(&path).copied().unwrap_or_default();
        violations.extend(
            asked_once(now, ask, followed, &deadlines, margin)
                .map(|what| Invariant::AskedOnce.violated(format!("{path} {what}"))),
        );
        violations.extend(
            not_early(now, ask, followed, before, &deadlines, margin)
                .map(|what| Invariant::NotDeletedEarly.violated(format!("{path} {what}"))),
        );
        violations.extend(
            grace_kept(ask, followed, &deadlines).map(|what| Invariant::GraceKept.violated(format!("{path} {what}"))),
        );
        followed.first_ask.get_or_insert(now);
        followed.asked = Some(ask.grace_secs);
    }

    fn decided(&mut self, now: Instant, because: &Because, violations: &mut Vec<Violation>) {
        match because {
            Because::Refuted { notice, .. } | Because::Stale { notice } => {
                let was_confirmed = self.announced.give_up(notice);
                violations.extend(was_confirmed.then(|| {
                    Invariant::EveryPodInTime
                        .violated(format!("{notice} was given up ({}), though it was confirmed", because.reason()))
                }));
            }
            Because::Withdrawn { notice } => drop(self.announced.give_up(notice)),
            Because::Rebooted => self.announced.rebooted(now),
            _ => {}
        }
    }
}

fn asked_before(record: &Record) -> BTreeMap<String, Duration> {
    let open = record.status.phase.is_some_and(|phase| !phase.ends_episode());
    let asked_for = record.asked_for.filter(|_| open).unwrap_or_default();
    record.status.pods.blocked.iter().map(|blocked| (blocked.pod.clone(), asked_for)).collect()
}

/// I-1; says what is wrong.
fn asked_once(now: Instant, ask: &Ask, followed: &Followed, deadlines: &[Instant], margin: Duration) -> Option<String> {
    if followed.asked.is_some() {
        return Some("was asked again before the last ask was answered".into());
    }
    let ends_at = followed.ends_at?;
    let outlives = deadlines.iter().any(|deadline| *deadline - margin < ends_at);
    let sooner = ask.grace_secs.is_some_and(|secs| now + Duration::from_secs(secs.into()) < ends_at);
    (!outlives || !sooner)
        .then(|| format!("was asked again at {now:?}, though it was acknowledged to end at {ends_at:?}"))
}

/// I-2; says what is wrong. Where several deadlines are confirmed, the one that allows most is taken.
fn not_early(
    now: Instant,
    ask: &Ask,
    followed: &Followed,
    before: Duration,
    deadlines: &[Instant],
    margin: Duration,
) -> Option<String> {
    if !deadlines.is_empty() && deadlines.iter().all(|deadline| *deadline < now) {
        return Some(format!("was asked at {now:?}, after the deadline"));
    }
    if ask.verb == Verb::Evict {
        return None;
    }
    let Some(earliest) = deadlines.iter().min() else {
        return Some("was deleted without a deadline".into());
    };
    let Some(first_ask) = followed.first_ask else {
        return Some("was deleted without having been asked".into());
    };
    let end = *earliest - margin;
    let asked_for = ASKED_FOR.saturating_sub(before);
    let latest = (end - followed.pod.grace).max(first_ask + asked_for).min(end - SHORTEST_GRACE);
    // A pod that is first asked in the last second has its latest start at that ask.
    let latest = latest.max(first_ask);
    (now < latest).then(|| format!("was deleted at {now:?}, before its latest start {latest:?}"))
}

/// I-8; says what is wrong.
fn grace_kept(ask: &Ask, followed: &Followed, deadlines: &[Instant]) -> Option<String> {
    let secs = ask.grace_secs?;
    let (grace, own) = (Duration::from_secs(secs.into()), followed.pod.grace);
    if deadlines.is_empty() {
        return Some(format!("was given {secs} s without a deadline"));
    }
    if grace.is_zero() && !own.is_zero() {
        return Some(format!("was given no grace, its own is {} s", own.as_secs()));
    }
    (grace > own).then(|| format!("was given {secs} s, its own is {} s", own.as_secs()))
}

/// The order of the statuses of one record: I-4 and I-5.
#[derive(Clone, Debug, Default)]
pub struct StatusOrder {
    episode: i64,
    phase: Option<Phase>,
    deadline: Option<Timestamp>,
}

impl StatusOrder {
    /// Takes in the next status of the record.
    pub fn next(&mut self, status: &InterruptionStatus) -> Vec<Violation> {
        let mut violations = Vec::new();
        if status.episode < self.episode {
            violations.push(
                Invariant::PhasesForward
                    .violated(format!("episode {} was written after episode {}", status.episode, self.episode)),
            );
        }
        if status.episode != self.episode {
            *self = Self { episode: status.episode, ..Self::default() };
        }
        if status.phase < self.phase {
            violations.push(Invariant::PhasesForward.violated(format!(
                "in episode {} phase {:?} was written after {:?}",
                self.episode, status.phase, self.phase
            )));
        }
        if let (Some(was), Some(is)) = (self.deadline, status.deadline)
            && is > was
        {
            violations.push(
                Invariant::DeadlineNeverLater
                    .violated(format!("in episode {} the deadline moved from {was} to {is}", self.episode)),
            );
        }
        self.phase = self.phase.max(status.phase);
        self.deadline = match (self.deadline, status.deadline) {
            (Some(was), Some(is)) => Some(was.min(is)),
            (was, is) => was.or(is),
        };
        violations
    }
}

#[cfg(test)]
mod tests;
