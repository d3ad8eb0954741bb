//! What idle agents ask of the API server: its own counters over a minute with agents, less those of a minute without.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::fleet;
use crate::report::Report;
use crate::support::cluster::Cluster;

const AGENTS: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Counters by verb and resource.
pub type Counts = BTreeMap<String, f64>;

pub async fn measure(report: &mut Report) {
    let cluster = Cluster::new("requests").await;
    let mut members = fleet::nodes(&cluster, "n", AGENTS as usize).await;
    // The DaemonSet's pods are what the agents' tokens are bound to: they belong to the ground, too.
    for member in &members {
        crate::support::agent::token(&cluster, &member.node.name).await;
    }
    let watches_before = gauge(&scrape(&cluster).await);
    let ground = over_a_minute(&cluster).await;
    fleet::agents(&cluster, &mut members, &[]).await;
    let used = over_a_minute(&cluster).await;
    let watches = gauge(&scrape(&cluster).await);
    let each = f64::from(AGENTS);
    let requests: f64 = (used.values().sum::<f64>() - ground.values().sum::<f64>()) / each;
    report.heading(&format!("{AGENTS} idle agents, each"));
    report.figure(
        "requests.watches",
        "open watches at the API server",
        Some((watches - watches_before) / each),
        "",
        None,
    );
    report.figure("requests.perMinute", "requests to the API server", Some(requests), "a minute", None);
    let more = |(what, count): (&String, &f64)| {
        let more = (count - ground.get(what).unwrap_or(&0.0)) / each;
        (more >= 0.1).then(|| json!({ "request": what, "perMinute": more }))
    };
    report.put("requests.byResource", used.iter().filter_map(more).collect());
    fleet::clear(&cluster, members).await;
}

pub async fn scrape(cluster: &Cluster) -> String {
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    cluster.client.request_text(request).await.expect("the API server has metrics")
}

/// How often each thing was asked for within a minute.
async fn over_a_minute(cluster: &Cluster) -> Counts {
    let before = counts(&scrape(cluster).await);
    tokio::time::sleep(MINUTE).await;
    let after = counts(&scrape(cluster).await);
    after.into_iter().map(|(what, count)| (what.clone(), count - before.get(&what).unwrap_or(&0.0))).collect()
}

/// How often each thing was asked for, ever.
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
