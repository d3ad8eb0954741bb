//! The replicas of the provisioner: the real core, its inputs late, its effects carried out by an API server and an EC2
//! that may lose them.

use crate::domain::time::Instant;
use crate::engine::Core;
use crate::interruption::Outcome;
use crate::provision::invariants::Witness;
use crate::provision::leadership::CALL_TIMEOUT;
use crate::provision::witness::NotSeen;
use crate::provision::{Claim, Created, Effect, Input, Launch, Provisioner};

use super::agents::patched;
use super::lost::failed;
use super::scenario::State;
use super::world::{Event, Told, World, moment};

const LEASE: u64 = 15_000;
const RENEW: u64 = 3_000;
const API_TIMEOUT: u64 = 5_000;
/// How long what leaders leave to each other takes to be read or written.
const MEMORY_MS: u64 = 3;
/// How long one whose node is doomed lets others take a lease that was given up.
const STANDS_BACK: u64 = 8_000;

#[derive(Default)]
pub(in crate::sim) struct Replica {
    pub life: u32,
    pub up: Option<Up>,
    /// Its own node is doomed: it holds back where the lease was given up.
    pub leaves: bool,
}

pub(in crate::sim) struct Up {
    core: Provisioner,
    witness: Witness,
    generation: u32,
    /// When its watches have told everything that they were told to, so that nothing overtakes.
    watch: u64,
}

/// A call on its way.
pub(in crate::sim) struct Call {
    pub effect: Effect,
    /// Its answer will be lost.
    pub lost: bool,
}

/// Whether the API server changes something by it.
fn writes(effect: &Effect) -> bool {
    !matches!(effect, Effect::List | Effect::Recall | Effect::ReadAttachments { .. })
}

impl World {
    pub fn start_replica(&mut self, replica: usize) {
        let core = Provisioner::new(self.supply.settings.clone(), self.clock(replica));
        let core = if self.supply.thorough { core.thorough() } else { core };
        let one = &mut self.replicas[replica];
        one.life += 1;
        let life = one.life;
        one.up = Some(Up { core, witness: Witness::default(), generation: 0, watch: 0 });
        let mut inputs = vec![Input::CatalogRead(self.catalog.clone())];
        inputs.extend(self.nodes.values().cloned().map(|node| Input::NodeSeen(self.shown(node))));
        inputs.push(Input::NodesSynced);
        inputs.extend(self.classes.iter().map(|(name, recipe)| {
            let (name, recipe) = (name.clone(), recipe.clone());
            Input::ClassSeen { name, recipe }
        }));
        inputs.push(Input::ClassesSynced);
        inputs.extend(self.pools.values().cloned().map(Input::PoolSeen));
        inputs.push(Input::PoolsSynced);
        inputs.extend(self.doomed.values().cloned().map(Input::InterruptionSeen));
        for input in inputs {
            self.hear(replica, &input);
        }
        self.schedule(self.now + 500, Event::Renew { replica, life });
    }

    pub fn kill(&mut self, replica: usize, down_ms: u64) {
        self.stop(replica);
        self.schedule(self.now + down_ms, Event::Start { replica });
    }

    /// It runs no more.
    pub fn stop(&mut self, replica: usize) {
        self.replicas[replica].life += 1;
        self.replicas[replica].up = None;
    }

    /// It gives the lease up, so that another need not wait for its end.
    pub fn release_lease(&mut self, replica: usize) {
        if self.lease.is_some_and(|(holder, _)| holder == replica) && self.api != State::Away {
            (self.lease, self.released_at) = (None, self.now);
            let life = self.replicas[replica].life;
            self.answer(replica, life, self.now, Some(Input::LeaseLost));
        }
    }

    fn lives(&self, replica: usize, life: u32) -> bool {
        self.replicas[replica].life == life && self.replicas[replica].up.is_some()
    }

    /// A watch tells one replica, in order, a little later.
    fn hear(&mut self, replica: usize, input: &Input) {
        let lag = 5 + self.below(60);
        let (now, life) = (self.now, self.replicas[replica].life);
        let Some(up) = &mut self.replicas[replica].up else { return };
        let at = (now + lag).max(up.watch);
        up.watch = at;
        self.schedule(at, Event::Input { replica, life, input: Box::new(input.clone()) });
    }

    pub fn broadcast(&mut self, input: &Input) {
        for replica in 0..self.replicas.len() {
            self.hear(replica, input);
        }
    }

    pub fn feed(&mut self, replica: usize, life: u32, input: Input) {
        if !self.lives(replica, life) {
            return;
        }
        let now = moment(self.now);
        let mut effects = Vec::new();
        if let Some(up) = &mut self.replicas[replica].up {
            up.witness.took_in(&input);
            up.core.handle(now, input, &mut effects);
        }
        self.carry_out(replica, effects);
    }

