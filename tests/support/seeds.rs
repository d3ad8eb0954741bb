//! Many drawn worlds on all processors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

/// The number that an environment variable says, where it is set.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Judges the seeds `0..seeds` on all processors, and takes what comes of each, in whatever order.
pub fn each<T: Send>(seeds: u64, judge: impl Fn(u64) -> T + Sync, mut take: impl FnMut(T)) {
    let next = AtomicU64::new(0);
    let (sender, results) = mpsc::channel();
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, judge) = (sender.clone(), &next, &judge);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || sender.send(judge(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        // A world that panics ends its thread, and with the others the test.
        drop(sender);
        results.iter().for_each(&mut take);
    });
}
