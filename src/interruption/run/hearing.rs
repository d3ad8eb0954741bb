//! What is heard of notices, by IMDS, the queue and the record: which are new, which say the same again, which are off.

use super::episode::Episode;
use super::{Keeper, remember};
use crate::api::interruption::{NoticeEntry, NoticeKey, Phase};
use crate::domain::notice::{Kind, Source, Subject};
use crate::domain::time::{Deadline, Instant};
use crate::interruption::merge::{Heard, Written, effective_deadline, effective_deadline_of, has_counterpart, settled};
use crate::interruption::{Because, Effect, Reading, Rebalance};

impl Keeper {
    /// Takes in one answer of IMDS.
    pub(super) fn imds_answered(&mut self, now: Instant, reading: Reading, effects: &mut Vec<Effect>) {
        let spot = reading.spot;
        let rebalance = reading.rebalance;
        let scheduled = reading.scheduled.clone();
        let asked_scheduled = scheduled.is_some();
        let listed_before = self.imds.active_events();
        let before = self.episode.as_ref().map(|episode| (episode.number, episode.notices.announced()));
        self.imds.answered(reading);
        if let Some(spot) = spot {
            let subject = Subject::SpotInterruption(spot.action);
            let entry =
                self.entry(now, Source::Imds, &subject, spot.deadline.announced.to_string(), Some(spot.deadline));
            self.hear(now, entry, subject, Some(spot.deadline), Written::No, effects);
        }
        if let Some(noticed) = rebalance {
            let subject = Subject::RebalanceRecommendation;
            let entry = self.entry(now, Source::Imds, &subject, noticed.to_string(), None);
            self.hear(now, entry, subject, None, Written::No, effects);
        }
        if let Some(events) = scheduled {
            let active: Vec<_> = events.into_iter().filter(|event| !event.over).collect();
            let ids: Vec<String> = active.iter().map(|event| event.event_id.clone()).collect();
            self.scheduled_withdrawn(now, &ids, effects);
            for event in active {
                let subject = Subject::ScheduledChange(event.code);
                let entry = self.entry(now, Source::Imds, &subject, event.event_id, Some(event.not_before));
                let came_back = listed_before.as_ref().is_some_and(|ids| !ids.contains(&entry.event_id));
                if came_back && !event.not_before.passed(now) {
                    // Withdrawn, and announced once more with the same time.
                    self.unsettle(&entry);
                }
                self.hear(now, entry, subject, Some(event.not_before), Written::No, effects);
            }
        }
        if let Some(episode) = &mut self.episode {
            for (kind, by, deadline) in episode.notices.confirm(&self.imds) {
                episode.confirmed(now, &self.epoch, kind, by, deadline, effects);
            }
            episode.notices.denied(asked_scheduled);
            // What the queue had said gives way to IMDS's own date.
            let now = (episode.number, episode.notices.announced());
            if before.is_some_and(|before| before.0 == now.0 && before.1.is_some() && now.1 > before.1) {
                self.number += 1;
                episode.roll(self.number);
            }
        }
    }

    /// It is announced anew: that it was over once counts no more.
    fn unsettle(&mut self, entry: &NoticeEntry) {
        let what = settled(entry);
        self.settled.retain(|settled| *settled != what);
    }

    /// An entry of the record, as this agent reports it.
    pub(super) fn entry(
        &self,
        now: Instant,
        source: Source,
        subject: &Subject,
        id: String,
        deadline: Option<Deadline>,
    ) -> NoticeEntry {
        NoticeEntry {
            source,
            kind: subject.kind(),
            event_id: id,
            action: subject.action(),
            reporter: Some(self.me.node.clone()),
            noticed_at: Some(self.epoch.wall(now)),
            deadline: deadline.map(|d| d.announced),
        }
    }

