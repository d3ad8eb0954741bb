//! The drain plan: which pods are asked, in what order, with what grace, and when asking ends and deleting begins.
//!
//! With D the deadline, m the margin and g a pod's own grace:
//!
//! - a pod is asked through the eviction API with `gracePeriodSeconds = clamp(D − m − now, 1 s, g)`, longest g first;
//! - its latest start is `L = max(first ask + 10 s, D − m − g)`, and never later than `D − m − 1 s`: until L a budget
//!   that says no is asked again, at L the pod is deleted;
//! - with `CapacityFirst` a pod is asked when the replacement is Ready, and at the latest 15 s before `D − m − g`;
//! - after D nothing is asked any more;
//! - without a deadline pods are only ever asked, with their own grace.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Answer, Ask, Because, Effect, Verb};
use crate::api::interruption::{BlockedPod, PodCounts};
use crate::domain::pod::{OnInterruption, Pod, PodUid};
use crate::domain::time::Instant;

/// How long every budget is asked, also where the pod's grace is longer than the time left.
pub const ASKED_FOR: Duration = Duration::from_secs(10);

/// How much earlier than it must a drain ceases to wait for a replacement: one call may be lost and tried again.
pub const HOLD_SPARE: Duration = Duration::from_secs(5);

/// The shortest grace that is given to a pod whose own is not zero. Zero would remove the object without the kubelet's
/// word, and a StatefulSet would start a twin beside the old writer.
pub const SHORTEST_GRACE: Duration = Duration::from_secs(1);

/// How many asks are on their way at once. The grace is computed when an ask is sent, so they do not queue elsewhere.
pub const IN_FLIGHT_MAX: usize = 32;

/// How many blocked pods a record lists.
const BLOCKED_LISTED_MAX: usize = 32;

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
const RETRY_MAX_WITHOUT_DEADLINE: Duration = Duration::from_secs(15);
const RETRY_FORBIDDEN: Duration = Duration::from_secs(5);

/// What holds for every pod of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub deadline: Option<Instant>,
    pub margin: Duration,
    /// There is no time to let anyone work: pods that asked to wait do not.
    pub at_once: bool,
    /// The replacement is waited for: a pod is asked only when it could not end in time otherwise.
    pub held: bool,
}

impl Terms {
    /// The terms of one who only asks.
    pub fn without_deadline(margin: Duration) -> Self {
        Self { deadline: None, margin, at_once: false, held: false }
    }

    /// When every pod should have ended: `D − m`.
    fn end(&self) -> Option<Instant> {
        self.deadline.map(|deadline| deadline - self.margin)
    }

    fn over(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline < now)
    }

    /// `gracePeriodSeconds` of an ask at `now`; `None` leaves the pod its own.
    pub fn grace_secs(&self, now: Instant, own: Duration) -> Option<u32> {
        let end = self.end()?;
        if own.is_zero() {
            return Some(0);
        }
        let left = Duration::from_secs(end.since(now).as_secs());
        let grace = left.clamp(SHORTEST_GRACE, own.max(SHORTEST_GRACE));
        Some(u32::try_from(grace.as_secs()).unwrap_or(u32::MAX))
    }

    /// `L` of a pod that was first asked at `first_ask`, and for so long `before` by an earlier run of the program;
    /// `None` where there is no deadline.
    pub fn latest_start(&self, first_ask: Instant, before: Duration, own: Duration) -> Option<Instant> {
        let end = self.end()?;
        let asked_for = ASKED_FOR.saturating_sub(before);
        Some((end - own).max(first_ask + asked_for).min(end - SHORTEST_GRACE))
    }
}

/// Where the plan is with one pod.
#[derive(Clone, Debug)]
enum State {
    /// To be asked, not before this.
    Due(Instant),
    /// An ask is on its way since then.
    Asked { at: Instant, grace_secs: Option<u32> },
    /// It is going; its grace runs out then.
    Going { ends_at: Instant },
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Pod,
    state: State,
    first_ask: Option<Instant>,
    /// For how long an earlier run of the program had asked it.
    before: Duration,
    tries: u32,
    blocked_by: Option<String>,
}

