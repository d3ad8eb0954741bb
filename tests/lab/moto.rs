//! The lab's EventBridge and SQS deliver what a reader of the real ones would get.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use spotkeeper::domain::wire;
use spotkeeper::domain::wire::queue::Parsed;

use crate::support::control_plane::{PARTS, root};
use crate::support::facts::eventually;
use crate::support::moto::{Moto, Queue};

const SOON: Duration = Duration::from_secs(20);

/// Moto alone, without a control plane: its parts are built first all the same.
async fn moto(dir: &Path) -> Moto {
    tokio::task::spawn_blocking(|| PARTS.clone()).await.expect("the parts are there");
    Moto::start(dir).await
}

async fn message(queue: &Queue<'_>) -> Value {
    let body = eventually("a message comes", SOON, async || queue.receive().await.ok_or("nothing".to_owned())).await;
    serde_json::from_str(&body).expect("the envelope is JSON")
}

#[tokio::test]
async fn every_kind_of_event_is_delivered_in_its_envelope() {
    let dir = tempfile::tempdir().unwrap();
    let moto = moto(dir.path()).await;
    let queue = moto.queue(30, 3).await;
    let late = Duration::from_secs(600);
    let given = Timestamp::now() - late;
    moto.spot_warning_late("i-0a", "stop", late).await;
    let warning = message(&queue).await;
    assert_eq!(warning["source"], "aws.ec2");
    assert_eq!(warning["detail-type"], "EC2 Spot Instance Interruption Warning");
    assert_eq!(warning["detail"], json!({ "instance-id": "i-0a", "instance-action": "stop" }));
    assert_eq!(warning["resources"], json!(["arn:aws:ec2:eu-west-1a:instance/i-0a"]));
    let time: Timestamp = warning["time"].as_str().unwrap().parse().unwrap();
    assert!(time.duration_since(given).abs() < SignedDuration::from_secs(10), "{time}: a late event keeps its time");
    moto.rebalance("i-0b").await;
    assert_eq!(message(&queue).await["detail-type"], "EC2 Instance Rebalance Recommendation");
    moto.state_change("i-0c", "stopping").await;
    assert_eq!(message(&queue).await["detail"], json!({ "instance-id": "i-0c", "state": "stopping" }));
    moto.health_of("AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED", &["i-0d", "i-0e"], given).await;
    let health = message(&queue).await;
    assert_eq!(health["source"], "aws.health");
    assert_eq!(health["detail"]["eventTypeCode"], "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED");
    assert_eq!(health["detail"]["affectedEntities"], json!([{ "entityValue": "i-0d" }, { "entityValue": "i-0e" }]));
    queue.raw("not JSON").await;
    assert_eq!(queue.receive().await.as_deref(), Some("not JSON"));
    assert_eq!(queue.depth().await, (0, 5), "all were received, and none deleted");
}

#[tokio::test]
async fn the_shipped_rules_deliver_what_is_for_us_once_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let moto = moto(dir.path()).await;
    let folder = root().join("manifests/aws/rules");
    let rules = std::fs::read_dir(folder).unwrap().map(|rule| std::fs::read_to_string(rule.unwrap().path()).unwrap());
    let queue = moto.queue_by(&rules.collect::<Vec<_>>(), 30, 3).await;
    let instance = "i-0123456789abcdef0";
    let detail = json!({ "instance-id": instance });
    moto.state_change(instance, "pending").await;
    moto.event("aws.ec2", "EBS Volume Notification", json!([]), detail.clone()).await;
    moto.event("aws.s3", "Object Created", json!([]), detail.clone()).await;
    moto.event("aws.health", "AWS Health Event", json!([]), json!({ "service": "RDS", "eventTypeCategory": "issue" }))
        .await;
    moto.spot_warning(instance, "terminate").await;
    moto.rebalance(instance).await;
    moto.state_change(instance, "stopping").await;
    moto.health(&[instance], Timestamp::now() + Duration::from_secs(864_000)).await;
    let name = "EC2 Capacity Reservation Instance Interruption Warning";
    moto.event("aws.ec2", name, json!([]), detail).await;
    let hook = json!({ "LifecycleActionToken": "t", "EC2InstanceId": instance });
    moto.event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", json!([]), hook).await;
    let mut kinds = Vec::new();
    for _ in 0..6 {
        let body = message(&queue).await.to_string();
        match wire::queue::parse(body.as_bytes()) {
            Ok(Parsed::Message(read)) => kinds.push(read.notices[0].subject.kind().as_str()),
            other => panic!("{body}: {other:?}"),
        }
    }
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "AutoScalingTermination",
            "CapacityReservationInterruption",
            "RebalanceRecommendation",
            "ScheduledChange",
            "SpotInterruption",
            "StateChange"
        ]
    );
    assert_eq!(queue.depth().await, (0, 6), "nothing else came, and nothing twice");
}

#[tokio::test]
async fn a_message_that_is_received_too_often_goes_to_the_dead_letter_queue() {
    let dir = tempfile::tempdir().unwrap();
    let moto = moto(dir.path()).await;
    let queue = moto.queue(1, 2).await;
    queue.raw("poison").await;
    let mut receives = 0;
    eventually("it is given up", SOON, async || {
        receives += u32::from(queue.receive().await.is_some());
        if queue.dead().await == 1 { Ok(()) } else { Err(format!("received {receives} times")) }
    })
    .await;
    assert_eq!(receives, 2);
    queue.empty().await;
}
