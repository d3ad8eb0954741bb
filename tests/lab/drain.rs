//! The drain's plan on a real API server: how much time is left, what kinds of pods there are, and one episode after
//! another.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::agent::{Agent, Running};
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::facts::{eventually, throughout};
use crate::support::imds::Imds;
use crate::support::moto::Moto;
use crate::support::objects::{a_budget, a_daemonset, a_deployment, a_job, a_pod, a_statefulset};

const SOON: Duration = Duration::from_secs(20);

async fn scene(what: &str) -> (Cluster, NodeHandle, Imds) {
    let cluster = Cluster::new(what).await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    (cluster, node, imds)
}

async fn kept(cluster: &Cluster, node: &NodeHandle, imds: &Imds) -> Running {
    Agent::on(cluster, node, &imds.endpoint()).await.start().await
}

/// The grace, in seconds, with which the API server lets this pod go.
async fn going(cluster: &Cluster, node: &NodeHandle, pod: &str) -> i64 {
    eventually(&format!("{pod} is going"), SOON, async || {
        let pods = cluster.pod_list(node).await;
        let found = pods.iter().find(|found| found["metadata"]["name"] == pod).ok_or("it is not there")?;
        found["metadata"]["deletionGracePeriodSeconds"].as_i64().ok_or_else(|| found["metadata"].to_string())
    })
    .await
}

/// When, and with what, the agent asked for this pod, by its log.
fn asks(agent: &Running, pod: &str) -> Vec<(Timestamp, String)> {
    let log = agent.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["pod"].as_str().is_some_and(|name| name.ends_with(&format!("/{pod}"))))
        .filter_map(|line| Some((line["timestamp"].as_str()?.parse().ok()?, line["verb"].as_str()?.to_owned())))
        .collect()
}

#[tokio::test]
async fn half_a_minute_before_the_end_grace_is_cut_to_what_is_left() {
    let (cluster, node, imds) = scene("t-30").await;
    cluster.create(&a_pod("long").on(&node.name).grace(110).ends_after(5)).await;
    cluster.create(&a_pod("short").on(&node.name).grace(7).ends_after(5)).await;
    cluster.running(&node, 2).await;
    let _agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(30));
    let long = going(&cluster, &node, "long").await;
    assert!((20..=28).contains(&long), "{long} s of the 28 that are left before the margin");
    assert_eq!(going(&cluster, &node, "short").await, 7, "its own grace is enough");
    cluster.phase(&node, "Drained", SOON).await;
}

#[tokio::test]
async fn five_seconds_before_the_end_everybody_still_gets_one() {
    let (cluster, node, imds) = scene("t-5").await;
    cluster.create(&a_pod("usual").on(&node.name).grace(30).ends_after(3)).await;
    cluster.create(&a_pod("held").on(&node.name).grace(30).ends_after(3)).await;
    cluster.create(&a_budget("held", "held")).await;
    cluster.running(&node, 2).await;
    cluster.budget_is_kept("held").await;
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(5));
    let usual = going(&cluster, &node, "usual").await;
    assert!((1..=3).contains(&usual), "{usual} s");
    // Whose budget forbids it is deleted while there is a second left for it: zero would take its object away at once.
    let held = going(&cluster, &node, "held").await;
    assert!((1..=3).contains(&held), "{held} s");
    let verbs: Vec<String> = asks(&agent, "held").into_iter().map(|(_, verb)| verb).collect();
    assert_eq!(verbs.first().map(String::as_str), Some("Evict"), "its budget is asked first: {verbs:?}");
    assert_eq!(verbs.last().map(String::as_str), Some("Delete"));
}

