//! What the configurations of both programs share: how they are read, and the words in them.

use std::net::SocketAddr;

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
    let level =
        |word: &str| !word.trim().is_empty() && word.trim().parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    // A bare word that is no level would count as a module of that name, and everything else would be silent.
    if let Some(word) = text.split(',').find(|part| !part.contains('=') && !level(part)) {
        return Err(format!("--log: `{word}` is not a level (error, warn, info, debug, trace, off) nor MODULE=LEVEL"));
    }
    text.parse::<tracing_subscriber::filter::Targets>().map(drop).map_err(|e| format!("--log: `{text}`: {e}"))
}

/// Where to listen: `0.0.0.0:9732`, `[::]:9732`.
pub fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an address and a port; write it like 0.0.0.0:9732 or [::]:9732"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_does_not_silence_the_log() {
        for good in ["info", "off", "warn,spotkeeper::adapters=debug", "spotkeeper=trace"] {
            assert_eq!(log_filter(good), Ok(()), "{good}");
        }
        for wrong in ["loud", "", "info,loud", "spotkeeper=loud"] {
            assert!(log_filter(wrong).unwrap_err().contains("--log"), "{wrong}");
        }
    }

    #[test]
    fn where_to_listen_needs_an_address_and_a_port() {
        assert!(listen("[::]:1").is_ok());
        for wrong in ["9732", ":9732", "localhost:9732", "0.0.0.0"] {
            assert!(listen(wrong).unwrap_err().contains("0.0.0.0:9732"), "{wrong}");
        }
    }

    #[test]
    fn any_text_is_a_filter_or_a_mistake() {
        bolero::check!().with_type::<String>().for_each(|text: &String| drop(log_filter(text)));
    }
}
