//! `make demo`: a real control plane, three spot nodes with a realistic set of workloads, three notices while spot has run
//! out, spot back again, and the story of what the agents and the provisioner make of it. Ends with 1 where a node was not
//! empty in time, has no stand-in, or its stand-in did not give way to a spot node.

mod comeback;
mod story;

#[path = "../support/lab.rs"]
mod support;

use std::process::ExitCode;
use std::time::Duration;

use self::story::{EC2, Story};
use self::support::agent::{Agent, Running};
use self::support::cluster::{Cluster, NodeHandle};
use self::support::control_plane::{ControlPlane, PARTS};
use self::support::ec2::Ec2;
use self::support::imds::Imds;
use self::support::moto::{Moto, Queue};
use self::support::objects::{a_budget, a_daemonset, a_deployment, a_job, a_pod, a_statefulset};
use self::support::provisioner::Provisioner;

/// What is left of AWS's two minutes in the demo.
const LEFT: Duration = Duration::from_secs(45);
const TWO_MINUTES: Duration = Duration::from_secs(120);

/// What is left of them for the forged notice: long enough to see that nothing happens.
const LEFT_FORGED: Duration = Duration::from_secs(25);

/// How long an instance takes to become a node in the demo; half a minute to a minute and a half in EC2.
const BOOT: Duration = Duration::from_secs(6);

/// The rules of the return, shortened: how long spot must have been quiet (10 min), how long an on-demand node stays
/// (30 min), how long a shortage is believed at first (3 min). The first shortages are the last, as nobody asks for spot
/// meanwhile; the return begins 45 s after them, when the doomed nodes are empty and spot is back.
const RETURNS: [&str; 4] = ["--return-after=25s", "--return-min-stay=10s", "--shortage-belief=20s", "--return-surge=2"];

/// What the demo plays on.
struct Lab<'a> {
    cluster: &'a Cluster,
    moto: &'a Moto,
    ec2: &'a Ec2,
    queue: &'a Queue<'a>,
    provisioner: &'a Provisioner,
}

/// One node of the demo.
struct Actor {
    node: NodeHandle,
    imds: Imds,
    agent: Running,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    tokio::select! {
        passed = demo() => if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE },
        // Leaving by the front door lets the lab clean up.
        _ = tokio::signal::ctrl_c() => ExitCode::from(130),
    }
}

async fn demo() -> bool {
    println!(
        "The lab: real etcd, kube-apiserver, controllers and scheduler; kwok for the kubelets; moto for SQS, EventBridge"
    );
    println!(
        "and EC2, the latter behind a layer that runs dry; instance metadata of our own. Parts in {}\n",
        PARTS.display()
    );
    let story = Story::begin();
    story.says("starting the control plane");
    let cluster = Cluster::on(ControlPlane::full, "demo").await;
    story.says("the API server is ready; the manifests of manifests/overlays/full are applied");
    let moto = Moto::start(&cluster.plane.dir).await;
    let ec2 = Ec2::start(&moto, &cluster).await;
    let template = ec2.template().await;
    let nodes = [
        ec2.node(&cluster, "a", &template).await,
        ec2.node(&cluster, "b", &template).await,
        ec2.node(&cluster, "c", &template).await,
    ];
    let pods = workloads(&cluster, &nodes).await;
    story.says(&format!(
        "three spot nodes, {pods} pods: Deployments web and api with budgets, a Deployment whose budget never allows,\n\
         {:>20}a StatefulSet, a Job, a DaemonSet, a pod of nobody's",
        ""
    ));
    let queue = moto.queue(30, 5).await;
    let mut actors = Vec::new();
    for node in nodes {
        let imds = Imds::start(&node.instance).await;
        let agent = start_agent(&cluster, &node, &imds, &moto, &queue).await;
        actors.push(Actor { node, imds, agent });
    }
    for actor in &actors {
        actor.agent.ready().await;
    }
    story.says("three agents, each with the rights of its own node only, are ready");
    let mut provisioner = Provisioner::of(&cluster, &moto, &ec2).await.arg("--resync=5s");
    for rule in RETURNS {
        provisioner = provisioner.arg(rule);
    }
    let provisioner = provisioner.arg("--prices").arg(&prices(&cluster)).start().await;
    provisioner.leads().await;
    story.says("the provisioner leads, and knows what EC2 offers\n");
    ec2.plan().dry.insert("spot", "InsufficientInstanceCapacity");
    ec2.plan().boots = Some(BOOT);
    let lab = Lab { cluster: &cluster, moto: &moto, ec2: &ec2, queue: &queue, provisioner: &provisioner };
    let well = perform(&lab, &story, &actors).await;
    let well = comeback::perform(&lab, &story, &actors).await && well;
    println!("\n{}", if well { WELL } else { "FAILED: see above." });
    well
}

const WELL: &str = "Both doomed nodes were empty in time and had stand-ins on demand at once, which gave way to spot nodes when spot was \
                    back; the forged notice touched nothing.";

