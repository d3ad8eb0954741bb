//! Which claims ask for what, together with whom, and when.

use std::collections::BTreeMap;

use super::Provisioner;
use super::claims::That;
use crate::api::launch::{ClaimRef, LaunchSpec, Override};
use crate::api::node_claim::{NodeClaimSpec, Purpose, Recipe};
use crate::domain::notice::InstanceId;
use crate::domain::offering::CapacityType;
use crate::domain::requirements::Requirement;
use crate::domain::time::Instant;
use crate::provision::ladder::{self, Rung};
use crate::provision::leadership::CALL_TIMEOUT;
use crate::provision::{Because, Effect, launch};

/// Claims that want the same of the same rung share a call.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    capacity: CapacityType,
    order: Vec<CapacityType>,
    requirements: Vec<Requirement>,
    recipe: Option<Recipe>,
    pool: Option<String>,
    /// It goes nowhere where spot makes trouble.
    wary: bool,
    /// The node that it brings back to spot: each asks for itself.
    returns: Option<InstanceId>,
}

/// The node that a claim brings back to spot.
fn returns(spec: &NodeClaimSpec) -> Option<InstanceId> {
    let of = spec.replaces.as_ref().filter(|_| spec.purpose == Purpose::ReturnToSpot);
    of.map(|of| of.instance_id.clone())
}

/// What decides when a ladder is begun anew.
type Same = (Vec<CapacityType>, Vec<Requirement>, Option<Recipe>, bool, Option<InstanceId>);

impl Provisioner {
    /// Every claim without capacity asks on its rung, or goes on to the next one, until it asks or waits.
    pub(super) fn look_for_capacity(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        // Without a token nobody could ask; who waits shares the next call.
        let must_wait = self.catalog.is_empty() || self.remembering.is_awaited(now);
        if must_wait || self.unsent(now) >= self.bucket.available(now) {
            return;
        }
        loop {
            let mut groups: BTreeMap<Alike, Vec<String>> = BTreeMap::new();
            let mut exhausted = Vec::new();
            self.claims.index(now);
            for run in self.claims.that(That::Looks).filter(|run| run.not_before.is_none_or(|at| at <= now)) {
                match run.capacity() {
                    Some(capacity) => {
                        let alike = Alike {
                            capacity,
                            order: run.spec.order.clone(),
                            requirements: run.spec.requirements.clone(),
                            recipe: run.spec.recipe.clone(),
                            pool: run.spec.node_pool.clone(),
                            wary: self.is_wary(&run.spec),
                            returns: returns(&run.spec),
                        };
                        groups.entry(alike).or_default().push(run.name.clone());
                    }
                    None => exhausted.push(run.name.clone()),
                }
            }
            self.wait(now, exhausted, effects);
            let mut moved = false;
            for (alike, names) in groups {
                moved |= self.ask(now, &alike, names, effects);
            }
            if !moved {
                return;
            }
        }
    }

