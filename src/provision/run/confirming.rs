//! Notices that the queue alone has told: EC2 is asked whether they are so.

use std::collections::{BTreeMap, BTreeSet};

use super::Provisioner;
use crate::api::interruption::{NoticeEntry, NoticeKey};
use crate::domain::notice::InstanceId;
use crate::domain::time::{Deadline, Instant};
use crate::interruption::Outcome;
use crate::provision::bucket::Bucket;
use crate::provision::witness::{self, FIRST_LOOK, LOOK_MAX, LOOKS_FOR, LOOKS_MAX, NotSeen, Sight};
use crate::provision::writes::Writes;
use crate::provision::{Because, Doomed, Effect};

/// How many notices of one record are looked for: what EC2 says of an instance is the same for all of a kind, and whoever
/// floods the queue must not make the leader slow.
const SOUGHT_MAX: usize = 8;

/// What is looked for, and what is being written.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    bucket: Bucket,
    sought: BTreeMap<(InstanceId, NoticeKey), Sought>,
    on_its_way: bool,
    failing: bool,
    /// What was seen, until the record has it.
    seen: BTreeMap<(InstanceId, NoticeKey), (NoticeEntry, Writes<NoticeEntry>)>,
}

/// One notice that EC2 is to bear out.
#[derive(Clone, Debug)]
struct Sought {
    entry: NoticeEntry,
    next: Instant,
    looks: u32,
    until: Instant,
}

impl Sought {
    /// Whether nothing more is to be asked about it.
    fn is_over(&self) -> bool {
        self.looks >= LOOKS_MAX || self.next > self.until
    }
}

impl Looks {
    pub(super) fn new((size, per_sec): (u32, f64)) -> Self {
        let (sought, seen) = Default::default();
        Self { bucket: Bucket::new(size, per_sec), sought, on_its_way: false, failing: false, seen }
    }

    /// Whoever leads next begins anew; what EC2 grants is known for longer.
    pub(super) fn forget(&mut self) {
        (self.on_its_way, self.failing) = (false, false);
        self.sought.clear();
        self.seen.clear();
    }

    pub(super) fn gone(&mut self, instance: &InstanceId) {
        self.sought.retain(|(of, _), _| of != instance);
        self.seen.retain(|(of, _), _| of != instance);
    }

    /// Whether a notice of ours is being written.
    pub(super) fn writes(&self, instance: &InstanceId, key: &NoticeKey) -> bool {
        self.seen.contains_key(&(instance.clone(), key.clone()))
    }

    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let sought = self.sought.values().filter(|one| !one.is_over()).map(|one| one.next).min();
        let look = sought.filter(|_| !self.on_its_way).map(|at| at.max(self.bucket.next(now)));
        let writes = self.seen.values().filter_map(|(entry, writes)| writes.wakeup(entry));
        look.into_iter().chain(writes).min()
    }
}

impl Provisioner {
    /// A record is new or has changed: which of its notices are to be looked for.
    pub(super) fn seek(&mut self, now: Instant, doomed: &Doomed) {
        let of = |key: &NoticeKey| (doomed.instance.clone(), key.clone());
        let open: Vec<&NoticeEntry> = witness::unconfirmed(&doomed.notices, &doomed.settled).take(SOUGHT_MAX).collect();
        let is_open = |key: &NoticeKey| open.iter().any(|entry| entry.key() == *key);
        self.looks.sought.retain(|(id, key), _| *id != doomed.instance || is_open(key));
        for entry in open {
            let until = match entry.deadline {
                Some(announced) => Deadline::place(announced, self.epoch.wall(now), now).at,
                // Whoever leads after another does not begin to count anew.
                None => {
                    (now + LOOKS_FOR) - entry.noticed_at.map_or_else(Default::default, |at| self.epoch.ago(at, now))
                }
            };
            let sought = || Sought { entry: entry.clone(), next: now + FIRST_LOOK, looks: 0, until };
            self.looks.sought.entry(of(&entry.key())).or_insert_with(sought);
        }
        // What is in the record need not be written.
        let there = |key: &NoticeKey| doomed.notices.iter().any(|entry| entry.key() == *key);
        self.looks.seen.retain(|(id, key), _| *id != doomed.instance || !there(key));
    }

