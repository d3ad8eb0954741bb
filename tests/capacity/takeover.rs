//! Agents and provisioners together: evictions that wait for capacity, and drains that the provisioner takes over.

use std::time::Duration;

use serde_json::Value;

use crate::scene::{PATIENCE, Scene};
use crate::support::agent::{Agent, Running};
use crate::support::cluster::NodeHandle;
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::objects::{a_budget, a_pod};
use crate::support::process::Process;

/// When this pod was asked to go, by the log of whoever asked.
fn asked(by: &Process, pod: &str) -> Vec<jiff::Timestamp> {
    let log = by.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["pod"].as_str().is_some_and(|name| name.ends_with(&format!("/{pod}"))))
        .filter(|line| line["verb"].is_string())
        .filter_map(|line| line["timestamp"].as_str()?.parse().ok())
        .collect()
}

/// When this was decided, by the log.
fn decided(by: &Process, reason: &str) -> Option<jiff::Timestamp> {
    let log = by.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find(|line| line["reason"] == reason).and_then(|line| line["timestamp"].as_str()?.parse().ok())
}

async fn says(by: &Process, reason: &str) {
    eventually(&format!("{reason} is decided"), PATIENCE, async || {
        decided(by, reason).map(drop).ok_or_else(|| by.log_tail())
    })
    .await;
}

/// A node with one pod that goes when asked and one whose budget never allows it, and its agent.
async fn kept(scene: &Scene, node: &NodeHandle, imds: &Imds, args: &[&str]) -> Running {
    scene.cluster.create(&a_pod("free").on(&node.name).grace(5)).await;
    scene.cluster.create(&a_pod("held").on(&node.name).grace(5)).await;
    scene.cluster.create(&a_budget("held", "held")).await;
    scene.cluster.running(node, 2).await;
    scene.cluster.budget_is_kept("held").await;
    let agent = Agent::on(&scene.cluster, node, &imds.endpoint()).await;
    args.iter().fold(agent, |agent, arg| agent.arg(arg)).start().await
}

#[tokio::test]
async fn the_provisioner_finishes_a_drain_whose_agent_was_killed_before_the_deadline() {
    let scene = Scene::new("killed-agent").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let mut agent = kept(&scene, &node, &imds, &[]).await;
    imds.spot("terminate", Duration::from_secs(45));
    let noticed = jiff::Timestamp::now();
    says(&agent.process, "Blocked").await;
    scene.cluster.phase(&node, "Draining", PATIENCE).await;
    eventually("the API server has taken the agent's word for the free one", PATIENCE, async || {
        let pods = scene.cluster.pod_list(&node).await;
        let stays = |pod: &Value| pod["metadata"]["name"] == "free" && pod["metadata"]["deletionTimestamp"].is_null();
        if pods.iter().any(stays) { Err("it has not been asked".to_owned()) } else { Ok(()) }
    })
    .await;
    agent.process.kill();
    says(&provisioner.process, "StandsIn").await;
    let record = scene.cluster.phase(&node, "Drained", Duration::from_secs(60)).await;
    let took = jiff::Timestamp::now().duration_since(noticed);
    assert!(took < jiff::SignedDuration::from_secs(44), "{took} of 45 s");
    assert_eq!(record["status"]["drainer"], "provisioner", "{record}");
    assert_eq!(asked(&provisioner.process, "free").len(), 0, "the agent had asked it");
    assert!(!asked(&provisioner.process, "held").is_empty());
    assert!(decided(&provisioner.process, "LatestStart").is_some(), "{}", provisioner.process.log_tail());
}

#[tokio::test]
async fn an_agent_that_comes_back_lets_the_provisioner_finish_and_asks_nobody() {
    let scene = Scene::new("restarted-agent").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let mut agent = kept(&scene, &node, &imds, &[]).await;
    imds.spot("terminate", Duration::from_secs(60));
    scene.cluster.phase(&node, "Draining", PATIENCE).await;
    agent.process.kill();
    says(&provisioner.process, "StandsIn").await;
    eventually("the record names the provisioner", PATIENCE, async || {
        let record = scene.cluster.interruption(&node).await;
        if record["status"]["drainer"] == "provisioner" { Ok(()) } else { Err(record.to_string()) }
    })
    .await;
    let back = jiff::Timestamp::now();
    agent.restart();
    says(&agent.process, "Yielded").await;
    scene.cluster.phase(&node, "Drained", Duration::from_secs(70)).await;
    let by_agent = asked(&agent.process, "held");
    assert!(by_agent.iter().all(|at| *at < back), "{by_agent:?}, and it came back at {back}");
    assert!(asked(&provisioner.process, "held").len() > 3);
}

#[tokio::test]
async fn where_the_provisioner_is_to_drain_the_agent_touches_neither_the_node_nor_its_pods() {
    let scene = Scene::new("drain-by").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let agent = kept(&scene, &node, &imds, &["--drain-by=provisioner"]).await;
    imds.spot("terminate", Duration::from_secs(30));
    let record = scene.cluster.phase(&node, "Drained", Duration::from_secs(40)).await;
    assert_eq!(record["status"]["policy"]["drainBy"], "provisioner", "{record}");
    assert_eq!(record["status"]["drainer"], "provisioner", "{record}");
    assert_eq!(asked(&agent.process, "free").len() + asked(&agent.process, "held").len(), 0);
    assert_eq!(asked(&provisioner.process, "free").len(), 1);
    assert_eq!(scene.cluster.node_json(&node).await["spec"]["unschedulable"], true);
    let (status, told) = agent.notice("/v1/notice").await.expect("the workloads are told");
    assert_eq!(status, 200, "{told}");
}

#[tokio::test]
async fn evictions_wait_for_the_replacement_to_be_ready() {
    let scene = Scene::new("capacity-first").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    scene.ec2.plan().boots = Some(Duration::from_secs(6));
    let provisioner = scene.provisioner().await.start().await;
    provisioner.leads().await;
    let agent = kept(&scene, &node, &imds, &["--drain=CapacityFirst"]).await;
    imds.spot("terminate", Duration::from_secs(110));
    says(&agent.process, "Held").await;
    says(&agent.process, "ReplacementReady").await;
    let free = eventually("the pod is asked", PATIENCE, async || {
        asked(&agent.process, "free").first().copied().ok_or_else(|| agent.process.log_tail())
    })
    .await;
    let ready = decided(&agent.process, "ReplacementReady").expect("it was decided");
    assert!(free >= ready, "asked at {free}, the replacement was Ready at {ready}");
    let cordoned = decided(&agent.process, "Cordoned").expect("it was decided");
    assert!(free.duration_since(cordoned) > jiff::SignedDuration::from_secs(4), "it takes 6 s to boot");
    assert_eq!(scene.claim(&node).await["status"]["phase"], "Ready");
}

#[tokio::test]
async fn without_a_provisioner_evictions_begin_after_two_seconds() {
    let scene = Scene::new("nobody-answers").await;
    let node = scene.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let agent = kept(&scene, &node, &imds, &["--drain=CapacityFirst"]).await;
    imds.spot("terminate", Duration::from_secs(110));
    says(&agent.process, "NobodyAnswers").await;
    let free = eventually("the pod is asked", PATIENCE, async || {
        asked(&agent.process, "free").first().copied().ok_or_else(|| agent.process.log_tail())
    })
    .await;
    let confirmed = decided(&agent.process, "Confirmed").expect("it was decided");
    let waited = free.duration_since(confirmed);
    assert!(waited >= jiff::SignedDuration::from_millis(1_950), "{waited}");
}
