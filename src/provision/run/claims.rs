//! The claims of a term, found by what they have and what is due of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::watched::Watched;
use crate::api::node_claim::{ClaimPhase, Purpose};
use crate::domain::notice::InstanceId;
use crate::domain::offering::CapacityType;
use crate::domain::time::Instant;
use crate::provision::Claim;
use crate::provision::claim::Run;

/// What is found of a claim in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Keys {
    instance: Option<InstanceId>,
    replaces: Option<InstanceId>,
    node: Option<String>,
    kinds: [bool; KINDS],
    due: Option<Instant>,
}

const KINDS: usize = 6;

/// Claims of a kind: few as a rule, or only for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum That {
    /// It looks for capacity.
    Looks,
    /// It is to go, and has an instance.
    Leaves,
    /// The cap on cost holds it back.
    Capped,
    /// It brings a node back to spot.
    Returns,
    /// It stands in for a node of an Auto Scaling group.
    Bridges,
    /// It is Ready, on demand, and may be moved back to spot.
    MayReturn,
}

impl Keys {
    fn of(run: &Run, now: Instant) -> Self {
        let on_demand = run.status.offering.as_ref().is_some_and(|of| of.capacity_type == CapacityType::OnDemand);
        let replaces = run.spec.replaces.as_ref();
        let mut kinds = [false; KINDS];
        for (kind, is) in [
            (That::Looks, run.looks()),
            (That::Leaves, run.deleting && run.has_instance()),
            (That::Capped, run.capped_at.is_some()),
            (That::Returns, run.spec.purpose == Purpose::ReturnToSpot),
            (That::Bridges, replaces.is_some_and(|of| of.group.is_some())),
            (That::MayReturn, on_demand && run.phase() == ClaimPhase::Ready && !run.deleting),
        ] {
            kinds[kind as usize] = is;
        }
        Self {
            instance: run.instance().cloned(),
            replaces: replaces.map(|of| of.instance_id.clone()),
            node: run.status.node_name.clone(),
            kinds,
            due: run.wakeup(now),
        }
    }
}

/// Names, by what they are found by.
type By<K> = BTreeMap<K, BTreeSet<String>>;

fn moved<K: Ord + Clone>(index: &mut By<K>, name: &str, from: Option<&K>, to: Option<&K>) {
    if from == to {
        return;
    }
    if let Some(from) = from
        && let Some(names) = index.get_mut(from)
    {
        names.remove(name);
        if names.is_empty() {
            index.remove(from);
        }
    }
    if let Some(to) = to {
        index.entry(to.clone()).or_default().insert(name.to_owned());
    }
}

/// All of them.
#[derive(Clone)]
pub(super) struct Claims {
    all: Watched<String, Run>,
    keys: BTreeMap<String, Keys>,
    by_instance: By<InstanceId>,
    by_replaced: By<InstanceId>,
    by_node: By<String>,
    due: BTreeSet<(Instant, String)>,
    kinds: [BTreeSet<String>; KINDS],
    /// Instances that a claim has come to have, or has no more, and that nobody has been told of.
    reassigned: BTreeSet<InstanceId>,
    rebilled: BTreeSet<InstanceId>,
    /// What the watch has shown since the list was asked for: the list may have been read before that, and no watch shows
    /// it again. `None`: the claim has gone.
    missed: BTreeMap<String, Option<Claim>>,
    /// One of them has come to have an instance, or has no more, and nobody has counted since.
    recounted: bool,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.all.fmt(f)?;
        if self.missed.is_empty() { Ok(()) } else { self.missed.fmt(f) }
    }
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            all: Watched::indexed(),
            keys: BTreeMap::new(),
            by_instance: BTreeMap::new(),
            by_replaced: BTreeMap::new(),
            by_node: BTreeMap::new(),
            due: BTreeSet::new(),
            kinds: Default::default(),
            reassigned: BTreeSet::new(),
            rebilled: BTreeSet::new(),
            missed: BTreeMap::new(),
            recounted: false,
        }
    }
}

impl Claims {
    /// A claim was seen, or has gone, before the list of all came.
    pub(super) fn misses(&mut self, name: &str, what: Option<&Claim>) {
        self.missed.insert(name.to_owned(), what.cloned());
    }

    pub(super) fn take_missed(&mut self) -> BTreeMap<String, Option<Claim>> {
        std::mem::take(&mut self.missed)
    }

