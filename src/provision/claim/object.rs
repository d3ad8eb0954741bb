//! The NodeClaim itself: to be created, there, or to go.

use crate::domain::time::Instant;
use crate::provision::writes::Pause;

/// What is being done about the object itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::provision) enum Object {
    /// It is to be created; tried again then.
    Missing {
        again: Option<Instant>,
        on_its_way: bool,
    },
    There {
        uid: String,
    },
    /// It is to go; tried again then.
    Going {
        uid: String,
        again: Option<Instant>,
        on_its_way: bool,
        pause: Pause,
    },
}
