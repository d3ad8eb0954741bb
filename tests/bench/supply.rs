//! From a confirmed notice to the request for another node, and what a provisioner takes.
//!
//! Every request is seen where EC2 would see it: in the layer before moto, which notes when a call came in and when it was
//! answered.

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::{Value, json};
use spotkeeper::domain::offering::CapacityType;
use spotkeeper::sim::supply::scenario::{Step, a_cluster};

use crate::footprint::status_mib;
use crate::report::{Report, Times};
use crate::requests::{counts, scrape};
use crate::support::cluster::Cluster;
use crate::support::control_plane::ControlPlane;
use crate::support::ec2::Ec2;
use crate::support::facts::eventually;
use crate::support::moto::Moto;
use crate::support::objects::{a_node, a_pod};
use crate::support::provisioner::{self, Provisioner};

const NOTICES: usize = 60;
const NODES: usize = 1_000;
/// All of them.
const STORM: usize = NODES;
/// The default of --resync.
const RESYNC: Duration = Duration::from_secs(30);
const PODS: usize = 10_000;
/// Claims that wait in an outage.
const WAITING: usize = 500;
/// How many requests of the bench are on their way at a time.
const AT_ONCE: usize = 32;

const RECORDS: &str = "/apis/spotkeeper.dev/v1alpha1/interruptions";

struct Lab {
    cluster: Cluster,
    moto: Moto,
    ec2: Ec2,
    template: String,
}

pub async fn measure(report: &mut Report) {
    let cluster = Cluster::on(ControlPlane::full, "supply").await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let ec2 = Ec2::start(&moto, &cluster).await;
    let template = ec2.template().await;
    let lab = Lab { cluster, moto, ec2, template };
    // What is doomed has been seen before, as in any cluster: a read of EC2 every 30 s covers every node.
    let doomed = lab.nodes(NOTICES + NOTICES / 2).await;
    let (plain, dry) = doomed.split_at(NOTICES);
    // What is launched stays without a node: only requests are measured.
    lab.ec2.plan().boots = None;
    let mut first = lab.provisioner().await;
    first.leads().await;
    let idle = status_mib(first.process.id(), "VmRSS");
    reaction(&lab, plain, report).await;
    ladder(&lab, dry, report).await;
    let (fleet, full) = fleet(&lab, &first).await;
    storm(&lab, &fleet, report).await;
    let peak = status_mib(first.process.id(), "VmHWM");
    report.heading("One provisioner");
    report.figure("supply.idle", "resident when idle", Some(idle), "MiB", None);
    let what = format!("resident with {NODES} nodes and {PODS} pods watched");
    report.figure("supply.full", &what, Some(full), "MiB", Some(60.0));
    report.figure("supply.peak", &format!("peak, {STORM} notices later"), Some(peak), "MiB", None);
    report.figure("supply.binary", "binary", size_mib(), "MiB", None);
    succession(&lab, &mut first, report).await;
    outage(report);
}

impl Lab {
    async fn provisioner(&self) -> Provisioner {
        Provisioner::of(&self.cluster, &self.moto, &self.ec2).await.start().await
    }

    async fn send(&self, method: &str, path: &str, content: &str, body: &Value) {
        self.cluster.send(method, path, content, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    }

    /// So many instances with their nodes, on which no kubelet plays.
    async fn nodes(&self, count: usize) -> Vec<String> {
        let instances = self.ec2.instances(count, &self.template).await;
        let node = |instance: &String| {
            let mut node = a_node(&format!("node-{instance}"), instance);
            node.0["metadata"]["labels"].as_object_mut().expect("labels").remove("lab.spotkeeper.dev/kubelet");
            async move { drop(self.cluster.create(&node).await) }
        };
        futures::stream::iter(instances.iter().map(node)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        self.records(&instances).await;
        instances
    }

    /// Records that nothing has been confirmed of yet.
    async fn records(&self, instances: &[String]) {
        let record = |instance: &String| {
            json!({
                "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "metadata": { "name": instance },
                "spec": { "instanceID": instance, "nodeName": format!("node-{instance}"),
                    "providerID": format!("aws:///eu-west-1a/{instance}") },
            })
        };
        let bodies = instances.iter().map(record);
        let make = |body: Value| async move { self.send("POST", RECORDS, "application/json", &body).await };
        futures::stream::iter(bodies.map(make)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// Its agent confirms it.
    async fn confirm(&self, instance: &str) {
        let deadline = jiff::Timestamp::now() + Duration::from_secs(120);
        let status = json!({ "status": {
            "episode": 1, "phase": "Confirmed", "kind": "SpotInterruption", "deadline": deadline.to_string(),
        } });
        let path = format!("{RECORDS}/{instance}/status");
        self.send("PATCH", &path, "application/merge-patch+json", &status).await;
    }
}

/// One notice after another.
async fn reaction(lab: &Lab, instances: &[String], report: &mut Report) {
    let mut times = Times::default();
    for (index, instance) in instances.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(200..400))).await;
        let sent = Instant::now();
        lab.confirm(instance).await;
        let calls = lab.ec2.called(index + 1).await;
        times.add(calls[index].at.saturating_duration_since(sent));
    }
    report.heading(&format!("Replacement: {NOTICES} confirmed notices, one after another"));
    let target = Some((0.99, Duration::from_millis(300)));
    report.times("supply.request", "the agent's word sent -> CreateFleet at EC2", &times, target);
}

/// A rung that gives nothing, and the next.
async fn ladder(lab: &Lab, instances: &[String], report: &mut Report) {
    // It names no pool, so that nothing is remembered and every claim asks for spot first.
    lab.ec2.plan().dry.insert("spot", "UnfulfillableCapacity");
    let mut times = Times::default();
    let before = lab.ec2.calls().len();
    for (index, instance) in instances.iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(400..600))).await;
        lab.confirm(instance).await;
        let calls = lab.ec2.called(before + 2 * (index + 1)).await;
        let [spot, next] = &calls[before + 2 * index..][..2] else { unreachable!("two were waited for") };
        assert_eq!((spot.asked.market.as_str(), next.asked.market.as_str()), ("spot", "on-demand"));
        times.add(next.at.saturating_duration_since(spot.answered));
    }
    lab.ec2.plan().dry.clear();
    let target = Some((0.99, Duration::from_millis(50)));
    report.times("supply.rung", "spot's answer -> on-demand asked for at EC2", &times, target);
}

