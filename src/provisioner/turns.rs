//! In a storm the API server is what everybody waits for: what EC2 is asked by is written first, what only tells how far
//! something has come later.

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::adapters::kubernetes::outcome;
use crate::interruption::Outcome;

/// How many writes are made at a time: a thousand at once would only wait in the API server until they time out.
const WRITES_MAX: usize = 48;

/// How many of these may say how far something has come. While such a write waits it is overtaken by later ones of the
/// same object, so that there is less to write in the end.
const PROGRESS_MAX: usize = 8;

/// Said of what was not written.
pub const TERM_ENDED: &str = "this replica does not lead any more";

/// Who may write now.
pub struct Turns {
    writes: Semaphore,
    progress: Semaphore,
}

/// A turn; it ends when this is dropped.
pub struct Turn<'a> {
    _one: SemaphorePermit<'a>,
    _of_progress: Option<SemaphorePermit<'a>>,
}

impl Turns {
    pub fn new() -> Self {
        Self { writes: Semaphore::new(WRITES_MAX), progress: Semaphore::new(PROGRESS_MAX) }
    }

    /// Waits for the turn of a write that EC2 is asked by. `None`: the term has ended meanwhile, and what waited might be
    /// written over what the next leader has written.
    pub async fn first(&self, leads: &watch::Receiver<bool>) -> Option<Turn<'_>> {
        let one = self.writes.acquire().await.ok()?;
        leads.borrow().then_some(Turn { _one: one, _of_progress: None })
    }

    /// Waits for the turn of a write that tells how far something has come: behind every other that waits already, as
    /// turns are given in the order in which they were asked for.
    pub async fn progress(&self, leads: &watch::Receiver<bool>) -> Option<Turn<'_>> {
        let of_progress = self.progress.acquire().await.ok()?;
        let one = self.writes.acquire().await.ok()?;
        leads.borrow().then_some(Turn { _one: one, _of_progress: Some(of_progress) })
    }

    /// Makes a write in its turn, as [`Turns::first`] says.
    pub async fn write<T>(
        &self,
        leads: &watch::Receiver<bool>,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Outcome {
        in_turn(self.first(leads).await, write).await
    }

    /// Makes a write in its turn, as [`Turns::progress`] says.
    pub async fn tell<T>(
        &self,
        leads: &watch::Receiver<bool>,
        write: impl Future<Output = Result<T, kube::Error>>,
    ) -> Outcome {
        in_turn(self.progress(leads).await, write).await
    }
}

async fn in_turn<T>(turn: Option<Turn<'_>>, write: impl Future<Output = Result<T, kube::Error>>) -> Outcome {
    match turn {
        Some(_turn) => outcome(&write.await),
        None => Outcome::Failed(TERM_ENDED.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn what_has_waited_beyond_the_term_is_not_written() {
        let (turns, leads) = (Turns::new(), watch::Sender::new(true));
        let of = leads.subscribe();
        let mut held = Vec::new();
        for _ in 0..WRITES_MAX {
            held.push(turns.first(&of).await.expect("it leads"));
        }
        let late = turns.first(&of);
        leads.send_replace(false);
        held.clear();
        assert!(late.await.is_none());
        leads.send_replace(true);
        assert!(turns.first(&of).await.is_some(), "the turn was given back");
    }

    #[tokio::test]
    async fn progress_is_told_behind_what_waits_to_be_written() {
        let (turns, leads) = (Turns::new(), watch::Sender::new(true));
        let of = leads.subscribe();
        let mut held = Vec::new();
        for _ in 0..WRITES_MAX {
            held.push(turns.first(&of).await.expect("it leads"));
        }
        let context = &mut Context::from_waker(Waker::noop());
        let mut first = pin!(turns.first(&of));
        assert!(first.as_mut().poll(context).is_pending());
        let mut told = pin!(turns.progress(&of));
        assert!(told.as_mut().poll(context).is_pending());
        held.pop();
        assert!(told.as_mut().poll(context).is_pending(), "another has asked before it");
        assert!(first.as_mut().poll(context).is_ready());
        held.pop();
        assert!(told.as_mut().poll(context).is_ready());
    }
}