    pub fn wake(&mut self, replica: usize, life: u32, generation: u32) {
        if !self.lives(replica, life) {
            return;
        }
        let now = moment(self.now);
        let mut effects = Vec::new();
        if let Some(up) = self.replicas[replica].up.as_mut().filter(|up| up.generation == generation) {
            up.core.wake(now, &mut effects);
            self.carry_out(replica, effects);
        }
    }

    fn carry_out(&mut self, replica: usize, effects: Vec<Effect>) {
        let now = moment(self.now);
        let life = self.replicas[replica].life;
        for effect in effects {
            self.figures.effects += 1;
            let judged = self.replicas[replica].up.as_mut().map(|up| up.witness.judge(now, &effect));
            for violation in judged.into_iter().flatten() {
                self.found(violation.invariant.code(), violation.what);
            }
            self.begin(replica, life, effect);
        }
        let Some(up) = &mut self.replicas[replica].up else { return };
        up.generation += 1;
        let generation = up.generation;
        if let Some(at) = up.core.next_wakeup() {
            let at = at.as_millis();
            if at <= self.now {
                self.found("live", "what is due was not done: it would wake for ever".into());
                return;
            }
            self.schedule(at, Event::Wake { replica, life, generation });
        }
    }

    fn begin(&mut self, replica: usize, life: u32, effect: Effect) {
        let sent = self.now;
        if let Effect::DeleteTemplate { of, .. } = &effect {
            self.check_unused(of);
        }
        if let Effect::Decided { about, because } = &effect {
            if because.reason() == "Leads" {
                self.figures.takeovers += 1;
            }
            if because.reason() == "Returns" {
                self.figures.returns += 1;
            }
            if because.reason() == "UnknownOutcome" {
                self.figures.unknown += 1;
            }
            self.tell(|| format!("{replica} {about}: {because}"));
            if let Effect::Decided { about, because } = effect {
                self.outward(Told::Decided { replica, about, because });
            }
            return;
        }
        let ec2 = matches!(
            effect,
            Effect::Call { .. }
                | Effect::LookUp { .. }
                | Effect::End { .. }
                | Effect::ReadInstances { .. }
                | Effect::Look { .. }
                | Effect::Copy { .. }
                | Effect::ReadTemplates
                | Effect::DeleteTemplate { .. }
        );
        let away = if ec2 { self.cloud.state == State::Away } else { self.api == State::Away };
        let faults = self.supply.faults.clone();
        let (lost, refused, late) = if ec2 {
            let call = matches!(effect, Effect::Call { .. });
            let late = call && self.chance(faults.ec2_late_one_in);
            (late || self.chance(faults.ec2_lost_one_in), self.chance(faults.ec2_error_one_in), late)
        } else if matches!(effect, Effect::Recall | Effect::Remember { .. }) {
            (self.memory_chance(faults.api_lost_one_in), self.memory_chance(faults.api_refused_one_in), false)
        } else {
            (self.chance(faults.api_lost_one_in), self.chance(faults.api_refused_one_in), false)
        };
        if let Effect::Call { token, .. } = &effect
            && (away || refused || lost)
        {
            self.unsure.insert(token.clone());
        }
        let timeout = if ec2 { CALL_TIMEOUT.as_millis() as u64 } else { API_TIMEOUT };
        let refused = refused || (!ec2 && self.api == State::Refuses && writes(&effect));
        if away || refused {
            let of_memory = matches!(effect, Effect::Recall | Effect::Remember { .. });
            let wait = if away {
                timeout
            } else if of_memory {
                MEMORY_MS
            } else {
                5 + self.below(40)
            };
            self.answer(replica, life, sent + wait, failed(&effect, if away { "time-out" } else { "503" }));
            return;
        }
        if lost {
            self.answer(replica, life, sent + timeout, failed(&effect, "the answer was lost"));
        }
        let takes = match &effect {
            // Done after its caller has given it up.
            _ if late => timeout + self.below(25_000),
            Effect::Call { .. } => 300 + self.below(1_200),
            _ if ec2 => 50 + self.below(300),
            Effect::Recall | Effect::Remember { .. } => MEMORY_MS,
            _ => 4 + self.below(30),
        };
        self.schedule(sent + takes, Event::Arrive { replica, life, call: Box::new(Call { effect, lost }), sent });
    }

    fn answer(&mut self, replica: usize, life: u32, at: u64, input: Option<Input>) {
        if let Some(input) = input {
            self.schedule(at, Event::Input { replica, life, input: Box::new(input) });
        }
    }

    /// A call reaches the API server or EC2, whoever sent it and whether or not that one still lives.
    pub fn arrive(&mut self, replica: usize, life: u32, call: Call, sent: u64) {
        let input = self.done(call.effect, sent);
        if !call.lost {
            self.answer(replica, life, self.now + 2, input);
        }
    }

