//! Which of the provisioner's replicas leads: one Lease, as Kubernetes' own components use it.
//!
//! Whether another's lease has run out is judged by our own clock alone: it has where nobody has renewed it for its whole
//! duration while we watched. What the wall clocks of two machines say does not matter.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use super::kubernetes::one_line;

/// How long a term lasts without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often a leader renews, and how often the others look.
pub const EVERY: Duration = Duration::from_secs(3);

/// A renewal that is not answered after this long is given up: another follows.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// One whose node is about to go lets others lead for this long; where nobody does, it leads on.
const STANDS_BACK: Duration = Duration::from_secs(8);

const NAME: &str = "spotkeeper-provisioner";

/// What one look at the lease brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It is ours for [`DURATION`] from `sent`.
    Held { sent: Instant },
    /// It is somebody else's.
    Theirs { holder: String },
}

/// The lease could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("lease {NAME}: {0}")]
pub struct LeaseError(String);

/// One candidate.
pub struct Candidate {
    api: Api<Lease>,
    me: String,
    /// The lease as another holds it, and since when it is unchanged.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    pub fn new(client: Client, namespace: &str, me: String) -> Self {
        Self { api: Api::namespaced(client, namespace), me, seen: None }
    }

    /// Takes or renews the lease where it is ours, free, or has run out. One who does not `stay` holds back for a while.
    pub async fn look(&mut self, stays: bool) -> Result<Look, LeaseError> {
        let Some(lease) = call(self.api.get_opt(NAME)).await? else {
            let sent = Instant::now();
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(1)) };
            return self.won(sent, call(self.api.create(&PostParams::default(), &lease)).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.me && !self.may_take(&spec, &holder, stays) {
            return Ok(Look::Theirs { holder });
        }
        let transitions = spec.lease_transitions.unwrap_or(0).saturating_add(i32::from(holder != self.me));
        let sent = Instant::now();
        // As it was read: its resourceVersion lets only one of two win.
        let taken = Lease { spec: Some(self.spec(transitions)), ..lease };
        self.won(sent, call(self.api.replace(NAME, &PostParams::default(), &taken)).await)
    }

    /// Gives it up, so that another need not wait for its end.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        let Some(mut lease) = call(self.api.get_opt(NAME)).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        call(self.api.replace(NAME, &PostParams::default(), &lease)).await.map(drop)
    }

    /// Whether another's lease may be taken: it was given up, or nobody has renewed it for its whole duration.
    fn may_take(&mut self, spec: &LeaseSpec, holder: &str, stays: bool) -> bool {
        let unchanged = match &self.seen {
            Some((seen, since)) if seen == spec => since.elapsed(),
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                Duration::ZERO
            }
        };
        let wait = if holder.is_empty() {
            if stays { Duration::ZERO } else { STANDS_BACK }
        } else {
            Duration::from_secs(spec.lease_duration_seconds.and_then(|s| s.try_into().ok()).unwrap_or(15))
        };
        unchanged >= wait
    }

    fn won(&mut self, sent: Instant, result: Result<Lease, LeaseError>) -> Result<Look, LeaseError> {
        match result {
            Ok(_) => {
                self.seen = None;
                Ok(Look::Held { sent })
            }
            Err(error) => Err(error),
        }
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(Timestamp::now())),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| LeaseError(one_line(&error))),
        Err(_) => Err(LeaseError(format!("the API server did not answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
