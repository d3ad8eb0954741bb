//! What the wall clock reads, by the best knowledge of this program.
//!
//! Deadlines are written by AWS's clock. Where the node's own is off, or was just stepped, IMDS's answers show it, and
//! everything that places a deadline has to know: a record that is read by the wrong clock would put a drain off for as
//! long as the clock is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// Clones are one.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    /// From the local wall clock to the one that is believed, in milliseconds.
    offset_ms: Arc<AtomicI64>,
}

impl WallClock {
    /// What it reads now.
    pub fn reads(&self) -> Timestamp {
        let local = Timestamp::now();
        local.checked_add(SignedDuration::from_millis(self.offset_ms.load(Ordering::Relaxed))).unwrap_or(local)
    }

    /// It reads `believed` where the local one reads `local`.
    pub fn correct(&self, believed: Timestamp, local: Timestamp) {
        let offset = i64::try_from(believed.duration_since(local).as_millis()).unwrap_or(0);
        self.offset_ms.store(offset, Ordering::Relaxed);
    }
}
