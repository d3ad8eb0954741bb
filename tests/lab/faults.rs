//! What the agent survives on the real control plane.

use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::cluster::Cluster;
use crate::support::facts::{eventually, throughout};
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

/// The resident memory of a process, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn garbage_and_refusals_of_imds_leave_nothing_behind_in_memory() {
    let cluster = Cluster::new("imds-memory").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await.arg("--imds-interval").arg("200ms");
    let mut agent = agent.start().await;
    // So many questions as five minutes of the usual pace bring, of each kind of trouble.
    let suffer = async |rounds: u64| {
        for fault in [Fault::Garbage, Fault::Status(503), Fault::GarbageTokens] {
            imds.fault(fault);
            let until = imds.total() + rounds;
            eventually("it goes on asking", Duration::from_secs(60), async || match imds.total() {
                asked if asked >= until => Ok(()),
                asked => Err(format!("{asked} of {until}")),
            })
            .await;
        }
    };
    suffer(40).await;
    let before = resident_kib(agent.process.id());
    suffer(150).await;
    let after = resident_kib(agent.process.id());
    assert!(after <= before + 512, "{before} KiB before, {after} KiB after");
    assert!(agent.process.ended().is_none());
    imds.fault(Fault::None);
    imds.spot("terminate", Duration::from_secs(60));
    cluster.phase(&node, "Drained", Duration::from_secs(10)).await;
}

#[tokio::test]
async fn without_its_rights_an_agent_stays_and_says_which_are_missing() {
    let cluster = Cluster::new("rights").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await;
    // The token of an account that may tell of its troubles, and nothing else.
    let account = serde_json::json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "nobody" } });
    let may_tell = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "nobody" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "spotkeeper-agent-events" },
        "subjects": [{ "kind": "ServiceAccount", "name": "nobody", "namespace": "spotkeeper" }],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    cluster.send("POST", bindings, "application/json", &may_tell).await.unwrap();
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
    eventually("an event on its Node says so", SOON, async || {
        let list = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events?limit=500").await?;
        let of_node = |event: &&serde_json::Value| event["regarding"]["name"] == node.name.as_str();
        let mut all = list["items"].as_array().into_iter().flatten().filter(of_node);
        let says = |event: &serde_json::Value| event["note"].to_string().contains("not allowed to patch nodes");
        if all.any(says) { Ok(()) } else { Err("no event yet".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_on_the_wrong_node_touches_nothing_and_says_what_contradicts() {
    let cluster = Cluster::new("wrong").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name)).await;
    cluster.running(&node, 1).await;
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
    throughout("nothing is done to the node, its pod or a record", Duration::from_secs(8), async || {
        if cluster.node_json(&node).await["spec"]["unschedulable"] == true {
            return Err("the node is cordoned".to_owned());
        }
        let going = |pod: &serde_json::Value| pod["metadata"]["deletionTimestamp"].is_string();
        let pods = cluster.pod_list(&node).await;
        if !pods.iter().any(|pod| pod["metadata"]["name"] == "web" && !going(pod)) {
            return Err(format!("{pods:?}"));
        }
        let all = cluster.get("/apis/spotkeeper.dev/v1alpha1/interruptions/i-0000000000000dead").await;
        if all.is_ok() { Err(format!("{all:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_registered_anew_in_the_middle_of_a_drain_is_marked_again() {
    let cluster = Cluster::new("anew").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let _agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    imds.spot("terminate", Duration::from_secs(120));
    let marked = async || {
        let seen = cluster.node_json(&node).await;
        let ours = seen["spec"]["taints"].to_string().contains("spotkeeper.dev/interruption");
        if seen["spec"]["unschedulable"] == true && ours { Ok(seen) } else { Err(seen["spec"].to_string()) }
    };
    let first = eventually("the node is marked", SOON, marked).await;
    // What a kubelet does whose Node somebody has deleted.
    let path = format!("/api/v1/nodes/{}", node.name);
    cluster.delete(&path).await.unwrap();
    let mut again = first.clone();
    for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        again["metadata"].as_object_mut().unwrap().remove(field);
    }
    again["metadata"]["annotations"] = serde_json::Value::Null;
    let labels = again["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove("node.kubernetes.io/exclude-from-external-load-balancers").expect("it was marked");
    again["spec"] = serde_json::json!({ "providerID": first["spec"]["providerID"] });
    cluster.send("POST", "/api/v1/nodes", "application/json", &again).await.unwrap();
    let second = eventually("it is marked again", SOON, marked).await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    eventually("its record belongs to it", SOON, async || {
        let record = cluster.interruption(&node).await;
        let owner = &record["metadata"]["ownerReferences"][0]["uid"];
        if *owner == second["metadata"]["uid"] { Ok(()) } else { Err(record.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn an_agent_whose_clock_is_an_hour_off_keeps_the_deadline_over_a_restart() {
    for hours in [-1, 1] {
        let cluster = Cluster::new(&format!("clock{hours}")).await;
        let node = cluster.node("a").await;
        cluster.create(&a_deployment("held", 1).where_label("kubernetes.io/hostname", &node.name).grace(3)).await;
        cluster.create(&a_budget("held", "held")).await;
        cluster.running(&node, 1).await;
        cluster.budget_is_kept("held").await;
        let imds = Imds::start(&node.instance).await;
        // AWS's clock is right: to the agent it is the same whether AWS's or its own is off.
        imds.clock(jiff::SignedDuration::from_hours(hours));
        let mut agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
        let began = std::time::Instant::now();
        imds.spot("terminate", Duration::from_secs(40));
        cluster.phase(&node, "Draining", SOON).await;
        agent.restart();
        agent.ready().await;
        // Only its own record is left to know it by: D − 5 s − 3 s is its latest start.
        let drained = cluster.phase(&node, "Drained", Duration::from_secs(60)).await;
        assert_eq!(drained["status"]["pods"]["deleted"], 1, "{drained}");
        let took = began.elapsed();
        assert!((30..41).contains(&took.as_secs()), "{hours} h: {took:?}");
        agent.process.kill();
    }
}