impl Entry {
    fn new(pod: Pod, now: Instant) -> Self {
        let state = match pod.ends_at {
            Some(ends_at) => State::Going { ends_at },
            None => State::Due(now),
        };
        Self { pod, state, first_ask: None, before: Duration::ZERO, tries: 0, blocked_by: None }
    }

    /// When the next ask is due, and how; `None` where there is none.
    fn next_ask(&self, now: Instant, terms: &Terms) -> Option<(Instant, Verb)> {
        match self.state {
            State::Asked { .. } => None,
            State::Going { ends_at } => {
                // The one exception to asking once: it was given a grace that ends after the deadline, and that can
                // still be shortened. Late in the margin even the shortest grace ends after `D − m`.
                let soonest = terms.end()?.max(now + SHORTEST_GRACE);
                (ends_at > soonest + SHORTEST_GRACE).then_some((Instant::default(), Verb::Evict))
            }
            State::Due(at) => {
                let Some(first_ask) = self.first_ask else {
                    return Some((self.first_due(at, terms)?, Verb::Evict));
                };
                // Who waits was asked later than the others, nobody has written down when.
                let before = if self.pod.policy == OnInterruption::Wait { Duration::ZERO } else { self.before };
                match terms.latest_start(first_ask, before, self.pod.grace) {
                    Some(latest) if latest <= at => Some((latest.max(first_ask), Verb::Delete)),
                    _ => Some((at, Verb::Evict)),
                }
            }
        }
    }

    /// When it is asked for the first time.
    fn first_due(&self, at: Instant, terms: &Terms) -> Option<Instant> {
        match self.pod.policy {
            OnInterruption::Wait if !terms.at_once => Some(at.max(terms.end()? - self.pod.grace)),
            // A budget is to be asked for a while, also after the waiting.
            _ if terms.held => Some(at.max(terms.end()? - self.pod.grace - ASKED_FOR - HOLD_SPARE)),
            _ => Some(at),
        }
    }
}

/// The plan for all pods of the node.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pods: BTreeMap<PodUid, Entry>,
    listed: bool,
    in_flight: usize,
    total: i64,
    kept_in_zone: bool,
    finished: i64,
    evicted: i64,
    deleted: i64,
    /// By `namespace/name`: for how long an earlier run had asked, and was told to wait.
    asked_before: BTreeMap<String, Duration>,
}

impl Plan {
    /// Whether the node's pods are known at all.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// Continues the counts of an earlier run of the program, which had asked for so long those who are blocked.
    pub fn inherit(&mut self, counts: &PodCounts, asked_for: Duration) {
        self.asked_before = counts.blocked.iter().map(|blocked| (blocked.pod.clone(), asked_for)).collect();
        for entry in self.pods.values_mut() {
            entry.before = self.asked_before.get(&entry.pod.path()).copied().unwrap_or_default();
        }
        self.total += counts.finished;
        self.finished += counts.finished;
        self.evicted += counts.evicted;
        self.deleted += counts.deleted;
        self.kept_in_zone |= counts.kept_in_zone;
    }

    /// Another has asked in the meantime: what it has counted counts.
    pub fn at_least(&mut self, counts: &PodCounts) {
        self.evicted = self.evicted.max(counts.evicted);
        self.deleted = self.deleted.max(counts.deleted);
    }

    /// How many are still there.
    pub fn left(&self) -> usize {
        self.pods.len()
    }

    /// The longest grace among the pods that are still there.
    pub fn longest_grace(&self) -> Duration {
        self.pods.values().map(|e| e.pod.grace).max().unwrap_or_default()
    }

    /// What the next plan has to know of this one: who is going, and who is being asked.
    pub fn carry_over(mut self) -> Self {
        self.pods.retain(|_, entry| !matches!(entry.state, State::Due(_)));
        for entry in self.pods.values_mut() {
            (entry.first_ask, entry.before, entry.tries, entry.blocked_by) = (None, Duration::ZERO, 0, None);
        }
        Self {
            total: i64::try_from(self.pods.len()).unwrap_or(i64::MAX),
            pods: self.pods,
            in_flight: self.in_flight,
            kept_in_zone: self.kept_in_zone,
            ..Self::default()
        }
    }

