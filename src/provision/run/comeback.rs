//! On-demand nodes that move back to spot: a spot node first, then the drain, and nothing where the first fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::claims::That;
use super::watched::Pace;
use super::{Provisioner, claim};
use crate::api::interruption::Phase;
use crate::api::launch::Override;
use crate::api::node_claim::{ClaimPhase, NodeClaimSpec, Purpose, Recipe, Replaces};
use crate::domain::notice::{InstanceId, Kind};
use crate::domain::offering::CapacityType;
use crate::domain::time::Instant;
use crate::provision::comeback;
use crate::provision::demand::claim_name;
use crate::provision::ladder::{self, Choice, Rung, Wanted};
use crate::provision::retire::Reason;
use crate::provision::shortage::Standing;
use crate::provision::{Because, Doomed, Effect, NodeView};

/// How long a return may wait to be asked for.
const ASKED_WITHIN: Duration = Duration::from_secs(120);

const HOUR: Duration = Duration::from_secs(3_600);

/// How long a node may take to be empty once its spot node is Ready, before other returns do not wait for it any more.
const EMPTY_WITHIN: Duration = HOUR;

/// What is remembered of returns beside what the claims say.
#[derive(Clone, Debug, Default)]
pub(super) struct Returns {
    /// When the last hour's began, and of which pool.
    begun: Vec<(Instant, Scope)>,
    /// When a node's return failed, by its claim.
    failed: BTreeMap<String, Instant>,
    /// Those that others do not wait for any more, by the claim of the spot node.
    held: BTreeSet<String>,
    wakeup: Option<Instant>,
}

/// Whose nodes share a pace: those of one pool, or those of none.
type Scope = Option<String>;

/// One return on its way: the claim of the spot node, and that of the node that moves.
struct OnItsWay {
    back: String,
    old: String,
    scope: Scope,
}

impl Returns {
    /// A new term: those that the claims tell of count.
    pub(super) fn resumed(&mut self, now: Instant, begun: impl Iterator<Item = (Instant, Scope)>) {
        *self = Self { begun: begun.filter(|(at, _)| now.since(*at) < HOUR).collect(), ..Self::default() };
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.wakeup
    }
}

/// Whether AWS takes the instance, rather than we.
pub(super) fn is_taken(doomed: &Doomed) -> bool {
    let going = doomed.phase >= Phase::Confirmed && doomed.phase != Phase::Cancelled && doomed.phase != Phase::Refuted;
    going && !matches!(doomed.kind, None | Some(Kind::Requested | Kind::RebalanceRecommendation))
}

impl Provisioner {
    fn taken(&self, instance: &InstanceId) -> bool {
        self.doomed.get(instance).is_some_and(is_taken)
    }

    /// Takes in which spot pools are being interrupted.
    pub(super) fn look_for_risks(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut news = Vec::new();
        self.claims.index(now);
        let mut of = self.doomed.to_look_at(Pace::Changed);
        of.append(&mut self.found.unweighed);
        for doomed in of.iter().filter_map(|id| self.doomed.get(id)).filter(|doomed| !self.risks.knows(doomed)) {
            let ours = self.claims.of_instance(&doomed.instance).next();
            let read = self.instances.get(&doomed.instance).map(|one| &one.offering);
            let offering = read.or(ours.and_then(|run| run.status.offering.as_ref()));
            match offering {
                Some(pool) => news.push((doomed.clone(), pool.clone())),
                None => drop(self.found.unweighed.insert(doomed.instance.clone())),
            }
        }
        for (doomed, pool) in news {
            if self.risks.interrupted(now, &doomed, &pool) {
                self.say(&doomed.node, Because::Risky { what: pool.to_string() }, effects);
            }
        }
        self.risks.prune(now);
    }

    /// What may be asked for on a rung, and of it what is to be.
    pub(super) fn rung(&self, now: Instant, spec: &NodeClaimSpec, recipe: &Recipe, capacity: CapacityType) -> Rung {
        let (catalog, max) = (&self.catalog, self.settings.overrides_max);
        let wanted = Wanted { requirements: &spec.requirements, recipe };
        if capacity == CapacityType::Reserved {
            return self.reserved_rung(now, wanted);
        }
        if capacity != CapacityType::Spot {
            return ladder::rung(now, wanted, capacity, catalog, &self.shortages, max);
        }
        if spec.purpose == Purpose::ReturnToSpot {
            let of = spec.replaces.as_ref().map(|of| &of.instance_id);
            let old = of.and_then(|of| self.claims.of_instance(of).next());
            return self.quiet_rung(now, spec, old);
        }
        let wary = self.is_wary(spec);
        ladder::rung_of(now, wanted, capacity, catalog, &self.shortages, max, &|offering| match self
            .risks
            .avoided_until(now, offering)
        {
            None => Choice::Take,
            Some(until) if wary => Choice::Leave(Some(until)),
            Some(_) => Choice::IfNothingElse,
        })
    }

