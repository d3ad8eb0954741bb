//! What only one who saw the whole world can judge: every life of an agent, and the API server itself.
//!
//! All times are on the world's own clock, which is none of the agents'.

use std::time::Duration;

use super::{Invariant, StatusOrder, Violation};
use crate::api::interruption::InterruptionStatus;
use crate::domain::node::{Node, Taint};
use crate::domain::pod::OnInterruption;
use crate::domain::policy::DrainStart;
use crate::domain::time::Instant;
use crate::interruption::Policy;
use crate::interruption::drain::{ASKED_FOR, HOLD_SPARE};
use crate::interruption::mark::{EXCLUDE_FROM_LOAD_BALANCERS, INTERRUPTION};

/// What happened to one node and its pods.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub margin: Duration,
    /// Evictions may wait for a replacement: until a pod could not end in time otherwise, and no longer.
    pub capacity_first: bool,
    /// How long an agent may take to do what it can do: to be asked, to list, to try again after a lost answer.
    pub slack: Duration,
    /// The node's wall clock was off: when a pod ends cannot be read from its `deletionTimestamp`, so that an ask which
    /// shortens nothing is no fault.
    pub clock_was_off: bool,
    pub pods: Vec<PodFate>,
    /// When an agent knew a confirmed deadline, and could act: it ran, and the API server answered it.
    pub able: Vec<Able>,
    /// The statuses that the API server took, in its order.
    pub statuses: Vec<(Instant, InterruptionStatus)>,
}

/// One pod of the node.
#[derive(Clone, Debug)]
pub struct PodFate {
    pub path: String,
    pub grace: Duration,
    pub policy: OnInterruption,
    /// A drain is about it.
    pub evictable: bool,
    /// When it was on the node and in the API.
    pub created: Instant,
    /// When its containers had stopped by themselves or within a grace, and not by the end of the instance.
    pub out_at: Option<Instant>,
    pub asks: Vec<Asked>,
}

/// One ask of ours.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub sent: Instant,
    /// When the agent got the acknowledgement; `None` where there was none, or it was lost.
    pub acknowledged: Option<Instant>,
    /// When the pod will have ended, as of this ask, where the API server accepted it.
    pub ends_at: Option<Instant>,
}

/// A time in which an agent knew a confirmed deadline and nothing kept it from acting on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Able {
    pub from: Instant,
    pub to: Instant,
    pub deadline: Instant,
}

impl Ledger {
    /// How its node is treated from now on.
    pub fn is_kept_by(&mut self, policy: &Policy) {
        (self.margin, self.capacity_first) = (policy.margin, policy.drain == DrainStart::CapacityFirst);
    }

    /// I-1, I-4, I-5 and I-6 over all that has happened.
    pub fn judge(&self) -> Vec<Violation> {
        let mut violations: Vec<Violation> = Vec::new();
        if !self.clock_was_off {
            violations.extend(self.pods.iter().flat_map(asked_once));
        }
        violations.extend(self.judge_statuses());
        violations.extend(self.pods.iter().filter_map(|pod| self.in_time(pod)));
        violations
    }

    /// I-4 and I-5 over restarts.
    pub fn judge_statuses(&self) -> Vec<Violation> {
        let mut order = StatusOrder::default();
        let judged = self.statuses.iter().flat_map(|(at, status)| {
            order.next(status).into_iter().map(move |mut violation| {
                violation.what.push_str(&format!(", at {at:?} in the API"));
                violation
            })
        });
        judged.collect()
    }

    /// I-6 for one pod.
    fn in_time(&self, pod: &PodFate) -> Option<Violation> {
        if !pod.evictable {
            return None;
        }
        self.able.iter().find_map(|able| self.missed(pod, able))
    }