    /// Takes in the list of all pods: those that it does not name are gone.
    pub fn list(&mut self, now: Instant, pods: Vec<Pod>) {
        self.listed = true;
        let gone: Vec<PodUid> = self.pods.keys().filter(|uid| !pods.iter().any(|p| &p.uid == *uid)).cloned().collect();
        for uid in gone {
            self.gone(&uid);
        }
        for pod in pods {
            self.see(now, pod);
        }
    }

    /// Takes in one pod as it is now.
    pub fn see(&mut self, now: Instant, pod: Pod) {
        if !pod.evictable() {
            self.gone(&pod.uid);
            return;
        }
        let Some(entry) = self.pods.get_mut(&pod.uid) else {
            self.total += 1;
            self.kept_in_zone |= pod.kept_in_zone;
            let before = self.asked_before.get(&pod.path()).copied().unwrap_or_default();
            self.pods.insert(pod.uid.clone(), Entry { before, ..Entry::new(pod, now) });
            return;
        };
        match (&entry.state, pod.ends_at) {
            (State::Due(_), Some(ends_at)) => entry.state = State::Going { ends_at },
            // What we know of our own ask may be newer than the watch.
            (State::Going { ends_at }, Some(seen)) => entry.state = State::Going { ends_at: seen.min(*ends_at) },
            _ => {}
        }
        entry.pod = pod;
    }

