//! One episode: from the first notice to the empty node, or to its withdrawal.

use std::time::Duration;

use super::hold::Hold;
use super::turn::Part;
use super::{Mark, PEEK};
use crate::api::interruption::{InterruptionStatus, Phase, ReplacementStatus, Timeline};
use crate::domain::node::Node;
use crate::domain::notice::{Kind, Subject};
use crate::domain::pod::PodUid;
use crate::domain::time::{Deadline, Epoch, Instant};
use crate::interruption::because::{Because, Confirmation};
use crate::interruption::drain::{Plan, Terms};
use crate::interruption::merge::{Course, Notices};
use crate::interruption::{Announcement, Answer, Effect, Identity, Policy, Record, Verb};

/// How often the heartbeat moves while the node is drained.
const HEARTBEAT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Episode {
    pub(super) number: i64,
    pub(super) notices: Notices,
    pub(super) phase: Phase,
    /// The reason of the latest change of phase.
    pub(super) because: String,
    pub(super) boot_id: Option<String>,
    pub(super) timeline: Timeline,
    pub(super) told: Option<Announcement>,
    pub(super) watching: bool,
    pub(super) plan: Plan,
    /// What the confirmed notices asked for when they were last looked at.
    course: Course,
    terms: Option<Terms>,
    /// The latest scheduled event that the drain has begun for: it does not cease when the longest grace has ended.
    begun: Option<Instant>,
    confirmed_at: Option<Instant>,
    /// What the provisioner says of a replacement in this episode.
    replacement: Option<ReplacementStatus>,
    hold: Hold,
    /// What this one did of the drain when it was last looked at.
    part: Part,
    said_later: bool,
    said_draining: bool,
    said_missed: bool,
    pub(super) heartbeat: i64,
    next_heartbeat: Option<Instant>,
}

impl Episode {
    pub(super) fn new(number: i64, boot_id: Option<String>, plan: Plan) -> Self {
        Self {
            number,
            notices: Notices::default(),
            phase: Phase::Noticed,
            because: String::new(),
            boot_id,
            timeline: Timeline::default(),
            told: None,
            watching: false,
            plan,
            course: Course::Wait,
            terms: None,
            begun: None,
            confirmed_at: None,
            replacement: None,
            hold: Hold::default(),
            part: Part::Drains,
            said_later: false,
            said_draining: false,
            said_missed: false,
            heartbeat: 0,
            next_heartbeat: None,
        }
    }

    /// Goes on as the next episode with what is left: the node stays as it is, the phases begin anew.
    pub(super) fn roll(&mut self, number: i64) {
        self.number = number;
        self.phase =
            if self.notices.heard.values().any(|h| h.confirmed.is_some()) { Phase::Confirmed } else { Phase::Noticed };
        self.timeline.drained_at = None;
        self.timeline.ended_at = None;
        self.said_later = false;
        self.said_draining = false;
        self.said_missed = false;
    }

    /// Takes in what the record says of a replacement, as far as it is about this episode.
    pub(super) fn hears_of(&mut self, replacement: Option<&ReplacementStatus>) {
        self.replacement = replacement.filter(|of| of.episode == self.number).cloned();
        self.notices.replaced |= self.replacement.as_ref().is_some_and(|of| of.ready);
    }

    /// Moves to a later phase; earlier ones are passed over.
    fn reach(&mut self, phase: Phase, because: &Because) {
        if phase > self.phase {
            self.phase = phase;
            self.because = because.to_string();
        }
    }

    pub(super) fn confirmed(
        &mut self,
        now: Instant,
        epoch: &Epoch,
        kind: Kind,
        by: Confirmation,
        deadline: Option<Deadline>,
        effects: &mut Vec<Effect>,
    ) {
        let because = Because::Confirmed { kind, by, left: deadline.map(|d| d.at.since(now)) };
        self.confirmed_at.get_or_insert(now);
        self.timeline.confirmed_at.get_or_insert(epoch.wall(now));
        self.reach(Phase::Confirmed, &because);
        effects.push(Effect::Decided(because));
    }

