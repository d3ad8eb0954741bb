//! One test's corner of the shared control plane: its namespace, its nodes, its workloads, and questions about them.

use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, uuid};
use super::facts::eventually;
use super::objects::{Thing, a_node};

/// How long the control plane may take for what it does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
}

/// A node of a test, and the instance it runs on.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub name: String,
    pub instance: String,
}

impl Cluster {
    /// A new namespace on the shared control plane.
    pub async fn new(what: &str) -> Cluster {
        Cluster::on(ControlPlane::shared, what).await
    }

    /// A new namespace on this control plane.
    pub async fn on(plane: fn() -> &'static ControlPlane, what: &str) -> Cluster {
        let plane = tokio::task::spawn_blocking(plane).await.expect("the lab starts");
        let client = plane.client().await;
        let cluster = Cluster { plane, client, namespace: format!("{what}-{}", &uuid()[..6]) };
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": cluster.namespace } });
        cluster.create(&Thing(namespace)).await;
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/default", cluster.namespace);
        eventually("the namespace has its ServiceAccount", PATIENCE, async || cluster.get(&account).await.map(drop))
            .await;
        cluster
    }

    /// A node of this test alone.
    pub async fn node(&self, name: &str) -> NodeHandle {
        let instance = format!("i-{:017x}", u128::from(fastrand::u64(..)));
        self.node_on(name, &instance).await
    }

    /// A node of this test alone, on this instance.
    pub async fn node_on(&self, name: &str, instance: &str) -> NodeHandle {
        let instance = instance.to_owned();
        let name = format!("{}-{name}", self.namespace);
        self.create(&a_node(&name, &instance).labelled("lab.spotkeeper.dev/of", &self.namespace)).await;
        let node = NodeHandle { name, instance };
        eventually("the node is ready", PATIENCE, async || {
            let seen = self.node_json(&node).await;
            let ready = seen["status"]["conditions"].as_array().into_iter().flatten();
            let ready = ready.filter(|c| c["type"] == "Ready" && c["status"] == "True").count() > 0;
            let tainted = seen["spec"]["taints"].as_array().is_some_and(|t| !t.is_empty());
            if ready && !tainted { Ok(()) } else { Err(seen["spec"].to_string()) }
        })
        .await;
        node
    }

    /// A pod template's wish to run only on this test's nodes.
    pub fn here(&self, thing: Thing) -> Thing {
        thing.where_label("lab.spotkeeper.dev/of", &self.namespace)
    }

    /// Creates it, in this test's namespace where it has one.
    pub async fn create(&self, thing: &Thing) -> Value {
        self.try_create(thing).await.unwrap_or_else(|e| panic!("{}: {e}", thing.0))
    }

    pub async fn try_create(&self, thing: &Thing) -> Result<Value, String> {
        let path = self.collection(&thing.0);
        let created = self.send("POST", &path, "application/json", &thing.0).await?;
        if thing.0["kind"] == "Node" {
            let path = format!("{path}/{}/status", thing.name());
            let status = json!({ "status": thing.0["status"] });
            return self.send("PATCH", &path, "application/merge-patch+json", &status).await;
        }
        Ok(created)
    }

    fn collection(&self, object: &Value) -> String {
        let (api, kind) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
        let plural = format!("{}s", kind.to_lowercase());
        let base = if api == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api}") };
        match kind {
            "Node" | "Namespace" | "Interruption" => format!("{base}/{plural}"),
            _ => format!("{base}/namespaces/{}/{plural}", self.namespace),
        }
    }

    /// One request with a JSON body.
    pub async fn send(&self, method: &str, path: &str, content: &str, body: &Value) -> Result<Value, String> {
        send(&self.client, method, path, content, body).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, String> {
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        self.client.request::<Value>(request).await.map_err(|e| e.to_string())
    }

    pub async fn delete(&self, path: &str) -> Result<Value, String> {
        self.send("DELETE", path, "application/json", &json!({})).await
    }

    pub async fn node_json(&self, node: &NodeHandle) -> Value {
        self.get(&format!("/api/v1/nodes/{}", node.name)).await.unwrap_or_default()
    }

    /// Patches the Node as somebody else would.
    pub async fn patch_node(&self, node: &NodeHandle, patch: &Value) -> Result<Value, String> {
        self.send("PATCH", &format!("/api/v1/nodes/{}", node.name), "application/merge-patch+json", patch).await
    }

    /// The instance starts anew: the kubelet reports another boot.
    pub async fn reboot(&self, node: &NodeHandle) {
        let path = format!("/api/v1/nodes/{}/status", node.name);
        let patch = json!({ "status": { "nodeInfo": { "bootID": format!("boot-{}", uuid()) } } });
        self.send("PATCH", &path, "application/merge-patch+json", &patch).await.expect("the status is patched");
    }

    /// The Interruption of the node's instance; `Null` where there is none.
    pub async fn interruption(&self, node: &NodeHandle) -> Value {
        let path = format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{}", node.instance);
        self.get(&path).await.unwrap_or_default()
    }

    /// The names of the pods on the node, without the agent's own.
    pub async fn pods_on(&self, node: &NodeHandle) -> Vec<String> {
        self.pod_list(node).await.into_iter().map(|pod| text(&pod["metadata"]["name"])).collect()
    }

    pub async fn pod_list(&self, node: &NodeHandle) -> Vec<Value> {
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", node.name);
        let list = self.get(&path).await.unwrap_or_default();
        // The agents' own DaemonSet has a pod on every node.
        let others = |pod: &&Value| pod["metadata"]["namespace"] != super::agent::NAMESPACE;
        list["items"].as_array().into_iter().flatten().filter(others).cloned().collect()
    }

    /// Waits until this many pods run on the node.
    pub async fn running(&self, node: &NodeHandle, pods: usize) {
        eventually(&format!("{pods} pods run on {}", node.name), PATIENCE, async || {
            let list = self.pod_list(node).await;
            let running = list.iter().filter(|pod| pod["status"]["phase"] == "Running").count();
            if running == pods { Ok(()) } else { Err(format!("{running} of {}", list.len())) }
        })
        .await;
    }

    /// Waits for a phase of the node's Interruption, and returns it.
    pub async fn phase(&self, node: &NodeHandle, phase: &str, patience: Duration) -> Value {
        eventually(&format!("{} is {phase}", node.name), patience, async || {
            let seen = self.interruption(node).await;
            if seen["status"]["phase"] == phase { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    }

    /// Waits for a budget to have been taken note of by the controller that keeps it.
    pub async fn budget_is_kept(&self, name: &str) {
        let path = format!("/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{name}", self.namespace);
        eventually(&format!("budget {name} is kept"), PATIENCE, async || {
            let seen = self.get(&path).await?;
            let kept = seen["status"]["observedGeneration"] == seen["metadata"]["generation"]
                && seen["status"]["currentHealthy"].as_i64() >= Some(1);
            if kept { Ok(()) } else { Err(seen["status"].to_string()) }
        })
        .await;
    }
}

/// One request with a JSON body, of whoever the client is.
pub async fn send(client: &Client, method: &str, path: &str, content: &str, body: &Value) -> Result<Value, String> {
    let request = http::Request::builder().method(method).uri(path).header("content-type", content);
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    client.request::<Value>(request).await.map_err(|error| match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        error => error.to_string(),
    })
}

/// A JSON string's text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
