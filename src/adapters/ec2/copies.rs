//! What an instance without a launch template is made of, and the launch templates of ours: which there are, what one says.

use std::collections::BTreeMap;

use aws_sdk_ec2::types as ec2;

use super::{CLUSTER_TAG, Ec2, Ec2Error, failed, filter};
use crate::api::node_class::MetadataOptions;
use crate::domain::notice::InstanceId;
use crate::provision::class::template::{self, Device, Plain, Template};
use crate::provision::templates::OurTemplate;

/// The states in which an instance still tells what it is made of.
const READABLE: [&str; 4] = ["pending", "running", "stopping", "stopped"];

/// The launch template that has a name of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// There is none.
    Missing,
    /// It has not this cluster's tag.
    Foreign { id: String },
    /// It is ours.
    Ours { id: String },
}

impl Ec2 {
    /// What an instance is made of; `None`: it has ended, or EC2 does not know it.
    pub async fn plain(&self, instance: &InstanceId) -> Result<Option<Plain>, Ec2Error> {
        let filters = vec![filter("instance-id", [instance.as_str()]), filter("instance-state-name", READABLE)];
        let call = self.client.describe_instances().set_filters(Some(filters));
        let answer = call.send().await.map_err(|error| failed("ec2:DescribeInstances", error))?;
        let mut all = answer.reservations.unwrap_or_default().into_iter().flat_map(|r| r.instances.unwrap_or_default());
        Ok(all.next().and_then(plain))
    }

