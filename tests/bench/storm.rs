//! A hundred instances are taken at once: a hundred agents as processes, one API server.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use serde_json::json;

use crate::fleet::{self, Member};
use crate::report::Report;
use crate::requests::{Counts, counts, scrape};
use crate::sights::Watch;
use crate::support::cluster::Cluster;
use crate::support::facts::eventually;
use crate::support::imds::Fault;
use crate::support::moto::{Moto, Queue};
use crate::support::objects::{a_budget, a_deployment};

const NODES: usize = 100;
const PODS_EACH: usize = 5;
const PODS: usize = NODES * PODS_EACH;

/// Replicas of each Deployment in the storm with budgets; one of them may be unavailable.
const REPLICAS: u32 = 10;

/// Nodes that stay, and take the replacements.
const SPARE: usize = 4;

/// What AWS gives.
const TWO_MINUTES: Duration = Duration::from_secs(120);

/// How the hundred notices come.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Imds,
    /// The queue says it, and IMDS confirms it.
    Both,
    /// The queue says it, and IMDS cannot be asked.
    Queue,
}

/// When it happened, from the first notice on.
struct Storm {
    cordoned: Vec<Duration>,
    asked: Vec<Duration>,
    /// When the last event had been taken by EventBridge.
    sent: Option<Duration>,
    /// When the queue was empty.
    handled: Option<Duration>,
    /// What the API server was asked until then, by verb and resource.
    requests: Counts,
}

pub async fn measure(report: &mut Report) {
    let ways = [
        (Way::Imds, "imds", "in each node's IMDS"),
        (Way::Both, "both", "by SQS, and in each node's IMDS"),
        (Way::Queue, "queue", "by SQS, IMDS unreachable"),
    ];
    for (way, key, how) in ways {
        let cluster = Cluster::new(&format!("storm-{key}")).await;
        let members = fleet::nodes(&cluster, "n", NODES).await;
        fleet::bare_pods(&cluster, &members, PODS_EACH).await;
        let seen = storm(&cluster, members, way, PODS).await;
        print(report, key, &format!("{NODES} notices at once {how}, {PODS_EACH} pods a node, no budgets"), &seen, true);
    }
    let cluster = Cluster::new("storm-budget").await;
    let members = fleet::nodes(&cluster, "n", NODES).await;
    budgeted(&cluster).await;
    let spare = fleet::nodes(&cluster, "spare", SPARE).await;
    let seen = storm(&cluster, members, Way::Imds, PODS).await;
    let what = format!("{NODES} notices at once in each node's IMDS, {PODS} pods, budgets of 1 in {REPLICAS}");
    print(report, "budget", &what, &seen, false);
    drop(spare);
}

/// Deployments with a budget each, their pods all over the nodes.
async fn budgeted(cluster: &Cluster) {
    let deployments = PODS / REPLICAS as usize;
    for index in 0..deployments {
        let name = format!("web-{index}");
        cluster.create(&cluster.here(a_deployment(&name, REPLICAS))).await;
        cluster.create(&a_budget(&name, &name).max_unavailable(1)).await;
    }
    fleet::running(cluster, PODS).await;
    for index in 0..deployments {
        cluster.budget_is_kept(&format!("web-{index}")).await;
    }
}

async fn storm(cluster: &Cluster, mut members: Vec<Member>, way: Way, pods: usize) -> Storm {
    let moto = if way == Way::Imds { None } else { Some(Moto::start(&cluster.plane.dir).await) };
    let queue = match &moto {
        Some(moto) => Some(moto.queue(30, 5).await),
        None => None,
    };
    let mut env: Vec<(&str, String)> = moto.iter().flat_map(Moto::env).collect();
    env.extend(queue.iter().map(|queue| ("SPOTKEEPER_QUEUE_URL", queue.url.clone())));
    // As it is set by default: the lab lets all that share its control plane read.
    env.push(("SPOTKEEPER_QUEUE_READERS", "2".to_owned()));
    fleet::agents(cluster, &mut members, &env).await;
    if queue.is_some() {
        somebody_reads_the_queue(&members).await;
    }
    if way == Way::Queue {
        imds_is_missed(&members).await;
    }
    let ours = format!("labelSelector=lab.spotkeeper.dev%2Fof%3D{}", cluster.namespace);
    let mut nodes = Watch::open(cluster.client.clone(), &format!("/api/v1/nodes?{ours}"));
    let doomed: std::collections::HashSet<String> = members.iter().map(|m| m.node.name.clone()).collect();
    let mut leaving = Watch::open(cluster.client.clone(), &format!("/api/v1/namespaces/{}/pods", cluster.namespace));
    nodes.shown(NODES).await;
    leaving.shown(pods).await;
    let before = counts(&scrape(cluster).await);
    let began = Instant::now();
    if way != Way::Queue {
        for member in &members {
            member.imds.spot("terminate", TWO_MINUTES);
        }
    }
    let (cordoned, asked, (sent, handled)) = tokio::join!(
        nodes.first(NODES, TWO_MINUTES, |node| node.unschedulable && doomed.contains(&node.name)),
        leaving.first(pods, TWO_MINUTES, |pod| pod.leaving),
        send(moto.as_ref(), queue.as_ref(), &members, began),
    );
    let mut requests = counts(&scrape(cluster).await);
    requests.iter_mut().for_each(|(what, count)| *count -= before.get(what).unwrap_or(&0.0));
    let since = |times: Vec<Instant>| times.into_iter().map(|at| at - began).collect();
    let storm = Storm { cordoned: since(cordoned), asked: since(asked), sent, handled, requests };
    fleet::clear(cluster, members).await;
    storm
}

