//! The shipped rights are enough, and none is too many: what the manifests grant is compared with what the API server's
//! audit log says that agents used.

use std::time::Duration;

use crate::support::agent::{Agent, Running, token_of};
use crate::support::api_proxy::{Manners, Proxy};
use crate::support::cluster::{Cluster, NodeHandle, text};
use crate::support::control_plane::ControlPlane;
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::moto::{Moto, Queue};
use crate::support::objects::{a_budget, a_pod};
use crate::support::rights::none_is_too_many;

const SOON: Duration = Duration::from_secs(40);

/// Leases are looked at every 10 to 30 s, and the watches end with their agent.
const LATER: Duration = Duration::from_secs(60);

/// An agent behind a proxy that lets it conflict once, so that it has to look.
async fn agent(
    cluster: &Cluster,
    node: &NodeHandle,
    imds: &Imds,
    args: &[&str],
    queue: Option<&Queue<'_>>,
) -> (Running, Proxy) {
    let proxy = Proxy::to(cluster.plane).await;
    proxy.set(Manners { conflicts: 1, ..Manners::default() });
    let mut agent = Agent::on(cluster, node, &imds.endpoint()).await.server(&proxy.url);
    for arg in args {
        agent = agent.arg(arg);
    }
    if let Some(queue) = queue {
        agent = agent.arg("--queue-url").arg(&queue.url);
        for (key, value) in queue.moto.env() {
            agent = agent.env(key, &value);
        }
    }
    (agent.start().await, proxy)
}

/// A node with a pod that goes when asked, and one whose budget never allows it.
async fn node(cluster: &Cluster, name: &str) -> NodeHandle {
    let node = cluster.node(name).await;
    let held = format!("{name}-held");
    cluster.create(&a_pod(&format!("{name}-web")).on(&node.name).grace(1)).await;
    cluster.create(&a_pod(&held).on(&node.name).grace(1)).await;
    cluster.create(&a_budget(&held, &held)).await;
    cluster.running(&node, 2).await;
    cluster.budget_is_kept(&held).await;
    node
}

#[tokio::test]
async fn every_right_of_an_agent_that_reads_the_queue_is_needed() {
    let cluster = Cluster::on(ControlPlane::audited, "rights").await;
    let (a, b) = (node(&cluster, "a").await, node(&cluster, "b").await);
    let (imds_a, imds_b) = (Imds::start(&a.instance).await, Imds::start(&b.instance).await);
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 5).await;
    let reader = agent(&cluster, &a, &imds_a, &[], Some(&queue)).await;
    let other = agent(&cluster, &b, &imds_b, &["--pod-access", "own"], None).await;
    imds_b.spot("terminate", Duration::from_secs(20));
    cluster.phase(&b, "Drained", SOON).await;
    eventually("it reads the queue", LATER, async || {
        let held = reader.0.metric("spotkeeper_queue_lease_held").await;
        if held >= 1.0 { Ok(()) } else { Err("it holds no lease".to_owned()) }
    })
    .await;
    moto.spot_warning_late(&a.instance, "terminate", Duration::from_secs(100)).await;
    imds_a.spot("terminate", Duration::from_secs(20));
    cluster.phase(&a, "Drained", SOON).await;
    queue.empty().await;
    drop((reader, other));
    none_is_too_many(cluster.plane, "manifests/overlays/sqs", "spotkeeper-").await;
}

#[tokio::test]
async fn in_the_strict_overlay_a_reader_of_its_own_records_what_agents_confirm_and_no_right_is_idle() {
    let cluster = Cluster::on(ControlPlane::strict, "strict").await;
    let (node, other) = (node(&cluster, "a").await, node(&cluster, "b").await);
    let (imds, imds_other) = (Imds::start(&node.instance).await, Imds::start(&other.instance).await);
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 5).await;
    let kept = agent(&cluster, &node, &imds, &["--pod-access", "node"], None).await;
    let kept_other = agent(&cluster, &other, &imds_other, &["--pod-access", "node"], None).await;
    // One that the queue says first, and one that only the node itself hears of.
    imds_other.spot("terminate", Duration::from_secs(20));
    let pods = "/api/v1/namespaces/spotkeeper/pods";
    let pod = eventually("the Deployment of the reader has a pod", SOON, async || {
        let list = cluster.get(pods).await?;
        let mut found =
            list["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["nodeName"].is_string());
        let found = found.find(|pod| text(&pod["metadata"]["name"]).starts_with("spotkeeper-queue-reader-"));
        found.map(|pod| text(&pod["metadata"]["name"])).ok_or_else(|| list.to_string())
    })
    .await;
    let token = token_of(&cluster, "spotkeeper-queue-reader", &pod).await;
    let mut reader = Agent::on(&cluster, &node, &imds.endpoint()).await.with_token(&token);
    reader = reader.arg("--queue-only").arg("--queue-url").arg(&queue.url).env("POD_NAME", &pod);
    for (key, value) in moto.env() {
        reader = reader.env(key, &value);
    }
    let reader = reader.start().await;
    moto.spot_warning_late(&node.instance, "terminate", Duration::from_secs(95)).await;
    let noticed = cluster.phase(&node, "Noticed", SOON).await;
    let notice = &noticed["spec"]["notices"][0];
    assert_eq!((notice["source"].as_str(), text(&notice["reporter"])), (Some("sqs"), pod), "{noticed}");
    imds.spot("terminate", Duration::from_secs(20));
    cluster.phase(&node, "Drained", SOON).await;
    cluster.phase(&other, "Drained", SOON).await;
    queue.empty().await;
    drop((kept, kept_other, reader));
    none_is_too_many(cluster.plane, "manifests/overlays/strict", "spotkeeper-").await;
}
