//! What a leader has learnt of shortages and trouble outlives it: it is left to the next one, which reads it first.

use std::time::Duration;

use jiff::Timestamp;

use super::Provisioner;
use crate::api::launch::LaunchSpec;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::memory::{Memory, SEEN_EVERY};
use crate::provision::{Because, Effect};

/// The longest that new attempts wait for what was left.
const WAIT: Duration = Duration::from_secs(2);

/// How soon a reading that failed is repeated, and how late at most.
const READ_AGAIN: Duration = Duration::from_secs(1);
const READ_AGAIN_MAX: Duration = Duration::from_secs(30);

/// How often it is written at most; after failures more rarely.
const WRITE_EVERY: Duration = Duration::from_secs(5);
const WRITE_AGAIN_MAX: Duration = Duration::from_secs(60);

/// How much had been learnt: of shortages, of trouble.
type Learnt = (u64, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Remembering {
    /// When the term began.
    began: Instant,
    /// What was left is known, or that there is nothing.
    recalled: bool,
    reading: bool,
    read_again: Option<Instant>,
    unread: u32,
    /// How much had been learnt of what the API server has.
    written: Learnt,
    on_its_way: Option<Learnt>,
    /// Which writing was the last that was tried, and when.
    last: Option<(Timestamp, Instant)>,
    write_again: Instant,
    unwritten: u32,
}

impl Remembering {
    /// A new term. What this replica has written itself it still knows.
    pub(super) fn begins(&mut self, now: Instant) {
        let (written, last) = (self.written, self.last);
        *self = Self { began: now, written, last, ..Self::default() };
    }

    /// Whether new attempts wait for what was left: never for long.
    pub(super) fn is_awaited(&self, now: Instant) -> bool {
        !self.recalled && now < self.began + WAIT
    }
}

impl Provisioner {
    /// Reads what was left, until that has been answered.
    pub(super) fn recall(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let of = &mut self.remembering;
        if !of.recalled && !of.reading && of.read_again.is_none_or(|at| at <= now) {
            of.reading = true;
            effects.push(Effect::Recall);
        }
    }

    pub(super) fn recalled(&mut self, now: Instant, found: Result<Option<String>, String>, effects: &mut Vec<Effect>) {
        let of = &mut self.remembering;
        if !std::mem::take(&mut of.reading) || of.recalled {
            return;
        }
        let text = match found {
            Ok(text) => text,
            Err(why) => {
                let pause = READ_AGAIN.saturating_mul(1 << of.unread.min(8)).min(READ_AGAIN_MAX);
                of.read_again = Some(now + pause);
                of.unread = of.unread.saturating_add(1);
                if of.unread == 1 {
                    let what = "what an earlier leader has left of shortages";
                    self.say("", Because::ReadFailed { what, why }, effects);
                }
                return;
            }
        };
        of.recalled = true;
        match text.map(|text| Memory::read(&text)) {
            None => {}
            Some(Err(why)) => self.say("", Because::NotRecalled { why }, effects),
            Some(Ok(memory)) => self.take_over(now, &memory, effects),
        }
    }

    fn take_over(&mut self, now: Instant, memory: &Memory, effects: &mut Vec<Effect>) {
        // Its own: what it knows is no less than that.
        if self.remembering.last.is_some_and(|(at, _)| at == memory.at) {
            return;
        }
        let (epoch, began) = (self.epoch, self.remembering.began);
        let left: Vec<_> = memory.beliefs(now, &epoch).collect();
        let short = left.len();
        self.shortages.take_over(began, left.into_iter());
        let mut trouble = 0;
        for (pool, interrupted, gave_nothing) in memory.troubles(now, &epoch) {
            self.risks.take_over(pool, interrupted, gave_nothing);
            trouble += 1;
        }
        memory.looked_since(now, &epoch).into_iter().for_each(|since| self.risks.were_looked_at(since));
        self.probes_on_their_way(now);
        self.looks_at_all();
        if short + trouble > 0 {
            self.say("", Because::Recalled { short, trouble }, effects);
        }
    }

    /// What calls of an earlier leader ask for is being probed by them.
    pub(super) fn probes_on_their_way(&mut self, now: Instant) {
        let open: Vec<(String, LaunchSpec)> = self
            .launches
            .values()
            .filter(|run| run.is_open())
            .map(|run| (run.name.clone(), run.spec.clone()))
            .collect();
        for (name, spec) in open {
            for one in &spec.overrides {
                let class = self.quota_class(&one.instance_type);
                self.shortages.is_on_its_way(now, one, class, spec.capacity_type, &name);
            }
        }
    }

    fn learnt_so_far(&self) -> Learnt {
        (self.shortages.changes(), self.risks.changes())
    }

    /// Leaves to the next leader what has been learnt; and while quiet is waited for, that somebody still looks.
    pub(super) fn remember(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (of, learnt) = (&self.remembering, self.learnt_so_far());
        // Before it is known what is there nothing is written over it.
        if !of.recalled || of.on_its_way.is_some() || now < of.write_again {
            return;
        }
        let waits_for_quiet = self.returns.wakeup().is_some();
        let unseen = waits_for_quiet && of.last.is_none_or(|(_, at)| now.since(at) >= SEEN_EVERY);
        if learnt == of.written && !unseen {
            return;
        }
        let memory = Memory::of(now, &self.epoch, &self.shortages, &self.risks);
        let of = &mut self.remembering;
        of.last = Some((memory.at, now));
        of.on_its_way = Some(learnt);
        of.write_again = now + WRITE_EVERY;
        effects.push(Effect::Remember { memory: Box::new(memory) });
    }

    pub(super) fn remembered(&mut self, now: Instant, outcome: Outcome, effects: &mut Vec<Effect>) {
        let of = &mut self.remembering;
        let Some(learnt) = of.on_its_way.take() else { return };
        match outcome {
            Outcome::Done => (of.written, of.unwritten) = (learnt, 0),
            Outcome::Refused(why) | Outcome::Failed(why) => {
                let pause = WRITE_EVERY.saturating_mul(1 << of.unwritten.min(8)).min(WRITE_AGAIN_MAX);
                of.write_again = now + pause;
                of.unwritten = of.unwritten.saturating_add(1);
                if of.unwritten == 1 {
                    let what = "what is known of shortages".to_owned();
                    self.say("", Because::WriteFailed { what, why }, effects);
                }
            }
        }
    }

    /// When something of it is due.
    pub(super) fn remembering_wakeup(&self) -> Option<Instant> {
        let (now, of) = (self.now, &self.remembering);
        let attempts = Some(of.began + WAIT).filter(|at| !of.recalled && *at > now);
        let read = of.read_again.filter(|at| !of.recalled && !of.reading && *at > now);
        let unwritten = of.recalled && of.on_its_way.is_none() && self.learnt_so_far() != of.written;
        let write = Some(of.write_again).filter(|at| unwritten && *at > now);
        [attempts, read, write].into_iter().flatten().min()
    }
}
