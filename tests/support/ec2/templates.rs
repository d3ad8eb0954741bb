//! Launch templates, and what instances are made of, as moto has them.

use super::answers::between;
use super::{Ec2, IMAGE};
use crate::support::cluster::{Cluster, NodeHandle};

/// The tag that says whose a launch template is.
const CLUSTER_TAG: &str = "spotkeeper.dev/cluster";

/// What an instance is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct MadeOf {
    pub image: String,
    /// In base64.
    pub user_data: String,
    /// Of its root volume.
    pub size_gib: String,
}

impl Ec2 {
    /// A spot instance that runs and was made without a launch template, and its node.
    pub async fn plain_node(
        &self,
        cluster: &Cluster,
        name: &str,
        user_data: &str,
        size_gib: u32,
        tags: &[(&str, &str)],
    ) -> NodeHandle {
        use base64::Engine;
        let subnet = self.subnets().await.remove(0);
        let user_data = base64::engine::general_purpose::STANDARD.encode(user_data);
        let size = size_gib.to_string();
        let more = [
            ("ImageId", IMAGE),
            ("UserData", user_data.as_str()),
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
            ("BlockDeviceMapping.1.Ebs.VolumeSize", size.as_str()),
            ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ];
        // EC2 takes no list of tags that is empty.
        let tags = [&[("made", "by hand")], tags].concat();
        let instance = self.shared.run_with(1, "m7g.large", &subnet, "spot", &tags, &more).await.remove(0);
        cluster.node_on(name, &instance).await
    }

    /// What EC2 says of an instance.
    pub async fn described(&self, instance: &str) -> String {
        self.shared.forward(&[("Action", "DescribeInstances"), ("InstanceId.1", instance)]).await
    }

    pub async fn made_of(&self, instance: &str) -> MadeOf {
        let described = self.described(instance).await;
        let part = |open: &str| between(&described, open, "<").unwrap_or_else(|| panic!("no {open}: {described}"));
        let asked = [("Action", "DescribeInstanceAttribute"), ("InstanceId", instance), ("Attribute", "userData")];
        let user_data = self.shared.forward(&asked).await;
        let asked = [("Action", "DescribeVolumes"), ("VolumeId.1", &part("<volumeId>"))];
        let volume = self.shared.forward(&asked).await;
        MadeOf {
            image: part("<imageId>"),
            user_data: between(&user_data, "<userData><value>", "<").unwrap_or_default(),
            size_gib: between(&volume, "<size>", "<").unwrap_or_else(|| panic!("no size: {volume}")),
        }
    }

    /// The id of the launch template of this name, where there is one.
    pub async fn template_id(&self, name: &str) -> Option<String> {
        self.shared.template_id(name).await
    }

    /// Somebody deletes a launch template.
    pub async fn delete_template(&self, name: &str) {
        let text = self.shared.forward(&[("Action", "DeleteLaunchTemplate"), ("LaunchTemplateName", name)]).await;
        assert!(text.contains("<launchTemplateId>"), "{text}");
    }

    /// Somebody makes a launch template, and marks it for a cluster or for none.
    pub async fn make_template(&self, name: &str, cluster: Option<&str>) {
        let mut form = vec![
            ("Action", "CreateLaunchTemplate"),
            ("LaunchTemplateName", name),
            ("LaunchTemplateData.ImageId", IMAGE),
            ("LaunchTemplateData.KeyName", "somebodys"),
        ];
        if let Some(cluster) = cluster {
            form.extend([
                ("TagSpecification.1.ResourceType", "launch-template"),
                ("TagSpecification.1.Tag.1.Key", CLUSTER_TAG),
                ("TagSpecification.1.Tag.1.Value", cluster),
            ]);
        }
        let text = self.shared.forward(&form).await;
        assert!(text.contains("<launchTemplateId>"), "{text}");
    }

    /// The names of those that have the tag of a cluster.
    pub async fn our_template_names(&self) -> Vec<String> {
        let form =
            [("Action", "DescribeLaunchTemplates"), ("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", CLUSTER_TAG)];
        let text = self.shared.forward(&form).await;
        let names = text.split("<launchTemplateName>").skip(1).filter_map(|rest| rest.split('<').next());
        names.map(str::to_owned).collect()
    }

    /// The cluster that a launch template is marked for.
    pub async fn cluster_of(&self, name: &str) -> String {
        let text = self.shared.forward(&[("Action", "DescribeLaunchTemplates"), ("LaunchTemplateName.1", name)]).await;
        let tag = between(&text, "<tagSet>", "</tagSet>").unwrap_or_default();
        between(&tag, "<value>", "<").unwrap_or_else(|| panic!("no tag: {text}"))
    }
}
