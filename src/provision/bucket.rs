//! A token bucket of our own before each of EC2's: a call that would only be throttled is not made.

use std::time::Duration;

use crate::domain::time::Instant;

/// Tokens that come back at a rate. EC2's sizes differ by account and action: they are settings, and where EC2 grants less,
/// what is believed falls to that: halved by a throttled call, and up again by a share of the setting with each answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    size: f64,
    /// As it is set, and as it is believed.
    set: f64,
    per_sec: f64,
    tokens: f64,
    at: Instant,
    /// EC2 has throttled us: nothing before this moment.
    closed_until: Instant,
    throttled: u32,
}

/// The first pause after a throttled call, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// The least that is believed, and what an answer adds, as parts of what is set.
const LEAST: f64 = 1.0 / 32.0;
const RISE: f64 = 1.0 / 32.0;

impl Bucket {
    pub fn new(size: u32, per_sec: f64) -> Self {
        Self {
            size: f64::from(size),
            set: per_sec,
            per_sec,
            tokens: f64::from(size),
            at: Instant::default(),
            closed_until: Instant::default(),
            throttled: 0,
        }
    }

    fn fill(&mut self, now: Instant) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.per_sec).min(self.size);
        self.at = self.at.max(now);
    }

    /// Takes a token, where there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        if now < self.closed_until || self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// How many tokens there are.
    pub fn available(&self, now: Instant) -> usize {
        let mut then = *self;
        then.fill(now);
        if now < self.closed_until { 0 } else { then.tokens as usize }
    }

    /// When there will be a token.
    pub fn next(&self, now: Instant) -> Instant {
        let mut then = *self;
        then.fill(now);
        let missing = (1.0 - then.tokens).max(0.0) / self.per_sec.max(0.01);
        // A millisecond more, so that rounding does not wake us a moment too early for ever.
        let filled =
            if missing > 0.0 { now + Duration::from_secs_f64(missing) + Duration::from_millis(1) } else { now };
        filled.max(self.closed_until)
    }

    /// EC2 throttled a call: what we believed to have is not there.
    pub fn throttled(&mut self, now: Instant, jitter: f64) {
        self.fill(now);
        self.tokens = 0.0;
        if now < self.closed_until {
            // It was on its way already when the bucket was closed: it says nothing new.
            return;
        }
        self.per_sec = (self.per_sec / 2.0).max(self.set * LEAST);
        let pause = PAUSE_FIRST.saturating_mul(1 << self.throttled.min(6)).min(PAUSE_MAX);
        self.throttled = self.throttled.saturating_add(1);
        self.closed_until = now + pause.mul_f64(1.0 + jitter);
    }

    /// EC2 answered a call.
    pub fn answered(&mut self) {
        self.throttled = 0;
        self.per_sec = (self.per_sec + self.set * RISE).min(self.set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn it_gives_what_it_holds_and_then_at_its_rate() {
        let mut bucket = Bucket::new(3, 5.0);
        assert!((0..3).all(|_| bucket.take(at(0))) && !bucket.take(at(0)));
        let next = bucket.next(at(0));
        assert!((at(200)..=at(202)).contains(&next));
        assert!(bucket.take(next) && !bucket.take(next));
    }

    #[test]
    fn a_throttled_call_closes_it_for_longer_each_time() {
        let mut bucket = Bucket::new(50, 5.0);
        bucket.throttled(at(0), 0.0);
        assert!(!bucket.take(at(499)) && bucket.take(at(500)));
        bucket.throttled(at(500), 0.0);
        assert_eq!(bucket.next(at(500)), at(1_500));
        bucket.answered();
        bucket.throttled(at(10_000), 0.5);
        assert!(!bucket.take(at(10_749)));
    }

    #[test]
    fn calls_that_were_on_their_way_when_it_closed_close_it_no_longer() {
        let mut bucket = Bucket::new(50, 5.0);
        (0..30).for_each(|_| bucket.throttled(at(0), 0.0));
        assert_eq!(bucket.next(at(0)), at(500));
    }

    #[test]
    fn its_rate_settles_at_what_is_granted_and_comes_back() {
        let (mut ours, mut granted) = (Bucket::new(50, 5.0), Bucket::new(5, 1.0));
        let (mut made, mut refused) = (0, 0);
        for now in (0..600_000).step_by(50).map(at) {
            if ours.take(now) {
                if granted.take(now) {
                    ours.answered();
                    made += 1;
                } else {
                    ours.throttled(now, 0.0);
                    refused += 1;
                }
            }
        }
        assert!(made >= 500 && refused <= made / 5, "of 605 that are granted: {made}, refused {refused}");
        (0..32).for_each(|_| ours.answered());
        assert_eq!(ours.per_sec, 5.0);
    }
}
