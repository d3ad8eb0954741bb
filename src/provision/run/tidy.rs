//! Instances that should not be: two for one claim, or one for none; and claims whose instance has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::claims::That;
use super::watched::Pace;
use super::{NOT_SHOWN_YET, Provisioner};
use crate::api::node_claim::ClaimPhase;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::claim::Run;
use crate::provision::retire::Reason;
use crate::provision::{Because, Effect, Instance};

/// How soon an instance is ended again that could not be, and the longest.
const END_AGAIN: Duration = Duration::from_secs(5);
const END_AGAIN_MAX: Duration = Duration::from_secs(300);

/// How long after EC2 has acknowledged the end of an instance a list may still show it as if nothing had happened: by then
/// it is at least shutting down. One that lives on after that was not ended, as where the answer came from a part of EC2
/// that did not know it yet.
const END_SHOWN: Duration = Duration::from_secs(120);

/// How many instances without a claim are ended within [`LEAKS_WINDOW`], and with how many at once none is.
const LEAKS_MAX: usize = 5;
const LEAKS_WINDOW: Duration = Duration::from_secs(600);
const LEAKS_ALARM: usize = 10;

/// What is being ended, and what is being watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Tidy {
    ending: BTreeMap<InstanceId, Ending>,
    /// Instances that are one too many: the launch of each, and since when.
    surplus: BTreeMap<InstanceId, (String, Instant)>,
    /// Instances of ours without a claim, since when.
    leaked: BTreeMap<InstanceId, Instant>,
    /// When such instances were ended.
    ended: Vec<Instant>,
    alarmed: bool,
    /// Instances of claims that EC2 does not show, since when.
    missing: BTreeMap<InstanceId, Instant>,
    wakeup: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Ending {
    because: Because,
    again: Option<Instant>,
    on_its_way: bool,
    tries: u32,
    /// EC2 has acknowledged it, or it is none of ours; and when.
    done: Option<Instant>,
}

impl Ending {
    /// It is to be ended again, where EC2 has acknowledged that long ago and shows it alive. Returns whether it is.
    fn lives_on(&mut self, now: Instant, shown: &Instance) -> bool {
        let late = self.done.is_some_and(|at| now.since(at) >= END_SHOWN);
        let lives = late && shown.alive && shown.launch.is_some();
        if lives {
            (self.done, self.again) = (None, None);
        }
        lives
    }
}

impl Tidy {
    pub(super) fn wakeup(&self) -> Option<Instant> {
        let ending =
            self.ending.values().filter(|one| !one.on_its_way && one.done.is_none()).filter_map(|one| one.again);
        ending.chain(self.wakeup).min()
    }

    /// The instances that are one too many.
    pub(super) fn surplus(&self) -> impl Iterator<Item = &InstanceId> {
        self.surplus.keys()
    }

    /// Whether there are instances that no claim names.
    pub(super) fn misses_claims(&self) -> bool {
        !self.leaked.is_empty()
    }

    /// Whether an instance is being ended.
    pub(super) fn ends(&self, instance: &InstanceId) -> bool {
        self.ending.contains_key(instance)
    }

    /// An instance came for a claim that does not want it.
    pub(super) fn is_surplus(&mut self, now: Instant, instance: &InstanceId, launch: &str) {
        self.surplus.entry(instance.clone()).or_insert((launch.to_owned(), now));
    }

    fn end(&mut self, instance: &InstanceId, because: Because) -> bool {
        if self.ending.contains_key(instance) {
            return false;
        }
        self.ending.insert(instance.clone(), Ending { because, again: None, on_its_way: false, tries: 0, done: None });
        true
    }
}

/// A claim that is to go has no instance any more: nor is any to become a Node for it.
fn is_free(run: &mut Run) {
    (run.status.instance_id, run.register_by) = (None, None);
}