    pub(super) fn clear(&mut self) {
        let mut all = std::mem::take(&mut self.all);
        all.clear();
        let had = || self.by_instance.keys().cloned();
        let reassigned = had().chain(std::mem::take(&mut self.reassigned)).collect();
        let rebilled = had().chain(std::mem::take(&mut self.rebilled)).collect();
        *self = Self { all, reassigned, rebilled, recounted: true, ..Self::default() };
    }

    /// A turn begins: what is due is to be looked at.
    pub(super) fn begin(&mut self, now: Instant, changed: bool) {
        self.index(now);
        while let Some((at, name)) = self.due.first().cloned().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, name.clone()));
            self.keys.get_mut(&name).into_iter().for_each(|keys| keys.due = None);
            self.all.touch(name.as_str());
        }
        self.all.turn(changed);
        self.index(now);
    }

    /// Takes in what has changed: whoever looks something up after a change asks for it first.
    pub(super) fn index(&mut self, now: Instant) {
        for name in self.all.take_unindexed() {
            let new = self.all.get(&name).map(|run| Keys::of(run, now)).unwrap_or_default();
            let old = self.keys.remove(&name).unwrap_or_default();
            if old.instance != new.instance {
                self.recounted = true;
                for instance in [&old.instance, &new.instance].into_iter().flatten() {
                    self.reassigned.insert(instance.clone());
                    self.rebilled.insert(instance.clone());
                }
            }
            moved(&mut self.by_instance, &name, old.instance.as_ref(), new.instance.as_ref());
            moved(&mut self.by_replaced, &name, old.replaces.as_ref(), new.replaces.as_ref());
            moved(&mut self.by_node, &name, old.node.as_ref(), new.node.as_ref());
            for (names, is) in self.kinds.iter_mut().zip(new.kinds) {
                match is {
                    true => names.insert(name.clone()),
                    false => names.remove(&name),
                };
            }
            if old.due != new.due {
                if let Some(at) = old.due {
                    self.due.remove(&(at, name.clone()));
                }
                self.due.extend(new.due.map(|at| (at, name.clone())));
            }
            if self.all.contains_key(&name) {
                self.keys.insert(name, new);
            }
        }
    }

    /// A turn has ended: what was due has been done, or is not due any more.
    pub(super) fn end(&mut self, now: Instant) {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone());
        for name in due.collect::<Vec<_>>() {
            self.all.index_again(name);
        }
        self.index(now);
    }

    fn named<'a>(&'a self, names: Option<&'a BTreeSet<String>>) -> impl DoubleEndedIterator<Item = &'a Run> {
        debug_assert!(self.all.is_indexed(), "what was changed was not taken into the index");
        names.into_iter().flatten().filter_map(|name| self.all.get(name))
    }

    /// Those that have this instance.
    pub(super) fn of_instance(&self, instance: &InstanceId) -> impl DoubleEndedIterator<Item = &Run> {
        self.named(self.by_instance.get(instance))
    }

    /// Whether a claim has this instance.
    pub(super) fn has(&self, instance: &InstanceId) -> bool {
        self.of_instance(instance).next().is_some()
    }

    /// Those that replace this instance, in whatever episode, or bring it back to spot.
    pub(super) fn replacing(&self, instance: &InstanceId) -> impl DoubleEndedIterator<Item = &Run> {
        self.named(self.by_replaced.get(instance))
    }

    /// Those that say that this is their Node.
    pub(super) fn of_node(&self, node: &str) -> impl DoubleEndedIterator<Item = &Run> {
        self.named(self.by_node.get(node))
    }

    /// Those of a kind.
    pub(super) fn that(&self, kind: That) -> impl DoubleEndedIterator<Item = &Run> {
        self.named(Some(&self.kinds[kind as usize]))
    }

    /// When the first of them has something due.
    pub(super) fn due(&self) -> Option<Instant> {
        debug_assert!(self.all.is_indexed(), "what was changed was not taken into the index");
        self.due.first().map(|(at, _)| *at)
    }

    /// The instances that have come to a claim, or gone from one, since this was asked last.
    pub(super) fn take_reassigned(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.reassigned)
    }

    /// Whether one of them has another instance than when they were counted, or may have.
    pub(super) fn are_to_be_counted(&self) -> bool {
        self.recounted || !self.all.is_indexed()
    }

    /// Whether they are to be counted, since this was asked last.
    pub(super) fn take_recounted(&mut self) -> bool {
        std::mem::take(&mut self.recounted)
    }

    /// The same, for the ledger.
    pub(super) fn take_rebilled(&mut self) -> BTreeSet<InstanceId> {
        std::mem::take(&mut self.rebilled)
    }
}

impl Deref for Claims {
    type Target = Watched<String, Run>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl DerefMut for Claims {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.all
    }
}
