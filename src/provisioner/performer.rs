//! Carries out the core's effects: each in a task of its own, its result sent back as an input.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::observer::Observer;
use super::templates::Templates;
use super::turns::{TERM_ENDED, Turns};
use crate::adapters::ec2::view::Subnets;
use crate::adapters::ec2::witness::sights;
use crate::adapters::ec2::{Ec2, Ec2Error};
use crate::adapters::kubernetes::{Kubernetes, Subject, is_gone, one_line, outcome};
use crate::domain::notice::InstanceId;
use crate::domain::offering::CapacityType;
use crate::domain::time::Instant;
use crate::driver::{Clock, Surroundings};
use crate::interruption::Outcome;
use crate::provision::failure::{Class, class, forbids};
use crate::provision::memory::{CONFIG_MAP, KEY};
use crate::provision::witness::NotSeen;
use crate::provision::{Answer, Because, Copied, Created, Effect, Input, Instance, Provisioner, Sight, pools};

/// How long what is known of subnets is believed.
const SUBNETS_FRESH: Duration = Duration::from_secs(300);

/// Tasks that are on their way.
#[derive(Clone)]
pub struct OnTheirWay(watch::Sender<usize>);

impl OnTheirWay {
    pub fn begins(&self) {
        self.0.send_modify(|tasks| *tasks += 1);
    }

    pub fn ends(&self) {
        self.0.send_modify(|tasks| *tasks -= 1);
    }

    /// Waits until none is.
    pub async fn ended(self) {
        let _ = self.0.subscribe().wait_for(|tasks| *tasks == 0).await;
    }
}

/// Performs effects for one [`Provisioner`].
pub struct Performer {
    shared: Rc<Shared>,
    on_their_way: OnTheirWay,
    /// Whether what begins now ends in this replica's term.
    leads: watch::Sender<bool>,
    /// Whether anybody wants reserved capacity: then reservations are worth reading.
    wants_reserved: watch::Sender<bool>,
}

struct Shared {
    kubernetes: Kubernetes,
    /// Of our own pods.
    namespace: String,
    ec2: Ec2,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    observer: Observer,
    templates: Templates,
    subnets: RefCell<Option<(Instant, Subnets)>>,
    turns: Turns,
}

impl Performer {
    pub fn new(
        kubernetes: Kubernetes,
        namespace: String,
        ec2: Ec2,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
        observer: Observer,
        wants_reserved: watch::Sender<bool>,
    ) -> Self {
        let turns = Turns::new();
        let subnets = RefCell::default();
        let templates = Templates { ec2: ec2.clone(), observer: observer.clone() };
        let shared = Shared { kubernetes, namespace, ec2, clock, inputs, observer, templates, subnets, turns };
        Self {
            shared: Rc::new(shared),
            on_their_way: OnTheirWay(watch::Sender::new(0)),
            leads: watch::Sender::new(false),
            wants_reserved,
        }
    }

    pub fn on_their_way(&self) -> OnTheirWay {
        self.on_their_way.clone()
    }

    /// Whether this replica leads, and may begin something now.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Runs `call` in a task and sends what comes of it back to the core.
    fn start(&self, call: impl Future<Output = Option<Input>> + 'static) {
        let (inputs, tasks) = (self.shared.inputs.clone(), self.on_their_way.clone());
        tasks.begins();
        tokio::task::spawn_local(async move {
            if let Some(input) = call.await {
                // The receiver is gone only when the program ends.
                let _ = inputs.send(input).await;
            }
            tasks.ends();
        });
    }
}

impl Shared {
    async fn call(&self, token: &str, spec: &crate::api::launch::LaunchSpec) -> Answer {
        let began = std::time::Instant::now();
        let result = self.ec2.create_fleet(token, spec).await;
        match result.as_ref().ok().and_then(denied) {
            // The call as such was allowed, and what it does for us was not.
            Some(error) => self.observer.asked_ec2("CreateFleet", &Err::<(), _>(error), began.elapsed()),
            None => self.observer.asked_ec2("CreateFleet", &result, began.elapsed()),
        }
        match result {
            Ok(answer) => answer,
            Err(Ec2Error::Refused { code, message, .. }) => Answer::Refused { code, message },
            Err(error) => Answer::Unknown(one_line(&error)),
        }
    }

