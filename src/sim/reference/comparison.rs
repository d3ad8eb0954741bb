//! Ours and the models side by side in the world of one system: as data, and as a table for people and for the page.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::whole::{cost, missing_node_ms, ours, taken};
use super::{ALL_LEAVE_OUT, Market, Policy, Provided, Timers, autoscaler, karpenter, polling};
use crate::domain::offering::MicroDollars;
use crate::sim::page::{Comparison, Measure};
use crate::sim::system::{Outcome, Scenario};

/// How one policy did. Times count from the notice of the node that they are about, and the first of the requests for
/// on-demand from the first notice.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    pub policy: Policy,
    /// It is a model of a system, not the system.
    pub model: bool,
    /// How many of the nodes of the beginning AWS took, or has announced to take.
    pub doomed: usize,
    /// How many of them had a Ready node in their place.
    pub served: usize,
    /// When half of them had; `None`: never in this world.
    pub half_ready_ms: Option<u64>,
    pub all_ready_ms: Option<u64>,
    pub first_on_demand_ms: Option<u64>,
    pub launch_calls: u64,
    /// Of the time since the first notice.
    pub launch_calls_an_hour: f64,
    /// For how long what was taken had nothing in its place, in all.
    pub missing_node_ms: u64,
    /// For every pod that was wanted and not Ready; `None`: see `unsaid`.
    pub unavailable_pod_ms: Option<u64>,
    pub cost: Option<MicroDollars>,
    /// What cannot be said, by its field, and why.
    pub unsaid: BTreeMap<&'static str, &'static str>,
    pub sources: Option<&'static str>,
    pub leaves_out: Option<&'static str>,
}

/// Ours first, then the models, in a system that has been run.
pub fn compare(scenario: &Scenario, outcome: &Outcome, against: &[Policy], timers: &Timers) -> Vec<Column> {
    let market = Market::of_system(scenario, outcome);
    let models = against.iter().filter(|policy| **policy != Policy::Spotkeeper);
    let column = |policy: Policy| {
        let provided = match policy {
            Policy::Spotkeeper => ours(outcome),
            Policy::ClusterAutoscaler => autoscaler::run(&market, &timers.autoscaler),
            Policy::Karpenter => karpenter::run(&market, &timers.karpenter),
            Policy::Handler => polling::run(&market),
        };
        column(scenario, outcome, policy, &provided)
    };
    std::iter::once(Policy::Spotkeeper).chain(models.copied()).map(column).collect()
}

fn column(scenario: &Scenario, outcome: &Outcome, policy: Policy, provided: &Provided) -> Column {
    let (half_ready_ms, all_ready_ms) = provided.half_and_all();
    let model = policy.about();
    let mut unsaid = BTreeMap::new();
    if model.is_some() {
        unsaid.insert("unavailablePodMs", "the models have no pods");
    }
    let cost = match policy {
        Policy::Spotkeeper => Some(outcome.cost.spent),
        Policy::ClusterAutoscaler => Some(cost(scenario, outcome, provided)),
        Policy::Karpenter => {
            unsaid.insert("cost", "consolidation, which changes it, is left out of the model");
            None
        }
        Policy::Handler => {
            unsaid.insert("cost", "what replaces its nodes is another system's");
            None
        }
    };
    Column {
        policy,
        model: model.is_some(),
        doomed: provided.ready_ms.len(),
        served: provided.served(),
        half_ready_ms,
        all_ready_ms,
        first_on_demand_ms: provided.on_demand_ms,
        launch_calls: provided.calls,
        launch_calls_an_hour: tenths(provided.calls_an_hour()),
        missing_node_ms: missing_node_ms(provided, &taken(outcome), outcome.ends_ms),
        unavailable_pod_ms: model.is_none().then_some(outcome.pods.unavailable_pod_ms),
        cost,
        unsaid,
        sources: model.map(|about| about.sources),
        leaves_out: model.map(|about| about.leaves_out),
    }
}

/// To one decimal.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn after(millis: Option<u64>) -> String {
    match millis {
        None => "never".into(),
        Some(millis) if millis < 600_000 => format!("{:.1} s", millis as f64 / 1_000.0),
        Some(millis) => format!("{:.0} min", millis as f64 / 60_000.0),
    }
}

/// Which has the least, where that is one alone.
fn least(values: &[Option<u64>]) -> Option<usize> {
    let least = values.iter().flatten().min()?;
    let mut with = values.iter().enumerate().filter(|(_, value)| *value == &Some(*least));
    with.next().map(|(at, _)| at).filter(|_| with.next().is_none())
}

