//! The lab itself: what the other tests rely on.

use std::time::Duration;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::facts::eventually;
use crate::support::objects::{a_budget, a_deployment, a_pod};

#[tokio::test]
async fn the_scheduler_places_pods_and_the_kubelet_runs_them() {
    let cluster = Cluster::new("schedules").await;
    let node = cluster.node("a").await;
    cluster.create(&cluster.here(a_deployment("web", 3))).await;
    cluster.running(&node, 3).await;
}

#[tokio::test]
async fn an_eviction_against_a_budget_is_answered_429_and_names_the_budget() {
    let cluster = Cluster::new("budget").await;
    let node = cluster.node("a").await;
    cluster.create(&cluster.here(a_deployment("web", 1))).await;
    cluster.create(&a_budget("web", "web")).await;
    cluster.running(&node, 1).await;
    cluster.budget_is_kept("web").await;
    let pod = cluster.pods_on(&node).await.remove(0);
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } });
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", cluster.namespace);
    let refusal = cluster.send("POST", &path, "application/json", &eviction).await.unwrap_err();
    assert!(refusal.starts_with("429") && refusal.contains("disruption budget"), "{refusal}");
}

#[tokio::test]
async fn a_pod_works_on_after_it_was_asked_and_no_longer_than_its_grace() {
    let cluster = Cluster::new("grace").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("stubborn").on(&node.name).grace(3).ends_after(60)).await;
    cluster.running(&node, 1).await;
    let asked = std::time::Instant::now();
    cluster.delete(&format!("/api/v1/namespaces/{}/pods/stubborn", cluster.namespace)).await.unwrap();
    eventually("the pod is gone", Duration::from_secs(10), async || {
        let left = cluster.pods_on(&node).await;
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    })
    .await;
    // Kubernetes counts whole seconds.
    assert!(asked.elapsed() >= Duration::from_secs(2), "it ended after {:?}", asked.elapsed());
}
