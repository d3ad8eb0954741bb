//! EC2: launches, instances, what there is and what it costs. Only this file and those below it name `aws_sdk_ec2`.
//!
//! No call is repeated beneath the core's: it decides what a failure means, and every call is given up after
//! [`CALL_TIMEOUT`].
//!
//! - `classes`: what an EC2NodeClass names, and the launch templates that are made of one.
//! - `witness`: what EC2 says of an instance that a notice is about.
//! - `copies`: what an instance without a launch template is made of, and the templates that are ours.
//! - `view`: what EC2 says of an instance and its subnets, in the words of the core.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{BehaviorVersion, StalledStreamProtectionConfig};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::types as ec2;

pub use self::copies::Named;
use self::view::{Described, SubnetView, Subnets};
use super::kubernetes::one_line;
use crate::api::launch::{LaunchSpec, Launched, Override};
use crate::domain::notice::{InstanceId, InstanceState};
use crate::domain::offering::{CapacityType, Catalog, InstanceType, MicroDollars, Offering};
use crate::domain::quantity;
use crate::provision::failure::is_no_answer;
use crate::provision::leadership::CALL_TIMEOUT;
use crate::provision::{Answer, FleetError, Instance};

mod classes;
mod copies;
pub mod view;
pub mod witness;

/// Which cluster an instance belongs to: the uid of its namespace kube-system.
pub const CLUSTER_TAG: &str = "spotkeeper.dev/cluster";
/// Which launch an instance comes from: its token.
pub const LAUNCH_TAG: &str = "spotkeeper.dev/launch";
/// Which NodePool an instance was launched for.
pub const POOL_TAG: &str = "spotkeeper.dev/nodepool";
const NAME_TAG: &str = "Name";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many instances EC2 describes at a time. It would describe a thousand, some megabytes of text at once.
const INSTANCES_PAGE: i32 = 200;

/// The most values that a filter takes.
const FILTER_VALUES_MAX: usize = 200;

/// EC2 could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    #[error("no AWS region is configured: set AWS_REGION, or let the pod read it from instance metadata (hop limit 2)")]
    NoRegion,
    #[error("{action} was refused ({code}): {message}{}", hint(code, action))]
    Refused { action: &'static str, code: String, message: String },
    #[error("{action} was not answered: {why}")]
    NoAnswer { action: &'static str, why: String },
}

/// What to change where a permission is missing.
fn hint(code: &str, action: &str) -> String {
    match code {
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            format!("; allow {action} in the provisioner's IAM policy (manifests/aws/provisioner-policy.json)")
        }
        "AuthFailure" | "ExpiredToken" | "InvalidClientTokenId" | "RequestExpired" => {
            "; look at the credentials of the provisioner's ServiceAccount".to_owned()
        }
        _ => String::new(),
    }
}

/// EC2 in one region, for one cluster.
#[derive(Clone, Debug)]
pub struct Ec2 {
    client: aws_sdk_ec2::Client,
    cluster: String,
}

impl Ec2 {
    /// With region, credentials and endpoint from where AWS's tools look for them. No call is made to EC2.
    pub async fn connect(cluster: &str) -> Result<Self, Ec2Error> {
        let aws = aws_config::defaults(BehaviorVersion::v2026_01_12()).load().await;
        Self::with(&aws, cluster)
    }

