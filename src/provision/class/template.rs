//! The launch templates that the provisioner makes: what is in one, and the name that follows from it.
//!
//! The name is a hash of the content and of the cluster. Whoever makes the same makes it under the same name, however
//! often; what was deleted and made again is still it; and version 1 of a launch template never changes.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::node_claim::TAGS_MAX;
use crate::api::node_class::{BlockDeviceMapping, MetadataOptions};

/// What the names of ours begin with.
pub const PREFIX: &str = "spotkeeper-";

/// The version of each of ours.
pub const VERSION: &str = "1";

/// How many bytes of the hash a name has: 12 hexadecimal digits.
const HASH_BYTES: usize = 6;

/// What a launch template of ours says. What is none is left to the image and to EC2. A field that is added later must
/// be left out where it is empty: names are made from the text of all this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Template {
    /// `ami-…`.
    pub image: String,
    /// Security groups, `sg-…`, sorted.
    pub groups: Vec<String>,
    /// The instance profile: its name or its ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Sorted by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataOptions>,
    /// The name of the key pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ebs_optimized: bool,
    /// Tags of the volumes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volume_tags: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Device {
    /// Such as `/dev/xvda`.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<i32>,
    /// In MiB a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
}

impl Template {
    /// Its name in the cluster with this uid.
    pub fn name(&self, cluster: &str) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        let hash = Sha256::new().chain_update(cluster).chain_update("\n").chain_update(text).finalize();
        let digits: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{digits}")
    }
}

impl Template {
    /// The first field in which what is there `says` something else; of metadata options and tags of volumes it is not
    /// asked.
    pub fn differs(&self, says: &Self) -> Option<&'static str> {
        let same = [
            ("imageId", self.image == says.image),
            ("securityGroupIds", self.groups == says.groups),
            ("iamInstanceProfile", self.profile == says.profile),
            ("userData", self.user_data == says.user_data),
            ("blockDeviceMappings", self.devices == says.devices),
            ("keyName", self.key == says.key),
            ("ebsOptimized", self.ebs_optimized == says.ebs_optimized),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
    }
}

/// User data as EC2 wants it.
pub fn encoded(user_data: &str) -> String {
    STANDARD.encode(user_data)
}

/// The volume that a class names.
pub fn device(of: &BlockDeviceMapping) -> Device {
    Device {
        name: of.device_name.clone(),
        size_gib: of.ebs.volume_size.as_deref().and_then(gib),
        kind: of.ebs.volume_type.clone(),
        iops: of.ebs.iops,
        throughput: of.ebs.throughput,
        encrypted: of.ebs.encrypted,
        kms_key_id: of.ebs.kms_key_id.clone(),
        snapshot_id: of.ebs.snapshot_id.clone(),
    }
}

/// `100Gi`, `1Ti`; the schema lets nothing else through.
fn gib(text: &str) -> Option<i32> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let number: i32 = digits.parse().ok()?;
    match unit {
        "Gi" => Some(number),
        "Ti" => number.checked_mul(1_024),
        _ => None,
    }
}

/// What EC2 says of an instance that was made without a launch template: what another like it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plain {
    pub image: String,
    pub groups: Vec<String>,
    /// The ARN of its instance profile.
    pub profile: Option<String>,
    pub key: Option<String>,
    pub ebs_optimized: bool,
    pub metadata: Option<MetadataOptions>,
    /// The volumes that end with it, `vol-…`, and their devices. Others are claims of pods, which are not its own.
    pub volumes: BTreeMap<String, String>,
}

