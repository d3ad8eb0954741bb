//! SQS, and EventBridge in front of it: moto's server, spoken to in AWS's own protocols.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::control_plane::{PARTS, uuid};
use super::facts::eventually;
use super::process::{Process, free_port};

/// A running moto server.
pub struct Moto {
    _process: Process,
    pub endpoint: String,
    http: reqwest::Client,
}

/// A queue that EventBridge feeds.
pub struct Queue<'a> {
    pub moto: &'a Moto,
    pub url: String,
}

impl Moto {
    pub async fn start(dir: &Path) -> Moto {
        let port = free_port();
        let mut command = Command::new(PARTS.join("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::start("moto", command, &dir.join(format!("moto-{port}.log")));
        let moto =
            Moto { _process: process, endpoint: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
        eventually("moto answers", Duration::from_secs(30), async || {
            let answer =
                moto.http.get(format!("{}/moto-api/", moto.endpoint)).send().await.map_err(|e| e.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        moto
    }

    /// The environment that points an agent's SDK here.
    pub fn env(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", "lab".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "lab".to_owned()),
            ("AWS_REGION", "eu-west-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    async fn call(&self, service: &str, version: &str, target: &str, body: Value) -> Value {
        let credential = format!("AWS4-HMAC-SHA256 Credential=lab/20260101/eu-west-1/{service}/aws4_request");
        let answer = self
            .http
            .post(&self.endpoint)
            .header("content-type", format!("application/x-amz-json-{version}"))
            .header("x-amz-target", target)
            .header("authorization", credential)
            .body(body.to_string())
            .send()
            .await
            .expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("the answer has a text");
        assert!(status.is_success(), "{target}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn sqs(&self, action: &str, body: Value) -> Value {
        self.call("sqs", "1.0", &format!("AmazonSQS.{action}"), body).await
    }

    async fn events(&self, action: &str, body: Value) -> Value {
        self.call("events", "1.1", &format!("AWSEvents.{action}"), body).await
    }

    /// A queue, with a rule that sends everything of EC2, Auto Scaling and Health to it.
    ///
    /// A message that is received `receives` times goes to the dead-letter queue.
    pub async fn queue(&self, visibility_secs: u32, receives: u32) -> Queue<'_> {
        let pattern = json!({ "source": ["aws.ec2", "aws.autoscaling", "aws.health"] }).to_string();
        self.queue_by(&[pattern], visibility_secs, receives).await
    }

    /// A queue with a rule for each of these patterns.
    pub async fn queue_by(&self, patterns: &[String], visibility_secs: u32, receives: u32) -> Queue<'_> {
        let name = format!("spotkeeper-{}", uuid());
        let dead = self.sqs("CreateQueue", json!({ "QueueName": format!("{name}-dead") })).await;
        let dead = self.arn(dead["QueueUrl"].as_str().expect("a URL")).await;
        let redrive = json!({ "deadLetterTargetArn": dead, "maxReceiveCount": receives }).to_string();
        let made = self
            .sqs(
                "CreateQueue",
                json!({ "QueueName": name, "Attributes": {
                "VisibilityTimeout": visibility_secs.to_string(), "RedrivePolicy": redrive,
            } }),
            )
            .await;
        let url = made["QueueUrl"].as_str().expect("a URL").to_owned();
        let target = json!([{ "Id": "queue", "Arn": self.arn(&url).await }]);
        for (index, pattern) in patterns.iter().enumerate() {
            let rule = format!("{name}-{index}");
            self.events("PutRule", json!({ "Name": rule, "EventPattern": pattern })).await;
            self.events("PutTargets", json!({ "Rule": rule, "Targets": target })).await;
        }
        Queue { moto: self, url }
    }

    async fn arn(&self, url: &str) -> String {
        let answer = self.sqs("GetQueueAttributes", json!({ "QueueUrl": url, "AttributeNames": ["QueueArn"] })).await;
        answer["Attributes"]["QueueArn"].as_str().expect("an ARN").to_owned()
    }

    /// An event on the default bus, as its source would put it there now.
    pub async fn event(&self, source: &str, detail_type: &str, resources: Value, detail: Value) {
        self.event_of(Timestamp::now(), source, detail_type, resources, detail).await;
    }

    /// An event of another time: what EventBridge delivers may be late.
    pub async fn event_of(&self, time: Timestamp, source: &str, detail_type: &str, resources: Value, detail: Value) {
        let entry = json!({
            "Source": source, "DetailType": detail_type, "Resources": resources, "Detail": detail.to_string(),
            "Time": time.as_second(),
        });
        let answer = self.events("PutEvents", json!({ "Entries": [entry] })).await;
        assert_eq!(answer["FailedEntryCount"], 0, "{answer}");
    }

    /// The warning of an interruption in two minutes.
    pub async fn spot_warning(&self, instance: &str, action: &str) {
        self.spot_warning_late(instance, action, Duration::ZERO).await;
    }

    /// The same, `late`: so much less is left of the two minutes.
    pub async fn spot_warning_late(&self, instance: &str, action: &str, late: Duration) {
        let resources = json!([format!("arn:aws:ec2:eu-west-1a:instance/{instance}")]);
        let detail = json!({ "instance-id": instance, "instance-action": action });
        let time = Timestamp::now() - late;
        self.event_of(time, "aws.ec2", "EC2 Spot Instance Interruption Warning", resources, detail).await;
    }

    pub async fn rebalance(&self, instance: &str) {
        let detail = json!({ "instance-id": instance });
        self.event("aws.ec2", "EC2 Instance Rebalance Recommendation", json!([]), detail).await;
    }

    pub async fn state_change(&self, instance: &str, state: &str) {
        let detail = json!({ "instance-id": instance, "state": state });
        self.event("aws.ec2", "EC2 Instance State-change Notification", json!([]), detail).await;
    }

    /// AWS Health announces one scheduled change of several instances.
    pub async fn health(&self, instances: &[&str], start: Timestamp) {
        self.health_of("AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED", instances, start).await;
    }

    /// The same, of another event type code.
    pub async fn health_of(&self, code: &str, instances: &[&str], start: Timestamp) {
        let entities: Vec<Value> = instances.iter().map(|id| json!({ "entityValue": id })).collect();
        let detail = json!({
            "eventArn": format!("arn:aws:health:eu-west-1::event/EC2/{}", uuid()), "service": "EC2",
            "eventTypeCode": code, "eventTypeCategory": "scheduledChange",
            "startTime": start.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
            "affectedEntities": entities,
        });
        self.event("aws.health", "AWS Health Event", json!([]), detail).await;
    }
}

impl Queue<'_> {
    /// A message as it is, past EventBridge.
    pub async fn raw(&self, body: &str) {
        self.moto.sqs("SendMessage", json!({ "QueueUrl": self.url, "MessageBody": body })).await;
    }

    /// Many messages as they are, ten at a time.
    pub async fn raw_all(&self, bodies: &[String]) {
        for ten in bodies.chunks(10) {
            let entry = |(index, body): (usize, &String)| json!({ "Id": index.to_string(), "MessageBody": body });
            let entries: Vec<Value> = ten.iter().enumerate().map(entry).collect();
            self.moto.sqs("SendMessageBatch", json!({ "QueueUrl": self.url, "Entries": entries })).await;
        }
    }

    /// How many messages are visible, and how many in flight.
    pub async fn depth(&self) -> (u64, u64) {
        self.depth_of(&self.url).await
    }

    /// How many messages were given up as poison.
    pub async fn dead(&self) -> u64 {
        self.depth_of(&format!("{}-dead", self.url)).await.0
    }

    async fn depth_of(&self, url: &str) -> (u64, u64) {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let answer = self.moto.sqs("GetQueueAttributes", json!({ "QueueUrl": url, "AttributeNames": names })).await;
        let number = |name: &str| answer["Attributes"][name].as_str().and_then(|n| n.parse().ok()).unwrap_or(0);
        (number(names[0]), number(names[1]))
    }

    /// Receives one message as another reader would, which then has it in flight. Returns its body.
    pub async fn receive(&self) -> Option<String> {
        let answer = self.moto.sqs("ReceiveMessage", json!({ "QueueUrl": self.url, "WaitTimeSeconds": 1 })).await;
        Some(answer["Messages"][0]["Body"].as_str()?.to_owned())
    }

    /// Waits until nothing is in it, visible or in flight.
    pub async fn empty(&self) {
        eventually("the queue is empty", Duration::from_secs(30), async || match self.depth().await {
            (0, 0) => Ok(()),
            (visible, in_flight) => Err(format!("{visible} visible, {in_flight} in flight")),
        })
        .await;
    }
}
