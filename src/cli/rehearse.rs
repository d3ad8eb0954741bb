//! `spotkeeper rehearse`: one world told from beginning to end, or many judged and summed up.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::against::Against;
use self::verdict::{Sum, verdict};
use super::{CliError, input, said, scenario, shipped};
use crate::sim::page::page;
use crate::sim::reference::comparison::{self, Column};
use crate::sim::system::{Outcome, Scenario};

mod against;
mod verdict;

/// How much a scenario, or a file that it names, may be.
const SCENARIO_MAX: u64 = 256 << 20;

/// How many worlds one command may run.
const SEEDS_MAX: u64 = 1_000_000;

/// Runs the real decision code in simulated time: no cluster, no account, in seconds.
///
/// The same scenario, seed and version give the same output, to the byte. Ends with 1 where something happened that must
/// never happen.
#[derive(Clone, Debug, Args)]
pub struct Rehearse {
    /// A shipped scenario by its name, or a YAML file (docs/rehearse.md describes it); - is standard input.
    #[arg(value_name = "SCENARIO", required_unless_present = "list")]
    pub scenario: Option<String>,

    /// What chance draws from.
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub seed: u64,

    /// How many worlds, from --seed on: more than one are summed up.
    #[arg(long, value_name = "M", default_value = "1", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    pub seeds: u64,

    /// So many times the scenario's nodes and pods.
    #[arg(long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub times: u32,

    /// Say which scenarios are shipped.
    #[arg(long)]
    pub list: bool,

    /// How the outcome is written.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,

    /// Write the outcome of the first seed as a page to look at.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    #[command(flatten)]
    pub against: Against,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The timeline and the verdict.
    Text,
    /// One JSON object for each seed, one a line (docs/rehearse.md has the schema).
    Json,
}

impl Rehearse {
    pub fn run(self) -> Result<bool, CliError> {
        let mut out = io::stdout().lock();
        if self.list {
            for (name, text) in shipped::ALL {
                said(writeln!(out, "{name:18} {}", scenario::description(text)))?;
            }
            return Ok(true);
        }
        let scenario =
            self.scenario.as_deref().map(load).transpose()?.unwrap_or_else(|| unreachable!("clap asks for it"));
        let scenario = scenario::times(scenario, self.times)
            .map_err(|mistake| CliError::Usage(format!("--times {}: {mistake}", self.times)))?;
        if self.seed.checked_add(self.seeds - 1).is_none() {
            let (seed, last) = (self.seed, u64::MAX);
            return Err(CliError::Usage(format!("--seed {seed} --seeds {}: the last seed is {last}", self.seeds)));
        }
        // What cannot be written is said before the work rather than after.
        if let Some(file) = &self.html {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
            opened.map_err(|error| unwritable(file, &error))?;
        }
        if self.seeds > 1 { self.many(&scenario, &mut out) } else { self.one(scenario, &mut out) }
    }

    fn one(&self, scenario: Scenario, out: &mut impl Write) -> Result<bool, CliError> {
        let report = scenario.clone().seed(self.seed).run();
        let compared = self.against.compare(&scenario, &report.outcome);
        match self.output {
            Output::Text => {
                for line in &report.story {
                    said(writeln!(out, "{line}"))?;
                }
                said(writeln!(out, "\n{}", verdict(&report.outcome)))?;
                if let Some(compared) = &compared {
                    said(writeln!(out, "\n{}", comparison::table("compared", compared)))?;
                }
            }
            Output::Json => said(writeln!(out, "{}", json(&report.outcome, compared.as_deref())?))?,
        }
        self.write_page(&report.outcome, compared.as_deref())?;
        Ok(report.outcome.findings.is_empty())
    }

