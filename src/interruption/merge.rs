//! Notices, merged into one episode: which are new, which are confirmed, and what follows from all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::because::Confirmation;
use super::{Because, Policy, Reading, Rebalance};
use crate::api::interruption::{NoticeEntry, NoticeKey};
use crate::domain::notice::{Action, Kind, ScheduleCode, Source, Subject};
use crate::domain::time::{Deadline, Instant};

/// How long a notice without a deadline waits for IMDS to agree.
pub const REFUTED_AFTER: Duration = Duration::from_secs(120);

/// Hibernation begins at once: the pods get what a budget is asked for, and no more.
pub const HIBERNATES_IN: Duration = Duration::from_secs(16);

/// The most notices of the queue that are kept in one episode: a record holds no more, and a queue that somebody
/// floods must not fill the memory of an agent.
pub const QUEUED_MAX: usize = 48;

/// How many settled notices are remembered: a record takes no more.
pub const SETTLED_MAX: usize = 256;

/// One notice of the episode.
#[derive(Clone, Debug)]
pub struct Heard {
    pub entry: NoticeEntry,
    pub subject: Subject,
    pub deadline: Option<Deadline>,
    pub at: Instant,
    pub confirmed: Option<Confirmation>,
    /// How often a healthy IMDS denied it.
    pub denials: u32,
    pub written: Written,
    /// It is known from the record alone: no source has said it to this program.
    pub inherited: bool,
}

/// How far a write to the API server has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Written {
    #[default]
    No,
    /// Sent, after it was tried `tries` times before.
    OnItsWay {
        tries: u32,
    },
    Yes,
    /// Tried `tries` times; again then.
    Again {
        at: Instant,
        tries: u32,
    },
}

impl Written {
    /// Whether it is to be sent at `now`.
    pub fn due(self, now: Instant) -> bool {
        matches!(self, Self::No) || matches!(self, Self::Again { at, .. } if at <= now)
    }

    /// When it is to be sent again.
    pub fn wakeup(self) -> Option<Instant> {
        if let Self::Again { at, .. } = self { Some(at) } else { None }
    }

    /// After a failure at `now`: again after 250 ms, growing to 5 s.
    pub fn failed(now: Instant, tries: u32) -> Self {
        let wait = Duration::from_millis(250).saturating_mul(1 << tries.min(6)).min(Duration::from_secs(5));
        Self::Again { at: now + wait, tries: tries.saturating_add(1) }
    }
}

/// What the confirmed notices of an episode ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nothing is confirmed, or nothing is to be done to the node.
    Wait,
    /// The event is far ahead; `deadline` is its time.
    Later { kind: Kind, deadline: Deadline },
    /// Take no new pods.
    Mark { kind: Kind },
    /// Empty the node.
    Drain { kind: Kind, deadline: Option<Deadline>, at_once: bool },
}

impl Course {
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Wait => None,
            Self::Later { kind, .. } | Self::Mark { kind } | Self::Drain { kind, .. } => Some(*kind),
        }
    }
}

/// All notices of one episode.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    pub heard: BTreeMap<NoticeKey, Heard>,
    /// The node's replacement is Ready: it stays so, as far as these notices are concerned.
    pub replaced: bool,
    /// A deadline that is in force beside those of the notices: the record has it from the one that is stood in for.
    pub recorded: Option<Deadline>,
}

impl Notices {
    /// The notice that says the same as a new one of this key: the same entry, or for IMDS, whose `time` may slide
    /// from answer to answer, the one of its kind.
    pub fn same(&self, key: &NoticeKey) -> Option<NoticeKey> {
        if self.heard.contains_key(key) {
            return Some(key.clone());
        }
        let slides = key.source == Source::Imds && key.kind != Kind::ScheduledChange;
        self.heard.keys().find(|k| slides && k.source == key.source && k.kind == key.kind).cloned()
    }

    /// Whether the queue has said as much as is heeded.
    pub fn crowded(&self) -> bool {
        self.heard.keys().filter(|key| key.source == Source::Sqs).count() >= QUEUED_MAX
    }

    /// The most urgent kind that is announced, confirmed or not.
    pub fn kind(&self) -> Option<Kind> {
        self.heard.values().max_by_key(|h| (h.confirmed.is_some(), urgency(h.subject.kind()))).map(|h| h.subject.kind())
    }

