//! What an agent measures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Common, Described, Exposition, SECONDS, add, encoded};
use crate::api::interruption::Phase;
use crate::domain::notice::{Kind, Source};

described! {
    NOTICES = "notices_total" { "source", "kind" }: "Notices that were new, by who said it and what was announced";
    PHASE = "interruption_phase" { "phase" }: "1 for the phase of this node's interruption, 0 for the others";
    IMDS_REQUESTS = "imds_requests_total" { "path", "result" }: "Requests to the instance metadata service and how they ended";
    IMDS_HEALTHY = "imds_healthy" {}: "Whether the instance metadata service answers";
    SQS_MESSAGES = "sqs_messages_total" { "result" }: "What became of messages of the queue";
    PODS_ASKED = "pods_asked_total" { "verb", "answer" }: "Pods that were asked to go, and what the API server answered";
    NOTICE_TO_CORDON = "notice_to_cordon_seconds" {}: "From the confirmed notice to the acknowledged mark on the node";
    DRAIN = "drain_seconds" {}: "From the first eviction to the empty node";
    DRAINS = "drains_total" { "result" }: "How drains ended: empty, missed or cancelled";
    LEASE = "queue_lease_held" {}: "Whether this agent is one of those that read the queue";
    POD_ACCESS = "pod_access_mode" { "mode" }: "1 for the identity under which pods are evicted, 0 for the others";
}

/// How a request to IMDS ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ImdsRequest {
    /// One of the paths that are asked, without the `/latest/`.
    pub path: &'static str,
    /// `found`, `absent` (404), or the failure's label.
    pub result: &'static str,
}

/// What a pod that was asked answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PodAsked {
    /// `evict` or `delete`.
    pub verb: &'static str,
    /// The answer in one word.
    pub answer: &'static str,
}

one_label! { OfPhase { phase } OfResult { result } OfMode { mode } }

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

/// The metrics of one process. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    pub common: Common,
    notices: Family<OfNotice, Counter>,
    phase: Family<OfPhase, Gauge>,
    imds_requests: Family<ImdsRequest, Counter>,
    imds_healthy: Gauge,
    sqs_messages: Family<OfResult, Counter>,
    pods_asked: Family<PodAsked, Counter>,
    notice_to_cordon: Histogram,
    drain: Histogram,
    drains: Family<OfResult, Counter>,
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
        let mut metrics = Self {
            common: Common::new(&mut all),
            notices: add(&mut all, &NOTICES, Family::default()),
            phase: add(&mut all, &PHASE, Family::default()),
            imds_requests: add(&mut all, &IMDS_REQUESTS, Family::default()),
            imds_healthy: add(&mut all, &IMDS_HEALTHY, Gauge::default()),
            sqs_messages: add(&mut all, &SQS_MESSAGES, Family::default()),
            pods_asked: add(&mut all, &PODS_ASKED, Family::default()),
            notice_to_cordon: add(&mut all, &NOTICE_TO_CORDON, Histogram::new(SECONDS)),
            drain: add(&mut all, &DRAIN, Histogram::new(SECONDS)),
            drains: add(&mut all, &DRAINS, Family::default()),
            lease: add(&mut all, &LEASE, Gauge::default()),
            pod_access: add(&mut all, &POD_ACCESS, Family::default()),
            registry: Arc::default(),
        };
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
}

impl Exposition for Metrics {
    fn exposition(&self) -> String {
        encoded(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::metrics::ApiRequest;

    fn one_of_each() -> Metrics {
        let metrics = Metrics::new();
        metrics.noticed(Source::Imds, Kind::SpotInterruption);
        metrics.set_phase(Some(Phase::Draining));
        metrics.imds_asked("meta-data/spot/instance-action", "absent");
        metrics.set_imds_healthy(true);
        metrics.message("deleted");
        let request = ApiRequest { verb: "patch", resource: "nodes", result: "200".into() };
        metrics.common.api_asked(request, Duration::from_millis(7));
        let asked = PodAsked { verb: "evict", answer: "accepted" };
        metrics.pod_asked(&asked);
        metrics.cordoned_after(Duration::from_millis(20));
        metrics.drained(DrainResult::Empty, Duration::from_secs(40));
        metrics.common.violated("I-4");
        metrics.set_queue_lease_held(false);
        metrics.set_pod_access("node");
        metrics
    }

    #[test]
    fn the_table_is_what_is_exposed() {
        super::super::compare(&one_of_each().exposition(), ALL);
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