    /// With a configuration that was made elsewhere.
    pub fn with(aws: &SdkConfig, cluster: &str) -> Result<Self, Ec2Error> {
        if aws.region().is_none() {
            return Err(Ec2Error::NoRegion);
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(CALL_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = aws_sdk_ec2::config::Builder::from(aws)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // It watches the flow of long bodies; all of ours are bounded by the time-outs.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self { client: aws_sdk_ec2::Client::from_conf(config), cluster: cluster.to_owned() })
    }

    /// `CreateFleet` of type instant, with this token.
    pub async fn create_fleet(&self, token: &str, spec: &LaunchSpec) -> Result<Answer, Ec2Error> {
        let overrides = spec.overrides.iter().map(|one| {
            ec2::FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(ec2::InstanceType::from(one.instance_type.as_str()))
                .subnet_id(&one.subnet_id)
                .build()
        });
        let template =
            ec2::FleetLaunchTemplateSpecificationRequest::builder().version(&spec.recipe.launch_template_version);
        let template = match &spec.recipe.launch_template {
            id if id.starts_with("lt-") => template.launch_template_id(id),
            name => template.launch_template_name(name),
        };
        let launch = ec2::FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template.build())
            .set_overrides(Some(overrides.collect()))
            .build();
        let count = i32::try_from(spec.count).unwrap_or(i32::MAX);
        let market = match spec.capacity_type {
            CapacityType::Spot => ec2::DefaultTargetCapacityType::Spot,
            CapacityType::OnDemand | CapacityType::Reserved => ec2::DefaultTargetCapacityType::OnDemand,
        };
        let target = ec2::TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(count)
            .default_target_capacity_type(market)
            .build();
        let mut tags = BTreeMap::from([(NAME_TAG, "spotkeeper")]);
        tags.extend(spec.recipe.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        tags.extend([(CLUSTER_TAG, self.cluster.as_str()), (LAUNCH_TAG, token)]);
        tags.extend(spec.node_pool.as_deref().map(|pool| (POOL_TAG, pool)));
        // The fleet has them as well: an IAM policy can then ask for them in every call.
        let of = |resource| tagged(resource, tags.iter().map(|(key, value)| (*key, *value)));
        let (instances, fleet_itself) = (of(ec2::ResourceType::Instance), of(ec2::ResourceType::Fleet));
        let call = self
            .client
            .create_fleet()
            .client_token(token)
            .r#type(ec2::FleetType::Instant)
            .launch_template_configs(launch)
            .target_capacity_specification(target)
            .tag_specifications(instances)
            .tag_specifications(fleet_itself);
        let call = match spec.capacity_type {
            CapacityType::Spot => call.spot_options(
                ec2::SpotOptionsRequest::builder()
                    .allocation_strategy(ec2::SpotAllocationStrategy::PriceCapacityOptimized)
                    .build(),
            ),
            CapacityType::OnDemand => call.on_demand_options(on_demand(None)),
            CapacityType::Reserved => call.on_demand_options(on_demand(Some(
                ec2::FleetCapacityReservationUsageStrategy::UseCapacityReservationsFirst,
            ))),
        };
        match call.send().await {
            Ok(answer) => Ok(fleet(answer, spec)),
            Err(error) => Err(failed("ec2:CreateFleet", error)),
        }
    }

    /// The instances that have this launch's tag.
    pub async fn of_launch(&self, token: &str) -> Result<Vec<Launched>, Ec2Error> {
        let filters = [filter(&format!("tag:{LAUNCH_TAG}"), [token]), filter("instance-state-name", ALIVE)];
        let found = self.describe(filters.to_vec()).await?;
        let launched = found.iter().map(|of| Launched { instance_id: of.id.clone(), offering: of.offering.clone() });
        Ok(launched.collect())
    }

    /// The instances of this cluster's launches, and these.
    pub async fn instances(&self, of: &[InstanceId], subnets: &Subnets) -> Result<Vec<Instance>, Ec2Error> {
        let mut found = BTreeMap::new();
        let ours = self.describe(vec![filter(&format!("tag:{CLUSTER_TAG}"), [self.cluster.as_str()])]).await?;
        found.extend(ours.into_iter().map(|of| (of.id.clone(), of)));
        let wanted: Vec<&InstanceId> = of.iter().filter(|id| !found.contains_key(*id)).collect();
        for some in wanted.chunks(FILTER_VALUES_MAX) {
            // By filter rather than by id: one that EC2 does not know would make it refuse the rest.
            let others = self.describe(vec![filter("instance-id", some.iter().map(|id| id.as_str()))]).await?;
            found.extend(others.into_iter().map(|of| (of.id.clone(), of)));
        }
        Ok(view::instances(found.into_values().collect(), &self.cluster, subnets))
    }

    async fn describe(&self, filters: Vec<ec2::Filter>) -> Result<Vec<Described>, Ec2Error> {
        const ACTION: &str = "ec2:DescribeInstances";
        let call = self.client.describe_instances().set_filters(Some(filters));
        let mut pages = call.into_paginator().page_size(INSTANCES_PAGE).send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, error))?;
            let instances =
                page.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default());
            found.extend(instances.filter_map(described));
        }
        Ok(found)
    }

    /// Every subnet that may be seen.
    pub async fn subnets(&self) -> Result<Subnets, Ec2Error> {
        let mut pages = self.client.describe_subnets().into_paginator().send();
        let mut all = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeSubnets", error))?;
            for subnet in page.subnets.unwrap_or_default() {
                let (Some(id), Some(zone)) = (subnet.subnet_id, subnet.availability_zone) else { continue };
                let tags = subnet.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?)));
                let view = SubnetView {
                    zone,
                    vpc: subnet.vpc_id.unwrap_or_default(),
                    public: subnet.map_public_ip_on_launch.unwrap_or(false),
                    tags: tags.collect(),
                };
                all.insert(id, view);
            }
        }
        Ok(Subnets(all))
    }

    /// Ends an instance. One that is not there any more has ended.
    pub async fn terminate(&self, instance: &InstanceId) -> Result<(), Ec2Error> {
        match self.client.terminate_instances().instance_ids(instance.as_str()).send().await {
            Ok(_) => Ok(()),
            Err(error) => match failed("ec2:TerminateInstances", error) {
                Ec2Error::Refused { code, .. } if code == "InvalidInstanceID.NotFound" => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Which types there are and in which zones; without prices and reservations.
    pub async fn catalog(&self) -> Result<Catalog, Ec2Error> {
        let mut catalog = Catalog::default();
        let mut pages = self.client.describe_instance_types().into_paginator().page_size(100).send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeInstanceTypes", error))?;
            for of in page.instance_types.unwrap_or_default().into_iter().filter_map(instance_type) {
                catalog.types.insert(of.name.clone(), of);
            }
        }
        let mut pages = self
            .client
            .describe_instance_type_offerings()
            .location_type(ec2::LocationType::AvailabilityZone)
            .into_paginator()
            .page_size(1_000)
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeInstanceTypeOfferings", error))?;
            for of in page.instance_type_offerings.unwrap_or_default() {
                let (Some(name), Some(zone)) = (of.instance_type, of.location) else { continue };
                catalog.zones.entry(zone).or_insert_with(BTreeSet::new).insert(name.as_str().to_owned());
            }
        }
        Ok(catalog)
    }

    /// What spot costs now.
    pub async fn spot_prices(&self) -> Result<BTreeMap<Offering, MicroDollars>, Ec2Error> {
        let now = aws_sdk_ec2::primitives::DateTime::from(std::time::SystemTime::now());
        let mut pages = self
            .client
            .describe_spot_price_history()
            .start_time(now)
            .product_descriptions("Linux/UNIX")
            .into_paginator()
            .page_size(1_000)
            .send();
        let mut prices = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeSpotPriceHistory", error))?;
            for of in page.spot_price_history.unwrap_or_default() {
                let (Some(name), Some(zone)) = (of.instance_type, of.availability_zone) else { continue };
                let Some(price) = of.spot_price.as_deref().and_then(quantity::dollars) else { continue };
                let offering =
                    Offering { instance_type: name.as_str().to_owned(), zone, capacity_type: CapacityType::Spot };
                prices.insert(offering, price);
            }
        }
        Ok(prices)
    }

    /// How many instances the open reservations still hold, by type and zone.
    pub async fn reserved(&self) -> Result<BTreeMap<(String, String), u32>, Ec2Error> {
        let mut pages = self
            .client
            .describe_capacity_reservations()
            .filters(filter("state", ["active"]))
            .into_paginator()
            .page_size(1_000)
            .send();
        let mut left: BTreeMap<(String, String), u32> = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeCapacityReservations", error))?;
            for of in page.capacity_reservations.unwrap_or_default() {
                // A targeted one is taken only by what names it, which a launch template of its owner does.
                if of.instance_match_criteria != Some(ec2::InstanceMatchCriteria::Open) {
                    continue;
                }
                let (Some(name), Some(zone)) = (of.instance_type, of.availability_zone) else { continue };
                let free = u32::try_from(of.available_instance_count.unwrap_or(0)).unwrap_or(0);
                *left.entry((name, zone)).or_default() += free;
            }
        }
        Ok(left)
    }
}

