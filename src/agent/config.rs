//! What a person sets of an agent, by flags or environment; checked at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::adapters::notice_server::file::NoticeFile;
use crate::adapters::sqs::check_url;
use crate::config::{LogFormat, duration, listen, log_filter};
use crate::domain::policy::MARGIN_MAX;
use crate::interruption::{DrainBy, DrainStart, Policy, Rebalance};

/// Empties this node in time when AWS announces that its instance will be taken.
///
/// Runs once on every node (a DaemonSet). It asks the instance metadata service (IMDS) every second, and with
/// --queue-url a few of all agents read the queue that EventBridge feeds. Every flag can be set by the environment
/// variable in brackets.
#[derive(Clone, Debug, Parser)]
#[command(name = "spotkeeper-agent", version, max_term_width = 110)]
pub struct Config {
    /// The name of the Node that this agent runs on (the Downward API's spec.nodeName).
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required_unless_present_any = ["queue_only", "prepare_notice_dir"])]
    pub node_name: Option<String>,

    /// The namespace for the leases of the queue's readers.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "spotkeeper")]
    pub namespace: String,

    /// The name of this pod: it holds the leases.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// The SQS queue that EventBridge feeds; without it IMDS is the only source.
    #[arg(long, env = "SPOTKEEPER_QUEUE_URL", value_name = "URL")]
    pub queue_url: Option<String>,

    /// How many agents read the queue at a time.
    #[arg(long, env = "SPOTKEEPER_QUEUE_READERS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub queue_readers: u8,

    /// Only read the queue and write Interruptions: no node of its own, no lease (for a Deployment).
    #[arg(long, env = "SPOTKEEPER_QUEUE_ONLY", requires = "queue_url")]
    pub queue_only: bool,

    /// What a rebalance recommendation does: Ignore it, Avoid the node for new pods, Replace it (Avoid, then Drain when
    /// the replacement is Ready), or Drain it (asking only). The Node's annotation spotkeeper.dev/rebalance overrides it.
    #[arg(long, env = "SPOTKEEPER_REBALANCE", value_enum, default_value = "Avoid", ignore_case = true)]
    pub rebalance: Rebalance,

    /// When a drain evicts: Immediate, or CapacityFirst: when the replacement is Ready, as far as every pod can still end
    /// in time then. The Node's annotation spotkeeper.dev/drain overrides it.
    #[arg(long, env = "SPOTKEEPER_DRAIN", value_enum, default_value = "Immediate", ignore_case = true)]
    pub drain: DrainStart,

    /// Who cordons and drains: the agent (the provisioner where that is silent for 10 s), or the provisioner: then this
    /// program only notices, tells the workloads and writes the record.
    #[arg(long, env = "SPOTKEEPER_DRAIN_BY", value_enum, default_value = "agent", ignore_case = true)]
    pub drain_by: DrainBy,

    /// How long before the deadline every pod should have ended. The Node's annotation spotkeeper.dev/margin overrides it.
    #[arg(long, env = "SPOTKEEPER_MARGIN", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub margin: Duration,

    /// How long before a scheduled event the node is emptied, beside the longest grace on it.
    #[arg(long, env = "SPOTKEEPER_SCHEDULED_LEAD", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub scheduled_lead: Duration,

    /// Say everything, do nothing: no write to Kubernetes, no message deleted, no workload told.
    #[arg(long, env = "SPOTKEEPER_DRY_RUN")]
    pub dry_run: bool,

    /// Mark the node, tell the workloads and write the record, but evict nothing.
    #[arg(long, env = "SPOTKEEPER_CORDON_ONLY")]
    pub cordon_only: bool,

    /// With whose rights pods are evicted: the node's identity (constrained impersonation, Kubernetes 1.36), the
    /// agent's own, none (as --drain-by=provisioner), or auto: the node's where the API server grants it.
    #[arg(long, env = "SPOTKEEPER_POD_ACCESS", value_enum, default_value = "auto", ignore_case = true)]
    pub pod_access: PodAccess,

    /// Where the instance metadata service is; http://[fd00:ec2::254] for IPv6.
    #[arg(long, env = "SPOTKEEPER_IMDS_ENDPOINT", value_name = "URL", default_value = "http://169.254.169.254")]
    pub imds_endpoint: String,

    /// How often IMDS is asked.
    #[arg(long, env = "SPOTKEEPER_IMDS_INTERVAL", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub imds_interval: Duration,

    /// Ask IMDS without a token where it gives none (IMDSv1).
    #[arg(long, env = "SPOTKEEPER_IMDS_V1_FALLBACK")]
    pub imds_v1_fallback: bool,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "SPOTKEEPER_ADMIN_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:9732", value_parser = listen)]
    pub admin_listen: SocketAddr,

    /// Where workloads on this node learn of a notice; pods reach it through status.hostIP.
    #[arg(long, env = "SPOTKEEPER_NOTICE_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:9733", value_parser = listen)]
    pub notice_listen: SocketAddr,

    /// Write the notice to this file as well (by atomic rename).
    #[arg(long, env = "SPOTKEEPER_NOTICE_FILE", value_name = "PATH")]
    pub notice_file: Option<PathBuf>,

    /// Create this folder for the notice file, give it to uid 65532, and exit (for an init container that runs as root).
    #[arg(long, value_name = "PATH", exclusive = true)]
    pub prepare_notice_dir: Option<PathBuf>,

    /// How log lines are written.
    #[arg(long, env = "SPOTKEEPER_LOG_FORMAT", value_enum, default_value = "json", ignore_case = true)]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace), or levels by module (`info,spotkeeper::adapters=debug`).
    #[arg(long, env = "SPOTKEEPER_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// With whose rights pods are listed, evicted and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PodAccess {
    Auto,
    Node,
    Own,
    None,
}

