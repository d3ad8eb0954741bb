//! What the configurations of both programs share: how they are read, and the words in them.

use std::time::Duration;

use clap::{Parser, ValueEnum};

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

/// `250ms`, `5s`, `10m`, `1h`: as Kubernetes and Go write durations.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like 500ms, 5s, 10m or 1h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_mistakes_are_named() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "5", "s", "5 s", "-5s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).unwrap_err().contains("is not a duration"), "{wrong}");
        }
    }
}
