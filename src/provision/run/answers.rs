//! What EC2 answered: instances given to their claims, shortages remembered, the next rung begun.

use super::Provisioner;
use crate::api::launch::{LaunchOutcome, LaunchSpec, Launched, Override};
use crate::domain::offering::{CapacityType, QuotaClass};
use crate::domain::time::Instant;
use crate::provision::failure::{self, Class};
use crate::provision::launch::{self, Fate};
use crate::provision::shortage::{Scarce, fnv};
use crate::provision::{Answer, Because, Created, Effect, FleetError, ladder};

/// Whether an error speaks of this; what it leaves open it says of all.
fn is_about(error: &FleetError, one: &Override) -> bool {
    error.instance_type.as_ref().is_none_or(|name| *name == one.instance_type)
        && error.zone.as_ref().is_none_or(|zone| *zone == one.zone)
        && error.subnet_id.as_ref().is_none_or(|id| *id == one.subnet_id)
}

/// The error that stands in the way of the request as a whole: each of its overrides is wrong. Where only some are, such as
/// a type that a zone does not have, the others were refused for what they are, and the next rung may have more.
fn wrong_as_a_whole<'a>(spec: &LaunchSpec, errors: &'a [FleetError]) -> Option<&'a FleetError> {
    let wrong = |error: &&FleetError| failure::class(&error.code) == Class::SetUp && !failure::spot_only(&error.code);
    let all = spec.overrides.iter().all(|one| errors.iter().filter(wrong).any(|error| is_about(error, one)));
    errors.iter().find(wrong).filter(|_| all && errors.iter().all(|error| wrong(&error)))
}

/// What a claim gets of a launch, where it has none of its instances yet.
struct Share {
    of: String,
    /// It waits for this launch.
    waits: bool,
    got: Option<Launched>,
}

impl Provisioner {
    pub(super) fn launch_created(&mut self, now: Instant, name: &str, outcome: Created, effects: &mut Vec<Effect>) {
        let failed = match &outcome {
            Created::Refused(why) | Created::Failed(why) => Some(why.clone()),
            _ => None,
        };
        self.creating.remove(name);
        let Some(run) = self.launches.get_mut(name) else { return };
        let written = run.created(now, outcome);
        if let Some(why) = failed.filter(|_| self.launches.get(name).is_some_and(launch::Run::has_just_failed)) {
            self.say(name, Because::WriteFailed { what: format!("Launch {name}"), why }, effects);
        }
        if written == Some(false) {
            // A creation whose answer was lost, or another leader's: what is there counts. It is listed, and continued.
            self.launches.remove(name);
            self.shortages.over(name);
            self.list_again();
        }
    }

    /// What has become due of the launches on their way.
    pub(super) fn advance_launches(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut closed = Vec::new();
        for run in self.launches.all_quietly() {
            let was_open = run.is_open();
            if run.is_uncalled() {
                let of = run.spec.claims.iter().filter_map(|of| self.claims.get(&of.name));
                let waits = of.filter(|of| of.launch.as_ref() == Some(&run.name)).map(|of| !of.deleting);
                let stays = waits.reduce(|a, b| a || b);
                run.is_waited_for(now, &self.epoch, stays.is_some(), stays.unwrap_or(false));
                let pool = run.spec.node_pool.as_ref().and_then(|pool| self.pools.get(pool));
                run.pool_is(now, &self.epoch, pool.map(|served| served.pool.generation));
            }
            run.create(now, effects);
            run.advance(now, &self.epoch, effects);
            closed.extend((was_open && !run.is_open()).then(|| run.name.clone()));
        }
        closed.iter().for_each(|name| self.launches.touch(name.as_str()));
        let known = self.launches.values().filter(|run| run.is_to_be_told()).map(|run| run.name.clone());
        for name in known.collect::<Vec<_>>() {
            self.learnt(now, &name, effects);
        }
        self.settle(now, effects);
    }

    pub(super) fn called(&mut self, now: Instant, name: &str, answer: Answer, effects: &mut Vec<Effect>) {
        let Some(run) = self.launches.get_mut(name) else { return };
        let Some(fate) = run.answered(now, &self.epoch, answer) else { return };
        match fate {
            Fate::Known => {
                self.bucket.answered();
                let denied = |run: &launch::Run| run.errors.iter().any(|error| failure::forbids(&error.code));
                if self.launches.get(name).is_some_and(|run| !denied(run)) {
                    self.claims.all_quietly().for_each(|run| run.allowed(now));
                }
                self.learnt(now, name, effects);
            }
            Fate::Throttled(code) => {
                self.throttled(now, name);
                self.say(name, Because::Throttled { code }, effects);
            }
            Fate::Unknown(why) if self.launches.get(name).is_some_and(launch::Run::is_newly_unknown) => {
                self.say(name, Because::Unknown { why }, effects);
            }
            Fate::Unknown(_) => {}
            Fate::Wrong { code, message } => {
                self.launches.get_mut(name).into_iter().for_each(|run| run.told = true);
                self.shortages.over(name);
                self.wrong(now, name, &code, &message, effects);
            }
        }
    }

