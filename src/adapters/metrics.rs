//! Every metric, typed: nobody else names one. [`ALL`] is what the documentation is checked against.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::api::interruption::Phase;
use crate::domain::notice::{Kind, Source};

/// A metric as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// With its prefix, and with the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

macro_rules! described {
    ($($constant:ident = $name:literal { $($label:literal),* }: $help:literal;)+) => {
        $(const $constant: Described = Described { name: concat!("spotkeeper_", $name), help: $help, labels: &[$($label),*] };)+
        /// Every metric, in the order of registration.
        pub const ALL: &[Described] = &[$($constant),+];
    };
}

described! {
    NOTICES = "notices_total" { "source", "kind" }: "Notices that were new, by who said it and what was announced";
    PHASE = "interruption_phase" { "phase" }: "1 for the phase of this node's interruption, 0 for the others";
    IMDS_REQUESTS = "imds_requests_total" { "path", "result" }: "Requests to the instance metadata service and how they ended";
    IMDS_HEALTHY = "imds_healthy" {}: "Whether the instance metadata service answers";
    SQS_MESSAGES = "sqs_messages_total" { "result" }: "What became of messages of the queue";
    API_REQUESTS = "api_requests_total" { "verb", "resource", "result" }: "Requests to the Kubernetes API and how they ended";
    API_DURATION = "api_request_duration_seconds" { "verb", "resource" }: "How long requests to the Kubernetes API took";
    PODS_ASKED = "pods_asked_total" { "verb", "answer" }: "Pods that were asked to go, and what the API server answered";
    NOTICE_TO_CORDON = "notice_to_cordon_seconds" {}: "From the confirmed notice to the acknowledged mark on the node";
    DRAIN = "drain_seconds" {}: "From the first eviction to the empty node";
    DRAINS = "drains_total" { "result" }: "How drains ended: empty, missed or cancelled";
    INVARIANTS = "invariant_violations_total" { "invariant" }: "What must never happen and did; please report it";
    LEASE = "queue_lease_held" {}: "Whether this agent is one of those that read the queue";
    POD_ACCESS = "pod_access_mode" { "mode" }: "1 for the identity under which pods are evicted, 0 for the others";
    BUILD = "build_info" { "version" }: "The version that runs; always 1";
}

/// How a request to IMDS ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ImdsRequest {
    /// One of the paths that are asked, without the `/latest/`.
    pub path: &'static str,
    /// `found`, `absent` (404), or the failure's label.
    pub result: &'static str,
}

/// How a request to the API server ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiRequest {
    pub verb: &'static str,
    pub resource: &'static str,
    /// The status code, or `timeout`, `connection`.
    pub result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiCall {
    verb: &'static str,
    resource: &'static str,
}

/// What a pod that was asked answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PodAsked {
    /// `evict` or `delete`.
    pub verb: &'static str,
    /// The answer in one word.
    pub answer: &'static str,
}

macro_rules! one_label {
    ($($name:ident { $label:ident })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $label: &'static str }
    )+};
}
one_label! { OfPhase { phase } OfResult { result } OfInvariant { invariant } OfMode { mode } OfBuild { version } }

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNotice {
    source: &'static str,
    kind: &'static str,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainResult {
    /// No pod was left.
    Empty,
    /// The deadline came first.
    Missed,
    /// The announcement was withdrawn.
    Cancelled,
}

/// The latencies that matter lie between a few milliseconds and the two minutes of a spot notice.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