    /// Says what was missed in a time in which an agent was able to act.
    fn missed(&self, pod: &PodFate, able: &Able) -> Option<Violation> {
        let end = able.deadline - self.margin;
        let latest_by_grace = end - pod.grace;
        let mut due = able.from.max(pod.created);
        match pod.policy {
            OnInterruption::Wait => due = due.max(latest_by_grace),
            _ if self.capacity_first => due = due.max(latest_by_grace - ASKED_FOR - HOLD_SPARE),
            _ => {}
        }
        let window_ends = able.to.min(end);
        if pod.out_at.is_some_and(|out| out <= due + self.slack) {
            return None;
        }
        if due + self.slack > window_ends {
            return None;
        }
        // A life of the agent does not know when the one before it asked first.
        let first = pod.asks.iter().map(|ask| ask.sent).filter(|sent| *sent >= able.from).min();
        let going = |by: Instant| {
            pod.asks.iter().any(|ask| ask.sent <= by && ask.ends_at.is_some())
                || pod.out_at.is_some_and(|out| out <= by)
        };
        let Some(first) = first.filter(|first| *first <= due + self.slack) else {
            if going(due + self.slack) {
                return None;
            }
            return Some(Invariant::EveryPodInTime.violated(format!(
                "{} was not asked by {:?}, though it could be from {due:?} (deadline {:?})",
                pod.path,
                due + self.slack,
                able.deadline
            )));
        };
        // From its latest start on no budget may hold it.
        let latest = latest_by_grace.max(first + ASKED_FOR).max(due);
        (latest + self.slack <= window_ends && !going(latest + self.slack)).then(|| {
            Invariant::EveryPodInTime.violated(format!(
                "{} was not going by {:?}, though its latest start was {latest:?} (deadline {:?})",
                pod.path,
                latest + self.slack,
                able.deadline
            ))
        })
    }
}

/// I-1 over restarts: an ask that was sent after the acknowledgement of an earlier one has to shorten it.
fn asked_once(pod: &PodFate) -> Vec<Violation> {
    let again = |(n, ask): (usize, &Asked)| {
        let earlier = pod.asks[..n].iter().filter(|earlier| earlier.acknowledged.is_some_and(|at| at < ask.sent));
        let ended = earlier.filter_map(|earlier| earlier.ends_at).min()?;
        let shorter = ask.ends_at.is_none_or(|ends_at| ends_at < ended);
        (!shorter).then(|| {
            Invariant::AskedOnce.violated(format!(
                "{} was asked again at {:?}, though it was acknowledged to end at {ended:?}",
                pod.path, ask.sent
            ))
        })
    };
    pod.asks.iter().enumerate().filter_map(again).collect()
}

/// What others did to a node: all that may be left on it when an interruption is over.
#[derive(Clone, Debug, Default)]
pub struct Foreign {
    pub cordoned: bool,
    pub excluded: bool,
    pub taints: Vec<Taint>,
}

/// I-3 when it is over: nothing of ours is left, and nothing of others was taken.
pub fn restored(node: &Node, foreign: &Foreign) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if node.annotations.contains_key(INTERRUPTION) {
        wrong.push("our annotation is left on it".to_owned());
    }
    if node.taints.iter().any(|taint| taint.key == INTERRUPTION) {
        wrong.push("our taint is left on it".to_owned());
    }
    if node.unschedulable != foreign.cordoned {
        wrong.push(format!(
            "it is {}schedulable, and was {}schedulable but for us",
            if node.unschedulable { "un" } else { "" },
            if foreign.cordoned { "un" } else { "" }
        ));
    }
    if node.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS) != foreign.excluded {
        wrong.push("the label for load balancers is not as it was but for us".to_owned());
    }
    wrong.extend(lost_taints(node, foreign));
    wrong
        .into_iter()
        .map(|what| Invariant::NothingUnconfirmed.violated(format!("node {}: {what}", node.name)))
        .collect()
}

/// The part of I-3 that holds at any time: another's taint is never lost.
pub fn foreign_kept(node: &Node, foreign: &Foreign) -> Vec<Violation> {
    lost_taints(node, foreign)
        .into_iter()
        .map(|what| Invariant::NothingUnconfirmed.violated(format!("node {}: {what}", node.name)))
        .collect()
}

fn lost_taints(node: &Node, foreign: &Foreign) -> Vec<String> {
    foreign
        .taints
        .iter()
        .filter(|taint| !node.taints.contains(taint))
        .map(|taint| format!("another's taint {} is lost", taint.key))
        .collect()
}

/// I-7 for one message: what it said, and whether that was in the API when it was deleted from the queue.
pub fn notice_kept(notice: &str, in_the_api: bool) -> Option<Violation> {
    (!in_the_api)
        .then(|| Invariant::NoticesKept.violated(format!("{notice} was deleted from the queue and is not in the API")))
}