    /// Whether it is to go anywhere but where spot makes trouble: what a recommendation replaces would only be
    /// recommended to go again.
    pub(super) fn is_wary(&self, spec: &NodeClaimSpec) -> bool {
        let doomed = spec.replaces.as_ref().and_then(|of| self.doomed.get(&of.instance_id));
        doomed.is_some_and(|doomed| doomed.kind == Some(Kind::RebalanceRecommendation))
    }

    /// The spot offerings that have been quiet for long enough for this node, and cost less than it.
    fn quiet_rung(&self, now: Instant, spec: &NodeClaimSpec, old: Option<&claim::Run>) -> Rung {
        let quiet = self.return_policy(&spec.node_pool).quiet(old.map_or(0, |old| old.status.failed_returns));
        let Ok(recipe) = self.recipe(spec.recipe.as_ref(), spec.node_pool.as_deref()) else { return Rung::Nothing };
        let failed = old.and_then(|old| self.returns.failed.get(&old.name)).copied();
        let price = old.and_then(|old| self.catalog.price(old.status.offering.as_ref()?));
        ladder::rung_of(
            now,
            Wanted { requirements: &spec.requirements, recipe: &recipe },
            CapacityType::Spot,
            &self.catalog,
            &self.shortages,
            self.settings.overrides_max,
            &|offering| {
                let dear = price.zip(self.catalog.price(offering)).is_some_and(|(old, new)| new >= old);
                let failed = failed.map_or(Instant::default(), |failed| failed + quiet);
                match self.risks.quiet_until(offering, quiet).max(failed) {
                    _ if dear => Choice::Leave(None),
                    at if at > now => Choice::Leave(Some(at)),
                    _ => Choice::Take,
                }
            },
        )
    }

    /// The returns whose on-demand node is still there.
    fn on_their_way(&self) -> Vec<OnItsWay> {
        self.claims
            .that(That::Returns)
            .filter_map(|run| {
                let of = &run.spec.replaces.as_ref()?.instance_id;
                let old = self.claims.of_instance(of).find(|old| !old.deleting)?;
                Some(OnItsWay { back: run.name.clone(), old: old.name.clone(), scope: run.spec.node_pool.clone() })
            })
            .collect()
    }

    /// Returns whose on-demand node has gone otherwise, before the spot node could take its place: nobody wants that one.
    /// One that stands in for a node that was taken is wanted.
    fn orphaned(&self) -> Vec<String> {
        let early = self.claims.that(That::Returns).filter(|run| !run.deleting && run.phase() != ClaimPhase::Ready);
        let orphaned = early.filter(|run| {
            let Some(of) = run.spec.replaces.as_ref().map(|of| &of.instance_id) else { return true };
            let stays = self.claims.of_instance(of).any(|old| !old.deleting);
            !(stays || run.has_instance() && self.taken(of))
        });
        orphaned.map(|run| run.name.clone()).collect()
    }

    /// The on-demand instances whose spot node has become Ready, is so now, and stays.
    pub(super) fn returned(&self) -> Vec<InstanceId> {
        let there = |back: &claim::Run| {
            let node = back.instance().and_then(|instance| self.node_of(instance));
            !self.nodes_synced || node.is_some_and(|node| node.ready)
        };
        let ready = |one: &OnItsWay| {
            let back = self.claims.get(&one.back)?;
            (back.phase() == ClaimPhase::Ready && !back.deleting && there(back)).then_some(())?;
            self.claims.get(&one.old)?.instance().cloned()
        };
        self.on_their_way().iter().filter_map(ready).collect()
    }

    /// Whether a spot node is on its way already in the place of this one.
    pub(super) fn comes_back(&self, instance: &InstanceId) -> bool {
        let mut back = self.claims.replacing(instance).filter(|run| run.spec.purpose == Purpose::ReturnToSpot);
        back.any(|run| run.has_instance() && !run.deleting)
    }

    /// Begins returns, and gives up those that have failed.
    pub(super) fn come_back(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        for name in self.orphaned() {
            let gave_up = self.claims.get_mut(&name).map(|run| {
                run.leaves = Some(Reason::Surplus);
                run.unwanted("the on-demand node that it was to follow has gone")
            });
            gave_up.into_iter().for_each(|because| self.say(&name, because, effects));
        }
        self.claims.index(now);
        let on_their_way = self.on_their_way();
        for one in &on_their_way {
            if let Some(why) = self.why_not(now, one) {
                self.return_failed(now, one, why, effects);
            }
        }
        // Until its instance is ended one that failed holds its place.
        let mut busy: BTreeMap<Scope, u64> = BTreeMap::new();
        self.claims.index(now);
        let mut due: Option<Instant> = None;
        for one in on_their_way {
            match self.empty_by(now, &one) {
                Some(by) if by <= now => self.is_held(&one, effects),
                by => {
                    due = due.into_iter().chain(by).min();
                    *busy.entry(one.scope).or_default() += 1;
                }
            }
        }
        self.claims.index(now);
        self.begin_returns(now, busy, due, effects);
    }