    /// Everything that is to be looked for, when this replica begins to lead.
    pub(super) fn seek_all(&mut self, now: Instant) {
        let all: Vec<Doomed> = self.doomed.values().filter(|of| !of.notices.is_empty()).cloned().collect();
        all.iter().for_each(|doomed| self.seek(now, doomed));
    }

    /// Asks EC2 about what is due, and writes what was seen.
    pub(super) fn look(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.write_seen(now, effects);
        let due = |one: &Sought| !one.is_over() && one.next <= now;
        if self.looks.on_its_way || !self.looks.sought.values().any(due) || !self.looks.bucket.take(now) {
            return;
        }
        let mut of = BTreeSet::new();
        let mut reservations = false;
        for ((instance, key), one) in self.looks.sought.iter_mut().filter(|(_, one)| due(one)) {
            if of.len() == LOOK_MAX && !of.contains(instance) {
                continue;
            }
            of.insert(instance.clone());
            reservations |= witness::is_of_reservation(key.kind);
            one.looks += 1;
            one.next = now + witness::pause(one.looks);
        }
        self.looks.on_its_way = true;
        effects.push(Effect::Look { of: of.into_iter().collect(), reservations });
    }

    pub(super) fn looked(&mut self, now: Instant, answer: Result<Vec<Sight>, NotSeen>, effects: &mut Vec<Effect>) {
        self.looks.on_its_way = false;
        let sights = match answer {
            Ok(sights) => sights,
            Err(NotSeen { throttled, why }) => {
                if throttled {
                    self.looks.bucket.throttled(now, 0.0);
                }
                if !std::mem::replace(&mut self.looks.failing, true) {
                    self.say("", Because::ReadFailed { what: "what EC2 says of notices", why }, effects);
                }
                return;
            }
        };
        self.looks.bucket.answered();
        self.looks.failing = false;
        let wall = self.epoch.wall(now);
        let mut said = Vec::new();
        for sight in sights {
            let of = self.looks.sought.iter().filter(|((id, _), _)| *id == sight.instance);
            let found =
                of.filter_map(|(at, one)| Some((at.clone(), one.entry.clone(), sight.evidence(at.1.kind, wall)?)));
            for (at, entry, evidence) in found.collect::<Vec<_>>() {
                self.looks.sought.remove(&at);
                said.push((at.0, Because::SeenInEc2 { notice: at.1, evidence }));
                self.write_down(&sight.instance, witness::notice(&entry, evidence, wall));
            }
        }
        said.into_iter().for_each(|(instance, because)| self.say(instance.as_str(), because, effects));
    }

    /// A notice of ours is to be in the record of an instance.
    pub(super) fn write_down(&mut self, instance: &InstanceId, entry: NoticeEntry) {
        let at = (instance.clone(), entry.key());
        self.looks.seen.entry(at).or_insert_with(|| (entry, Writes::from(None)));
    }

    fn write_seen(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.looks.seen.retain(|(instance, _), (entry, writes)| {
            let doomed = self.doomed.get(instance);
            let named = doomed.map(|doomed| (doomed.node.clone(), doomed.record.provider_id.clone()));
            let Some((node, provider_id)) =
                named.or_else(|| self.unheard.named(self.found.nodes_of(&self.nodes, instance), instance))
            else {
                // What was to be tried again has nobody to be written of: its Node is long gone, and it has no record.
                return writes.retry().is_none();
            };
            if let Some(entry) = writes.next(now, entry) {
                effects.push(Effect::WriteNotice { instance: instance.clone(), node, provider_id, entry });
            }
            true
        });
    }

    pub(super) fn notice_written(
        &mut self,
        now: Instant,
        instance: &InstanceId,
        key: &NoticeKey,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let seen = self.looks.seen.get_mut(&(instance.clone(), key.clone()));
        let why = seen.and_then(|(_, writes)| writes.answered(now, outcome));
        if let Some(why) = why {
            let what = format!("what EC2 says of {instance}");
            self.say(instance.as_str(), Because::WriteFailed { what, why }, effects);
        }
    }
}
