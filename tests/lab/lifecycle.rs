//! A termination by Auto Scaling, on each of the ways on which its lifecycle hook reaches the queue.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::facts::{eventually, throughout};
use crate::support::imds::Imds;
use crate::support::moto::{Moto, Queue};
use crate::support::objects::{a_budget, a_pod};

const SOON: Duration = Duration::from_secs(30);

fn hook(instance: &str) -> Value {
    json!({
        "LifecycleActionToken": format!("token-of-{instance}"), "AutoScalingGroupName": "workers",
        "LifecycleHookName": "drain", "EC2InstanceId": instance,
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "Origin": "AutoScalingGroup",
        "Destination": "EC2",
    })
}

/// What Auto Scaling sends to a queue or a topic itself.
fn direct(instance: &str) -> Value {
    let mut hook = hook(instance);
    hook["RequestId"] = format!("request-of-{instance}").into();
    hook["Time"] = jiff::Timestamp::now().to_string().into();
    hook
}

fn in_sns(message: &Value) -> Value {
    json!({ "Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:hooks",
        "Message": message.to_string() })
}

async fn send(moto: &Moto, queue: &Queue<'_>, way: &str, instance: &str) {
    match way {
        "by-eventbridge" => {
            let name = "EC2 Instance-terminate Lifecycle Action";
            moto.event("aws.autoscaling", name, json!([]), hook(instance)).await;
        }
        "directly" => queue.raw(&direct(instance).to_string()).await,
        _ => queue.raw(&in_sns(&direct(instance)).to_string()).await,
    }
}

async fn drained_by_asking_only(way: &str) {
    let cluster = Cluster::new(way).await;
    let node: NodeHandle = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name).grace(2)).await;
    cluster.create(&a_pod("held").on(&node.name).grace(2)).await;
    cluster.create(&a_budget("held", "held")).await;
    cluster.running(&node, 2).await;
    cluster.budget_is_kept("held").await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 10).await;
    let imds = Imds::start(&node.instance).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    let agent = agent.start().await;
    queue
        .raw(&json!({ "Event": "autoscaling:TEST_NOTIFICATION", "AutoScalingGroupName": "workers" }).to_string())
        .await;
    send(&moto, &queue, way, &node.instance).await;
    let noticed = cluster.phase(&node, "Noticed", Duration::from_secs(60)).await;
    assert_eq!(noticed["spec"]["notices"][0]["kind"], "AutoScalingTermination", "{noticed}");
    assert_ne!(cluster.node_json(&node).await["spec"]["unschedulable"], true, "IMDS has not said so yet");
    imds.lifecycle("Terminated");
    cluster.phase(&node, "Draining", SOON).await;
    eventually("whose budget allows it has gone", SOON, async || {
        let left = cluster.pods_on(&node).await;
        if left == ["held"] { Ok(()) } else { Err(left.join(" ")) }
    })
    .await;
    throughout("without a deadline nobody is deleted", Duration::from_secs(5), async || {
        let left = cluster.pods_on(&node).await;
        if left == ["held"] && agent.decided("LatestStart") == 0 { Ok(()) } else { Err(left.join(" ")) }
    })
    .await;
    queue.empty().await;
    assert_eq!(queue.dead().await, 0, "the test notification is deleted, too");
}

#[tokio::test]
async fn a_hook_by_eventbridge_drains_the_node_by_asking_only() {
    drained_by_asking_only("by-eventbridge").await;
}

#[tokio::test]
async fn a_hook_that_auto_scaling_sends_itself_drains_the_node_by_asking_only() {
    drained_by_asking_only("directly").await;
}

#[tokio::test]
async fn a_hook_in_a_notification_of_sns_drains_the_node_by_asking_only() {
    drained_by_asking_only("in-sns").await;
}
