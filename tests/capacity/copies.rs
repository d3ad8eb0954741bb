//! Instances without a launch template, and the launch templates of ours: made, used, refused, removed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::pools::{POOLS, pool, ready_is};
use crate::scene::{PATIENCE, Scene};
use crate::support::facts::eventually;

const CLASSES: &str = "/apis/spotkeeper.dev/v1alpha1/ec2nodeclasses";

impl Scene {
    /// Waits until this launch template has gone.
    pub async fn template_gone(&self, name: &str) {
        eventually(&format!("launch template {name} is deleted"), 2 * PATIENCE, async || {
            match self.ec2.template_id(name).await {
                None => Ok(()),
                Some(id) => Err(format!("{id} is there")),
            }
        })
        .await;
    }

    /// A class that says everything itself, and the launch template that was made of it.
    async fn class_with_template(&self, name: &str) -> String {
        self.class(name, &self.inline_class().await).await.expect("it is valid");
        let class = self.class_is(name, "True", "").await;
        class["status"]["launchTemplate"]["name"].as_str().expect("a template").to_owned()
    }
}

#[tokio::test]
async fn an_instance_without_a_launch_template_is_replaced_by_a_copy_of_it() {
    let scene = Scene::new("plain").await;
    let tags = [("team", "a"), ("kubernetes.io/cluster/lab", "owned"), ("karpenter.sh/discovery", "lab")];
    let node = scene.ec2.plain_node(&scene.cluster, "a", "#!/bin/sh\njoin\n", 31, &tags).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    eventually("what it is made of is read ahead", PATIENCE, async || {
        let all = scene.ec2.our_template_names().await;
        if all.len() == 1 { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    let name = claim["spec"]["recipe"]["launchTemplate"].as_str().expect("a template").to_owned();
    assert_eq!(scene.ec2.our_template_names().await, [name.as_str()], "{claim}");
    assert_eq!(
        claim["spec"]["recipe"]["tags"],
        json!({ "made": "by hand", "team": "a", "kubernetes.io/cluster/lab": "owned" })
    );
    let stand_in = scene.ec2.launched().remove(0);
    let (of, like) = (scene.ec2.made_of(&node.instance).await, scene.ec2.made_of(&stand_in.instance).await);
    assert_eq!(of, like, "image, user data and the size of the volume");
    assert!(of.image == scene.ec2.image() && of.size_gib == "31" && !of.user_data.is_empty(), "{of:?}");
    let described = scene.ec2.described(&stand_in.instance).await;
    assert!(described.contains("<key>team</key>") && !described.contains("karpenter.sh"), "{described}");
    assert_eq!(scene.ec2.launched().len(), 1, "once");
}

#[tokio::test]
async fn of_an_instance_that_ended_unread_nothing_is_left_to_copy_and_that_is_said() {
    let scene = Scene::new("unread").await;
    let node = scene.ec2.plain_node(&scene.cluster, "a", "join", 8, &[]).await;
    // Its agent told of it, it went, and only then somebody leads.
    scene.doom(&node).await;
    scene.ec2.terminate(&node.instance).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let record = eventually("the record says that none comes", PATIENCE, async || {
        let record = scene.cluster.interruption(&node).await;
        if record["status"]["replacement"]["noneComes"] == true { Ok(record) } else { Err(record.to_string()) }
    })
    .await;
    let because = record["status"]["replacement"]["because"].to_string();
    assert!(because.contains("nothing is left to copy"), "{record}");
    eventually("an event says so", PATIENCE, async || {
        let events = scene.cluster.get("/apis/events.k8s.io/v1/namespaces/default/events").await?;
        let said = |event: &Value| {
            event["regarding"]["name"] == node.instance
                && event["reason"] == "NothingToCopy"
                && event["type"] == "Warning"
        };
        let all = events["items"].as_array().cloned().unwrap_or_default();
        if all.iter().any(said) { Ok(()) } else { Err(format!("{} events", all.len())) }
    })
    .await;
    assert!(scene.ec2.calls().is_empty());
}

#[tokio::test]
async fn f5_a_class_whose_template_somebody_deletes_says_so_and_recovers_and_nothing_is_launched_twice() {
    let scene = Scene::new("deleted").await;
    // Of the architecture that the image of the class has.
    let node = scene.ec2.node_of("m5.large", &scene.cluster, "a", &scene.template).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let template = scene.class_with_template("inline").await;
    let of = json!({ "template": { "spec": { "nodeClassRef": { "name": "inline" } } } });
    scene.cluster.send("POST", POOLS, "application/json", &pool("inline", &of)).await.expect("it is made");
    ready_is(&scene, "inline", "True").await;
    scene.ec2.delete_template(&template).await;
    scene.doom(&node).await;
    let claim = scene.claim_is(&node, "Ready").await;
    assert_eq!(claim["spec"]["nodePool"], "inline", "{claim}");
    let first = claim["status"]["attempts"][0]["because"].to_string();
    assert!(first.contains("InvalidLaunchTemplateName.NotFoundException"), "the claim says it: {claim}");
    assert_eq!(claim["status"]["attemptsTotal"], 2, "and is no loop: {claim}");
    assert_eq!(scene.ec2.launched().len(), 1, "once");
    assert!(scene.ec2.template_id(&template).await.is_some(), "it was made again");
}

#[tokio::test]
async fn a_template_that_nothing_uses_goes_and_those_of_others_stay() {
    let scene = Scene::new("unused").await;
    let provisioner = scene.provisioner().await.arg("--template-grace=10s").start().await;
    provisioner.leads().await;
    let used = scene.ec2.plain_node(&scene.cluster, "a", "join", 8, &[]).await;
    let unused = scene.class_with_template("unused").await;
    // Of another cluster, of nobody, and of somebody who has marked it for this one.
    let cluster = scene.ec2.cluster_of(&unused).await;
    for (name, tag) in [
        ("spotkeeper-0000000000aa", Some("another")),
        ("spotkeeper-0000000000bb", None),
        ("somebodys", Some(cluster.as_str())),
    ] {
        scene.ec2.make_template(name, tag).await;
    }
    scene.cluster.delete(&format!("{CLASSES}/unused")).await.expect("it is deleted");
    scene.template_gone(&unused).await;
    for name in ["spotkeeper-0000000000aa", "spotkeeper-0000000000bb", "somebodys"] {
        assert!(scene.ec2.template_id(name).await.is_some(), "{name} is none of ours");
    }
    assert_eq!(provisioner.decided("TemplateUnused"), 1);
    let left = scene.ec2.our_template_names().await;
    let of_nodes = left.iter().filter(|name| name.starts_with("spotkeeper-") && !name.contains("0000000000"));
    assert_eq!(of_nodes.count(), 1, "one is like {}: {left:?}", used.name);
}

#[tokio::test]
async fn a_template_of_our_name_that_is_not_ours_is_not_used_and_not_touched() {
    let scene = Scene::new("foreign").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let name = scene.class_with_template("first").await;
    let cluster = scene.ec2.cluster_of(&name).await;
    scene.ec2.delete_template(&name).await;
    scene.ec2.make_template(&name, None).await;
    let spec = scene.inline_class().await;
    scene.class("second", &spec).await.expect("it is valid");
    let class = scene.class_is("second", "False", "is none of ours").await;
    assert_eq!(class["status"]["conditions"][0]["reason"], "LaunchTemplateNotOurs", "{class}");
    assert!(scene.ec2.template_id(&name).await.is_some());
    // One that somebody has marked as ours says something else: that is seen, too.
    scene.ec2.delete_template(&name).await;
    scene.ec2.make_template(&name, Some(&cluster)).await;
    scene.class("third", &spec).await.expect("it is valid");
    scene.class_is("third", "False", "differs").await;
    assert!(scene.ec2.template_id(&name).await.is_some());
}

#[tokio::test]
async fn a_permission_that_is_missing_to_read_what_is_lost_is_no_readiness_and_names_it() {
    let scene = Scene::new("denied").await;
    let node = scene.ec2.plain_node(&scene.cluster, "a", "join", 8, &[]).await;
    scene.ec2.plan().forbids.insert("DescribeInstanceAttribute");
    let provisioner = scene.provisioner().await.spawn();
    provisioner.leads().await;
    eventually("it is not ready and says why", PATIENCE, async || match provisioner.admin("/readyz").await? {
        (503, body) if body.contains("ec2:DescribeInstanceAttribute") => Ok(()),
        (status, body) => Err(format!("{status}: {body}")),
    })
    .await;
    scene.doom(&node).await;
    assert!(provisioner.decided("NotCopied") >= 1);
    scene.ec2.plan().forbids.clear();
    scene.claim_is(&node, "Ready").await;
    eventually("it is ready again", Duration::from_secs(60), async || match provisioner.admin("/readyz").await? {
        (200, _) => Ok(()),
        (status, body) => Err(format!("{status}: {body}")),
    })
    .await;
}
