//! The leases of the queue's readers: K of all agents read at a time.
//!
//! Two holders for a moment do no harm, since reading a message twice changes nothing; the lease only bounds the load.
//! That is why a holder's `renewTime` may be compared with our own wall clock here.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// A holder that has not renewed for this long has lost it.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How often the others look whether one is free: a thousand agents are fifty glances a second.
pub const LOOK_EVERY: Duration = Duration::from_secs(20);

const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// Marks the lease of a holder whose node is about to go: whoever stays may take it over at once.
const LEAVING: &str = "spotkeeper.dev/leaving";

/// A lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("lease {name} cannot be read or written")]
    Call {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("lease {name}: the API server did not answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut { name: String },
}

/// The leases of one queue's readers.
pub struct Leases {
    api: Api<Lease>,
    me: String,
    readers: u8,
}

/// A lease that we hold, as it was last written.
#[derive(Debug)]
pub struct Held(Lease);

impl Held {
    pub fn name(&self) -> &str {
        self.0.metadata.name.as_deref().unwrap_or_default()
    }
}

impl Leases {
    /// `readers` leases in `namespace`; the others see `me` as the holder.
    pub fn new(client: Client, namespace: &str, me: String, readers: u8) -> Self {
        Self { api: Api::namespaced(client, namespace), me, readers: readers.max(1) }
    }

    /// Takes the first lease that is free; `None` where all are held. One who `stays` takes over from one who leaves, too.
    pub async fn take_one(&self, stays: bool) -> Result<Option<Held>, LeaseError> {
        let first = fastrand::u8(0..self.readers);
        for index in 0..self.readers {
            let name = format!("spotkeeper-queue-{}", (first + index) % self.readers);
            if let Some(held) = self.take(&name, stays).await? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    async fn take(&self, name: &str, stays: bool) -> Result<Option<Held>, LeaseError> {
        let now = Timestamp::now();
        match call(name, self.api.get_opt(name)).await? {
            None => {
                let mut lease =
                    Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec: None };
                (lease.spec, lease.metadata.annotations) = (Some(self.spec(now, 1)), leaving(!stays));
                contended(call(name, self.api.create(&PostParams::default(), &lease)).await)
            }
            Some(lease) if is_free(&lease, &self.me, stays, now) => {
                let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                contended(self.write(lease, self.spec(now, transitions.saturating_add(1)), stays).await)
            }
            Some(_) => Ok(None),
        }
    }

    /// Renews, and says whether its holder `stays`; `None` where somebody else has taken it.
    pub async fn renew(&self, held: &Held, stays: bool) -> Result<Option<Held>, LeaseError> {
        let transitions = held.0.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        contended(self.write(held.0.clone(), self.spec(Timestamp::now(), transitions), stays).await)
    }

    fn spec(&self, now: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Replaces it as it was read: its resourceVersion lets only one of two win.
    async fn write(&self, mut lease: Lease, spec: LeaseSpec, stays: bool) -> Result<Lease, LeaseError> {
        let name = lease.metadata.name.clone().unwrap_or_default();
        lease.spec = Some(spec);
        lease.metadata.managed_fields = None;
        lease.metadata.annotations = leaving(!stays);
        call(&name, self.api.replace(&name, &PostParams::default(), &lease)).await
    }
}

async fn call<T>(name: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(|source| LeaseError::Call { name: name.to_owned(), source: Box::new(source) }),
        Err(_) => Err(LeaseError::TimedOut { name: name.to_owned() }),
    }
}

/// A conflict is not an error: somebody else was quicker.
fn contended(result: Result<Lease, LeaseError>) -> Result<Option<Held>, LeaseError> {
    match result {
        Ok(lease) => Ok(Some(Held(lease))),
        Err(LeaseError::Call { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 409) => Ok(None),
        Err(error) => Err(error),
    }
}

fn leaving(leaves: bool) -> Option<BTreeMap<String, String>> {
    leaves.then(|| BTreeMap::from([(LEAVING.to_owned(), "true".to_owned())]))
}

fn is_free(lease: &Lease, me: &str, stays: bool, now: Timestamp) -> bool {
    if stays && lease.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LEAVING)) {
        return true;
    }
    let Some(spec) = &lease.spec else { return true };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let Some(renewed) = &spec.renew_time else {
        return true;
    };
    let duration = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
    // One from the future is a clock's mistake, and is waited out as long as any other.
    holder.is_empty() || holder == me || now.duration_since(renewed.0).abs() > duration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_when_nobody_holds_it_or_its_holder_has_gone_silent() {
        let now: Timestamp = "2026-04-24T17:00:00Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(renewed.parse().unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        assert!(!is_free(&lease("other", "2026-04-24T16:59:50Z"), "me", true, now));
        assert!(is_free(&lease("other", "2026-04-24T16:59:44Z"), "me", true, now));
        assert!(is_free(&lease("me", "2026-04-24T16:59:59Z"), "me", true, now));
        assert!(is_free(&lease("", "2026-04-24T16:59:59Z"), "me", true, now));
        assert!(is_free(&Lease::default(), "me", true, now));

        let mut left = lease("other", "2026-04-24T16:59:59Z");
        left.metadata.annotations = leaving(true);
        assert!(is_free(&left, "me", true, now), "one who stays takes over from one who leaves");
        assert!(!is_free(&left, "me", false, now), "one who leaves does not");
    }
}
