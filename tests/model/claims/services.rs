//! What the API server and EC2 have, and what they make of a request.

use std::collections::BTreeMap;

use spotkeeper::api::launch::{LaunchSpec, Launched};
use spotkeeper::api::node_claim::NodeClaimStatus;
use spotkeeper::domain::notice::InstanceId;
use spotkeeper::domain::offering::{CapacityType, Catalog, InstanceType, Offering};
use spotkeeper::interruption::Outcome;
use spotkeeper::provision::invariants::Lived;
use spotkeeper::provision::witness::NotSeen;
use spotkeeper::provision::{Answer, Claim, Created, Effect, FleetError, Input, Instance, Launch};

use crate::explore::at;

const TYPE: &str = "m7g.large";
const ZONE: &str = "zone-a";
const SUBNET: &str = "subnet-a";

/// How long EC2 may take to show an instance.
pub const SHOWN_MS: u64 = 30_000;

/// The API server.
#[derive(Clone, Debug)]
pub struct Api {
    pub claims: BTreeMap<String, Claim>,
    pub launches: BTreeMap<String, Launch>,
    uids: u32,
    /// Every launch that was ever written, by its token.
    pub written: BTreeMap<String, LaunchSpec>,
    /// How often a claim was changed, and the change at which each was changed last.
    pub changes: u64,
    pub changed: BTreeMap<String, u64>,
}

impl Api {
    /// Claims that an earlier leader has made and not asked for yet: they are alike, and share a call.
    pub fn with_claims(claims: usize) -> Self {
        let claim = |n: usize| Claim {
            name: format!("claim-{n}"),
            uid: format!("uid-claim-{n}"),
            spec: serde_json::from_value(serde_json::json!({
                "requirements": [],
                "order": ["spot", "on-demand"],
                "recipe": {
                    "launchTemplate": "lt-1",
                    "launchTemplateVersion": "1",
                    "subnets": [{ "id": SUBNET, "zone": ZONE }],
                },
            }))
            .expect("a NodeClaim's spec"),
            status: NodeClaimStatus::default(),
            created: at(0),
            deleting: false,
        };
        Self {
            claims: (0..claims).map(claim).map(|claim| (claim.name.clone(), claim)).collect(),
            launches: BTreeMap::new(),
            uids: 0,
            written: BTreeMap::new(),
            changes: 0,
            changed: BTreeMap::new(),
        }
    }

    /// Does what is asked; `None` where it is nothing that an API server does.
    pub fn done(&mut self, effect: &Effect) -> Option<Input> {
        Some(match effect {
            Effect::List => Input::Listed {
                claims: self.claims.values().cloned().collect(),
                launches: self.launches.values().cloned().collect(),
                unread: Vec::new(),
            },
            Effect::WriteClaim { name, uid, status } => {
                let claim = self.claims.get_mut(name).filter(|claim| claim.uid == *uid);
                let outcome = match claim {
                    Some(claim) => {
                        claim.status = (**status).clone();
                        self.changes += 1;
                        self.changed.insert(name.clone(), self.changes);
                        Outcome::Done
                    }
                    None => Outcome::Refused("404".into()),
                };
                Input::ClaimWritten { name: name.clone(), outcome }
            }
            Effect::CreateLaunch { name, spec } => {
                Input::LaunchCreated { name: name.clone(), outcome: self.create_launch(name, spec) }
            }
            Effect::WriteLaunch { name, uid, status } => {
                let launch = self.launches.get_mut(name).filter(|launch| launch.uid == *uid);
                let outcome = match launch {
                    Some(launch) => {
                        launch.status = (**status).clone();
                        Outcome::Done
                    }
                    None => Outcome::Refused("404".into()),
                };
                Input::LaunchWritten { name: name.clone(), outcome }
            }
            Effect::DeleteLaunch { name, uid } => {
                self.launches.retain(|_, launch| launch.name != *name || launch.uid != *uid);
                Input::LaunchDeleted { name: name.clone(), outcome: Outcome::Done }
            }
            _ => return None,
        })
    }

    fn create_launch(&mut self, name: &str, spec: &LaunchSpec) -> Created {
        if self.launches.contains_key(name) {
            return Created::Exists;
        }
        self.uids += 1;
        let uid = format!("uid-launch-{}", self.uids);
        self.written.insert(uid.clone(), spec.clone());
        let launch = Launch { name: name.to_owned(), uid: uid.clone(), spec: spec.clone(), status: Default::default() };
        self.launches.insert(name.to_owned(), launch);
        Created::Made { uid }
    }
}

/// EC2.
#[derive(Clone, Debug)]
pub struct Ec2 {
    /// How many spot instances there are to be had; on-demand there is always one more.
    pub spot: usize,
    pub instances: Vec<Running>,
    /// What was answered under a token.
    answers: BTreeMap<String, (LaunchSpec, Answer)>,
    pub calls: u32,
}

#[derive(Clone, Debug)]
pub struct Running {
    pub id: InstanceId,
    pub offering: Offering,
    pub token: String,
    pub born: u64,
    pub died: Option<u64>,
}

impl Running {
    pub fn lived(&self) -> Lived<'_> {
        Lived { id: &self.id, token: &self.token, born: at(self.born), died: self.died.map(at) }
    }
}