    /// The confirmed notices that count.
    ///
    /// AWS Health names scheduled events otherwise than IMDS does, and its messages come late, twice and out of order:
    /// where IMDS itself lists such events, its dates hold.
    pub fn counting(&self) -> impl Iterator<Item = &Heard> {
        let scheduled = |h: &Heard, by| h.entry.source == by && h.entry.kind == Kind::ScheduledChange;
        let imds_lists = self.heard.values().any(|h| h.confirmed.is_some() && scheduled(h, Source::Imds));
        let counts = move |h: &&Heard| h.confirmed.is_some() && !(imds_lists && scheduled(h, Source::Sqs));
        self.heard.values().filter(counts)
    }

    /// The earliest deadline of the notices that count.
    pub fn deadline(&self) -> Option<Deadline> {
        self.counting().filter_map(|h| h.deadline).chain(self.recorded).min_by_key(|d| d.at)
    }

    /// The earliest deadline of the notices that count as it was announced. It is not always that of
    /// [`deadline`](Self::deadline): hibernation begins before the time that is announced, and the wall clock may be
    /// stepped between two notices.
    pub fn announced(&self) -> Option<Timestamp> {
        self.counting().filter_map(|h| h.deadline).chain(self.recorded).map(|deadline| deadline.announced).min()
    }

    /// Whether a notice waits for the word of IMDS.
    pub fn waits_for_imds(&self) -> bool {
        self.heard
            .values()
            .any(|h| h.confirmed.is_none() && has_counterpart(h.subject.kind()) && is_urgent(h.subject.kind()))
    }

    /// What the confirmed notices ask for: the most urgent course that any of them does.
    pub fn course(&self, policy: &Policy, now: Instant, begins: impl Fn(Deadline) -> Instant) -> Course {
        let mut course = Course::Wait;
        for heard in self.counting() {
            let next = self.course_of(heard, policy, now, &begins);
            if rank(&next) > rank(&course) {
                course = next;
            }
        }
        if let Course::Drain { deadline, .. } = &mut course {
            // A rebalance with policy Drain and a scheduled event that is near: both drain, the deadline holds.
            *deadline = self
                .counting()
                .filter(|h| matches!(self.course_of(h, policy, now, &begins), Course::Drain { .. }))
                .filter_map(|h| h.deadline)
                .chain(self.recorded)
                .min_by_key(|d| d.at);
        }
        course
    }

    /// What one confirmed notice asks for.
    fn course_of(&self, heard: &Heard, policy: &Policy, now: Instant, begins: &impl Fn(Deadline) -> Instant) -> Course {
        let (kind, deadline) = (heard.subject.kind(), heard.deadline);
        match (&heard.subject, deadline) {
            (Subject::RebalanceRecommendation, _) => match policy.rebalance {
                Rebalance::Ignore => Course::Wait,
                Rebalance::Avoid => Course::Mark { kind },
                Rebalance::Replace if !self.replaced => Course::Mark { kind },
                Rebalance::Replace | Rebalance::Drain => Course::Drain { kind, deadline: None, at_once: false },
            },
            (Subject::ScheduledChange(_), Some(deadline)) if now < begins(deadline) => Course::Later { kind, deadline },
            (Subject::SpotInterruption(action), deadline) => {
                Course::Drain { kind, deadline, at_once: *action == Action::Hibernate }
            }
            _ => Course::Drain { kind, deadline, at_once: false },
        }
    }

    /// Confirms what may be confirmed, given the latest word of IMDS; returns what was newly confirmed.
    ///
    /// What the provisioner saw in EC2 it writes under the kind and the event of the notice that it looked for: that one
    /// is then true, whatever IMDS says of it.
    pub fn confirm(&mut self, imds: &Imds) -> Vec<(Kind, Confirmation, Option<Deadline>)> {
        let seen = |key: &NoticeKey| NoticeKey { source: Source::Provisioner, ..key.clone() };
        let in_ec2: Vec<NoticeKey> = self.heard.keys().filter(|k| self.heard.contains_key(&seen(k))).cloned().collect();
        let mut newly = Vec::new();
        for (key, heard) in self.heard.iter_mut().filter(|(_, h)| h.confirmed.is_none()) {
            let kind = heard.subject.kind();
            let by = match heard.entry.source {
                Source::Imds => Some(Confirmation::Imds),
                Source::Operator => Some(Confirmation::Operator),
                Source::Provisioner if kind == Kind::Requested => Some(Confirmation::Asked),
                Source::Provisioner => Some(Confirmation::Provisioner),
                Source::Sqs if in_ec2.contains(key) => Some(Confirmation::Provisioner),
                Source::Sqs if !has_counterpart(kind) => None,
                Source::Sqs if imds.agrees(kind) => Some(Confirmation::Imds),
                Source::Sqs if !imds.healthy() => Some(Confirmation::ImdsUnhealthy),
                Source::Sqs => None,
            };
            if let Some(by) = by {
                heard.confirmed = Some(by);
                newly.push((kind, by, heard.deadline));
            }
        }
        newly
    }

