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
    /// What it read at the start.
    begins: Duration,
    epoch: Epoch,
}

/// How far back [`Clock::with_past`] reaches: no object of a cluster is older.
const PAST: Duration = Duration::from_secs(20 * 365 * 86_400);

impl Clock {
    /// A clock that starts now, at zero.
    pub fn start() -> Self {
        Self::beginning(Duration::ZERO)
    }

    /// One that has moments for what was before its start: when objects were made that are older than the program. Without
    /// them everything would seem to have begun with it.
    pub fn with_past() -> Self {
        Self::beginning(PAST)
    }

    fn beginning(begins: Duration) -> Self {
        let now = to_the_millisecond(Timestamp::now());
        let zero = now.checked_sub(begins).unwrap_or(Timestamp::MIN);
        Self { start: tokio::time::Instant::now(), begins, epoch: Epoch(zero) }
    }

    pub fn now(&self) -> Instant {
        let millis = (self.begins + self.start.elapsed()).as_millis();
        Instant::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        // Tokio cannot express the end of time; a century will do.
        let offset = Duration::from_millis(instant.as_millis()).saturating_sub(self.begins);
        self.start + offset.min(Duration::from_secs(3_155_760_000))
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

/// How long the loop rests after it has woken the core, unless an input comes: a core that wants to be woken at a moment
/// that has passed, and then does nothing, must not keep a processor busy.
const REST: Duration = Duration::from_millis(5);

/// Runs `core` until every sender of inputs is gone, or `stop` is done.
pub async fn run<C: Core>(
    mut core: C,
    clock: Clock,
    mut inputs: mpsc::Receiver<C::Input>,
    mut surroundings: impl Surroundings<C>,
    stop: impl Future<Output = ()>,
) {
    let mut effects = Vec::new();
    let mut rested = clock.now();
    tokio::pin!(stop);
    loop {
        surroundings.beat(&core);
        let beat = clock.now() + BEAT_EVERY;
        let wakeup = core.next_wakeup().map_or(beat, |at| at.min(beat)).max(rested);
        let input = tokio::select! {
            biased;
            () = &mut stop => return,
            input = inputs.recv() => {
                let Some(input) = input else { return };
                Some(input)
            }
            () = tokio::time::sleep_until(clock.at(wakeup)) => None,
        };
        // One moment for the whole turn: whoever watches must not see an effect later than the core began it.
        let now = clock.now();
        match input {
            Some(input) => {
                surroundings.took_in(now, &input);
                core.handle(now, input, &mut effects);
            }
            None => {
                core.wake(now, &mut effects);
                rested = now + REST;
            }
        }
        for effect in effects.drain(..) {
            surroundings.perform(now, effect);
        }
    }
}

/// What is written down for people has milliseconds, as our own clock does.
fn to_the_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::Notify;

    use super::*;

    /// Says when it began each effect, and takes longer than the clock's resolution for it.
    struct Slow(Clock);

    impl Core for Slow {
        type Input = ();
        type Effect = Instant;

        fn handle(&mut self, now: Instant, (): (), effects: &mut Vec<Instant>) {
            effects.push(now);
            while self.0.now() == now {
                std::hint::spin_loop();
            }
        }

        fn next_wakeup(&self) -> Option<Instant> {
            None
        }

        fn wake(&mut self, _: Instant, _: &mut Vec<Instant>) {}
    }

    struct Watcher(Rc<RefCell<Vec<(Instant, Instant)>>>);

    impl Surroundings<Slow> for Watcher {
        fn took_in(&mut self, _: Instant, (): &()) {}

        fn perform(&mut self, now: Instant, began: Instant) {
            self.0.borrow_mut().push((now, began));
        }

        fn beat(&mut self, _: &Slow) {}
    }

    /// Wants to be woken at a moment that has passed, always.
    struct Sleepless {
        woken: Rc<RefCell<Vec<Instant>>>,
        enough: Rc<Notify>,
    }

    impl Core for Sleepless {
        type Input = ();
        type Effect = ();

        fn handle(&mut self, _: Instant, (): (), _: &mut Vec<()>) {}

        fn next_wakeup(&self) -> Option<Instant> {
            Some(Instant::default())
        }

        fn wake(&mut self, now: Instant, _: &mut Vec<()>) {
            self.woken.borrow_mut().push(now);
            if self.woken.borrow().len() == 10 {
                self.enough.notify_one();
            }
        }
    }

    struct Nobody;

    impl Surroundings<Sleepless> for Nobody {
        fn took_in(&mut self, _: Instant, (): &()) {}

        fn perform(&mut self, _: Instant, (): ()) {}

        fn beat(&mut self, _: &Sleepless) {}
    }

    #[tokio::test]
    async fn a_core_whose_wake_up_stays_in_the_past_does_not_spin() {
        let (woken, enough) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Notify::new()));
        let core = Sleepless { woken: woken.clone(), enough: enough.clone() };
        let (_inputs, receiver) = mpsc::channel(1);
        run(core, Clock::start(), receiver, Nobody, enough.notified()).await;
        let woken = woken.borrow();
        assert!(woken.windows(2).all(|pair| pair[1].since(pair[0]) >= REST), "{woken:?}");
    }

    #[tokio::test]
    async fn a_clock_with_a_past_tells_the_same_time_and_wakes_at_the_same_moments() {
        let clock = Clock::with_past();
        let now = clock.now();
        let started = Instant::default() + PAST;
        assert!(now >= started && now - Duration::from_secs(3_600) < started, "an hour ago was before the start");
        let reads = clock.epoch().wall(now);
        assert!(Timestamp::now().duration_since(reads).abs() < jiff::SignedDuration::from_secs(5), "{reads}");
        assert_eq!(clock.at(started + Duration::from_secs(3)), clock.start + Duration::from_secs(3));
        assert_eq!(clock.at(started - Duration::from_secs(3)), clock.start, "what was due before the start is due");
    }

    /// A drain's first ask was seen a millisecond after the core began it, and the delete ten seconds later looked early.
    #[tokio::test]
    async fn an_effect_is_seen_at_the_moment_the_core_began_it() {
        let clock = Clock::start();
        let (inputs, receiver) = mpsc::channel(3);
        for _ in 0..3 {
            inputs.send(()).await.unwrap();
        }
        drop(inputs);
        let seen = Rc::new(RefCell::new(Vec::new()));
        run(Slow(clock), clock, receiver, Watcher(seen.clone()), std::future::pending()).await;
        let seen = seen.borrow();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|(now, began)| now == began), "{seen:?}");
    }
}
