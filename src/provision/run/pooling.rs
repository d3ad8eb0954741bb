//! Claims of NodePools: what is launched for them, what there may be of them, and what their pools say.

use std::collections::BTreeMap;

use super::Provisioner;
use super::claims::That;
use crate::api::condition::{Condition, ConditionStatus};
use crate::api::launch::Override;
use crate::api::node_claim::{NodeClaimSpec, Recipe};
use crate::api::node_pool::{NodePoolStatus, PoolResources};
use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, MicroDollars, Offering};
use crate::domain::quantity::in_dollars;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::ledger::Totals;
use crate::provision::pools::usage::{Room, Usage, room};
use crate::provision::pools::{Fault, Floor, Pools, Served};
use crate::provision::{Because, Effect, Pool};

/// The condition that says whether a pool can serve.
const READY: &str = "Ready";

impl Provisioner {
    /// A pool is new or has changed.
    pub(super) fn pool_seen(&mut self, pool: Pool) {
        let name = pool.name.clone();
        if !self.pools.seen(pool, &self.catalog) {
            return;
        }
        self.look_for_plain = true;
        // What was held back by what it said before looks again, from the first rung on.
        for run in self.claims.all_quietly().filter(|run| run.spec.node_pool.as_ref() == Some(&name)) {
            run.look_again();
        }
        self.looks_at_all();
    }

    /// A Node is gone. What a doomed one was is remembered as long as its Interruption is there.
    pub(super) fn node_gone(&mut self, now: Instant, name: String) {
        self.nameless.gone(&name);
        let Some(node) = self.take_node(&name) else { return };
        self.node_went(now, node.clone());
        self.said.remove(&super::gone::no_provider_id(&name));
        let of = node.instance.as_ref().and_then(|instance| self.doomed.get(instance));
        if of.is_some_and(|doomed| doomed.node == name) || self.doomed.values().any(|doomed| doomed.node == name) {
            self.gone_nodes.insert(name, node);
        }
    }

    /// What is launched for a claim; or why nothing can be.
    pub(super) fn recipe(&self, own: Option<&Recipe>, pool: Option<&str>) -> Result<Recipe, String> {
        match (own, pool) {
            (Some(recipe), _) => Ok(recipe.clone()),
            (None, Some(pool)) => self.pools.recipe(pool, &self.classes).cloned(),
            (None, None) => Err("the claim has neither a recipe nor a NodePool".into()),
        }
    }

    /// Claims that nothing can be asked for now; they are looked at again with the next input.
    pub(super) fn hold(&mut self, names: &[String], because: &Because, effects: &mut Vec<Effect>) {
        for name in names {
            if self.claims.get_mut(name).is_some_and(|run| run.waits(because)) {
                self.say(name, because.clone(), effects);
            }
        }
    }

    /// Whether a claim like this one would be made again: its pool still says the same.
    pub(super) fn is_up_to_date(&self, spec: &NodeClaimSpec) -> bool {
        let Some(name) = &spec.node_pool else { return true };
        let rules = self.pools.get(name).and_then(|served| served.rules.as_ref().ok());
        rules.is_some_and(|rules| spec.requirements.starts_with(&rules.requirements) && spec.order == rules.order)
    }

    /// Whether a pool may have one node fewer on demand.
    pub(super) fn floor_allows(&self, pool: &Option<String>) -> bool {
        let rules = pool.as_ref().and_then(|pool| Some((pool, self.pools.get(pool)?.rules.as_ref().ok()?)));
        let Some((pool, rules)) = rules.filter(|(_, rules)| rules.floor != Floor::Nodes(0)) else { return true };
        self.usage(pool).is_some_and(|usage| usage.on_demand + usage.reserved > rules.floor.of(usage.nodes))
    }

    /// What a pool has; `None` while that is not known yet.
    fn usage(&self, pool: &str) -> Option<Usage> {
        self.usage_without(pool, None)
    }

