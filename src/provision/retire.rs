//! A node of ours that is to go without anybody taking it: how far asking for its drain has come.
//!
//! The request is one notice of ours in the node's Interruption, without a deadline: its agent cordons it and asks its
//! pods to go, as their budgets allow, and deletes none. That record, and the NodeClaims, say all that a next leader
//! needs to go on with.

use std::time::Duration;

use crate::api::interruption::NoticeEntry;
use crate::domain::notice::{Kind, Source, words};
use crate::domain::time::Instant;
use crate::interruption::Outcome;

/// For how long a node without pods is given to be cordoned: until then one may still be put there.
const CORDONED_WITHIN: Duration = Duration::from_secs(30);

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

words! {
    /// Why a node is to go: the `eventID` of the notice that asks for its drain.
    Reason {
        /// Its pods have a spot node to go to.
        ReturnToSpot = "return-to-spot",
        /// The group has replaced its node itself.
        BridgeEnded = "bridge-ended",
        /// Its NodeClaim is being deleted.
        ClaimDeleted = "claim-deleted",
        /// It is one too many.
        Surplus = "surplus",
    }
}

impl Reason {
    /// In words, for the claim.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::ReturnToSpot => "a spot node has taken its place",
            Self::BridgeEnded => "the group has replaced its node itself",
            Self::ClaimDeleted => "its NodeClaim is being deleted",
            Self::Surplus => "it is one too many",
        }
    }
}

/// A notice of ours in an Interruption: that its node be drained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// A [`Reason`]'s word.
    pub event_id: String,
    /// The particulars: of an ended bridge the instance that has taken over.
    pub action: Option<String>,
}

impl Request {
    /// The request that a notice is, where it is one of ours.
    pub fn of(entry: &NoticeEntry) -> Option<Self> {
        let ours = (entry.source, entry.kind) == (Source::Provisioner, Kind::Requested);
        ours.then(|| Self { event_id: entry.event_id.clone(), action: entry.action.clone() })
    }
}

/// One write of a request, or of its withdrawal: on its way, to be tried again, or acknowledged.
#[derive(Clone, Debug, Default)]
struct Sent {
    on_its_way: bool,
    again: Option<Instant>,
    tries: u32,
    /// When it was acknowledged.
    done: Option<Instant>,
}

impl Sent {
    /// Whether it is to be sent, where the record does not show it. What was acknowledged is given time to be shown; after
    /// that somebody has undone it.
    fn is_due(&self, now: Instant) -> bool {
        let again = match self.done {
            Some(at) => Some(at + CORDONED_WITHIN),
            None => self.again,
        };
        !self.on_its_way && again.is_none_or(|at| at <= now)
    }

    fn sends(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        if due {
            *self = Self { on_its_way: true, tries: self.tries, ..Self::default() };
        }
        due
    }

    fn answered(&mut self, now: Instant, outcome: Outcome) -> Option<String> {
        self.on_its_way = false;
        match outcome {
            Outcome::Done => {
                (self.done, self.tries) = (Some(now), 0);
                None
            }
            Outcome::Refused(why) | Outcome::Failed(why) => {
                self.again = Some(now + RETRY_FIRST.saturating_mul(1 << self.tries.min(8)).min(RETRY_MAX));
                self.tries = self.tries.saturating_add(1);
                (self.tries == 1).then_some(why)
            }
        }
    }

    fn wakeup(&self) -> Option<Instant> {
        self.again.filter(|_| !self.on_its_way && self.done.is_none())
    }
}

/// A node that is being retired, or whose request is being taken back.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) why: Reason,
    pub(super) action: Option<String>,
    since: Instant,
    withdrawn: bool,
    sent: Sent,
    /// The withdrawal of what was asked for another reason before.
    former: Sent,
}

impl Run {
    pub(super) fn new(now: Instant, why: Reason, action: Option<String>) -> Self {
        Self { why, action, since: now, withdrawn: false, sent: Sent::default(), former: Sent::default() }
    }

