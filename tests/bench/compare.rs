//! One story on the real control plane and in the simulator, side by side: how far the model can be trusted.
//!
//! Both play the same [`story`]: three spot nodes, one of which AWS takes. Both give the same reasons, as it is the same
//! code that decides, so that the times of these reasons can be compared. What differs is the world around it: here etcd,
//! the API server, the controllers and the scheduler are real.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use spotkeeper::domain::offering::CapacityType;
use spotkeeper::sim::system::scenario::{Pools, Scenario, Step, Which, Workload, a_cluster, a_deployment};
use spotkeeper::sim::system::{Decision, Outcome, PodState};

use crate::fleet;
use crate::report::Report;
use crate::support::agent::Agent;
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::control_plane::ControlPlane;
use crate::support::ec2::Ec2;
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::moto::Moto;
use crate::support::objects::{a_budget, a_deployment as deployment_of};
use crate::support::process::Process;
use crate::support::provisioner::Provisioner;

/// How often each story is played on the lab, and how many worlds are drawn of it.
const PLAYED: usize = 5;
const DRAWN: u64 = 200;

/// What AWS leaves in these stories, so that they end sooner.
const NOTICE: Duration = Duration::from_secs(45);
/// From when on it is given in the simulator: its agents and provisioners have begun by then.
const FROM: u64 = 60_000;
const BOOT: Duration = Duration::from_secs(6);
/// What a `CreateFleet` takes in the lab: the mean of what the simulator draws, 0.3 to 1.5 s.
const FLEET_TAKES: Duration = Duration::from_millis(900);
const NODES: usize = 3;
/// A node of the lab has 64 CPUs, one of the simulator's 8.
const CPU_FACTOR: u32 = 8;

/// The reasons whose times are compared, by who gives them, and what they are to a reader.
const ROWS: [(bool, &str, &str); 10] = [
    (true, "Noticed", "the agent has noticed"),
    (true, "Cordoned", "the node is cordoned"),
    (true, "Draining", "the drain begins"),
    (true, "Blocked", "a budget refuses for the first time"),
    (false, "Asking", "EC2 is asked"),
    (false, "FellThrough", "spot has nothing"),
    (false, "Launched", "an instance is launched"),
    (false, "Ready", "the stand-in is Ready"),
    (true, "LatestStart", "a pod is deleted at its latest start"),
    (true, "Empty", "the node is empty"),
];
const WHOLE: &str = "every workload is whole again";

/// Seconds after the notice by what happened then.
type Times = BTreeMap<&'static str, f64>;

pub async fn measure(report: &mut Report) {
    for (key, what, workloads) in stories() {
        let mut played = Vec::new();
        for _ in 0..PLAYED {
            played.push(play(&workloads).await);
        }
        let drawn: Vec<Times> = (0..DRAWN).map(|seed| simulate(&workloads, seed)).collect();
        report.heading(&format!("{what}: {PLAYED} times on the lab, {DRAWN} times in the simulator"));
        print(report, key, &played, &drawn);
    }
}

/// What is played: with room on the other nodes, and without, so that budgets wait for the stand-in.
fn stories() -> [(&'static str, &'static str, Vec<Workload>); 2] {
    let roomy = vec![a_deployment("shop/web", 9).cpu(300).grace(20).stops_in(2_000)];
    let full = vec![
        a_deployment("shop/web", 9).cpu(1_200).grace(20).stops_in(2_000).budget(2),
        a_deployment("shop/api", 6).cpu(1_500).grace(10).stops_in(4_000).budget(1),
        a_deployment("shop/ledger", 3).cpu(300).grace(10).stops_in(3_000).budget(0),
    ];
    [
        ("compare.roomy", "One node of three is taken, spot is dry, there is room elsewhere", roomy),
        ("compare.full", "One node of three is taken, spot is dry, the others are full, budgets", full),
    ]
}

/// The cluster with these workloads, and the notice then.
fn story(workloads: &[Workload], noticed_at: u64) -> Scenario {
    let dry = Step::Pools { of: Pools::of(CapacityType::Spot), left: Some(0), takes_percent: 0 };
    let taken = Step::Interrupt { of: Which::Node(0), notice_ms: NOTICE.as_millis() as u64 };
    let mut scenario = a_cluster(NODES).at(1_000, dry).at(noticed_at, taken).boots_in(BOOT.as_millis() as u64, 0);
    scenario.cloud.zones.truncate(1);
    scenario.queue = false;
    for workload in workloads {
        scenario = scenario.workload(workload.clone().starts_in(0));
    }
    scenario.until(noticed_at + 2 * NOTICE.as_millis() as u64)
}