    fn many(&self, scenario: &Scenario, out: &mut impl Write) -> Result<bool, CliError> {
        let outcomes = judge_all(scenario, self.seed, self.seeds);
        let compared: Vec<Option<Vec<Column>>> =
            outcomes.iter().map(|outcome| self.against.compare(scenario, outcome)).collect();
        if let Some((first, compared)) = outcomes.iter().zip(&compared).next() {
            self.write_page(first, compared.as_deref())?;
        }
        match self.output {
            Output::Json => {
                for (outcome, compared) in outcomes.iter().zip(&compared) {
                    said(writeln!(out, "{}", json(outcome, compared.as_deref())?))?;
                }
            }
            Output::Text => {
                let name = self.scenario.as_deref().unwrap_or_default();
                said(writeln!(out, "{}", Sum::of(&outcomes).told(name)))?;
                let compared: Vec<Vec<Column>> = compared.into_iter().flatten().collect();
                if !compared.is_empty() {
                    let heading = format!("medians of {} worlds", compared.len());
                    said(writeln!(out, "\n{}", comparison::table(&heading, &comparison::median(&compared))))?;
                }
            }
        }
        Ok(outcomes.iter().all(|outcome| outcome.findings.is_empty()))
    }

    fn write_page(&self, outcome: &Outcome, compared: Option<&[Column]>) -> Result<(), CliError> {
        let Some(file) = &self.html else { return Ok(()) };
        let compared = compared.map(comparison::for_page);
        let page = page(outcome, compared.as_ref()).map_err(|error| CliError::Failed(error.to_string()))?;
        std::fs::write(file, page).map_err(|error| unwritable(file, &error))
    }
}

fn unwritable(file: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("--html {}: {error}", file.display()))
}

/// A shipped scenario, or a file.
fn load(named: &str) -> Result<Scenario, CliError> {
    if let Some((name, text)) = shipped::ALL.iter().find(|(name, _)| *name == named) {
        return scenario::read(name, text).map_err(|mistake| CliError::Failed(format!("{name}: {mistake}")));
    }
    let path = Path::new(named);
    let shown = input::named(path);
    let text = input::text(path, SCENARIO_MAX).map_err(|error| {
        let shipped = match error.kind() {
            io::ErrorKind::NotFound => "; it is no shipped scenario either: `spotkeeper rehearse --list` says them",
            _ => "",
        };
        CliError::Usage(format!("{shown}: {error}{shipped}"))
    })?;
    let stem = path.file_stem().filter(|stem| *stem != input::STDIN);
    let name = stem.map_or(shown.as_str().into(), |stem| stem.to_string_lossy());
    // What it names is beside it.
    let beside = path.parent().map(PathBuf::from).unwrap_or_default();
    let file = |name: &str| input::text(&beside.join(name), SCENARIO_MAX).map_err(|error| error.to_string());
    scenario::read_with(&name, &text, &file).map_err(|mistake| CliError::Usage(format!("{shown}: {mistake}")))
}

/// An outcome, and the comparison where one was asked for.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a [Column]>,
}

fn json(outcome: &Outcome, comparison: Option<&[Column]>) -> Result<String, CliError> {
    serde_json::to_string(&Told { outcome, comparison }).map_err(|error| CliError::Failed(error.to_string()))
}

/// Judges so many seeds on all processors; in the order of the seeds.
fn judge_all(scenario: &Scenario, first: u64, seeds: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let done = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let bar = io::stderr().is_terminal();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= seeds {
                        return;
                    }
                    let outcome = scenario.clone().seed(first.saturating_add(at)).judge().outcome;
                    let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    done.push(outcome);
                    if bar {
                        progress(done.len() as u64, seeds);
                    }
                }
            });
        }
    });
    if bar {
        eprintln!();
    }
    let mut outcomes = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

fn progress(done: u64, of: u64) {
    const WIDTH: u64 = 40;
    let full = usize::try_from(done * WIDTH / of.max(1)).unwrap_or(0);
    eprint!("\r[{:<width$}] {done} of {of} seeds", "#".repeat(full), width = WIDTH as usize);
}
