//! The log: JSON or text on standard output, one line a decision. And the signals that end a program.

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Starts logging. `filter` was checked by the configuration; one that cannot be read logs at `info`.
pub fn start(format: LogFormat, filter: &str) {
    let mut targets: Targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    if !filter.contains("aws_") {
        // The AWS crates warn of every place where they looked for a region or credentials in vain, in Rust's own
        // words. What comes of it we say ourselves.
        targets = targets.with_target("aws_config", LevelFilter::OFF).with_target("aws_smithy", LevelFilter::OFF);
    }
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    // A second start (two agents in one test process) keeps the first one's log.
    let _ = match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init(),
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stdout()))).try_init()
        }
    };
}

/// Is done when somebody asks this process to stop (SIGTERM, SIGINT).
pub async fn asked_to_stop() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("asked to stop");
        }
        _ => std::future::pending().await,
    }
}

/// Says why a program ends, to whomever started it, also where its log is told to be silent.
pub fn fatal(error: &str) {
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!("{error}");
    } else {
        eprintln!("{error}");
    }
}
