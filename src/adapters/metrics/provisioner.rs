//! What a provisioner measures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Buckets, Common, Described, Exposition, SECONDS, add, encoded};
use crate::api::node_claim::ClaimPhase;
use crate::domain::offering::MicroDollars;
use crate::provision::ledger::Totals;

described! {
    LEADS = "leads" {}: "Whether this replica leads";
    CLAIMS = "node_claims" { "phase" }: "NodeClaims in each phase, as the leader knows them";
    DECISIONS = "decisions_total" { "reason" }: "Decisions, by their reason";
    EC2_REQUESTS = "ec2_requests_total" { "action", "result" }: "Requests to EC2 and how they ended";
    EC2_DURATION = "ec2_request_duration_seconds" { "action" }: "How long requests to EC2 took";
    NOTICE_TO_REQUEST = "wanted_to_requested_seconds" {}: "From the wish for a replacement to the first request to EC2";
    NOTICE_TO_READY = "wanted_to_ready_seconds" {}: "From the wish for a replacement to the Ready node";
    SPEND = "spend_dollars_total" { "capacity_type" }: "What the instances of NodeClaims have cost in US dollars while this replica led, as far as prices are known";
    ON_DEMAND = "on_demand_equivalent_dollars_total" {}: "What they would have cost on demand";
    OFFERINGS = "catalog_offerings" {}: "Instance types by zone that are known";
}

/// How a request to EC2 ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ec2Request {
    pub action: &'static str,
    /// `ok`, `refused` or `unknown`.
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAction {
    action: &'static str,
}

one_label! { OfPhase { phase } OfReason { reason } OfCapacity { capacity_type } }

type Dollars = Counter<f64, AtomicU64>;

/// The metrics of one process. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    pub common: Common,
    leads: Gauge,
    claims: Family<OfPhase, Gauge>,
    decisions: Family<OfReason, Counter>,
    ec2_requests: Family<Ec2Request, Counter>,
    ec2_duration: Family<OfAction, Histogram, Buckets>,
    requested: Histogram,
    ready: Histogram,
    spend: Family<OfCapacity, Dollars>,
    on_demand: Dollars,
    offerings: Gauge,
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
            leads: add(&mut all, &LEADS, Gauge::default()),
            claims: add(&mut all, &CLAIMS, Family::default()),
            decisions: add(&mut all, &DECISIONS, Family::default()),
            ec2_requests: add(&mut all, &EC2_REQUESTS, Family::default()),
            ec2_duration: add(&mut all, &EC2_DURATION, Family::new_with_constructor(Buckets)),
            requested: add(&mut all, &NOTICE_TO_REQUEST, Histogram::new(SECONDS)),
            ready: add(&mut all, &NOTICE_TO_READY, Histogram::new(SECONDS)),
            spend: add(&mut all, &SPEND, Family::default()),
            on_demand: add(&mut all, &ON_DEMAND, Dollars::default()),
            offerings: add(&mut all, &OFFERINGS, Gauge::default()),
            registry: Arc::default(),
        };
        metrics.registry = Arc::new(all);
        metrics.set_claims(&BTreeMap::new());
        metrics
    }

    pub fn set_leads(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    pub fn set_claims(&self, phases: &BTreeMap<ClaimPhase, usize>) {
        for phase in ClaimPhase::ALL {
            let number = phases.get(phase).copied().unwrap_or(0);
            let labels = OfPhase { phase: phase.as_str() };
            self.claims.get_or_create(&labels).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    pub fn decided(&self, reason: &'static str) {
        self.decisions.get_or_create(&OfReason { reason }).inc();
    }

    pub fn ec2_asked(&self, request: Ec2Request, took: Duration) {
        let action = request.action;
        self.ec2_duration.get_or_create(&OfAction { action }).observe(took.as_secs_f64());
        self.ec2_requests.get_or_create(&request).inc();
    }

    pub fn requested_after(&self, took: Duration) {
        self.requested.observe(took.as_secs_f64());
    }

    pub fn ready_after(&self, took: Duration) {
        self.ready.observe(took.as_secs_f64());
    }

    /// What was spent in all by now: these only grow.
    pub fn spent(&self, totals: &Totals) {
        let grow = |counter: &Dollars, to: MicroDollars| {
            let to = to as f64 / 1e6;
            counter.inc_by((to - counter.get()).max(0.0));
        };
        for (capacity, paid) in &totals.paid {
            grow(&self.spend.get_or_create(&OfCapacity { capacity_type: capacity.as_str() }), *paid);
        }
        grow(&self.on_demand, totals.on_demand);
    }

    pub fn set_offerings(&self, number: usize) {
        self.offerings.set(i64::try_from(number).unwrap_or(i64::MAX));
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
    use crate::domain::offering::CapacityType;

    #[test]
    fn the_table_is_what_is_exposed() {
        let metrics = Metrics::new();
        metrics.set_leads(true);
        metrics.decided("Asking");
        metrics.ec2_asked(Ec2Request { action: "CreateFleet", result: "ok" }, Duration::from_millis(900));
        metrics.requested_after(Duration::from_millis(40));
        metrics.ready_after(Duration::from_secs(50));
        metrics.set_offerings(9);
        let paid = [(CapacityType::Spot, 1_500_000)].into();
        metrics.spent(&Totals { paid, on_demand: 4_000_000 });
        metrics.spent(&Totals { on_demand: 4_000_000, ..Totals::default() });
        assert!(metrics.exposition().contains("spotkeeper_on_demand_equivalent_dollars_total 4.0"));
        metrics.common.violated("P-2");
        let request = ApiRequest { verb: "apply", resource: "nodeclaims/status", result: "ok".into() };
        metrics.common.api_asked(request, Duration::from_millis(7));
        super::super::compare(&metrics.exposition(), ALL);
    }
}