fn simulate(workloads: &[Workload], seed: u64) -> Times {
    // Every phase of the agent's polling, as in the lab.
    let noticed_at = FROM + seed * 1_000 / DRAWN;
    let outcome = story(workloads, noticed_at).seed(seed).judge().outcome;
    assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
    let since = |at: u64| at.saturating_sub(noticed_at) as f64 / 1e3;
    let mut times = Times::new();
    for (of_agent, reason, _) in ROWS {
        let said = |one: &&Decision| one.at_ms >= noticed_at && one.reason == reason && (one.by == "agent") == of_agent;
        if let Some(first) = outcome.decisions.iter().find(said) {
            times.insert(reason, since(first.at_ms));
        }
    }
    times.insert(WHOLE, since(whole(&outcome, noticed_at)));
    times
}

/// When the last workload had all of its pods again.
fn whole(outcome: &Outcome, noticed_at: u64) -> u64 {
    let mut last = 0;
    for workload in outcome.workloads.iter().filter(|one| one.name.starts_with("shop/")) {
        let mut changes: Vec<(u64, i32)> = Vec::new();
        for pod in outcome.timelines.pods.iter().filter(|pod| pod.workload == workload.name) {
            let mut runs = false;
            for (at, _, state) in &pod.states {
                let now = *state == PodState::Running;
                changes.extend((now != runs).then_some((*at, if now { 1 } else { -1 })));
                runs = now;
            }
        }
        changes.sort_unstable();
        let mut running = 0;
        for (at, change) in changes {
            running += change;
            let whole = running == i32::try_from(workload.replicas).unwrap_or(i32::MAX);
            last = if whole && at >= noticed_at { last.max(at) } else { last };
        }
    }
    last
}

/// The same on the real control plane.
async fn play(all: &[Workload]) -> Times {
    let cluster = Cluster::on(ControlPlane::full, "compare").await;
    let moto = Moto::start(&cluster.plane.dir).await;
    let ec2 = Ec2::start(&moto, &cluster).await;
    {
        let mut plan = ec2.plan();
        plan.dry.insert("spot", "InsufficientInstanceCapacity");
        (plan.boots, plan.takes) = (Some(BOOT), FLEET_TAKES);
    }
    let template = ec2.template().await;
    let mut nodes = Vec::new();
    for name in ["a", "b", "c"] {
        nodes.push(ec2.node(&cluster, name, &template).await);
    }
    let pods = workloads(&cluster, all).await;
    fleet::running(&cluster, pods).await;
    let imds = Imds::start(&nodes[0].instance).await;
    let agent = Agent::on(&cluster, &nodes[0], &imds.endpoint()).await.start().await;
    let provisioner = Provisioner::of(&cluster, &moto, &ec2).await.start().await;
    provisioner.leads().await;
    // The phase: the time of a notice has nothing to do with that of a poll.
    tokio::time::sleep(Duration::from_secs(2).mul_f64(fastrand::f64())).await;
    let noticed = Timestamp::now();
    imds.spot("terminate", NOTICE);
    let whole = ends(&cluster, &nodes[0], &provisioner, noticed).await;
    let mut times = said(&agent.process, true, noticed);
    times.extend(said(&provisioner.process, false, noticed));
    times.insert(WHOLE, whole);
    drop((agent, provisioner));
    clear(&cluster, &nodes).await;
    times
}

/// Returns how many pods there are to be.
async fn workloads(cluster: &Cluster, all: &[Workload]) -> usize {
    let mut pods = 0;
    for one in all {
        if let Some(most) = one.max_unavailable {
            cluster.create(&a_budget(&one.name, &one.name).max_unavailable(most)).await;
        }
        let seconds = |millis: u64| u32::try_from(millis / 1_000).expect("a few seconds");
        let deployment = deployment_of(&one.name, one.replicas)
            .cpu(&format!("{}m", one.cpu_millis * CPU_FACTOR))
            .grace(seconds(one.grace_secs * 1_000))
            .ends_after(seconds(one.stops_in_ms));
        cluster.create(&cluster.here(deployment)).await;
        pods += one.replicas as usize;
    }
    for one in all.iter().filter(|one| one.max_unavailable.is_some()) {
        cluster.budget_is_kept(&one.name).await;
    }
    pods
}