impl Config {
    /// What clap cannot check field by field.
    pub fn check(&self) -> Result<(), String> {
        for (flag, value) in [
            ("--node-name", &self.node_name),
            ("--pod-name", &self.pod_name),
            ("--namespace", &Some(self.namespace.clone())),
        ] {
            if value.as_deref() == Some("") {
                return Err(format!("{flag}: it is empty; the manifests fill it by the Downward API"));
            }
        }
        let endpoint = reqwest::Url::parse(&self.imds_endpoint).ok();
        if !endpoint.is_some_and(|url| url.scheme() == "http" && url.path() == "/") {
            return Err(format!("--imds-endpoint: `{}` is not a URL like http://169.254.169.254", self.imds_endpoint));
        }
        if let Some(url) = &self.queue_url {
            check_url(url).map_err(|error| format!("--queue-url: {error}"))?;
        }
        if let Some(path) = &self.notice_file {
            NoticeFile::new(path).map_err(|error| error.to_string())?;
        }
        if self.imds_interval < Duration::from_millis(200) {
            return Err("--imds-interval: below 200ms IMDS throttles the whole instance".to_owned());
        }
        if self.imds_interval > Duration::from_secs(30) {
            return Err("--imds-interval: more than 30s leaves too little of a spot notice's 120s".to_owned());
        }
        if self.scheduled_lead > Duration::from_secs(7 * 86_400) {
            return Err("--scheduled-lead: more than 168h (a week) before its time is too soon".to_owned());
        }
        if self.margin > MARGIN_MAX {
            return Err("--margin: more than 60s leaves too little of a spot notice's 120s".to_owned());
        }
        log_filter(&self.log)
    }

    /// With whose rights pods are evicted: one who leaves the drain to the provisioner needs none, and one who has none
    /// leaves it.
    pub fn pod_access(&self) -> PodAccess {
        if self.drain_by == DrainBy::Provisioner { PodAccess::None } else { self.pod_access }
    }

    /// The core's policy.
    pub fn policy(&self) -> Policy {
        Policy {
            rebalance: self.rebalance,
            drain: self.drain,
            margin: self.margin,
            scheduled_lead: self.scheduled_lead,
            cordon_only: self.cordon_only,
            drain_by: if self.pod_access == PodAccess::None { DrainBy::Provisioner } else { self.drain_by },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        let config = Config::try_parse_from([&["spotkeeper-agent"], args].concat()).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_command_is_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_named() {
        let refused = |args: &[&str]| parse(&[&["--node-name", "n"], args].concat()).unwrap_err();
        assert!(refused(&["--imds-endpoint", "169.254.169.254"]).contains("--imds-endpoint"));
        assert!(refused(&["--imds-interval", "1ms"]).contains("--imds-interval"));
        assert!(refused(&["--imds-interval", "18446744073709551s"]).contains("--imds-interval"));
        assert!(refused(&["--scheduled-lead", "18446744073709551s"]).contains("--scheduled-lead"));
        assert!(refused(&["--queue-url", "my-queue"]).contains("--queue-url"));
        assert!(refused(&["--margin", "2m"]).contains("--margin"));
        assert!(refused(&["--log", "spotkeeper=loud"]).contains("--log"));
        assert!(refused(&["--queue-only"]).contains("--queue-url"));
        assert!(parse(&[]).unwrap_err().contains("--node-name"));
        assert!(parse(&["--node-name", "n", "--rebalance", "drain"]).is_ok());
    }
}