/// The states of an instance that has not ended.
const ALIVE: [&str; 2] = ["pending", "running"];

fn on_demand(reservations: Option<ec2::FleetCapacityReservationUsageStrategy>) -> ec2::OnDemandOptionsRequest {
    let options =
        ec2::OnDemandOptionsRequest::builder().allocation_strategy(ec2::FleetOnDemandAllocationStrategy::LowestPrice);
    match reservations {
        None => options.build(),
        Some(strategy) => {
            let reservations = ec2::CapacityReservationOptionsRequest::builder().usage_strategy(strategy).build();
            options.capacity_reservation_options(reservations).build()
        }
    }
}

fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> ec2::Filter {
    let values = values.into_iter().map(str::to_owned).collect();
    ec2::Filter::builder().name(name).set_values(Some(values)).build()
}

/// Tags for a resource that a call makes.
fn tagged<'a>(
    resource: ec2::ResourceType,
    tags: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> ec2::TagSpecification {
    let tags = tags.into_iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build());
    ec2::TagSpecification::builder().resource_type(resource).set_tags(Some(tags.collect())).build()
}

/// What came, and what stood in the way of the rest.
fn fleet(answer: CreateFleetOutput, spec: &LaunchSpec) -> Answer {
    let mut instances = Vec::new();
    for group in answer.instances.unwrap_or_default() {
        let overrides = group.launch_template_and_overrides.and_then(|of| of.overrides);
        let name = group.instance_type.map(|name| name.as_str().to_owned());
        let (named, zone, subnet) = overrides.map_or((None, None, None), of_override);
        let offering = offering(spec, name.or(named), zone, subnet.as_deref());
        let ids = group.instance_ids.unwrap_or_default();
        instances.extend(
            ids.iter()
                .filter_map(|id| id.parse().ok())
                .map(|instance_id| Launched { instance_id, offering: offering.clone() }),
        );
    }
    instances.sort();
    let errors = answer.errors.unwrap_or_default().into_iter().map(|error| {
        let overrides = error.launch_template_and_overrides.and_then(|of| of.overrides);
        let (instance_type, zone, subnet_id) = overrides.map_or((None, None, None), of_override);
        FleetError {
            code: error.error_code.unwrap_or_default(),
            message: error.error_message.unwrap_or_default(),
            instance_type,
            zone,
            subnet_id,
        }
    });
    Answer::Fleet { instances, errors: errors.collect() }
}

