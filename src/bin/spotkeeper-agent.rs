//! Reads the configuration, runs the agent, turns its end into an exit code.

use std::process::ExitCode;

use spotkeeper::adapters::kubernetes::one_line;
use spotkeeper::agent::config::Config;
use spotkeeper::{agent, config, telemetry};

/// The user of the image.
const AGENT_UID: u32 = 65532;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config: Config = config::from_args(Config::check);
    telemetry::start(config.log_format, &config.log);
    if let Some(folder) = &config.prepare_notice_dir {
        let why = |e| format!("--prepare-notice-dir {}: {e}; it needs root and a place to write", folder.display());
        return code(prepare(folder).map_err(why));
    }
    code(Box::pin(agent::run(config, telemetry::asked_to_stop())).await.map_err(|error| one_line(&error)))
}

/// Makes the folder of the notice file, for the user that the agent runs as. Needs root.
fn prepare(folder: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::os::unix::fs::chown(folder, Some(AGENT_UID), Some(AGENT_UID))
}

fn code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(&error);
            ExitCode::FAILURE
        }
    }
}
