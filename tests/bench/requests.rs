//! What idle agents ask of the API server in a minute, by its audit log, which tells their requests from everybody else's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet;
use crate::report::Report;
use crate::support::cluster::{Cluster, text};
use crate::support::control_plane::ControlPlane;

const AGENTS: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

pub async fn measure(report: &mut Report) {
    let cluster = Cluster::on(ControlPlane::audited, "requests").await;
    let mut members = fleet::nodes(&cluster, "n", AGENTS as usize).await;
    for member in &members {
        crate::support::agent::token(&cluster, &member.node.name).await;
    }
    let watches_before = gauge(&scrape(&cluster).await);
    fleet::agents(&cluster, &mut members, &[]).await;
    let before = audited(&cluster);
    tokio::time::sleep(MINUTE).await;
    let used = &audited(&cluster)[before.len()..];
    let watches = gauge(&scrape(&cluster).await);
    let each = f64::from(AGENTS);
    report.heading(&format!("{AGENTS} idle agents, each"));
    report.figure(
        "requests.watches",
        "open watches at the API server",
        Some((watches - watches_before) / each),
        "",
        None,
    );
    let per_minute = Some(used.len() as f64 / each);
    report.figure("requests.perMinute", "requests to the API server", per_minute, "a minute", None);
    let mut by: BTreeMap<&String, f64> = BTreeMap::new();
    used.iter().for_each(|what| *by.entry(what).or_default() += 1.0 / each);
    let by = by.into_iter().map(|(what, count)| json!({ "request": what, "perMinute": count }));
    report.put("requests.byResource", by.collect());
    fleet::clear(&cluster, members).await;
}

/// Every answered request of our accounts, as `verb resource`.
fn audited(cluster: &Cluster) -> Vec<String> {
    let log = std::fs::read_to_string(cluster.plane.dir.join("audit.log")).unwrap_or_default();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.map(|event| format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["resource"]))).collect()
}

pub async fn scrape(cluster: &Cluster) -> String {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    cluster.client.request_text(request).await.expect("the API server has metrics")
}

/// How often the API server was asked for each thing, by whomever, as `verb resource`.
pub type Counts = BTreeMap<String, f64>;

pub fn counts(metrics: &str) -> Counts {
    let mut counts = Counts::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let what = format!("{} {}", label(line, "verb"), label(line, "resource"));
        *counts.entry(what).or_default() += value(line);
    }
    counts
}

/// The watches that are open now.
fn gauge(metrics: &str) -> f64 {
    let open = metrics.lines().filter(|line| line.starts_with("apiserver_longrunning_requests{"));
    open.filter(|line| label(line, "verb") == "WATCH").map(value).sum()
}

fn label<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default()
}

fn value(line: &str) -> f64 {
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0.0)
}
