//! What the configurations of both programs share: how they are read, and the words in them.

use clap::{Parser, ValueEnum};

pub use crate::domain::time::duration;

/// Exit code for a command line or environment that cannot be used (EX_USAGE of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// Reads flags and environment, and lets `check` see what clap cannot check field by field; on a mistake says what is
/// wrong and ends the program with [`EXIT_USAGE`].
pub fn from_args<C: Parser>(check: impl Fn(&C) -> Result<(), String>) -> C {
    match C::try_parse().map_err(|e| (e.use_stderr(), e)).and_then(|config| {
        check(&config).map(|()| config).map_err(|what| {
            let mut command = C::command();
            (true, command.error(clap::error::ErrorKind::ValueValidation, what))
        })
    }) {
        Ok(config) => config,
        Err((wrong, message)) => {
            // Nothing can be done about a closed standard error.
            let _ = message.print();
            std::process::exit(if wrong { EXIT_USAGE.into() } else { 0 });
        }
    }
}

/// Checks what `--log` says.
pub fn log_filter(text: &str) -> Result<(), String> {
    text.parse::<tracing_subscriber::filter::Targets>().map(drop).map_err(|e| format!("--log: `{text}`: {e}"))
}
