//! What an agent survives of the API server: away, silent, slow, throttling, conflicting, forgetting its watches, and
//! shared with others who write the same Node.

use std::time::Duration;

use serde_json::{Value, json};
use spotkeeper::adapters::kubernetes::Kubernetes;
use spotkeeper::adapters::metrics::agent::Metrics;
use spotkeeper::domain::notice::Kind;
use spotkeeper::interruption::mark::{INTERRUPTION, Mark, mark_patch, unmark_patch};

use crate::support::agent::{Agent, Running};
use crate::support::api_proxy::{Line, Manners, Proxy, Tunnel};
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::objects::a_pod;

const SOON: Duration = Duration::from_secs(30);

/// What AWS gives.
const TWO_MINUTES: Duration = Duration::from_secs(120);

async fn node_with_pods(cluster: &Cluster, pods: usize) -> NodeHandle {
    let node = cluster.node("a").await;
    for index in 0..pods {
        cluster.create(&a_pod(&format!("p{index}")).on(&node.name).grace(5).ends_after(1)).await;
    }
    cluster.running(&node, pods).await;
    node
}

/// How often the agent asked for something with this verb.
fn asked(agent: &Running, verb: &str) -> usize {
    let verb = format!("\"verb\":\"{verb}\"");
    agent.process.log().lines().filter(|line| line.contains(&verb)).count()
}

