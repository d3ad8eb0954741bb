//! The EC2NodeClass resource: how an instance becomes a node of the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::Condition;
use super::node_claim::Subnet;

#[cfg(feature = "api")]
use {kube::CustomResource, kube::KubeSchema, schemars::JsonSchema};

/// How an instance becomes a node of the cluster: with a launch template that exists, or with what is said here, of
/// which a launch template is made. Field names are Karpenter's where the meaning is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(CustomResource, KubeSchema))]
#[cfg_attr(
    feature = "api",
    kube(
        group = "spotkeeper.dev",
        version = "v1alpha1",
        kind = "EC2NodeClass",
        plural = "ec2nodeclasses",
        category = "spotkeeper",
        shortname = "skec2nc",
        status = "EC2NodeClassStatus",
        doc = "How an instance becomes a node of the cluster, and what was found for it in EC2.",
        printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
        printcolumn = r#"{"name":"Template","type":"string","jsonPath":".status.launchTemplate.name"}"#,
        printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.launchTemplate.version"}"#,
        printcolumn = r#"{"name":"AMI","type":"string","jsonPath":".status.ami.id"}"#,
        printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message"}"#,
        printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
    )
)]
#[cfg_attr(
    feature = "api",
    x_kube(
        validation = Rule::new("has(self.launchTemplate) != has(self.amiSelectorTerms)")
            .message("name either a launchTemplate, or amiSelectorTerms with securityGroupSelectorTerms and instanceProfile"),
        validation = Rule::new(
            "!has(self.launchTemplate) || !(has(self.securityGroupSelectorTerms) || has(self.instanceProfile) \
             || has(self.userData) || has(self.blockDeviceMappings) || has(self.metadataOptions))"
        )
            .message("a launchTemplate brings its own security groups, instance profile, user data, block devices and \
                      metadata options: set them there"),
        validation = Rule::new(
            "!has(self.amiSelectorTerms) || (has(self.securityGroupSelectorTerms) && has(self.instanceProfile))"
        )
            .message("without a launchTemplate, securityGroupSelectorTerms and instanceProfile are needed"),
    )
)]
#[serde(rename_all = "camelCase")]
pub struct EC2NodeClassSpec {
    /// A launch template that exists. Its instance type, subnet and number are overridden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_template: Option<LaunchTemplateRef>,
    /// Where it may run: subnets that any of these names. Without any: those in which nodes of this cluster run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 30)))]
    pub subnet_selector_terms: Vec<SubnetSelectorTerm>,
    /// The security groups: those that any of these names. All in the VPC of the subnets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 30)))]
    pub security_group_selector_terms: Vec<SecurityGroupSelectorTerm>,
    /// The image: of those that any of these names the newest. They must be of one architecture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 30)))]
    pub ami_selector_terms: Vec<AmiSelectorTerm>,
    /// The name of the instance profile, which holds the nodes' role. It must exist: none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 128), regex(pattern = r"^[\w+=,.@-]+$")))]
    pub instance_profile: Option<String>,
    /// User data as the instance is to read it (not base64); at most 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 16384)))]
    pub user_data: Option<String>,
    /// Volumes, by device name; a device of the image is changed by naming it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 20)))]
    #[cfg_attr(feature = "api", x_kube(merge_strategy = ListMerge::Map(vec!["deviceName".into()])))]
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// How the instance's metadata service answers. Without it: IMDSv2 alone, one hop, as Karpenter has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_options: Option<MetadataOptions>,
    /// Tags of the instances, and without a launchTemplate of their volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("maxProperties" = 40)))]
    #[cfg_attr(
        feature = "api",
        x_kube(
            validation = Rule::new(
                "self.all(key, !key.startsWith('aws:') && !key.startsWith('spotkeeper.dev/') \
                 && !key.startsWith('karpenter.sh/') && !key.startsWith('karpenter.k8s.aws/') && !key.startsWith('eks:') \
                 && !key.startsWith('k8s.io/cluster-autoscaler/'))"
            )
                .message("tags that begin with aws:, spotkeeper.dev/, karpenter.sh/, karpenter.k8s.aws/, eks: or \
                          k8s.io/cluster-autoscaler/ say whose an instance is: they cannot be set"),
            validation = Rule::new(
                "self.all(key, !key.startsWith('kubernetes.io/cluster/') || self[key] == 'owned')"
            )
                .message("a tag kubernetes.io/cluster/NAME of an instance has the value owned"),
            validation = Rule::new("self.all(key, size(key) > 0 && size(key) <= 128 && size(self[key]) <= 256)")
                .message("a tag's key has 1 to 128 characters, its value at most 256"),
        )
    )]
    pub tags: BTreeMap<String, String>,
}

/// A launch template that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[cfg_attr(
    feature = "api",
    x_kube(validation = Rule::new("has(self.id) != has(self.name)").message("name a launch template by id or by name"))
)]
#[serde(rename_all = "camelCase")]
pub struct LaunchTemplateRef {
    /// `lt-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64), regex(pattern = r"^lt-[0-9a-f]+$")))]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 3, max = 128)))]
    pub name: Option<String>,
    /// A number, `$Default` or `$Latest`. A launch names the number that this is when it is made.
    #[serde(default = "default_version")]
    #[cfg_attr(feature = "api", schemars(length(max = 32), regex(pattern = r"^(\$Default|\$Latest|[1-9][0-9]*)$")))]
    pub version: String,
}

fn default_version() -> String {
    "$Default".to_owned()
}

