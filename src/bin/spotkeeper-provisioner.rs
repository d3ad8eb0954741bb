//! Reads the configuration, runs the provisioner, turns its end into an exit code.

use std::process::ExitCode;

use spotkeeper::adapters::kubernetes::one_line;
use spotkeeper::provisioner::config::Config;
use spotkeeper::{config, provisioner, telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config: Config = config::from_args(Config::check);
    telemetry::start(config.log_format, &config.log);
    match Box::pin(provisioner::run(config, telemetry::asked_to_stop())).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::fatal(&one_line(&error));
            ExitCode::FAILURE
        }
    }
}
