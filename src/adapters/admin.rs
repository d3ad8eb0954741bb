//! `/livez`, `/readyz` and `/metrics`, for the kubelet and for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::Exposition;
use crate::domain::notice::words;

words! {
    /// What must hold for a program to be ready.
    Condition {
        /// The instance metadata service answers and names the instance that the node runs on.
        Imds = "imds",
        /// The API server answers, and the watches stand.
        Kubernetes = "kubernetes",
        /// Every permission that is needed is granted.
        Permissions = "permissions",
        /// The queue can be read. Only where there is one.
        Queue = "queue",
        /// EC2 answers, and it is known what there is.
        Ec2 = "ec2",
        /// Who leads is known, and it can be taken over.
        Lease = "lease",
    }
}

/// Which conditions hold. Clones share it.
///
/// A condition that has not been looked at yet does not hold.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<Condition, Option<String>>>>);

impl Readiness {
    /// With the conditions that apply; those that are set later without being named here apply from then on.
    pub fn of(conditions: &[Condition]) -> Self {
        let waiting = |condition: &Condition| (*condition, Some("not checked yet".to_owned()));
        Self(Arc::new(Mutex::new(conditions.iter().map(waiting).collect())))
    }

    /// It holds from now on. Says whether that is news.
    pub fn met(&self, condition: Condition) -> bool {
        self.set(condition, None)
    }

    /// It does not hold; `why` says what to change. Says whether that is news.
    pub fn unmet(&self, condition: Condition, why: impl Into<String>) -> bool {
        self.set(condition, Some(why.into()))
    }

    /// The conditions that do not hold, and why.
    pub fn unmet_conditions(&self) -> Vec<(Condition, String)> {
        self.lock().iter().filter_map(|(condition, why)| Some((*condition, why.clone()?))).collect()
    }

    fn set(&self, condition: Condition, why: Option<String>) -> bool {
        let mut conditions = self.lock();
        let changed = conditions.get(&condition) != Some(&why);
        conditions.insert(condition, why);
        changed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Condition, Option<String>>> {
        // The map is whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's sign of life. Clones share it.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    born: Instant,
    beat_ms: Arc<AtomicU64>,
    stuck_after: Duration,
}

impl Heartbeat {
    /// It counts as stuck when it was not touched for longer than `stuck_after`.
    pub fn new(stuck_after: Duration) -> Self {
        Self { born: Instant::now(), beat_ms: Arc::default(), stuck_after }
    }

    /// The loop has come round.
    pub fn touch(&self) {
        self.beat_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// For how long the loop has been stuck; `None` while it goes round.
    pub fn stuck_for(&self) -> Option<Duration> {
        let silent = self.age_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed));
        Some(Duration::from_millis(silent)).filter(|silent| *silent > self.stuck_after)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What the endpoints speak of.
#[derive(Clone, Debug)]
pub struct Admin<M> {
    pub readiness: Readiness,
    pub heartbeat: Heartbeat,
    pub metrics: M,
}

impl<M: Exposition> Admin<M> {
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(livez::<M>))
            .route("/readyz", get(readyz::<M>))
            .route("/metrics", get(metrics::<M>))
            .with_state(self)
    }
}

async fn livez<M: Exposition>(State(admin): State<Admin<M>>) -> Response {
    match admin.heartbeat.stuck_for() {
        None => "ok\n".into_response(),
        Some(silent) => {
            let text = format!("the main loop has been stuck for {} s\n", silent.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz<M: Exposition>(State(admin): State<Admin<M>>) -> Response {
    let unmet = admin.readiness.unmet_conditions();
    if unmet.is_empty() {
        return "ok\n".into_response();
    }
    let lines: String = unmet.into_iter().map(|(condition, why)| format!("{condition}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

async fn metrics<M: Exposition>(State(admin): State<Admin<M>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], admin.metrics.exposition()).into_response()
}