impl Provisioner {
    pub(super) fn ended(&mut self, now: Instant, instance: &InstanceId, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(ending) = self.tidy.ending.get_mut(instance) else { return };
        ending.on_its_way = false;
        match outcome {
            Outcome::Done => self.is_done_with(now, instance),
            Outcome::Refused(why) | Outcome::Failed(why) => {
                let pause = END_AGAIN.saturating_mul(1 << ending.tries.min(8)).min(END_AGAIN_MAX);
                ending.again = Some(now + pause);
                ending.tries = ending.tries.saturating_add(1);
                if ending.tries == 1 {
                    let because = Because::NotEnded { instance: instance.clone(), why };
                    self.say(instance.as_str(), because, effects);
                }
            }
        }
    }

    /// Nothing more is to be done about an instance: whose it was is free of it.
    fn is_done_with(&mut self, now: Instant, instance: &InstanceId) {
        self.claims.index(now);
        self.tidy.ending.get_mut(instance).into_iter().for_each(|ending| ending.done = Some(now));
        let of = self.claims.of_instance(instance).find(|run| run.deleting).map(|run| run.name.clone());
        of.and_then(|name| self.claims.get_mut(&name)).into_iter().for_each(is_free);
    }

    /// Claims whose instance is not alive any more, as a whole list of instances says.
    pub(super) fn instances_gone(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut said = Vec::new();
        let mut again = Vec::new();
        let instances = &self.instances;
        self.claims.index(now);
        let claims = &self.claims;
        self.tidy.missing.retain(|id, _| claims.has(id) && !instances.contains_key(id));
        let (found, nodes) = (&self.found, &self.nodes);
        for run in self.claims.all_quietly() {
            let Some(instance) = run.instance().cloned() else { continue };
            // One answer without it is no end: what EC2 shows is behind, and may be behind again.
            let gone = match self.instances.get(&instance) {
                Some(seen) => !seen.alive,
                // Nor is it one while its kubelet answers.
                None if found.node_of(nodes, &instance).is_some_and(|node| node.ready) => false,
                None => now.since(*self.tidy.missing.entry(instance.clone()).or_insert(now)) >= NOT_SHOWN_YET,
            };
            if !gone {
                continue;
            }
            let because = Because::InstanceGone { instance };
            if run.deleting {
                is_free(run);
            } else if run.phase() == ClaimPhase::Ready {
                // It was a node, and is not any more: whoever replaces it is another claim.
                run.unwanted("its instance has ended");
                is_free(run);
            } else {
                again.extend(run.instance().cloned().map(|instance| (instance, run.name.clone())));
                run.lost(now, &because, false);
            }
            said.push((run.name.clone(), because));
        }
        for (name, because) in said {
            self.claims.touch(&name);
            effects.push(Effect::Decided { about: name, because });
        }
        again.into_iter().for_each(|(instance, claim)| self.tried_again(&instance, claim, effects));
    }

    /// Ends what should not be.
    pub(super) fn sweep(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.surplus(now, effects);
        self.retire(now, effects);
        self.unwanted(now, effects);
        self.end(now, effects);
        self.tidy.ended.retain(|at| now.since(*at) < LEAKS_WINDOW);
    }

    /// Has ended what EC2 shows to be ours: by its tags, whatever a record of the API server says. What it does not show
    /// yet is waited for; what it shows to be somebody else's is left alone.
    fn end(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(not_after) = self.lead.act_until() else { return };
        self.spare_the_busy(now);
        let mut foreign = Vec::new();
        for (instance, ending) in &mut self.tidy.ending {
            let due = ending.done.is_none() && !ending.on_its_way && ending.again.is_none_or(|at| at <= now);
            match self.instances.get(instance).filter(|_| due) {
                Some(shown) if shown.launch.is_none() => foreign.push(instance.clone()),
                Some(_) => {
                    ending.on_its_way = true;
                    let (instance, because) = (instance.clone(), ending.because.clone());
                    // One watch tells of the cordon and another one of the pods: that the node is empty is looked at anew.
                    let nodes = self.found.nodes_of(&self.nodes, &instance);
                    let empty = nodes.map(|node| node.name.clone()).collect();
                    effects.push(Effect::End { instance, because, not_after, empty });
                }
                // The next list of instances is when there is news.
                None => ending.again = ending.again.filter(|_| !due),
            }
        }
        for instance in foreign {
            self.is_done_with(now, &instance);
            self.say(instance.as_str(), Because::NotOurs { instance: instance.clone() }, effects);
        }
    }

