//! Asks IMDS, for ever, at the pace that the core sets.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::observer::Observer;
use crate::adapters::imds::{Imds, Questions};
use crate::adapters::kubernetes::one_line;
use crate::driver::Clock;
use crate::interruption::{Input, Pace};

/// How often the scheduled events are asked for: they lie days ahead.
const SCHEDULED_EVERY: Duration = Duration::from_secs(30);

/// The pace while a notice of the queue waits for the word of IMDS.
const URGENT: Duration = Duration::from_millis(250);

/// Polls until nobody takes the answers any more.
pub async fn poll(
    mut imds: Imds,
    clock: Clock,
    usual: Duration,
    mut pace: watch::Receiver<Pace>,
    inputs: mpsc::Sender<Input>,
    observer: Observer,
) {
    let mut scheduled_due = Instant::now();
    let mut healthy = None;
    loop {
        let started = Instant::now();
        let urgent = *pace.borrow_and_update() == Pace::Urgent;
        let scheduled = urgent || started >= scheduled_due;
        if scheduled {
            scheduled_due = started + SCHEDULED_EVERY;
        }
        let result = imds.read(clock.now(), Questions { scheduled, lifecycle: urgent }).await;
        observer.imds(&result);
        let input = match result {
            Ok(answer) => {
                if healthy != Some(true) {
                    tracing::info!("IMDS answers");
                }
                healthy = Some(true);
                for problem in &answer.problems {
                    tracing::warn!(%problem, "a part of IMDS's answer cannot be read");
                }
                Input::ImdsAnswered(answer.reading)
            }
            Err(error) => {
                if healthy != Some(false) {
                    tracing::warn!(error = one_line(&error), "IMDS does not answer; asking on");
                }
                healthy = Some(false);
                // What was not answered is asked again in the next round.
                scheduled_due = scheduled_due.min(started);
                Input::ImdsFailed
            }
        };
        if inputs.send(input).await.is_err() {
            return;
        }
        let every = if urgent { URGENT } else { usual };
        tokio::select! {
            () = tokio::time::sleep_until(started + every) => {}
            changed = pace.changed() => if changed.is_err() { return },
        }
    }
}
