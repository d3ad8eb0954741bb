//! A map that knows which of its entries may have changed since they were looked at.
//!
//! In a storm there are thousands of claims and nodes, and a hundred thousand inputs that concern one of them each. What
//! an input cannot have changed is not looked at again.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;

/// How often something is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// With every input.
    Always,
    /// With those inputs that say that something of the world may have changed.
    Changed,
}

/// Keys that are to be looked at.
#[derive(Clone, Debug)]
struct Marks<K> {
    next: BTreeSet<K>,
    /// Those of the turn: what is marked while it lasts may have been passed already, so it is looked at in the next, too.
    now: BTreeSet<K>,
    /// Everything is, in the next turn and in this one. What comes or goes after that is marked by itself.
    all_next: bool,
    all_now: bool,
}

impl<K> Marks<K> {
    fn turn(&mut self) {
        self.now = std::mem::take(&mut self.next);
        self.all_now = std::mem::take(&mut self.all_next);
    }

    fn are_all(&self) -> bool {
        self.all_now || self.all_next
    }
}

impl<K> Default for Marks<K> {
    fn default() -> Self {
        Self { next: BTreeSet::new(), now: BTreeSet::new(), all_next: false, all_now: false }
    }
}

/// The map. What is to be looked at is no part of what it says of itself: it changes nothing that is done.
#[derive(Clone)]
pub(super) struct Watched<K, V> {
    all: BTreeMap<K, V>,
    always: Marks<K>,
    changed: Marks<K>,
    /// What an index has not taken in yet, where there is one.
    unindexed: Option<BTreeSet<K>>,
    /// Everything counts as changed, always: to be compared with.
    thorough: bool,
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Watched<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)
    }
}

impl<K, V> Default for Watched<K, V> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            always: Marks::default(),
            changed: Marks::default(),
            unindexed: None,
            thorough: false,
        }
    }
}

impl<K: Ord + Clone, V> Watched<K, V> {
    /// One of which there is an index.
    pub(super) fn indexed() -> Self {
        Self { unindexed: Some(BTreeSet::new()), ..Self::default() }
    }

    /// Looks at everything, always.
    pub(super) fn looks_at_everything(&mut self) {
        self.thorough = true;
    }

    /// A turn begins: what was marked until now is looked at in it.
    pub(super) fn turn(&mut self, changed: bool) {
        self.always.turn();
        if changed {
            self.changed.turn();
        }
    }

    /// It is to be looked at, in this turn or the next.
    pub(super) fn touch<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Ord + ?Sized,
    {
        self.mark(key.to_owned());
    }

    fn mark(&mut self, key: K) {
        self.always.next.insert(key.clone());
        self.changed.next.insert(key.clone());
        self.index_again(key);
    }

    /// An index has to take it in again; it need not be looked at for that.
    pub(super) fn index_again(&mut self, key: K) {
        if let Some(unindexed) = &mut self.unindexed {
            unindexed.insert(key);
        }
    }

    pub(super) fn touch_all(&mut self) {
        (self.always.all_next, self.changed.all_next) = (true, true);
        self.unindexed.iter_mut().for_each(|unindexed| unindexed.extend(self.all.keys().cloned()));
    }

    fn marks(&self, pace: Pace) -> &Marks<K> {
        match pace {
            Pace::Always => &self.always,
            Pace::Changed => &self.changed,
        }
    }

    /// What is to be looked at, in order; also what is not there any more.
    pub(super) fn to_look_at(&self, pace: Pace) -> BTreeSet<K> {
        if self.thorough {
            return self.all.keys().cloned().collect();
        }
        let marks = self.marks(pace);
        let all = marks.are_all();
        let keys = all.then(|| self.all.keys()).into_iter().flatten();
        let marked = marks.now.union(&marks.next).filter(|key| !all || !self.all.contains_key(*key));
        keys.chain(marked).cloned().collect()
    }

    /// Of what is to be looked at what is there, in order.
    pub(super) fn looked_at(&self, pace: Pace) -> impl Iterator<Item = &V> {
        let marks = self.marks(pace);
        let all = self.thorough || marks.are_all();
        let marked = (!all).then(|| marks.now.union(&marks.next).filter_map(|key| self.all.get(key)));
        let every = all.then(|| self.all.values());
        every.into_iter().flatten().chain(marked.into_iter().flatten())
    }