/// What is launched like an instance that has no launch template: `volumes` by their ids; `of_image` are the devices
/// that the image has, whose snapshots come with it.
pub fn copy(
    plain: &Plain,
    user_data: Option<String>,
    volumes: &BTreeMap<String, Device>,
    of_image: &BTreeSet<String>,
) -> Template {
    let device = |(id, name): (&String, &String)| {
        let of = volumes.get(id)?.clone();
        let snapshot_id = of.snapshot_id.filter(|_| !of_image.contains(name));
        // EC2 tells these of every volume, and takes them for some kinds alone.
        let kind = of.kind.as_deref().unwrap_or_default();
        let iops = of.iops.filter(|_| matches!(kind, "gp3" | "io1" | "io2"));
        let throughput = of.throughput.filter(|_| kind == "gp3");
        let encrypted = of.encrypted.filter(|yes| *yes);
        Some(Device { name: name.clone(), snapshot_id, iops, throughput, encrypted, ..of })
    };
    let mut devices: Vec<Device> = plain.volumes.iter().filter_map(device).collect();
    devices.sort();
    let mut groups = plain.groups.clone();
    groups.sort();
    Template {
        image: plain.image.clone(),
        groups,
        profile: plain.profile.clone(),
        user_data: user_data.filter(|text| !text.is_empty()),
        devices,
        metadata: plain.metadata.clone(),
        key: plain.key.clone(),
        ebs_optimized: plain.ebs_optimized,
        volume_tags: BTreeMap::new(),
    }
}

/// What says whose an instance is, or which one; everything else of its tags goes to what stands in for it.
const NOT_CARRIED: [&str; 8] = [
    "aws:",
    "spotkeeper.dev/",
    "karpenter.sh/",
    "karpenter.k8s.aws/",
    "eks:",
    "k8s.io/cluster-autoscaler/",
    "sigs.k8s.io/cluster-api-provider-aws/",
    "Name",
];

