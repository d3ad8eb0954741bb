//! What a stolen agent token is worth: one node. Every act that must be refused is listed, and every act that the agent
//! needs is shown to be allowed, both with rights on pods of its own and with the node's identity.

use serde_json::{Value, json};

use crate::support::agent;
use crate::support::cluster::{Cluster, NodeHandle, send};
use crate::support::control_plane::ControlPlane;
use crate::support::objects::a_pod;

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";

/// The thief: a client with agent A's token.
struct Thief {
    own: kube::Client,
    /// The same token, speaking as node A.
    as_a: kube::Client,
    /// The same token, trying to speak as node B.
    as_b: kube::Client,
}

struct Scene {
    cluster: Cluster,
    a: NodeHandle,
    b: NodeHandle,
    thief: Thief,
}

async fn scene(plane: fn() -> &'static ControlPlane, name: &str) -> Scene {
    let cluster = Cluster::on(plane, name).await;
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    for (pod, node) in [("on-a", &a), ("also-on-a", &a), ("on-b", &b)] {
        cluster.create(&a_pod(pod).on(&node.name)).await;
    }
    cluster.running(&a, 2).await;
    cluster.running(&b, 1).await;
    let (_, token) = agent::token(&cluster, &a.name).await;
    let thief = Thief {
        own: cluster.plane.client_of(&token).await,
        as_a: cluster.plane.client_as(&token, &format!("system:node:{}", a.name)).await,
        as_b: cluster.plane.client_as(&token, &format!("system:node:{}", b.name)).await,
    };
    Scene { cluster, a, b, thief }
}

/// One act: what it is, who does it, and the request.
struct Act<'a>(&'a str, &'a kube::Client, &'a str, String, &'a str, Value);

async fn refused(acts: Vec<Act<'_>>) {
    let mut succeeded = Vec::new();
    for Act(what, who, method, path, content, body) in acts {
        match send(who, method, &path, content, &body).await {
            Ok(_) => succeeded.push(what.to_owned()),
            // A refusal, not a mistake of the test's: those are 400, 404, 409, 415 and 422.
            Err(why) if why.starts_with("403") => {}
            Err(why) => succeeded.push(format!("{what}: not refused as forbidden but: {why}")),
        }
    }
    assert!(succeeded.is_empty(), "not refused:\n  {}", succeeded.join("\n  "));
}

async fn allowed(acts: Vec<Act<'_>>) {
    for Act(what, who, method, path, content, body) in acts {
        if let Err(why) = send(who, method, &path, content, &body).await {
            panic!("{what} is not allowed: {why}");
        }
    }
}

fn node(of: &NodeHandle) -> String {
    format!("/api/v1/nodes/{}", of.name)
}

fn eviction(pod: &str) -> Value {
    json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod } })
}

/// An Interruption of `of`'s instance, with one notice.
fn record(of: &NodeHandle, source: &str, event: &str, reporter: &str) -> Value {
    json!({
        "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "metadata": { "name": of.instance },
        "spec": {
            "instanceID": of.instance, "nodeName": of.name, "providerID": format!("aws:///eu-west-1a/{}", of.instance),
            "notices": [{ "source": source, "kind": "SpotInterruption", "eventID": event, "reporter": reporter }],
        },
    })
}

fn apply(of: &NodeHandle, manager: &str) -> String {
    let name = &of.instance;
    format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{name}?fieldManager={manager}&force=true")
}

fn status(of: &NodeHandle) -> String {
    format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{}/status", of.instance)
}