    fn throttled(&mut self, now: Instant, name: &str) {
        let jitter = (fnv(name.as_bytes()) % 1_000) as f64 / 1_000.0;
        self.bucket.throttled(now, jitter);
    }

    pub(super) fn looked_up(&mut self, now: Instant, name: &str, found: &Result<Vec<Launched>, String>) {
        self.launches.get_mut(name).into_iter().for_each(|run| run.looked(now, &self.epoch, found.clone()));
    }

    /// A launch's fate is known: what it says of shortages, and who gets what.
    fn learnt(&mut self, now: Instant, name: &str, effects: &mut Vec<Effect>) {
        let Some(run) = self.launches.get_mut(name) else { return };
        run.told = true;
        let (spec, status, errors) = (run.spec.clone(), run.status.clone(), run.errors.clone());
        let mut recovered = false;
        for got in &status.instances {
            let class = self.quota_class(&got.offering.instance_type);
            for one in spec.overrides.iter().filter(|one| ladder::offering(one, spec.capacity_type) == got.offering) {
                if self.shortages.gave(one, class, spec.capacity_type) {
                    recovered = true;
                    self.say(name, Because::Recovered { what: got.offering.to_string() }, effects);
                }
            }
        }
        for error in &errors {
            self.note_trouble(now, &spec, error);
            for what in self.scarce(&spec, error) {
                if let Some(until) = self.shortages.failed(now, &what, name) {
                    let because =
                        Because::Short { what: what.to_string(), code: error.code.clone(), believed: until.since(now) };
                    self.say(name, because, effects);
                }
            }
        }
        self.shortages.over(name);
        self.reserved_came(now, spec.capacity_type, &status);
        if recovered {
            self.ask_again(now, spec.capacity_type);
        }
        self.hand_out(now, name, effects);
    }

    /// There is capacity of this kind again: whoever has found none asks now, rather than when a belief would have ended.
    fn ask_again(&mut self, now: Instant, capacity: CapacityType) {
        let waits = self.claims.values().filter(|run| run.waits_for(now, capacity));
        let waits: Vec<String> = waits.map(|run| run.name.clone()).collect();
        for name in waits {
            self.claims.get_mut(&name).into_iter().for_each(|run| run.not_before = Some(now));
        }
    }

    /// Spot offerings that an error names have not been quiet.
    fn note_trouble(&mut self, now: Instant, spec: &LaunchSpec, error: &FleetError) {
        if spec.capacity_type != CapacityType::Spot || failure::class(&error.code) == Class::Throttle {
            return;
        }
        for one in spec.overrides.iter().filter(|one| is_about(error, one)) {
            self.risks.gave_nothing(now, &ladder::offering(one, spec.capacity_type));
        }
    }

    pub(super) fn quota_class(&self, instance_type: &str) -> QuotaClass {
        let named = crate::domain::offering::InstanceType { name: instance_type.into(), ..Default::default() };
        named.quota_class()
    }

    /// What an error says is short.
    fn scarce(&self, spec: &LaunchSpec, error: &FleetError) -> Vec<Scarce> {
        let capacity = spec.capacity_type;
        let about = |one: &&Override| is_about(error, one);
        let named = error.instance_type.is_some() || error.zone.is_some() || error.subnet_id.is_some();
        let mut all: Vec<Scarce> = match failure::class(&error.code) {
            // One that names nothing is no word about any offering.
            Class::Capacity if !named => Vec::new(),
            Class::Capacity => spec
                .overrides
                .iter()
                .filter(about)
                .map(|one| Scarce::Offering(ladder::offering(one, capacity)))
                .collect(),
            Class::Quota => spec
                .overrides
                .iter()
                .filter(about)
                .map(|one| Scarce::Quota(self.quota_class(&one.instance_type), capacity))
                .collect(),
            Class::Addresses => {
                spec.overrides.iter().filter(about).map(|one| Scarce::Subnet(one.subnet_id.clone())).collect()
            }
            Class::SetUp if failure::spot_only(&error.code) => vec![Scarce::Market(CapacityType::Spot)],
            Class::Throttle | Class::SetUp | Class::Unknown => Vec::new(),
        };
        all.sort();
        all.dedup();
        all
    }

    /// Which claim of a launch gets which of its instances, and the instances that none of them gets.
    ///
    /// The lowest id goes to the first name, and so on, so that every leader comes to the same. What an earlier one has
    /// given already stays as it was: a list that was put together by tag may lack what has ended since, and by their places
    /// alone an instance of one claim would go to another as well.
    fn shares(&mut self, now: Instant, name: &str, spec: &LaunchSpec, got: &[Launched]) -> (Vec<Share>, Vec<Launched>) {
        self.claims.index(now);
        let mut left = got.iter().filter(|one| !self.claims.has(&one.instance_id)).cloned();
        let is_whole = got.len() >= spec.claims.len();
        let mut shares = Vec::new();
        for of in &spec.claims {
            let run = self.claims.get(&of.name).filter(|run| run.uid() == Some(&of.uid));
            let own = run.and_then(|run| run.instance());
            // Who has another instance keeps its place in a whole list; what is there goes to nobody.
            if own.is_some_and(|own| !is_whole || got.iter().any(|one| one.instance_id == *own)) {
                continue;
            }
            let waits = run.is_some_and(|run| run.launch.as_deref() == Some(name));
            shares.push(Share { of: of.name.clone(), waits, got: left.next() });
        }
        let rest = left.collect();
        (shares, rest)
    }

