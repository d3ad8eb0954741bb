//! Reading the queue on a real control plane: away, silent, read by one that dies, and a thousand messages at once.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;
use serde_json::json;

use crate::support::agent::{Agent, Running};
use crate::support::api_proxy::{Line, Manners, Proxy, Tunnel};
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::control_plane::ControlPlane;
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::moto::{Moto, Queue};
use crate::support::objects::a_node;

const SOON: Duration = Duration::from_secs(40);

/// A lease runs out after 15 s, and the others look for a free one every 10 to 30 s.
const TAKEN_OVER: Duration = Duration::from_secs(90);

/// An agent that reads `queue` at `address`.
async fn reader(cluster: &Cluster, node: &NodeHandle, imds: &Imds, queue: &Queue<'_>, address: &str) -> Running {
    let url = queue.url.replace(&queue.moto.endpoint, address);
    let mut agent = Agent::on(cluster, node, &imds.endpoint()).await.arg("--queue-url").arg(&url);
    for (key, value) in queue.moto.env() {
        agent = agent.env(key, &value.replace(&queue.moto.endpoint, address));
    }
    agent.start().await
}

async fn reads(agent: &Running) {
    eventually("it reads the queue", TAKEN_OVER, async || {
        let held = agent.metric("spotkeeper_queue_lease_held").await;
        if held >= 1.0 { Ok(()) } else { Err("it holds no lease".to_owned()) }
    })
    .await;
}

/// Nodes without a kubelet: what a message can be about.
async fn bare_nodes(cluster: &Cluster, count: usize) -> Vec<NodeHandle> {
    stream::iter(0..count)
        .map(async |index| {
            let instance = format!("i-{:017x}", u128::from(fastrand::u64(..)));
            let name = format!("{}-bare{index}", cluster.namespace);
            let mut node = a_node(&name, &instance).labelled("lab.spotkeeper.dev/of", &cluster.namespace);
            node.0["metadata"]["labels"]["lab.spotkeeper.dev/kubelet"] = "none".into();
            cluster.create(&node).await;
            NodeHandle { name, instance }
        })
        .buffered(16)
        .collect()
        .await
}

fn warning(instance: &str) -> String {
    json!({
        "version": "0", "id": format!("event-{instance}"), "account": "123456789012", "region": "eu-west-1",
        "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": format!("{:.0}", Timestamp::now()), "resources": [format!("arn:aws:ec2:eu-west-1a:instance/{instance}")],
        "detail": { "instance-id": instance, "instance-action": "terminate" },
    })
    .to_string()
}

/// Waits until each node has one Interruption with one notice.
async fn recorded(cluster: &Cluster, nodes: &[NodeHandle], patience: Duration) {
    eventually("every node has its Interruption", patience, async || {
        let list = cluster.get("/apis/spotkeeper.dev/v1alpha1/interruptions?resourceVersion=0").await?;
        let all = list["items"].as_array().ok_or("no list")?;
        let of = |node: &&NodeHandle| {
            all.iter().any(|one| {
                one["metadata"]["name"] == node.instance.as_str() && one["spec"]["nodeName"] == node.name.as_str()
            })
        };
        let done = nodes.iter().filter(of).count();
        if done == nodes.len() { Ok(()) } else { Err(format!("{done} of {}", nodes.len())) }
    })
    .await;
}

async fn one_notice_each(cluster: &Cluster, nodes: &[NodeHandle]) {
    let list = cluster.get("/apis/spotkeeper.dev/v1alpha1/interruptions").await.unwrap();
    for node in nodes {
        let one =
            list["items"].as_array().unwrap().iter().find(|one| one["metadata"]["name"] == node.instance.as_str());
        let notices = one.unwrap()["spec"]["notices"].as_array().unwrap();
        assert_eq!(notices.len(), 1, "{notices:?}");
    }
}

async fn clear(cluster: &Cluster) {
    let ours = format!("/api/v1/nodes?labelSelector=lab.spotkeeper.dev%2Fof%3D{}", cluster.namespace);
    cluster.delete(&ours).await.expect("nodes are deleted");
}