/// The rows of the table.
fn measures(columns: &[Column]) -> Vec<Measure> {
    let row = |measure: &str, say: &dyn Fn(&Column) -> String, best: Option<usize>| Measure {
        measure: measure.to_owned(),
        values: columns.iter().map(say).collect(),
        best,
    };
    let best = |of: &dyn Fn(&Column) -> Option<u64>| least(&columns.iter().map(of).collect::<Vec<_>>());
    let or_dash = |of: Option<u64>, say: &dyn Fn(u64) -> String| of.map_or("-".to_owned(), say);
    let seconds = |ms: u64| (ms / 1_000).to_string();
    let unserved = |one: &Column| Some((one.doomed - one.served) as u64);
    vec![
        row("doomed nodes replaced", &|one| format!("{} of {}", one.served, one.doomed), best(&unserved)),
        row("half of them Ready after", &|one| after(one.half_ready_ms), best(&|one| one.half_ready_ms)),
        row("all of them Ready after", &|one| after(one.all_ready_ms), best(&|one| one.all_ready_ms)),
        row("on-demand asked for after", &|one| after(one.first_on_demand_ms), None),
        row("launch calls an hour", &|one| format!("{:.1}", one.launch_calls_an_hour), None),
        row(
            "capacity missing, node-seconds",
            &|one| seconds(one.missing_node_ms),
            best(&|one| Some(one.missing_node_ms)),
        ),
        row("pods unavailable, pod-seconds", &|one| or_dash(one.unavailable_pod_ms, &seconds), None),
        // Whoever serves late or nobody pays little: no merit.
        row("cost", &|one| or_dash(one.cost, &|micro| format!("${:.2}", micro as f64 / 1e6)), None),
    ]
}

/// What must be known to read the table, a line each.
fn notes(columns: &[Column]) -> Vec<String> {
    let mut notes = Vec::new();
    for one in columns {
        if let (Some(sources), Some(leaves_out)) = (one.sources, one.leaves_out) {
            notes.push(format!("{}, a model after {sources}. It leaves out {leaves_out}.", one.policy));
        }
    }
    notes.push(format!(
        "All models leave out {ALL_LEAVE_OUT}. They see the same pools, shortages and notices as spotkeeper."
    ));
    let mut unsaid: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for one in columns {
        for (field, why) in &one.unsaid {
            let field = if *field == "unavailablePodMs" { "pod-seconds" } else { field };
            unsaid.entry((field, why)).or_default().push(one.policy.as_str());
        }
    }
    notes.extend(unsaid.into_iter().map(|((field, why), of)| format!("No {field} of {}: {why}.", of.join(", "))));
    notes
}

fn name(column: &Column) -> String {
    if column.model { format!("{} (model)", column.policy) } else { column.policy.to_string() }
}

/// The comparison as the page shows it.
pub fn for_page(columns: &[Column]) -> Comparison {
    Comparison { policies: columns.iter().map(name).collect(), rows: measures(columns), notes: notes(columns) }
}

/// The comparison as a table, for people.
pub fn table(heading: &str, columns: &[Column]) -> String {
    let names: Vec<String> = columns.iter().map(name).collect();
    let mut text = format!("  {heading:32}");
    for name in &names {
        let _ = write!(text, "{name:>width$}", width = name.len().max(12) + 2);
    }
    for row in measures(columns) {
        let _ = write!(text, "\n  {:32}", row.measure);
        for (name, value) in names.iter().zip(&row.values) {
            let _ = write!(text, "{value:>width$}", width = name.len().max(12) + 2);
        }
    }
    text.push('\n');
    for note in notes(columns) {
        let _ = write!(text, "\n  {note}");
    }
    text
}

/// Of many worlds the median of every figure; what is never is longer than any time.
pub fn median(worlds: &[Vec<Column>]) -> Vec<Column> {
    let Some(first) = worlds.first() else { return Vec::new() };
    let of = |nth: usize, first: &Column| {
        let all: Vec<&Column> = worlds.iter().filter_map(|world| world.get(nth)).collect();
        let at = |of: &dyn Fn(&Column) -> u64| {
            let mut values: Vec<u64> = all.iter().map(|one| of(one)).collect();
            values.sort_unstable();
            values[(values.len() - 1) / 2]
        };
        let never = |of: &dyn Fn(&Column) -> Option<u64>| {
            Some(at(&|one| of(one).unwrap_or(u64::MAX))).filter(|median| *median < u64::MAX)
        };
        let sum = |of: &dyn Fn(&Column) -> usize| all.iter().map(|one| of(one)).sum();
        Column {
            doomed: sum(&|one| one.doomed),
            served: sum(&|one| one.served),
            half_ready_ms: never(&|one| one.half_ready_ms),
            all_ready_ms: never(&|one| one.all_ready_ms),
            first_on_demand_ms: never(&|one| one.first_on_demand_ms),
            launch_calls: at(&|one| one.launch_calls),
            launch_calls_an_hour: at(&|one| (one.launch_calls_an_hour * 10.0) as u64) as f64 / 10.0,
            missing_node_ms: at(&|one| one.missing_node_ms),
            unavailable_pod_ms: never(&|one| one.unavailable_pod_ms),
            cost: never(&|one| one.cost),
            ..first.clone()
        }
    };
    first.iter().enumerate().map(|(nth, first)| of(nth, first)).collect()
}