    /// Counts a healthy answer of IMDS that does not agree against every notice that waits for it.
    ///
    /// The scheduled events are not part of every round (`asked_scheduled`).
    pub fn denied(&mut self, asked_scheduled: bool) {
        for heard in self.heard.values_mut() {
            let kind = heard.subject.kind();
            let asked = asked_scheduled || kind != Kind::ScheduledChange;
            if heard.confirmed.is_none() && has_counterpart(kind) && asked {
                heard.denials = heard.denials.saturating_add(1);
            }
        }
    }

    /// The notices that can be given up as refuted at `now`, and why.
    pub fn refuted(&self, now: Instant, margin: Duration) -> Vec<(NoticeKey, Because)> {
        let waiting = self.heard.iter().filter(|(_, h)| h.confirmed.is_none() && has_counterpart(h.subject.kind()));
        waiting
            .filter_map(|(key, heard)| {
                let notice = key.clone();
                if heard.deadline.is_some_and(|d| d.passed(now)) {
                    return Some((notice.clone(), Because::Stale { notice }));
                }
                let ripe = refuted_at(heard, margin) <= now && heard.denials > 0;
                ripe.then(|| (notice.clone(), Because::Refuted { notice, denials: heard.denials }))
            })
            .collect()
    }

    /// When [`refuted`](Self::refuted) may say something new.
    pub fn next_refutation(&self, now: Instant, margin: Duration) -> Option<Instant> {
        self.heard
            .values()
            .filter(|h| h.confirmed.is_none() && has_counterpart(h.subject.kind()))
            .flat_map(|h| [Some(refuted_at(h, margin)), h.deadline.map(|d| d.at + Duration::from_millis(1))])
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}

fn refuted_at(heard: &Heard, margin: Duration) -> Instant {
    heard.deadline.map_or(heard.at + REFUTED_AFTER, |d| d.at - margin)
}

/// What is known of the node's IMDS.
#[derive(Clone, Debug, Default)]
pub struct Imds {
    answered: bool,
    failures: u32,
    last: Reading,
}

impl Imds {
    pub fn answered(&mut self, reading: Reading) {
        self.answered = true;
        self.failures = 0;
        let scheduled = reading.scheduled.clone().or_else(|| self.last.scheduled.take());
        self.last = Reading { scheduled, ..reading };
    }

    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether it has ever answered.
    pub fn known(&self) -> bool {
        self.answered
    }

    /// The ids of the scheduled events that are not over, as its latest list has them; `None` where it never listed any.
    pub fn active_events(&self) -> Option<Vec<String>> {
        let events = self.last.scheduled.as_ref()?.iter().filter(|event| !event.over);
        Some(events.map(|event| event.event_id.clone()).collect())
    }

    /// Two failed requests in a row make it unhealthy, also where it has never answered: one failure at the start is
    /// what a service in early boot does, and a forged message must not find the door open.
    pub fn healthy(&self) -> bool {
        self.failures < 2
    }

    /// Whether its latest answer has the counterpart of `kind`.
    fn agrees(&self, kind: Kind) -> bool {
        self.failures == 0
            && match kind {
                Kind::SpotInterruption => self.last.spot.is_some(),
                // An interruption is more than a recommendation: it confirms one.
                Kind::RebalanceRecommendation => self.last.rebalance.is_some() || self.last.spot.is_some(),
                Kind::ScheduledChange => self.last.scheduled.iter().flatten().any(|e| !e.over),
                Kind::AutoScalingTermination => self.last.lifecycle.as_deref() == Some("Terminated"),
                _ => false,
            }
    }
}

/// Whether the node's own IMDS would say it, too.
pub fn has_counterpart(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::SpotInterruption | Kind::RebalanceRecommendation | Kind::ScheduledChange | Kind::AutoScalingTermination
    )
}

/// Whether seconds count while its confirmation is awaited. Scheduled events lie weeks ahead.
fn is_urgent(kind: Kind) -> bool {
    kind != Kind::ScheduledChange
}

