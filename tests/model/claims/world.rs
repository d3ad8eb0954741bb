//! The state of the model, and how one thing after the other changes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use spotkeeper::domain::time::Epoch;
use spotkeeper::engine::Core;
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::invariants::{TWINS_MAX, Witness, twins};
use spotkeeper::provision::leadership::CALL_TIMEOUT;
use spotkeeper::provision::{Answer, Because, Effect, Input, Provisioner, Settings};

use super::services::{Api, Ec2, catalog, failed};
use super::{Claims, Seen};
use crate::explore::{Part, at, ms};

/// How long the lease lasts, and how often it is renewed: coarser than in life, so that fewer moments matter.
const LEASE_MS: u64 = 30_000;
const RENEW_MS: u64 = 15_000;

/// How long a call to the API server may take, and for how long what its caller has given up may still be done.
const API_MS: u64 = 5_000;
const LATE_MS: u64 = 25_000;

/// When everything must have come to its end, whatever went wrong before [`super::MISHAPS_UNTIL`].
const END_MS: u64 = 420_000;

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct World {
    pub now: u64,
    pub replicas: [Part<Replica>; 2],
    pub api: Part<Api>,
    pub ec2: Part<Ec2>,
    /// Who holds the lease, and until when.
    pub lease: Option<(usize, u64)>,
    /// What is on its way, oldest first.
    pub flight: Vec<Part<Message>>,
    /// How many deviations are left.
    pub left: u8,
    /// What the witnesses have found.
    pub broken: Vec<String>,
}

/// A replica of the provisioner.
#[derive(Clone, Debug)]
pub struct Replica {
    pub life: u8,
    pub up: Option<Up>,
    back_at: Option<u64>,
    /// Its renewals do not get through.
    pub starved: bool,
}

#[derive(Clone, Debug)]
pub struct Up {
    core: Provisioner,
    witness: Witness,
    renewed: u64,
    /// Up to which change of the claims its watch has told it.
    watched: u64,
}

/// Something on its way.
#[derive(Clone, Debug)]
pub struct Message {
    pub replica: usize,
    life: u8,
    pub sent: u64,
    /// Nobody waits for it any more; it may still be done.
    pub orphan: bool,
    pub what: What,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "few at a time")]
pub enum What {
    Request(Effect),
    /// EC2's answer to a launch.
    Answer(Box<Input>),
}

impl Message {
    pub fn is_of_ec2(&self) -> bool {
        let asks = |effect: &Effect| {
            matches!(
                effect,
                Effect::Call { .. } | Effect::LookUp { .. } | Effect::End { .. } | Effect::ReadInstances { .. }
            )
        };
        matches!(&self.what, What::Request(effect) if asks(effect))
    }

    pub fn is_call(&self) -> bool {
        matches!(&self.what, What::Request(Effect::Call { .. }))
    }

    pub fn is_answer(&self) -> bool {
        matches!(&self.what, What::Answer(_))
    }

    /// Whether it asks what EC2 has, which may not show yet what is new.
    pub fn looks(&self) -> bool {
        matches!(&self.what, What::Request(Effect::LookUp { .. } | Effect::ReadInstances { .. }))
    }

    /// When it must have arrived.
    fn ends(&self) -> u64 {
        let waits = if self.is_of_ec2() || self.is_answer() { ms(CALL_TIMEOUT) } else { API_MS };
        let late = if self.orphan && self.is_of_ec2() { LATE_MS } else { 0 };
        self.sent + waits + late
    }

    /// For people.
    pub fn name(&self) -> String {
        let what = match &self.what {
            What::Request(effect) => format!("{effect:?}"),
            What::Answer(input) => format!("{input:?}"),
        };
        let what: String = what.chars().take(110).collect();
        format!("[{}{}] {what}", self.replica, if self.orphan { ", orphan" } else { "" })
    }
}

/// How a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is done and answered.
    Well,
    /// EC2 does not show yet what is new.
    Hides,
    /// It is done twice: a connection was tried again under way.
    Twice,
}