/// What is refused in every installation.
async fn never(scene: &Scene) {
    let Scene { cluster, a, b, thief } = scene;
    let pods = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let (own, as_a, as_b) = (&thief.own, &thief.as_a, &thief.as_b);
    // Node B's record, as its own agent would have written it.
    let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
    cluster.send("POST", path, JSON, &record(b, "imds", "real", &b.name)).await.expect("the administrator may");
    let bind = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    let secrets = "/api/v1/namespaces/kube-system/secrets".to_owned();
    let tokens = "/api/v1/namespaces/spotkeeper/serviceaccounts/spotkeeper-agent/token".to_owned();
    let exec = format!("{pods}/on-a/exec?command=id&stdout=true");
    refused(vec![
        Act("patch node B", own, "PATCH", node(b), MERGE, json!({ "spec": { "unschedulable": true } })),
        Act("taint node B", own, "PATCH", node(b), MERGE, json!({ "spec": { "taints": [{ "key": "spotkeeper.dev/interruption", "effect": "NoExecute" }] } })),
        Act("a foreign label on node A", own, "PATCH", node(a), MERGE, json!({ "metadata": { "labels": { "pool": "mine" } } })),
        Act("a foreign annotation on node A", own, "PATCH", node(a), MERGE, json!({ "metadata": { "annotations": { "x": "y" } } })),
        Act("a foreign taint on node A", own, "PATCH", node(a), MERGE, json!({ "spec": { "taints": [{ "key": "mine", "effect": "NoExecute" }] } })),
        Act("another spec field of node A", own, "PATCH", node(a), MERGE, json!({ "spec": { "podCIDR": "10.9.0.0/24" } })),
        Act("a finalizer on node A", own, "PATCH", node(a), MERGE, json!({ "metadata": { "finalizers": ["example.com/x"] } })),
        Act("node A's status", own, "PATCH", node(a) + "/status", MERGE, json!({ "status": { "phase": "Running" } })),
        Act("delete node A", own, "DELETE", node(a), JSON, json!({})),
        Act("delete node B", own, "DELETE", node(b), JSON, json!({})),
        Act("delete a pod on node B", own, "DELETE", format!("{pods}/on-b"), JSON, json!({})),
        Act("delete a pod on node B as node A", as_a, "DELETE", format!("{pods}/on-b"), JSON, json!({})),
        Act("delete a pod on node B as node B", as_b, "DELETE", format!("{pods}/on-b"), JSON, json!({})),
        Act("evict a pod on node B as node A", as_a, "POST", format!("{pods}/on-b/eviction"), JSON, eviction("on-b")),
        Act("evict a pod on node B as node B", as_b, "POST", format!("{pods}/on-b/eviction"), JSON, eviction("on-b")),
        Act("list all pods as node A", as_a, "GET", "/api/v1/pods".into(), JSON, json!({})),
        Act("list node B's pods as node A", as_a, "GET", format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", b.name), JSON, json!({})),
        Act("list secrets", own, "GET", secrets.clone(), JSON, json!({})),
        Act("list secrets as node A", as_a, "GET", secrets, JSON, json!({})),
        Act("create a pod", own, "POST", pods.clone(), JSON, a_pod("mine").0),
        Act("create a pod as node A", as_a, "POST", pods.clone(), JSON, a_pod("mine").on(&a.name).0),
        Act("exec into a pod", own, "POST", exec.clone(), JSON, json!({})),
        Act("exec into a pod as node A", as_a, "POST", exec, JSON, json!({})),
        Act("mint a token", own, "POST", tokens.clone(), JSON, bind.clone()),
        Act("mint a token as node A", as_a, "POST", tokens, JSON, bind),
        Act("taint node A as node A", as_a, "PATCH", node(a), MERGE, json!({ "spec": { "taints": [] } })),
        Act("write B's Interruption status", own, "PATCH", status(b), MERGE, json!({ "status": { "episode": 9 } })),
        Act("delete an Interruption", own, "DELETE", apply(b, "x"), JSON, json!({})),
        Act("report as B", own, "PATCH", apply(b, "x1"), APPLY, record(b, "sqs", "e1", &b.name)),
        Act("report imds for B", own, "PATCH", apply(b, "x2"), APPLY, record(b, "imds", "e2", &a.name)),
        Act("report as operator", own, "PATCH", apply(b, "x3"), APPLY, record(b, "operator", "e3", &a.name)),
        Act("report as provisioner", own, "PATCH", apply(b, "x4"), APPLY, record(b, "provisioner", "e4", &a.name)),
        Act("ask for A as an operator", own, "PATCH", apply(a, "x5"), APPLY, record(a, "operator", "e5", &a.name)),
        Act("replace what B has reported", own, "PATCH", apply(b, "x6"), APPLY, record(b, "imds", "real", &a.name)),
        Act("take a lease in another namespace", own, "POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases".into(), JSON,
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "kube-scheduler" } })),
        Act("read config maps", own, "GET", "/api/v1/configmaps".into(), JSON, json!({})),
    ])
    .await;
}

