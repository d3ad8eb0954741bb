//! What others can see of this replica: metrics, readiness, sign of life, from the stream of inputs and effects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::adapters::admin::{Admin, Condition, Heartbeat, Readiness};
use crate::adapters::metrics::provisioner::{Ec2Request, Metrics};
use crate::domain::time::Instant;
use crate::provision::invariants::{Violation, Witness};
use crate::provision::{Answer, Because, Effect, Input, Provisioner};

/// The loop beats every five seconds; this long without a beat means that it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Observer {
    admin: Admin<Metrics>,
    witness: Arc<Mutex<Witness>>,
    /// Since when a claim is wanted that EC2 was not asked for yet.
    wanted: Arc<Mutex<HashMap<String, Instant>>>,
    /// Whether this replica leads.
    leads: watch::Sender<bool>,
    /// How many launches were refused for their template.
    refusals: watch::Sender<u64>,
}

impl Observer {
    pub fn new() -> Self {
        let conditions = [Condition::Kubernetes, Condition::Ec2, Condition::Lease];
        let admin = Admin {
            readiness: Readiness::of(&conditions),
            heartbeat: Heartbeat::new(STUCK_AFTER),
            metrics: Metrics::new(),
        };
        Self {
            admin,
            witness: Arc::default(),
            wanted: Arc::default(),
            leads: watch::Sender::new(false),
            refusals: watch::Sender::new(0),
        }
    }

    pub fn admin(&self) -> Admin<Metrics> {
        self.admin.clone()
    }

    pub fn metrics(&self) -> Metrics {
        self.admin.metrics.clone()
    }

    /// Whether what is watched is seen.
    pub fn kubernetes(&self, seen: Result<(), String>) {
        self.set(Condition::Kubernetes, seen);
    }

    /// Whether EC2 says what there is.
    pub fn ec2(&self, answered: Result<(), String>) {
        self.set(Condition::Ec2, answered);
    }

    /// Whether it is known who leads.
    pub fn lease(&self, known: Result<(), String>) {
        self.set(Condition::Lease, known);
    }

    fn set(&self, condition: Condition, state: Result<(), String>) {
        match state {
            Ok(()) => self.admin.readiness.met(condition),
            Err(why) => self.admin.readiness.unmet(condition, why),
        };
    }

    /// A request to EC2 has ended.
    pub fn asked_ec2(&self, action: &'static str, result: &'static str, took: Duration) {
        self.admin.metrics.ec2_asked(Ec2Request { action, result }, took);
    }

    /// The main loop went round.
    pub fn beat(&self, core: &Provisioner) {
        self.admin.heartbeat.touch();
        self.admin.metrics.set_leads(core.leads());
        self.leads.send_if_modified(|leads| std::mem::replace(leads, core.leads()) != core.leads());
        self.admin.metrics.set_claims(&core.phases());
        self.admin.metrics.spent(&core.spent());
    }

    /// Whether this replica leads, as it changes.
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Moves with every launch that is refused for its template.
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.refusals.subscribe()
    }

    /// What the core is about to be told.
    pub fn took_in(&self, input: &Input) {
        if refuses_template(input) {
            self.refusals.send_modify(|so_far| *so_far += 1);
        }
        self.witness.lock().unwrap_or_else(PoisonError::into_inner).took_in(input);
    }

    /// What the core wants done.
    pub fn performs(&self, now: Instant, effect: &Effect) {
        self.violated(self.witness.lock().unwrap_or_else(PoisonError::into_inner).judge(now, effect));
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        match effect {
            Effect::Call { spec, .. } => {
                for since in spec.claims.iter().filter_map(|of| wanted.remove(&of.name)) {
                    self.admin.metrics.requested_after(now.since(since));
                }
            }
            Effect::Decided { about, because } => {
                self.admin.metrics.decided(because.reason());
                match because {
                    Because::Wanted { .. } => drop(wanted.insert(about.clone(), now)),
                    Because::NoLongerWanted { .. } => drop(wanted.remove(about)),
                    Because::Ready { after, .. } => self.admin.metrics.ready_after(*after),
                    Because::Follows => wanted.clear(),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// One that stands in for an agent has decided something.
    pub fn stood_in(&self, because: &crate::interruption::Because) {
        self.admin.metrics.decided(because.reason());
    }

    /// A violation is a defect of ours: it is counted and said, and work goes on.
    fn violated(&self, violations: impl IntoIterator<Item = Violation>) {
        for violation in violations {
            tracing::error!(invariant = violation.invariant.code(), "an invariant does not hold: {}", violation.what);
            self.admin.metrics.common.violated(violation.invariant.code());
        }
    }
}

/// Whether it says that a launch template cannot be used.
fn refuses_template(input: &Input) -> bool {
    let names = |code: &str| code.starts_with("InvalidLaunchTemplate") || code.starts_with("InvalidAMIID");
    match input {
        Input::Called { answer: Answer::Refused { code, .. }, .. } => names(code),
        Input::Called { answer: Answer::Fleet { errors, .. }, .. } => errors.iter().any(|error| names(&error.code)),
        _ => false,
    }
}