impl World {
    pub fn new(model: &Claims, spot: usize) -> Self {
        let replica = Replica { life: 0, up: None, back_at: None, starved: false };
        let mut world = Self {
            now: 0,
            replicas: [Part::new(replica.clone()), Part::new(replica)],
            api: Part::new(Api::with_claims(model.claims)),
            ec2: Part::new(Ec2::with_spot(spot)),
            lease: None,
            flight: Vec::new(),
            left: model.deviations,
            broken: Vec::new(),
        };
        for replica in 0..2 {
            world.start(model, replica);
        }
        world.compete(model);
        world
    }

    fn start(&mut self, model: &Claims, replica: usize) {
        let epoch = Epoch(Timestamp::from_second(1_790_000_000).expect("a time in range"));
        let core = Provisioner::new(Settings::default(), epoch);
        self.replicas[replica].change(|one| {
            one.life += 1;
            one.back_at = None;
            one.up = Some(Up { core, witness: Witness::default(), renewed: 0, watched: 0 });
        });
        self.feed(model, replica, Input::CatalogRead(Arc::new(catalog())));
        self.feed(model, replica, Input::NodesSynced);
    }

    /// Whoever may take the lease takes it.
    fn compete(&mut self, model: &Claims) {
        let free = |replica: usize| {
            self.lease.is_none_or(|(holder, until)| {
                until <= self.now || (holder == replica && self.replicas[replica].up.is_some())
            })
        };
        let last = self.lease.map_or(1, |(holder, _)| holder);
        let may = |replica: &usize| {
            let one = &self.replicas[*replica];
            let due = one.up.as_ref().is_some_and(|up| up.renewed == 0 || up.renewed + RENEW_MS <= self.now);
            free(*replica) && due && !one.starved
        };
        let Some(holder) = [1 - last, last].into_iter().find(may) else { return };
        let (now, until) = (self.now, self.now + LEASE_MS);
        self.lease = Some((holder, until));
        self.replicas[holder].change(|one| {
            one.up.iter_mut().for_each(|up| up.renewed = now.max(1));
        });
        if self.replicas[1 - holder].starved {
            self.replicas[1 - holder].change(|one| one.starved = false);
        }
        self.feed(model, holder, Input::LeaseHeld { until: at(until) });
    }

    /// Tells a replica what happened, and sends what follows.
    fn feed(&mut self, model: &Claims, replica: usize, input: Input) {
        let now = self.now;
        self.run(model, replica, |up, effects| {
            up.witness.took_in(&input);
            up.core.handle(at(now), input, effects);
        });
    }

    fn run(&mut self, model: &Claims, replica: usize, run: impl FnOnce(&mut Up, &mut Vec<Effect>)) {
        let now = self.now;
        let mut effects = Vec::new();
        let mut broken = Vec::new();
        self.replicas[replica].change(|one| {
            let Some(up) = &mut one.up else { return };
            run(up, &mut effects);
            for effect in &effects {
                broken.extend(up.witness.judge(at(now), effect).iter().map(ToString::to_string));
            }
            if up.core.next_wakeup().is_some_and(|next| next <= at(now)) {
                broken.push("what is due was not done: it would wake for ever".into());
            }
        });
        self.broken.extend(broken);
        let life = self.replicas[replica].life;
        let mut answers = Vec::new();
        for effect in effects {
            match &effect {
                Effect::Decided { because, .. } => model.note(because),
                Effect::Recall => answers.push(Input::Recalled { found: Ok(None) }),
                Effect::Remember { .. } => answers.push(Input::Remembered { outcome: Outcome::Done }),
                _ => {
                    let what = What::Request(effect);
                    self.flight.push(Part::new(Message { replica, life, sent: now, orphan: false, what }));
                }
            }
        }
        answers.into_iter().for_each(|answer| self.feed(model, replica, answer));
    }