    /// Lets those that are alike ask for one rung. Returns whether any of them went on to the next rung instead.
    fn ask(&mut self, now: Instant, alike: &Alike, mut names: Vec<String>, effects: &mut Vec<Effect>) -> bool {
        let recipe = match self.recipe(alike.recipe.as_ref(), alike.pool.as_deref()) {
            Ok(recipe) => recipe,
            Err(why) => {
                self.hold(&names, &Because::NothingToLaunch { why }, effects);
                return false;
            }
        };
        let mut moved = false;
        // Whether the floor allows a return was looked at when it began.
        if let (Some(pool), CapacityType::Spot, None) = (&alike.pool, alike.capacity, &alike.returns) {
            self.claims.index(now);
            let rest = names.split_off(self.skip_spot(pool, &names));
            for name in std::mem::replace(&mut names, rest) {
                let Some(run) = self.claims.get_mut(&name) else { continue };
                (run.rung, run.for_floor, moved) = (run.rung + 1, true, true);
                let why = "the pool has fewer nodes on demand than spec.fallback.onDemandFloor";
                self.say(&name, Because::Skipped { capacity: CapacityType::Spot, why }, effects);
            }
        }
        while !names.is_empty() {
            // Those that asked before them in this turn have changed.
            self.claims.index(now);
            let Some(spec) = self.claims.get(&names[0]).map(|run| run.spec.clone()) else { return false };
            let overrides = match self.rung(now, &spec, &recipe, alike.capacity) {
                Rung::Ask(overrides) => overrides,
                Rung::Short(_) => {
                    let why = "all of it is known to be short";
                    return self.pass_over(now, alike.capacity, names, why, effects) || moved;
                }
                Rung::Nothing => {
                    let why = "nothing offered meets the needs";
                    return self.pass_over(now, alike.capacity, names, why, effects) || moved;
                }
            };
            if self.unsent(now) >= self.bucket.available(now) || self.calls() >= self.settings.calls_max {
                // They wait for a token, and share the call then.
                return moved;
            }
            let count = names.len().min(self.settings.share_max).min(self.slots(alike.capacity, &overrides));
            let (count, overrides) = match self.within(alike, count, overrides, effects) {
                Ok(Some(room)) => room,
                Ok(None) => return moved,
                Err(because) => return self.held_back(&names, because, effects) || moved,
            };
            // What the pool has room for may be what is reserved least.
            let count = count.min(self.slots(alike.capacity, &overrides));
            let rest = names.split_off(count);
            self.launch(now, alike, &recipe, &names, overrides, effects);
            names = rest;
        }
        moved
    }

