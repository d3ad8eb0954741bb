//! NodePools and their class in virtual time, and whether EC2's truth keeps within what they allow.

use super::cloud::InstanceSim;
use super::scenario::CLASS;
use super::world::World;
use crate::api::launch::LaunchSpec;
use crate::api::node_claim::Recipe;
use crate::api::node_pool::NodePoolSpec;
use crate::domain::notice::InstanceId;
use crate::domain::offering::CapacityType;
use crate::provision::pools::read;
use crate::provision::pools::usage::{Size, Usage};
use crate::provision::{Input, Pool};

/// How long after a pool has changed a replica may not have seen it.
const UNSEEN_MS: u64 = 1_000;

impl World {
    /// The pools and classes of the beginning.
    pub fn found_pools(&mut self) {
        self.resolve_class();
        let recipe = self.class_recipe();
        for (name, zones) in self.supply.classes.clone() {
            let within = |zones: Vec<String>| {
                let subnets = recipe.subnets.iter().filter(|subnet| zones.contains(&subnet.zone)).cloned().collect();
                Recipe { subnets, ..recipe.clone() }
            };
            self.classes.insert(name, zones.map(within));
        }
        for (name, spec) in self.supply.pools.clone() {
            self.pool_changed(&name, spec);
        }
    }

    /// What the class of all pools launches.
    pub fn class_recipe(&self) -> Recipe {
        Recipe {
            launch_template: self.class_template(),
            launch_template_version: "1".into(),
            subnets: self.cloud.subnets.to_vec(),
            ..Recipe::default()
        }
    }

    pub fn pool_changed(&mut self, name: &str, spec: NodePoolSpec) {
        let (uid, generation, status) = match self.pools.get(name) {
            Some(pool) => (pool.uid.clone(), pool.generation + 1, pool.status.clone()),
            None => (self.uid(), 1, Default::default()),
        };
        let pool = Pool { name: name.to_owned(), uid, generation, spec, status };
        self.pools.insert(name.to_owned(), pool.clone());
        self.pools_changed_ms.insert(name.to_owned(), self.now);
        self.broadcast(&Input::PoolSeen(pool));
    }

    pub fn pool_gone(&mut self, name: &str) {
        if self.pools.remove(name).is_some() {
            self.ours.moved_ms = self.now;
            self.broadcast(&Input::PoolGone { name: name.to_owned() });
        }
    }

    pub fn class_changed(&mut self, state: Result<(), &'static str>) {
        match state {
            Ok(()) => self.resolve_class(),
            Err(why) => {
                let recipe = Err(why.to_owned());
                self.classes.insert(CLASS.into(), recipe.clone());
                self.broadcast(&Input::ClassSeen { name: CLASS.into(), recipe });
            }
        }
    }

    /// The pool of an instance.
    pub fn pool_of<'a>(&'a self, one: &'a InstanceSim) -> Option<&'a str> {
        match &one.token {
            Some(token) => self.written.get(token)?.node_pool.as_deref(),
            None => one.pool.as_deref(),
        }
    }

    /// Whether a claim may rightly wait for ever: for room in its pool, or for a pool or class that never works.
    pub fn may_wait(&self, claim: &str) -> bool {
        if self.classes.values().any(Result::is_err) {
            return true;
        }
        let Some(pool) = self.claims.get(claim).and_then(|claim| claim.spec.node_pool.as_ref()) else { return false };
        self.pools.get(pool).and_then(|pool| read(&pool.spec).ok()).is_none_or(|rules| rules.counts())
    }

    fn returning(&self, instance: &InstanceId) -> bool {
        self.claims.keys().any(|name| name.strip_prefix(instance.as_str()).is_some_and(|n| n.starts_with("-return-")))
    }

    /// P-5 and P-10, where a call has just launched something: what counts of its pool is within its limits, and fallback
    /// within its cap.
    pub fn check_limits(&mut self, token: &str, spec: &LaunchSpec, sent: u64) {
        let Some(name) = spec.node_pool.as_deref() else { return };
        let changed = self.pools_changed_ms.get(name).copied().unwrap_or(0);
        let rules = self.pools.get(name).and_then(|pool| read(&pool.spec).ok());
        let Some(rules) = rules else { return };
        // What was asked for by what the pool said before comes where nobody could take it back: the call was on its way, or
        // it is not known what came of it, so that it is repeated with its token however long that takes.
        let since = if changed == 0 { 0 } else { changed + UNSEEN_MS };
        let written = self.written_ms.get(token).copied().unwrap_or(0);
        if sent < since || (written < since && self.unsure.contains(token)) {
            return;
        }
        let mut usage = Usage::default();
        for one in self.cloud.instances.iter().filter(|one| one.died_ms.is_none()) {
            // Also one whose announcement was withdrawn: it may have been asked for while that stood.
            // Nor one that a spot node is coming in the place of: that is the surge.
            if self.pool_of(one) == Some(name) && !self.doomed.contains_key(&one.id) && !self.returning(&one.id) {
                usage.add(one.offering.capacity_type, Size::of(&one.offering, &self.catalog), 1);
            }
        }
        let mut broken = Vec::new();
        for (what, used, max) in [
            ("nodes", usage.nodes, rules.nodes_max),
            ("vCPUs", usage.vcpus, rules.vcpus_max),
            ("MiB", usage.memory_mib, rules.memory_mib_max),
        ] {
            if let Some(max) = max.filter(|max| used > *max) {
                broken.push(("P-5", format!("pool {name} has {used} of {max} {what}")));
            }
        }
        let cost = usage.fallback_cost(&rules);
        let priced = spec.capacity_type == CapacityType::OnDemand && !usage.unpriced;
        if let Some(max) = rules.fallback_cost_max.filter(|max| priced && cost > *max) {
            broken.push(("P-10", format!("fallback of pool {name} costs {cost} of {max}")));
        }
        broken.into_iter().for_each(|(code, what)| self.found(code, what));
    }
}