    fn done(&mut self, effect: Effect, sent: u64) -> Option<Input> {
        Some(match effect {
            Effect::List => {
                // Whoever lists them cannot know whether they were called.
                let open = self.launches.values().filter(|launch| launch.status.outcome.is_none());
                self.unsure.extend(open.map(|launch| launch.uid.clone()));
                Input::Listed {
                    claims: self.claims.values().cloned().collect(),
                    launches: self.launches.values().cloned().collect(),
                    unread: Vec::new(),
                }
            }
            Effect::Recall if self.supply.faults.memory_fails => Input::Recalled { found: Err("403".into()) },
            Effect::Recall => Input::Recalled { found: Ok(self.recalled()) },
            Effect::Remember { memory } => {
                self.memories.push(memory.to_string());
                Input::Remembered { outcome: Outcome::Done }
            }
            Effect::ReadInstances { .. } if self.cloud.state == State::Throttles => {
                self.figures.throttled_reads += 1;
                Input::InstancesFailed(NotSeen { throttled: true, why: "RequestLimitExceeded".into() })
            }
            Effect::ReadInstances { of } => Input::InstancesRead { all: true, instances: self.describe(&of) },
            Effect::CreateClaim { name, spec } => {
                let outcome = if self.claims.contains_key(&name) {
                    Created::Exists
                } else {
                    let group = spec.replaces.as_ref().and_then(|of| of.group.clone());
                    group.into_iter().for_each(|group| drop(self.bridges.insert(name.clone(), group)));
                    let uid = self.uid();
                    let created = moment(self.now);
                    let claim = Claim {
                        name: name.clone(),
                        uid: uid.clone(),
                        spec: *spec,
                        status: Default::default(),
                        created,
                        deleting: false,
                    };
                    self.claims.insert(name.clone(), claim.clone());
                    self.broadcast(&Input::ClaimSeen(claim));
                    Created::Made { uid }
                };
                Input::ClaimCreated { name, outcome }
            }
            Effect::WriteClaim { name, uid, status } => {
                let outcome = match self.claims.get_mut(&name).filter(|claim| claim.uid == uid) {
                    Some(claim) => {
                        claim.status = *status;
                        let claim = claim.clone();
                        self.note_claim(&claim);
                        self.broadcast(&Input::ClaimSeen(claim));
                        Outcome::Done
                    }
                    None => Outcome::Refused("404".into()),
                };
                Input::ClaimWritten { name, outcome }
            }
            Effect::DeleteClaim { name, uid } => {
                if self.claims.get(&name).is_some_and(|claim| claim.uid == uid) {
                    self.claims.remove(&name);
                    self.broadcast(&Input::ClaimGone { name: name.clone() });
                }
                Input::ClaimDeleted { name, outcome: Outcome::Done }
            }
            Effect::CreateLaunch { name, spec } => {
                let outcome = if self.launches.contains_key(&name) {
                    Created::Exists
                } else {
                    let uid = self.uid();
                    self.written.insert(uid.clone(), (*spec).clone());
                    self.written_ms.insert(uid.clone(), self.now);
                    let launch =
                        Launch { name: name.clone(), uid: uid.clone(), spec: *spec, status: Default::default() };
                    self.launches.insert(name.clone(), launch);
                    Created::Made { uid }
                };
                Input::LaunchCreated { name, outcome }
            }
            Effect::Label { node, patch } => {
                let outcome = match self.nodes.get(&node).cloned() {
                    Some(mut view) => {
                        patched(&mut view.labels, &patch.labels);
                        patched(&mut view.annotations, &patch.annotations);
                        view.taints.extend(patch.taints);
                        self.node_changed(view);
                        if !patch.annotations.is_empty() {
                            let node = node.clone();
                            self.outward(Told::Annotated { node, annotations: patch.annotations });
                        }
                        Outcome::Done
                    }
                    None => Outcome::Refused("404".into()),
                };
                Input::Labelled { node, outcome }
            }
            Effect::WritePool { name, uid, status } => {
                let outcome = match self.pools.get_mut(&name).filter(|pool| pool.uid == uid) {
                    Some(pool) => {
                        pool.status = *status;
                        let pool = pool.clone();
                        self.broadcast(&Input::PoolSeen(pool));
                        Outcome::Done
                    }
                    None => Outcome::Refused("404".into()),
                };
                Input::PoolWritten { name, outcome }
            }
            Effect::WriteLaunch { name, uid, status } => {
                match self.launches.get_mut(&name).filter(|launch| launch.uid == uid) {
                    Some(launch) => {
                        launch.status = *status;
                        Input::LaunchWritten { name, outcome: Outcome::Done }
                    }
                    None => Input::LaunchGone { name },
                }
            }
            Effect::DeleteLaunch { name, uid } => {
                if self.launches.get(&name).is_some_and(|launch| launch.uid == uid) {
                    self.launches.remove(&name);
                }
                Input::LaunchDeleted { name, outcome: Outcome::Done }
            }
            Effect::WriteReplacement { instance, replacement } => {
                if let Some(doomed) = self.doomed.get_mut(&instance) {
                    doomed.replacement = replacement;
                    self.doomed_changed(&instance);
                    self.outward(Told::Replacement { instance: instance.clone() });
                }
                Input::ReplacementWritten { instance, outcome: Outcome::Done }
            }
            Effect::Call { launch, token, spec, .. } => {
                let answer = self.create_fleet(&token, &spec, sent);
                Input::Called { launch, answer }
            }
            Effect::LookUp { launch, token } => Input::LookedUp { launch, found: Ok(self.tagged(&token)) },
            Effect::ReadAttachments { node } => {
                let found = Ok(if self.detached.contains(&node) { 0 } else { self.supply.volumes });
                Input::AttachmentsRead { node, found }
            }
            Effect::TaintOutOfService { node, .. } => {
                self.schedule(self.now + 10_000, Event::Detached { node: node.clone() });
                Input::NodeTainted { node, outcome: Outcome::Done }
            }
            Effect::DeleteNode { node, .. } => {
                self.check_dead(&node);
                self.node_gone(&node);
                Input::NodeDeleted { node, outcome: Outcome::Done }
            }
            Effect::Disown { instance, .. } => {
                if let Some(doomed) = self.doomed.get_mut(&instance) {
                    doomed.record.owned = false;
                    self.doomed_changed(&instance);
                }
                Input::RecordWritten { instance, outcome: Outcome::Done }
            }
            Effect::DeleteInterruption { instance, .. } => {
                self.record_deleted(&instance);
                Input::RecordWritten { instance, outcome: Outcome::Done }
            }
            Effect::Request { instance, event_id, action, since, .. } => {
                if self.told.is_some() {
                    self.outward(Told::Requested { instance: instance.clone(), event_id, action });
                } else {
                    self.asked_to_drain(&instance, event_id, action, since);
                }
                Input::Requested { instance, outcome: Outcome::Done }
            }
            Effect::Look { of, .. } => {
                self.figures.looks += 1;
                Input::Looked(Ok(self.look(&of)))
            }
            Effect::WriteNotice { instance, entry, .. } => {
                let key = entry.key();
                self.seen_in_ec2(&instance, entry);
                Input::NoticeWritten { instance, key, outcome: Outcome::Done }
            }
            Effect::RecordTaken { instance, entry, because, .. } => {
                self.taken_unheard(&instance, entry, because);
                Input::TakenRecorded { instance, outcome: Outcome::Done }
            }
            Effect::Withdraw { instance, event_id } => {
                self.left_alone(&instance, &event_id);
                self.outward(Told::Withdrawn { instance: instance.clone(), event_id });
                Input::Withdrawn { instance, outcome: Outcome::Done }
            }
            Effect::End { instance, empty, .. } => {
                if let Some(node) = self.unseen_pods(&empty) {
                    return Some(Input::Ended { instance, outcome: Outcome::Failed(format!("a pod is on {node}")) });
                }
                self.check_empty(&instance);
                // What has ended already may be ended again: that does nothing.
                if let Some(index) = self.find(&instance).filter(|at| self.cloud.instances[*at].died_ms.is_none()) {
                    self.figures.ended += 1;
                    self.dies(index);
                }
                Input::Ended { instance, outcome: Outcome::Done }
            }
            Effect::Copy { instance, .. } => self.copy_of(instance),
            Effect::ReadTemplates => Input::TemplatesRead(self.our_templates()),
            Effect::DeleteTemplate { of, .. } => self.delete_template(of),
            Effect::Decided { .. } => return None,
        })
    }

    /// Every replica tries to hold the lease.
    pub fn renew(&mut self, replica: usize, life: u32) {
        if !self.lives(replica, life) {
            return;
        }
        self.schedule(self.now + RENEW, Event::Renew { replica, life });
        if self.api == State::Away {
            return;
        }
        if self.replicas[replica].leaves && self.lease.is_none() && self.now < self.released_at + STANDS_BACK {
            return;
        }
        let free = self.lease.is_none_or(|(holder, until)| holder == replica || until <= self.now);
        if free {
            let until = self.now + LEASE;
            self.lease = Some((replica, until));
            // Measured from before the request was sent, so a little earlier than the others see it.
            let until = Instant::from_millis(until);
            let later = self.now + 4 + self.below(30);
            self.answer(replica, life, later, Some(Input::LeaseHeld { until }));
        }
    }
}
