//! Stand-ins that have done their work: the group has replaced its node itself, or the announcement was withdrawn.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::Provisioner;
use super::claims::That;
use super::comeback::is_taken;
use crate::api::node_claim::{ClaimPhase, Purpose};
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::demand::withdrawn;
use crate::provision::retire::Reason;
use crate::provision::{Because, Effect};

/// For how long a stand-in is kept whose node stays after all: announcements come back.
const KEPT: Duration = Duration::from_secs(600);

/// What is remembered of them beside what the records say.
#[derive(Clone, Debug, Default)]
pub(super) struct Bridges {
    /// The instance of the group that has taken over from a claim. None takes over from two.
    ended: BTreeMap<String, InstanceId>,
    /// Since when a claim stands in for a node that stays.
    idle: BTreeMap<String, Instant>,
    wakeup: Option<Instant>,
}

impl Bridges {
    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.wakeup
    }
}

impl Provisioner {
    /// Whether this instance of a group is there to stay, and its Node Ready.
    fn holds(&self, instance: &InstanceId) -> bool {
        let alive = self.instances.get(instance).is_some_and(|one| one.alive);
        let stays = self.doomed.get(instance).is_none_or(|doomed| !is_taken(doomed));
        alive && stays && self.node_of(instance).is_some_and(|node| node.ready && !node.starting)
    }

    /// Finds which bridges have ended, and which stand-ins stand in for a node that stays.
    pub(super) fn look_at_bridges(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        self.recall_bridges();
        self.end_bridges(now, effects);
        self.claims.index(now);
        self.look_for_idle(now);
    }

    /// What an earlier leader has found stands in the requests that it has written.
    fn recall_bridges(&mut self) {
        let claims = &self.claims;
        self.bridges.ended.retain(|name, _| claims.contains_key(name));
        for id in &self.found.asked {
            let request = self.doomed.get(id).and_then(|doomed| doomed.requested_for(Reason::BridgeEnded));
            let by = request.and_then(|of| of.action);
            if let Some(by) = by.and_then(|by| by.parse::<InstanceId>().ok()) {
                for run in self.claims.of_instance(id) {
                    self.bridges.ended.entry(run.name.clone()).or_insert_with(|| by.clone());
                }
            }
        }
        // One that is gone again holds nothing: the bridge stands until the next one comes.
        let gone: Vec<String> =
            self.bridges.ended.iter().filter(|(_, by)| !self.holds(by)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| drop(self.bridges.ended.remove(name)));
    }

    /// The instances that have taken over from some claim, also from those that are gone.
    fn spoken_for(&self) -> BTreeSet<InstanceId> {
        let asked = self.found.asked.iter().filter_map(|id| self.doomed.get(id)?.requested_for(Reason::BridgeEnded));
        let asked = asked.filter_map(|request| request.action?.parse().ok());
        asked.chain(self.bridges.ended.values().cloned()).collect()
    }

    fn end_bridges(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut bridges: Vec<(Timestamp, String, String)> = Vec::new();
        for run in self.claims.that(That::Bridges).filter(|run| !run.deleting && run.launch.is_none()) {
            let group = run.spec.replaces.as_ref().and_then(|of| of.group.clone());
            if let Some(group) = group.filter(|_| run.spec.purpose == Purpose::Replacement) {
                bridges.push((self.epoch.wall(run.wanted_since.min(now)), run.name.clone(), group));
            }
        }
        bridges.retain(|(_, name, _)| !self.bridges.ended.contains_key(name));
        if bridges.is_empty() {
            return;
        }
        bridges.sort();
        let mut spoken_for = self.spoken_for();
        let mut said = Vec::new();
        for (since, name, group) in bridges {
            let news = self.instances.values().filter(|one| {
                one.group.as_ref() == Some(&group)
                    && one.launched_at.is_some_and(|at| at >= since)
                    && !spoken_for.contains(&one.id)
                    && self.holds(&one.id)
            });
            let Some(by) = news.min_by_key(|one| (one.launched_at, one.id.clone())).map(|one| one.id.clone()) else {
                continue;
            };
            spoken_for.insert(by.clone());
            said.push((name.clone(), Because::BridgeEnds { group, by: by.clone() }));
            match self.claims.get_mut(&name).filter(|run| !run.has_instance()) {
                Some(run) => drop(run.unwanted(Reason::BridgeEnded.words())),
                None => drop(self.bridges.ended.insert(name, by)),
            }
        }
        said.into_iter().for_each(|(name, because)| self.say(&name, because, effects));
    }

    /// The stand-ins that are not needed any more, and who has taken over.
    pub(super) fn bridged(&self) -> Vec<(InstanceId, Reason, Option<String>)> {
        let of = |(name, by): (&String, &InstanceId)| {
            Some((self.claims.get(name)?.instance()?.clone(), Reason::BridgeEnded, Some(by.to_string())))
        };
        self.bridges.ended.iter().filter_map(of).collect()
    }

    /// Stand-ins for nodes that stay: the announcement was withdrawn after they had been launched.
    fn look_for_idle(&mut self, now: Instant) {
        let mut idle = BTreeMap::new();
        let of = self.found.withdrawn.iter().flat_map(|id| self.claims.replacing(id));
        for run in of.filter(|run| run.phase() == ClaimPhase::Ready && !run.deleting) {
            let Some(of) = run.spec.replaces.as_ref().filter(|_| run.spec.purpose == Purpose::Replacement) else {
                continue;
            };
            let off = self.doomed.get(&of.instance_id).filter(|d| d.episode == of.episode && withdrawn(d));
            let stays = self.node_of(&of.instance_id).is_some_and(|node| node.ready && !node.cordoned);
            if off.is_some() && stays {
                let since = self.bridges.idle.get(&run.name).copied().unwrap_or(now);
                idle.insert(run.name.clone(), since);
            }
        }
        self.bridges.idle = idle;
        self.bridges.wakeup = self.bridges.idle.values().map(|since| *since + KEPT).filter(|at| *at > now).min();
    }

    pub(super) fn stood_in_for_nothing(&self) -> Vec<(InstanceId, Reason, Option<String>)> {
        let idle = self.bridges.idle.iter().filter_map(|(name, since)| {
            let instance = self.claims.get(name)?.instance()?;
            let asked = self.doomed.get(instance).is_some_and(|doomed| doomed.requested_for(Reason::Surplus).is_some());
            let due = self.now.since(*since) >= KEPT || asked;
            due.then(|| (instance.clone(), Reason::Surplus, None))
        });
        idle.collect()
    }
}