    /// The watch on the claims tells what has changed.
    fn watch(&mut self, model: &Claims, replica: usize) {
        let Some(watched) = self.replicas[replica].up.as_ref().map(|up| up.watched) else { return };
        let changed = self.api.changed.iter().filter(|(_, change)| **change > watched);
        let claims: Vec<_> = changed.filter_map(|(name, _)| self.api.claims.get(name).cloned()).collect();
        let changes = self.api.changes;
        if !claims.is_empty() {
            self.replicas[replica].change(|one| one.up.iter_mut().for_each(|up| up.watched = changes));
        }
        claims.into_iter().for_each(|claim| self.feed(model, replica, Input::ClaimSeen(claim)));
    }

    fn answer(&mut self, model: &Claims, message: &Message, input: Option<Input>) {
        let one = &self.replicas[message.replica];
        if let Some(input) = input
            && !message.orphan
            && one.life == message.life
            && one.up.is_some()
        {
            self.feed(model, message.replica, input);
        }
    }

    /// A message arrives.
    pub fn arrives(&mut self, model: &Claims, index: usize, how: How) {
        let message = self.flight.remove(index);
        match message.what.clone() {
            What::Answer(input) => self.answer(model, &message, Some(*input)),
            What::Request(effect) => {
                if how == How::Twice {
                    self.done(model, &effect, how);
                }
                let input = self.done(model, &effect, how);
                if message.is_call() {
                    if let Some(input) = input.filter(|_| !message.orphan) {
                        let what = What::Answer(Box::new(input));
                        self.flight.push(Part::new(Message { what, ..(*message).clone() }));
                    }
                } else {
                    self.answer(model, &message, input);
                }
            }
        }
    }

    /// A message is not answered; `done`: what it asks for is done nevertheless.
    pub fn is_lost(&mut self, model: &Claims, index: usize, done: bool) {
        let message = self.flight.remove(index);
        if let What::Request(effect) = &message.what {
            if done {
                self.done(model, effect, How::Well);
            }
            self.answer(model, &message, failed(effect));
        }
    }

    /// Its caller gives it up; it may arrive later, or never.
    pub fn is_given_up(&mut self, model: &Claims, index: usize) {
        let message = (*self.flight[index]).clone();
        self.flight[index].change(|message| message.orphan = true);
        if let What::Request(effect) = &message.what {
            self.answer(model, &message, failed(effect));
        }
    }

    pub fn is_throttled(&mut self, model: &Claims, index: usize) {
        let message = self.flight.remove(index);
        if let What::Request(Effect::Call { launch, .. }) = &message.what {
            let answer = Answer::Refused { code: "RequestLimitExceeded".into(), message: String::new() };
            self.answer(model, &message, Some(Input::Called { launch: launch.clone(), answer }));
        }
    }

    fn done(&mut self, model: &Claims, effect: &Effect, how: How) -> Option<Input> {
        let (now, hides) = (self.now, how == How::Hides);
        Some(match effect {
            Effect::Call { launch, token, spec, .. } => {
                let token = if model.loses_token { self.other_token(spec) } else { token.clone() };
                let (answer, again) = self.ec2.change(|ec2| ec2.create_fleet(now, &token, spec));
                if again {
                    model.saw(Seen::Repeated);
                }
                Input::Called { launch: launch.clone(), answer }
            }
            Effect::LookUp { launch, token } => {
                Input::LookedUp { launch: launch.clone(), found: Ok(self.ec2.tagged(now, token, hides)) }
            }
            Effect::ReadInstances { .. } => {
                Input::InstancesRead { all: true, instances: self.ec2.describe(now, hides) }
            }
            Effect::End { instance, .. } => {
                self.ec2.change(|ec2| ec2.end(now, instance));
                Input::Ended { instance: instance.clone(), outcome: Outcome::Done }
            }
            effect => {
                let input = self.api.change(|api| api.done(effect));
                Some(input.unwrap_or_else(|| panic!("the model's world has no answer to {effect:?}")))?
            }
        })
    }

    /// A token that no call has had: what a performer would send that makes up one for each call.
    fn other_token(&mut self, spec: &spotkeeper::api::launch::LaunchSpec) -> String {
        let token = format!("token-{}", self.ec2.calls);
        self.api.change(|api| api.written.insert(token.clone(), spec.clone()));
        token
    }

