//! What must always hold of one replica, as a predicate over the stream of its inputs and effects.
//!
//! [`Witness`] watches a replica from outside: in the simulator, and as a metric in production. What concerns the whole
//! (two live instances for one claim, capacity that leaks, limits) is judged by the simulator, which alone sees EC2's
//! truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;

use super::leadership::CALL_TIMEOUT;
use super::memory::ENTRIES_MAX;
use super::shortage::BELIEF_MAX;
use super::{Answer, Because, Claim, Effect, Input};
use crate::api::launch::LaunchSpec;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use templates::Uses;

mod templates;

/// One of the invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// P-2: nothing begins that could end in another's term.
    Leadership,
    /// P-3: an unknown outcome is answered by the same token and request, and the claim begins no other.
    SameToken,
    /// A call is made only for what is written down.
    WrittenFirst,
    /// P-7: a belief in a shortage ends, also for whoever takes it over.
    BeliefsEnd,
    /// P-11: what is written as seen in EC2, EC2 has said.
    SeenInEc2,
    /// P-12: no launch template is deleted that something uses.
    TemplatesKept,
}

impl Invariant {
    pub const ALL: [Invariant; 6] =
        [Self::Leadership, Self::SameToken, Self::WrittenFirst, Self::BeliefsEnd, Self::SeenInEc2, Self::TemplatesKept];

    pub fn code(self) -> &'static str {
        match self {
            Self::Leadership => "P-2",
            Self::SameToken => "P-3",
            Self::WrittenFirst => "P-3w",
            Self::BeliefsEnd => "P-7",
            Self::SeenInEc2 => "P-11",
            Self::TemplatesKept => "P-12",
        }
    }
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant.code(), self.what)
    }
}

/// How long two instances of one claim may live: until they are shown, until the next resync, until the call that ends
/// one has been repeated, and until a replica that died has been followed by the other.
pub const TWINS_MAX: Duration = Duration::from_secs(120);

/// The longest that a belief in a shortage lasts: what it grows to, and what sets those apart that failed together.
const BELIEVED_MAX: Duration = Duration::from_secs(BELIEF_MAX.as_secs() * 11 / 10);

/// An instance of ours as EC2 knows it.
#[derive(Clone, Debug)]
pub struct Lived<'a> {
    pub id: &'a InstanceId,
    /// The token of the launch that made it.
    pub token: &'a str,
    pub born: Instant,
    pub died: Option<Instant>,
}

/// P-1: the claims, by uid, that had two live instances at once, and for how long by `now`. `written` is every launch
/// that there ever was, by its token: the instances of a call belong to its claims in sorted order.
pub fn twins(now: Instant, written: &BTreeMap<String, LaunchSpec>, lived: &[Lived]) -> BTreeMap<String, Duration> {
    let mut of_token: BTreeMap<&str, Vec<&Lived>> = BTreeMap::new();
    for one in lived {
        of_token.entry(one.token).or_default().push(one);
    }
    let mut lives: BTreeMap<&str, Vec<(Instant, Instant)>> = BTreeMap::new();
    for (token, mut some) in of_token {
        let Some(spec) = written.get(token) else { continue };
        some.sort_by_key(|one| one.id);
        for (of, one) in spec.claims.iter().zip(some) {
            lives.entry(&of.uid).or_default().push((one.born, one.died.unwrap_or(now)));
        }
    }
    let mut twins = BTreeMap::new();
    for (claim, mut spans) in lives {
        spans.sort();
        let both = spans.windows(2).map(|pair| pair[0].1.min(pair[1].1).since(pair[1].0)).max();
        if let Some(both) = both.filter(|both| !both.is_zero()) {
            twins.insert(claim.to_owned(), both);
        }
    }
    twins
}

/// Watches one replica.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    until: Option<Instant>,
    /// Launches that the API server has, as written, with their token.
    written: BTreeMap<String, (String, LaunchSpec)>,
    pending: BTreeMap<String, LaunchSpec>,
    /// What has been sent under a token.
    sent: BTreeMap<String, LaunchSpec>,
    /// Launches whose outcome is not known, by claim uid.
    unknown: BTreeMap<String, String>,
    /// Instances that EC2 itself takes, as it has said.
    taken: BTreeSet<InstanceId>,
    /// Launches and claim uids, where the claim's own record says how the launch ended for it.
    told: BTreeSet<(String, String)>,
    /// What names a launch template.
    uses: Uses,
}

