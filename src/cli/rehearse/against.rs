//! `--against`: models of other systems in the same world.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::domain::time::duration;
use crate::sim::reference::comparison::{Column, compare};
use crate::sim::reference::{Policy, Timers};
use crate::sim::system::{Outcome, Scenario};

/// Whom to compare with, and how they are set.
#[derive(Clone, Debug, Args)]
pub struct Against {
    /// Show what models of other systems would have done with the same pools, shortages and notices, as a list.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = models())]
    pub against: Vec<String>,

    /// Into how many Auto Scaling groups the model of cluster-autoscaler has put the spot pools; one for each pool by
    /// default.
    #[arg(long, value_name = "N", requires = "against", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub autoscaler_groups: Option<u16>,

    /// How long it takes the model of cluster-autoscaler to see that a group gets nothing; 2m where it reads the
    /// groups' activities.
    #[arg(long, value_name = "DURATION", requires = "against", default_value = "16m", allow_hyphen_values = true)]
    #[arg(value_parser = noticed)]
    pub autoscaler_notices: Duration,
}

fn models() -> PossibleValuesParser {
    let models = Policy::ALL.iter().filter(|policy| policy.about().is_some());
    PossibleValuesParser::new(models.map(|policy| policy.as_str()))
}

fn noticed(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|it| if it.is_zero() { Err("nothing is seen at once".to_owned()) } else { Ok(it) })
}

impl Against {
    /// The columns of the comparison; `None` where none was asked for.
    pub fn compare(&self, scenario: &Scenario, outcome: &Outcome) -> Option<Vec<Column>> {
        let mut against: Vec<Policy> = Vec::new();
        for policy in self.against.iter().filter_map(|name| Policy::from_word(name)) {
            if !against.contains(&policy) {
                against.push(policy);
            }
        }
        let mut timers = Timers::default();
        timers.autoscaler.groups = self.autoscaler_groups.map(usize::from);
        timers.autoscaler.noticed = u64::try_from(self.autoscaler_notices.as_millis()).unwrap_or(u64::MAX);
        (!against.is_empty()).then(|| compare(scenario, outcome, &against, &timers))
    }
}