    /// What was to be ended, and has got pods before EC2 has acknowledged it: it joined late, or was never cordoned. It is
    /// one too many, and is drained first.
    fn spare_the_busy(&mut self, now: Instant) {
        let waits = self.tidy.ending.iter().filter(|(_, ending)| ending.done.is_none() && !ending.on_its_way);
        let busy: Vec<InstanceId> = waits.map(|(id, _)| id.clone()).filter(|id| self.is_busy(id)).collect();
        for id in busy {
            self.tidy.ending.remove(&id);
            // What a claim names is let go with that claim.
            if let Some(launch) =
                self.found.orphans.contains(&id).then(|| self.instances.get(&id)?.launch.clone()).flatten()
            {
                self.tidy.is_surplus(now, &id, &launch);
            }
        }
    }

    /// A whole list of instances has come: what has ended need not be remembered, and what lives on is ended again.
    pub(super) fn forget_ended(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        for (instance, ending) in &mut self.tidy.ending {
            if self.instances.get(instance).is_some_and(|shown| ending.lives_on(now, shown)) {
                let why = "EC2 had acknowledged it, and shows it alive".to_owned();
                let because = Because::NotEnded { instance: instance.clone(), why };
                effects.push(Effect::Decided { about: instance.to_string(), because });
            }
        }
        let (claims, instances, surplus) = (&self.claims, &self.instances, &self.tidy.surplus);
        self.tidy.ending.retain(|id, ending| {
            let may_be = claims.has(id) || surplus.contains_key(id);
            ending.on_its_way || instances.get(id).map_or(may_be, |one| !one.terminated)
        });
    }

    /// Instances that were to be Ready nodes by now.
    pub(super) fn never_registered(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let within = self.settings.registration;
        let late = self.claims.looked_at(Pace::Always).filter(|run| run.register_by.is_some_and(|by| by <= now));
        for name in late.map(|run| run.name.clone()).collect::<Vec<_>>() {
            let Some(run) = self.claims.get_mut(&name) else { continue };
            let Some(instance) = run.instance().cloned() else { continue };
            let because = match &run.status.node_name {
                Some(node) => Because::NeverReady { instance: instance.clone(), node: node.clone(), within },
                None => Because::NeverRegistered { instance: instance.clone(), within },
            };
            self.tidy.end(&instance, because.clone());
            effects.push(Effect::Decided { about: run.name.clone(), because: because.clone() });
            if let Some(failed) = run.lost(now, &because, true) {
                effects.push(Effect::Decided { about: run.name.clone(), because: failed });
            }
        }
    }

    /// The instances of claims that are to go, and those that are one too many, where nothing runs on them.
    fn unwanted(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        let leaving = self.claims.that(That::Leaves).filter_map(|run| {
            let (instance, why) = (run.instance()?.clone(), run.leaves.unwrap_or(Reason::ClaimDeleted).words());
            Some((instance.clone(), run.name.clone(), Because::Ends { instance, why }))
        });
        let surplus = self.tidy.surplus.iter().map(|(instance, (launch, _))| {
            let because = Because::Surplus { instance: instance.clone(), launch: launch.clone() };
            (instance.clone(), String::new(), because)
        });
        let drained = leaving.chain(surplus).filter(|(instance, ..)| self.is_drained(now, instance));
        for (instance, about, because) in drained.collect::<Vec<_>>() {
            if self.tidy.end(&instance, because.clone()) {
                effects.push(Effect::Decided { about, because });
            }
        }
    }

