//! EC2's list of instances, read again and again, and at once where somebody needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::unheard::is_begun;
use super::{NOT_SHOWN_YET, Provisioner, READ_AGAIN};
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::witness::NotSeen;
use crate::provision::writes::Pause;
use crate::provision::{Because, Effect, Instance};

#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) on_its_way: bool,
    pause: Pause,
    /// EC2 asks for fewer calls: nothing before this, whoever needs it.
    closed_until: Instant,
    pub(super) next: Instant,
    /// Doomed instances that nothing is known about yet.
    pub(super) wanted: BTreeSet<InstanceId>,
    /// Instances that EC2 does not show, since when: a new one may take its time.
    pub(super) missing: BTreeMap<InstanceId, Instant>,
    /// All instances were read in this term.
    pub(super) all_were_read: bool,
    /// When they were read last.
    pub(super) all_at: Option<Instant>,
}

/// The longest pause after a reading that failed, and after one that was throttled.
const FAILED_MAX: Duration = Duration::from_secs(8);
const THROTTLED_MAX: Duration = Duration::from_secs(60);

impl Reading {
    /// When the next one is due.
    pub(super) fn due(&self) -> Instant {
        self.next.max(self.closed_until)
    }

    /// Whether EC2 has not shown it for so long that it does not know it.
    pub(super) fn is_unknown(&self, now: Instant, instance: &InstanceId) -> bool {
        self.missing.get(instance).is_some_and(|since| now.since(*since) >= NOT_SHOWN_YET)
    }
}

impl Provisioner {
    pub(super) fn read(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.reading.on_its_way || now < self.reading.due() {
            return;
        }
        self.reading.on_its_way = true;
        let nodes = self.nodes.values().chain(self.unheard.went(now)).filter_map(|node| node.instance.clone());
        let begun = self.doomed.values().filter(|doomed| is_begun(doomed)).map(|doomed| doomed.instance.clone());
        let of: BTreeSet<InstanceId> = nodes.chain(begun).chain(self.reading.wanted.iter().cloned()).collect();
        self.gone.asks(&of);
        effects.push(Effect::ReadInstances { of: of.into_iter().collect() });
    }

    pub(super) fn instances_read(
        &mut self,
        now: Instant,
        all: bool,
        instances: Vec<Instance>,
        effects: &mut Vec<Effect>,
    ) {
        (self.reading.on_its_way, self.reading.pause) = (false, Pause::default());
        self.reading.next = now + self.settings.resync;
        self.reading.all_were_read |= all;
        if all {
            self.reading.all_at = Some(now);
            self.look_for_plain = true;
        }
        let wanted = std::mem::take(&mut self.reading.wanted);
        let instances = instances.into_iter().map(|instance| (instance.id.clone(), instance));
        match all {
            true => self.instances = instances.collect(),
            false => self.instances.extend(instances),
        }
        self.reclassify(now, effects);
        self.reading.missing.retain(|id, _| wanted.contains(id));
        for id in wanted.into_iter().filter(|id| !self.instances.contains_key(id)) {
            self.reading.missing.entry(id).or_insert(now);
            self.reading.next = now + READ_AGAIN;
        }
        if all {
            self.name_nodes();
            self.look_for_unheard(now, effects);
            self.look_for_ending_blocks(now, effects);
            self.look_for_gone(now, effects);
            self.instances_gone(now, effects);
            self.forget_ended(now, effects);
        }
        self.find_all_orphans(now);
        self.looks_at_all();
    }

    pub(super) fn instances_failed(
        &mut self,
        now: Instant,
        NotSeen { throttled, why }: NotSeen,
        effects: &mut Vec<Effect>,
    ) {
        self.reading.on_its_way = false;
        let first = self.reading.pause.is_new();
        let longest = if throttled { THROTTLED_MAX } else { FAILED_MAX };
        self.reading.next = now + self.reading.pause.next(READ_AGAIN, longest);
        if throttled {
            self.reading.closed_until = self.reading.next;
        }
        if first {
            self.say("", Because::ReadFailed { what: "the list of instances", why }, effects);
        }
    }
}
