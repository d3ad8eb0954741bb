//! Availability traces: when each spot pool had capacity, as a table of comma-separated values. docs/traces.md describes it.
//!
//! - `table`: reads the table; a mistake is named with its line and column.
//! - `generate`: draws one whose spells last as published measurements have them.
//! - `import`: makes one of the records that the provisioner has left.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CliError, input, said};
use generate::Wanted;

pub mod generate;
pub mod import;
pub mod table;

/// How much one file of records may be.
const RECORDS_MAX: u64 = 4 << 30;

/// An instance type in a zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    pub instance_type: String,
    pub zone: String,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.instance_type, self.zone)
    }
}

impl std::str::FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
        let two = text.split_once('@').filter(|(instance_type, zone)| word(instance_type) && word(zone));
        let wrong = || format!("`{text}` is no pool: write an instance type and a zone like m7g.2xlarge@eu-west-1a");
        let (instance_type, zone) = two.ok_or_else(wrong)?;
        Ok(Self { instance_type: instance_type.to_owned(), zone: zone.to_owned() })
    }
}

/// Availability traces for rehearsals: draws one, or makes one of what your own cluster has seen.
///
/// The table goes to standard output (docs/traces.md describes it; `cloud.trace` of a scenario names the file).
#[derive(Clone, Debug, Args)]
pub struct Trace {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Clone, Debug, Subcommand)]
pub enum What {
    Generate(Generate),
    Import(Import),
}

/// Draws a trace whose good spells and outages last as published measurements of spot capacity have them.
///
/// The same seed, pools, hours and version give the same table.
#[derive(Clone, Debug, Args)]
pub struct Generate {
    /// What chance draws from.
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub seed: u64,

    /// The pools, like m7g.2xlarge@eu-west-1a,m6g.2xlarge@eu-west-1b.
    #[arg(long, value_name = "POOL,…", value_delimiter = ',', required = true)]
    pub pools: Vec<Pool>,

    /// For how many hours.
    #[arg(long, value_name = "HOURS", default_value = "24", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8_784))]
    pub hours: u32,
}

/// Makes a trace of records: which launches gave capacity and which did not, which pools were interrupted, and when.
///
/// The records are what `kubectl get interruptions,nodeclaims.spotkeeper.dev,launches,nodes -o json` and `kubectl -n spotkeeper
/// get configmap spotkeeper-memory -o json` print. Launches are kept for a minute only: take the records often, and import
/// all of the files together. Ends with 65 where no table comes of them.
#[derive(Clone, Debug, Args)]
pub struct Import {
    /// Files of records; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub files: Vec<PathBuf>,
}

impl Trace {
    pub fn run(self) -> Result<bool, CliError> {
        let text = match self.what {
            What::Generate(of) => {
                let wanted = Wanted { seed: of.seed, pools: of.pools, hours: of.hours };
                wanted.check().map_err(|why| CliError::Usage(format!("--pools: {why}")))?;
                generate::generate(&wanted)
            }
            What::Import(of) => {
                let mut records = import::Records::default();
                for file in &of.files {
                    let wrong = |why: &dyn fmt::Display| CliError::Data(format!("{}: {why}", input::named(file)));
                    let text = input::text(file, RECORDS_MAX).map_err(|error| wrong(&error))?;
                    records.read(&text).map_err(|why| wrong(&why))?;
                }
                let imported = records.imported();
                imported.notes.iter().for_each(|note| eprintln!("spotkeeper: {note}"));
                if imported.points == 0 {
                    let why = "nothing in these records tells of a spot pool: no launch and no claim of spot, and no \
                               spot interruption of an instance whose type and zone are known";
                    return Err(CliError::Data(why.into()));
                }
                imported.table
            }
        };
        said(io::stdout().lock().write_all(text.as_bytes()))?;
        Ok(true)
    }
}
