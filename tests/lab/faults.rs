//! What the agent survives on the real control plane.

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::cluster::Cluster;
use crate::support::facts::eventually;
use crate::support::imds::{Fault, Imds};
use crate::support::objects::{a_budget, a_deployment, a_pod};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_agent_that_is_killed_in_the_middle_of_a_drain_goes_on_where_it_was() {
    let cluster = Cluster::new("killed").await;
    let node = cluster.node("a").await;
    cluster.create(&a_deployment("held", 1).where_label("kubernetes.io/hostname", &node.name).grace(3)).await;
    cluster.create(&a_budget("held", "held")).await;
    cluster.create(&a_pod("slow").on(&node.name).grace(20).ends_after(8)).await;
    cluster.running(&node, 2).await;
    cluster.budget_is_kept("held").await;
    let imds = Imds::start(&node.instance).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    imds.spot("terminate", Duration::from_secs(40));
    let first = cluster.phase(&node, "Draining", SOON).await;
    eventually("the slow pod is going", SOON, async || {
        let pods = cluster.pod_list(&node).await;
        let going = |pod: &&serde_json::Value| pod["metadata"]["deletionTimestamp"].is_string();
        if pods.iter().filter(going).any(|pod| pod["metadata"]["name"] == "slow") {
            Ok(())
        } else {
            Err("not yet".into())
        }
    })
    .await;
    for _ in 0..3 {
        agent.restart();
        agent.ready().await;
    }
    let last = cluster.phase(&node, "Drained", Duration::from_secs(45)).await;
    assert_eq!(last["status"]["episode"], first["status"]["episode"]);
    assert_eq!(last["status"]["timeline"]["noticedAt"], first["status"]["timeline"]["noticedAt"]);
    let log = agent.process.log();
    let asked = log.lines().filter(|line| line.contains("/slow\"") && line.contains("\"verb\"")).count();
    assert_eq!(asked, 1, "what was acknowledged is not asked again:\n{log}");
}

#[tokio::test]
async fn whatever_imds_does_the_agent_stays_and_sees_the_notice_when_it_recovers() {
    let cluster = Cluster::new("imds-faults").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    let unready = async |agent: &crate::support::agent::Running| {
        eventually("readiness says that IMDS does not answer", SOON, async || {
            let (status, body) = agent.admin("/readyz").await?;
            if status == 503 && body.contains("imds") { Ok(()) } else { Err(body) }
        })
        .await;
    };
    for fault in [Fault::Status(503), Fault::DenyTokens, Fault::Hang, Fault::Reset] {
        imds.fault(fault);
        unready(&agent).await;
        imds.fault(Fault::None);
        agent.ready().await;
    }
    imds.refuse();
    unready(&agent).await;
    assert!(agent.process.ended().is_none(), "it never exits");
    imds.spot("terminate", Duration::from_secs(60));
    imds.forget_tokens();
    imds.recover().await;
    cluster.phase(&node, "Drained", Duration::from_secs(10)).await;
}

#[tokio::test]
async fn without_its_rights_an_agent_stays_and_says_which_are_missing() {
    let cluster = Cluster::new("rights").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await;
    // The token of an account that nobody gave anything.
    let account = serde_json::json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "nobody" } });
    let path = "/api/v1/namespaces/spotkeeper/serviceaccounts";
    let _ = cluster.send("POST", path, "application/json", &account).await;
    let made = serde_json::json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 3600 },
    });
    let answer = cluster.send("POST", &format!("{path}/nobody/token"), "application/json", &made).await.unwrap();
    let agent = agent.with_token(answer["status"]["token"].as_str().unwrap()).spawn();
    eventually("it is not ready, and names the permission", SOON, async || {
        let (status, body) = agent.admin("/readyz").await?;
        if status == 503 && body.contains("not allowed to patch nodes") { Ok(()) } else { Err(body) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_on_the_wrong_node_touches_nothing_and_says_what_contradicts() {
    let cluster = Cluster::new("wrong").await;
    let node = cluster.node("a").await;
    let imds = Imds::start("i-0000000000000dead").await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await.spawn();
    eventually("it is not ready, and says why", SOON, async || {
        let (status, body) = agent.admin("/readyz").await?;
        if status == 503 && body.contains("NODE_NAME") { Ok(()) } else { Err(body) }
    })
    .await;
    imds.spot("terminate", Duration::from_secs(60));
    eventually("it says that it cannot mark the node", SOON, async || {
        if agent.decided("MarkFailed") > 0 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    assert_ne!(cluster.node_json(&node).await["spec"]["unschedulable"], true);
}