    fn usage_without(&self, pool: &str, gone: Option<&InstanceId>) -> Option<Usage> {
        let known = self.nodes_synced && self.reading.all_were_read;
        known.then(|| self.usage_of(pool, gone))
    }

    /// How many of these claims skip spot because the pool has too few nodes on demand.
    pub(super) fn skip_spot(&self, pool: &str, names: &[String]) -> usize {
        let rules = self.pools.get(pool).and_then(|served| served.rules.as_ref().ok());
        let Some((rules, usage)) = rules.zip(self.usage(pool)) else { return 0 };
        let going = self.claims.that(That::Looks).filter(|run| run.spec.node_pool.as_deref() == Some(pool));
        let going = going.filter(|run| run.for_floor).count() as u64;
        let missing = usage.missing_on_demand(rules.floor, names.len() as u64 + going).saturating_sub(going);
        usize::try_from(missing).unwrap_or(usize::MAX).min(names.len())
    }

    /// What of a rung may be asked for without passing a limit of the pool. `Ok(None)`: what it has is not known yet. A node
    /// that is moved does not count: with its successor the pool may be beyond its limits for a while, as `surge` says, but
    /// not when it has gone.
    pub(super) fn room(
        &self,
        pool: &str,
        capacity: CapacityType,
        wanted: usize,
        overrides: Vec<Override>,
        moves: Option<&InstanceId>,
    ) -> Result<Option<Room>, Because> {
        let rules = self.pools.get(pool).and_then(|served| served.rules.as_ref().ok());
        let Some(rules) = rules.filter(|rules| rules.counts()) else {
            return Ok(Some(Room { count: wanted, overrides, unpriced: false }));
        };
        let Some(usage) = self.usage_without(pool, moves) else { return Ok(None) };
        room(pool, rules, &usage, capacity, wanted, overrides, &self.catalog).map(Some)
    }

    /// What fallback costs in a pool.
    pub(super) fn fallback_cost(&self, pool: &str) -> MicroDollars {
        let rules = self.pools.get(pool).and_then(|served| served.rules.as_ref().ok());
        rules.zip(self.usage(pool)).map_or(0, |(rules, usage)| usage.fallback_cost(rules))
    }

    /// Without a price the cap on cost says so, once, and stays off.
    pub(super) fn no_price(&mut self, pool: &str, effects: &mut Vec<Effect>) {
        if self.said.insert(format!("price: {pool}")) {
            let rule = "spec.fallback.maxHourlyFallbackCost is off".to_owned();
            self.say(pool, Because::NoPrice { of: "on-demand".into(), rule }, effects);
        }
    }

    /// Counts what the instances of claims cost.
    pub(super) fn keep_ledger(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        for instance in self.claims.take_rebilled() {
            let offering = self.claims.of_instance(&instance).filter_map(|run| run.status.offering.clone()).next_back();
            self.ledger.is(instance, offering);
        }
        for bill in self.ledger.count(now, &self.catalog) {
            let instance = bill.instance.to_string();
            self.say(&instance, Because::Billed(Box::new(bill)), effects);
        }
        let lacking = self.ledger.lacks().map(|offering| {
            let Offering { instance_type, capacity_type, .. } = offering;
            (*capacity_type, format!("{capacity_type} {instance_type}"))
        });
        if let Some((capacity, of)) = lacking.filter(|_| !self.catalog.is_empty())
            && self.said.insert(format!("price: {capacity}"))
        {
            let rule = format!("{capacity} instances without one are left out of what is spent");
            self.say("", Because::NoPrice { of, rule }, effects);
        }
    }

    /// What the instances of claims came to while this replica led.
    pub fn spent(&self) -> Totals {
        self.ledger.totals()
    }

    /// Claims that the cap on cost holds back ask on demand again as soon as fallback costs less.
    pub(super) fn lift_holds(&mut self, now: Instant) {
        self.claims.index(now);
        let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for run in self.claims.that(That::Capped) {
            let pool = run.spec.node_pool.clone();
            pool.into_iter().for_each(|pool| held.entry(pool).or_default().push(run.name.clone()));
        }
        for (pool, names) in held {
            let cost = self.fallback_cost(&pool);
            names.iter().for_each(|name| self.claims.get_mut(name).into_iter().for_each(|run| run.cheaper(now, cost)));
        }
    }

