//! EC2NodeClasses: what they come to in EC2, what is launched with them, and what stands in their way.

use serde_json::{Value, json};

use crate::scene::{PATIENCE, Scene};
use crate::support::facts::eventually;

const CLASSES: &str = "/apis/spotkeeper.dev/v1alpha1/ec2nodeclasses";

impl Scene {
    /// A class that says everything itself, with what this EC2 has.
    pub async fn inline_class(&self) -> Value {
        json!({
            "subnetSelectorTerms": [{ "id": self.ec2.subnets().await.remove(0) }],
            "securityGroupSelectorTerms": [{ "name": "default" }],
            "amiSelectorTerms": [{ "id": self.ec2.image() }],
            "instanceProfile": "nodes",
            "userData": "#!/bin/sh\njoin\n",
            "blockDeviceMappings": [{ "deviceName": "/dev/xvda", "ebs": { "volumeSize": "20Gi", "encrypted": true } }],
            "tags": { "kubernetes.io/cluster/lab": "owned" },
        })
    }

    /// Makes a class, or says why the API server does not take it.
    pub async fn class(&self, name: &str, spec: &Value) -> Result<Value, String> {
        let object = json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "EC2NodeClass",
            "metadata": { "name": name }, "spec": spec,
        });
        self.cluster.send("POST", CLASSES, "application/json", &object).await
    }

    /// Waits until the class is Ready, or is not, and the message has this word.
    pub async fn class_is(&self, name: &str, ready: &str, word: &str) -> Value {
        eventually(&format!("class {name} is Ready={ready}: {word}"), PATIENCE, async || {
            let class = self.cluster.get(&format!("{CLASSES}/{name}")).await?;
            let condition = &class["status"]["conditions"][0];
            let said = condition["message"].as_str().is_some_and(|message| message.contains(word));
            if condition["status"] == ready && said { Ok(class) } else { Err(class["status"].to_string()) }
        })
        .await
    }
}

#[tokio::test]
async fn of_a_class_a_template_is_made_with_what_it_says() {
    let scene = Scene::new("inline").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    scene.class("inline", &scene.inline_class().await).await.expect("it is valid");
    let class = scene.class_is("inline", "True", "").await;
    let name = class["status"]["launchTemplate"]["name"].as_str().expect("a template").to_owned();
    assert!(name.starts_with("spotkeeper-"), "{class}");
    assert_eq!(class["status"]["ami"]["id"], scene.ec2.image(), "{class}");
    let template = scene.ec2.template_named(&name).await;
    for part in ["<encrypted>true", "<volumeSize>20", "<name>nodes", scene.ec2.image()] {
        assert!(template.contains(part), "no {part} in {template}");
    }
}

#[tokio::test]
async fn a_field_that_stands_in_the_way_is_named_and_other_classes_go_on() {
    let scene = Scene::new("fields").await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let good = scene.inline_class().await;
    let wrong = [
        ("subnet", "subnetSelectorTerms", json!([{ "id": "subnet-0bad" }]), "spec.subnetSelectorTerms[0].id"),
        ("group", "securityGroupSelectorTerms", json!([{ "name": "none" }]), "spec.securityGroupSelectorTerms[0].name"),
        ("image", "amiSelectorTerms", json!([{ "id": "ami-0bad" }]), "spec.amiSelectorTerms[0].id"),
    ];
    for (name, field, terms, _) in &wrong {
        let mut spec = good.clone();
        spec[*field] = terms.clone();
        scene.class(name, &spec).await.expect("it is valid");
    }
    let of = json!({ "launchTemplate": { "name": "nowhere" }, "subnetSelectorTerms": good["subnetSelectorTerms"] });
    scene.class("template", &of).await.expect("it is valid");
    scene
        .class(
            "theirs",
            &json!({ "launchTemplate": { "id": scene.template, "version": "$Latest" },
        "subnetSelectorTerms": good["subnetSelectorTerms"] }),
        )
        .await
        .expect("it is valid");
    for (name, _, _, named) in &wrong {
        scene.class_is(name, "False", named).await;
    }
    scene.class_is("template", "False", "spec.launchTemplate").await;
    let theirs = scene.class_is("theirs", "True", "").await;
    assert_eq!(theirs["status"]["launchTemplate"]["version"], "1", "a number: {theirs}");
    let events = scene.cluster.get("/apis/events.k8s.io/v1/namespaces/default/events").await.expect("events");
    let events = events["items"].as_array().cloned().unwrap_or_default();
    let said = |event: &&Value| event["regarding"]["name"] == "image" && event["reason"] == "AMINotFound";
    assert!(events.iter().any(|event| said(&event)), "{events:?}");
}

#[tokio::test]
async fn a_class_that_contradicts_itself_is_refused_with_what_to_change() {
    let scene = Scene::new("refused").await;
    let good = scene.inline_class().await;
    let with = |key: &str, value: Value| {
        let mut spec = good.clone();
        spec[key] = value;
        spec
    };
    for (spec, word) in [
        (json!({}), "launchTemplate, or amiSelectorTerms"),
        (with("launchTemplate", json!({ "name": "workers" })), "launchTemplate"),
        (json!({ "amiSelectorTerms": [{ "id": "ami-1" }] }), "instanceProfile are needed"),
        (with("subnetSelectorTerms", json!([{ "id": "subnet-1", "tags": { "a": "b" } }])), "an id, or tags"),
        (with("amiSelectorTerms", json!([{ "id": "ami-1", "owner": "self" }])), "owner goes with name"),
        (with("tags", json!({ "aws:x": "y" })), "cannot be set"),
        (with("tags", json!({ "spotkeeper.dev/cluster": "y" })), "cannot be set"),
        (with("tags", json!({ "karpenter.sh/nodepool": "y" })), "cannot be set"),
        (json!({ "launchTemplate": { "id": "lt-1", "name": "workers" } }), "by id or by name"),
    ] {
        let refusal = scene.class("refused", &spec).await.expect_err(&format!("{spec} is not valid"));
        assert!(refusal.contains(word), "{spec}: {refusal}");
    }
}