/// The events of all instances, and until the readers have emptied the queue.
async fn send(
    moto: Option<&Moto>,
    queue: Option<&Queue<'_>>,
    members: &[Member],
    began: Instant,
) -> (Option<Duration>, Option<Duration>) {
    let (Some(moto), Some(queue)) = (moto, queue) else { return (None, None) };
    stream::iter(members)
        .for_each_concurrent(4, async |member| moto.spot_warning(&member.node.instance, "terminate").await)
        .await;
    let sent = began.elapsed();
    queue.empty().await;
    (Some(sent), Some(began.elapsed()))
}

/// Waits until as many agents as shall hold a lease of the queue.
async fn somebody_reads_the_queue(members: &[Member]) {
    eventually("two agents read the queue", Duration::from_secs(60), async || {
        let held = stream::iter(members).then(async |m| m.agent().metric("spotkeeper_queue_lease_held").await);
        let held = held.filter(|held| std::future::ready(*held >= 1.0)).count().await;
        if held == 2 { Ok(()) } else { Err(format!("{held} do")) }
    })
    .await;
}

/// Takes IMDS away, and waits until every agent has noticed it.
async fn imds_is_missed(members: &[Member]) {
    for member in members {
        member.imds.fault(Fault::Hang);
    }
    for member in members {
        eventually("the agent misses IMDS", Duration::from_secs(60), async || {
            let healthy = member.agent().metric("spotkeeper_imds_healthy").await;
            if healthy < 1.0 { Ok(()) } else { Err(healthy.to_string()) }
        })
        .await;
    }
}

fn print(report: &mut Report, key: &str, what: &str, storm: &Storm, free: bool) {
    report.heading(what);
    let key = |name: &str| format!("storm.{key}.{name}");
    let secs = |times: &[Duration], nth: usize| times.get(nth - 1).map(Duration::as_secs_f64);
    let target = |most: f64| free.then_some(most);
    if let Some(sent) = storm.sent {
        report.figure(&key("sent"), "the last event taken by EventBridge", Some(sent.as_secs_f64()), "s", None);
    }
    report.share(&key("cordonedShare"), "nodes cordoned", storm.cordoned.len(), NODES);
    report.figure(&key("halfCordoned"), "half of the nodes cordoned", secs(&storm.cordoned, NODES / 2), "s", None);
    report.figure(&key("allCordoned"), "all nodes cordoned", secs(&storm.cordoned, NODES), "s", target(2.0));
    report.share(&key("askedShare"), "pods asked to go", storm.asked.len(), PODS);
    report.figure(&key("allAsked"), "all pods asked", secs(&storm.asked, PODS), "s", target(5.0));
    if let Some(handled) = storm.handled {
        report.figure(&key("handled"), "the queue empty", Some(handled.as_secs_f64()), "s", None);
    }
    let millis = |times: &[Duration]| times.iter().map(Duration::as_millis).map(|t| json!(t as u64)).collect();
    report.put(&key("cordonedAll"), millis(&storm.cordoned));
    report.put(&key("askedAll"), millis(&storm.asked));
    let asked_often = storm.requests.iter().filter(|(_, count)| **count >= 10.0);
    report.put(&key("requests"), asked_often.map(|(what, count)| json!({ "request": what, "count": count })).collect());
}
