//! The record: what is read from it, and what is written to it. A drain never depends on its being writable.

use std::time::Duration;

use super::{Keeper, NODE_AWAITED, TakenOver, remember};
use crate::api::interruption::{InterruptionStatus, NoticeEntry, NoticeKey, Phase};
use crate::domain::notice::{Source, Subject};
use crate::domain::time::{Deadline, Instant};
use crate::interruption::because::{Because, Confirmation};
use crate::interruption::merge::{Heard, Written, effective_deadline, settled};
use crate::interruption::run::episode::Episode;
use crate::interruption::run::turn::Role;
use crate::interruption::{DrainBy, Effect, Outcome, Record};

/// The shortest time between two writes of a status that tell of progress only. A drain begins in several steps within
/// a few milliseconds; when a hundred nodes go at once, a write for each step holds up the evictions.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long a write that was refused as it is waits for somebody to change what stands in its way.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

/// The status as it should be, and how far the writing has come.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusWrites {
    wanted: Option<InterruptionStatus>,
    /// What was sent last.
    sent: Option<InterruptionStatus>,
    on_its_way: bool,
    not_before: Option<Instant>,
    tries: u32,
}

impl StatusWrites {
    /// What is wanted, to be changed.
    pub(super) fn wanted(&mut self) -> &mut InterruptionStatus {
        self.wanted.get_or_insert_default()
    }

    /// The API server has this already, by another's hand.
    pub(super) fn is_as(&mut self, status: InterruptionStatus) {
        self.wanted = Some(status.clone());
        self.sent = Some(status);
    }

    /// Whether the API server has it that this episode is confirmed.
    fn says_confirmed(&self, episode: i64) -> bool {
        let has = |status: &InterruptionStatus| status.episode == episode && status.phase >= Some(Phase::Confirmed);
        !self.on_its_way && self.sent.as_ref().is_some_and(has)
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.on_its_way && !self.stale()
    }

    fn stale(&self) -> bool {
        self.wanted.is_some() && self.wanted != self.sent
    }

    /// Whether more than progress is to be told: that is not held back.
    fn urgent(&self) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        self.sent.as_ref().is_none_or(|sent| {
            (wanted.episode, wanted.deadline) != (sent.episode, sent.deadline)
                || (wanted.phase != sent.phase && !wanted.phase.is_some_and(Phase::is_progress))
        })
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        if self.on_its_way || !self.stale() { None } else { self.not_before }
    }
}

impl Keeper {
    pub(super) fn with_plan(&mut self, act: impl FnOnce(&mut crate::interruption::drain::Plan)) {
        if let Some(episode) = &mut self.episode {
            act(&mut episode.plan);
        }
    }

    /// Takes in the record as the API server has it now.
    pub(super) fn record_seen(&mut self, now: Instant, record: Option<Record>, effects: &mut Vec<Effect>) {
        self.record.asked = true;
        self.record.present = record.is_some();
        let Some(record) = record else {
            self.awaiting_node = None;
            self.replacement = None;
            self.turn_lost(now);
            self.record.contradicts = false;
            // There is nothing to take over; what is in it later is our own.
            self.record.adopted = true;
            self.record_lost(now, effects);
            return;
        };
        self.record.contradicts = record.node != self.me.node || record.provider_id != self.me.provider_id;
        if self.record.contradicts {
            if self.said.insert("contradicted") {
                let record = format!("node {} ({})", record.node, record.provider_id);
                effects.push(Effect::Decided(Because::Contradicted { record }));
            }
            return;
        }
        self.replacement = record.status.replacement.clone();
        self.version.clone_from(&record.version);
        self.turn_seen(now, &record.status);
        let since = self.awaiting_node.as_ref().map_or(now, |(since, _)| *since);
        self.awaiting_node = Some((since, record));
    }

    /// There is no record (any more): a person's request is withdrawn with it, everything else is written again.
    fn record_lost(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.status.sent = None;
        let Some(episode) = &mut self.episode else {
            return;
        };
        for heard in episode.notices.heard.values_mut().filter(|heard| heard.written == Written::Yes) {
            heard.written = Written::No;
        }
        self.withdraw_missing(now, &[], effects);
    }

    /// What only the record says is withdrawn when the record does not say it any more.
    fn withdraw_missing(&mut self, now: Instant, present: &[NoticeKey], effects: &mut Vec<Effect>) {
        let Some(episode) = &self.episode else { return };
        let missing: Vec<NoticeKey> = episode
            .notices
            .heard
            .keys()
            .filter(|key| matches!(key.source, Source::Operator | Source::Provisioner) && !present.contains(key))
            .cloned()
            .collect();
        for key in missing {
            self.drop_notice(now, &key, Phase::Cancelled, Because::Withdrawn { notice: key.clone() }, effects);
            // It went because somebody took it out of the record: in there again it is a new wish, whatever its id.
            let forgotten = format!("{key}@");
            self.settled.retain(|what| !what.starts_with(&forgotten));
        }
    }