impl Witness {
    pub fn took_in(&mut self, input: &Input) {
        self.uses.took_in(input);
        match input {
            Input::LeaseHeld { until } => self.until = Some(*until),
            Input::LeaseLost => self.until = None,
            Input::Listed { claims, launches, .. } => {
                self.written.clear();
                self.pending.clear();
                self.unknown.clear();
                let closed = |claim: &Claim| {
                    let closed = claim.status.attempts.iter().filter(|attempt| attempt.because.is_some());
                    closed.map(|attempt| (attempt.launch.clone(), claim.uid.clone())).collect::<Vec<_>>()
                };
                self.told = claims.iter().flat_map(closed).collect();
                for launch in launches {
                    self.written.insert(launch.name.clone(), (launch.uid.clone(), launch.spec.clone()));
                    if launch.status.outcome.is_none() {
                        self.open(&launch.name, &launch.spec.clone());
                    }
                }
            }
            Input::LaunchCreated { name, outcome: super::Created::Made { uid } } => {
                if let Some(spec) = self.pending.remove(name) {
                    self.written.insert(name.clone(), (uid.clone(), spec));
                }
            }
            Input::InstancesRead { instances, .. } => {
                self.taken.extend(instances.iter().filter(|one| one.taken.is_some()).map(|one| one.id.clone()));
            }
            Input::Looked(Ok(sights)) => {
                self.taken.extend(sights.iter().filter(|sight| sight.is_taken()).map(|sight| sight.instance.clone()));
            }
            Input::InterruptionGone { instance } => drop(self.taken.remove(instance)),
            Input::Called { launch, answer: Answer::Fleet { .. } | Answer::Refused { .. } } => self.close(launch),
            _ => {}
        }
    }

    fn open(&mut self, name: &str, spec: &LaunchSpec) {
        for of in &spec.claims {
            if !self.told.contains(&(name.to_owned(), of.uid.clone())) {
                self.unknown.insert(of.uid.clone(), name.to_owned());
            }
        }
    }

    fn close(&mut self, name: &str) {
        self.unknown.retain(|_, launch| launch != name);
    }

    /// Judges what is about to be done.
    pub fn judge(&mut self, now: Instant, effect: &Effect) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut broken = |invariant, what: String| found.push(Violation { invariant, what });
        let acts = matches!(
            effect,
            Effect::Call { .. }
                | Effect::End { .. }
                | Effect::CreateLaunch { .. }
                | Effect::CreateClaim { .. }
                | Effect::DeleteClaim { .. }
                | Effect::DeleteLaunch { .. }
                | Effect::WriteClaim { .. }
                | Effect::WriteLaunch { .. }
                | Effect::WritePool { .. }
                | Effect::Label { .. }
                | Effect::Request { .. }
                | Effect::WriteNotice { .. }
                | Effect::RecordTaken { .. }
                | Effect::TaintOutOfService { .. }
                | Effect::DeleteNode { .. }
                | Effect::Disown { .. }
                | Effect::DeleteInterruption { .. }
                | Effect::Withdraw { .. }
                | Effect::Remember { .. }
                | Effect::Copy { .. }
                | Effect::DeleteTemplate { .. }
        );
        if acts && self.until.is_none_or(|until| until <= now + CALL_TIMEOUT) {
            broken(Invariant::Leadership, format!("{effect:?} at {now:?}, the term ends at {:?}", self.until));
        }
        match effect {
            Effect::CreateLaunch { name, spec } => {
                for of in &spec.claims {
                    if let Some(other) = self.unknown.get(&of.uid).filter(|other| *other != name) {
                        let what = format!("{name} is begun for {}, and the outcome of {other} is not known", of.name);
                        broken(Invariant::SameToken, what);
                    }
                }
                self.pending.insert(name.clone(), (**spec).clone());
            }
            Effect::Call { launch, token, spec, .. } => {
                match self.written.get(launch) {
                    Some((uid, written)) if uid == token && *written == **spec => {}
                    _ => broken(Invariant::WrittenFirst, format!("{launch} is called and not written like this")),
                }
                let first = self.sent.entry(token.clone()).or_insert_with(|| (**spec).clone());
                if *first != **spec {
                    broken(Invariant::SameToken, format!("{launch} is repeated with another request"));
                }
                self.open(launch, spec);
            }
            Effect::Decided { because: Because::Short { what, believed, .. }, .. } if *believed > BELIEVED_MAX => {
                broken(Invariant::BeliefsEnd, format!("{what} is believed to be short for {} s", believed.as_secs()));
            }
            Effect::Remember { memory } => {
                let longest =
                    memory.short.iter().map(|one| one.until.duration_since(memory.at)).max().unwrap_or_default();
                if longest > SignedDuration::from_secs(BELIEVED_MAX.as_secs().cast_signed()) {
                    broken(Invariant::BeliefsEnd, format!("a belief is left that lasts for {} s", longest.as_secs()));
                }
                if memory.short.len().max(memory.trouble.len()) > ENTRIES_MAX {
                    broken(Invariant::BeliefsEnd, format!("{} beliefs are left", memory.short.len()));
                }
            }
            Effect::WriteNotice { instance, entry, .. } | Effect::RecordTaken { instance, entry, .. }
                if !self.taken.contains(instance) =>
            {
                let what = format!("{} of {instance} is written, and EC2 has not said that it takes it", entry.key());
                broken(Invariant::SeenInEc2, what);
            }
            Effect::DeleteTemplate { of, .. } => {
                let launches = self.written.iter().map(|(name, (_, spec))| (name, spec));
                if let Some(by) = self.uses.of(of, launches) {
                    broken(Invariant::TemplatesKept, format!("{} is deleted, and {by} uses it", of.name));
                }
            }
            // What was presumed or looked up is closed by the record of its outcome.
            Effect::WriteLaunch { name, status, .. } if status.outcome.is_some() => self.close(name),
            Effect::DeleteLaunch { name, .. } => {
                self.close(name);
                if let Some((token, _)) = self.written.remove(name) {
                    self.sent.remove(&token);
                }
            }
            _ => {}
        }
        found
    }
}
