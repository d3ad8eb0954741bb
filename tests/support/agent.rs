//! Agents as real processes, with a ServiceAccount token bound to a pod on their node, as a kubelet would mount it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::cluster::{Cluster, NodeHandle, text};
use super::control_plane::uuid;
use super::facts::eventually;
use super::process::Process;

/// Where the agents' ServiceAccount lives.
pub const NAMESPACE: &str = "spotkeeper";

/// The binary under test: this build's, or another one named by `SPOTKEEPER_AGENT` (the release, for the bench).
pub fn binary() -> PathBuf {
    std::env::var_os("SPOTKEEPER_AGENT").map_or_else(|| super::AGENT.into(), PathBuf::from)
}

/// How an agent is to be started.
pub struct Agent<'a> {
    cluster: &'a Cluster,
    node: &'a NodeHandle,
    kubeconfig: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

/// A running agent.
pub struct Running {
    pub process: Process,
    kubeconfig: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
}

/// The name of the DaemonSet's pod on the node, and a token of its account that is bound to it: it carries the node's
/// name.
pub async fn token(cluster: &Cluster, node: &str) -> (String, String) {
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = eventually("the DaemonSet has a pod on the node", Duration::from_secs(30), async || {
        let list = cluster.get(&format!("{pods}?fieldSelector=spec.nodeName%3D{node}")).await?;
        let found = list["items"].as_array().into_iter().flatten().map(|pod| text(&pod["metadata"]["name"]));
        found.into_iter().find(|name| name.starts_with("spotkeeper-agent-")).ok_or_else(|| list.to_string())
    })
    .await;
    let token = token_of(cluster, "spotkeeper-agent", &pod).await;
    (pod, token)
}

/// A token for an account of the manifests, bound to this pod, as a kubelet would mount it there.
pub async fn token_of(cluster: &Cluster, account: &str, pod: &str) -> String {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": { "expirationSeconds": 7200, "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod } },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
    let answer = cluster.send("POST", &path, "application/json", &request).await.expect("a token is given");
    text(&answer["status"]["token"])
}

impl<'a> Agent<'a> {
    /// For this node, with the rights of the shipped manifests.
    pub async fn on(cluster: &'a Cluster, node: &'a NodeHandle, imds: &str) -> Agent<'a> {
        let (pod, token) = token(cluster, &node.name).await;
        let kubeconfig = cluster.plane.dir.join(format!("agent-{}.kubeconfig", uuid()));
        cluster.plane.write_kubeconfig(&kubeconfig, &token);
        let env = [
            ("NODE_NAME", node.name.as_str()),
            ("POD_NAMESPACE", NAMESPACE),
            ("POD_NAME", pod.as_str()),
            ("SPOTKEEPER_IMDS_ENDPOINT", imds),
            ("SPOTKEEPER_ADMIN_LISTEN", "127.0.0.1:0"),
            ("SPOTKEEPER_NOTICE_LISTEN", "127.0.0.1:0"),
            // Tests that run at the same time share the control plane: with two leases they would wait for each other.
            ("SPOTKEEPER_QUEUE_READERS", "16"),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        Agent { cluster, node, kubeconfig, args: Vec::new(), env }
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Speaks with another token.
    pub fn with_token(self, token: &str) -> Self {
        self.cluster.plane.write_kubeconfig(&self.kubeconfig, token);
        self
    }

    /// Speaks to the API server through this address instead (a proxy that misbehaves).
    pub fn server(self, url: &str) -> Self {
        let text = std::fs::read_to_string(&self.kubeconfig).expect("it was just written");
        let text = text.replace(&self.cluster.plane.server, url);
        std::fs::write(&self.kubeconfig, text).expect("it can be written again");
        self
    }

    /// Starts it, without waiting for anything.
    pub fn spawn(self) -> Running {
        let log = self.cluster.plane.dir.join(format!("{}-{}.log", self.node.name, uuid()));
        let (args, env, kubeconfig) = (self.args, self.env, self.kubeconfig);
        let process = launch(&args, &env, &kubeconfig, &log);
        Running { process, kubeconfig, args, env, log }
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(self) -> Running {
        let running = self.spawn();
        running.ready().await;
        running
    }
}

fn launch(args: &[String], env: &[(String, String)], kubeconfig: &std::path::Path, log: &std::path::Path) -> Process {
    let mut command = Command::new(binary());
    command.args(args).env("KUBECONFIG", kubeconfig).envs(env.iter().map(|(key, value)| (key, value)));
    Process::start("spotkeeper-agent", command, log)
}

impl Running {
    /// Starts another life of the same agent after it was killed.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.args, &self.env, &self.kubeconfig, &self.log);
    }

    /// Waits until it says on /readyz that it is ready.
    pub async fn ready(&self) {
        eventually("the agent is ready", Duration::from_secs(20), async || {
            let (status, body) = self.admin("/readyz").await?;
            if status == 200 { Ok(()) } else { Err(body) }
        })
        .await;
    }

    /// A GET of its admin endpoint.
    pub async fn admin(&self, path: &str) -> Result<(u16, String), String> {
        self.http("serving /livez, /readyz and /metrics", path).await
    }

    /// A GET of its notice endpoint.
    pub async fn notice(&self, path: &str) -> Result<(u16, String), String> {
        self.http("telling workloads", path).await
    }

    async fn http(&self, message: &str, path: &str) -> Result<(u16, String), String> {
        let address = self.address(message).ok_or("it does not listen yet")?;
        let answer = reqwest::get(format!("http://{address}{path}")).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    /// The address that its latest life bound, as its log says.
    fn address(&self, message: &str) -> Option<String> {
        let log = self.process.log();
        log.lines().rev().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == message).then(|| text(&line["address"]))
        })
    }

    /// How often its log has a decision with this reason.
    pub fn decided(&self, reason: &str) -> usize {
        let is =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["reason"] == reason);
        self.process.log().lines().filter(|line| is(line)).count()
    }

    /// One metric's value; zero where it does not stand there.
    pub async fn metric(&self, start: &str) -> f64 {
        let (_, body) = self.admin("/metrics").await.expect("metrics are served");
        let line = body.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Running {
    /// Every agent of every test is watched by its own witness: what that objects to fails the test.
    fn drop(&mut self) {
        let log = self.process.log();
        let objections: Vec<&str> = log.lines().filter(|line| line.contains("an invariant does not hold")).collect();
        if !std::thread::panicking() {
            assert!(objections.is_empty(), "{}", objections.join("\n"));
        }
    }
}
