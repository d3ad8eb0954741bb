//! From a notice to an empty node, by each source.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::cluster::Cluster;
use crate::support::facts::{eventually, throughout};
use crate::support::imds::Imds;
use crate::support::moto::Moto;
use crate::support::objects::{a_daemonset, a_pod};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_spot_interruption_by_imds_marks_the_node_and_empties_it() {
    let cluster = Cluster::new("by-imds").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name).ends_after(1)).await;
    cluster.create(&a_pod("db").on(&node.name).grace(5).ends_after(3)).await;
    cluster.create(&cluster.here(a_daemonset("logs"))).await;
    cluster.running(&node, 3).await;
    let imds = Imds::start(&node.instance).await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    imds.spot("terminate", Duration::from_secs(60));
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(seen["status"]["pods"]["total"], 2, "{seen}");
    assert_eq!(seen["spec"]["notices"][0]["source"], "imds");
    let marked = cluster.node_json(&node).await;
    assert_eq!(marked["spec"]["unschedulable"], true);
    assert_eq!(marked["metadata"]["labels"]["node.kubernetes.io/exclude-from-external-load-balancers"], "true");
    let taints = marked["spec"]["taints"].as_array().cloned().unwrap_or_default();
    assert!(taints.iter().any(|t| t["key"] == "spotkeeper.dev/interruption" && t["value"] == "SpotInterruption"));
    let left = cluster.pods_on(&node).await;
    assert!(left.iter().all(|pod| pod.starts_with("logs-")), "{left:?}");
    let (_, told) = agent.notice("/v1/notice").await.unwrap();
    assert!(told.contains("SpotInterruption"), "{told}");
    for (metric, value) in [
        ("spotkeeper_notices_total{source=\"imds\",kind=\"SpotInterruption\"}", 1.0),
        ("spotkeeper_interruption_phase{phase=\"Drained\"}", 1.0),
        ("spotkeeper_imds_healthy", 1.0),
        ("spotkeeper_pods_asked_total{verb=\"evict\",answer=\"accepted\"}", 2.0),
        ("spotkeeper_notice_to_cordon_seconds_count", 1.0),
        ("spotkeeper_drains_total{result=\"empty\"}", 1.0),
        ("spotkeeper_drain_seconds_count", 1.0),
        ("spotkeeper_invariant_violations_total", 0.0),
    ] {
        assert_eq!(agent.metric(metric).await, value, "{metric}");
    }
    eventually("events are on the Node and the Interruption", SOON, async || {
        let list = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events").await?;
        let about =
            |name: &str| list["items"].as_array().is_some_and(|e| e.iter().any(|e| e["regarding"]["name"] == name));
        if about(&node.name) && about(&node.instance) { Ok(()) } else { Err(list["items"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_spot_interruption_by_the_queue_is_believed_when_imds_cannot_be_asked() {
    let cluster = Cluster::new("by-queue").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name)).await;
    cluster.running(&node, 1).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 3).await;
    let imds = Imds::start(&node.instance).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    let agent = agent.start().await;
    imds.refuse();
    moto.spot_warning(&node.instance, "terminate").await;
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(seen["spec"]["notices"][0]["source"], "sqs", "{seen}");
    queue.empty().await;
    eventually("a doomed reader offers its lease to those that stay", SOON, async || {
        let leases = cluster.get("/apis/coordination.k8s.io/v1/namespaces/spotkeeper/leases").await?;
        let offered = |lease: &Value| lease["metadata"]["annotations"]["spotkeeper.dev/leaving"] == "true";
        if leases["items"].as_array().is_some_and(|all| all.iter().any(offered)) {
            Ok(())
        } else {
            Err(leases["items"].to_string())
        }
    })
    .await;
    assert!(agent.metric("spotkeeper_queue_lease_held").await >= 1.0, "and reads on until one of them has taken it");
}

#[tokio::test]
async fn a_notice_by_the_queue_that_imds_denies_touches_nothing_and_is_refuted() {
    let cluster = Cluster::new("denied").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name)).await;
    cluster.running(&node, 1).await;
    let imds = Imds::start(&node.instance).await;
    let _agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    let deadline = jiff::Timestamp::now() + Duration::from_secs(12);
    let forged = json!({
        "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "metadata": { "name": node.instance },
        "spec": {
            "instanceID": node.instance, "nodeName": node.name,
            "providerID": format!("aws:///eu-west-1a/{}", node.instance),
            "notices": [{
                "source": "sqs", "kind": "SpotInterruption", "eventID": "forged", "action": "terminate",
                "reporter": "another-node", "noticedAt": jiff::Timestamp::now().to_string(), "deadline": deadline.to_string(),
            }],
        },
    });
    let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
    cluster.send("POST", path, "application/json", &forged).await.unwrap();
    throughout("nothing is done to the node", Duration::from_secs(6), async || {
        let node = cluster.node_json(&node).await;
        if node["spec"]["unschedulable"] == true { Err(node["spec"].to_string()) } else { Ok(()) }
    })
    .await;
    cluster.phase(&node, "Refuted", SOON).await;
    assert_eq!(cluster.pods_on(&node).await, ["web"]);
}
