//! What a person sets of the provisioner, by flags or environment; checked at start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::config::{LogFormat, duration, listen, log_filter};
use crate::domain::offering::CapacityType;
use crate::provision::pools::PATIENCE_MAX;
use crate::provision::shortage::BELIEF_MAX;
use crate::provision::{Settings, comeback};

/// The shortest that a shortage may be believed.
const SHORTEST_BELIEF: Duration = Duration::from_secs(10);

/// Has a replacement on its way for every node that AWS is about to take.
///
/// Runs as a Deployment of two, of which one leads. For each confirmed interruption it asks EC2 for another node like the
/// one that goes: spot first, on-demand at once where spot has run out. Every flag can be set by the environment variable
/// in brackets.
#[derive(Clone, Debug, Parser)]
#[command(name = "spotkeeper-provisioner", version, max_term_width = 110)]
pub struct Config {
    /// The name of this pod: it holds the lease.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: String,

    /// The namespace of the lease, and of the ConfigMaps with the catalog and with what is known of shortages.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "spotkeeper")]
    pub namespace: String,

    /// The Node that this pod runs on: where it is doomed, the other replica is let lead.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// The capacity types that are tried for a spot node, in this order.
    #[arg(long, env = "SPOTKEEPER_ORDER", value_name = "TYPE,…", value_delimiter = ',', default_value = "spot,on-demand", value_parser = capacity)]
    pub order: Vec<CapacityType>,

    /// How long spot is tried before the next capacity type.
    #[arg(long, env = "SPOTKEEPER_SPOT_PATIENCE", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub spot_patience: Duration,

    /// A rebalance recommendation is replaced also where its node is not kept with the policy Replace.
    #[arg(long, env = "SPOTKEEPER_REPLACE_ON_REBALANCE")]
    pub replace_on_rebalance: bool,

    /// Drain nodes whose agent has been silent for 10 s, or was told to leave it to the provisioner.
    #[arg(long, env = "SPOTKEEPER_TAKE_OVER", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub take_over: bool,

    /// How long a shortage is believed at first; doubled with each probe that fails, to 30 minutes.
    #[arg(long, env = "SPOTKEEPER_SHORTAGE_BELIEF", value_name = "DURATION", default_value = "3m", value_parser = duration)]
    pub shortage_belief: Duration,

    /// A launched instance that is no Node after this long is ended.
    #[arg(long, env = "SPOTKEEPER_REGISTRATION_TIMEOUT", value_name = "DURATION", default_value = "15m", value_parser = duration)]
    pub registration_timeout: Duration,

    /// EC2's token bucket for CreateFleet: its size, and how many tokens come back in a second.
    #[arg(long, env = "SPOTKEEPER_CREATE_FLEET_BUCKET", value_name = "SIZE,PER_SECOND", default_value = "50,5", value_parser = bucket)]
    pub create_fleet_bucket: (u32, f64),

    /// How often EC2 is asked which instances there are.
    #[arg(long, env = "SPOTKEEPER_RESYNC", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub resync: Duration,

    /// For how long an instance of a launch of ours without a NodeClaim is left alone.
    #[arg(long, env = "SPOTKEEPER_LEAK_GRACE", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub leak_grace: Duration,

    /// For how long a launch template of ours that nothing uses is left alone.
    #[arg(long, env = "SPOTKEEPER_TEMPLATE_GRACE", value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub template_grace: Duration,

    /// How long a spot pool must have been quiet before an on-demand node returns to it; doubled with each failure.
    #[arg(long, env = "SPOTKEEPER_RETURN_AFTER", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub return_after: Duration,

    /// How long an on-demand node stays Ready before it may return to spot.
    #[arg(long, env = "SPOTKEEPER_RETURN_MIN_STAY", value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub return_min_stay: Duration,

    /// How many returns to spot may begin in an hour, failed ones included.
    #[arg(long, env = "SPOTKEEPER_RETURN_MAX_PER_HOUR", value_name = "COUNT", default_value_t = 10)]
    pub return_max_per_hour: u64,

    /// How many returns to spot may be on their way at a time; with 0 no node returns.
    #[arg(long, env = "SPOTKEEPER_RETURN_SURGE", value_name = "COUNT", default_value_t = 1)]
    pub return_surge: u64,

    /// For how long an Interruption that is over is kept.
    #[arg(long, env = "SPOTKEEPER_KEEP_INTERRUPTIONS_FOR", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub keep_interruptions_for: Duration,

    /// How many Interruptions that are over are kept at most.
    #[arg(long, env = "SPOTKEEPER_KEEP_INTERRUPTIONS", value_name = "COUNT", default_value_t = 1_000)]
    pub keep_interruptions: usize,