#[tokio::test]
async fn a_queue_that_is_away_or_silent_is_said_and_read_when_it_is_back() {
    let cluster = Cluster::new("queue-away").await;
    let (node, others) = (cluster.node("a").await, bare_nodes(&cluster, 2).await);
    let imds = Imds::start(&node.instance).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(5, 10).await;
    let tunnel = Tunnel::to(&moto.endpoint).await;
    let agent = reader(&cluster, &node, &imds, &queue, &format!("http://{}", tunnel.address)).await;
    reads(&agent).await;
    for (line, other) in [(Line::Refuse, &others[0]), (Line::Hang, &others[1])] {
        tunnel.set(line);
        let before = agent.process.log().matches("the queue cannot be read").count();
        eventually("it says so", TAKEN_OVER, async || {
            let said = agent.process.log().matches("the queue cannot be read").count();
            if said > before { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        moto.spot_warning(&other.instance, "terminate").await;
        tunnel.set(Line::Pass);
        recorded(&cluster, std::slice::from_ref(other), TAKEN_OVER).await;
        queue.empty().await;
    }
    one_notice_each(&cluster, &others).await;
    clear(&cluster).await;
}

#[tokio::test]
async fn what_is_for_another_cluster_is_deleted_after_its_grace_and_counted() {
    let cluster = Cluster::new("queue-foreign").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 10).await;
    let agent = reader(&cluster, &node, &imds, &queue, &moto.endpoint).await;
    reads(&agent).await;
    let joining = NodeHandle { name: format!("{}-late", cluster.namespace), instance: "i-0123456789abcdef0".into() };
    moto.state_change("i-00000000000000bad", "stopping").await;
    moto.spot_warning(&joining.instance, "terminate").await;
    eventually("it is not known to be foreign yet", SOON, async || match agent.decided("MayBeJoining") {
        0 => Err("nothing said".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert_ne!(queue.depth().await, (0, 0), "the grace of a node that is just joining");
    // One of the two is of a node that joins meanwhile.
    let late = a_node(&joining.name, &joining.instance).labelled("lab.spotkeeper.dev/of", &cluster.namespace);
    cluster.create(&late).await;
    recorded(&cluster, std::slice::from_ref(&joining), TAKEN_OVER).await;
    eventually("the foreign one is deleted", TAKEN_OVER, async || match queue.depth().await {
        (0, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    assert_eq!(queue.dead().await, 0, "it is no poison");
    // It is counted when the queue has acknowledged the deletion, which is a little later.
    eventually("it is counted", SOON, async || {
        let counted = agent.metric("spotkeeper_sqs_messages_total{result=\"NotInThisCluster\"}").await;
        if counted >= 1.0 { Ok(()) } else { Err(counted.to_string()) }
    })
    .await;
    clear(&cluster).await;
}

#[tokio::test]
async fn a_reader_that_dies_in_the_middle_of_a_batch_loses_nothing() {
    let cluster = Cluster::new("queue-dies").await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let doomed = bare_nodes(&cluster, 100).await;
    let (imds_a, imds_b) = (Imds::start(&a.instance).await, Imds::start(&b.instance).await);
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(5, 10).await;
    let mut first = reader(&cluster, &a, &imds_a, &queue, &moto.endpoint).await;
    reads(&first).await;
    let bodies: Vec<String> = doomed.iter().map(|node| warning(&node.instance)).collect();
    queue.raw_all(&bodies).await;
    eventually("it is in the middle of it", SOON, async || match first.process.log().matches("\"recorded\"").count() {
        0 => Err("nothing is recorded yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    first.process.kill();
    let second = reader(&cluster, &b, &imds_b, &queue, &moto.endpoint).await;
    reads(&second).await;
    recorded(&cluster, &doomed, TAKEN_OVER).await;
    queue.empty().await;
    one_notice_each(&cluster, &doomed).await;
    assert_eq!(queue.dead().await, 0);
    clear(&cluster).await;
}

#[tokio::test]
async fn a_queue_that_refuses_the_agent_makes_it_unready_and_names_the_permission() {
    let refuse = async || {
        let body = json!({ "__type": "com.amazonaws.sqs#AccessDenied", "message": "no" }).to_string();
        (axum::http::StatusCode::FORBIDDEN, [("content-type", "application/x-amz-json-1.0")], body)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(refuse)).await });
    let cluster = Cluster::new("queue-denied").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await;
    agent = agent.arg("--queue-url").arg(&format!("{address}/123456789012/q"));
    for (key, value) in moto.env() {
        agent = agent.env(key, &value.replace(&moto.endpoint, &address));
    }
    let agent = agent.spawn();
    eventually("it is not ready, and says what to allow", TAKEN_OVER, async || {
        let (status, body) = agent.admin("/readyz").await?;
        let named = body.contains("sqs:ReceiveMessage") && body.contains("IAM policy");
        if status == 503 && named { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    imds.spot("terminate", Duration::from_secs(60));
    cluster.phase(&node, "Drained", SOON).await;
}

#[tokio::test]
async fn work_that_takes_longer_than_a_message_is_hidden_for_is_done_once() {
    let cluster = Cluster::new("queue-slow").await;
    let node = cluster.node("a").await;
    let doomed = bare_nodes(&cluster, 40).await;
    let imds = Imds::start(&node.instance).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 20).await;
    let proxy = Proxy::to(cluster.plane).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.server(&proxy.url);
    agent = agent.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    let agent = agent.start().await;
    reads(&agent).await;
    // Eight at a time, two calls for each: forty take forty seconds, and a message is hidden for thirty.
    proxy.set(Manners { delay: Duration::from_millis(3_900), ..Manners::default() });
    let instances: Vec<&str> = doomed.iter().map(|node| node.instance.as_str()).collect();
    moto.health(&instances, Timestamp::now() + Duration::from_secs(864_000)).await;
    recorded(&cluster, &doomed, TAKEN_OVER).await;
    proxy.set(Manners::default());
    eventually("the message is deleted", TAKEN_OVER, async || match queue.depth().await {
        (0, 0) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    one_notice_each(&cluster, &doomed).await;
    assert_eq!(queue.dead().await, 0);
    clear(&cluster).await;
}

#[tokio::test]
async fn a_thousand_messages_for_a_thousand_nodes_are_all_recorded() {
    let cluster = Cluster::on(ControlPlane::audited, "queue-thousand").await;
    let node = cluster.node("a").await;
    let doomed = bare_nodes(&cluster, 1_000).await;
    let imds = Imds::start(&node.instance).await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let queue = moto.queue(30, 10).await;
    let bodies: Vec<String> = doomed.iter().map(|node| warning(&node.instance)).collect();
    queue.raw_all(&bodies).await;
    let agent = reader(&cluster, &node, &imds, &queue, &moto.endpoint).await;
    reads(&agent).await;
    // moto hands them out; on a busy machine at a few a second.
    eventually("all are received", 4 * TAKEN_OVER, async || match queue.depth().await {
        (0, _) => Ok(()),
        depth => Err(format!("{depth:?}")),
    })
    .await;
    let received = Instant::now();
    recorded(&cluster, &doomed, SOON).await;
    println!("all of 1,000 recorded {:?} after the last was received", received.elapsed());
    queue.empty().await;
    one_notice_each(&cluster, &doomed).await;
    clear(&cluster).await;
}
