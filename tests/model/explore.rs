//! What the models share: parts of a world that its states have in common, and the search.

use std::fmt::{self, Debug, Write};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, Model, Path};

/// A part of a world, shared by all states that have not changed it, together with the hash of its `Debug` text.
///
/// The cores hold times and floating point numbers and derive no `Hash`; their `Debug` text names every field of theirs,
/// and is the same for the same value.
#[derive(Clone)]
pub struct Part<T> {
    value: Arc<T>,
    hash: u64,
}

impl<T: Clone + Debug> Part<T> {
    pub fn new(value: T) -> Self {
        let hash = of_text(&value);
        Self { value: Arc::new(value), hash }
    }

    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let value = Arc::make_mut(&mut self.value);
        let result = change(value);
        self.hash = of_text(value);
        result
    }
}

impl<T> Deref for Part<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Part<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl<T> Hash for Part<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl<T: Debug> Debug for Part<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// FNV-1a over eight bytes at a time, of what is written to it.
struct Text(u64);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(eight) ^ (chunk.len() as u64) << 56;
            self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        Ok(())
    }
}

fn of_text(value: &impl Debug) -> u64 {
    let mut text = Text(0xcbf2_9ce4_8422_2325);
    write!(text, "{value:?}").expect("hashing does not fail");
    text.0
}

/// How many deviations from the well-behaved schedule a model takes together: `SPOTKEEPER_MODEL_DEVIATIONS`, else so many.
pub fn deviations(short: u8) -> u8 {
    match std::env::var("SPOTKEEPER_MODEL_DEVIATIONS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("SPOTKEEPER_MODEL_DEVIATIONS={text} is not a small number")),
        Err(_) => short,
    }
}

/// Looks at every state that can be reached, and says how many there were.
pub fn explore<M>(name: &str, model: M) -> impl Checker<M>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let checker = model.checker().threads(threads).spawn_dfs().join();
    println!(
        "{name}: {} states, {} of them different, at most {} steps deep, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker
}

/// Fails with the story of a counterexample, and where something that was to be seen was never seen.
#[track_caller]
pub fn holds<M>(checker: &impl Checker<M>, told: impl Fn(Path<M::State, M::Action>) -> String)
where
    M: Model,
    M::State: Clone + Debug + Hash + PartialEq,
    M::Action: Clone + Debug + PartialEq,
{
    for (name, path) in checker.discoveries() {
        if checker.model().property(name).expectation == Expectation::Always {
            panic!("{name}: does not hold after\n{}", told(path));
        }
    }
    checker.assert_properties();
}

/// A virtual moment, in milliseconds.
pub fn at(millis: u64) -> spotkeeper::domain::time::Instant {
    spotkeeper::domain::time::Instant::from_millis(millis)
}

/// The milliseconds of a duration.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
