//! What an EC2NodeClass names in EC2, and the launch templates that are made of one.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types as ec2;

use super::{ALIVE, CLUSTER_TAG, Ec2, Ec2Error, FILTER_VALUES_MAX, failed, filter, tagged};
use crate::api::node_class::{
    AmiSelectorTerm, LaunchTemplateRef, MetadataOptions, ResolvedTemplate, SecurityGroupSelectorTerm,
};
use crate::domain::notice::InstanceId;
use crate::provision::class::template::{self, Device, Template};
use crate::provision::class::{GroupSeen, ImageSeen, SubnetSeen, TemplateSeen};

/// Whose images are looked at where nobody is named.
const OWNERS: [&str; 2] = ["self", "amazon"];

impl Ec2 {
    /// Every subnet that may be seen, with its tags.
    pub async fn all_subnets(&self) -> Result<Vec<SubnetSeen>, Ec2Error> {
        let all = self.subnets().await?.0.into_iter();
        let seen = all.map(|(id, of)| SubnetSeen { id, zone: of.zone, vpc: of.vpc, tags: of.tags });
        Ok(seen.collect())
    }

    /// The subnets in which these instances run.
    pub async fn subnets_of(&self, instances: &[InstanceId]) -> Result<BTreeSet<String>, Ec2Error> {
        let mut used = BTreeSet::new();
        for some in instances.chunks(FILTER_VALUES_MAX) {
            let ids = filter("instance-id", some.iter().map(|id| id.as_str()));
            let found = self.describe(vec![ids, filter("instance-state-name", ALIVE)]).await?;
            used.extend(found.into_iter().filter_map(|of| of.subnet));
        }
        Ok(used)
    }

    /// The security groups that a term names.
    pub async fn security_groups(&self, term: &SecurityGroupSelectorTerm) -> Result<Vec<GroupSeen>, Ec2Error> {
        let filters = match (&term.id, &term.name) {
            (Some(id), _) => vec![filter("group-id", [id.as_str()])],
            (None, Some(name)) => vec![filter("group-name", [name.as_str()])],
            (None, None) => of_tags(&term.tags),
        };
        let mut pages = self.client.describe_security_groups().set_filters(Some(filters)).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeSecurityGroups", error))?;
            found.extend(page.security_groups.unwrap_or_default().into_iter().filter_map(|of| {
                Some(GroupSeen {
                    id: of.group_id?,
                    name: of.group_name.unwrap_or_default(),
                    vpc: of.vpc_id.unwrap_or_default(),
                })
            }));
        }
        Ok(found)
    }

    /// The images that a term names and that can be used.
    pub async fn images(&self, term: &AmiSelectorTerm) -> Result<Vec<ImageSeen>, Ec2Error> {
        let mut filters = match (&term.id, &term.name) {
            (Some(id), _) => vec![filter("image-id", [id.as_str()])],
            (None, Some(name)) => vec![filter("name", [name.as_str()])],
            (None, None) => of_tags(&term.tags),
        };
        filters.push(filter("state", ["available"]));
        let owners = match (&term.id, &term.owner) {
            (Some(_), _) => None,
            (None, Some(owner)) => Some(vec![owner.clone()]),
            (None, None) => Some(OWNERS.map(str::to_owned).to_vec()),
        };
        let call = self.client.describe_images().set_filters(Some(filters)).set_owners(owners);
        let answer = call.send().await.map_err(|error| failed("ec2:DescribeImages", error))?;
        Ok(answer.images.unwrap_or_default().into_iter().filter_map(image).collect())
    }

    /// A version of a launch template; the inner error is EC2's word that it is not there.
    pub async fn launch_template(&self, of: &LaunchTemplateRef) -> Result<Result<TemplateSeen, String>, Ec2Error> {
        let call = self
            .client
            .describe_launch_template_versions()
            .set_launch_template_id(of.id.clone())
            .set_launch_template_name(of.name.clone())
            .versions(&of.version);
        match call.send().await {
            Ok(answer) => {
                let version = answer.launch_template_versions.unwrap_or_default().into_iter().next();
                Ok(version.and_then(seen).ok_or_else(|| format!("it has no version {}", of.version)))
            }
            Err(error) => match failed("ec2:DescribeLaunchTemplateVersions", error) {
                Ec2Error::Refused { code, message, .. } if code.starts_with("InvalidLaunchTemplate") => {
                    Ok(Err(message))
                }
                error => Err(error),
            },
        }
    }

    /// The name of a launch template of ours with this content.
    pub fn name_of(&self, template: &Template) -> String {
        template.name(&self.cluster)
    }

    /// Makes a launch template of ours. `None`: one of its name, which is one of its content, is there already.
    pub async fn make_template(&self, template: &Template) -> Result<Option<ResolvedTemplate>, Ec2Error> {
        let name = self.name_of(template);
        let call = self
            .client
            .create_launch_template()
            .launch_template_name(&name)
            .launch_template_data(data(template))
            .tag_specifications(tagged(ec2::ResourceType::LaunchTemplate, [(CLUSTER_TAG, self.cluster.as_str())]));
        match call.send().await {
            Ok(answer) => {
                let id = answer.launch_template.and_then(|of| of.launch_template_id).unwrap_or_default();
                Ok(Some(ResolvedTemplate { id, name, version: template::VERSION.to_owned() }))
            }
            Err(error) => match failed("ec2:CreateLaunchTemplate", error) {
                Ec2Error::Refused { code, .. } if code == "InvalidLaunchTemplateName.AlreadyExistsException" => {
                    Ok(None)
                }
                error => Err(error),
            },
        }
    }
}

