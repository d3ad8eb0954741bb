//! The shape of a core: a synchronous state machine that does no I/O, reads no clock and draws no random numbers.
//!
//! What happened goes in with the time it happened at; what is to be done comes out as values. Whoever runs a core
//! (the driver on tokio, the simulator in virtual time) carries the effects out and
//! feeds each result back as an input.

use crate::domain::time::Instant;

/// A pure state machine.
pub trait Core {
    /// Something that happened, in the past tense.
    type Input;
    /// Something to be done, in the imperative. It leaves nothing to decide to the one who performs it.
    type Effect;

    /// Takes in one input and appends what follows from it to `effects`, in the order in which it is to begin.
    fn handle(&mut self, now: Instant, input: Self::Input, effects: &mut Vec<Self::Effect>);

    /// When [`wake`](Core::wake) is due next. The answer may change at every `handle` and `wake`; `None` means that
    /// nothing happens without an input.
    fn next_wakeup(&self) -> Option<Instant>;

    /// Does what has become due by `now`. Called too early it does nothing, called late it catches up.
    fn wake(&mut self, now: Instant, effects: &mut Vec<Self::Effect>);
}
