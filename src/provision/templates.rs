//! Launch templates of ours that nothing uses any more: which of them are to go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::time::Instant;

/// How many are deleted at a time.
const AT_ONCE: usize = 3;

/// How many times within the grace it is looked.
const LOOKS: u32 = 12;
const LOOK_MIN: Duration = Duration::from_secs(10);

/// How soon it is looked again where EC2 has not answered.
const AGAIN: Duration = Duration::from_secs(60);

/// A launch template with this cluster's tag and a name as ours have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OurTemplate {
    /// `lt-…`.
    pub id: String,
    pub name: String,
}

/// Since when each is unused.
#[derive(Clone, Debug)]
pub(super) struct Templates {
    grace: Duration,
    pub(super) next: Instant,
    pub(super) on_its_way: bool,
    unused: BTreeMap<OurTemplate, Instant>,
    deleting: BTreeSet<String>,
    failing: bool,
}

impl Templates {
    pub(super) fn new(grace: Duration) -> Self {
        let (unused, deleting) = (BTreeMap::new(), BTreeSet::new());
        Self { grace, next: Instant::default(), on_its_way: false, unused, deleting, failing: false }
    }

    /// These there are, and `used` says what is named by id or name. Returns those that are to go now.
    pub(super) fn seen(&mut self, now: Instant, all: Vec<OurTemplate>, used: &BTreeSet<&str>) -> Vec<OurTemplate> {
        (self.on_its_way, self.failing) = (false, false);
        self.next = now + (self.grace / LOOKS).max(LOOK_MIN);
        let is_used = |of: &OurTemplate| used.contains(of.id.as_str()) || used.contains(of.name.as_str());
        let unused: BTreeSet<OurTemplate> = all.into_iter().filter(|of| !is_used(of)).collect();
        self.unused.retain(|of, _| unused.contains(of));
        for of in unused {
            self.unused.entry(of).or_insert(now);
        }
        let due = self
            .unused
            .iter()
            .filter(|(of, since)| now.since(**since) >= self.grace && !self.deleting.contains(&of.id));
        let due: Vec<OurTemplate> = due.map(|(of, _)| of.clone()).take(AT_ONCE).collect();
        self.deleting.extend(due.iter().map(|of| of.id.clone()));
        due
    }

    /// They were read while it cannot be told what is used.
    pub(super) fn skipped(&mut self, now: Instant) {
        self.on_its_way = false;
        self.next = now + (self.grace / LOOKS).max(LOOK_MIN);
    }

    /// EC2 has not answered. Returns whether that is news.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        (self.on_its_way, self.next) = (false, now + AGAIN);
        !std::mem::replace(&mut self.failing, true)
    }

    /// It is gone, or it could not be deleted: the next look tells.
    pub(super) fn deleted(&mut self, id: &str) {
        self.deleting.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Instant {
        Instant::from_millis(minutes * 60_000)
    }

    fn template(n: usize) -> OurTemplate {
        OurTemplate { id: format!("lt-{n}"), name: format!("spotkeeper-{n}") }
    }

    fn hourly() -> Templates {
        Templates::new(Duration::from_secs(3_600))
    }

    #[test]
    fn one_that_is_unused_for_the_whole_grace_goes_and_a_use_begins_it_anew() {
        let mut templates = hourly();
        let all = || vec![template(1), template(2), template(3)];
        let (by_id, by_name) = (BTreeSet::from(["lt-1"]), BTreeSet::from(["spotkeeper-2", "lt-1"]));
        assert!(templates.seen(at(0), all(), &by_name).is_empty());
        assert!(templates.seen(at(30), all(), &by_id).is_empty(), "2 is unused from here on");
        assert_eq!(templates.seen(at(60), all(), &by_id), [template(3)]);
        assert!(templates.seen(at(70), all(), &by_id).is_empty(), "that is on its way");
        assert!(templates.seen(at(80), all(), &by_name).is_empty(), "2 was used again");
        templates.deleted("lt-3");
        assert_eq!(templates.seen(at(90), all(), &by_id), [template(3)], "it could not be deleted");
        assert!(templates.seen(at(139), all(), &by_id).is_empty());
        assert_eq!(templates.seen(at(150), all(), &by_id), [template(2)]);
    }

    #[test]
    fn only_a_few_go_at_a_time() {
        let mut templates = hourly();
        let all = || (0..10).map(template).collect::<Vec<_>>();
        templates.seen(at(0), all(), &BTreeSet::new());
        assert_eq!(templates.seen(at(60), all(), &BTreeSet::new()).len(), AT_ONCE);
        assert_eq!(templates.seen(at(65), all(), &BTreeSet::new()).len(), AT_ONCE);
        assert_eq!(templates.next, at(70));
    }

    #[test]
    fn one_of_the_same_name_that_was_made_again_has_a_grace_of_its_own() {
        let mut templates = hourly();
        let again = OurTemplate { id: "lt-9".into(), ..template(1) };
        templates.seen(at(0), vec![template(1)], &BTreeSet::new());
        assert!(templates.seen(at(60), vec![again.clone()], &BTreeSet::new()).is_empty());
        assert_eq!(templates.seen(at(120), vec![again.clone()], &BTreeSet::new()), [again]);
    }
}