/// Subnets, by id or by tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[cfg_attr(
    feature = "api",
    x_kube(validation = Rule::new("has(self.id) != has(self.tags)").message("a subnet selector term has an id, or tags"))
)]
#[serde(rename_all = "camelCase")]
pub struct SubnetSelectorTerm {
    /// `subnet-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64), regex(pattern = r"^subnet-[0-9a-z]+$")))]
    pub id: Option<String>,
    /// All of these; the value `*` stands for any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("minProperties" = 1, "maxProperties" = 20)))]
    pub tags: BTreeMap<String, String>,
}

/// Security groups, by id, name or tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[cfg_attr(
    feature = "api",
    x_kube(validation = Rule::new("[has(self.id), has(self.name), has(self.tags)].exists_one(set, set)")
        .message("a security group selector term has an id, a name, or tags"))
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupSelectorTerm {
    /// `sg-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64), regex(pattern = r"^sg-[0-9a-z]+$")))]
    pub id: Option<String>,
    /// The group's name (not its tag `Name`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 255)))]
    pub name: Option<String>,
    /// All of these; the value `*` stands for any.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("minProperties" = 1, "maxProperties" = 20)))]
    pub tags: BTreeMap<String, String>,
}

/// Images, by id, by name, or by tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[cfg_attr(
    feature = "api",
    x_kube(
        validation = Rule::new("[has(self.id), has(self.name), has(self.tags)].exists_one(set, set)")
            .message("an AMI selector term has an id, a name, or tags"),
        validation = Rule::new("!has(self.owner) || has(self.name)").message("owner goes with name"),
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AmiSelectorTerm {
    /// `ami-…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64), regex(pattern = r"^ami-[0-9a-z]+$")))]
    pub id: Option<String>,
    /// The image's name; `*` and `?` stand for any characters and any one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 128)))]
    pub name: Option<String>,
    /// Whose image: an account's number, `self`, or an alias such as `amazon`. Without it: `self` and `amazon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 64)))]
    pub owner: Option<String>,
    /// All of these; the value `*` stands for any. Images of this account and of Amazon are looked at.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "api", schemars(extend("minProperties" = 1, "maxProperties" = 20)))]
    pub tags: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlockDeviceMapping {
    /// Such as `/dev/xvda`.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 64)))]
    pub device_name: String,
    pub ebs: BlockDevice,
}

/// What a volume is. What is not said is as the image has it, or as EC2 does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct BlockDevice {
    /// Such as `100Gi` or `1Ti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,4}(Gi|Ti)$")))]
    pub volume_size: Option<String>,
    /// Such as `gp3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^(standard|io1|io2|gp2|gp3|sc1|st1)$")))]
    pub volume_type: Option<String>,
    /// Operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 100, max = 256_000)))]
    pub iops: Option<i32>,
    /// In MiB a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(range(min = 125, max = 2_000)))]
    pub throughput: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The key that it is encrypted with: id, alias or ARN.
    #[serde(rename = "kmsKeyID", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 2048)))]
    pub kms_key_id: Option<String>,
    /// The snapshot that it begins as.
    #[serde(rename = "snapshotID", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "api", schemars(length(max = 64), regex(pattern = r"^snap-[0-9a-z]+$")))]
    pub snapshot_id: Option<String>,
}

/// How the instance's metadata service answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct MetadataOptions {
    /// `enabled` or `disabled`. The agent on the node needs it enabled.
    #[serde(default = "enabled")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^(enabled|disabled)$")))]
    pub http_endpoint: String,
    /// `required`: with a token only (IMDSv2); `optional`: without one, too.
    #[serde(default = "required")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^(required|optional)$")))]
    pub http_tokens: String,
    /// How many network hops an answer may take: 1 reaches the node itself, 2 pods that are not on its network.
    #[serde(default = "one")]
    #[cfg_attr(feature = "api", schemars(range(min = 1, max = 64)))]
    pub http_put_response_hop_limit: i32,
    /// `enabled` or `disabled`: whether it has an IPv6 address as well.
    #[serde(rename = "httpProtocolIPv6", default = "disabled")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^(enabled|disabled)$")))]
    pub http_protocol_ipv6: String,
    /// `enabled` or `disabled`: whether it has the instance's tags.
    #[serde(default = "disabled")]
    #[cfg_attr(feature = "api", schemars(regex(pattern = r"^(enabled|disabled)$")))]
    pub instance_metadata_tags: String,
}

fn enabled() -> String {
    "enabled".to_owned()
}

fn disabled() -> String {
    "disabled".to_owned()
}

fn required() -> String {
    "required".to_owned()
}

fn one() -> i32 {
    1
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self {
            http_endpoint: enabled(),
            http_tokens: required(),
            http_put_response_hop_limit: one(),
            http_protocol_ipv6: disabled(),
            instance_metadata_tags: disabled(),
        }
    }
}

/// What was found for it in EC2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(KubeSchema))]
#[serde(rename_all = "camelCase")]
pub struct EC2NodeClassStatus {
    /// The generation of the spec that all of this is about.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub observed_generation: i64,
    /// What is launched with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_template: Option<ResolvedTemplate>,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub subnets: Vec<Subnet>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub security_groups: Vec<ResolvedGroup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ami: Option<ResolvedAmi>,
    /// `Ready`: whether something can be launched with it; the message names the field that stands in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 8)))]
    #[cfg_attr(feature = "api", x_kube(merge_strategy = ListMerge::Map(vec!["type".into()])))]
    pub conditions: Vec<Condition>,
}

/// A launch template and its version, a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResolvedTemplate {
    pub id: String,
    pub name: String,
    pub version: String,
}

/// A security group.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResolvedGroup {
    pub id: String,
    pub name: String,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ResolvedAmi {
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `amd64` or `arm64`; none where EC2 does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}