    pub(super) fn cordoned(&mut self, now: Instant, epoch: &Epoch, effects: &mut Vec<Effect>) {
        if self.timeline.cordoned_at.is_none() {
            self.timeline.cordoned_at = Some(epoch.wall(now));
            effects.push(Effect::Decided(Because::Cordoned));
        }
        self.reach(Phase::Cordoned, &Because::Cordoned);
    }

    /// When the drain for a scheduled event begins.
    fn begins(&self, policy: &Policy, deadline: Deadline) -> Instant {
        if self.begun.is_some_and(|begun| deadline.at <= begun) {
            return Instant::default();
        }
        deadline.at - policy.scheduled_lead - self.plan.longest_grace().min(PEEK)
    }

    /// The latest of the scheduled events for which the drain is to have begun by `now`.
    fn scheduled_by(&self, now: Instant, policy: &Policy) -> Option<Instant> {
        self.notices
            .counting()
            .filter(|h| matches!(h.subject, Subject::ScheduledChange(_)))
            .filter_map(|h| h.deadline)
            .filter(|deadline| self.begins(policy, *deadline) <= now)
            .map(|deadline| deadline.at)
            .max()
    }

    /// Whether what is confirmed asks for a drain.
    pub(super) fn is_to_drain(&self) -> bool {
        self.terms.is_some()
    }

    /// Whether its drain is its keeper's own to make.
    pub(super) fn is_its_own(&self) -> bool {
        self.part == Part::Drains
    }