    /// What of it the pool has room for.
    fn within(
        &mut self,
        alike: &Alike,
        count: usize,
        overrides: Vec<Override>,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<(usize, Vec<Override>)>, Because> {
        let Some(pool) = &alike.pool else { return Ok(Some((count, overrides))) };
        let room = self.room(pool, alike.capacity, count, overrides, alike.returns.as_ref())?;
        if room.as_ref().is_some_and(|room| room.unpriced) {
            self.no_price(pool, effects);
        }
        Ok(room.map(|room| (room.count, room.overrides)))
    }

    /// Their pool has no room for them. Returns whether they go on to the next rung: where only on-demand costs too much.
    fn held_back(&mut self, names: &[String], because: Because, effects: &mut Vec<Effect>) -> bool {
        self.hold(names, &because, effects);
        let Because::CostCapReached { cost, .. } = because else { return false };
        names.iter().filter_map(|name| self.claims.get_mut(name).map(|run| run.capped(cost))).count() > 0
    }

    /// Goes on to the next rung, unless there is patience left for this one.
    fn pass_over(
        &mut self,
        now: Instant,
        capacity: CapacityType,
        names: Vec<String>,
        why: &'static str,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut moved = false;
        for name in names {
            let Some(run) = self.claims.get_mut(&name) else { continue };
            if let Some(until) = run.patience(capacity).filter(|until| now < *until) {
                run.not_before = Some(until.min(now + super::AGAIN * 5));
                continue;
            }
            run.rung += 1;
            moved = true;
            self.say(&name, Because::Skipped { capacity, why }, effects);
        }
        moved
    }

    /// The last rung is behind them.
    fn wait(&mut self, now: Instant, names: Vec<String>, effects: &mut Vec<Effect>) {
        let mut known: BTreeMap<Same, Option<Instant>> = BTreeMap::new();
        for name in names {
            self.claims.index(now);
            let Some(run) = self.claims.get(&name) else { continue };
            let mut spec = run.spec.clone();
            if run.capped_at.is_some() {
                // When that costs less is seen by what there is, not by the clock.
                spec.order.retain(|one| *one != CapacityType::OnDemand);
            }
            if run.for_floor {
                spec.order.retain(|one| *one != CapacityType::Spot);
            }
            let recipe = self.recipe(spec.recipe.as_ref(), spec.node_pool.as_deref()).ok();
            let (wary, returns) = (self.is_wary(&spec), returns(&spec));
            let key = (spec.order.clone(), spec.requirements.clone(), recipe.clone(), wary, returns);
            let until = *known.entry(key).or_insert_with(|| {
                let mut first: Option<Instant> = None;
                let recipe = recipe?;
                for capacity in &spec.order {
                    match self.rung(now, &spec, &recipe, *capacity) {
                        // Nothing is known to be short, and yet nothing came: at the claim's own pace.
                        Rung::Ask(_) => return None,
                        Rung::Short(Some(until)) => first = Some(first.map_or(until, |first| first.min(until))),
                        Rung::Short(None) | Rung::Nothing => {}
                    }
                }
                first.map(ladder::ask_again)
            });
            let because = self.claims.get_mut(&name).map(|run| run.exhausted(now, until));
            because.into_iter().for_each(|because| self.say(&name, because, effects));
        }
    }

    fn launch(
        &mut self,
        now: Instant,
        alike: &Alike,
        recipe: &Recipe,
        names: &[String],
        overrides: Vec<Override>,
        effects: &mut Vec<Effect>,
    ) {
        let capacity = alike.capacity;
        let Some(first) = self.claims.get(&names[0]) else { return };
        // A claim that was made anew under its name begins to count anew, and records of the former may be there still.
        let names_of = |nth: i64| format!("{}.{nth}", first.name);
        let mut nth = first.status.attempts_total.saturating_add(1);
        while self.launches.contains_key(&names_of(nth)) {
            nth += 1;
        }
        let name = names_of(nth);
        for one in &overrides {
            if let Some(of) = self.catalog.types.get(&one.instance_type) {
                self.shortages.asked(one, of.quota_class(), capacity, &name);
            }
        }
        let because = Because::Asking { capacity, count: names.len(), offerings: overrides.len() };
        let mut claims = Vec::with_capacity(names.len());
        for of in names {
            let Some(run) = self.claims.get_mut(of) else { continue };
            let Some(uid) = run.uid().map(str::to_owned) else { continue };
            run.asking(now, &self.epoch, &name, capacity, &because);
            claims.push(ClaimRef { name: of.clone(), uid });
        }
        let count = i64::try_from(claims.len()).unwrap_or(i64::MAX);
        let (recipe, node_pool) = (recipe.clone(), alike.pool.clone());
        let spec = LaunchSpec { claims, capacity_type: capacity, count, recipe, node_pool, overrides };
        self.say(&name, because, effects);
        let mut run = launch::Run::new(name.clone(), spec);
        let pool = alike.pool.as_ref().and_then(|pool| self.pools.get(pool));
        run.by_generation = pool.map(|served| served.pool.generation);
        run.create(now, effects);
        self.launches.insert(name, run);
    }

    /// Calls that want a token, or will as soon as they are written down.
    fn unsent(&self, now: Instant) -> usize {
        self.launches.values().filter(|run| run.is_due(now) || run.is_being_written()).count()
    }

    fn calls(&self) -> usize {
        self.launches.values().filter(|run| run.is_called()).count()
    }

    /// Makes the calls that are due, as fast as EC2's bucket allows.
    pub(super) fn send(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(not_after) = self.lead.act_until() else { return };
        for run in self.launches.all_quietly().filter(|run| run.is_due(now)) {
            if !self.bucket.take(now) {
                return;
            }
            // The performer gives up after the time-out; half a second more, so that its answer comes first.
            run.call(now + CALL_TIMEOUT + std::time::Duration::from_millis(500), not_after, effects);
        }
    }

    /// When there will be a token, where somebody waits for one.
    pub(super) fn bucket_wakeup(&self) -> Option<Instant> {
        let now = self.now;
        let due = self.launches.values().any(|run| run.is_due(now));
        let waits = || {
            let mut looking = self.claims.that(That::Looks);
            !self.catalog.is_empty() && looking.any(|run| run.not_before.is_none_or(|at| at <= now))
        };
        // With a token at hand what is due has been sent, and who looks has asked or waits for calls on their way.
        (due || waits()).then(|| self.bucket.next(now)).filter(|at| *at > now)
    }
}
