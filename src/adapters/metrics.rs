//! Every metric, typed: nobody else names one. Each program's `ALL` is what the documentation is checked against.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

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
        /// Every metric of this program.
        pub const ALL: &[Described] = &[$($constant),+];
    };
}

macro_rules! one_label {
    ($($name:ident { $label:ident })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $label: &'static str }
    )+};
}

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "provisioner")]
pub mod provisioner;

described! {
    API_REQUESTS = "api_requests_total" { "verb", "resource", "result" }: "Requests to the Kubernetes API and how they ended";
    API_DURATION = "api_request_duration_seconds" { "verb", "resource" }: "How long requests to the Kubernetes API took";
    INVARIANTS = "invariant_violations_total" { "invariant" }: "What must never happen and did; please report it";
    BUILD = "build_info" { "version" }: "The version that runs; always 1";
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

one_label! { OfInvariant { invariant } OfBuild { version } }

/// The latencies that matter lie between a few milliseconds and the two minutes of a spot notice.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

#[derive(Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// What can be scraped.
pub trait Exposition: Clone + Send + Sync + 'static {
    /// All metrics in OpenMetrics' text form.
    fn exposition(&self) -> String;
}

/// What both programs measure. Clones share their values.
#[derive(Clone)]
pub struct Common {
    requests: Family<ApiRequest, Counter>,
    duration: Family<ApiCall, Histogram, Buckets>,
    invariants: Family<OfInvariant, Counter>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Common")
    }
}

impl Common {
    fn new(all: &mut Registry) -> Self {
        let build = Family::<OfBuild, Gauge>::default();
        build.get_or_create(&OfBuild { version: env!("CARGO_PKG_VERSION") }).set(1);
        add(all, &BUILD, build);
        Self {
            requests: add(all, &API_REQUESTS, Family::default()),
            duration: add(all, &API_DURATION, Family::new_with_constructor(Buckets)),
            invariants: add(all, &INVARIANTS, Family::default()),
        }
    }

    pub fn api_asked(&self, request: ApiRequest, took: Duration) {
        let call = ApiCall { verb: request.verb, resource: request.resource };
        self.duration.get_or_create(&call).observe(took.as_secs_f64());
        self.requests.get_or_create(&request).inc();
    }

    /// `invariant`: its name, such as `I-4`.
    pub fn violated(&self, invariant: &'static str) {
        self.invariants.get_or_create(&OfInvariant { invariant }).inc();
    }
}

fn encoded(registry: &Arc<Registry>) -> String {
    let mut text = String::new();
    // Writing into a String does not fail.
    let _ = text::encode(&mut text, registry);
    text
}

fn add<M: Metric + Clone>(registry: &mut Registry, described: &Described, metric: M) -> M {
    // The encoder appends a counter's suffix itself.
    let name = described.name.trim_end_matches("_total");
    registry.register(name, described.help, metric.clone());
    metric
}

/// Whether each metric of the table is exposed as it says, with a sample that has its labels.
#[cfg(test)]
fn compare(text: &str, own: &[Described]) {
    let all: Vec<&Described> = own.iter().chain(ALL).collect();
    let helped: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
    assert_eq!(helped.len(), all.len(), "{text}");
    for described in all {
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