    /// Until when the others wait for a return whose spot node is Ready.
    fn empty_by(&self, now: Instant, one: &OnItsWay) -> Option<Instant> {
        let back = self.claims.get(&one.back).filter(|back| back.phase() == ClaimPhase::Ready && !back.deleting)?;
        let ready = self.epoch.ago(back.status.ready_at?, now);
        Some(now + EMPTY_WITHIN.saturating_sub(ready))
    }

    /// Something keeps a node from being empty for long: that is said, with what it is, and others go on.
    fn is_held(&mut self, one: &OnItsWay, effects: &mut Vec<Effect>) {
        if !self.returns.held.insert(one.back.clone()) {
            return;
        }
        let Some(old) = self.claims.get(&one.old) else { return };
        let node = old.status.node_name.clone().unwrap_or_default();
        let blocked = old.instance().and_then(|of| self.doomed.get(of)).and_then(|of| of.record.blocked.clone());
        let stays = self.nodes.get(&node).is_some_and(|node| node.stays);
        let by = match blocked {
            Some(blocked) => blocked,
            None if stays => "a pod on it stays (spotkeeper.dev/on-interruption)".to_owned(),
            None => "its pods have not gone".to_owned(),
        };
        let because = Because::ReturnHeld { node, by };
        self.claims.get_mut(&one.old).into_iter().for_each(|run| run.says(&because));
        self.say(&one.old, because, effects);
    }

    /// How the nodes of a pool, or those of none, return.
    fn return_policy(&self, pool: &Scope) -> comeback::Policy {
        let rules = pool.as_ref().and_then(|pool| self.pools.get(pool)?.rules.as_ref().ok());
        rules.map_or_else(|| self.settings.returns.clone(), |rules| rules.return_to_spot.into())
    }

    /// Why a return is to be given up; `None` while it goes on.
    fn why_not(&self, now: Instant, one: &OnItsWay) -> Option<String> {
        let (back, old) = (self.claims.get(&one.back)?, self.claims.get(&one.old)?);
        if back.deleting {
            return None;
        }
        if back.has_tried() || back.phase() == ClaimPhase::Failed {
            return Some(back.status.because.clone().unwrap_or_default());
        }
        if back.instance().is_some_and(|instance| self.taken(instance)) {
            return Some("its spot node is interrupted".into());
        }
        if back.status.attempts_total == 0 && now.since(back.wanted_since) >= ASKED_WITHIN {
            return Some(back.status.because.clone().unwrap_or_else(|| "it could not be asked for".into()));
        }
        let taken = old.instance().is_some_and(|instance| self.taken(instance));
        (taken && !back.has_instance()).then(|| "the node itself is interrupted".into())
    }

    fn return_failed(&mut self, now: Instant, one: &OnItsWay, why: String, effects: &mut Vec<Effect>) {
        let gave_up = self.claims.get_mut(&one.back).map(|run| {
            run.leaves = Some(Reason::Surplus);
            run.unwanted("the return to spot has failed")
        });
        gave_up.into_iter().for_each(|because| self.say(&one.back, because, effects));
        // Nor does anybody stand in for the spot node, if that is what is taken: the on-demand one stays.
        let of = self.claims.get(&one.back).and_then(|run| self.doomed.get(run.instance()?)).cloned();
        if let Some(doomed) = of.filter(is_taken) {
            let because = Because::NoLongerWanted { why: "the on-demand node that it was to follow stays" };
            self.decline(&doomed, &claim_name(&doomed), because, effects);
        }
        self.returns.failed.insert(one.old.clone(), now);
        // Where it could not even be tried, another probe is on its way: that is no word about this node. It waits anew.
        if self.claims.get(&one.back).is_some_and(|run| run.not_before.is_some() && run.status.attempts_total == 0) {
            return;
        }
        let Some(old) = self.claims.get_mut(&one.old) else { return };
        old.stays();
        let (failed, pool) = (old.status.failed_returns, old.spec.node_pool.clone());
        let node = old.status.node_name.clone().unwrap_or_default();
        let again_in = self.return_policy(&pool).quiet(failed);
        self.say(&one.old, Because::ReturnFailed { node, why, again_in }, effects);
    }