/// What the agent of node A does in a drain.
async fn needed(scene: &Scene, pods_as: &kube::Client) {
    let Scene { cluster, a, thief, .. } = scene;
    let own = &thief.own;
    let pods = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let mark = json!({
        "metadata": {
            "annotations": { "spotkeeper.dev/interruption": "{}" },
            "labels": { "node.kubernetes.io/exclude-from-external-load-balancers": "true" },
        },
        "spec": { "unschedulable": true, "taints": [{ "key": "spotkeeper.dev/interruption", "effect": "NoSchedule" }] },
    });
    allowed(vec![
        Act("marking its own node", own, "PATCH", node(a), MERGE, mark),
        Act("reporting what its own IMDS says", own, "PATCH", apply(a, "m1"), APPLY, record(a, "imds", "e1", &a.name)),
        Act("its own Interruption's status", own, "PATCH", status(a), MERGE, json!({ "status": { "episode": 1 } })),
        Act(
            "listing its own node's pods",
            pods_as,
            "GET",
            format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", a.name),
            JSON,
            json!({}),
        ),
        Act("evicting a pod of its own node", pods_as, "POST", format!("{pods}/on-a/eviction"), JSON, eviction("on-a")),
        Act("deleting a pod of its own node", pods_as, "DELETE", format!("{pods}/also-on-a"), JSON, json!({})),
    ])
    .await;
}

#[tokio::test]
async fn with_rights_on_pods_of_its_own_a_stolen_token_is_confined_by_admission() {
    let scene = scene(ControlPlane::shared, "thief-own").await;
    never(&scene).await;
    let own = scene.thief.own.clone();
    needed(&scene, &own).await;
    // The queue's readers speak for every node, and are believed by none.
    let word = record(&scene.b, "sqs", "heard", &scene.a.name);
    allowed(vec![Act("reporting the queue's word on B", &own, "PATCH", apply(&scene.b, "q1"), APPLY, word)]).await;
    // The documented exception, shown so that nobody believes otherwise: an eviction names no node.
    let path = format!("/api/v1/namespaces/{}/pods/on-b/eviction", scene.cluster.namespace);
    allowed(vec![Act("evicting elsewhere", &own, "POST", path, JSON, eviction("on-b"))]).await;
}

#[tokio::test]
async fn with_the_nodes_identity_a_stolen_token_is_worth_one_node() {
    let scene = scene(ControlPlane::strict, "thief-node").await;
    never(&scene).await;
    let Scene { cluster, a, b, thief } = &scene;
    let pods = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let own = &thief.own;
    refused(vec![
        Act("evict a pod on node B", own, "POST", format!("{pods}/on-b/eviction"), JSON, eviction("on-b")),
        Act("evict a pod on node A as itself", own, "POST", format!("{pods}/on-a/eviction"), JSON, eviction("on-a")),
        Act("list all pods", own, "GET", "/api/v1/pods".into(), JSON, json!({})),
        Act("report the queue's word on B", own, "PATCH", apply(b, "q1"), APPLY, record(b, "sqs", "heard", &a.name)),
    ])
    .await;
    let as_a = thief.as_a.clone();
    needed(&scene, &as_a).await;
}
