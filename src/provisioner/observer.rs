//! What others can see of this replica: metrics, readiness, sign of life, from the stream of inputs and effects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::adapters::admin::{Admin, Condition, Heartbeat, Readiness};
use crate::adapters::ec2::Ec2Error;
use crate::adapters::kubernetes::one_line;
use crate::adapters::metrics::provisioner::{Ec2Request, Metrics};
use crate::domain::time::Instant;
use crate::provision::failure::forbids;
use crate::provision::invariants::{Violation, Witness};
use crate::provision::{Answer, Because, Effect, Input, Provisioner};

/// The loop beats every five seconds; this long without a beat means that it is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Longer than the longest pause between two tries of what is refused.
const FORBIDDEN_FOR: Duration = Duration::from_secs(45 * 60);

/// So many requests in a row that EC2 does not answer are no accident: there are no credentials, or no way to it.
const UNANSWERED_MAX: u32 = 3;

/// Whether EC2 can be asked, as far as is known.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// Whether it says what there is; `None`: not looked at yet.
    offers: Option<Result<(), String>>,
    /// How many requests in a row were not answered, and why the last one was not.
    unanswered: u32,
    why: String,
}

impl Asked {
    fn state(&self) -> Option<Result<(), String>> {
        match self.unanswered {
            0..UNANSWERED_MAX => self.offers.clone(),
            times => Some(Err(format!("{times} requests in a row were not answered: {}", self.why))),
        }
    }
}

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
    /// What EC2 or the API server has refused for a missing permission: since when, and what it said.
    forbidden: Arc<Mutex<HashMap<String, (std::time::Instant, String)>>>,
    asked: Arc<Mutex<Asked>>,
}

impl Observer {
    pub fn new() -> Self {
        let conditions = [Condition::Kubernetes, Condition::Ec2, Condition::Lease];
        let forbidden = Arc::default();
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
            forbidden,
            asked: Arc::default(),
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
        self.ec2_is(|asked| asked.offers = Some(answered));
    }

