//! What happens in a scenario.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{Millis, Mistake, known_type, known_zone, wrong};
use crate::domain::offering::CapacityType;
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{ApiState, Cloud, ImdsState, Pools, State, Step, TWO_MINUTES, Which};

/// The most often that a step may be repeated.
const REPEATS_MAX: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenStep {
    at: Millis,
    r#do: Act,
    repeat: Option<Repeat>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repeat {
    every: Spanned<Millis>,
    times: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Act {
    /// AWS takes their instances, after the notice (two minutes).
    #[serde(rename_all = "camelCase")]
    Interrupt {
        nodes: Nodes,
        notice: Option<Millis>,
    },
    Rebalance {
        nodes: Nodes,
    },
    /// What is left in these pools; where that is nothing, so many of a hundred of their spot instances are taken.
    #[serde(rename_all = "camelCase")]
    Pools {
        capacity_type: CapacityType,
        instance_type: Option<Spanned<String>>,
        zone: Option<Spanned<String>>,
        left: Option<u32>,
        #[serde(default)]
        takes_percent: u8,
    },
    /// Every launch is answered with this error code; without one, no more.
    #[serde(rename_all = "camelCase")]
    Refuse {
        capacity_type: CapacityType,
        code: Option<Spanned<String>>,
    },
    /// Whether instances launched from now on become nodes.
    Joins(bool),
    Api(Service),
    Ec2(Service),
    Imds {
        nodes: Nodes,
        state: Service,
    },
    KillAgents {
        nodes: Nodes,
        down: Millis,
    },
    KillProvisioner {
        replica: Spanned<usize>,
        down: Millis,
    },
    KillLeader {
        down: Millis,
    },
    NoFaults,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Service {
    Well,
    Away,
    Slow,
    Throttles,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Nodes {
    /// By the order in which they joined, from 0.
    Node(usize),
    Some {
        from: usize,
        count: usize,
    },
    Zone(Spanned<String>),
    Spot,
    All,
    /// The stand-in that joined first.
    StandIn,
    /// Those on which the provisioner runs.
    Provisioners,
}

impl WrittenStep {
    pub(super) fn put(self, mut scenario: Scenario) -> Result<Scenario, Mistake> {
        let step = self.r#do.step(&scenario.cloud)?;
        let (every, times) = match &self.repeat {
            None => (0, 1),
            Some(repeat) if repeat.every.value.0 == 0 || repeat.times == 0 || repeat.times > REPEATS_MAX => {
                let what = format!("a step is repeated every so often, 1 to {REPEATS_MAX} times");
                return Err(wrong(&repeat.every.defined, what));
            }
            Some(repeat) => (repeat.every.value.0, repeat.times),
        };
        for time in 0..u64::from(times) {
            scenario = scenario.at(self.at.0.saturating_add(every.saturating_mul(time)), step.clone());
        }
        Ok(scenario)
    }
}

impl Act {
    fn step(self, cloud: &Cloud) -> Result<Step, Mistake> {
        Ok(match self {
            Self::Interrupt { nodes, notice } => {
                Step::Interrupt { of: nodes.which(cloud)?, notice_ms: notice.map_or(TWO_MINUTES, |it| it.0) }
            }
            Self::Rebalance { nodes } => Step::Rebalance { of: nodes.which(cloud)? },
            Self::Pools { capacity_type, instance_type, zone, left, takes_percent } => {
                let of = Pools {
                    capacity_type,
                    instance_type: instance_type.map(|name| known_type(&name, cloud)).transpose()?,
                    zone: zone.map(|zone| known_zone(&zone, cloud)).transpose()?,
                };
                Step::Pools { of, left, takes_percent: takes_percent.min(100) }
            }
            Self::Refuse { capacity_type, code } => {
                Step::Refuse { capacity_type, code: code.map(|code| known_code(&code)).transpose()? }
            }
            Self::Joins(joins) => Step::Join(joins),
            Self::Api(Service::Well) => Step::Api(ApiState::Well),
            Self::Api(Service::Away) => Step::Api(ApiState::Away),
            Self::Api(Service::Slow) => Step::Api(ApiState::Slow),
            Self::Api(Service::Throttles) => Step::Api(ApiState::Flooded),
            Self::Ec2(Service::Well) => Step::Ec2(State::Well),
            Self::Ec2(Service::Away) => Step::Ec2(State::Away),
            Self::Ec2(Service::Slow | Service::Throttles) => Step::Ec2(State::Throttles),
            Self::Imds { nodes, state } => {
                let state = match state {
                    Service::Well => ImdsState::Well,
                    Service::Slow => ImdsState::Hangs,
                    Service::Away | Service::Throttles => ImdsState::Refuses,
                };
                Step::Imds { of: nodes.which(cloud)?, state }
            }
            Self::KillAgents { nodes, down } => Step::KillAgents { of: nodes.which(cloud)?, down_ms: down.0 },
            Self::KillProvisioner { replica, down } if replica.value < 2 => {
                Step::KillProvisioner { replica: replica.value, down_ms: down.0 }
            }
            Self::KillProvisioner { replica, .. } => {
                return Err(wrong(
                    &replica.defined,
                    format!("there is no replica {}: there are 0 and 1", replica.value),
                ));
            }
            Self::KillLeader { down } => Step::KillLeader { down_ms: down.0 },
            Self::NoFaults => Step::NoFaults,
        })
    }
}

/// The codes that EC2 answers launches with, as far as the model knows what they mean.
const CODES: [&str; 9] = [
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "VcpuLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "UnauthorizedOperation",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidAMIID.NotFound",
    "InvalidParameterValue",
];

fn known_code(code: &Spanned<String>) -> Result<&'static str, Mistake> {
    let known = CODES.iter().find(|known| **known == code.value);
    known.copied().ok_or_else(|| {
        let what = format!("`{}` is no error code that can be rehearsed; there are {}", code.value, CODES.join(", "));
        wrong(&code.defined, what)
    })
}

impl Nodes {
    fn which(self, cloud: &Cloud) -> Result<Which, Mistake> {
        Ok(match self {
            Self::Node(index) => Which::Node(index),
            Self::Some { from, count } => Which::Nodes { from, count },
            Self::Zone(zone) => Which::Zone(known_zone(&zone, cloud)?),
            Self::Spot => Which::Spot,
            Self::All => Which::All,
            Self::StandIn => Which::StandIn,
            Self::Provisioners => Which::Provisioners,
        })
    }
}