    /// What on-demand costs: a JSON file of instance types and US dollars an hour, such as {"m7g.large": 0.0816}.
    #[arg(long, env = "SPOTKEEPER_PRICES", value_name = "PATH")]
    pub prices: Option<PathBuf>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "SPOTKEEPER_ADMIN_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:9734", value_parser = listen)]
    pub admin_listen: SocketAddr,

    /// How log lines are written.
    #[arg(long, env = "SPOTKEEPER_LOG_FORMAT", value_enum, default_value = "json", ignore_case = true)]
    pub log_format: LogFormat,

    /// What is logged: a level (error, warn, info, debug, trace), or levels by module (`info,spotkeeper::adapters=debug`).
    #[arg(long, env = "SPOTKEEPER_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

impl Config {
    /// What clap cannot check field by field.
    pub fn check(&self) -> Result<(), String> {
        if self.pod_name.is_empty() {
            return Err("--pod-name: it is empty; the manifests take it from metadata.name (Downward API)".to_owned());
        }
        for (index, one) in self.order.iter().enumerate() {
            if self.order[..index].contains(one) {
                return Err(format!("--order: `{one}` is named twice"));
            }
        }
        if self.spot_patience > PATIENCE_MAX {
            return Err(
                "--spot-patience: more than 24h; where spot is to be waited for without end, leave on-demand out of \
                        --order"
                    .to_owned(),
            );
        }
        if !(SHORTEST_BELIEF..=BELIEF_MAX).contains(&self.shortage_belief) {
            return Err(
                "--shortage-belief: from 10s, below which an outage is asked for again and again, to 30m".to_owned()
            );
        }
        if self.resync < Duration::from_secs(1) {
            return Err("--resync: below 1s EC2 throttles the whole account".to_owned());
        }
        if self.leak_grace < Duration::from_secs(60) {
            return Err("--leak-grace: below 60s a list that lags behind would cost instances".to_owned());
        }
        if self.template_grace < Duration::from_secs(10) {
            return Err("--template-grace: below 10s a list that lags behind would cost templates in use".to_owned());
        }
        if self.registration_timeout < Duration::from_secs(30) {
            return Err("--registration-timeout: no instance boots in less than 30s".to_owned());
        }
        log_filter(&self.log)
    }

    /// The core's settings.
    pub fn settings(&self) -> Settings {
        Settings {
            replace_on_rebalance: self.replace_on_rebalance,
            order: self.order.clone(),
            spot_patience: self.spot_patience,
            belief: self.shortage_belief,
            registration: self.registration_timeout,
            bucket: self.create_fleet_bucket,
            resync: self.resync,
            leak_grace: self.leak_grace,
            template_grace: self.template_grace,
            keep_for: self.keep_interruptions_for,
            keep_interruptions: self.keep_interruptions,
            returns: comeback::Policy {
                after: self.return_after,
                min_stay: self.return_min_stay,
                max_per_hour: Some(self.return_max_per_hour),
                surge: self.return_surge,
            },
            ..Settings::default()
        }
    }
}

fn capacity(text: &str) -> Result<CapacityType, String> {
    let named = CapacityType::ALL.iter().find(|one| one.as_str() == text);
    named.copied().ok_or_else(|| format!("`{text}` is none of reserved, spot, on-demand"))
}

fn bucket(text: &str) -> Result<(u32, f64), String> {
    let wrong = || format!("`{text}` is not like 50,5");
    let (size, rate) = text.split_once(',').ok_or_else(wrong)?;
    let (size, rate): (u32, f64) =
        (size.trim().parse().map_err(|_| wrong())?, rate.trim().parse().map_err(|_| wrong())?);
    if size == 0 || !rate.is_finite() || rate <= 0.0 {
        return Err(format!("`{text}`: both must be more than zero"));
    }
    Ok((size, rate))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        let args = [&["spotkeeper-provisioner", "--pod-name", "p"], args].concat();
        let config = Config::try_parse_from(args).map_err(|e| e.to_string())?;
        config.check().map(|()| config)
    }

    #[test]
    fn the_command_is_consistent() {
        Config::command().debug_assert();
        assert_eq!(parse(&[]).unwrap().settings().returns, comeback::Policy::default());
        assert_eq!(parse(&[]).unwrap().order, [CapacityType::Spot, CapacityType::OnDemand]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_named() {
        for (args, named) in [
            (&["--order", "spot,magic"][..], "--order"),
            (&["--order", "spot,spot"], "--order"),
            (&["--create-fleet-bucket", "0,5"], "--create-fleet-bucket"),
            (&["--create-fleet-bucket", "5,NaN"], "--create-fleet-bucket"),
            (&["--spot-patience", "25h"], "--spot-patience"),
            (&["--resync", "10ms"], "--resync"),
            (&["--registration-timeout", "1s"], "--registration-timeout"),
            (&["--leak-grace", "0s"], "--leak-grace"),
            (&["--template-grace", "1s"], "--template-grace"),
            (&["--log", "spotkeeper=loud"], "--log"),
        ] {
            let refused = parse(args).unwrap_err();
            assert!(refused.contains(named), "{args:?}: {refused}");
        }
    }
}