    /// Gives the instances to the claims. Who gets none goes on.
    pub(super) fn hand_out(&mut self, now: Instant, name: &str, effects: &mut Vec<Effect>) {
        let Some(launch) = self.launches.get(name) else { return };
        let (spec, status, errors) = (launch.spec.clone(), launch.status.clone(), launch.errors.clone());
        let taken_back = launch.taken_back;
        let wrong = wrong_as_a_whole(&spec, &errors).filter(|_| status.instances.is_empty());
        let busy = errors.iter().find(|e| failure::class(&e.code) == Class::Throttle);
        if let Some(error) = busy {
            self.throttled(now, name);
            self.say(name, Because::Throttled { code: error.code.clone() }, effects);
        }
        if let Some(error) = wrong {
            self.template_refused(now, &error.code, &spec);
        }
        let mut said = Vec::new();
        let (shares, mut rest) = self.shares(now, name, &spec, &status.instances);
        for Share { of, waits, got } in shares {
            match (self.claims.get_mut(&of).filter(|_| waits), got) {
                (Some(run), Some(got)) => {
                    let (price, registration) = (self.catalog.price(&got.offering), self.settings.registration);
                    said.push((of, run.launched(now, &self.epoch, &got, price, registration)));
                }
                // The claim is gone, or has another.
                (None, got) => rest.extend(got),
                (Some(run), None) => {
                    let because = if let Some(error) = wrong {
                        run.misconfigured(now, error.code.clone(), error.message.clone())
                    } else if let Some(error) = busy {
                        let because = Because::Throttled { code: error.code.clone() };
                        run.call_again(&because);
                        because
                    } else if taken_back {
                        let because = Because::TakenBack { pool: spec.node_pool.clone().unwrap_or_default() };
                        run.call_again(&because);
                        because
                    } else {
                        let why = match errors.first() {
                            Some(error) => {
                                format!("{} ({})", Because::of_class(failure::class(&error.code)), error.code)
                            }
                            None if status.outcome == Some(LaunchOutcome::PresumedNone) => "no answer".to_owned(),
                            None => "EC2 gave fewer than were asked for".to_owned(),
                        };
                        run.fell_through(why)
                    };
                    said.push((of, because));
                }
            }
        }
        // The record of this launch may be gone before EC2 shows them.
        rest.iter().for_each(|got| self.tidy.is_surplus(now, &got.instance_id, name));
        for (about, because) in said {
            self.say(&about, because, effects);
        }
    }

    /// One that is like an instance is looked at again at once, and made again where it is missing.
    fn template_refused(&mut self, now: Instant, code: &str, spec: &LaunchSpec) {
        if code.starts_with("InvalidLaunchTemplate") {
            self.copies.refused(now, &spec.recipe.launch_template);
        }
    }

    /// The whole call was refused for what it is.
    fn wrong(&mut self, now: Instant, name: &str, code: &str, message: &str, effects: &mut Vec<Effect>) {
        let Some(launch) = self.launches.get(name) else { return };
        let spec = launch.spec.clone();
        self.template_refused(now, code, &spec);
        if failure::spot_only(code) && spec.capacity_type == CapacityType::Spot {
            let what = Scarce::Market(CapacityType::Spot);
            if let Some(until) = self.shortages.failed(now, &what, name) {
                let because =
                    Because::Short { what: what.to_string(), code: code.to_owned(), believed: until.since(now) };
                self.say(name, because, effects);
            }
        }
        for of in &spec.claims {
            let Some(run) = self.claims.get_mut(&of.name) else { continue };
            if run.launch.as_deref() != Some(name) {
                continue;
            }
            let because = if failure::spot_only(code) {
                run.fell_through(format!("the set-up is wrong ({code})"))
            } else {
                run.misconfigured(now, code.to_owned(), message.to_owned())
            };
            self.say(&of.name, because, effects);
        }
    }

    /// A launch whose claims have its outcome in the API server is done with.
    fn settle(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for launch in self.launches.all_quietly() {
            let know = |name: &String, uid: &String| {
                let run = self.claims.get(name).filter(|run| run.uid() == Some(uid));
                run.is_none_or(|run| run.launch.as_deref() != Some(&launch.name) && run.writes.has(&run.status))
            };
            let done = launch.may_settle(now) && launch.spec.claims.iter().all(|of| know(&of.name, &of.uid));
            if done && launch.writes.has(&launch.status) {
                launch.settle(now);
            }
            launch.delete(now, effects);
        }
    }
}