    async fn instances(&self, of: &[InstanceId]) -> Result<Vec<Instance>, Ec2Error> {
        let now = self.clock.now();
        let known = self.subnets.borrow().clone().filter(|(at, _)| now.since(*at) < SUBNETS_FRESH);
        let subnets = match known {
            Some((_, subnets)) => subnets,
            None => {
                let read = self.observer.asking("DescribeSubnets", self.ec2.subnets()).await?;
                *self.subnets.borrow_mut() = Some((now, read.clone()));
                read
            }
        };
        let mut instances = self.observer.asking("DescribeInstances", self.ec2.instances(of, &subnets)).await?;
        self.read_blocks(&mut instances).await;
        Ok(instances)
    }

    /// When the capacity blocks of these instances end. Where that cannot be read the rest is known all the same, and the
    /// next reading tries again.
    async fn read_blocks(&self, instances: &mut [Instance]) {
        let living = instances.iter().filter(|one| one.alive).filter_map(|one| one.block.as_ref());
        let ids: BTreeSet<String> = living.map(|block| block.reservation.clone()).collect();
        if ids.is_empty() {
            return;
        }
        if let Ok(until) = self.observer.asking("DescribeCapacityReservations", self.ec2.reserved_until(&ids)).await {
            for block in instances.iter_mut().filter_map(|one| one.block.as_mut()) {
                block.ends = until.get(&block.reservation).copied();
            }
        }
    }

    /// What EC2 says of these instances.
    async fn look(&self, of: &[InstanceId], reservations: bool) -> Result<Vec<Sight>, Ec2Error> {
        let described = self.observer.asking("DescribeInstances", self.ec2.described(of)).await?;
        let marked = match self.observer.asking("DescribeSpotInstanceRequests", self.ec2.marked(of)).await {
            // That it may not be asked is said by readiness; the state of the instance says something, too.
            Err(Ec2Error::Refused { code, .. }) if forbids(&code) => BTreeMap::new(),
            answer => answer?,
        };
        let ids = described.iter().filter_map(|one| one.reservation.clone()).collect::<BTreeSet<_>>();
        let until = match reservations && !ids.is_empty() {
            true => self.observer.asking("DescribeCapacityReservations", self.ec2.reserved_until(&ids)).await?,
            false => BTreeMap::new(),
        };
        Ok(sights(described, &marked, &until))
    }

    /// Ends an instance, where these Nodes are empty.
    async fn end(&self, instance: &InstanceId, because: &Because, not_after: Instant, empty: &[String]) -> Outcome {
        match self.kubernetes.busy_with(empty).await {
            Ok(None) if self.is_late(not_after, "TerminateInstances") => {
                return Outcome::Failed("the term may end before it would".into());
            }
            Ok(None) => tracing::info!(instance = instance.as_str(), "ending it: {because}"),
            Ok(Some(pod)) => return Outcome::Failed(format!("pod {pod} is on its node")),
            Err(error) => return Outcome::Failed(format!("its pods cannot be listed: {}", one_line(&error))),
        }
        match self.observer.asking("TerminateInstances", self.ec2.terminate(instance)).await {
            Ok(()) => Outcome::Done,
            Err(error @ Ec2Error::Refused { .. }) => Outcome::Refused(one_line(&error)),
            Err(error) => Outcome::Failed(one_line(&error)),
        }
    }

    /// Whatever a call does it does before another may lead.
    fn is_late(&self, not_after: Instant, what: &'static str) -> bool {
        let late = self.clock.now() > not_after;
        if late {
            tracing::warn!(what, "not done: the term may end before it would");
        }
        late
    }
}

/// Whether it tells of a NodePool or a claim that may be served from a reservation.
fn wants_reserved(input: &Input) -> bool {
    let reserved = |order: &[CapacityType]| order.contains(&CapacityType::Reserved);
    match input {
        Input::PoolSeen(pool) => pools::read(&pool.spec).is_ok_and(|rules| reserved(&rules.order)),
        Input::ClaimSeen(claim) => reserved(&claim.spec.order),
        _ => false,
    }
}

/// The permission that a launch lacked which gave nothing.
fn denied(answer: &Answer) -> Option<Ec2Error> {
    let Answer::Fleet { instances, errors } = answer else { return None };
    let error = errors.iter().filter(|_| instances.is_empty()).find(|error| forbids(&error.code))?;
    let (code, message) = (error.code.clone(), error.message.clone());
    Some(Ec2Error::Refused { action: "ec2:RunInstances", code, message })
}

fn not_seen(error: &Ec2Error) -> NotSeen {
    let throttled = matches!(error, Ec2Error::Refused { code, .. } if class(code) == Class::Throttle);
    NotSeen { throttled, why: one_line(error) }
}

