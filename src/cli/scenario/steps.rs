//! What happens in a scenario.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::mistake::{Mistake, wrong};
use super::values::{Millis, Percent};
use super::{known_type, known_zone};
use crate::domain::offering::{CapacityType, Offering};
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{ApiState, ImdsState, Pools, Reservation, State, Step, TWO_MINUTES, Which};

/// The most often that a step may be repeated.
const REPEATS_MAX: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenStep {
    at: Spanned<Millis>,
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
        capacity_type: Spanned<CapacityType>,
        instance_type: Option<Spanned<String>>,
        zone: Option<Spanned<String>>,
        left: Option<u32>,
        #[serde(default)]
        takes_percent: Percent,
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
    /// Of those of the beginning, by the order in which they joined, from 0.
    Node(Spanned<usize>),
    Some {
        from: Spanned<usize>,
        count: Spanned<usize>,
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
        if self.at.value.0 >= scenario.ends_ms {
            return Err(wrong(&self.at.defined, "it is over by then: `duration` is no longer"));
        }
        let step = self.r#do.step(&scenario)?;
        let (every, times) = match &self.repeat {
            None => (0, 1),
            Some(repeat) if repeat.every.value.0 == 0 || repeat.times == 0 || repeat.times > REPEATS_MAX => {
                let what = format!("a step is repeated every so often, 1 to {REPEATS_MAX} times");
                return Err(wrong(&repeat.every.defined, what));
            }
            Some(repeat) => (repeat.every.value.0, repeat.times),
        };
        for time in 0..u64::from(times) {
            scenario = scenario.at(self.at.value.0.saturating_add(every.saturating_mul(time)), step.clone());
        }
        Ok(scenario)
    }
}

impl Act {
    fn step(self, scenario: &Scenario) -> Result<Step, Mistake> {
        let cloud = &scenario.cloud;
        Ok(match self {
            Self::Interrupt { nodes, notice } => {
                nodes.are_spot(scenario)?;
                Step::Interrupt { of: nodes.which(scenario)?, notice_ms: notice.map_or(TWO_MINUTES, |it| it.0) }
            }
            Self::Rebalance { nodes } => Step::Rebalance { of: nodes.which(scenario)? },
            Self::Pools { capacity_type, instance_type, zone, left, takes_percent } => {
                let of = Pools {
                    capacity_type: capacity_type.value,
                    instance_type: instance_type.map(|name| known_type(&name, cloud)).transpose()?,
                    zone: zone.map(|zone| known_zone(&zone, cloud)).transpose()?,
                };
                // All types are to be had everywhere, reserved ones where a reservation says so.
                let reserved = cloud.reservations.iter().any(|one| of.has(&reserved_pool(one)));
                if of.capacity_type == CapacityType::Reserved && !reserved {
                    let what = "there is no such pool: none of `cloud.reservations` is meant";
                    return Err(wrong(&capacity_type.defined, what));
                }
                Step::Pools { of, left, takes_percent: takes_percent.0 }
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
                Step::Imds { of: nodes.which(scenario)?, state }
            }
            Self::KillAgents { nodes, down } => Step::KillAgents { of: nodes.which(scenario)?, down_ms: down.0 },
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

fn reserved_pool(of: &Reservation) -> Offering {
    let Reservation { instance_type, zone, .. } = of.clone();
    Offering { instance_type, zone, capacity_type: CapacityType::Reserved }
}

impl Nodes {
    /// One that is named and cannot be interrupted is a slip of the pen.
    fn are_spot(&self, scenario: &Scenario) -> Result<(), Mistake> {
        let Self::Node(index) = self else { return Ok(()) };
        let mut capacity_types = scenario.nodes.iter().flat_map(|of| std::iter::repeat_n(of.capacity_type, of.count));
        match capacity_types.nth(index.value) {
            Some(of) if of != CapacityType::Spot => {
                let what = format!("node {} is {of}: AWS interrupts spot nodes", index.value);
                Err(wrong(&index.defined, what))
            }
            _ => Ok(()),
        }
    }

    fn which(self, scenario: &Scenario) -> Result<Which, Mistake> {
        let there: usize = scenario.nodes.iter().map(|group| group.count).sum();
        let known = |at: &Spanned<usize>, last: usize| {
            let what = || format!("there is no node {last}: at first they are 0 to {}", there.saturating_sub(1));
            if last < there { Ok(()) } else { Err(wrong(&at.defined, what())) }
        };
        Ok(match self {
            Self::Node(index) => {
                known(&index, index.value)?;
                Which::Node(index.value)
            }
            Self::Some { from, count } => {
                known(&from, from.value)?;
                if count.value == 0 {
                    return Err(wrong(&count.defined, "count: at least one node"));
                }
                known(&count, from.value.saturating_add(count.value - 1))?;
                Which::Nodes { from: from.value, count: count.value }
            }
            Self::Zone(zone) => Which::Zone(known_zone(&zone, &scenario.cloud)?),
            Self::Spot => Which::Spot,
            Self::All => Which::All,
            Self::StandIn => Which::StandIn,
            Self::Provisioners => Which::Provisioners,
        })
    }
}
