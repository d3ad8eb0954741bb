//! Waiting for facts: asked again and again until they hold, never slept for.

use std::time::{Duration, Instant};

/// Asks until the answer is `Ok`; panics with the last `Err` when `patience` is over.
pub async fn eventually<T>(what: &str, patience: Duration, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if Instant::now() > deadline => {
                panic!("not within {} s: {what}; last seen: {seen}", patience.as_secs())
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Asks for the whole of `span`, and panics as soon as the answer is an `Err`: for what must not happen.
pub async fn throughout(what: &str, span: Duration, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(seen) = ask().await {
            panic!("{what}: {seen}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