    /// Instances with our tag that no claim names.
    fn surplus(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.tidy.wakeup = None;
        if !self.nodes_synced || !self.unread.is_empty() {
            return;
        }
        self.find_orphans(now);
        // What is on its way, or was found and is being written down, may still be given to a claim.
        let open: BTreeMap<&str, bool> = match self.found.orphans.is_empty() {
            true => BTreeMap::new(),
            false => self.launches.values().filter_map(|run| Some((run.uid.as_deref()?, !run.told))).collect(),
        };
        let (mut leaks, mut busy) = (Vec::new(), 0);
        let mut surplus = std::mem::take(&mut self.tidy.surplus);
        surplus.retain(|id, (_, since)| !self.claims.has(id) && self.may_live(id, *since));
        for instance in self.found.orphans.iter().filter_map(|id| self.instances.get(id)) {
            let Some(launch) = &instance.launch else { continue };
            match open.get(launch.as_str()) {
                Some(true) => {}
                Some(false) => drop(surplus.entry(instance.id.clone()).or_insert((launch.clone(), now))),
                // The record of its launch has gone while it is drained.
                None if surplus.contains_key(&instance.id) || self.is_surplus(&instance.id) => {
                    surplus.entry(instance.id.clone()).or_insert((launch.clone(), now));
                }
                None if self.tidy.ending.contains_key(&instance.id) => {}
                None if self.is_busy(&instance.id) => busy += 1,
                None => leaks.push((instance.id.clone(), launch.clone())),
            }
        }
        self.tidy.surplus = surplus;
        self.leaks(now, leaks, busy, effects);
    }

    /// Whether an instance is alive, or may not be shown yet. While nobody can read what there is, nothing is known of that.
    fn may_live(&self, instance: &InstanceId, since: Instant) -> bool {
        let unshown = || self.reading.all_at.is_none_or(|at| at.since(since) < NOT_SHOWN_YET);
        self.instances.get(instance).map_or_else(unshown, |one| one.alive)
    }

    /// Whether an earlier leader has asked for its drain, because it is one too many.
    fn is_surplus(&self, instance: &InstanceId) -> bool {
        self.doomed.get(instance).is_some_and(|doomed| doomed.requested_for(Reason::Surplus).is_some())
    }

    /// `busy`: so many more are not named either, and run workloads.
    fn leaks(&mut self, now: Instant, leaks: Vec<(InstanceId, String)>, busy: usize, effects: &mut Vec<Effect>) {
        let there: BTreeSet<&InstanceId> = leaks.iter().map(|(instance, _)| instance).collect();
        self.tidy.leaked.retain(|instance, _| there.contains(instance));
        for (instance, _) in &leaks {
            self.tidy.leaked.entry(instance.clone()).or_insert(now);
        }
        if leaks.len() + busy >= LEAKS_ALARM {
            if !std::mem::replace(&mut self.tidy.alarmed, true) {
                let because = Because::TooManyLeaks { instances: leaks.len() + busy };
                effects.push(Effect::Decided { about: String::new(), because });
            }
            return;
        }
        self.tidy.alarmed = false;
        for (instance, launch) in leaks {
            let since = self.tidy.leaked.get(&instance).copied().unwrap_or(now);
            let due = since + self.settings.leak_grace;
            if now < due {
                self.tidy.wakeup = Some(self.tidy.wakeup.map_or(due, |at| at.min(due)));
            } else if self.tidy.ended.len() < LEAKS_MAX {
                self.tidy.ended.push(now);
                let because = Because::Leaked { instance: instance.clone(), launch };
                self.tidy.end(&instance, because.clone());
                effects.push(Effect::Decided { about: String::new(), because });
            }
        }
    }
}
