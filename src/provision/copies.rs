//! What is launched in the place of an instance that has no launch template: one of ours that says the same. It is read
//! and made while the instance lives, ahead of any notice: one that has ended tells nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Instance;
use super::bucket::Bucket;
use super::class::template::VERSION;
use crate::api::node_claim::Recipe;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;

/// How long a copy is believed: security groups and volumes may be changed while an instance runs.
const FRESH: Duration = Duration::from_secs(3_600);

/// How soon what could not be read is read again, and the longest; and of an instance that is doomed.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MAX: Duration = Duration::from_secs(300);
const DOOMED_AGAIN: Duration = Duration::from_secs(1);
const DOOMED_AGAIN_MAX: Duration = Duration::from_secs(8);

/// How many are read at once, and in a second: ahead, and at a notice. Each is a handful of calls.
const AHEAD: (u32, f64) = (5, 1.0);
const AT_NOTICE: (u32, f64) = (20, 5.0);

/// How EC2 answered [`Effect::Copy`](super::Effect::Copy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The launch template of this name says the same; `made`: it was not there before.
    Like { template: String, made: bool },
    /// The instance has ended, or is unknown: nothing can be read of it any more.
    Gone,
    /// It could not be read, or not be made.
    Failed(String),
}

/// What is known of an instance's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy<'a> {
    Unread,
    /// It is launched with the template of this name.
    Like(&'a str),
    Gone,
}

/// The copies of all instances that want one.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    known: BTreeMap<InstanceId, Known>,
    ahead: Bucket,
    at_notice: Bucket,
    /// It was looked for instances once.
    looked: bool,
}

#[derive(Clone, Debug, Default)]
struct Known {
    template: Option<String>,
    gone: bool,
    /// It is wanted now.
    doomed: bool,
    on_its_way: bool,
    next: Instant,
    /// How often in a row it could not be read.
    failed: u32,
}

impl Default for Copies {
    fn default() -> Self {
        let bucket = |(size, per_sec)| Bucket::new(size, per_sec);
        Self { known: BTreeMap::new(), ahead: bucket(AHEAD), at_notice: bucket(AT_NOTICE), looked: false }
    }
}

impl Copies {
    /// What is known of the copy of an instance.
    pub(super) fn of(&self, instance: &InstanceId) -> Copy<'_> {
        match self.known.get(instance) {
            Some(Known { template: Some(template), .. }) => Copy::Like(template),
            Some(Known { gone: true, .. }) => Copy::Gone,
            _ => Copy::Unread,
        }
    }

    /// The templates that are like something that may be lost.
    pub(super) fn templates(&self) -> impl Iterator<Item = &str> {
        self.known.values().filter_map(|known| known.template.as_deref())
    }

    /// Whether it is known of every instance what is like it.
    pub(super) fn are_known(&self) -> bool {
        self.looked && self.known.values().all(|known| known.template.is_some() || known.gone)
    }

    /// These live without a template; of all that `may_be_wanted` what is known is kept.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        alive: BTreeSet<InstanceId>,
        may_be_wanted: impl Fn(&InstanceId) -> bool,
    ) {
        self.looked = true;
        self.known.retain(|instance, known| alive.contains(instance) || known.on_its_way || may_be_wanted(instance));
        for instance in alive {
            self.known.entry(instance).or_insert_with(|| Known { next: now, ..Known::default() });
        }
    }

    /// Somebody is to stand in for it now.
    pub(super) fn want(&mut self, now: Instant, instance: &InstanceId) {
        let known = self.known.entry(instance.clone()).or_default();
        let first = !std::mem::replace(&mut known.doomed, true);
        // What is known need not be read once more: it is launched with that.
        if first && known.template.is_none() {
            (known.next, known.failed) = (known.next.min(now), 0);
        }
    }

    /// A launch was refused for this template: it may not be there any more.
    pub(super) fn refused(&mut self, now: Instant, template: &str) {
        for known in self.known.values_mut().filter(|known| known.template.as_deref() == Some(template)) {
            known.next = known.next.min(now);
        }
    }

    /// Those that are to be read now.
    pub(super) fn read(&mut self, now: Instant) -> Vec<InstanceId> {
        let mut read = Vec::new();
        for doomed in [true, false] {
            let bucket = if doomed { &mut self.at_notice } else { &mut self.ahead };
            for (instance, known) in self.known.iter_mut().filter(|(_, known)| known.doomed == doomed) {
                if known.is_due(now) && bucket.take(now) {
                    known.on_its_way = true;
                    read.push(instance.clone());
                }
            }
        }
        read
    }

    /// EC2 has answered. Returns what went wrong, the first time in a row.
    pub(super) fn answered(&mut self, now: Instant, instance: &InstanceId, copied: &Copied) -> Option<String> {
        let known = self.known.get_mut(instance)?;
        known.on_its_way = false;
        match copied {
            Copied::Like { template, .. } => {
                (known.template, known.gone, known.failed) = (Some(template.clone()), false, 0);
                known.next = now + FRESH;
                None
            }
            // What was read before still holds.
            Copied::Gone => {
                (known.gone, known.next) = (true, now + FRESH);
                None
            }
            Copied::Failed(why) => {
                let (first, most) = if known.doomed { (DOOMED_AGAIN, DOOMED_AGAIN_MAX) } else { (AGAIN, AGAIN_MAX) };
                known.next = now + first.saturating_mul(1 << known.failed.min(8)).min(most);
                known.failed = known.failed.saturating_add(1);
                (known.failed == 1).then(|| why.clone())
            }
        }
    }

    /// When the next one is to be read.
    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let (ahead, at_notice) = (self.ahead.next(now), self.at_notice.next(now));
        let waits = self.known.values().filter(|known| !known.on_its_way);
        waits.map(|known| known.next.max(if known.doomed { at_notice } else { ahead })).min()
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        !self.on_its_way && self.next <= now
    }
}