    /// Since when it is to go for this reason.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Whether the request is being taken back.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn
    }

    /// Takes the request back; whatever was on its way is followed by this.
    pub(super) fn withdraw(&mut self) {
        if !std::mem::replace(&mut self.withdrawn, true) {
            self.sent = Sent { on_its_way: self.sent.on_its_way, ..Sent::default() };
        }
    }

    /// It is wanted again, or for another reason.
    pub(super) fn wanted(&mut self, now: Instant, why: Reason, action: Option<String>) {
        if self.withdrawn || self.why != why {
            let on_its_way = self.sent.on_its_way;
            *self = Self::new(now, why, action);
            self.sent.on_its_way = on_its_way;
        }
    }

    /// Whether the write is to be sent now; `said`: the record has the request.
    pub(super) fn sends(&mut self, now: Instant, said: bool) -> bool {
        said == self.withdrawn && self.sent.sends(now)
    }

    /// Whether a request for a former reason, which the record shows, is to be taken back now.
    pub(super) fn drops(&mut self, now: Instant) -> bool {
        !self.withdrawn && self.former.sends(now)
    }

    /// Takes in the answer. `withdrawal`: it was one. Returns what went wrong, the first time it does.
    pub(super) fn answered(&mut self, now: Instant, withdrawal: bool, outcome: Outcome) -> Option<String> {
        if withdrawal && !self.withdrawn && self.former.on_its_way {
            return self.former.answered(now, outcome);
        }
        if withdrawal == self.withdrawn {
            return self.sent.answered(now, outcome);
        }
        // Overtaken: what is wanted by now is still to be sent.
        self.sent = Sent::default();
        None
    }

    /// Whether its request is gone from the record, as far as it was ever in it.
    pub(super) fn is_over(&self, said: bool) -> bool {
        self.withdrawn && !said && !self.sent.on_its_way
    }

    /// Whether a node on which no pod runs may be ended: none can be put on it any more.
    pub(super) fn may_end(&self, now: Instant, cordoned: bool) -> bool {
        cordoned || now.since(self.since) >= CORDONED_WITHIN
    }

    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let cordoned = Some(self.since + CORDONED_WITHIN).filter(|at| *at > now && !self.withdrawn);
        let sent = [self.sent.wakeup(), self.former.wakeup()].into_iter().flatten().filter(|at| *at > now);
        sent.chain(cordoned).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    #[test]
    fn a_request_is_sent_once_and_again_where_it_failed() {
        let mut run = Run::new(at(0), Reason::Surplus, None);
        assert!(run.sends(at(0), false) && !run.sends(at(0), false), "one at a time");
        assert_eq!(run.answered(at(1), false, Outcome::Failed("busy".into())), Some("busy".into()));
        assert!(!run.sends(at(1), false) && run.sends(at(2), false));
        assert_eq!(run.answered(at(2), false, Outcome::Done), None);
        assert!(!run.sends(at(3), false), "the watch tells of it a little later");
        assert!(run.sends(at(60), false), "somebody has removed it");
    }

    #[test]
    fn a_withdrawal_follows_a_request_that_is_still_on_its_way() {
        let mut run = Run::new(at(0), Reason::ReturnToSpot, None);
        assert!(run.sends(at(0), false));
        run.withdraw();
        assert!(!run.is_over(false), "it may still arrive");
        assert_eq!(run.answered(at(1), false, Outcome::Done), None);
        assert!(!run.sends(at(1), false) && run.sends(at(2), true), "it has arrived, and is taken back");
        assert_eq!(run.answered(at(3), true, Outcome::Done), None);
        assert!(run.is_over(false));
        run.wanted(at(9), Reason::ReturnToSpot, None);
        assert!(run.sends(at(9), false), "it may be asked for anew");
    }

    #[test]
    fn an_empty_node_is_ended_when_no_pod_can_come_any_more() {
        let run = Run::new(at(0), Reason::ClaimDeleted, None);
        assert!(!run.may_end(at(1), false) && run.may_end(at(1), true) && run.may_end(at(30), false));
    }
}
