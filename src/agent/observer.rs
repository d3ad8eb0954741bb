//! What others can see of this agent: metrics, readiness, sign of life. All of it comes from the same stream of inputs
//! and effects that the core sees, so that nothing in the core has to know of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::config::{Config, PodAccess};
use crate::adapters::admin::{Admin, Condition, Heartbeat, Readiness};
use crate::adapters::imds::{ImdsError, Round};
use crate::adapters::kubernetes::access::PodMode;
use crate::adapters::kubernetes::one_line;
use crate::adapters::metrics::agent::{DrainResult, Metrics, PodAsked};
use crate::api::interruption::Phase;
use crate::domain::notice::{Kind, Source};
use crate::domain::time::Instant;
use crate::interruption::invariants::{Violation, Witness};
use crate::interruption::{Answer, Because, Effect, Input, Verb};

/// The loop beats every five seconds; this long without a beat means that it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// So many failures in a row make IMDS unhealthy (the core's own rule).
const IMDS_FAILURES: u32 = 2;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Observer {
    admin: Admin<Metrics>,
    life: Arc<Mutex<Life>>,
    /// Sees what the core sees, and counts what must never be.
    witness: Arc<Mutex<Witness>>,
}

/// What is remembered from one input or effect to the next.
#[derive(Default)]
struct Life {
    noticed: Option<Instant>,
    drain_began: Option<Instant>,
    imds_failures: u32,
}

impl Observer {
    pub fn new(config: &Config) -> Self {
        let mut conditions = vec![Condition::Kubernetes];
        if !config.queue_only {
            conditions.extend([Condition::Imds, Condition::Permissions]);
        }
        if config.queue_only {
            conditions.push(Condition::Queue);
        }
        let admin = Admin {
            readiness: Readiness::of(&conditions),
            heartbeat: Heartbeat::new(STUCK_AFTER),
            metrics: Metrics::new(),
        };
        if config.pod_access() == PodAccess::None {
            admin.metrics.set_pod_access(PodMode::None.as_str());
        }
        Self { admin, life: Arc::default(), witness: Arc::new(Mutex::new(Witness::new(config.policy()))) }
    }

    pub fn admin(&self) -> Admin<Metrics> {
        self.admin.clone()
    }

    pub fn metrics(&self) -> Metrics {
        self.admin.metrics.clone()
    }

    fn with_life<T>(&self, act: impl FnOnce(&mut Life) -> T) -> T {
        act(&mut self.life.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The main loop went round.
    pub fn beat(&self, phase: Option<Phase>) {
        self.admin.heartbeat.touch();
        self.admin.metrics.set_phase(phase);
    }

    /// What the core is about to be told.
    pub fn took_in(&self, now: Instant, input: &Input) {
        self.violated(self.witness.lock().unwrap_or_else(PoisonError::into_inner).input(now, input));
        if let Input::Asked { verb, answer, .. } = input {
            let verb = match verb {
                Verb::Evict => "evict",
                Verb::Delete => "delete",
            };
            self.admin.metrics.pod_asked(&PodAsked { verb, answer: answer.word() });
        }
    }

    /// What the core wants done.
    pub fn performs(&self, now: Instant, effect: &Effect) {
        self.violated(self.witness.lock().unwrap_or_else(PoisonError::into_inner).effect(now, effect));
        let Effect::Decided(because) = effect else {
            return;
        };
        let metrics = &self.admin.metrics;
        self.with_life(|life| match because {
            Because::Noticed { notice, .. } => {
                life.noticed.get_or_insert(now);
                metrics.noticed(notice.source, notice.kind);
            }
            Because::SaidAgain { notice } => metrics.noticed(notice.source, notice.kind),
            Because::Cordoned => {
                if let Some(noticed) = life.noticed {
                    metrics.cordoned_after(now.since(noticed));
                }
            }
            Because::Draining { .. } => life.drain_began = Some(now),
            Because::Empty { .. } => {
                let began = life.drain_began.take().unwrap_or(now);
                metrics.drained(DrainResult::Empty, now.since(began));
            }
            Because::Missed { .. } => {
                let began = life.drain_began.take().unwrap_or(now);
                metrics.drained(DrainResult::Missed, now.since(began));
            }
            Because::Withdrawn { .. } => {
                life.noticed = None;
                if let Some(began) = life.drain_began.take() {
                    metrics.drained(DrainResult::Cancelled, now.since(began));
                }
            }
            Because::Refuted { .. } | Because::Stale { .. } | Because::Rebooted => life.noticed = None,
            _ => {}
        });
    }

    /// A violation is a defect of ours: it is counted and said, and the drain goes on.
    fn violated(&self, violations: Vec<Violation>) {
        for violation in violations {
            tracing::error!(invariant = violation.invariant.code(), "an invariant does not hold: {}", violation.what);
            self.admin.metrics.common.violated(violation.invariant.code());
        }
    }

    /// A reader of the queue heard of it.
    pub fn noticed(&self, source: Source, kind: Kind) {
        self.admin.metrics.noticed(source, kind);
    }

    pub fn imds(&self, result: &Result<Round, ImdsError>) {
        let failures = self.with_life(|life| {
            life.imds_failures = if result.is_ok() { 0 } else { life.imds_failures.saturating_add(1) };
            life.imds_failures
        });
        match result {
            Ok(_) => {
                self.admin.metrics.set_imds_healthy(true);
                self.admin.readiness.met(Condition::Imds);
            }
            Err(error) if failures >= IMDS_FAILURES => {
                self.admin.metrics.set_imds_healthy(false);
                self.admin.readiness.unmet(Condition::Imds, one_line(error));
            }
            Err(_) => {}
        }
    }

    /// What this agent may do, or what it lacks.
    pub fn access(&self, known: Result<PodMode, String>) {
        match known {
            Ok(mode) => {
                self.admin.metrics.set_pod_access(mode.as_str());
                self.admin.readiness.met(Condition::Permissions);
            }
            Err(why) => {
                self.admin.readiness.unmet(Condition::Permissions, why);
            }
        }
    }

    /// The Node was seen: whether something speaks against its being ours.
    pub fn node(&self, against: Option<String>) {
        match against {
            None => self.admin.readiness.met(Condition::Kubernetes),
            Some(why) => self.admin.readiness.unmet(Condition::Kubernetes, why),
        };
    }

    /// This agent began or ceased to read the queue.
    pub fn reads_queue(&self, reads: bool) {
        self.admin.metrics.set_queue_lease_held(reads);
        if !reads {
            self.admin.readiness.met(Condition::Queue);
        }
    }

    pub fn queue_answered(&self, answer: Result<(), String>) {
        match answer {
            Ok(()) => self.admin.readiness.met(Condition::Queue),
            Err(why) => self.admin.readiness.unmet(Condition::Queue, why),
        };
    }

    /// A message of the queue was dealt with.
    pub fn message(&self, result: &'static str) {
        self.admin.metrics.message(result);
    }
}

impl Answer {
    /// One word for a metric's label.
    fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::Blocked { .. } => "blocked",
            Self::TooManyBudgets => "too_many_budgets",
            Self::Throttled { .. } => "throttled",
            Self::Forbidden(_) => "forbidden",
            Self::Failed(_) => "failed",
        }
    }
}