/// The tags of an instance that one in its place has as well. Where there are too many, those of Kubernetes go first.
pub fn carried(tags: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let own = |key: &str| NOT_CARRIED.iter().any(|one| key == *one || (key.starts_with(one) && *one != "Name"));
    let mut tags: Vec<_> = tags.into_iter().filter(|(key, _)| !own(key)).collect();
    tags.sort_by_key(|(key, _)| (!key.starts_with("kubernetes.io/"), key.clone()));
    tags.truncate(TAGS_MAX);
    tags.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Template {
        Template {
            image: "ami-1".into(),
            groups: vec!["sg-1".into(), "sg-2".into()],
            profile: Some("nodes".into()),
            user_data: Some(encoded("#!/bin/sh\n")),
            ..Template::default()
        }
    }

    #[test]
    fn the_name_follows_from_the_content_and_the_cluster_for_ever() {
        // Were this to change, an upgrade would make every template again.
        assert_eq!(template().name("cluster"), "spotkeeper-2f539a2c0bfe");
        assert_eq!(template().name("cluster"), template().clone().name("cluster"));
        assert_ne!(template().name("cluster"), template().name("another"));
        let mut names = BTreeSet::from([template().name("cluster")]);
        let changes: [fn(&mut Template); 9] = [
            |of| of.image = "ami-2".into(),
            |of| of.groups = vec!["sg-1".into()],
            |of| of.profile = None,
            |of| of.user_data = Some(encoded("#!/bin/bash\n")),
            |of| of.devices.push(Device { name: "/dev/xvda".into(), size_gib: Some(20), ..Device::default() }),
            |of| of.metadata = Some(MetadataOptions::default()),
            |of| of.key = Some("key".into()),
            |of| of.ebs_optimized = true,
            |of| drop(of.volume_tags.insert("team".into(), "a".into())),
        ];
        for change in changes {
            let mut other = template();
            change(&mut other);
            assert!(names.insert(other.name("cluster")), "every part of it counts: {other:?}");
        }
    }

    #[test]
    fn a_copy_has_the_volumes_that_end_with_the_instance_as_they_are() {
        let plain = Plain {
            image: "ami-1".into(),
            groups: vec!["sg-2".into(), "sg-1".into()],
            volumes: [("vol-1", "/dev/xvda"), ("vol-2", "/dev/sdb"), ("vol-gone", "/dev/sdc")]
                .map(|(id, name)| (id.to_owned(), name.to_owned()))
                .into(),
            ..Plain::default()
        };
        let volume = |size: i32, snapshot: &str, encrypted: bool| Device {
            size_gib: Some(size),
            snapshot_id: Some(snapshot.into()),
            encrypted: Some(encrypted),
            ..Device::default()
        };
        let volumes = BTreeMap::from([
            ("vol-1".into(), volume(100, "snap-image", false)),
            ("vol-2".into(), volume(5, "snap-data", true)),
        ]);
        let made = copy(&plain, Some(String::new()), &volumes, &BTreeSet::from(["/dev/xvda".to_owned()]));
        assert_eq!(made.groups, ["sg-1", "sg-2"], "sorted: EC2 lists them as it likes");
        assert_eq!(made.user_data, None, "empty is none");
        let names: Vec<_> = made.devices.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["/dev/sdb", "/dev/xvda"]);
        assert_eq!(
            (made.devices[0].snapshot_id.as_deref(), made.devices[0].encrypted),
            (Some("snap-data"), Some(true))
        );
        assert_eq!((made.devices[1].snapshot_id.as_deref(), made.devices[1].encrypted), (None, None));
        assert_eq!(made.devices[1].size_gib, Some(100), "as large as it is, not as the image has it");
    }

    #[test]
    fn tags_that_say_whose_an_instance_is_stay_and_the_clusters_come_along() {
        let tags = [
            ("aws:autoscaling:groupName", "workers"),
            ("eks:nodegroup-name", "workers"),
            ("karpenter.sh/nodepool", "default"),
            ("k8s.io/cluster-autoscaler/enabled", "true"),
            ("sigs.k8s.io/cluster-api-provider-aws/cluster/prod", "owned"),
            ("spotkeeper.dev/cluster", "uid"),
            ("Name", "worker-7"),
            ("NameOfTeam", "a"),
            ("kubernetes.io/cluster/prod", "owned"),
        ];
        let of =
            |tags: &[(&str, &str)]| carried(tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let kept = of(&tags);
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["NameOfTeam", "kubernetes.io/cluster/prod"]);
        let many: Vec<_> = (0..50).map(|n| (format!("a{n:02}"), "x".to_owned())).collect();
        let kept = carried(many.into_iter().chain([("kubernetes.io/cluster/prod".to_owned(), "owned".to_owned())]));
        assert!(kept.len() == TAGS_MAX && kept.contains_key("kubernetes.io/cluster/prod"));
    }

    #[test]
    fn a_copy_says_of_a_volume_only_what_ec2_takes_for_its_kind() {
        let plain = Plain { volumes: BTreeMap::from([("vol-1".into(), "/dev/xvda".into())]), ..Plain::default() };
        let said = |kind: &str| {
            let of = Device { kind: Some(kind.into()), iops: Some(3_000), throughput: Some(125), ..Device::default() };
            let made = copy(&plain, None, &BTreeMap::from([("vol-1".into(), of)]), &BTreeSet::new());
            (made.devices[0].iops, made.devices[0].throughput)
        };
        assert_eq!(said("gp3"), (Some(3_000), Some(125)));
        assert_eq!(said("io2"), (Some(3_000), None));
        assert_eq!(said("gp2"), (None, None));
    }

    #[test]
    fn what_is_there_is_compared_field_by_field() {
        assert_eq!(template().differs(&template()), None);
        let other = Template { user_data: Some(encoded("another")), ..template() };
        assert_eq!(template().differs(&other), Some("userData"));
        let filled = Template { metadata: Some(MetadataOptions::default()), ..template() };
        assert_eq!(template().differs(&filled), None, "EC2 fills these in itself");
    }

    #[test]
    fn sizes_are_in_gibibytes() {
        assert_eq!((gib("100Gi"), gib("2Ti")), (Some(100), Some(2_048)));
        for nonsense in ["", "Gi", "5", "5G", "-1x", "9999999999Gi", "é"] {
            assert_eq!(gib(nonsense), None, "{nonsense}");
        }
    }
}
