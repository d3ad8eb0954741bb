//! `spotkeeper plan`: what would happen to a cluster that exists, if AWS took some of its nodes now.

#[cfg(feature = "plan")]
mod live;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::rehearse::Output;
use super::{CliError, input, said};
use crate::domain::offering::{CapacityType, InstanceType};
use crate::domain::policy::{DrainStart, MARGIN_MAX};
use crate::domain::time::duration;
use crate::interruption::Policy;
use crate::plan::outcome::Plan as Planned;
use crate::plan::question::{Outage, Question};
use crate::plan::reading::Objects;
use crate::plan::snapshot::Snapshot;
use crate::plan::text::{GAPS_SHOWN_MAX, text};
use crate::plan::types::described;
use crate::prices::{self, OnDemandPrices};
use crate::provision::Settings;
use crate::provision::pools::PATIENCE_MAX;

/// How much one input may be: more than any cluster's pods are.
const INPUT_MAX: u64 = 4 << 30;

/// Says what would happen to your cluster if AWS took some of its nodes now, and what to change before it does.
///
/// Reads, and changes nothing. The drain and the ladder are the real decision code, in simulated time: which budgets would
/// refuse, which pods would not end in time, what would be asked of EC2. Ends with 0 where nothing is to be changed, with 1
/// where something is.
///
///   kubectl get nodes,pods,pdb,pv,pvc,nodepools.spotkeeper.dev,ec2nodeclasses.spotkeeper.dev -A -o json |
///     spotkeeper plan --all-spot --from -
#[derive(Clone, Debug, Args)]
#[command(verbatim_doc_comment, group = ArgGroup::new("outage").required(true).args(["nodes", "zone", "all_spot"]))]
pub struct Plan {
    /// These nodes are taken.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub nodes: Vec<String>,

    /// All spot nodes of this zone are taken.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// All spot nodes are taken.
    #[arg(long)]
    pub all_spot: bool,

    /// What `kubectl get nodes,pods,pdb,… -A -o json` writes: a file, or - for standard input; several are read as one.
    #[arg(long, value_name = "FILE", required = cfg!(not(feature = "plan")))]
    pub from: Vec<PathBuf>,

    #[cfg(feature = "plan")]
    #[command(flatten)]
    live: live::Live,

    /// Go on where something is missing from what is read; it is said, and the rest may be wrong.
    #[arg(long)]
    pub allow_incomplete: bool,

    /// EC2 has no spot capacity left.
    #[arg(long)]
    pub without_spot: bool,

    /// What on-demand costs: a JSON file of instance types and US dollars an hour, such as {"m7g.large": 0.0816}.
    #[arg(long, value_name = "FILE")]
    pub prices: Option<PathBuf>,

    /// What EC2 has: a file that `aws ec2 describe-instance-types --output json` wrote. Without it, the types of the
    /// cluster's nodes and those that its NodePools name.
    #[arg(long, value_name = "FILE")]
    pub instance_types: Option<PathBuf>,

    /// How long before the deadline pods should have ended (the agent's --margin).
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true, value_parser = duration)]
    pub margin: Duration,

    /// When evictions begin: Immediate or CapacityFirst (the agent's --drain).
    #[arg(long, value_name = "WHEN", default_value = "Immediate", value_parser = drain_start)]
    pub drain: DrainStart,

    /// The capacity types that are tried where no NodePool says it (the provisioner's --order).
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',', default_value = "spot,on-demand", value_parser = capacity)]
    pub order: Vec<CapacityType>,

    /// How long spot is tried before the next (the provisioner's --spot-patience).
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true, value_parser = duration)]
    pub spot_patience: Duration,

    /// How long a new instance takes until its Node is there.
    #[arg(long, value_name = "DURATION", default_value = "45s", allow_hyphen_values = true, value_parser = duration)]
    pub node_boot: Duration,

    /// How long a new pod takes until it is Ready.
    #[arg(long, value_name = "DURATION", default_value = "10s", allow_hyphen_values = true, value_parser = duration)]
    pub pod_start: Duration,

    /// How the plan is written.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,

    /// What chance draws from.
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub seed: u64,
}

impl Plan {
    pub fn run(self) -> Result<bool, CliError> {
        let question = self.question()?;
        let planned = self.answer(self.read()?, &question)?;
        let mut out = io::stdout().lock();
        match self.output {
            Output::Text => said(write!(out, "{}", text(&planned)))?,
            Output::Json => {
                let json = serde_json::to_string_pretty(&planned);
                said(writeln!(out, "{}", json.map_err(|error| CliError::Failed(error.to_string()))?))?;
            }
        }
        Ok(planned.is_clean())
    }

