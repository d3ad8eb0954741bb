//! Reads the command line, runs the command, turns its end into an exit code.

use std::process::ExitCode;

use clap::Parser;
use spotkeeper::cli::{Cli, CliError, EXIT_DATA, EXIT_FAILED, EXIT_USAGE};

/// A simulated world is many small things that come and go: with the system's allocator a third of a rehearsal is spent
/// there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Nothing can be done about a closed standard error.
            let _ = message.print();
            return if message.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("spotkeeper: {error}");
            match error {
                CliError::Usage(_) => EXIT_USAGE.into(),
                CliError::Data(_) => EXIT_DATA.into(),
                CliError::Failed(_) => EXIT_FAILED.into(),
            }
        }
    }
}
