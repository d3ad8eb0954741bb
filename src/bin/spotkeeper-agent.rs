//! Reads the configuration, runs the agent, turns its end into an exit code.

use std::process::ExitCode;

use spotkeeper::adapters::kubernetes::one_line;
use spotkeeper::adapters::notice_server;
use spotkeeper::config::Config;
use spotkeeper::{agent, telemetry};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = Config::from_args();
    telemetry::start(config.log_format, &config.log);
    if let Some(folder) = &config.prepare_notice_dir {
        return code(notice_server::prepare_folder(folder).map_err(|e| format!("--prepare-notice-dir: {e}")));
    }
    let stop = async {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                tracing::info!("asked to stop");
            }
            _ => std::future::pending().await,
        }
    };
    code(agent::run(config, stop).await.map_err(|error| one_line(&error)))
}

fn code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