fn urgency(kind: Kind) -> u8 {
    match kind {
        Kind::StateChange => 0,
        Kind::RebalanceRecommendation => 1,
        Kind::ScheduledChange => 2,
        Kind::Requested => 3,
        Kind::AutoScalingTermination => 4,
        Kind::CapacityBlockEnding => 5,
        Kind::CapacityReservationInterruption => 6,
        Kind::SpotInterruption => 7,
    }
}

fn rank(course: &Course) -> (u8, bool, u8) {
    match course {
        Course::Wait => (0, false, 0),
        Course::Later { kind, .. } => (1, false, urgency(*kind)),
        Course::Mark { kind } => (2, false, urgency(*kind)),
        Course::Drain { kind, deadline, .. } => (3, deadline.is_some(), urgency(*kind)),
    }
}

/// Two deadlines that are heard soon after each other keep the distance that was announced, so that a step of the wall
/// clock between them moves neither.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anchor(Option<(Instant, Deadline)>);

/// How long one deadline that was placed on our clock serves to place others: beyond this the two clocks drift.
const ANCHOR_HOLDS: Duration = Duration::from_secs(600);

/// How far ahead a deadline may lie to place others: one that is absurd was clamped, and says nothing of the clocks.
const ANCHOR_REACHES: Duration = Duration::from_secs(7200);

impl Anchor {
    /// Where a deadline that is heard at `now` lies on our clock.
    pub fn place(&mut self, now: Instant, heard: Deadline) -> Deadline {
        let Some((_, anchor)) = self.0.filter(|(at, _)| now < *at + ANCHOR_HOLDS) else {
            let true_to_the_clocks = heard.at > Instant::default() && heard.at <= now + ANCHOR_REACHES;
            self.0 = true_to_the_clocks.then_some((now, heard));
            return heard;
        };
        let apart = heard.announced.duration_since(anchor.announced);
        let at = if apart.is_negative() { anchor.at - apart.unsigned_abs() } else { anchor.at + apart.unsigned_abs() };
        Deadline { at, ..heard }
    }
}

/// The deadline that a notice really sets: hibernation begins at once, whatever time is announced.
pub fn effective_deadline(subject: &Subject, announced: Option<Deadline>, now: Instant) -> Option<Deadline> {
    effective_deadline_of(subject, announced, now, Duration::ZERO)
}

/// The same of a notice that was first heard of so long ago, by another.
pub fn effective_deadline_of(
    subject: &Subject,
    announced: Option<Deadline>,
    now: Instant,
    ago: Duration,
) -> Option<Deadline> {
    match subject {
        Subject::SpotInterruption(Action::Hibernate) => {
            announced.map(|deadline| Deadline { at: (now + HIBERNATES_IN) - ago, ..deadline })
        }
        // A scheduled event without a time is a mistake of its source; without a deadline nothing is deleted for it.
        Subject::ScheduledChange(ScheduleCode(_)) | Subject::SpotInterruption(_) => announced,
        Subject::RebalanceRecommendation => None,
        _ => announced,
    }
}

/// How a notice of an episode that is over is remembered.
pub fn settled(entry: &NoticeEntry) -> String {
    let deadline = entry.deadline.map(|d| d.to_string()).unwrap_or_default();
    format!("{}@{deadline}", entry.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_nonsense_moves_no_other() {
        let now = Instant::from_millis(5_000);
        let reads: Timestamp = "2026-04-24T17:00:00Z".parse().unwrap();
        let real = Deadline::place("2026-04-24T17:02:00Z".parse().unwrap(), reads, now);
        for nonsense in [Timestamp::MAX, Timestamp::MIN, Timestamp::UNIX_EPOCH] {
            let mut anchor = Anchor::default();
            anchor.place(now, Deadline::place(nonsense, reads, now));
            assert_eq!(anchor.place(now, real), real, "after {nonsense}");
            assert!(anchor.place(now, Deadline::place(nonsense, reads, now)).announced == nonsense);
            assert_eq!(anchor.place(now, real), real);
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_does_not_part_two_deadlines() {
        let now = Instant::from_millis(5_000);
        let mut anchor = Anchor::default();
        let announced: Timestamp = "2026-04-24T17:02:00Z".parse().unwrap();
        let first = anchor.place(now, Deadline::place(announced, "2026-04-24T17:00:00Z".parse().unwrap(), now));
        let stepped = Deadline::place(announced, "2026-04-24T18:00:00Z".parse().unwrap(), now);
        assert!(stepped.passed(now));
        assert_eq!(anchor.place(now, stepped), first);
    }
}
