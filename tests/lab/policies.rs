//! What each kind of notice does to a real node, and that it is undone exactly.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{Agent, Running};
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::facts::{eventually, throughout};
use crate::support::imds::Imds;
use crate::support::moto::{Moto, Queue};
use crate::support::objects::{a_budget, a_deployment, a_pod};

const SOON: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A node with one pod, its IMDS and an agent that is ready.
async fn a_kept_node(what: &str, args: &[&str]) -> (Cluster, NodeHandle, Imds, Running) {
    let cluster = Cluster::new(what).await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name).grace(5)).await;
    cluster.running(&node, 1).await;
    let imds = Imds::start(&node.instance).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await;
    for arg in args {
        agent = agent.arg(arg);
    }
    let agent = agent.start().await;
    (cluster, node, imds, agent)
}

fn ours(node: &Value) -> bool {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().any(|taint| taint["key"] == "spotkeeper.dev/interruption")
        || node["metadata"]["annotations"]["spotkeeper.dev/interruption"].is_string()
}

/// Waits until nothing of ours is on the node, and it takes pods again.
async fn undone(cluster: &Cluster, node: &NodeHandle) {
    eventually("the marks are undone", SOON, async || {
        let seen = cluster.node_json(node).await;
        if ours(&seen) || seen["spec"]["unschedulable"] == true { Err(seen["spec"].to_string()) } else { Ok(()) }
    })
    .await;
}