/// All of these tags; the value `*` stands for any.
fn of_tags(tags: &BTreeMap<String, String>) -> Vec<ec2::Filter> {
    let one = |(key, value): (&String, &String)| match value.as_str() {
        "*" => filter("tag-key", [key.as_str()]),
        value => filter(&format!("tag:{key}"), [value]),
    };
    tags.iter().map(one).collect()
}

fn image(of: ec2::Image) -> Option<ImageSeen> {
    let architecture = match of.architecture {
        Some(ec2::ArchitectureValues::Arm64) => Some("arm64".to_owned()),
        Some(ec2::ArchitectureValues::X8664) => Some("amd64".to_owned()),
        _ => None,
    };
    let devices = of.block_device_mappings.unwrap_or_default().into_iter().filter_map(|one| one.device_name);
    Some(ImageSeen {
        id: of.image_id?,
        name: of.name.unwrap_or_default(),
        architecture,
        created: of.creation_date.unwrap_or_default(),
        devices: devices.collect(),
    })
}

fn seen(of: ec2::LaunchTemplateVersion) -> Option<TemplateSeen> {
    let data = of.launch_template_data;
    Some(TemplateSeen {
        id: of.launch_template_id?,
        name: of.launch_template_name.unwrap_or_default(),
        version: of.version_number?.to_string(),
        image: data.as_ref().and_then(|data| data.image_id.clone()),
        requirements: data.is_some_and(|data| data.instance_requirements.is_some()),
    })
}

fn data(of: &Template) -> ec2::RequestLaunchTemplateData {
    let profile = of.profile.as_deref().map(|profile| {
        let profile_of = ec2::LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
        if profile.starts_with("arn:") { profile_of.arn(profile) } else { profile_of.name(profile) }.build()
    });
    let volume_tags = (!of.volume_tags.is_empty()).then(|| {
        let tags = of.volume_tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build());
        ec2::LaunchTemplateTagSpecificationRequest::builder()
            .resource_type(ec2::ResourceType::Volume)
            .set_tags(Some(tags.collect()))
            .build()
    });
    let devices: Vec<_> = of.devices.iter().map(device).collect();
    ec2::RequestLaunchTemplateData::builder()
        .image_id(&of.image)
        .set_security_group_ids(Some(of.groups.clone()).filter(|groups| !groups.is_empty()))
        .set_iam_instance_profile(profile)
        .set_user_data(of.user_data.clone())
        .set_block_device_mappings(Some(devices).filter(|devices| !devices.is_empty()))
        .set_metadata_options(of.metadata.as_ref().map(metadata))
        .set_key_name(of.key.clone())
        .set_ebs_optimized(of.ebs_optimized.then_some(true))
        .set_tag_specifications(volume_tags.map(|one| vec![one]))
        .build()
}

fn device(of: &Device) -> ec2::LaunchTemplateBlockDeviceMappingRequest {
    let ebs = ec2::LaunchTemplateEbsBlockDeviceRequest::builder()
        .delete_on_termination(true)
        .set_volume_size(of.size_gib)
        .set_volume_type(of.kind.as_deref().map(ec2::VolumeType::from))
        .set_iops(of.iops)
        .set_throughput(of.throughput)
        .set_encrypted(of.encrypted)
        .set_kms_key_id(of.kms_key_id.clone())
        .set_snapshot_id(of.snapshot_id.clone())
        .build();
    ec2::LaunchTemplateBlockDeviceMappingRequest::builder().device_name(&of.name).ebs(ebs).build()
}

fn metadata(of: &MetadataOptions) -> ec2::LaunchTemplateInstanceMetadataOptionsRequest {
    ec2::LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .http_endpoint(of.http_endpoint.as_str().into())
        .http_tokens(of.http_tokens.as_str().into())
        .http_put_response_hop_limit(of.http_put_response_hop_limit)
        .http_protocol_ipv6(of.http_protocol_ipv6.as_str().into())
        .instance_metadata_tags(of.instance_metadata_tags.as_str().into())
        .build()
}