    /// A pod has ended, or is none of the drain's business any more.
    pub fn gone(&mut self, uid: &PodUid) {
        if let Some(entry) = self.pods.remove(uid) {
            self.finished += 1;
            if matches!(entry.state, State::Asked { .. }) {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
        }
    }

    /// The terms have become harder: whoever waits for his next turn is asked now.
    pub fn hurry(&mut self, now: Instant) {
        for entry in self.pods.values_mut() {
            if let State::Due(at) = &mut entry.state {
                *at = (*at).min(now);
                entry.tries = 0;
            }
        }
    }

    /// Asks whoever is due, longest grace first, as many at once as may be on their way.
    ///
    /// Returns whether anybody was asked.
    pub fn step(&mut self, now: Instant, terms: &Terms, effects: &mut Vec<Effect>) -> bool {
        if terms.over(now) || self.in_flight >= IN_FLIGHT_MAX {
            return false;
        }
        let mut due: Vec<(Verb, Duration, PodUid)> = self
            .pods
            .iter()
            .filter_map(|(uid, entry)| {
                let (at, verb) = entry.next_ask(now, terms)?;
                (at <= now).then(|| (verb, entry.pod.grace, uid.clone()))
            })
            .collect();
        // Whoever has reached the latest start comes before all others.
        due.sort_by_key(|(verb, grace, uid)| (Reverse(*verb), Reverse(*grace), uid.clone()));
        due.truncate(IN_FLIGHT_MAX - self.in_flight);
        let any = !due.is_empty();
        for (verb, _, uid) in due {
            if let Some(entry) = self.pods.get_mut(&uid) {
                self.in_flight += 1;
                ask(entry, verb, now, terms, effects);
            }
        }
        any
    }

    /// Takes in the answer to an ask.
    pub fn answered(
        &mut self,
        now: Instant,
        uid: &PodUid,
        verb: Verb,
        answer: Answer,
        terms: &Terms,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.pods.get_mut(uid) else {
            return;
        };
        let State::Asked { at, grace_secs } = entry.state else {
            return;
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        match answer {
            Answer::Gone => return self.gone(uid),
            Answer::Accepted => {
                let grace = grace_secs.map_or(entry.pod.grace, |secs| Duration::from_secs(secs.into()));
                // The grace was chosen to fit when the ask was sent: an answer that is late does not make it too long.
                entry.state = State::Going { ends_at: at + grace };
                entry.blocked_by = None;
                match verb {
                    Verb::Evict => self.evicted += 1,
                    Verb::Delete => self.deleted += 1,
                }
                return;
            }
            _ => {}
        }
        let wait = retry_after(entry, &answer, terms);
        entry.tries = entry.tries.saturating_add(1);
        // Who was asked to hurry while already on his way out keeps going: the next ask is the exception's again.
        entry.state = match entry.pod.ends_at {
            Some(ends_at) if terms.end().is_none_or(|end| ends_at <= end) => State::Going { ends_at },
            _ => State::Due(now + wait),
        };
        said(entry, &answer, effects);
    }

    /// When [`step`](Self::step) has something to do next.
    pub fn next_wakeup(&self, now: Instant, terms: &Terms) -> Option<Instant> {
        if terms.over(now) || self.in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        self.pods.values().filter_map(|entry| entry.next_ask(now, terms).map(|(at, _)| at)).min()
    }

    /// Makes of what the record said of the pods what it says now. That is done with every input, and most of it stays.
    pub fn count_into(&self, counts: &mut PodCounts) {
        (counts.total, counts.evicted, counts.deleted) = (self.total, self.evicted, self.deleted);
        (counts.finished, counts.kept_in_zone) = (self.finished, self.kept_in_zone);
        counts.left = i64::try_from(self.pods.len()).unwrap_or(i64::MAX);
        let blocked = self.pods.values().filter_map(|entry| Some((&entry.pod, entry.blocked_by.as_ref()?)));
        let mut listed = 0;
        for (pod, by) in blocked.take(BLOCKED_LISTED_MAX) {
            match counts.blocked.get_mut(listed) {
                Some(said) => {
                    if !pod.has_path(&said.pod) {
                        said.pod = pod.path();
                    }
                    said.by.clone_from(by);
                }
                None => counts.blocked.push(BlockedPod { pod: pod.path(), by: by.clone() }),
            }
            listed += 1;
        }
        counts.blocked.truncate(listed);
    }
}

fn ask(entry: &mut Entry, verb: Verb, now: Instant, terms: &Terms, effects: &mut Vec<Effect>) {
    let because = match (&entry.state, verb) {
        (State::Going { .. }, _) => Because::Outlives { pod: entry.pod.path() },
        (_, Verb::Delete) => Because::LatestStart { pod: entry.pod.path(), by: entry.blocked_by.clone() },
        (_, Verb::Evict) => Because::Planned,
    };
    if verb == Verb::Delete && entry.tries_deleting() {
        effects.push(Effect::Decided(because.clone()));
    }
    let grace_secs = terms.grace_secs(now, entry.pod.grace);
    entry.first_ask.get_or_insert(now);
    entry.state = State::Asked { at: now, grace_secs };
    effects.push(Effect::Ask(Ask {
        verb,
        uid: entry.pod.uid.clone(),
        namespace: entry.pod.namespace.clone(),
        name: entry.pod.name.clone(),
        grace_secs,
        because,
    }));
}

impl Entry {
    /// Whether the next delete is the first one, which is a decision to be said.
    fn tries_deleting(&mut self) -> bool {
        let first = self.tries != u32::MAX;
        self.tries = u32::MAX;
        first
    }
}

fn retry_after(entry: &Entry, answer: &Answer, terms: &Terms) -> Duration {
    let cap = if terms.deadline.is_some() { RETRY_MAX } else { RETRY_MAX_WITHOUT_DEADLINE };
    let tries = if entry.tries == u32::MAX { 0 } else { entry.tries };
    let growing = RETRY_FIRST.saturating_mul(1 << tries.min(8)).min(cap);
    match answer {
        Answer::Throttled { retry_after } => retry_after.unwrap_or(growing * 2).clamp(RETRY_FIRST, cap * 2),
        Answer::Forbidden(_) => RETRY_FORBIDDEN,
        _ => growing,
    }
}

/// Says what stands in the way, once for each new obstacle.
fn said(entry: &mut Entry, answer: &Answer, effects: &mut Vec<Effect>) {
    let by = match answer {
        Answer::Blocked { budget: Some(budget) } => format!("PodDisruptionBudget {budget}"),
        Answer::Blocked { budget: None } => "its PodDisruptionBudget".to_owned(),
        Answer::TooManyBudgets => "more than one PodDisruptionBudget selects it".to_owned(),
        Answer::Forbidden(why) => format!("missing permission: {why}"),
        // The API server's trouble is not the pod's: it is counted, not told of every pod.
        _ => return,
    };
    if entry.blocked_by.as_deref() == Some(by.as_str()) {
        return;
    }
    let pod = entry.pod.path();
    effects.push(Effect::Decided(match answer {
        Answer::Forbidden(why) => Because::Forbidden { pod, why: why.clone() },
        _ => Because::Blocked { pod, by: by.clone() },
    }));
    entry.blocked_by = Some(by);
}