    /// A replica dies.
    pub fn dies(&mut self, replica: usize, down_ms: u64) {
        let back_at = Some(self.now + down_ms);
        self.replicas[replica].change(|one| (one.up, one.back_at) = (None, back_at));
        self.flight.retain(|message| message.replica != replica || !message.is_answer());
        for message in self.flight.iter_mut().filter(|message| message.replica == replica && !message.orphan) {
            message.change(|message| message.orphan = true);
        }
    }

    pub fn is_starved(&mut self, replica: usize) {
        self.replicas[replica].change(|one| one.starved = true);
    }

    /// The next moment at which something is due of itself.
    pub fn next(&self) -> Option<u64> {
        let mut next: BTreeSet<u64> = BTreeSet::new();
        for (index, one) in self.replicas.iter().enumerate() {
            next.extend(one.back_at);
            let Some(up) = &one.up else { continue };
            next.extend(up.core.next_wakeup().map(|at| at.as_millis()));
            match self.lease {
                Some((holder, _)) if holder == index && !one.starved => drop(next.insert(up.renewed + RENEW_MS)),
                Some((_, until)) if !one.starved => drop(next.insert(until)),
                _ => {}
            }
        }
        next.into_iter().find(|at| *at > self.now).or(next_hour(self.now))
    }

    /// Whether time may pass until then: what somebody waits for has been answered or given up by its time-out.
    pub fn may_pass(&self, until: u64) -> bool {
        self.flight.iter().filter(|message| !message.orphan).all(|message| until <= message.ends())
    }

    pub fn passes(&mut self, model: &Claims, until: u64) {
        self.now = until;
        self.flight.retain(|message| !message.orphan || until <= message.ends());
        for replica in 0..2 {
            if self.replicas[replica].back_at.is_some_and(|at| at <= until) {
                self.start(model, replica);
            }
        }
        self.compete(model);
        for replica in 0..2 {
            self.watch(model, replica);
            let due = self.replicas[replica].up.as_ref().and_then(|up| up.core.next_wakeup());
            if due.is_some_and(|due| due <= at(until)) {
                self.run(model, replica, |up, effects| up.core.wake(at(until), effects));
            }
        }
    }

    /// Every claim has a live instance of its own, nothing else lives, and no call that was made is open. (The record of
    /// one may come so late that no leader knows it; the next one ends what it gives.)
    pub fn is_settled(&self) -> bool {
        let alive: BTreeSet<_> =
            self.ec2.instances.iter().filter(|one| one.died.is_none()).map(|one| &one.id).collect();
        let named: Vec<_> = self.api.claims.values().filter_map(|claim| claim.status.instance_id.as_ref()).collect();
        let made = |launch: &&spotkeeper::provision::Launch| self.ec2.was_called(&launch.uid);
        let open = self.api.launches.values().filter(made).any(|launch| launch.status.outcome.is_none());
        named.len() == self.api.claims.len() && !open && named.iter().copied().collect::<BTreeSet<_>>() == alive
    }

    pub fn is_over(&self) -> bool {
        self.now >= END_MS
    }

    /// Claims with two live instances for longer than a resync.
    pub fn twins(&self) -> Vec<String> {
        let lived: Vec<_> = self.ec2.instances.iter().map(|one| one.lived()).collect();
        let twins = twins(at(self.now), &self.api.written, &lived);
        twins.into_iter().filter(|(_, both)| *both > TWINS_MAX).map(|(claim, _)| claim).collect()
    }
}

fn next_hour(now: u64) -> Option<u64> {
    now.checked_add(3_600_000)
}

impl Claims {
    fn note(&self, because: &Because) {
        match because.reason() {
            "Leads" => self.saw(Seen::Led),
            "UnknownOutcome" => self.saw(Seen::Unknown),
            "Surplus" => self.saw(Seen::Surplus),
            "FellThrough" => self.saw(Seen::FellThrough),
            _ => {}
        }
    }
}