impl Ec2 {
    pub fn with_spot(spot: usize) -> Self {
        Self { spot, instances: Vec::new(), answers: BTreeMap::new(), calls: 0 }
    }

    /// `CreateFleet`. Returns whether it was a repetition, too.
    pub fn create_fleet(&mut self, now: u64, token: &str, spec: &LaunchSpec) -> (Answer, bool) {
        self.calls += 1;
        if let Some((first, answer)) = self.answers.get(token) {
            let mismatch = || Answer::Refused { code: "IdempotentParameterMismatch".into(), message: String::new() };
            return (if first == spec { answer.clone() } else { mismatch() }, true);
        }
        let wanted = usize::try_from(spec.count).unwrap_or(0);
        let has = if spec.capacity_type == CapacityType::Spot { self.spot.min(wanted) } else { wanted };
        let mut instances = Vec::new();
        for _ in 0..has {
            let id = instance_id(self.instances.len() + 1);
            let offering =
                Offering { instance_type: TYPE.into(), zone: ZONE.into(), capacity_type: spec.capacity_type };
            let token = token.to_owned();
            self.instances.push(Running { id: id.clone(), offering: offering.clone(), token, born: now, died: None });
            instances.push(Launched { instance_id: id, offering });
        }
        if spec.capacity_type == CapacityType::Spot {
            self.spot -= has;
        }
        let short = FleetError {
            code: "InsufficientInstanceCapacity".into(),
            message: "there is no capacity".into(),
            instance_type: Some(TYPE.into()),
            zone: Some(ZONE.into()),
            subnet_id: Some(SUBNET.into()),
        };
        let errors = if has < wanted { vec![short] } else { Vec::new() };
        let answer = Answer::Fleet { instances, errors };
        self.answers.insert(token.to_owned(), (spec.clone(), answer.clone()));
        (answer, false)
    }

    pub fn was_called(&self, token: &str) -> bool {
        self.answers.contains_key(token)
    }

    /// The instances that it shows; `hides`: the newest are not shown yet.
    fn shown(&self, now: u64, hides: bool) -> impl Iterator<Item = &Running> {
        self.instances.iter().filter(move |one| !hides || one.born + SHOWN_MS <= now)
    }

    /// Whether there is one that it may still hide.
    pub fn may_hide(&self, now: u64) -> bool {
        self.instances.iter().any(|one| now < one.born + SHOWN_MS)
    }

    pub fn describe(&self, now: u64, hides: bool) -> Vec<Instance> {
        let described = |one: &Running| Instance {
            id: one.id.clone(),
            alive: one.died.is_none(),
            addresses: Default::default(),
            block: None,
            offering: one.offering.clone(),
            subnets: [].into(),
            template: None,
            tags: Default::default(),
            launch: Some(one.token.clone()),
            launched_at: None,
            pool: None,
            group: None,
            terminated: one.died.is_some(),
            taken: None,
        };
        self.shown(now, hides).map(described).collect()
    }

    pub fn tagged(&self, now: u64, token: &str, hides: bool) -> Vec<Launched> {
        let shown = self.shown(now, hides).filter(|one| one.token == token);
        shown.map(|one| Launched { instance_id: one.id.clone(), offering: one.offering.clone() }).collect()
    }

    pub fn end(&mut self, now: u64, id: &InstanceId) {
        let of = self.instances.iter_mut().find(|one| one.id == *id);
        of.into_iter().for_each(|one| one.died = Some(one.died.unwrap_or(now)));
    }
}

pub fn instance_id(n: usize) -> InstanceId {
    format!("i-{n:017x}").parse().expect("17 hexadecimal digits")
}

/// One type in one zone.
pub fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let of = InstanceType { name: TYPE.into(), arch: "arm64".into(), vcpus: 2, ..InstanceType::default() };
    catalog.zones.insert(ZONE.into(), [of.name.clone()].into());
    catalog.types.insert(of.name.clone(), of);
    catalog
}

/// What the caller of a request is told that was not answered.
pub fn failed(effect: &Effect) -> Option<Input> {
    let why = || "no answer".to_owned();
    let outcome = || Outcome::Failed(why());
    Some(match effect.clone() {
        Effect::List => Input::ListFailed(why()),
        Effect::ReadInstances { .. } => Input::InstancesFailed(NotSeen { throttled: false, why: why() }),
        Effect::WriteClaim { name, .. } => Input::ClaimWritten { name, outcome: outcome() },
        Effect::CreateLaunch { name, .. } => Input::LaunchCreated { name, outcome: Created::Failed(why()) },
        Effect::WriteLaunch { name, .. } => Input::LaunchWritten { name, outcome: outcome() },
        Effect::DeleteLaunch { name, .. } => Input::LaunchDeleted { name, outcome: outcome() },
        Effect::Call { launch, .. } => Input::Called { launch, answer: Answer::Unknown(why()) },
        Effect::LookUp { launch, .. } => Input::LookedUp { launch, found: Err(why()) },
        Effect::End { instance, .. } => Input::Ended { instance, outcome: outcome() },
        _ => return None,
    })
}
