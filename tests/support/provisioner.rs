//! Provisioners as real processes, with a token of their ServiceAccount.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::agent::NAMESPACE;
use super::cluster::{Cluster, NodeHandle, text};
use super::control_plane::uuid;
use super::ec2::Ec2;
use super::facts::eventually;
use super::moto::Moto;
use super::process::Process;

/// The binary under test: this build's, or another one named by `SPOTKEEPER_PROVISIONER` (the release, for the bench).
pub fn binary() -> PathBuf {
    std::env::var_os("SPOTKEEPER_PROVISIONER")
        .map_or_else(|| env!("CARGO_BIN_EXE_spotkeeper-provisioner").into(), PathBuf::from)
}

/// A running provisioner.
pub struct Provisioner {
    pub process: Process,
    pub name: String,
}

/// How one is to be started.
pub struct Starting {
    command: Command,
    name: String,
    log: std::path::PathBuf,
}

impl Provisioner {
    /// With the rights of the shipped manifests.
    pub async fn of(cluster: &Cluster, moto: &Moto, ec2: &Ec2) -> Starting {
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 7200 },
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/spotkeeper-provisioner/token");
        let answer = cluster.send("POST", &path, "application/json", &request).await.expect("a token is given");
        let kubeconfig = cluster.plane.dir.join(format!("provisioner-{}.kubeconfig", uuid()));
        cluster.plane.write_kubeconfig(&kubeconfig, &text(&answer["status"]["token"]));
        let name = format!("provisioner-{}", uuid());
        let mut command = Command::new(binary());
        command
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", &name)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("SPOTKEEPER_ADMIN_LISTEN", "127.0.0.1:0")
            .envs(moto.env())
            .env("AWS_ENDPOINT_URL", &ec2.endpoint);
        let log = cluster.plane.dir.join(format!("{name}.log"));
        Starting { command, name, log }
    }
}

impl Starting {
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// It runs on this node.
    pub fn on(mut self, node: &NodeHandle) -> Self {
        self.command.env("NODE_NAME", &node.name);
        self
    }

    pub fn spawn(self) -> Provisioner {
        let process = Process::start("spotkeeper-provisioner", self.command, &self.log);
        Provisioner { process, name: self.name }
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(self) -> Provisioner {
        let running = self.spawn();
        running.ready().await;
        running
    }
}

impl Provisioner {
    /// Waits until it says that it could act.
    pub async fn ready(&self) {
        eventually("the provisioner is ready", Duration::from_secs(60), async || {
            let (status, body) = self.admin("/readyz").await?;
            if status == 200 { Ok(()) } else { Err(body) }
        })
        .await;
    }

    /// A GET of its admin endpoint.
    pub async fn admin(&self, path: &str) -> Result<(u16, String), String> {
        let log = self.process.log();
        let address = log.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            (line["message"] == "serving /livez, /readyz and /metrics").then(|| text(&line["address"]))
        });
        let address = address.ok_or("it does not listen yet")?;
        let answer = reqwest::get(format!("http://{address}{path}")).await.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|e| e.to_string())?))
    }

    /// One metric's value; zero where it does not stand there.
    pub async fn metric(&self, start: &str) -> f64 {
        let body = self.admin("/metrics").await.map(|(_, body)| body).unwrap_or_default();
        let line = body.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    pub async fn leads(&self) {
        eventually("the provisioner leads", Duration::from_secs(40), async || {
            if self.metric("spotkeeper_leads ").await > 0.5 { Ok(()) } else { Err(self.process.log_tail()) }
        })
        .await;
    }

    /// How often its log has a decision with this reason.
    pub fn decided(&self, reason: &str) -> usize {
        let is =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["reason"] == reason);
        self.process.log().lines().filter(|line| is(line)).count()
    }
}
