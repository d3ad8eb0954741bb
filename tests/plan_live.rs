//! `spotkeeper plan` on a real API server, with the shipped rights and no others.

/// The parts of the lab that this needs: no agent.
#[allow(dead_code, reason = "the lab's other tests use the rest of it")]
mod support {
    /// What the others want of it.
    pub mod agent {
        pub const NAMESPACE: &str = "spotkeeper";
    }
    pub mod cluster;
    pub mod control_plane;
    pub mod facts;
    pub mod objects;
    pub mod process;
}

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::cluster::{Cluster, NodeHandle, text};
use support::control_plane::{root, uuid};
use support::objects::{Thing, a_budget, a_deployment, a_pod};

/// What is read is the whole cluster: no two tests change it at a time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A spot node with a Deployment on it that a budget lets nobody take, and a bare pod.
async fn a_scene(what: &str) -> (Cluster, NodeHandle) {
    let cluster = Cluster::new(what).await;
    let node = cluster.node("a").await;
    let labels = json!({"metadata": {"labels": {
        "karpenter.sh/capacity-type": "spot", "node.kubernetes.io/instance-type": "m6i.16xlarge",
        "topology.kubernetes.io/zone": "eu-west-1a",
    }}});
    cluster.patch_node(&node, &labels).await.expect("the node can be labelled");
    cluster.create(&cluster.here(a_deployment("web", 2).cpu("1"))).await;
    cluster.create(&a_budget("web", "web")).await;
    cluster.create(&a_pod("lonely").on(&node.name)).await;
    cluster.running(&node, 3).await;
    cluster.budget_is_kept("web").await;
    (cluster, node)
}

/// The kubeconfig of an account of the cluster.
async fn kubeconfig(cluster: &Cluster, namespace: &str, account: &str) -> PathBuf {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let answer = cluster.send("POST", &path, "application/json", &request).await.expect("a token is given");
    let file = cluster.plane.dir.join(format!("{}.kubeconfig", uuid()));
    cluster.plane.write_kubeconfig(&file, &text(&answer["status"]["token"]));
    file
}

fn plan(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spotkeeper")).arg("plan").args(args).output().expect("the binary is built")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_live_cluster_is_read_with_the_shipped_rights_and_gives_what_kubectl_gives() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (cluster, node) = a_scene("plan").await;
    let rights = root().join("manifests/examples/plan-reader.yaml");
    let applied = cluster.plane.kubectl(&["apply", "--server-side", "-f", rights.to_str().unwrap()]).output().unwrap();
    assert!(applied.status.success(), "{}", said(&applied));
    let reader = kubeconfig(&cluster, "spotkeeper", "spotkeeper-plan").await;
    let live = plan(&["--nodes", &node.name, "--kubeconfig", reader.to_str().unwrap(), "--output", "json"]);
    assert_eq!(live.status.code(), Some(1), "{}", said(&live));
    let planned: Value = serde_json::from_slice(&live.stdout).expect("it is JSON");
    let codes: Vec<String> = planned["findings"].as_array().unwrap().iter().map(|one| text(&one["code"])).collect();
    assert_eq!(codes, ["budget-never-allows", "bare", "all-at-once"], "{planned:#}");
    assert_eq!(planned["findings"][0]["object"], format!("PodDisruptionBudget {}/web", cluster.namespace));
    assert_eq!(planned["gaps"], json!([]), "{planned:#}");
    let kinds = "nodes,pods,pdb,pv,pvc,nodepools.spotkeeper.dev,ec2nodeclasses.spotkeeper.dev";
    let written = cluster.plane.kubectl(&["get", kinds, "-A", "-o", "json"]).output().unwrap();
    assert!(written.status.success(), "{}", said(&written));
    let file = cluster.plane.dir.join("cluster.json");
    std::fs::write(&file, &written.stdout).expect("the lab's folder can be written");
    let of_file = plan(&["--nodes", &node.name, "--from", file.to_str().unwrap(), "--output", "json"]);
    assert_eq!(said(&of_file), said(&live), "both are the same cluster");
}

#[tokio::test]
async fn what_may_not_be_listed_is_said_and_left_out_only_where_that_is_asked_for() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (cluster, node) = a_scene("denied").await;
    let role = Thing(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": cluster.namespace},
        "rules": [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}]}));
    let binding = Thing(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": cluster.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster.namespace},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": cluster.namespace}]}));
    for (thing, plural) in [(role, "clusterroles"), (binding, "clusterrolebindings")] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{plural}");
        cluster.send("POST", &path, "application/json", &thing.0).await.expect("rights can be given");
    }
    let reader = kubeconfig(&cluster, &cluster.namespace, "default").await;
    let args = ["--nodes", node.name.as_str(), "--kubeconfig", reader.to_str().unwrap()];
    let strict = plan(&args);
    assert_eq!(strict.status.code(), Some(65), "{}", said(&strict));
    for named in ["poddisruptionbudgets may not be listed", "ec2nodeclasses may not be listed", "plan-reader.yaml"] {
        assert!(said(&strict).contains(named), "{named}: {}", said(&strict));
    }
    let lenient = plan(&[&args[..], &["--allow-incomplete"]].concat());
    assert!(matches!(lenient.status.code(), Some(0 | 1)), "{}", said(&lenient));
    assert!(said(&lenient).contains("Not known, and left out"), "{}", said(&lenient));
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named() {
    let nowhere = plan(&["--all-spot", "--kubeconfig", "no/such/file"]);
    assert_eq!(nowhere.status.code(), Some(65), "{}", said(&nowhere));
    assert!(said(&nowhere).contains("--kubeconfig no/such/file"), "{}", said(&nowhere));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    // Nobody listens on port 1.
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {}}], "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]});
    std::fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let silent = plan(&["--all-spot", "--kubeconfig", file]);
    assert_eq!(silent.status.code(), Some(65), "{}", said(&silent));
    assert!(said(&silent).contains("nodes cannot be listed"), "{}", said(&silent));
    let context = plan(&["--all-spot", "--kubeconfig", file, "--context", "other"]);
    assert_eq!(context.status.code(), Some(65), "{}", said(&context));
    assert!(said(&context).contains("other"), "{}", said(&context));
}