    /// Begins as many returns as may be on their way, those first that have stayed longest.
    fn begin_returns(
        &mut self,
        now: Instant,
        mut busy: BTreeMap<Scope, u64>,
        mut due: Option<Instant>,
        effects: &mut Vec<Effect>,
    ) {
        self.returns.wakeup = due;
        self.returns.begun.retain(|(at, _)| now.since(*at) < HOUR);
        let claims = &self.claims;
        self.returns.failed.retain(|name, _| claims.contains_key(name));
        self.returns.held.retain(|name| claims.contains_key(name));
        if self.catalog.is_empty() || !self.nodes_synced {
            return;
        }
        let mut later = |at: Instant| due = Some(due.map_or(at, |due| due.min(at)));
        let mut ready = Vec::new();
        for run in self.claims.that(That::MayReturn) {
            let policy = self.return_policy(&run.spec.node_pool);
            let full = busy.get(&run.spec.node_pool).is_some_and(|busy| *busy >= policy.surge);
            let Some(at) = comeback::stayed(run, &policy, now, &self.epoch).filter(|_| !full) else { continue };
            // A pod that stays would keep it here, and its spot node beside it.
            let movable = |node: &NodeView| node.ready && !node.stays;
            let here = run.instance().is_some_and(|of| !self.taken(of) && self.node_of(of).is_some_and(movable));
            if !here || self.retires_for_good(run) || !self.floor_allows(&run.spec.node_pool) {
                continue;
            }
            let spec = back_to_spot(run);
            // A little after the first pool has been quiet for long enough, so that what follows it is asked as well.
            match self.quiet_rung(now - ladder::NEARLY, &spec, Some(run)) {
                Rung::Ask(overrides) if at <= now => {
                    let probes = self.all_half_open(now, &overrides);
                    ready.push((run.status.ready_at, run.name.clone(), spec, probes));
                }
                Rung::Ask(_) => later(at),
                Rung::Short(until) => until.into_iter().for_each(|until| later((until + ladder::NEARLY).max(at))),
                Rung::Nothing => {}
            }
        }
        ready.sort_by(|(a, x, ..), (b, y, ..)| (a, x).cmp(&(b, y)));
        for (_, name, spec, probes) in ready {
            // What it may ask for another will have asked by then. Its answer says whether this one may.
            if probes && self.about_to_ask() {
                continue;
            }
            let Some(old) = self.claims.get(&name) else { continue };
            let Some(back) = comeback::name(old).filter(|back| !self.claims.contains_key(back)) else { continue };
            let (scope, policy) = (spec.node_pool.clone(), self.return_policy(&spec.node_pool));
            let busy = busy.entry(scope.clone()).or_default();
            if *busy >= policy.surge {
                continue;
            }
            let begun: Vec<Instant> =
                self.returns.begun.iter().filter(|(_, of)| *of == scope).map(|(at, _)| *at).collect();
            if policy.max_per_hour.is_some_and(|most| begun.len() as u64 >= most) {
                begun.first().into_iter().for_each(|first| later(*first + HOUR));
                continue;
            }
            *busy += 1;
            self.returns.begun.push((now, scope));
            let node = old.status.node_name.clone().unwrap_or_default();
            self.say(&back, Because::Returns { node }, effects);
            self.claims.insert(back.clone(), claim::Run::new(now, back, spec));
        }
        self.returns.wakeup = due.filter(|at| *at > now);
    }

    /// Whether a return has begun that has not asked EC2 yet.
    fn about_to_ask(&self) -> bool {
        let returns = self.claims.values().filter(|run| run.spec.purpose == Purpose::ReturnToSpot);
        returns.filter(|run| run.leaves.is_none()).any(claim::Run::is_yet_to_ask)
    }

    /// Whether all of it has been short, and may be asked for by one alone.
    fn all_half_open(&self, now: Instant, overrides: &[Override]) -> bool {
        overrides.iter().all(|one| {
            let class = self.catalog.types.get(&one.instance_type).map(|of| of.quota_class());
            let standing = class.map(|class| self.shortages.standing(now, one, class, CapacityType::Spot));
            standing == Some(Standing::HalfOpen)
        })
    }

    /// Whether its node is being retired for another reason than its return.
    fn retires_for_good(&self, run: &claim::Run) -> bool {
        run.deleting || run.instance().is_some_and(|of| self.retiring.get(of).is_some_and(|run| !run.is_withdrawn()))
    }
}

/// The claim of the spot node: what the node is, of spot alone.
fn back_to_spot(of: &claim::Run) -> NodeClaimSpec {
    let replaces = of.instance().map(|instance| Replaces {
        instance_id: instance.clone(),
        node_name: of.status.node_name.clone().unwrap_or_default(),
        episode: 0,
        group: None,
    });
    NodeClaimSpec {
        order: vec![CapacityType::Spot],
        spot_patience_seconds: 0,
        replaces,
        purpose: Purpose::ReturnToSpot,
        ..of.spec.clone()
    }
}