    /// Looks at what is announced and begins what follows: tells the workloads (where it is the node's own agent's to
    /// tell). Returns the terms of the drain where there is one.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        agent: Option<&Identity>,
        policy: &Policy,
        epoch: &Epoch,
        effects: &mut Vec<Effect>,
    ) -> Option<Terms> {
        let course = self.notices.course(policy, now, |deadline| self.begins(policy, deadline));
        if let Some(me) = agent {
            self.tell(now, me, &course, epoch, effects);
        }
        let mut terms = match &course {
            Course::Drain { deadline, at_once, .. } => {
                Some(Terms { deadline: deadline.map(|d| d.at), margin: policy.margin, at_once: *at_once, held: false })
            }
            _ => None,
        };
        if let Some(terms) = &mut terms {
            let (held, because) = self.hold.decide(now, policy, terms, self.replacement.as_ref());
            terms.held = held;
            effects.extend(because.map(Effect::Decided));
        }
        match &course {
            Course::Later { deadline, .. } if !self.said_later => {
                self.said_later = true;
                let begins_in = self.begins(policy, *deadline).since(now);
                effects.push(Effect::Decided(Because::Scheduled { begins_in }));
            }
            Course::Drain { .. } if policy.cordon_only && !self.said_draining => {
                self.said_draining = true;
                effects.push(Effect::Decided(Because::CordonOnly));
            }
            _ => {}
        }
        if terms != self.terms {
            self.plan.hurry(now);
        }
        if terms.is_some() {
            self.begun = self.begun.max(self.scheduled_by(now, policy));
        }
        self.terms = terms;
        self.course = course;
        terms
    }

    /// Whether the pods are to be known by now.
    fn watches(&self, now: Instant, policy: &Policy) -> bool {
        match &self.course {
            _ if policy.cordon_only => false,
            Course::Drain { .. } => true,
            Course::Later { deadline, .. } => deadline.at - policy.scheduled_lead - PEEK <= now,
            Course::Wait | Course::Mark { .. } => false,
        }
    }

    /// Keeps the node's notice endpoint up to date. Nothing that needs the network comes before it.
    fn tell(&mut self, now: Instant, me: &Identity, course: &Course, epoch: &Epoch, effects: &mut Vec<Effect>) {
        let Some(kind) = course.kind() else { return };
        // What an earlier run had confirmed is not confirmed again.
        let since = *self.confirmed_at.get_or_insert(now);
        let heard =
            self.notices.counting().filter(|h| h.subject.kind() == kind).min_by_key(|h| h.deadline.map(|d| d.at));
        let rebalance = self.notices.counting().find(|h| h.subject == Subject::RebalanceRecommendation);
        let announcement = Announcement {
            instance: me.instance.clone(),
            node: me.node.clone(),
            episode: self.number,
            kind,
            action: heard.and_then(|h| h.subject.action()),
            deadline: heard.and_then(|h| h.deadline),
            since,
            rebalance: rebalance.map(|h| h.entry.event_id.parse().unwrap_or_else(|_| epoch.wall(h.at))),
        };
        if self.told.as_ref() != Some(&announcement) {
            self.told = Some(announcement.clone());
            self.timeline.workloads_told_at.get_or_insert(epoch.wall(now));
            effects.push(Effect::Tell(announcement));
        }
    }

    /// The mark that the node is to bear.
    pub(super) fn mark(&self) -> Option<Mark> {
        let exclude = match &self.course {
            Course::Wait | Course::Later { .. } => return None,
            Course::Mark { .. } => false,
            Course::Drain { .. } => true,
        };
        Some(Mark {
            kind: self.course.kind()?,
            episode: self.number,
            deadline: self.notices.announced().map(|announced| announced.to_string()),
            exclude_from_load_balancers: exclude,
        })
    }

    /// Continues what the record says of this episode.
    pub(super) fn adopt(&mut self, number: i64, record: &Record) {
        let status = &record.status;
        self.number = number;
        self.phase = self.phase.max(status.phase.unwrap_or(Phase::Noticed));
        if let Some(because) = &status.because {
            self.because = because.clone();
        }
        if status.boot_id.is_some() {
            self.boot_id = status.boot_id.clone();
        }
        self.plan.inherit(&status.pods, record.asked_for.unwrap_or_default());
        self.adopt_progress(status);
        // Whoever watches it must see it move, also where this program has counted before it had read the record.
        self.next_heartbeat = None;
    }

    /// Continues from where another has come in this episode.
    pub(super) fn adopt_progress(&mut self, status: &InterruptionStatus) {
        self.phase = self.phase.max(status.phase.unwrap_or(Phase::Noticed));
        self.heartbeat = self.heartbeat.max(status.heartbeat);
        self.plan.at_least(&status.pods);
        let (ours, theirs) = (&mut self.timeline, &status.timeline);
        for (mine, recorded) in [
            (&mut ours.noticed_at, theirs.noticed_at),
            (&mut ours.confirmed_at, theirs.confirmed_at),
            (&mut ours.workloads_told_at, theirs.workloads_told_at),
            (&mut ours.cordoned_at, theirs.cordoned_at),
            (&mut ours.first_eviction_at, theirs.first_eviction_at),
            (&mut ours.drained_at, theirs.drained_at),
        ] {
            *mine = recorded.or(*mine);
        }
    }

    /// Watches the pods where they matter, asks them as planned, and says how it went.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        part: Part,
        policy: &Policy,
        epoch: &Epoch,
        effects: &mut Vec<Effect>,
    ) {
        self.part = part;
        let beats = matches!(part, Part::Drains | Part::Claims) && !policy.cordon_only && self.beats();
        if beats && self.next_heartbeat.is_none_or(|at| at <= now) {
            self.heartbeat += 1;
            self.next_heartbeat = Some(now + HEARTBEAT);
        }
        let follows = match part {
            Part::Drains | Part::Watches => true,
            Part::Claims => self.watching,
            Part::LooksOn => false,
        };
        let watches = follows && self.watches(now, policy);
        if watches != self.watching {
            self.watching = watches;
            effects.push(if watches { Effect::WatchPods } else { Effect::ForgetPods });
        }
        let Some(terms) = self.asks(policy) else { return };
        let left = self.plan.left();
        let time_left = terms.deadline.map(|d| d.since(now));
        if left > 0 && !self.said_draining {
            self.said_draining = true;
            let because = Because::Draining { pods: left, left: time_left };
            self.reach(Phase::Draining, &because);
            effects.push(Effect::Decided(because));
        }
        if self.plan.step(now, &terms, effects) {
            self.timeline.first_eviction_at.get_or_insert(epoch.wall(now));
        }
        if left == 0 && self.phase < Phase::Drained {
            let because = Because::Empty { spare: terms.deadline.filter(|d| *d >= now).map(|d| d.since(now)) };
            self.timeline.drained_at.get_or_insert(epoch.wall(now));
            self.reach(Phase::Drained, &because);
            effects.push(Effect::Decided(because));
        }
        if left > 0 && !self.said_missed && terms.deadline.is_some_and(|d| d < now) {
            self.said_missed = true;
            let because = Because::Missed { left };
            self.because = because.to_string();
            effects.push(Effect::Decided(because));
        }
    }

    /// The terms on which pods are asked, where this one asks any.
    fn asks(&self, policy: &Policy) -> Option<Terms> {
        self.terms.filter(|_| !policy.cordon_only && self.plan.listed() && self.part == Part::Drains)
    }

    /// Whether whoever drains has something to show for it.
    fn beats(&self) -> bool {
        self.terms.is_some() && self.phase < Phase::Drained
    }

    pub(super) fn asked(
        &mut self,
        now: Instant,
        uid: &PodUid,
        verb: Verb,
        answer: Answer,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        let terms = self.terms.unwrap_or(Terms::without_deadline(policy.margin));
        self.plan.answered(now, uid, verb, answer, &terms, effects);
    }

    /// When something is due in this episode.
    pub(super) fn wakeup(&self, now: Instant, policy: &Policy) -> Option<Instant> {
        let terms = self.asks(policy);
        let missed = terms.and_then(|t| t.deadline).filter(|_| !self.said_missed && self.plan.left() > 0);
        let later = match &self.course {
            Course::Later { deadline, .. } => {
                let peek = deadline.at - policy.scheduled_lead - PEEK;
                Some(if self.watching || policy.cordon_only { self.begins(policy, *deadline) } else { peek })
            }
            _ => None,
        };
        [
            terms.and_then(|terms| self.plan.next_wakeup(now, &terms)),
            missed.map(|d| d + Duration::from_millis(1)),
            later,
            self.notices.next_refutation(now, policy.margin),
            self.next_heartbeat.filter(|_| self.beats() && matches!(self.part, Part::Drains | Part::Claims)),
            self.terms.and_then(|terms| self.hold.wakeup(&terms, self.replacement.is_some())),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When a notice is to be written again.
    pub(super) fn writes_again(&self) -> Option<Instant> {
        self.notices.heard.values().filter_map(|heard| heard.written.wakeup()).min()
    }

    /// Makes of what the record was to say what it is to say now. That is done with every input, and most of it stays.
    pub(super) fn status(
        &self,
        drainer: Option<String>,
        policy: &Policy,
        settled: &[String],
        node: Option<&Node>,
        status: &mut InterruptionStatus,
    ) {
        let InterruptionStatus {
            episode,
            phase,
            kind,
            deadline,
            because,
            boot_id,
            timeline,
            pods,
            drainer: by,
            heartbeat,
            policy: kept,
            replacement,
            settled: over,
        } = status;
        (*episode, *phase, *heartbeat) = (self.number, Some(self.phase), self.heartbeat);
        *kind = self.notices.kind().or(self.told.as_ref().map(|told| told.kind));
        *deadline = self.notices.announced();
        say(because, Some(&self.because).filter(|because| !because.is_empty()));
        say(boot_id, self.boot_id.as_ref().or_else(|| node?.boot_id.as_ref()));
        timeline.clone_from(&self.timeline);
        self.plan.count_into(pods);
        *by = drainer.filter(|_| self.terms.is_some());
        *kept = Some(policy.recorded());
        *replacement = None;
        if over.as_slice() != settled {
            *over = settled.to_vec();
        }
    }
}

fn say(said: &mut Option<String>, text: Option<&String>) {
    if said.as_ref() != text {
        *said = text.cloned();
    }
}