fn decided(about: &str, because: &Because) {
    let (reason, text) = (because.reason(), because.to_string());
    if because.is_warning() {
        tracing::warn!(reason, about, "{text}");
    } else {
        tracing::info!(reason, about, "{text}");
    }
}

impl Surroundings<Provisioner> for Performer {
    fn took_in(&mut self, _now: Instant, input: &Input) {
        self.shared.observer.took_in(input);
        if wants_reserved(input) {
            self.wants_reserved.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        }
    }

    fn perform(&mut self, now: Instant, effect: Effect) {
        self.shared.observer.performs(now, &effect);
        let (shared, leads) = (self.shared.clone(), self.leads());
        match effect {
            Effect::List => self.start(async move {
                Some(match shared.kubernetes.list_supply(shared.clock).await {
                    Ok(all) => Input::Listed { claims: all.claims, launches: all.launches, unread: all.unread },
                    Err(error) => Input::ListFailed(one_line(&error)),
                })
            }),
            Effect::Recall => self.start(async move {
                let found = shared.kubernetes.remembered(&shared.namespace, CONFIG_MAP, KEY).await;
                Some(Input::Recalled { found: found.map_err(|error| one_line(&error)) })
            }),
            Effect::Remember { memory } => self.start(async move {
                let write = shared.kubernetes.remember(&shared.namespace, CONFIG_MAP, KEY, memory.to_string());
                let outcome = shared.turns.tell(&leads, write).await;
                Some(Input::Remembered { outcome })
            }),
            Effect::ReadInstances { of } => self.start(async move {
                Some(match shared.instances(&of).await {
                    Ok(instances) => Input::InstancesRead { all: true, instances },
                    Err(error) => Input::InstancesFailed(not_seen(&error)),
                })
            }),
            Effect::Copy { instance, not_after } => self.start(async move {
                let copied = match shared.is_late(not_after, "CreateLaunchTemplate") {
                    true => Copied::Failed(TERM_ENDED.into()),
                    // What it asks EC2 for in turn makes a large future.
                    false => Box::pin(shared.templates.copy(&instance)).await,
                };
                Some(Input::Copied { instance, copied })
            }),
            Effect::ReadTemplates => self.start(async move {
                Some(match shared.templates.all().await {
                    Ok(all) => Input::TemplatesRead(all),
                    Err(why) => Input::TemplatesFailed(why),
                })
            }),
            Effect::DeleteTemplate { of, not_after } => self.start(async move {
                let outcome = match shared.is_late(not_after, "DeleteLaunchTemplate") {
                    true => Outcome::Failed(TERM_ENDED.into()),
                    false => shared.templates.delete(&of).await,
                };
                Some(Input::TemplateDeleted { of, outcome })
            }),
            Effect::CreateClaim { name, spec } => self.start(async move {
                let outcome = match shared.turns.first(&leads).await {
                    Some(_turn) => shared.kubernetes.create_claim(&name, *spec).await,
                    None => Created::Failed(TERM_ENDED.into()),
                };
                Some(Input::ClaimCreated { name, outcome })
            }),
            Effect::WriteClaim { name, uid, status } => self.start(async move {
                let outcome = shared.turns.tell(&leads, shared.kubernetes.write_claim(&name, &uid, &status)).await;
                Some(Input::ClaimWritten { name, outcome })
            }),
            Effect::DeleteClaim { name, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.delete_claim(&name, &uid).await);
                Some(Input::ClaimDeleted { name, outcome })
            }),
            Effect::CreateLaunch { name, spec } => self.start(async move {
                let outcome = shared.kubernetes.create_launch(&name, *spec).await;
                Some(Input::LaunchCreated { name, outcome })
            }),
            Effect::Label { node, patch } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.label_node(&node, &patch).await);
                Some(Input::Labelled { node, outcome })
            }),
            Effect::WritePool { name, uid, status } => self.start(async move {
                let outcome = shared.turns.tell(&leads, shared.kubernetes.write_pool(&name, &uid, &status)).await;
                Some(Input::PoolWritten { name, outcome })
            }),
            Effect::WriteLaunch { name, uid, status } => self.start(async move {
                let written = shared.kubernetes.write_launch(&name, &uid, &status).await;
                Some(match is_gone(&written) {
                    true => Input::LaunchGone { name },
                    false => Input::LaunchWritten { name, outcome: outcome(&written) },
                })
            }),
            Effect::DeleteLaunch { name, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.delete_launch(&name, &uid).await);
                Some(Input::LaunchDeleted { name, outcome })
            }),
            Effect::Call { launch, token, spec, not_after } => self.start(async move {
                if shared.is_late(not_after, "CreateFleet") {
                    return None;
                }
                let answer = shared.call(&token, &spec).await;
                Some(Input::Called { launch, answer })
            }),
            Effect::LookUp { launch, token } => self.start(async move {
                let found = shared.observer.asking("DescribeInstances", shared.ec2.of_launch(&token)).await;
                Some(Input::LookedUp { launch, found: found.map_err(|error| one_line(&error)) })
            }),
            Effect::End { instance, because, not_after, empty } => self.start(async move {
                let outcome = shared.end(&instance, &because, not_after, &empty).await;
                Some(Input::Ended { instance, outcome })
            }),
            Effect::ReadAttachments { node } => self.start(async move {
                let found = shared.kubernetes.attachments(&node).await.map_err(|error| one_line(&error));
                Some(Input::AttachmentsRead { node, found })
            }),
            Effect::TaintOutOfService { node, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.taint_out_of_service(&node, &uid).await);
                Some(Input::NodeTainted { node, outcome })
            }),
            Effect::DeleteNode { node, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.delete_node(&node, &uid).await);
                Some(Input::NodeDeleted { node, outcome })
            }),
            Effect::Disown { instance, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.disown(instance.as_str(), &uid).await);
                Some(Input::RecordWritten { instance, outcome })
            }),
            Effect::DeleteInterruption { instance, uid } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.delete_interruption(instance.as_str(), &uid).await);
                Some(Input::RecordWritten { instance, outcome })
            }),
            Effect::Look { of, reservations } => self.start(async move {
                let seen = shared.look(&of, reservations).await;
                Some(Input::Looked(seen.map_err(|error| not_seen(&error))))
            }),
            Effect::WriteNotice { instance, node, provider_id, entry } => self.start(async move {
                let of = Subject { instance: instance.clone(), node, provider_id, node_uid: None };
                let outcome = shared.turns.write(&leads, shared.kubernetes.record_seen(&of, &entry)).await;
                Some(Input::NoticeWritten { instance, key: entry.key(), outcome })
            }),
            Effect::RecordTaken { instance, node, provider_id, entry, because } => self.start(async move {
                let of = Subject { instance: instance.clone(), node, provider_id, node_uid: None };
                let outcome =
                    shared.turns.write(&leads, shared.kubernetes.record_taken(&of, &entry, &because.to_string())).await;
                Some(Input::TakenRecorded { instance, outcome })
            }),
            Effect::Request { instance, node, provider_id, event_id, action, since } => self.start(async move {
                let of = Subject { instance: instance.clone(), node, provider_id, node_uid: None };
                let outcome = outcome(&shared.kubernetes.request_drain(&of, &event_id, action, since).await);
                Some(Input::Requested { instance, outcome })
            }),
            Effect::Withdraw { instance, event_id } => self.start(async move {
                let outcome = outcome(&shared.kubernetes.withdraw_request(&instance, &event_id).await);
                Some(Input::Withdrawn { instance, outcome })
            }),
            Effect::WriteReplacement { instance, replacement } => self.start(async move {
                let outcome =
                    shared.turns.tell(&leads, shared.kubernetes.write_replacement(&instance, &replacement)).await;
                Some(Input::ReplacementWritten { instance, outcome })
            }),
            Effect::Decided { about, because } => {
                decided(&about, &because);
                if let Because::NothingToCopy { instance, node, .. } = &because {
                    let (instance, node) = (instance.clone(), node.clone());
                    self.start(async move {
                        if let Err(error) = shared.kubernetes.publish_decision(&instance, &node, &because).await {
                            tracing::warn!(about, error = one_line(&error), "an event cannot be published");
                        }
                        None
                    });
                }
            }
        }
    }

    fn beat(&mut self, core: &Provisioner) {
        let may_act = core.may_act(self.shared.clock.now());
        self.leads.send_if_modified(|leads| std::mem::replace(leads, may_act) != may_act);
        self.shared.observer.beat(core);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_that_was_denied_in_its_errors_names_the_action() {
        let error = |code: &str| crate::provision::FleetError {
            code: code.into(),
            message: String::new(),
            instance_type: None,
            zone: None,
            subnet_id: None,
        };
        let of = |code: &str| Answer::Fleet { instances: Vec::new(), errors: vec![error("Unsupported"), error(code)] };
        assert!(denied(&of("UnauthorizedOperation")).is_some_and(|why| why.to_string().contains("ec2:RunInstances")));
        assert!(denied(&of("InsufficientInstanceCapacity")).is_none());
    }
}