    fn ec2_is(&self, change: impl FnOnce(&mut Asked)) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut asked);
        if let Some(state) = asked.state() {
            self.set(Condition::Ec2, state);
        }
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

    /// A call of the API server was done, or denied. A missing right makes this replica not ready until it is granted.
    pub fn asked_kubernetes(&self, verb: &'static str, resource: &'static str, denied: Option<&str>) {
        let why = |why: &str| {
            format!(
                "the API server denies to {verb} {resource}: {why}; grant it (manifests/components/provisioner/rbac.yaml)"
            )
        };
        self.permitted(&format!("{verb} {resource}"), Some(denied.map(why)));
    }

    /// What came of something that needs a permission; `None`: nobody knows.
    fn permitted(&self, what: &str, denial: Option<Option<String>>) {
        let mut forbidden = self.forbidden.lock().unwrap_or_else(PoisonError::into_inner);
        // What is not asked for any more says nothing of what would be allowed by now.
        forbidden.retain(|_, (since, _)| since.elapsed() < FORBIDDEN_FOR);
        match denial {
            Some(Some(why)) => drop(forbidden.insert(what.to_owned(), (std::time::Instant::now(), why))),
            Some(None) => drop(forbidden.remove(what)),
            None => {}
        }
        let mut denials: Vec<&str> = forbidden.values().map(|(_, why)| why.as_str()).collect();
        denials.sort_unstable();
        self.set(Condition::Permissions, if denials.is_empty() { Ok(()) } else { Err(denials.join("; ")) });
    }

    /// Makes a request to EC2, and counts it.
    pub async fn asking<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = Result<T, Ec2Error>>,
    ) -> Result<T, Ec2Error> {
        let began = std::time::Instant::now();
        let result = call.await;
        self.asked_ec2(action, &result, began.elapsed());
        result
    }

    /// A request to EC2 has ended. A missing permission makes this replica not ready until the action is allowed again; so
    /// do several in a row that were not answered, until one is.
    pub fn asked_ec2<T>(&self, action: &'static str, result: &Result<T, Ec2Error>, took: Duration) {
        let (word, denial) = match result {
            Ok(_) => ("ok", Some(None)),
            Err(error @ Ec2Error::Refused { code, .. }) => ("refused", Some(forbids(code).then(|| one_line(error)))),
            Err(_) => ("unknown", None),
        };
        self.admin.metrics.ec2_asked(Ec2Request { action, result: word }, took);
        self.permitted(action, denial);
        self.ec2_is(|asked| match result {
            Err(error) if word == "unknown" => {
                (asked.unanswered, asked.why) = (asked.unanswered.saturating_add(1), one_line(error));
            }
            _ => asked.unanswered = 0,
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_no_readiness_until_the_action_is_allowed() {
        let observer = Observer::new();
        let asked = |action, code: Option<&str>| {
            let refused = |code: &str| Ec2Error::Refused { action, code: code.to_owned(), message: "no".into() };
            observer.asked_ec2(action, &code.map_or(Ok(()), |code| Err(refused(code))), Duration::ZERO);
            let unmet = observer.admin.readiness.unmet_conditions().into_iter();
            unmet.filter(|(condition, _)| *condition == Condition::Permissions).map(|(_, why)| why).next()
        };
        assert_eq!(asked("ec2:DescribeInstances", None), None);
        let denied = asked("ec2:TerminateInstances", Some("UnauthorizedOperation")).unwrap();
        assert!(denied.contains("allow ec2:TerminateInstances"), "{denied}");
        assert!(asked("ec2:DescribeInstances", None).is_some(), "another action says nothing of it");
        let both = asked("ec2:CreateFleet", Some("ExpiredToken")).unwrap();
        assert!(both.contains("ec2:CreateFleet") && both.contains("ec2:TerminateInstances"), "{both}");
        assert!(
            asked("ec2:CreateFleet", Some("InvalidAMIID.NotFound")).is_some_and(|why| !why.contains("CreateFleet"))
        );
        assert_eq!(asked("ec2:TerminateInstances", None), None);
    }
    fn unmet(observer: &Observer, of: Condition) -> Option<String> {
        let unmet = observer.admin.readiness.unmet_conditions().into_iter();
        unmet.filter(|(condition, _)| *condition == of).map(|(_, why)| why).next()
    }

    #[test]
    fn a_right_that_the_api_server_denies_is_no_readiness_until_it_is_granted() {
        let observer = Observer::new();
        let denied = "nodeclaims.spotkeeper.dev is forbidden";
        observer.asked_kubernetes("create", "nodeclaims", Some(denied));
        observer.asked_kubernetes("list", "nodeclaims", None);
        let why = unmet(&observer, Condition::Permissions).unwrap();
        assert!(why.contains("denies to create nodeclaims") && why.contains(denied), "{why}");
        observer.asked_kubernetes("create", "nodeclaims", None);
        assert_eq!(unmet(&observer, Condition::Permissions), None);
    }

    #[test]
    fn ec2_that_does_not_answer_three_times_in_a_row_is_no_readiness_until_it_does() {
        let observer = Observer::new();
        let silent = || Err(Ec2Error::NoAnswer { action: "ec2:DescribeInstances", why: "no credentials".into() });
        let asked = |result: Result<(), Ec2Error>| observer.asked_ec2("ec2:DescribeInstances", &result, Duration::ZERO);
        observer.ec2(Ok(()));
        asked(silent());
        asked(silent());
        assert_eq!(unmet(&observer, Condition::Ec2), None);
        asked(silent());
        // What an earlier run has left of types and zones does not make up for it.
        observer.ec2(Ok(()));
        assert!(unmet(&observer, Condition::Ec2).unwrap().contains("3 requests in a row were not answered"));
        asked(Ok(()));
        assert_eq!(unmet(&observer, Condition::Ec2), None);
    }
}
