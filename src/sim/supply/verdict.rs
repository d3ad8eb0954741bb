//! The end: what EC2's truth says that the replicas cannot know.

use std::time::Duration;

use super::scenario::State;
use super::world::{World, moment};
use crate::api::interruption::Phase;
use crate::api::node_claim::{ClaimPhase, Purpose};
use crate::domain::notice::{InstanceId, Kind};
use crate::provision::Doomed;
use crate::provision::invariants::{Lived, TWINS_MAX, twins};

/// How long everything must have been well for the end to be judged: longer than the longest belief in a shortage.
const QUIET_MS: u64 = 40 * 60_000;

/// How long an instance may be unknown to its claim.
const FRESH_MS: u64 = 120_000;

impl World {
    /// Keeps count of how long something was not well.
    pub fn weather(&mut self) {
        let bad = self.api != State::Well || self.cloud.state != State::Well;
        match (bad, self.bad_since) {
            (true, None) => self.bad_since = Some(self.now),
            (false, Some(since)) => {
                self.bad_ms += self.now - since;
                self.bad_since = None;
            }
            _ => {}
        }
    }

    pub fn verdict(&mut self) {
        self.check_twins();
        let last = self.last_step;
        let quiet = self.api == State::Well && self.cloud.state == State::Well && last + QUIET_MS <= self.now;
        if quiet {
            self.check_leaks();
            self.check_served();
            self.check_unheard();
        }
    }

    /// P-1: at most one live instance for a claim.
    fn check_twins(&mut self) {
        let ours = self.cloud.instances.iter().filter_map(|one| {
            let (born, died) = (moment(one.born_ms), one.died_ms.map(moment));
            Some(Lived { id: &one.id, token: one.token.as_deref()?, born, died })
        });
        let twins = twins(moment(self.now), &self.written, &ours.collect::<Vec<_>>());
        // The second of two that runs pods is drained first.
        let allowed = 3 * self.supply.drain_ms + self.bad_ms + self.bad_since.map_or(0, |since| self.now - since);
        let allowed = TWINS_MAX + Duration::from_millis(allowed);
        for (claim, both) in twins.into_iter().filter(|(_, both)| *both > allowed) {
            self.found("P-1", format!("claim {claim} had two live instances for {} s", both.as_secs()));
        }
    }

    /// P-6: no instance of ours without a claim.
    fn check_leaks(&mut self) {
        let named: Vec<_> = self.claims.values().filter_map(|claim| claim.status.instance_id.clone()).collect();
        // A return to spot may have begun a moment ago, in a world that is well.
        let ours = self
            .cloud
            .instances
            .iter()
            .filter(|one| one.token.is_some() && one.died_ms.is_none() && one.born_ms + FRESH_MS < self.now);
        let leaked: Vec<String> = ours.filter(|one| !named.contains(&one.id)).map(|one| one.id.to_string()).collect();
        if !leaked.is_empty() {
            self.found("P-6", format!("no claim names {}", leaked.join(", ")));
        }
        let returns = |launch: &crate::provision::Launch| launch.name.contains("-return-");
        // A probe may be on its way when the world ends.
        let fresh = |launch: &crate::provision::Launch| {
            self.written_ms.get(&launch.uid).is_some_and(|at| *at + FRESH_MS > self.now)
        };
        let open = self.launches.values().filter(|one| one.status.outcome.is_none() && !returns(one) && !fresh(one));
        let open: Vec<&String> = open.map(|launch| &launch.name).collect();
        if !open.is_empty() {
            self.found("live", format!("launches are open: {open:?}"));
        }
    }

    /// Whether the group of an instance has one that came later: the claim for it may have gone before it was served.
    fn is_bridged(&self, instance: &InstanceId, claim: &str) -> bool {
        let Some(one) = self.find(instance).map(|index| &self.cloud.instances[index]) else { return false };
        // What stood in for a node of the group, and was taken itself, was of the group's concern, too.
        let group = self.bridges.get(claim).or(one.group.as_ref());
        let newer = |other: &super::cloud::InstanceSim| other.group.as_ref() == group && other.born_ms > one.born_ms;
        group.is_some() && !self.claims.contains_key(claim) && self.cloud.instances.iter().any(newer)
    }

    /// Whether an instance without a launch template has ended before whoever leads could read what it was made of: EC2 or
    /// the API server was away, answers were lost, or the one who had read it does not lead any more.
    fn may_have_ended_unread(&self, doomed: &Doomed) -> bool {
        let faults = &self.supply.faults;
        let lost = faults.ec2_error_one_in.or(faults.ec2_lost_one_in).is_some();
        let troubled = lost || self.bad_ms > 0 || self.figures.takeovers > 1;
        let plain = self.find(&doomed.instance).is_some_and(|place| self.cloud.instances[place].template.is_none());
        plain && doomed.replacement.none_comes && troubled
    }

    /// Whether it was taken before it was Ready, and the claim that it was of has another now; or is not wanted any more,
    /// since the node that it was to stand in for stays, or its group has replaced it.
    fn is_served_by_its_own_claim(&self, doomed: &Doomed) -> bool {
        let said = &doomed.replacement;
        if said.episode != doomed.episode || said.claim.is_empty() {
            return false;
        }
        let stands_in_for = said.claim.rsplit_once('-').map_or("", |(instance, _)| instance);
        let stays = |of: &Doomed| of.instance.as_str() == stands_in_for && of.phase == Phase::Cancelled;
        let off = self.unwanted.contains(&said.claim) || self.doomed.values().any(stays);
        if off || self.is_bridged(&doomed.instance, &said.claim) {
            return true;
        }
        let Some(claim) = self.claims.get(&said.claim) else { return false };
        let other = claim.status.instance_id.as_ref().is_some_and(|id| *id != doomed.instance);
        // It may have given up, as any other may.
        other && claim.status.phase == Some(ClaimPhase::Ready) || claim.status.never_registered >= 2
    }

    /// Everybody who wanted a node has one, where EC2 had one to give.
    fn check_served(&mut self) {
        let gives = self.cloud.pools.values().any(|left| left.is_none());
        if !gives || !self.cloud.joins || !self.cloud.refuses.is_empty() {
            return;
        }
        let mut unserved = Vec::new();
        for doomed in self.doomed.values().filter(|doomed| doomed.phase != Phase::Cancelled) {
            let name = format!("{}-{}", doomed.instance, doomed.episode);
            let failed = self.claims.get(&name).is_some_and(|claim| claim.status.never_registered >= 2);
            let back = |claim: &crate::provision::Claim| {
                let of = claim.spec.replaces.as_ref().map(|of| &of.instance_id);
                claim.spec.purpose == Purpose::ReturnToSpot && of == Some(&doomed.instance)
            };
            let recommended = doomed.kind == Some(Kind::RebalanceRecommendation);
            if recommended && !self.supply.settings.replace_on_rebalance {
                continue;
            }
            if self.may_have_ended_unread(doomed) || self.is_beyond_copying(&name) {
                continue;
            }
            if self.unwanted.contains(doomed.instance.as_str())
                || self.unwanted.contains(&name)
                || self.claims.values().any(back)
                || self.is_bridged(&doomed.instance, &name)
            {
                continue;
            }
            if self.is_served_by_its_own_claim(doomed) {
                continue;
            }
            if self.history.get(&name).is_some_and(|claim| claim.ready_ms.is_none()) && !failed && !self.may_wait(&name)
            {
                unserved.push(name);
            }
        }
        if !unserved.is_empty() {
            self.found("live", format!("never Ready: {}", unserved.join(", ")));
        }
    }
}