    pub(super) fn pool_written(&mut self, now: Instant, name: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let Some(why) = self.pools.written(now, name, outcome) {
            self.say(name, Because::WriteFailed { what: format!("the status of NodePool {name}"), why }, effects);
        }
    }

    /// What the pools say of themselves.
    pub(super) fn write_pools(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !self.reading.all_were_read {
            return;
        }
        self.claims.index(now);
        let names: Vec<String> = self.pools.iter().map(|(name, _)| name.clone()).collect();
        let usages: BTreeMap<String, Usage> =
            names.into_iter().map(|name| (name.clone(), self.usage_of(&name, None))).collect();
        let early = !self.pools.are_settled(now, self.leads_since);
        let mut said = Vec::new();
        let (classes, epoch) = (&self.classes, self.epoch);
        for served in self.pools.iter_mut() {
            let fault = Pools::fault(served, classes);
            // Classes are seen a little after the pools that name them.
            if early && fault.as_ref().is_some_and(|fault| fault.reason == "NodeClassNotFound") {
                continue;
            }
            let usage = usages.get(&served.pool.name).cloned().unwrap_or_default();
            let (condition, because) = condition(served, fault, epoch.wall(now));
            said.extend(because.map(|because| (served.pool.name.clone(), because)));
            served.status = status(served, &usage, condition);
            if let Some(status) = served.writes.next(now, &served.status) {
                let (name, uid) = (served.pool.name.clone(), served.pool.uid.clone());
                effects.push(Effect::WritePool { name, uid, status: Box::new(status) });
            }
        }
        said.into_iter().for_each(|(about, because)| self.say(&about, because, effects));
    }
}

/// The condition of a pool, and what is to be said where it has changed.
fn condition(served: &Served, fault: Option<Fault>, at: jiff::Timestamp) -> (Condition, Option<Because>) {
    let known = served.status.conditions.iter().find(|known| known.r#type == READY);
    let (status, reason, message) = match (&fault, &served.possible) {
        (Some(fault), _) => (ConditionStatus::False, fault.reason, fault.to_string()),
        (None, Ok(Some(note))) => (ConditionStatus::True, READY, note.clone()),
        (None, _) => (ConditionStatus::True, READY, "it can serve".to_owned()),
    };
    let message: String = message.chars().take(1024).collect();
    let since = known.filter(|known| known.status == status).map_or(at, |known| known.last_transition_time);
    let because = match (fault, known) {
        (Some(_), Some(known)) if known.status == status && known.message == message => None,
        (Some(fault), _) => Some(Because::PoolCannotWork { pool: served.pool.name.clone(), fault }),
        (None, Some(known)) if known.status == ConditionStatus::False => {
            Some(Because::PoolReady { pool: served.pool.name.clone() })
        }
        (None, _) => None,
    };
    let condition = Condition {
        r#type: READY.into(),
        status,
        reason: reason.into(),
        message,
        last_transition_time: since,
        observed_generation: served.pool.generation,
    };
    (condition, because)
}

fn status(served: &Served, usage: &Usage, ready: Condition) -> NodePoolStatus {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mib = usage.memory_mib;
    let memory = if mib.is_multiple_of(1_024) { format!("{}Gi", mib / 1_024) } else { format!("{mib}Mi") };
    let cost = served.rules.as_ref().ok().filter(|_| !usage.unpriced).map(|rules| usage.fallback_cost(rules));
    NodePoolStatus {
        nodes: number(usage.nodes),
        on_demand: number(usage.on_demand + usage.reserved),
        spot: number(usage.spot),
        resources: PoolResources { cpu: usage.vcpus.to_string(), memory },
        hourly_fallback_cost: cost.map(in_dollars),
        conditions: vec![ready],
    }
}