    /// Reads the record once the node is known, or has not been heard of for long enough.
    pub(super) fn adopt_when_ready(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let ready =
            self.node.is_some() || self.awaiting_node.as_ref().is_some_and(|(since, _)| *since + NODE_AWAITED <= now);
        if !ready {
            return;
        }
        let Some((_, record)) = self.awaiting_node.take() else {
            return;
        };
        let open = record.status.phase.is_some_and(|phase| !phase.ends_episode());
        if !self.record.adopted {
            self.adopt_status(&record, open);
        }
        let recorded = record.deadline.filter(|_| open && self.role == Role::StandIn);
        let present: Vec<NoticeKey> = record.notices.iter().map(|(entry, _)| entry.key()).collect();
        for (entry, deadline) in record.notices {
            let Some(subject) = Subject::from_record(entry.kind, entry.action.as_deref()) else {
                continue;
            };
            let (key, entry_deadline) = (entry.key(), entry.deadline);
            let stale = !open && deadline.is_some_and(|d| d.passed(now)) && entry.source == Source::Imds;
            if stale && self.episode.as_ref().is_none_or(|e| !e.notices.heard.contains_key(&key)) {
                // Written in another life of the instance, and the status was lost: it has come and gone.
                remember(&mut self.settled, settled(&entry));
                continue;
            }
            if open && !self.record.adopted && self.same_boot(&record.status) {
                self.recorded_first(now, &entry, deadline, effects);
            }
            let known = self.episode.as_ref().is_some_and(|episode| episode.notices.same(&key).is_some());
            self.hear(now, entry, subject, deadline, Written::Yes, effects);
            let confirmed_before = open
                && !self.record.adopted
                && record.status.phase >= Some(Phase::Confirmed)
                && (record.status.kind == Some(key.kind)
                    || (entry_deadline.is_some() && entry_deadline == record.status.deadline));
            if let Some(episode) = &mut self.episode
                && let Some(heard) = episode.notices.heard.get_mut(&key)
            {
                heard.inherited |= !known && key.source != Source::Sqs;
                // What was confirmed before this program was started again stays confirmed, also where a redelivery has
                // told of it before the record could be read.
                if confirmed_before {
                    heard.confirmed.get_or_insert(Confirmation::Imds);
                }
            }
        }
        let first = !self.record.adopted;
        if first {
            let deadline = record.status.deadline.filter(|_| open);
            self.taken_over = Some(TakenOver { deadline });
            self.record.adopted = true;
        }
        self.recorded_deadline(recorded);
        self.withdraw_missing(now, &present, effects);
        if first
            && open
            && self.same_boot(&record.status)
            && self.episode.as_ref().is_some_and(|episode| episode.notices.heard.is_empty())
        {
            // What the record had told of was withdrawn while nobody looked.
            effects.push(Effect::Decided(Because::NothingAnnounced));
            self.end(now, Phase::Cancelled, &Because::NothingAnnounced, effects);
        }
    }

    /// The one that is stood in for may know of a deadline that no notice in the record tells of.
    fn recorded_deadline(&mut self, deadline: Option<Deadline>) {
        let Some(episode) = &mut self.episode else { return };
        // What is announced of a hibernation is not what it leaves.
        let told = |heard: &Heard| heard.entry.deadline == deadline.map(|deadline| deadline.announced);
        let untold = !episode.notices.heard.values().any(told);
        episode.notices.recorded = deadline.filter(|_| untold);
    }

    /// How long ago a notice was first heard of: one who stands in hears of it later than the one that he stands in for.
    pub(super) fn heard_ago(&self, now: Instant, entry: &NoticeEntry) -> Duration {
        let noticed = entry.noticed_at.filter(|_| self.role == Role::StandIn);
        noticed.map_or(Duration::ZERO, |noticed| self.epoch.ago(noticed, now))
    }

    /// Whether a status was written in this boot of the instance, as far as is known.
    fn same_boot(&self, status: &InterruptionStatus) -> bool {
        let boot_id = self.node.as_ref().and_then(|node| node.boot_id.as_ref());
        boot_id.zip(status.boot_id.as_ref()).is_none_or(|(now, then)| now == then)
    }

