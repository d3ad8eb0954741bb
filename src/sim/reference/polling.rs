//! A model of a polling termination handler: it cordons and drains, and asks for no capacity.
//!
//! Source: measured on a control plane of real parts (two series, one handler for each node, IMDS mode): a poll every
//! 2 s, a tick every 1 s that hands an event out just before the poll delivers it, and a client that sends 5 requests a
//! second. Node unschedulable at the median 1.97 to 2.19 s after the notice, all of 20 pods asked after 5.4 to 5.6 s,
//! all of 100 after 21.5 s.
//!
//! Left out: retries against budgets, the queue mode, and whatever replaces the node: that is another system's business,
//! so that nobody is served here.

use super::{About, Market, Provided};

pub const ABOUT: About = About {
    sources: "what was measured of it on a control plane: a poll every 2 s, a tick every 1 s, 5 requests a second",
    leaves_out: "retries against budgets, the queue mode, and whatever replaces the node: that is another system's business",
};

const POLL_MS: u64 = 2_000;
const TICK_MS: u64 = 1_000;
/// One request at the client's rate.
const REQUEST_MS: u64 = 200;

/// When its node is cordoned, of a notice that comes so long before the next poll, in milliseconds.
pub fn cordoned_ms(before_poll: u64) -> u64 {
    // The tick that could hand it out has just passed when the poll delivers.
    before_poll.min(POLL_MS) + TICK_MS
}

/// When all of so many pods have been asked to go, after the same notice.
pub fn asked_ms(before_poll: u64, pods: u64) -> u64 {
    // Two requests are sent before the rate counts.
    cordoned_ms(before_poll) + pods.saturating_sub(2) * REQUEST_MS
}

pub fn run(market: &Market) -> Provided {
    Provided::in_market(market)
}