    /// What an index has to take in; also what is not there any more.
    pub(super) fn take_unindexed(&mut self) -> BTreeSet<K> {
        self.unindexed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.unindexed.as_ref().is_none_or(BTreeSet::is_empty)
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.all.get(key)
    }

    /// To be changed: it is looked at again.
    pub(super) fn get_mut<Q>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Ord + ?Sized,
    {
        if self.all.contains_key(key) {
            self.mark(key.to_owned());
        }
        self.all.get_mut(key)
    }

    /// To be changed, if at all, in nothing that would have it looked at again; whoever does change more touches it.
    pub(super) fn quietly<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.all.get_mut(key)
    }

    /// The same of all.
    pub(super) fn all_quietly(&mut self) -> btree_map::ValuesMut<'_, K, V> {
        self.all.values_mut()
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.mark(key.clone());
        self.all.insert(key, value)
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Ord + ?Sized,
    {
        let removed = self.all.remove(key);
        if removed.is_some() {
            self.mark(key.to_owned());
        }
        removed
    }

    pub(super) fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.all.contains_key(key)
    }

    pub(super) fn values(&self) -> btree_map::Values<'_, K, V> {
        self.all.values()
    }

    /// Nothing is there any more, and nothing to be looked at.
    pub(super) fn clear(&mut self) {
        let unindexed = self.unindexed.as_ref().map(|_| BTreeSet::new());
        *self = Self { thorough: self.thorough, unindexed, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(map: &Watched<String, u32>, pace: Pace) -> Vec<String> {
        map.to_look_at(pace).into_iter().collect()
    }

    #[test]
    fn what_changes_is_looked_at_in_this_turn_and_the_next_and_then_no_more() {
        let mut map = Watched::default();
        map.insert("a".to_owned(), 1);
        map.insert("b".to_owned(), 2);
        map.turn(true);
        assert_eq!(seen(&map, Pace::Always), ["a", "b"]);
        map.get_mut("b").into_iter().for_each(|of| *of = 3);
        map.turn(true);
        assert_eq!(seen(&map, Pace::Always), ["b"], "whoever had passed it sees it now");
        map.quietly("a").into_iter().for_each(|of| *of = 4);
        map.turn(true);
        assert!(seen(&map, Pace::Always).is_empty());
        map.remove("a");
        assert_eq!(seen(&map, Pace::Always), ["a"], "that it is gone is news, too");
    }

    #[test]
    fn turns_in_which_nothing_changes_lose_nothing_for_those_in_which_it_does() {
        let mut map = Watched::default();
        map.insert("a".to_owned(), 1);
        map.turn(false);
        map.turn(false);
        assert!(seen(&map, Pace::Always).is_empty());
        assert_eq!(seen(&map, Pace::Changed), ["a"]);
        map.turn(true);
        assert_eq!(seen(&map, Pace::Changed), ["a"]);
        map.turn(true);
        assert!(seen(&map, Pace::Changed).is_empty());
    }

    #[test]
    fn when_all_are_touched_what_comes_and_goes_later_is_looked_at_too() {
        let mut map = Watched::default();
        map.insert("b".to_owned(), 2);
        map.insert("c".to_owned(), 3);
        (0..2).for_each(|_| map.turn(true));
        assert!(seen(&map, Pace::Always).is_empty());
        map.touch_all();
        map.turn(false);
        map.insert("a".to_owned(), 1);
        map.remove("c");
        assert_eq!(seen(&map, Pace::Always), ["a", "b", "c"]);
        assert_eq!(map.looked_at(Pace::Always).collect::<Vec<_>>(), [&1, &2], "of these two are there");
        map.turn(false);
        assert_eq!(seen(&map, Pace::Always), ["a", "c"]);
        assert_eq!(seen(&map, Pace::Changed), ["a", "b", "c"], "no turn of theirs was in between");
        assert_eq!(map.looked_at(Pace::Always).collect::<Vec<_>>(), [&1]);
    }

    #[test]
    fn a_thorough_one_looks_at_everything_always() {
        let mut map = Watched::default();
        map.looks_at_everything();
        map.insert("a".to_owned(), 1);
        (0..3).for_each(|_| map.turn(true));
        assert_eq!(seen(&map, Pace::Changed), ["a"]);
        map.clear();
        map.insert("b".to_owned(), 1);
        (0..3).for_each(|_| map.turn(false));
        assert_eq!(seen(&map, Pace::Always), ["b"]);
    }
}