/// Type, zone and subnet, as far as they are said.
fn of_override(of: ec2::FleetLaunchTemplateOverrides) -> (Option<String>, Option<String>, Option<String>) {
    (of.instance_type.map(|name| name.as_str().to_owned()), of.availability_zone, of.subnet_id)
}

/// The offering that is meant; EC2 need not name the zone where it was asked for a subnet.
fn offering(spec: &LaunchSpec, name: Option<String>, zone: Option<String>, subnet: Option<&str>) -> Offering {
    let of_subnet = |one: &&Override| subnet == Some(one.subnet_id.as_str());
    let of_type = |one: &&Override| name.as_deref() == Some(one.instance_type.as_str());
    let asked = spec.overrides.iter().find(of_subnet).or_else(|| spec.overrides.iter().find(of_type));
    Offering {
        instance_type: name.clone().or_else(|| Some(asked?.instance_type.clone())).unwrap_or_default(),
        zone: zone.or_else(|| Some(asked?.zone.clone())).unwrap_or_default(),
        capacity_type: spec.capacity_type,
    }
}

/// Begins a `StateReason` of EC2's own doing; others begin with `Client.`.
const BY_EC2: &str = "Server.";

fn described(of: ec2::Instance) -> Option<Described> {
    let state = of.state.and_then(|state| state.name).and_then(|name| InstanceState::from_word(name.as_str()))?;
    let tags = of.tags.unwrap_or_default().into_iter().filter_map(|tag| Some((tag.key?, tag.value?)));
    let addresses = [of.private_dns_name, of.private_ip_address, of.ipv6_address];
    let in_block = of.instance_lifecycle == Some(ec2::InstanceLifecycleType::CapacityBlock);
    let capacity_type = match of.instance_lifecycle {
        Some(ec2::InstanceLifecycleType::Spot) => CapacityType::Spot,
        Some(ec2::InstanceLifecycleType::CapacityBlock) => CapacityType::Reserved,
        _ if of.capacity_reservation_id.is_some() => CapacityType::Reserved,
        _ => CapacityType::OnDemand,
    };
    Some(Described {
        id: of.instance_id?.parse().ok()?,
        state,
        by_ec2: of.state_reason.and_then(|reason| reason.code).is_some_and(|code| code.starts_with(BY_EC2)),
        reservation: of.capacity_reservation_id,
        in_block,
        launched_at: of.launch_time.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok()),
        offering: Offering {
            instance_type: of.instance_type.map(|name| name.as_str().to_owned()).unwrap_or_default(),
            zone: of.placement.and_then(|at| at.availability_zone).unwrap_or_default(),
            capacity_type,
        },
        subnet: of.subnet_id,
        addresses: addresses.into_iter().flatten().filter(|one| !one.is_empty()).collect(),
        tags: tags.collect(),
    })
}

fn instance_type(of: ec2::InstanceTypeInfo) -> Option<InstanceType> {
    let arch = of.processor_info?.supported_architectures?.into_iter().find_map(|arch| match arch {
        ec2::ArchitectureType::Arm64 => Some("arm64"),
        ec2::ArchitectureType::X8664 => Some("amd64"),
        _ => None,
    })?;
    let gpus = of.gpu_info.and_then(|info| info.gpus).unwrap_or_default();
    Some(InstanceType {
        name: of.instance_type?.as_str().to_owned(),
        arch: arch.to_owned(),
        vcpus: of.v_cpu_info?.default_v_cpus?.try_into().ok()?,
        memory_mib: of.memory_info?.size_in_mib?.try_into().ok()?,
        gpus: gpus.iter().filter_map(|gpu| u32::try_from(gpu.count?).ok()).sum(),
        bare_metal: of.bare_metal == Some(true) || of.burstable_performance_supported == Some(true),
    })
}

/// What a failure of the SDK says.
fn failed<E>(action: &'static str, error: SdkError<E>) -> Ec2Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match error.code().map(str::to_owned) {
        Some(code) if !is_no_answer(status, &code) => {
            let message = error.message().unwrap_or_default().to_owned();
            Ec2Error::Refused { action, code, message }
        }
        _ => Ec2Error::NoAnswer { action, why: one_line(&error) },
    }
}