/// The path of a file of on-demand prices: what EC2 asks in a region of the United States.
fn prices(cluster: &Cluster) -> String {
    let path = cluster.plane.dir.join("prices.json");
    std::fs::write(&path, r#"{"m7g.large": 0.0816, "m6g.large": 0.077, "m7g.xlarge": 0.1632}"#).expect("it is written");
    path.display().to_string()
}

/// The realistic set, spread over the nodes by the scheduler. They are nearly full with it: a node of the lab has 64
/// CPUs, and what is evicted finds no room before the stand-ins have joined. Returns how many pods run.
async fn workloads(cluster: &Cluster, nodes: &[NodeHandle]) -> usize {
    let things = [
        cluster.here(a_deployment("web", 9)).cpu("6").grace(20).ends_after(2),
        cluster.here(a_deployment("api", 6)).cpu("8").grace(10).ends_after(4),
        cluster.here(a_statefulset("db", 3)).cpu("12").grace(15).ends_after(6),
        cluster.here(a_job("train")).cpu("6").grace(20).ends_after(5),
        cluster.here(a_daemonset("logs")),
        // On the first two nodes: these two are going to be taken.
        a_deployment("ledger", 1).where_label("kubernetes.io/hostname", &nodes[0].name).grace(10).ends_after(3),
        a_pod("scratch").on(&nodes[1].name).grace(5).ends_after(1),
    ];
    let budgets = [
        a_budget("web", "web").max_unavailable(2),
        a_budget("api", "api").max_unavailable(1),
        a_budget("db", "db").max_unavailable(1),
        a_budget("ledger-never", "ledger").max_unavailable(0),
    ];
    for thing in budgets.iter().chain(&things) {
        cluster.create(thing).await;
    }
    let expected = 9 + 6 + 3 + 1 + nodes.len() + 1 + 1;
    support::facts::eventually("all workloads run", Duration::from_secs(30), async || {
        let mut running = 0;
        for node in nodes {
            running += cluster.pod_list(node).await.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
        }
        if running == expected { Ok(()) } else { Err(format!("{running} of {expected}")) }
    })
    .await;
    for budget in ["web", "api", "db", "ledger-never"] {
        cluster.budget_is_kept(budget).await;
    }
    expected
}

async fn start_agent(cluster: &Cluster, node: &NodeHandle, imds: &Imds, moto: &Moto, queue: &Queue<'_>) -> Running {
    let mut agent = Agent::on(cluster, node, &imds.endpoint()).await.arg("--queue-url").arg(&queue.url);
    for (key, value) in moto.env() {
        agent = agent.env(key, &value);
    }
    agent.spawn()
}

/// Sends the notices, tells the story as it happens, and says how it ended.
async fn perform(lab: &Lab<'_>, story: &Story, actors: &[Actor]) -> bool {
    let (cluster, moto) = (lab.cluster, lab.moto);
    let [a, b, c] = actors else { unreachable!("there are three nodes") };
    story.says(&format!(
        "AWS gives two minutes' notice. To be quicker, the demo leaves {} s of them ({} s for the third).",
        LEFT.as_secs(),
        LEFT_FORGED.as_secs()
    ));
    story.says(&format!("Spot has run out in every pool. An instance boots in {} s.", BOOT.as_secs()));
    story.restart();
    a.imds.spot("terminate", LEFT);
    story.of("a", "IMDS of node a: spot/instance-action says terminate");
    b.imds.refuse();
    moto.spot_warning_late(&b.node.instance, "terminate", TWO_MINUTES - LEFT).await;
    story.of("b", "EventBridge: spot interruption warning for node b, whose IMDS does not answer any more");
    moto.spot_warning_late(&c.node.instance, "terminate", TWO_MINUTES - LEFT_FORGED).await;
    story.of("c", "EventBridge: the same for node c, but it is not true: the IMDS of node c denies it\n");

    let mut ends = Vec::new();
    let patience = LEFT + Duration::from_secs(10);
    while ends.len() < actors.len() && story.elapsed() < patience {
        story.follow(EC2, &lab.provisioner.process, &cluster.namespace);
        for (actor, name) in actors.iter().zip(["a", "b", "c"]) {
            story.follow(name, &actor.agent.process, &cluster.namespace);
            let seen = cluster.interruption(&actor.node).await;
            let over = matches!(seen["status"]["phase"].as_str(), Some("Drained" | "Refuted"));
            if over && !ends.iter().any(|(ended, _)| *ended == name) {
                ends.push((name, seen));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ends.sort_by_key(|(name, _)| *name);
    let jobs = cluster.get(&format!("/apis/batch/v1/namespaces/{}/jobs/train", cluster.namespace)).await;
    let mut claims = Vec::new();
    for (actor, name) in actors.iter().zip(["a", "b", "c"]) {
        let path = format!("/apis/spotkeeper.dev/v1alpha1/nodeclaims/{}-1", actor.node.instance);
        if let Ok(claim) = cluster.get(&path).await {
            let stand_in = claim["status"]["nodeName"].as_str().unwrap_or_default();
            let node = NodeHandle { name: stand_in.to_owned(), instance: String::new() };
            claims.push((name, claim, cluster.pod_list(&node).await.len()));
        }
    }
    let replaced = story.replacements(&claims);
    story.summary(&ends, jobs.unwrap_or_default()["status"]["failed"].as_i64().unwrap_or(0), replaced)
}