    /// In base64; empty where there is none. `None`: the instance is not there any more.
    pub async fn user_data(&self, instance: &InstanceId) -> Result<Option<String>, Ec2Error> {
        let call = self
            .client
            .describe_instance_attribute()
            .instance_id(instance.as_str())
            .attribute(ec2::InstanceAttributeName::UserData);
        match call.send().await {
            Ok(answer) => Ok(Some(answer.user_data.and_then(|of| of.value).unwrap_or_default())),
            Err(error) => match failed("ec2:DescribeInstanceAttribute", error) {
                Ec2Error::Refused { code, .. } if code == "InvalidInstanceID.NotFound" => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Volumes by their ids, as devices without a name.
    pub async fn volumes(&self, ids: impl Iterator<Item = &String>) -> Result<BTreeMap<String, Device>, Ec2Error> {
        let ids: Vec<&str> = ids.map(String::as_str).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        // By filter rather than by id: one that is gone would make it refuse the rest.
        let call = self.client.describe_volumes().filters(filter("volume-id", ids));
        let answer = call.send().await.map_err(|error| failed("ec2:DescribeVolumes", error))?;
        Ok(answer.volumes.unwrap_or_default().into_iter().filter_map(volume).collect())
    }

    /// The launch template that has this name.
    pub async fn template_named(&self, name: &str) -> Result<Named, Ec2Error> {
        let call = self.client.describe_launch_templates().filters(filter("launch-template-name", [name]));
        let answer = call.send().await.map_err(|error| failed("ec2:DescribeLaunchTemplates", error))?;
        let Some(found) = answer.launch_templates.unwrap_or_default().into_iter().next() else {
            return Ok(Named::Missing);
        };
        let id = found.launch_template_id.unwrap_or_default();
        let ours = found.tags.is_some_and(|tags| self.is_ours(&tags));
        Ok(if ours { Named::Ours { id } } else { Named::Foreign { id } })
    }

    /// What the version of one of ours says; `None`: there is no such version, or the template has gone.
    pub async fn template_says(&self, id: &str) -> Result<Option<Template>, Ec2Error> {
        let call = self.client.describe_launch_template_versions().launch_template_id(id).versions(template::VERSION);
        match call.send().await {
            Ok(answer) => {
                let version = answer.launch_template_versions.unwrap_or_default().into_iter().next();
                Ok(version.and_then(|of| of.launch_template_data).map(said))
            }
            Err(error) => match failed("ec2:DescribeLaunchTemplateVersions", error) {
                Ec2Error::Refused { code, .. } if code.starts_with("InvalidLaunchTemplate") => Ok(None),
                error => Err(error),
            },
        }
    }

    fn is_ours(&self, tags: &[ec2::Tag]) -> bool {
        tags.iter().any(|tag| tag.key() == Some(CLUSTER_TAG) && tag.value() == Some(self.cluster.as_str()))
    }

    /// The launch templates that have this cluster's tag and a name as ours have.
    pub async fn our_templates(&self) -> Result<Vec<OurTemplate>, Ec2Error> {
        let ours = filter(&format!("tag:{CLUSTER_TAG}"), [self.cluster.as_str()]);
        let mut pages = self.client.describe_launch_templates().filters(ours).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed("ec2:DescribeLaunchTemplates", error))?;
            for of in page.launch_templates.unwrap_or_default() {
                let tagged = of.tags.as_ref().is_some_and(|tags| self.is_ours(tags));
                let (Some(id), Some(name)) = (of.launch_template_id, of.launch_template_name) else { continue };
                if tagged && name.starts_with(template::PREFIX) {
                    found.push(OurTemplate { id, name });
                }
            }
        }
        Ok(found)
    }

    /// Deletes one of ours. One that is not there any more is deleted.
    pub async fn delete_template(&self, of: &OurTemplate) -> Result<(), Ec2Error> {
        match self.client.delete_launch_template().launch_template_id(&of.id).send().await {
            Ok(_) => Ok(()),
            Err(error) => match failed("ec2:DeleteLaunchTemplate", error) {
                Ec2Error::Refused { code, .. } if code.starts_with("InvalidLaunchTemplateId.NotFound") => Ok(()),
                error => Err(error),
            },
        }
    }
}

fn plain(of: ec2::Instance) -> Option<Plain> {
    let own = of.block_device_mappings.unwrap_or_default().into_iter().filter_map(|mapping| {
        let ebs = mapping.ebs.filter(|ebs| ebs.delete_on_termination == Some(true))?;
        Some((ebs.volume_id?, mapping.device_name?))
    });
    let metadata = of.metadata_options.map(|of| {
        let word = |word: Option<&str>, else_: String| word.map_or(else_, str::to_owned);
        let usual = MetadataOptions::default();
        MetadataOptions {
            http_endpoint: word(of.http_endpoint.as_ref().map(|of| of.as_str()), usual.http_endpoint),
            http_tokens: word(of.http_tokens.as_ref().map(|of| of.as_str()), usual.http_tokens),
            http_put_response_hop_limit: of.http_put_response_hop_limit.unwrap_or(usual.http_put_response_hop_limit),
            http_protocol_ipv6: word(of.http_protocol_ipv6.as_ref().map(|of| of.as_str()), usual.http_protocol_ipv6),
            instance_metadata_tags: word(
                of.instance_metadata_tags.as_ref().map(|of| of.as_str()),
                usual.instance_metadata_tags,
            ),
        }
    });
    Some(Plain {
        volumes: own.collect(),
        metadata,
        image: of.image_id?,
        groups: of.security_groups.unwrap_or_default().into_iter().filter_map(|group| group.group_id).collect(),
        profile: of.iam_instance_profile.and_then(|profile| profile.arn),
        key: of.key_name.filter(|key| !key.is_empty()),
        ebs_optimized: of.ebs_optimized == Some(true),
    })
}

fn volume(of: ec2::Volume) -> Option<(String, Device)> {
    let device = Device {
        name: String::new(),
        size_gib: of.size,
        kind: of.volume_type.map(|kind| kind.as_str().to_owned()),
        iops: of.iops,
        throughput: of.throughput,
        encrypted: of.encrypted,
        kms_key_id: of.kms_key_id,
        snapshot_id: of.snapshot_id.filter(|id| !id.is_empty()),
    };
    Some((of.volume_id?, device))
}

/// What a version of a launch template says, as far as ours say anything.
fn said(of: ec2::ResponseLaunchTemplateData) -> Template {
    let device = |mapping: ec2::LaunchTemplateBlockDeviceMapping| {
        let ebs = mapping.ebs?;
        Some(Device {
            name: mapping.device_name?,
            size_gib: ebs.volume_size,
            kind: ebs.volume_type.map(|kind| kind.as_str().to_owned()),
            iops: ebs.iops,
            throughput: ebs.throughput,
            encrypted: ebs.encrypted,
            kms_key_id: ebs.kms_key_id,
            snapshot_id: ebs.snapshot_id,
        })
    };
    let mut devices: Vec<Device> =
        of.block_device_mappings.unwrap_or_default().into_iter().filter_map(device).collect();
    devices.sort();
    let mut groups = of.security_group_ids.unwrap_or_default();
    groups.sort();
    Template {
        image: of.image_id.unwrap_or_default(),
        groups,
        profile: of.iam_instance_profile.and_then(|profile| profile.arn.or(profile.name)),
        user_data: of.user_data.filter(|text| !text.is_empty()),
        devices,
        // These EC2 fills in itself; what is left out of ours is not ours to compare.
        metadata: None,
        key: of.key_name,
        ebs_optimized: of.ebs_optimized == Some(true),
        volume_tags: BTreeMap::new(),
    }
}