    /// Takes in one notice, of whatever source.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        entry: NoticeEntry,
        subject: Subject,
        deadline: Option<Deadline>,
        written: Written,
        effects: &mut Vec<Effect>,
    ) {
        let deadline = deadline.map(|deadline| self.anchor.place(now, deadline));
        let key = entry.key();
        let known = self.episode.as_ref().and_then(|episode| episode.notices.same(&key));
        // A scheduled event that is open may be moved back to a time that it had before.
        let moved = known.is_some() && written != Written::Yes && key.kind == Kind::ScheduledChange;
        if !moved && self.settled.contains(&settled(&entry)) {
            return;
        }
        if subject == Subject::RebalanceRecommendation && self.policy.rebalance == Rebalance::Ignore {
            if self.said.insert("ignored") {
                effects.push(Effect::Decided(Because::Ignored { kind: key.kind }));
            }
            return;
        }
        if let Some(known) = known {
            self.hear_again(now, known, entry, deadline, written, effects);
            return;
        }
        if key.source == Source::Sqs && self.episode.as_ref().is_some_and(|episode| episode.notices.crowded()) {
            if self.said.insert("crowded") {
                effects.push(Effect::Decided(Because::Crowded { notice: key }));
            }
            return;
        }
        if key.source == Source::Sqs && !has_counterpart(key.kind) {
            effects.push(Effect::Decided(Because::RecordedOnly { kind: key.kind }));
        }
        let ago = self.heard_ago(now, &entry);
        let number = self.number + 1;
        let boot_id = self.node.as_ref().and_then(|node| node.boot_id.clone());
        let carried = &mut self.carried;
        let episode = self.episode.get_or_insert_with(|| Episode::new(number, boot_id, std::mem::take(carried)));
        self.number = episode.number;
        let deadline = effective_deadline_of(&subject, deadline, now, ago);
        effects.push(Effect::Decided(match episode.notices.heard.is_empty() {
            true => Because::Noticed { notice: key.clone(), left: deadline.map(|d| d.at.since(now)) },
            false => Because::SaidAgain { notice: key.clone() },
        }));
        episode.timeline.noticed_at.get_or_insert(self.epoch.wall(now));
        let heard = Heard { entry, subject, deadline, at: now, confirmed: None, denials: 0, written, inherited: false };
        episode.notices.heard.insert(key, heard);
    }

    /// A notice that is known is said once more, perhaps with another time.
    fn hear_again(
        &mut self,
        now: Instant,
        known: NoticeKey,
        entry: NoticeEntry,
        deadline: Option<Deadline>,
        written: Written,
        effects: &mut Vec<Effect>,
    ) {
        let Some(heard) = self.episode.as_mut().and_then(|episode| episode.notices.heard.get_mut(&known)) else {
            return;
        };
        if written == Written::Yes {
            if heard.entry.deadline == entry.deadline && !matches!(heard.written, Written::OnItsWay { .. }) {
                heard.written = Written::Yes;
            }
            // AWS Health announces a change anew under the same id, and another node's agent may have read that. While
            // a word of our own is not in the record, the record only lags behind.
            let by_health = (known.source, known.kind) == (Source::Sqs, Kind::ScheduledChange);
            if !by_health || heard.written != Written::Yes {
                return;
            }
        } else {
            heard.inherited = false;
        }
        if heard.entry.deadline == entry.deadline {
            return;
        }
        match (entry.deadline, heard.entry.deadline) {
            (Some(new), Some(old)) if new > old => {
                // A spot notice keeps its first deadline; a scheduled event follows its latest revision, and since a
                // deadline never moves later within an episode, a later one begins the next.
                if known.kind == Kind::ScheduledChange {
                    let subject = heard.subject.clone();
                    self.unsettle(&entry);
                    self.drop_notice(
                        now,
                        &known,
                        Phase::Cancelled,
                        Because::Rescheduled { notice: known.clone() },
                        effects,
                    );
                    self.hear(now, entry, subject, deadline, written, effects);
                }
            }
            (Some(_), _) => {
                // Hibernation begins when it was first heard of, whatever time is announced.
                let deadline = effective_deadline(&heard.subject, deadline, now);
                heard.deadline = heard.deadline.into_iter().chain(deadline).min_by_key(|d| d.at);
                let before = std::mem::replace(&mut heard.entry.deadline, entry.deadline);
                heard.written = written;
                if known.kind == Kind::ScheduledChange {
                    // The watch may still bring the record as it was.
                    remember(&mut self.settled, settled(&NoticeEntry { deadline: before, ..entry }));
                }
            }
            (None, _) => {}
        }
    }

    /// IMDS lists the scheduled events: those that it does not list any more are off.
    pub(super) fn scheduled_withdrawn(&mut self, now: Instant, active: &[String], effects: &mut Vec<Effect>) {
        let Some(episode) = &self.episode else { return };
        let off: Vec<NoticeKey> = episode
            .notices
            .heard
            .iter()
            .filter(|(key, _)| key.kind == Kind::ScheduledChange)
            .filter(|(key, heard)| match key.source {
                Source::Imds => !active.contains(&key.event_id),
                // AWS Health names events otherwise than IMDS does: with none left, it is off as well.
                Source::Sqs => heard.confirmed.is_some() && active.is_empty(),
                Source::Operator | Source::Provisioner => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in off {
            self.drop_notice(now, &key, Phase::Cancelled, Because::Withdrawn { notice: key.clone() }, effects);
        }
    }

    /// A notice counts no more. Where it was the last, the episode ends in `phase`; where it had set the deadline, the
    /// rest goes on in the next episode.
    pub(super) fn drop_notice(
        &mut self,
        now: Instant,
        key: &NoticeKey,
        phase: Phase,
        because: Because,
        effects: &mut Vec<Effect>,
    ) {
        let Some(episode) = &mut self.episode else {
            return;
        };
        let before = episode.notices.deadline();
        let Some(heard) = episode.notices.heard.remove(key) else {
            return;
        };
        remember(&mut self.settled, settled(&heard.entry));
        effects.push(Effect::Decided(because.clone()));
        if episode.notices.heard.is_empty() {
            self.end(now, phase, &because, effects);
        } else if heard.confirmed.is_some() && episode.notices.deadline() != before {
            self.number += 1;
            episode.roll(self.number);
        }
    }
}
