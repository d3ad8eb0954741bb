//! The one loop that runs a core on tokio.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::domain::time::{Epoch, Instant};
use crate::engine::Core;

/// The program's clock: monotonic since its start, and what the wall clock read then.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    epoch: Epoch,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { start: tokio::time::Instant::now(), epoch: Epoch(to_the_millisecond(Timestamp::now())) }
    }

    pub fn now(&self) -> Instant {
        let millis = self.start.elapsed().as_millis();
        Instant::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        // Tokio cannot express the end of time; a century will do.
        let offset = Duration::from_millis(instant.as_millis()).min(Duration::from_secs(3_155_760_000));
        self.start + offset
    }
}

/// What surrounds a core: it performs effects, and may watch everything that goes in and out.
pub trait Surroundings<C: Core> {
    /// Sees an input before the core does.
    fn took_in(&mut self, now: Instant, input: &C::Input);
    /// Begins an effect; it must not block. What comes of it is sent back as an input.
    fn perform(&mut self, now: Instant, effect: C::Effect);
    /// The loop went round once.
    fn beat(&mut self, core: &C);
}

/// How long the loop sleeps at the most, so that whoever watches its beat knows that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// Runs `core` until every sender of inputs is gone, or `stop` is done.
pub async fn run<C: Core>(
    mut core: C,
    clock: Clock,
    mut inputs: mpsc::Receiver<C::Input>,
    mut surroundings: impl Surroundings<C>,
    stop: impl Future<Output = ()>,
) {
    let mut effects = Vec::new();
    tokio::pin!(stop);
    loop {
        surroundings.beat(&core);
        let beat = clock.now() + BEAT_EVERY;
        let wakeup = core.next_wakeup().map_or(beat, |at| at.min(beat));
        tokio::select! {
            biased;
            () = &mut stop => return,
            input = inputs.recv() => {
                let Some(input) = input else { return };
                let now = clock.now();
                surroundings.took_in(now, &input);
                core.handle(now, input, &mut effects);
            }
            () = tokio::time::sleep_until(clock.at(wakeup)) => core.wake(clock.now(), &mut effects),
        }
        let now = clock.now();
        for effect in effects.drain(..) {
            surroundings.perform(now, effect);
        }
    }
}

/// What is written down for people has milliseconds, as our own clock does.
fn to_the_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}