async fn untouched_for(cluster: &Cluster, node: &NodeHandle, span: Duration) {
    throughout("nothing is done to the node", span, async || {
        let seen = cluster.node_json(node).await;
        let pods = cluster.pods_on(node).await;
        if ours(&seen) || pods != ["web"] { Err(format!("{} {pods:?}", seen["spec"])) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_rebalance_that_is_avoided_keeps_the_pods_and_an_interruption_upgrades_the_same_record() {
    let (cluster, node, imds, _agent) = a_kept_node("avoid", &[]).await;
    imds.rebalance();
    cluster.phase(&node, "Cordoned", SOON).await;
    assert_eq!(cluster.pods_on(&node).await, ["web"]);
    imds.spot("terminate", MINUTE);
    let seen = cluster.phase(&node, "Drained", SOON).await;
    let kinds: Vec<_> = seen["spec"]["notices"].as_array().into_iter().flatten().map(|n| n["kind"].clone()).collect();
    assert!(
        kinds.contains(&json!("RebalanceRecommendation")) && kinds.contains(&json!("SpotInterruption")),
        "{kinds:?}"
    );
    assert_eq!((&seen["status"]["episode"], &seen["status"]["kind"]), (&json!(1), &json!("SpotInterruption")));
}

#[tokio::test]
async fn a_rebalance_drains_or_is_ignored_as_the_policy_says() {
    let (cluster, node, imds, _agent) = a_kept_node("drain", &["--rebalance=Drain"]).await;
    imds.rebalance();
    cluster.phase(&node, "Drained", SOON).await;
    let (cluster, node, imds, agent) = a_kept_node("ignore", &["--rebalance=Ignore"]).await;
    imds.rebalance();
    eventually(
        "it is said once",
        SOON,
        async || if agent.decided("Ignored") == 1 { Ok(()) } else { Err(String::new()) },
    )
    .await;
    untouched_for(&cluster, &node, Duration::from_secs(2)).await;
    assert_eq!(cluster.interruption(&node).await, Value::Null);
}

#[tokio::test]
async fn maintenance_that_is_withdrawn_is_undone_exactly_and_nothing_of_anybody_elses() {
    let (cluster, node, imds, agent) = a_kept_node("withdrawn", &[]).await;
    let theirs = json!({
        "metadata": { "annotations": { "example.com/theirs": "1" } },
        "spec": { "taints": [{ "key": "example.com/theirs", "effect": "PreferNoSchedule" }] },
    });
    cluster.patch_node(&node, &theirs).await.unwrap();
    imds.scheduled("event-1", "instance-stop", "active", MINUTE);
    cluster.phase(&node, "Drained", Duration::from_secs(60)).await;
    imds.clear_scheduled();
    cluster.phase(&node, "Cancelled", Duration::from_secs(60)).await;
    undone(&cluster, &node).await;
    let seen = cluster.node_json(&node).await;
    assert_eq!(seen["metadata"]["annotations"]["example.com/theirs"], "1");
    assert!(seen["spec"]["taints"].to_string().contains("example.com/theirs"), "{}", seen["spec"]);
    assert_eq!(agent.decided("Withdrawn"), 1);
}

#[tokio::test]
async fn a_cordon_that_was_there_before_stays_when_ours_is_undone() {
    let (cluster, node, _imds, _agent) = a_kept_node("theirs", &[]).await;
    cluster.patch_node(&node, &json!({ "spec": { "unschedulable": true } })).await.unwrap();
    let path = request(&cluster, &node).await;
    cluster.phase(&node, "Drained", SOON).await;
    cluster.delete(&path).await.unwrap();
    eventually("the marks are undone", SOON, async || {
        let seen = cluster.node_json(&node).await;
        if ours(&seen) { Err(seen["spec"].to_string()) } else { Ok(()) }
    })
    .await;
    assert_eq!(cluster.node_json(&node).await["spec"]["unschedulable"], true);
}

/// A person asks for the node; returns the record's path.
async fn request(cluster: &Cluster, node: &NodeHandle) -> String {
    let asked = json!({
        "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "metadata": { "name": node.instance },
        "spec": {
            "instanceID": node.instance, "nodeName": node.name,
            "providerID": format!("aws:///eu-west-1a/{}", node.instance),
            "notices": [{ "source": "operator", "kind": "Requested", "eventID": "try-it" }],
        },
    });
    let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
    cluster.send("POST", path, "application/json", &asked).await.unwrap();
    format!("{path}/{}", node.instance)
}

#[tokio::test]
async fn what_a_person_asks_for_is_done_and_undone_when_it_is_withdrawn() {
    let (cluster, node, _imds, _agent) = a_kept_node("asked", &[]).await;
    let path = request(&cluster, &node).await;
    cluster.phase(&node, "Drained", SOON).await;
    cluster.delete(&path).await.unwrap();
    undone(&cluster, &node).await;
}

#[tokio::test]
async fn maintenance_far_ahead_is_recorded_and_a_reboot_ends_what_was_near() {
    let (cluster, node, imds, agent) = a_kept_node("maintenance", &[]).await;
    imds.scheduled("far", "system-reboot", "active", 10 * DAY);
    eventually("it is scheduled", Duration::from_secs(60), async || {
        if agent.decided("Scheduled") == 1 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    cluster.phase(&node, "Confirmed", SOON).await;
    untouched_for(&cluster, &node, Duration::from_secs(1)).await;
    imds.scheduled("near", "instance-reboot", "active", 2 * MINUTE);
    let seen = cluster.phase(&node, "Drained", Duration::from_secs(60)).await;
    assert_eq!(seen["spec"]["notices"].as_array().map(Vec::len), Some(2), "two events keep an entry each: {seen}");
    imds.clear_scheduled();
    cluster.reboot(&node).await;
    undone(&cluster, &node).await;
}

#[tokio::test]
async fn a_dry_run_says_everything_and_writes_nothing() {
    let (cluster, node, imds, agent) = a_kept_node("dry", &["--dry-run"]).await;
    imds.spot("terminate", MINUTE);
    eventually("it says that it would evict", SOON, async || {
        if agent.decided("Planned") >= 1 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    untouched_for(&cluster, &node, Duration::from_secs(2)).await;
    assert_eq!(cluster.interruption(&node).await, Value::Null);
    assert_eq!(agent.notice("/v1/notice").await.unwrap().0, 204, "no workload is told");
}

#[tokio::test]
async fn cordon_only_marks_tells_and_evicts_nothing() {
    let (cluster, node, imds, agent) = a_kept_node("cordon", &["--cordon-only"]).await;
    imds.spot("terminate", MINUTE);
    cluster.phase(&node, "Cordoned", SOON).await;
    assert_eq!(agent.decided("CordonOnly"), 1);
    throughout("the pod stays", Duration::from_secs(2), async || {
        let left = cluster.pods_on(&node).await;
        if left == ["web"] { Ok(()) } else { Err(left.join(" ")) }
    })
    .await;
}

#[tokio::test]
async fn a_budget_that_never_allows_is_overruled_at_the_latest_start_and_named() {
    let cluster = Cluster::new("never").await;
    let node = cluster.node("a").await;
    let pinned = a_deployment("web", 1).where_label("kubernetes.io/hostname", &node.name).grace(3);
    cluster.create(&pinned).await;
    cluster.create(&a_budget("web-never", "web")).await;
    cluster.running(&node, 1).await;
    cluster.budget_is_kept("web-never").await;
    let imds = Imds::start(&node.instance).await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    imds.spot("terminate", Duration::from_secs(25));
    eventually("the budget is named in the record", SOON, async || {
        let blocked = cluster.interruption(&node).await["status"]["pods"]["blocked"].clone();
        if blocked.to_string().contains("web-never") { Ok(()) } else { Err(blocked.to_string()) }
    })
    .await;
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(seen["status"]["pods"]["deleted"], 1, "{seen}");
    assert_eq!(agent.decided("LatestStart"), 2, "once as a decision, once as the act");
    eventually("an event names it", SOON, async || {
        let list = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events?limit=500").await?;
        let of_node =
            list["items"].as_array().into_iter().flatten().filter(|e| e["regarding"]["name"] == node.name.as_str());
        let named = of_node.filter(|e| e["note"].as_str().is_some_and(|note| note.contains("web-never"))).count();
        if named > 0 { Ok(()) } else { Err("no event yet".into()) }
    })
    .await;
}

/// An agent that reads the queue.
async fn reader(cluster: &Cluster, node: &NodeHandle, imds: &Imds, moto: &Moto, queue: &Queue<'_>) -> Running {
    let mut agent = Agent::on(cluster, node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    agent.start().await
}

#[tokio::test]
async fn what_the_queue_says_of_several_told_five_times_or_poisoned() {
    let cluster = Cluster::new("queue").await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    cluster.create(&a_pod("web").on(&a.name)).await;
    cluster.running(&a, 1).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(1, 10).await;
    let (imds_a, imds_b) = (Imds::start(&a.instance).await, Imds::start(&b.instance).await);
    let agents =
        (reader(&cluster, &a, &imds_a, &moto, &queue).await, reader(&cluster, &b, &imds_b, &moto, &queue).await);
    // A state change is recorded, and without a second witness nothing follows from it.
    moto.state_change(&a.instance, "stopping").await;
    cluster.phase(&a, "Noticed", SOON).await;
    assert_eq!(cluster.pods_on(&a).await, ["web"]);
    // One Health event names both; each node's own IMDS agrees.
    imds_a.scheduled("event-a", "system-reboot", "active", 10 * DAY);
    imds_b.scheduled("event-b", "system-reboot", "active", 10 * DAY);
    moto.health(&[&a.instance, &b.instance], jiff::Timestamp::now() + 10 * DAY).await;
    for node in [&a, &b] {
        let seen = cluster.phase(node, "Confirmed", Duration::from_secs(60)).await;
        assert!(seen["spec"]["notices"].to_string().contains("sqs"), "{seen}");
    }
    // What is told five times is dealt with five times; what cannot be read is left for the dead-letter queue, whose
    // turn comes when its visibility time-out has ended often enough.
    for _ in 0..5 {
        moto.rebalance(&b.instance).await;
    }
    queue.raw("{ this is no event").await;
    let said = |word: &str| agents.0.decided(word) + agents.1.decided(word);
    eventually("only the poisoned one is left", SOON, async || match queue.depth().await {
        (visible, in_flight) if visible + in_flight == 1 && said("Unreadable") >= 1 => Ok(()),
        depth => Err(format!("{depth:?} left, {} unreadable", said("Unreadable"))),
    })
    .await;
    let read = async |agent: &Running| agent.metric("spotkeeper_sqs_messages_total{result=\"Unreadable\"}").await;
    eventually("it comes again", MINUTE, async || {
        let times = read(&agents.0).await + read(&agents.1).await;
        if times >= 2.0 { Ok(()) } else { Err(format!("read {times} times")) }
    })
    .await;
    // Two readers, each of which says it once.
    assert!(said("Unreadable") <= 2, "it is said once for each reader");
    let first = agents.0.decided("Unreadable").max(agents.1.decided("Unreadable"));
    assert_eq!(first, 1);
}