#[tokio::test]
async fn after_the_end_nothing_is_asked_any_more() {
    let (cluster, node, imds) = scene("too-late").await;
    cluster.create(&a_pod("web").on(&node.name)).await;
    cluster.running(&node, 1).await;
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot_at("terminate", Timestamp::now() - Duration::from_secs(10));
    eventually("it is recorded", SOON, async || match cluster.interruption(&node).await {
        Value::Null => Err("there is no Interruption".to_owned()),
        _ => Ok(()),
    })
    .await;
    throughout("a pod that has no time left is left alone", Duration::from_secs(4), async || {
        let pods = cluster.pod_list(&node).await;
        let going = pods.iter().any(|pod| pod["metadata"]["deletionTimestamp"].is_string());
        if going || pods.is_empty() { Err(format!("{pods:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(asks(&agent, "web"), vec![]);
}

#[tokio::test]
async fn a_budget_is_asked_for_ten_seconds_also_where_the_grace_is_longer_than_the_time_left() {
    let (cluster, node, imds) = scene("quorum").await;
    cluster.create(&a_pod("member").on(&node.name).grace(600).ends_after(2)).await;
    cluster.create(&a_budget("quorum", "member")).await;
    cluster.running(&node, 1).await;
    cluster.budget_is_kept("quorum").await;
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(40));
    let grace = going(&cluster, &node, "member").await;
    assert!((15..=29).contains(&grace), "{grace} s");
    let asks = asks(&agent, "member");
    let (first, last) = (asks.first().unwrap(), asks.last().unwrap());
    assert_eq!((first.1.as_str(), last.1.as_str()), ("Evict", "Delete"));
    let asked_for = last.0.duration_since(first.0);
    assert!(asked_for.as_secs() >= 9, "its budget was asked for {asked_for} only");
    assert!(asks[..asks.len() - 1].iter().all(|(_, verb)| verb == "Evict"), "{asks:?}");
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert!(seen["status"].to_string().contains("quorum"), "the budget is named: {}", seen["status"]);
}

#[tokio::test]
async fn every_kind_of_pod_at_once() {
    let (cluster, node, imds) = scene("kinds").await;
    let here = |thing: crate::support::objects::Thing| thing.where_label("kubernetes.io/hostname", &node.name);
    for grace in [0, 30, 110, 600] {
        cluster.create(&a_pod(&format!("grace-{grace}")).on(&node.name).grace(grace).ends_after(4)).await;
    }
    cluster.create(&here(a_job("batch"))).await;
    cluster.create(&here(a_statefulset("state", 2))).await;
    cluster.create(&here(a_deployment("web", 2))).await;
    let mut disk = a_pod("disk").on(&node.name);
    disk.0["spec"]["volumes"] = json!([{ "name": "scratch", "emptyDir": {} }]);
    cluster.create(&disk).await;
    cluster.create(&a_pod("twice").on(&node.name)).await;
    cluster.create(&a_budget("one", "twice")).await;
    cluster.create(&a_budget("two", "twice")).await;
    cluster.create(&cluster.here(a_daemonset("logs"))).await;
    let mirror = a_pod("mirror").on(&node.name).annotated("kubernetes.io/config.mirror", "static");
    cluster.create(&mirror).await;
    cluster.create(&a_pod("stays").on(&node.name).annotated("spotkeeper.dev/on-interruption", "stay")).await;
    cluster.create(&a_pod("held").on(&node.name).finalizer("lab.spotkeeper.dev/held")).await;
    cluster.create(&a_pod("leaving").on(&node.name).grace(30).ends_after(8)).await;
    let all = 4 + 1 + 2 + 2 + 1 + 1 + 1 + 1 + 1 + 1 + 1;
    cluster.running(&node, all).await;
    cluster.budget_is_kept("one").await;
    cluster.budget_is_kept("two").await;
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    cluster.delete(&format!("{path}/leaving")).await.unwrap();
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(45));
    assert_eq!(going(&cluster, &node, "grace-30").await, 30);
    let cut = going(&cluster, &node, "grace-600").await;
    assert!((30..=43).contains(&cut), "{cut} s");
    // A finalizer keeps the object, long after its containers have ended.
    assert_eq!(going(&cluster, &node, "held").await, 30);
    let stay = ["logs", "mirror", "stays", "held"];
    eventually("only who is not to go is left", Duration::from_secs(45), async || {
        let left = cluster.pods_on(&node).await;
        let others: Vec<&String> = left.iter().filter(|name| !stay.iter().any(|s| name.starts_with(s))).collect();
        if others.is_empty() { Ok(()) } else { Err(format!("{others:?}")) }
    })
    .await;
    let left = cluster.pod_list(&node).await;
    for name in ["logs", "mirror", "stays"] {
        let pod = left.iter().find(|pod| pod["metadata"]["name"].as_str().unwrap().starts_with(name)).expect(name);
        assert!(pod["metadata"]["deletionTimestamp"].is_null(), "{name} was asked to go");
    }
    let verbs: Vec<String> = asks(&agent, "twice").into_iter().map(|(_, verb)| verb).collect();
    assert_eq!(verbs.last().map(String::as_str), Some("Delete"), "two budgets answer 500 to every eviction: {verbs:?}");
    assert_eq!(asks(&agent, "leaving"), vec![], "who is leaving in time is not asked");
    let job = cluster.get(&format!("/apis/batch/v1/namespaces/{}/jobs/batch", cluster.namespace)).await.unwrap();
    assert_eq!(
        job["status"]["failed"].as_i64().unwrap_or(0),
        0,
        "an eviction is no failure of the Job: {}",
        job["status"]
    );
    let free = json!([{ "op": "remove", "path": "/metadata/finalizers" }]);
    cluster.send("PATCH", &format!("{path}/held"), "application/json-patch+json", &free).await.unwrap();
}

#[tokio::test]
async fn a_hundred_and_ten_pods_at_once() {
    let (cluster, node, imds) = scene("full").await;
    for index in 0..110 {
        cluster.create(&a_pod(&format!("p{index}")).on(&node.name).grace(30).ends_after(1)).await;
    }
    cluster.running(&node, 110).await;
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(120));
    let seen = cluster.phase(&node, "Drained", Duration::from_secs(60)).await;
    assert!(cluster.pods_on(&node).await.is_empty(), "{}", seen["status"]);
    let asked = agent.process.log().lines().filter(|line| line.contains("\"verb\":\"Evict\"")).count();
    assert_eq!(asked, 110, "each is asked once");
}

#[tokio::test]
async fn a_hundred_and_ten_pods_of_every_kind_with_budgets_are_out_in_time() {
    let (cluster, node, imds) = scene("crowd").await;
    cluster.create(&cluster.here(a_deployment("web", 40)).grace(5)).await;
    cluster.create(&a_budget("web", "web").max_unavailable(8)).await;
    cluster.create(&cluster.here(a_deployment("held", 5)).grace(10).ends_after(2)).await;
    cluster.create(&a_budget("held", "held")).await;
    cluster.create(&cluster.here(a_statefulset("state", 10)).grace(20).ends_after(3)).await;
    for index in 0..5 {
        cluster.create(&cluster.here(a_job(&format!("batch{index}")))).await;
    }
    for (index, grace) in [0, 5, 30, 110, 600].iter().cycle().take(48).enumerate() {
        cluster.create(&a_pod(&format!("bare{index}")).on(&node.name).grace(*grace).ends_after(2)).await;
    }
    cluster.create(&cluster.here(a_daemonset("logs"))).await;
    cluster.create(&a_pod("stays").on(&node.name).annotated("spotkeeper.dev/on-interruption", "stay")).await;
    cluster.running(&node, 110).await;
    for budget in ["web", "held"] {
        cluster.budget_is_kept(budget).await;
    }
    // Where those go that are made anew.
    let _other = cluster.node("b").await;
    let agent = kept(&cluster, &node, &imds).await;
    imds.spot("terminate", Duration::from_secs(60));
    let seen = cluster.phase(&node, "Drained", Duration::from_secs(58)).await;
    let left = cluster.pods_on(&node).await;
    assert!(left.len() == 2 && left.iter().all(|name| name == "stays" || name.starts_with("logs")), "{left:?}");
    let pods = &seen["status"]["pods"];
    assert_eq!((pods["total"].as_i64(), pods["finished"].as_i64()), (Some(108), Some(108)), "{pods}");
    assert_eq!(pods["deleted"], 5, "those whose budget never allows it: {pods}");
    let doubled = (0..48).filter(|index| asks(&agent, &format!("bare{index}")).len() != 1).count();
    assert_eq!(doubled, 0, "who is let go at once is asked once");
}

#[tokio::test]
async fn what_was_refuted_is_over_and_a_real_notice_begins_the_next_episode() {
    let (cluster, node, imds) = scene("again").await;
    cluster.create(&a_pod("web").on(&node.name).ends_after(1)).await;
    cluster.running(&node, 1).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 3).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    let _agent = agent.start().await;
    moto.spot_warning_late(&node.instance, "terminate", Duration::from_secs(100)).await;
    let refuted = cluster.phase(&node, "Refuted", Duration::from_secs(60)).await;
    assert_eq!(cluster.pods_on(&node).await.len(), 1, "nothing was touched");
    imds.spot("terminate", Duration::from_secs(60));
    let drained = cluster.phase(&node, "Drained", SOON).await;
    let number = |seen: &Value| seen["status"]["episode"].as_i64().unwrap();
    assert_eq!(number(&drained), number(&refuted) + 1);
}

#[tokio::test]
async fn hibernation_has_begun_when_it_is_said_and_is_acted_on_at_once() {
    let (cluster, node, imds) = scene("hibernate").await;
    cluster.create(&a_pod("web").on(&node.name).ends_after(1)).await;
    cluster.running(&node, 1).await;
    let _agent = kept(&cluster, &node, &imds).await;
    imds.spot_at("hibernate", Timestamp::now());
    eventually("the node takes no new pods", SOON, async || {
        let seen = cluster.node_json(&node).await;
        if seen["spec"]["unschedulable"] == true { Ok(()) } else { Err(seen["spec"].to_string()) }
    })
    .await;
    eventually("its pods are asked", SOON, async || match cluster.pods_on(&node).await.len() {
        0 => Ok(()),
        left => Err(format!("{left} left")),
    })
    .await;
}

#[tokio::test]
async fn maintenance_that_is_moved_to_a_later_date_lets_the_node_go_until_then() {
    let (cluster, node, imds) = scene("moved").await;
    let _agent = kept(&cluster, &node, &imds).await;
    imds.scheduled("instance-event-1", "system-reboot", "active", Duration::from_secs(60));
    eventually("the node takes no new pods", Duration::from_secs(60), async || {
        let seen = cluster.node_json(&node).await;
        if seen["spec"]["unschedulable"] == true { Ok(()) } else { Err(seen["spec"].to_string()) }
    })
    .await;
    imds.clear_scheduled();
    imds.scheduled("instance-event-1", "system-reboot", "active", Duration::from_secs(14 * 24 * 3600));
    eventually("the node is free again", Duration::from_secs(60), async || {
        let seen = cluster.node_json(&node).await;
        let tainted = seen["spec"]["taints"].to_string().contains("spotkeeper.dev/interruption");
        if seen["spec"]["unschedulable"] == true || tainted { Err(seen["spec"].to_string()) } else { Ok(()) }
    })
    .await;
    let seen = cluster.interruption(&node).await;
    assert!(!seen["spec"]["notices"].as_array().unwrap().is_empty(), "the later date is recorded: {seen}");
}