async fn survives_half_a_minute(of: Line, what: &str) {
    let cluster = Cluster::new(what).await;
    let node = node_with_pods(&cluster, 3).await;
    let imds = Imds::start(&node.instance).await;
    let tunnel = Tunnel::to(&cluster.plane.server).await;
    let server = format!("https://{}", tunnel.address);
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await.server(&server).start().await;
    tunnel.set(of);
    imds.spot("terminate", TWO_MINUTES);
    eventually("the workloads are told without the API server", Duration::from_secs(3), async || {
        let (status, body) = agent.notice("/latest/meta-data/spot/instance-action").await?;
        if status == 200 { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    // The fault itself takes time.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(cluster.interruption(&node).await.is_null(), "nothing came through");
    tunnel.set(Line::Pass);
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(seen["spec"]["notices"].as_array().map(Vec::len), Some(1), "{seen}");
    // The mark may still be waiting for its next try when the pods, which need not wait for it, are gone already.
    eventually("the node is marked", SOON, async || {
        let node = cluster.node_json(&node).await;
        if node["spec"]["unschedulable"] == true { Ok(()) } else { Err(node["spec"].to_string()) }
    })
    .await;
    assert!(cluster.pods_on(&node).await.is_empty());
    assert_eq!(asked(&agent, "Delete"), 0, "there was time enough to ask");
}

#[tokio::test]
async fn an_api_server_that_is_away_at_the_notice_gets_all_of_it_when_it_is_back() {
    survives_half_a_minute(Line::Refuse, "api-away").await;
}

#[tokio::test]
async fn an_api_server_that_is_silent_at_the_notice_gets_all_of_it_when_it_speaks_again() {
    survives_half_a_minute(Line::Hang, "api-silent").await;
}

async fn behind_a_proxy(cluster: &Cluster, node: &NodeHandle, imds: &Imds) -> (Proxy, Running) {
    let proxy = Proxy::to(cluster.plane).await;
    let agent = Agent::on(cluster, node, &imds.endpoint()).await.server(&proxy.url).start().await;
    (proxy, agent)
}

#[tokio::test]
async fn an_api_server_that_takes_two_seconds_for_each_call_is_waited_for() {
    let cluster = Cluster::new("api-slow").await;
    let node = node_with_pods(&cluster, 10).await;
    let imds = Imds::start(&node.instance).await;
    let (proxy, agent) = behind_a_proxy(&cluster, &node, &imds).await;
    proxy.set(Manners { delay: Duration::from_secs(2), ..Manners::default() });
    imds.spot("terminate", Duration::from_secs(60));
    cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(proxy.answers("/eviction").len(), 10, "each pod is asked once");
    assert_eq!(asked(&agent, "Delete"), 0);
}

#[tokio::test]
async fn throttling_is_waited_out_and_is_no_reason_to_delete() {
    let cluster = Cluster::new("api-throttles").await;
    let node = node_with_pods(&cluster, 5).await;
    let imds = Imds::start(&node.instance).await;
    let (proxy, agent) = behind_a_proxy(&cluster, &node, &imds).await;
    proxy.set(Manners { throttle_evictions: true, ..Manners::default() });
    imds.spot("terminate", TWO_MINUTES);
    eventually("each pod was refused several times", SOON, async || {
        let refused = proxy.answers("/eviction").len();
        if refused >= 25 { Ok(()) } else { Err(format!("{refused} answers")) }
    })
    .await;
    assert_eq!(cluster.pods_on(&node).await.len(), 5);
    proxy.set(Manners::default());
    cluster.phase(&node, "Drained", SOON).await;
    let evictions = proxy.answers("/eviction");
    assert!(evictions.iter().all(|code| matches!(code, 201 | 429)), "{evictions:?}");
    assert_eq!(proxy.answers("DELETE").len() + asked(&agent, "Delete"), 0);
}

#[tokio::test]
async fn a_conflict_on_the_node_is_answered_by_looking_and_writing_again() {
    let cluster = Cluster::new("api-conflicts").await;
    let node = node_with_pods(&cluster, 1).await;
    let imds = Imds::start(&node.instance).await;
    let (proxy, _agent) = behind_a_proxy(&cluster, &node, &imds).await;
    // More than are answered by looking again at once.
    proxy.set(Manners { conflicts: 20, ..Manners::default() });
    imds.spot("terminate", TWO_MINUTES);
    cluster.phase(&node, "Drained", SOON).await;
    eventually("the node is marked", SOON, async || {
        let seen = cluster.node_json(&node).await;
        if seen["spec"]["unschedulable"] == true { Ok(()) } else { Err(seen["spec"].to_string()) }
    })
    .await;
    let patches = proxy.answers("PATCH /api/v1/nodes/");
    assert_eq!(patches.iter().filter(|code| **code == 409).count(), 20, "{patches:?}");
    assert_eq!(patches.last(), Some(&200));
}

#[tokio::test]
async fn watches_that_are_ended_as_too_old_are_opened_again_before_and_during_a_drain() {
    let cluster = Cluster::new("api-forgets").await;
    let node = node_with_pods(&cluster, 2).await;
    cluster.create(&a_pod("slow").on(&node.name).grace(60).ends_after(6)).await;
    cluster.running(&node, 3).await;
    let imds = Imds::start(&node.instance).await;
    let (proxy, _agent) = behind_a_proxy(&cluster, &node, &imds).await;
    let open = async |watches: usize| {
        eventually("the watches are open", SOON, async || match proxy.watches() {
            open if open >= watches => Ok(()),
            open => Err(format!("{open} are")),
        })
        .await;
    };
    open(2).await;
    proxy.expire_watches();
    open(2).await;
    imds.spot("terminate", TWO_MINUTES);
    cluster.phase(&node, "Draining", SOON).await;
    open(3).await;
    proxy.expire_watches();
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(proxy.answers("/eviction"), vec![201; 3], "nobody is asked twice: {seen}");
}

/// Another controller: puts a taint of its own on the Node and takes it off again, in place of the one before, until
/// `until` is over. Returns how often a taint that it had written was not there when it looked again.
async fn another_writer(cluster: &Cluster, node: &NodeHandle, until: tokio::sync::watch::Receiver<bool>) -> (u32, u32) {
    let path = format!("/api/v1/nodes/{}", node.name);
    let theirs = |taint: &Value| taint["key"] == "other.example/busy";
    let (mut number, mut written, mut lost) = (0u32, None::<u32>, 0);
    while !*until.borrow() {
        let mut seen = cluster.node_json(node).await;
        let mut taints = seen["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let there = taints.iter().find(|taint| theirs(taint)).map(|taint| taint["value"].clone());
        if there != written.map(|number| json!(number.to_string())) {
            lost += 1;
        }
        taints.retain(|taint| !theirs(taint));
        let next = (number % 3 != 2).then_some(number);
        if let Some(next) = next {
            taints.push(json!({ "key": "other.example/busy", "value": next.to_string(), "effect": "NoSchedule" }));
        }
        seen["spec"]["taints"] = taints.into();
        match cluster.send("PUT", &path, "application/json", &seen).await {
            Ok(_) => (written, number) = (next, number + 1),
            // Somebody was quicker: look again.
            Err(error) => assert!(error.contains("modified"), "{error}"),
        }
    }
    (number, lost)
}

#[tokio::test]
async fn in_a_thousand_tries_no_taint_is_lost_to_another_writer_nor_by_us() {
    let cluster = Cluster::new("taints").await;
    let node = cluster.node("a").await;
    let (_, token) = crate::support::agent::token(&cluster, &node.name).await;
    let ours = Kubernetes::with(cluster.plane.config(&token).await, Metrics::new().common).unwrap();
    let mark = Mark { kind: Kind::SpotInterruption, episode: 1, deadline: None, exclude_from_load_balancers: true };
    let done = tokio::sync::watch::Sender::new(false);
    let until = done.subscribe();
    let race = async {
        let (mut cached, mut acknowledged) = (None, 0);
        for round in 0..1_000 {
            let result = match round % 2 {
                0 => ours.patch_node(&node.name, cached.clone(), |node| mark_patch(node, &mark)).await,
                _ => ours.patch_node(&node.name, cached.clone(), unmark_patch).await,
            };
            match result {
                Ok(seen) => {
                    let marked = seen.taints.iter().any(|taint| taint.key == INTERRUPTION);
                    assert_eq!((marked, seen.unschedulable), (round % 2 == 0, round % 2 == 0), "{seen:?}");
                    acknowledged += 1;
                    cached = Some(seen);
                }
                // The other was quicker eight times in a row: the core would try again.
                Err(error) => {
                    assert!(error.to_string().contains("changed under"), "{error}");
                    cached = None;
                }
            }
        }
        done.send_replace(true);
        acknowledged
    };
    let (acknowledged, (writes, lost)) = tokio::join!(race, another_writer(&cluster, &node, until));
    assert!(acknowledged >= 500 && writes >= 100, "{acknowledged} of ours and {writes} of the other: that is no race");
    assert_eq!(lost, 0, "of {writes} taints of the other");
}
