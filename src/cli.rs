//! `spotkeeper`, the command for a person's shell: says what would happen, and changes nothing.
//!
//! - `input`: files, and standard input.
//! - `plan`: what would happen to a cluster that exists, if AWS took some of its nodes now.
//! - `rehearse`: runs the real decision code in simulated time, and says what came of it.
//! - `scenario`: scenarios as people write them.
//! - `shipped`: those that come with the program.
//! - `trace`: when spot pools had capacity: drawn, or made of a cluster's own records.

use std::io;

use clap::{Parser, Subcommand};

mod input;
pub mod plan;
pub mod rehearse;
pub mod scenario;
pub mod shipped;
pub mod trace;

/// Exit code for a command line or a scenario that cannot be used (EX_USAGE of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Exit code for data that cannot be read (EX_DATAERR of sysexits).
pub const EXIT_DATA: u8 = 65;

/// Exit code for what cannot be written (EX_IOERR of sysexits).
pub const EXIT_FAILED: u8 = 74;

/// Sees what spotkeeper will do before it does it.
#[derive(Clone, Debug, Parser)]
#[command(name = "spotkeeper", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    Rehearse(rehearse::Rehearse),
    Plan(Box<plan::Plan>),
    Trace(trace::Trace),
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line or the scenario is wrong.
    #[error("{0}")]
    Usage(String),
    /// What was to be read is not what it should be.
    #[error("{0}")]
    Data(String),
    /// Something of the machine did not work.
    #[error("{0}")]
    Failed(String),
}

impl Cli {
    /// Runs it. `Ok(false)`: it did what was asked, and found something that should not be.
    pub fn run(self) -> Result<bool, CliError> {
        match self.command {
            Command::Rehearse(rehearse) => rehearse.run(),
            Command::Plan(plan) => plan.run(),
            Command::Trace(trace) => trace.run(),
        }
    }
}

/// What came of writing to standard output. Whoever reads may have read enough (`| head`): that is their choice and no
/// failure, and what the exit code says of the verdict still holds.
fn said(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| CliError::Failed(format!("standard output: {error}"))),
    }
}