#[derive(Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// The metrics of one process. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    notices: Family<OfNotice, Counter>,
    phase: Family<OfPhase, Gauge>,
    imds_requests: Family<ImdsRequest, Counter>,
    imds_healthy: Gauge,
    sqs_messages: Family<OfResult, Counter>,
    api_requests: Family<ApiRequest, Counter>,
    api_duration: Family<ApiCall, Histogram, Buckets>,
    pods_asked: Family<PodAsked, Counter>,
    notice_to_cordon: Histogram,
    drain: Histogram,
    drains: Family<OfResult, Counter>,
    invariants: Family<OfInvariant, Counter>,
    lease: Gauge,
    pod_access: Family<OfMode, Gauge>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut all = Registry::default();
        let build = Family::<OfBuild, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&OfBuild { version }).set(1);
        let mut metrics = Self {
            notices: add(&mut all, &NOTICES, Family::default()),
            phase: add(&mut all, &PHASE, Family::default()),
            imds_requests: add(&mut all, &IMDS_REQUESTS, Family::default()),
            imds_healthy: add(&mut all, &IMDS_HEALTHY, Gauge::default()),
            sqs_messages: add(&mut all, &SQS_MESSAGES, Family::default()),
            api_requests: add(&mut all, &API_REQUESTS, Family::default()),
            api_duration: add(&mut all, &API_DURATION, Family::new_with_constructor(Buckets)),
            pods_asked: add(&mut all, &PODS_ASKED, Family::default()),
            notice_to_cordon: add(&mut all, &NOTICE_TO_CORDON, Histogram::new(SECONDS)),
            drain: add(&mut all, &DRAIN, Histogram::new(SECONDS)),
            drains: add(&mut all, &DRAINS, Family::default()),
            invariants: add(&mut all, &INVARIANTS, Family::default()),
            lease: add(&mut all, &LEASE, Gauge::default()),
            pod_access: add(&mut all, &POD_ACCESS, Family::default()),
            registry: Arc::default(),
        };
        add(&mut all, &BUILD, build);
        metrics.registry = Arc::new(all);
        // What alerts are made of is there from the start: a counter that appears at 1 never rose.
        metrics.set_phase(None);
        for result in ["empty", "missed", "cancelled"] {
            drop(metrics.drains.get_or_create(&OfResult { result }));
        }
        metrics
    }

    /// A notice that was not known before.
    pub fn noticed(&self, source: Source, kind: Kind) {
        let labels = OfNotice { source: source.as_str(), kind: kind.as_str() };
        self.notices.get_or_create(&labels).inc();
    }

    /// The phase of this node's interruption; `None` where there is none.
    pub fn set_phase(&self, phase: Option<Phase>) {
        for each in Phase::ALL {
            let labels = OfPhase { phase: each.as_str() };
            let is = i64::from(phase == Some(*each));
            self.phase.get_or_create(&labels).set(is);
        }
    }

    pub fn imds_asked(&self, path: &'static str, result: &'static str) {
        let labels = ImdsRequest { path, result };
        self.imds_requests.get_or_create(&labels).inc();
    }

    pub fn set_imds_healthy(&self, healthy: bool) {
        self.imds_healthy.set(healthy.into());
    }

    /// `result`: `recorded`, `released`, `deleted`, or the reason for which a message was discarded or left.
    pub fn message(&self, result: &'static str) {
        self.sqs_messages.get_or_create(&OfResult { result }).inc();
    }

    pub fn api_asked(&self, request: ApiRequest, took: Duration) {
        let call = ApiCall { verb: request.verb, resource: request.resource };
        self.api_duration.get_or_create(&call).observe(took.as_secs_f64());
        self.api_requests.get_or_create(&request).inc();
    }

    pub fn pod_asked(&self, asked: &PodAsked) {
        self.pods_asked.get_or_create(asked).inc();
    }

    pub fn cordoned_after(&self, took: Duration) {
        self.notice_to_cordon.observe(took.as_secs_f64());
    }

    /// `took` counts only where the node was empty in the end.
    pub fn drained(&self, result: DrainResult, took: Duration) {
        let result = match result {
            DrainResult::Empty => {
                self.drain.observe(took.as_secs_f64());
                "empty"
            }
            DrainResult::Missed => "missed",
            DrainResult::Cancelled => "cancelled",
        };
        self.drains.get_or_create(&OfResult { result }).inc();
    }

    /// `invariant`: its name, such as `I-4`.
    pub fn violated(&self, invariant: &'static str) {
        self.invariants.get_or_create(&OfInvariant { invariant }).inc();
    }

    pub fn set_queue_lease_held(&self, held: bool) {
        self.lease.set(held.into());
    }

    /// `mode`: `node`, `own` or `none`.
    pub fn set_pod_access(&self, mode: &'static str) {
        for each in ["node", "own", "none"] {
            let is = i64::from(each == mode);
            self.pod_access.get_or_create(&OfMode { mode: each }).set(is);
        }
    }

    /// All of them in OpenMetrics' text form.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, described: &Described, metric: M) -> M {
    // The encoder appends a counter's suffix itself.
    let name = described.name.trim_end_matches("_total");
    registry.register(name, described.help, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_of_each() -> Metrics {
        let metrics = Metrics::new();
        metrics.noticed(Source::Imds, Kind::SpotInterruption);
        metrics.set_phase(Some(Phase::Draining));
        metrics.imds_asked("meta-data/spot/instance-action", "absent");
        metrics.set_imds_healthy(true);
        metrics.message("deleted");
        let request = ApiRequest { verb: "patch", resource: "nodes", result: "200".into() };
        metrics.api_asked(request, Duration::from_millis(7));
        let asked = PodAsked { verb: "evict", answer: "accepted" };
        metrics.pod_asked(&asked);
        metrics.cordoned_after(Duration::from_millis(20));
        metrics.drained(DrainResult::Empty, Duration::from_secs(40));
        metrics.violated("I-4");
        metrics.set_queue_lease_held(false);
        metrics.set_pod_access("node");
        metrics
    }

    #[test]
    fn the_table_is_what_is_exposed() {
        let text = one_of_each().exposition();
        let helped: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
        assert_eq!(helped.len(), ALL.len(), "{text}");
        for described in ALL {
            let name = described.name.trim_end_matches("_total");
            assert!(helped.contains(&format!("{name} {}.", described.help).as_str()), "{name}: {text}");
            let sample = text
                .lines()
                .find(|line| !line.starts_with('#') && line.starts_with(described.name))
                .unwrap_or_else(|| panic!("no sample of {}: {text}", described.name));
            for label in described.labels {
                assert!(sample.contains(&format!("{label}=\"")), "{sample}");
            }
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn exactly_one_phase_and_mode_hold() {
        let text = one_of_each().exposition();
        let holds = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix) && line.ends_with(" 1")).count();
        assert_eq!(holds("spotkeeper_interruption_phase{"), 1);
        assert_eq!(holds("spotkeeper_pod_access_mode{"), 1);
        let metrics = one_of_each();
        metrics.set_phase(None);
        assert!(!metrics.exposition().contains("phase=\"Draining\"} 1"));
    }
}