/// A recipe that copies an instance: its launch template, or one that is `like` it, in the subnets of its kind.
pub(super) fn copy_of(instance: &Instance, like: Option<&str>) -> Option<Recipe> {
    let ours = || Some((like?.to_owned(), VERSION.to_owned()));
    let (id, version) = instance.template.clone().or_else(ours)?;
    let recipe = Recipe {
        launch_template: id,
        launch_template_version: version,
        subnets: instance.subnets.to_vec(),
        tags: instance.tags.clone(),
        ..Recipe::default()
    };
    Some(recipe).filter(|recipe| !recipe.subnets.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> InstanceId {
        format!("i-{n:08x}").parse().unwrap()
    }

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn like(template: &str) -> Copied {
        Copied::Like { template: template.into(), made: true }
    }

    fn following(count: usize) -> Copies {
        let mut copies = Copies::default();
        copies.follow(at(0), (0..count).map(id).collect(), |_| false);
        copies
    }

    #[test]
    fn what_lives_is_read_ahead_at_a_pace_and_a_doomed_one_at_once() {
        let mut copies = following(100);
        assert_eq!(copies.read(at(0)).len(), AHEAD.0 as usize);
        assert!(copies.read(at(0)).is_empty(), "the others wait");
        assert!(copies.wakeup(at(0)).is_some_and(|next| next > at(0)));
        copies.want(at(0), &id(77));
        assert_eq!(copies.wakeup(at(0)), Some(at(0)));
        assert_eq!(copies.read(at(0)), [id(77)]);
        let later = copies.wakeup(at(0)).expect("the others still wait");
        assert!(later > at(0) && later <= at(2));
        assert_eq!(copies.read(later).len(), 1);
    }

    #[test]
    fn what_was_read_is_known_after_the_instance_has_ended_and_until_nobody_can_want_it() {
        let mut copies = following(1);
        assert_eq!((copies.of(&id(0)), copies.are_known()), (Copy::Unread, false));
        copies.read(at(0));
        assert_eq!(copies.answered(at(1), &id(0), &like("t")), None);
        assert_eq!((copies.of(&id(0)), copies.are_known()), (Copy::Like("t"), true));
        copies.follow(at(2), BTreeSet::new(), |_| true);
        copies.want(at(2), &id(0));
        copies.refused(at(3), "another");
        assert!(copies.read(at(3)).is_empty(), "it is known");
        copies.refused(at(3), "t");
        assert_eq!(copies.read(at(3)), [id(0)]);
        copies.answered(at(4), &id(0), &Copied::Gone);
        assert_eq!(copies.of(&id(0)), Copy::Like("t"), "nothing else is known of it");
        copies.follow(at(5), BTreeSet::new(), |_| false);
        assert_eq!((copies.of(&id(0)), copies.templates().count()), (Copy::Unread, 0));
    }

    #[test]
    fn one_that_ended_before_it_was_read_is_gone() {
        let mut copies = Copies::default();
        assert!(!copies.are_known(), "nobody has looked");
        copies.want(at(0), &id(0));
        assert_eq!(copies.read(at(0)), [id(0)]);
        copies.answered(at(1), &id(0), &Copied::Gone);
        assert_eq!(copies.of(&id(0)), Copy::Gone);
    }

    #[test]
    fn what_cannot_be_read_is_tried_less_and_less_often_and_more_often_where_it_is_doomed() {
        let (mut copies, mut pauses, mut now) = (following(1), Vec::new(), at(0));
        for _ in 0..8 {
            assert_eq!(copies.read(now).len(), 1);
            let said = copies.answered(now, &id(0), &Copied::Failed("no".into()));
            assert_eq!(said.is_some(), pauses.is_empty(), "said once");
            let next = copies.wakeup(now).expect("it is tried again");
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        copies.want(now, &id(0));
        copies.read(now);
        assert!(copies.answered(now, &id(0), &Copied::Failed("no".into())).is_some(), "it matters now");
        assert_eq!(copies.wakeup(now), Some(now + DOOMED_AGAIN));
    }

    #[test]
    fn a_copy_is_looked_at_again_after_an_hour() {
        let mut copies = following(1);
        copies.read(at(0));
        copies.answered(at(0), &id(0), &like("t"));
        assert!(copies.read(at(3_599)).is_empty());
        assert_eq!(copies.read(at(3_600)), [id(0)]);
        copies.answered(at(3_600), &id(0), &like("u"));
        assert_eq!(copies.of(&id(0)), Copy::Like("u"), "a security group was changed");
    }
}
