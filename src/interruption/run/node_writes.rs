//! What is written to the Node: one patch at a time, until the node is as it should be.

use std::time::Duration;

use crate::domain::node::Node;
use crate::domain::time::Instant;
use crate::interruption::mark::{INTERRUPTION, Mark};
use crate::interruption::merge::Written;
use crate::interruption::{Because, Effect, Outcome};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How long at the most the first mark of an episode has the API server to itself. Alone it takes ten milliseconds; when
/// a hundred nodes go at once, every node is to be cordoned before the first record is written.
const GOES_FIRST: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub(super) struct NodeWrites {
    wanted: Option<Mark>,
    /// What the API server has acknowledged.
    applied: Option<Mark>,
    /// A mark was sent since the last undoing, whether or not it was acknowledged.
    touched: bool,
    /// What is on its way: a mark, or the undoing.
    on_its_way: Option<Option<Mark>>,
    /// When the first mark since the last undoing was sent.
    first_sent: Option<Instant>,
    /// What is on its way was sent to a Node that has been made anew since.
    outdated: bool,
    again: Option<Instant>,
    tries: u32,
}

impl NodeWrites {
    pub(super) fn want(&mut self, mark: Option<Mark>) {
        if self.wanted != mark {
            self.wanted = mark;
            self.again = None;
        }
    }

    /// The Node was made anew: nothing of ours is on it.
    pub(super) fn forget(&mut self) {
        self.applied = None;
        self.again = None;
        self.outdated = self.on_its_way.is_some();
    }

    /// Sends what is missing. What an earlier run of this program has left on the node is undone only when it is
    /// certain that nothing is announced (`settled_down`).
    pub(super) fn advance(&mut self, now: Instant, node: Option<&Node>, settled_down: bool, effects: &mut Vec<Effect>) {
        if self.on_its_way.is_some() || self.again.is_some_and(|at| now < at) {
            return;
        }
        match &self.wanted {
            Some(mark) if self.applied.as_ref() != Some(mark) => {
                self.touched = true;
                self.first_sent.get_or_insert(now);
                self.on_its_way = Some(Some(mark.clone()));
                effects.push(Effect::Mark(mark.clone()));
            }
            None if self.touched || (settled_down && node.is_some_and(bears_our_mark)) => {
                self.on_its_way = Some(None);
                effects.push(Effect::Unmark);
            }
            // The node is as it should be, perhaps because a write whose answer was lost had been done.
            _ => (self.again, self.tries) = (None, 0),
        }
    }

    /// Takes in the answer; returns what is acknowledged now: a mark, or the undoing.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) -> Option<Option<Mark>> {
        let sent = self.on_its_way.take()?;
        if std::mem::take(&mut self.outdated) && outcome == Outcome::Done {
            // On which of the two it was done is not known: doing it again finds it done, or does it.
            return Some(sent);
        }
        match outcome {
            Outcome::Done => {
                self.tries = 0;
                self.again = None;
                self.applied = sent.clone();
                self.touched = sent.is_some();
                self.first_sent = self.first_sent.filter(|_| self.touched);
                Some(sent)
            }
            Outcome::Refused(why) | Outcome::Failed(why) => {
                if self.tries == 0 {
                    effects.push(Effect::Decided(Because::MarkFailed { why }));
                }
                let wait = RETRY_FIRST.saturating_mul(1 << self.tries.min(5)).min(RETRY_MAX);
                self.tries = self.tries.saturating_add(1);
                self.again = Some(now + wait);
                None
            }
        }
    }

    /// Until when the record waits for the first mark; `None` where it does not.
    pub(super) fn goes_first(&self, now: Instant) -> Option<Instant> {
        let first = matches!(self.on_its_way, Some(Some(_))) && self.applied.is_none() && self.tries == 0;
        self.first_sent.filter(|_| first).map(|sent| sent + GOES_FIRST).filter(|until| now < *until)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.on_its_way.is_none() && self.wanted.is_none() && !self.touched
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        if self.on_its_way.is_some() { None } else { self.again }
    }
}

fn bears_our_mark(node: &Node) -> bool {
    node.annotations.contains_key(INTERRUPTION) || node.taints.iter().any(|taint| taint.key == INTERRUPTION)
}

impl Written {
    /// How often it was tried.
    pub(super) fn tries(self) -> u32 {
        if let Self::Again { tries, .. } = self { tries } else { 0 }
    }
}
