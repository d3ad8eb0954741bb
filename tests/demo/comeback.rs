//! The second act: spot is back, and the nodes that stood in on demand give way to spot nodes.

use std::time::Duration;

use crate::story::{EC2, Story};
use crate::support::agent::Running;
use crate::support::cluster::NodeHandle;
use crate::support::imds::Imds;
use crate::{Actor, Lab, start_agent};

/// How long the return may take from when spot is back.
const PATIENCE: Duration = Duration::from_secs(75);

/// What nodes that are launched are called in the story, in the order of their launch.
const NAMES: [&str; 6] = ["d", "e", "f", "g", "h", "i"];

/// A node that was launched, and the agent that the DaemonSet has put on it.
struct Newcomer {
    node: NodeHandle,
    name: &'static str,
    agent: Running,
    _imds: Imds,
}

/// A node that stood in on demand, and the claim of the spot node in its place.
struct Move {
    old: &'static str,
    new: &'static str,
    offering: String,
    ended: bool,
    pods: usize,
}

/// Tells the story as it happens. Returns whether every stand-in gave way.
pub async fn perform(lab: &Lab<'_>, story: &Story, actors: &[Actor]) -> bool {
    println!();
    let mut newcomers = Vec::new();
    join(lab, story, &mut newcomers).await;
    story.says("Spot is back in every pool. Times of the return are shortened for the demo: 25 s of quiet instead of");
    story.says(
        "10 min, 10 s of stay instead of 30 min, and a shortage is believed for 20 s at first instead of 3 min.\n",
    );
    lab.ec2.plan().dry.clear();
    let until = story.elapsed() + PATIENCE;
    let mut moves = Vec::new();
    while story.elapsed() < until {
        join(lab, story, &mut newcomers).await;
        follow(lab, story, actors, &newcomers);
        moves = seen(lab, &newcomers).await;
        if moves.len() == 2 && moves.iter().all(|one| one.ended) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    follow(lab, story, actors, &newcomers);
    println!("\n           gave way to           of                    pods on it");
    for one in &moves {
        let gone = if one.ended { "its instance is ended" } else { "IT IS STILL THERE" };
        println!("  node {}   node {:<15}  {:<20}  {:>10}   {gone}", one.old, one.new, one.offering, one.pods);
    }
    moves.len() == 2 && moves.iter().all(|one| one.ended && one.offering.starts_with("spot"))
}

fn follow(lab: &Lab<'_>, story: &Story, actors: &[Actor], newcomers: &[Newcomer]) {
    let namespace = &lab.cluster.namespace;
    story.follow(EC2, &lab.provisioner.process, namespace);
    for (actor, name) in actors.iter().zip(["a", "b", "c"]) {
        story.follow(name, &actor.agent.process, namespace);
    }
    for one in newcomers {
        story.follow(one.name, &one.agent.process, namespace);
    }
}

/// What a DaemonSet does: an agent on every node that has joined.
async fn join(lab: &Lab<'_>, story: &Story, newcomers: &mut Vec<Newcomer>) {
    let launched = lab.ec2.launched();
    for (node, name) in launched.into_iter().zip(NAMES).skip(newcomers.len()) {
        if lab.cluster.get(&format!("/api/v1/nodes/{}", node.name)).await.is_err() {
            return;
        }
        let imds = Imds::start(&node.instance).await;
        let agent = start_agent(lab.cluster, &node, &imds, lab.moto, lab.queue).await;
        story.of(name, &format!("has joined as {}; an agent is on it", node.name));
        newcomers.push(Newcomer { node, name, agent, _imds: imds });
    }
}

/// Which stand-ins give way to what, as the API server and EC2 say.
async fn seen(lab: &Lab<'_>, newcomers: &[Newcomer]) -> Vec<Move> {
    let claims = lab.cluster.get("/apis/spotkeeper.dev/v1alpha1/nodeclaims").await.unwrap_or_default();
    let alive = lab.ec2.alive().await;
    let mut moves = Vec::new();
    for claim in claims["items"].as_array().into_iter().flatten() {
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let of = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
        let named = |instance: String| newcomers.iter().find(|one| one.node.instance == instance);
        let new = named(of(&status["instanceID"]));
        let old = named(of(&spec["replaces"]["instanceID"]));
        if spec["purpose"] != "ReturnToSpot" || status["phase"] != "Ready" {
            continue;
        }
        let (Some(new), Some(old)) = (new, old) else { continue };
        moves.push(Move {
            old: old.name,
            new: new.name,
            offering: format!(
                "{} {}",
                of(&status["offering"]["capacityType"]),
                of(&status["offering"]["instanceType"])
            ),
            ended: !alive.iter().any(|one| one.instance == old.node.instance),
            pods: lab.cluster.pod_list(&new.node).await.len(),
        });
    }
    moves
}
