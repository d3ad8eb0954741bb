//! What is noted for the ledger, and what it finds in the end.

use spotkeeper::interruption::Ask;
use spotkeeper::interruption::invariants::ledger::{Able, Asked, restored};

use super::Truth;
use super::world::World;
use crate::explore::at;

impl World {
    pub(super) fn note_ask(&mut self, ask: &Ask) -> Option<(usize, usize)> {
        let sent = at(self.now);
        let pod = self.api.pods.iter().position(|pod| pod.uid == ask.uid)?;
        let place = self.ledger.change(|ledger| {
            let asks = &mut ledger.pods[pod].asks;
            asks.push(Asked { sent, acknowledged: None, ends_at: None });
            asks.len() - 1
        });
        Some((pod, place))
    }

    pub(super) fn note_ability(&mut self) {
        let now = self.now;
        let must = self.agent.up.as_ref().filter(|up| up.core.drains()).and_then(|up| {
            let must = up.witness.must_drain()?;
            Some(up.born + must.deadline.as_millis())
        });
        if self.able.map(|(_, deadline)| deadline) != must {
            self.close_ability();
            self.able = must.map(|deadline| (now, deadline));
        }
    }

    pub(super) fn close_ability(&mut self) {
        let to = at(self.now);
        if let Some((from, deadline)) = self.able.take() {
            self.ledger.change(|ledger| ledger.able.push(Able { from: at(from), to, deadline: at(deadline) }));
        }
    }

    /// What the ledger finds.
    pub fn judged(&self) -> Vec<String> {
        self.ledger.judge().iter().map(ToString::to_string).collect()
    }

    /// What is left of ours where it was not so, and the agent has had the time to undo it.
    pub fn left_on_the_node(&self) -> Vec<String> {
        let confirmed = self.agent.up.as_ref().is_none_or(|up| up.witness.confirmed());
        if self.truth != Truth::NotSo || confirmed {
            return Vec::new();
        }
        restored(&self.api.node, &Default::default()).iter().map(ToString::to_string).collect()
    }
}