/// Waits until the node is empty, its stand-in Ready and every workload whole; returns when the latter was, in seconds
/// after the notice.
async fn ends(cluster: &Cluster, node: &NodeHandle, provisioner: &Provisioner, noticed: Timestamp) -> f64 {
    let path = format!("/apis/apps/v1/namespaces/{}/deployments", cluster.namespace);
    let mut whole_since = None;
    let patience = NOTICE + BOOT + Duration::from_secs(30);
    eventually("the story has ended", patience, async || {
        let list = cluster.get(&path).await?;
        let whole = list["items"].as_array().into_iter().flatten().all(|one| {
            one["status"]["readyReplicas"] == one["spec"]["replicas"] && one["status"]["unavailableReplicas"].is_null()
        });
        let drained = cluster.interruption(node).await["status"]["phase"] == "Drained";
        let now = Timestamp::now().duration_since(noticed).as_secs_f64();
        if !whole {
            whole_since = None;
        } else {
            whole_since.get_or_insert(now);
        }
        if whole && drained && provisioner.decided("Ready") > 0 {
            return Ok(());
        }
        Err(format!("whole: {whole}, drained: {drained}"))
    })
    .await;
    whole_since.unwrap_or_default()
}

/// The first time of each reason in a program's log.
fn said(process: &Process, of_agent: bool, noticed: Timestamp) -> Times {
    let log = process.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let at = |reason: &str| {
        let line = lines.iter().filter(|line| line["reason"] == reason);
        let mut times = line.filter_map(|line| line["timestamp"].as_str()?.parse::<Timestamp>().ok());
        times.find(|at| *at >= noticed).map(|at| at.duration_since(noticed).as_secs_f64())
    };
    let rows = ROWS.iter().filter(|(by, ..)| *by == of_agent);
    rows.filter_map(|(_, reason, _)| Some((*reason, at(reason)?))).collect()
}

async fn clear(cluster: &Cluster, nodes: &[NodeHandle]) {
    let ours = "/apis/spotkeeper.dev/v1alpha1";
    for plural in ["nodeclaims", "launches", "interruptions"] {
        let list = cluster.get(&format!("{ours}/{plural}")).await.unwrap_or_default();
        for name in list["items"].as_array().into_iter().flatten().filter_map(|one| one["metadata"]["name"].as_str()) {
            let path = format!("{ours}/{plural}/{name}");
            let free = json!({ "metadata": { "finalizers": null } });
            let _ = cluster.send("PATCH", &path, "application/merge-patch+json", &free).await;
            let _ = cluster.delete(&path).await;
        }
    }
    assert_eq!(nodes.len(), NODES);
    fleet::clear(cluster, Vec::new()).await;
}

fn print(report: &mut Report, key: &str, played: &[Times], drawn: &[Times]) {
    println!("  {:<40} {:>26}   {:>26}", "seconds after the notice", "lab: least, median, most", "simulator: the same");
    let mut rows = serde_json::Map::new();
    for (reason, what) in ROWS.iter().map(|(_, reason, what)| (*reason, *what)).chain([(WHOLE, WHOLE)]) {
        let [lab, sim] = [played, drawn].map(|all| spread(all, reason));
        if lab.is_none() && sim.is_none() {
            continue;
        }
        let text = |of: &Option<[f64; 3]>| match of {
            Some([least, median, most]) => format!("{least:8.2} {median:8.2} {most:8.2}"),
            None => "never".to_owned(),
        };
        println!("  {what:<40} {:>26}   {:>26}", text(&lab), text(&sim));
        rows.insert(reason.to_owned(), json!({ "lab": lab, "simulator": sim, "unit": "s" }));
    }
    report.put(key, Value::Object(rows));
}

/// The least, the median and the most of those in which it happened; `None` where it happened in none.
fn spread(all: &[Times], reason: &str) -> Option<[f64; 3]> {
    let mut times: Vec<f64> = all.iter().filter_map(|times| times.get(reason).copied()).collect();
    times.sort_by(f64::total_cmp);
    Some([*times.first()?, times[times.len() / 2], *times.last()?])
}