/// Many nodes and pods. Returns the instances, and what the provisioner has in memory then, in MiB.
async fn fleet(lab: &Lab, provisioner: &Provisioner) -> (Vec<String>, f64) {
    let instances = lab.nodes(NODES).await;
    let make = |thing| async move { drop(lab.cluster.create(&thing).await) };
    let pods = (0..PODS).map(|n| a_pod(&format!("p{n}")).on(&format!("node-{}", instances[n % NODES])));
    futures::stream::iter(pods.map(make)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    // By then EC2 has been asked for the instances of all of them.
    tokio::time::sleep(RESYNC + Duration::from_secs(5)).await;
    (instances, status_mib(provisioner.process.id(), "VmRSS"))
}

/// All at once.
async fn storm(lab: &Lab, instances: &[String], report: &mut Report) {
    let before = lab.ec2.calls().len();
    let asked_before = counts(&scrape(&lab.cluster).await);
    let began = Instant::now();
    let confirm = |instance: &String| {
        let instance = instance.clone();
        async move { lab.confirm(&instance).await }
    };
    futures::stream::iter(instances.iter().map(confirm)).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    let confirmed = began.elapsed();
    let asked = eventually("all are asked for", Duration::from_secs(120), async || {
        let calls = lab.ec2.calls().split_off(before);
        let asked: usize = calls.iter().map(|call| call.asked.count).sum();
        if asked >= STORM { Ok(calls) } else { Err(format!("{asked} in {} calls", calls.len())) }
    })
    .await;
    let mut requests = counts(&scrape(&lab.cluster).await);
    requests.iter_mut().for_each(|(what, count)| *count -= asked_before.get(what).unwrap_or(&0.0));
    let last = asked.iter().map(|call| call.at).max().unwrap_or(began).saturating_duration_since(began);
    report.heading(&format!("Replacement: {STORM} notices at once"));
    report.figure(
        "supply.storm.confirmed",
        "all confirmed at the API server",
        Some(confirmed.as_secs_f64()),
        "s",
        None,
    );
    report.figure("supply.storm", "all requested of EC2", Some(last.as_secs_f64()), "s", Some(5.0));
    #[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
    report.figure("supply.storm.calls", "calls", Some(asked.len() as f64), "", None);
    // By whomever: the bench confirms, the provisioner writes claims, Launches and what has come of them.
    let often = requests.iter().filter(|(_, count)| **count >= 50.0);
    report.put("supply.storm.requests", often.map(|(what, n)| json!({ "request": what, "count": n })).collect());
}

/// The leader is killed: how long until the other leads.
async fn succession(lab: &Lab, first: &mut Provisioner, report: &mut Report) {
    let second = lab.provisioner().await;
    let killed = Instant::now();
    first.process.kill();
    second.leads().await;
    report.figure(
        "supply.succession",
        "leader killed -> the other leads",
        Some(killed.elapsed().as_secs_f64()),
        "s",
        None,
    );
}

/// In the simulator, as it lasts two hours: nothing anywhere, and everybody waits.
fn outage(report: &mut Report) {
    const HOURS: u64 = 2;
    let nothing = |capacity| Step::Left { capacity, zone: None, left: Some(0) };
    let world = a_cluster(WAITING).at(1_000, nothing(CapacityType::Spot)).at(1_000, nothing(CapacityType::OnDemand));
    let doomed_ms = 5_000;
    let world = world.at(doomed_ms, Step::DoomMany { from: 0, count: WAITING });
    let end = world.until(doomed_ms + HOURS * 3_600_000).run();
    assert!(end.findings.is_empty() && end.figures.launched == 0, "{:?}", end.findings);
    report.heading(&format!("Total outage of spot and on-demand, {WAITING} claims waiting (simulator)"));
    #[expect(clippy::cast_precision_loss, reason = "a few hundred calls")]
    let calls = end.figures.calls as f64 / HOURS as f64;
    report.figure("supply.outage", "launch calls an hour", Some(calls), "", None);
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
fn size_mib() -> Option<f64> {
    std::fs::metadata(provisioner::binary()).ok().map(|file| file.len() as f64 / 1024.0 / 1024.0)
}