    /// An earlier run has written an announcement with an earlier deadline than this one has heard by now: that one
    /// was the first, and this one is what it was moved to.
    fn recorded_first(
        &mut self,
        now: Instant,
        entry: &NoticeEntry,
        deadline: Option<Deadline>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(notices) = self.episode.as_mut().map(|episode| &mut episode.notices) else {
            return;
        };
        let known = notices.same(&entry.key());
        let Some(known) = known.filter(|_| !self.settled.contains(&settled(entry))) else {
            return;
        };
        let earlier = |heard: &Heard| entry.deadline.is_some() && heard.entry.deadline > entry.deadline;
        let Some(mut heard) = notices.heard.remove(&known) else {
            return;
        };
        if !earlier(&heard) {
            notices.heard.insert(known, heard);
            return;
        }
        let moved_to = (std::mem::replace(&mut heard.entry, entry.clone()), heard.deadline);
        let subject = heard.subject.clone();
        let deadline = effective_deadline(&subject, deadline, now);
        heard.deadline = heard.deadline.into_iter().chain(deadline).min_by_key(|d| d.at);
        heard.written = Written::Yes;
        notices.heard.insert(entry.key(), heard);
        self.hear(now, moved_to.0, subject, moved_to.1, Written::No, effects);
    }

    /// Continues what an earlier run of this program has begun.
    fn adopt_status(&mut self, record: &Record, open: bool) {
        let status = &record.status;
        for what in &status.settled {
            remember(&mut self.settled, what.clone());
        }
        if open {
            let number = status.episode.max(1);
            let carried = &mut self.carried;
            let episode = self
                .episode
                .get_or_insert_with(|| Episode::new(number, status.boot_id.clone(), std::mem::take(carried)));
            episode.adopt(number, record);
            self.number = number;
        } else {
            self.number = status.episode;
            if let Some(episode) = &mut self.episode {
                episode.number = self.number + 1;
                self.number = episode.number;
            }
        }
    }

    /// Writes every notice that is not in the record yet.
    pub(super) fn write_notices(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.record.contradicts || self.role == Role::StandIn {
            return;
        }
        let Some(episode) = &mut self.episode else {
            return;
        };
        for heard in episode.notices.heard.values_mut().filter(|heard| heard.written.due(now)) {
            let tries = heard.written.tries();
            heard.written = Written::OnItsWay { tries };
            effects.push(Effect::RecordNotice(heard.entry.clone()));
        }
    }

    pub(super) fn notice_recorded(
        &mut self,
        now: Instant,
        key: &NoticeKey,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        self.record.present |= outcome == Outcome::Done;
        let Some(heard) = self.episode.as_mut().and_then(|episode| episode.notices.heard.get_mut(key)) else {
            return;
        };
        let Written::OnItsWay { tries } = heard.written else {
            return;
        };
        heard.written = match outcome {
            Outcome::Done => Written::Yes,
            Outcome::Failed(why) => {
                if tries == 0 {
                    effects.push(Effect::Decided(Because::RecordFailed { why }));
                }
                Written::failed(now, tries)
            }
            Outcome::Refused(why) => {
                effects.push(Effect::Decided(Because::RecordFailed { why }));
                Written::Again { at: now + REFUSED_WAIT, tries: tries.saturating_add(1) }
            }
        };
    }

    /// Writes the status where it has changed and the record exists.
    pub(super) fn write_status(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Some(episode) = &self.episode {
            let (drainer, wanted) = (self.drainer(), self.status.wanted());
            episode.status(drainer, &self.policy, &self.settled, self.node.as_ref(), wanted);
        }
        let held =
            self.status.not_before.is_some_and(|at| now < at) && !(self.status.tries == 0 && self.status.urgent());
        if !self.record.takes_status() || self.leaves_status() || self.status.on_its_way || !self.status.stale() || held
        {
            return;
        }
        self.status.on_its_way = true;
        self.status.sent = self.status.wanted.clone();
        let Some(status) = self.status.wanted.clone().map(Box::new) else { return };
        effects.push(match self.role {
            Role::Agent => Effect::RecordStatus(status),
            // It never writes over what the one that it stands in for has written, and it has not seen.
            Role::StandIn => Effect::RecordStatusOn { version: self.version.clone(), status },
        });
    }

    /// Whether another one drains, and what there is to write is his: all but that it is over.
    pub(super) fn leaves_status(&self) -> bool {
        let told = || self.status.says_confirmed(self.number);
        let left = self.role == Role::Agent && self.policy.drain_by == DrainBy::Provisioner && told();
        self.episode.is_some() && (self.yields() || left)
    }

    pub(super) fn status_recorded(&mut self, now: Instant, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.status.on_its_way = false;
        let (why, wait) = match outcome {
            Outcome::Done => {
                if let Some(sent) = self.status.sent.clone() {
                    self.turn_written(now, &sent);
                }
                self.status.tries = 0;
                self.status.not_before = Some(now + PROGRESS_EVERY);
                return;
            }
            Outcome::Failed(why) => (why, Duration::from_millis(500)),
            Outcome::Refused(why) => (why, REFUSED_WAIT),
        };
        if self.status.tries == 0 {
            effects.push(Effect::Decided(Because::RecordFailed { why }));
        }
        self.status.sent = None;
        self.status.not_before = Some(now + wait.saturating_mul(1 << self.status.tries.min(3)));
        self.status.tries = self.status.tries.saturating_add(1);
    }
}
