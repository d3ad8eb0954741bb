//! Nodes with their pods, their IMDS and their agents, made many at a time.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use crate::support::agent::{Agent, Running};
use crate::support::cluster::{Cluster, NodeHandle};
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::objects::a_pod;

/// How many things are made at the same time: more would only wait for the controllers.
const AT_ONCE: usize = 8;

/// How long the control plane may take to place what a measurement begins with.
const PATIENCE: Duration = Duration::from_secs(120);

/// One node and what belongs to it. The agent ends with it.
pub struct Member {
    pub node: NodeHandle,
    pub imds: Imds,
    pub agent: Option<Running>,
}

impl Member {
    pub fn agent(&self) -> &Running {
        self.agent.as_ref().expect("its agent was started")
    }
}

/// Ready nodes, their names beginning with `prefix`, without agents yet.
pub async fn nodes(cluster: &Cluster, prefix: &str, count: usize) -> Vec<Member> {
    stream::iter(0..count)
        .map(async |index| {
            let node = cluster.node(&format!("{prefix}{index}")).await;
            let imds = Imds::start(&node.instance).await;
            Member { node, imds, agent: None }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Bare pods, `each` on every node, and waits until all of them run.
pub async fn bare_pods(cluster: &Cluster, members: &[Member], each: usize) {
    let pods = members.iter().flat_map(|member| (0..each).map(move |index| (member, index)));
    stream::iter(pods)
        .for_each_concurrent(AT_ONCE, async |(member, index)| {
            let name = format!("{}-{index}", member.node.name);
            cluster.create(&a_pod(&name).on(&member.node.name)).await;
        })
        .await;
    running(cluster, members.len() * each).await;
}

/// Waits until the namespace has so many running pods.
pub async fn running(cluster: &Cluster, pods: usize) {
    let path = format!("/api/v1/namespaces/{}/pods?resourceVersion=0", cluster.namespace);
    eventually("the pods run", PATIENCE, async || {
        let list = cluster.get(&path).await?;
        let phases = list["items"].as_array().into_iter().flatten().map(|pod| &pod["status"]["phase"]);
        let running = phases.filter(|phase| **phase == "Running").count();
        if running == pods { Ok(()) } else { Err(format!("{running} of {pods}")) }
    })
    .await;
}

/// Starts an agent on every node, and waits until all are ready.
pub async fn agents(cluster: &Cluster, members: &mut [Member], env: &[(&str, String)]) {
    stream::iter(members)
        .for_each_concurrent(AT_ONCE, async |member| {
            let mut agent = Agent::on(cluster, &member.node, &member.imds.endpoint()).await;
            for (key, value) in env {
                agent = agent.env(key, value);
            }
            member.agent = Some(agent.start().await);
        })
        .await;
}

/// Removes nodes, pods and records of this namespace.
pub async fn clear(cluster: &Cluster, members: Vec<Member>) {
    let ours = format!("labelSelector=lab.spotkeeper.dev%2Fof%3D{}", cluster.namespace);
    let instances: Vec<String> = members.iter().map(|member| member.node.instance.clone()).collect();
    drop(members);
    cluster.delete(&format!("/api/v1/nodes?{ours}")).await.expect("nodes are deleted");
    for instance in instances {
        // Its owner is gone: the garbage collector may have been here before.
        let _ = cluster.delete(&format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{instance}")).await;
    }
    let apps = format!("/apis/apps/v1/namespaces/{}", cluster.namespace);
    for owners in ["deployments", "replicasets"] {
        cluster.delete(&format!("{apps}/{owners}")).await.expect("the pods' owners are deleted");
    }
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    // The garbage collector is behind after a storm; what follows is to begin on a quiet cluster.
    eventually("the pods are gone", 3 * PATIENCE, async || {
        cluster.delete(&format!("{path}?gracePeriodSeconds=0")).await?;
        match cluster.get(&path).await?["items"].as_array() {
            Some(left) if !left.is_empty() => Err(format!("{} left", left.len())),
            _ => Ok(()),
        }
    })
    .await;
}
