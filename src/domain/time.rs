//! Time as the cores see it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Milliseconds since the program started: monotonic, so that a step of the wall clock cannot move a drain.
///
/// Arithmetic saturates at both ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment that is `millis` milliseconds after the program started.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the program started.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to here; zero where `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(millis(rhs)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(millis(rhs)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A deadline: where it lies on our own clock, and how it was announced.
///
/// The announced wall-clock time is turned into an [`Instant`] once, at receipt; what is written down for people is
/// the announced one, so that the two can never drift apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// On our own clock; all decisions rest on this one.
    pub at: Instant,
    /// As the source said it; only for records and people.
    pub announced: Timestamp,
}

/// The longest time ahead that a deadline is believed: AWS announces maintenance about two weeks before it.
const FARTHEST: SignedDuration = SignedDuration::from_hours(24 * 366);

impl Deadline {
    /// Places a wall-clock deadline on our own clock, given what the wall clock `reads` at `now`.
    ///
    /// A deadline that has passed lies at `now`, or so far before it that [`Deadline::passed`] holds; one that is
    /// absurdly far ahead is brought to a year.
    pub fn place(announced: Timestamp, reads: Timestamp, now: Instant) -> Deadline {
        let left = announced.duration_since(reads).min(FARTHEST);
        let at = if left.is_negative() { now - left.unsigned_abs() } else { now + left.unsigned_abs() };
        Deadline { at, announced }
    }

    /// Whether it lies before `now`.
    pub fn passed(&self, now: Instant) -> bool {
        self.at < now
    }
}

/// Where the two clocks meet: the wall-clock time at [`Instant`] zero, read once at start.
///
/// Timestamps that are written down are computed from it, so that they keep their order when the wall clock is stepped.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(pub Timestamp);

impl Epoch {
    /// The wall-clock time of `instant`.
    pub fn wall(&self, instant: Instant) -> Timestamp {
        let offset = SignedDuration::from_millis(i64::try_from(instant.as_millis()).unwrap_or(i64::MAX));
        self.0.checked_add(offset).unwrap_or(Timestamp::MAX)
    }

    /// The wall-clock time of a moment in milliseconds of our clock; negative ones were before the program started.
    pub fn wall_of(&self, millis: i64) -> Timestamp {
        let end = if millis < 0 { Timestamp::MIN } else { Timestamp::MAX };
        self.0.checked_add(SignedDuration::from_millis(millis)).unwrap_or(end)
    }

    /// The moment of a wall-clock time, in milliseconds of our clock.
    pub fn millis_of(&self, time: Timestamp) -> i64 {
        i64::try_from(time.duration_since(self.0).as_millis()).unwrap_or(0)
    }

    /// How long before `now` a wall-clock time was; zero where it is still to come.
    pub fn ago(&self, time: Timestamp, now: Instant) -> Duration {
        let ago = self.wall(now).duration_since(time);
        if ago.is_negative() { Duration::ZERO } else { ago.unsigned_abs() }
    }
}

/// `250ms`, `5s`, `10m`, `1h`: as Kubernetes and Go write durations.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like 500ms, 5s, 10m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let duration = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
    if duration > LONGEST { Err(format!("`{text}` is more than a year")) } else { Ok(duration) }
}

/// No setting makes sense beyond it, and sums of times stay far from their end.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ahead_lies_ahead_and_one_that_has_passed_has_passed() {
        let reads: Timestamp = "2026-04-24T17:09:44Z".parse().unwrap();
        let now = Instant::from_millis(10_000);
        let ahead = Deadline::place("2026-04-24T17:11:44Z".parse().unwrap(), reads, now);
        assert_eq!(ahead.at, Instant::from_millis(130_000));
        assert!(!ahead.passed(now));
        let behind = Deadline::place("2026-04-24T17:09:43Z".parse().unwrap(), reads, now);
        assert!(behind.passed(now));
    }

    #[test]
    fn nonsense_deadlines_stay_within_a_year_and_never_panic() {
        let reads: Timestamp = "2026-04-24T17:09:44Z".parse().unwrap();
        let far = Deadline::place(Timestamp::MAX, reads, Instant::from_millis(5));
        assert!(far.at <= Instant::from_millis(5) + Duration::from_secs(366 * 86_400));
        assert_eq!(Deadline::place(Timestamp::MIN, reads, Instant::from_millis(5)).at, Instant::from_millis(0));
        assert_eq!(Epoch(Timestamp::MAX).wall(Instant::from_millis(u64::MAX)), Timestamp::MAX);
    }

    #[test]
    fn durations_are_read_and_mistakes_are_named() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "5", "s", "5 s", "-5s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).unwrap_err().contains("is not a duration"), "{wrong}");
        }
        assert!(duration("18446744073709551s").unwrap_err().contains("more than a year"));
    }

    #[test]
    fn any_text_is_a_duration_or_a_mistake_and_what_is_written_is_read_back() {
        bolero::check!().with_type::<String>().for_each(|text: &String| drop(duration(text)));
        bolero::check!().with_type::<u32>().for_each(|millis: &u32| {
            assert_eq!(duration(&format!("{millis}ms")), Ok(Duration::from_millis((*millis).into())));
        });
    }
}