    fn read(&self) -> Result<Objects, CliError> {
        #[cfg(feature = "plan")]
        if self.from.is_empty() {
            return self.live.read();
        }
        let mut objects = Objects::default();
        for file in &self.from {
            let from = match file == Path::new(input::STDIN) {
                true => input::named(file),
                false => format!("--from {}", input::named(file)),
            };
            let text = input::text(file, INPUT_MAX);
            let text = text.map_err(|error| CliError::Data(format!("{from}: {error}")))?;
            objects.read(&from, text.as_bytes()).map_err(|error| CliError::Data(error.to_string()))?;
        }
        Ok(objects)
    }

    fn prices(&self) -> Result<OnDemandPrices, CliError> {
        let prices = self.prices.as_deref().map(prices::read).transpose();
        prices.map(Option::unwrap_or_default).map_err(|error| CliError::Data(input::chain(&error)))
    }

    fn answer(&self, objects: Objects, question: &Question) -> Result<Planned, CliError> {
        let snapshot = Snapshot::of(objects);
        let incomplete = |gaps: &[String]| {
            let mut all = gaps.iter().take(GAPS_SHOWN_MAX).map(|gap| format!("\n  - {gap}")).collect::<String>();
            if gaps.len() > GAPS_SHOWN_MAX {
                all.push_str(&format!("\n  and {} more", gaps.len() - GAPS_SHOWN_MAX));
            }
            let what = format!("what was read is not complete; --allow-incomplete goes on without:{all}");
            if self.allow_incomplete { Ok(()) } else { Err(CliError::Data(what)) }
        };
        if snapshot.nodes.is_empty() {
            return Err(CliError::Data(
                "there is no Node in what was read: `kubectl get nodes,pods,… -A -o json`".into(),
            ));
        }
        if !snapshot.gaps.is_empty() {
            incomplete(&snapshot.gaps.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        }
        let planned = crate::plan::plan(&snapshot, question).map_err(|error| CliError::Usage(error.to_string()))?;
        if !planned.gaps.is_empty() {
            incomplete(&planned.gaps)?;
        }
        Ok(planned)
    }

    fn question(&self) -> Result<Question, CliError> {
        let wrong = |what: String| Err(CliError::Usage(what));
        if self.margin > MARGIN_MAX {
            return wrong("--margin: more than 60s leaves too little of a spot notice".into());
        }
        if self.spot_patience > PATIENCE_MAX {
            return wrong("--spot-patience: more than 24h".into());
        }
        if let Some((_, twice)) = self.order.iter().enumerate().find(|(at, one)| self.order[..*at].contains(one)) {
            return wrong(format!("--order: `{twice}` is named twice"));
        }
        for (flag, long) in [("--node-boot", self.node_boot), ("--pod-start", self.pod_start)] {
            if long > Duration::from_secs(600) {
                return wrong(format!("{flag}: more than 10m is longer than is simulated"));
            }
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Ok(Question {
            outage: match (&self.zone, self.all_spot) {
                (Some(zone), _) => Outage::Zone(zone.clone()),
                (None, true) => Outage::AllSpot,
                (None, false) => Outage::Nodes(self.nodes.iter().map(|name| name.trim().to_owned()).collect()),
            },
            policy: Policy { margin: self.margin, drain: self.drain, ..Policy::default() },
            settings: Settings { order: self.order.clone(), spot_patience: self.spot_patience, ..Settings::default() },
            without_spot: self.without_spot,
            starts_in_ms: millis(self.pod_start),
            boots_in_ms: millis(self.node_boot),
            prices: self.prices()?,
            types: self.instance_types.as_deref().map(types).transpose()?,
            seed: self.seed,
        })
    }
}

fn types(file: &Path) -> Result<BTreeMap<String, InstanceType>, CliError> {
    let shown = input::named(file);
    let wrong = |what: String| CliError::Data(format!("--instance-types {shown}: {what}"));
    let text = input::text(file, INPUT_MAX).map_err(|error| wrong(error.to_string()))?;
    let types = described(&text)
        .map_err(|error| wrong(format!("not what `aws ec2 describe-instance-types --output json` writes: {error}")))?;
    if types.is_empty() { Err(wrong("there is no instance type in it (InstanceTypes)".to_owned())) } else { Ok(types) }
}

fn drain_start(text: &str) -> Result<DrainStart, String> {
    let of = DrainStart::ALL.iter().find(|one| one.as_str().eq_ignore_ascii_case(text));
    of.copied().ok_or_else(|| format!("`{text}` is neither Immediate nor CapacityFirst"))
}

fn capacity(text: &str) -> Result<CapacityType, String> {
    CapacityType::from_word(text).ok_or_else(|| format!("`{text}` is none of reserved, spot, on-demand"))
}
