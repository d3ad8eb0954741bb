//! AWS's own mock of the instance metadata service: the independent witness.
//!
//! It is less faithful than [`super::imds`], but it was not written by us.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::control_plane::PARTS;
use super::facts::eventually;
use super::imds::{TOKEN, TTL_HEADER};
use super::process::{Process, free_port};

/// A running mock, IMDSv2 only.
pub struct AwsMock {
    _process: Process,
    endpoint: String,
}

impl AwsMock {
    /// Marked for termination `after` its start; the announced time is `at`, or without one two minutes after each
    /// poll. A rebalance recommendation comes with the notice.
    pub async fn spot(dir: &Path, instance: &str, after: Duration, at: Option<Timestamp>) -> AwsMock {
        let mut args = vec!["spot".to_owned(), "--action=terminate".to_owned(), delay("mock", after)];
        args.extend(at.map(|at| format!("--time={}", at.strftime("%Y-%m-%dT%H:%M:%SZ"))));
        AwsMock::start(dir, instance, &args).await
    }

    /// A rebalance recommendation `after` its start, and no interruption for an hour.
    pub async fn rebalance(dir: &Path, instance: &str, after: Duration) -> AwsMock {
        let args = ["spot".to_owned(), delay("rebalance", after), delay("mock", Duration::from_secs(3600))];
        AwsMock::start(dir, instance, &args).await
    }

    /// One scheduled event from its start on, to begin `left` later; `state` is `active`, `completed` or `canceled`.
    pub async fn maintenance(dir: &Path, instance: &str, code: &str, state: &str, left: Duration) -> AwsMock {
        let not_before = (Timestamp::now() + left).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let args = [format!("--code={code}"), format!("--state={state}"), format!("--not-before={not_before}")];
        AwsMock::start(dir, instance, &[&["events".to_owned()], &args[..]].concat()).await
    }

    async fn start(dir: &Path, instance: &str, args: &[String]) -> AwsMock {
        let port = free_port();
        let config = dir.join(format!("imds-mock-{port}.json"));
        let values = json!({
            "metadata": { "values": { "instance-id": instance, "instance-life-cycle": "spot" } },
            "dynamic": { "values": { "instance-identity-document": { "instanceId": instance } } },
        });
        std::fs::write(&config, values.to_string()).expect("the mock's configuration can be written");
        let mut command = Command::new(PARTS.join("ec2-metadata-mock"));
        // Without --mock-ip-count=-1 only the first two clients are told.
        command.args(args).args(["--hostname=127.0.0.1", "--imdsv2", "--mock-ip-count=-1"]);
        command.arg(format!("--port={port}")).arg("--config-file").arg(&config);
        let process = Process::start("ec2-metadata-mock", command, &dir.join(format!("imds-mock-{port}.log")));
        let mock = AwsMock { _process: process, endpoint: format!("http://127.0.0.1:{port}") };
        let http = reqwest::Client::new();
        eventually("the mock gives a token", Duration::from_secs(30), async || {
            let request = http.put(format!("{}{TOKEN}", mock.endpoint)).header(TTL_HEADER, "60");
            let answer = request.send().await.map_err(|e| e.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        mock
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

fn delay(of: &str, after: Duration) -> String {
    format!("--{of}-delay-sec={}", after.as_secs())
}
