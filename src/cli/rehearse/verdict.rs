//! What came of it, for people.

use std::fmt::Write;

use crate::sim::system::Outcome;

fn seconds(millis: Option<u64>) -> String {
    millis.map_or("never".into(), |millis| format!("{:.1} s", millis as f64 / 1_000.0))
}

fn dollars(micro: u64) -> String {
    format!("${:.2}", micro as f64 / 1e6)
}

/// The verdict on one world.
pub fn verdict(outcome: &Outcome) -> String {
    let Outcome { capacity, pods, calls, cost, .. } = outcome;
    let types: Vec<String> = capacity.by_capacity_type.iter().map(|(of, count)| format!("{count} {of}")).collect();
    let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
    let (p50, p99, max) = (seconds(capacity.p50_ms), seconds(capacity.p99_ms), seconds(capacity.max_ms));
    let rows = [
        ("nodes replaced", format!("{} of {}{types}", capacity.ready, capacity.claims)),
        ("time to capacity", format!("{p50} (p50), {p99} (p99), {max} (longest)")),
        ("pods unavailable", format!("{} pod-seconds", pods.unavailable_pod_ms / 1_000)),
        (
            "pods ended",
            format!(
                "{} in time, {} cut short by their grace, {} killed hard",
                pods.stopped, pods.cut_short, pods.killed
            ),
        ),
        ("work lost", format!("{} since the last checkpoints", seconds(Some(pods.work_lost_ms)))),
        (
            "launch calls",
            format!(
                "{} spot, {} on-demand, {} reserved; {} throttled; {} instances launched, {} ended",
                calls.spot,
                calls.on_demand,
                calls.reserved,
                calls.throttled,
                calls.instances_launched,
                calls.instances_ended
            ),
        ),
        (
            "cost",
            format!(
                "{}; all on-demand {}, all spot and never interrupted {}",
                dollars(cost.spent),
                dollars(cost.all_on_demand),
                dollars(cost.all_spot)
            ),
        ),
        ("invariants", findings(outcome)),
    ];
    let mut text = format!("{}, seed {}, {} s\n", outcome.scenario, outcome.seed, outcome.ends_ms / 1_000);
    for (name, value) in rows {
        let _ = write!(text, "\n  {name:18}{value}");
    }
    text
}

fn findings(outcome: &Outcome) -> String {
    if outcome.findings.is_empty() {
        return "all held".to_owned();
    }
    let mut text = format!("{} findings:", outcome.findings.len());
    for one in &outcome.findings {
        let _ = write!(text, "\n    {:9.3} s  {} {}: {}", one.at_ms as f64 / 1_000.0, one.node, one.code, one.what);
    }
    text
}

/// Many worlds, summed up.
pub struct Sum {
    seeds: usize,
    /// The seeds in which something was found, and what first.
    failed: Vec<(u64, String)>,
    claims: usize,
    ready: usize,
    /// Of each world, sorted.
    longest_ms: Vec<u64>,
    unavailable_ms: Vec<u64>,
    killed: Vec<u64>,
    calls: Vec<u64>,
    spent: Vec<u64>,
    all_on_demand: Vec<u64>,
}

impl Sum {
    pub fn of(outcomes: &[Outcome]) -> Self {
        let sorted = |of: fn(&Outcome) -> Option<u64>| {
            let mut all: Vec<u64> = outcomes.iter().filter_map(of).collect();
            all.sort_unstable();
            all
        };
        let first = |one: &Outcome| one.findings.first().map(|it| (one.seed, format!("{}: {}", it.code, it.what)));
        Self {
            seeds: outcomes.len(),
            failed: outcomes.iter().filter_map(first).collect(),
            claims: outcomes.iter().map(|one| one.capacity.claims).sum(),
            ready: outcomes.iter().map(|one| one.capacity.ready).sum(),
            longest_ms: sorted(|one| one.capacity.max_ms),
            unavailable_ms: sorted(|one| Some(one.pods.unavailable_pod_ms)),
            killed: sorted(|one| Some(one.pods.killed)),
            calls: sorted(|one| Some(one.calls.spot + one.calls.on_demand + one.calls.reserved)),
            spent: sorted(|one| Some(one.cost.spent)),
            all_on_demand: sorted(|one| Some(one.cost.all_on_demand)),
        }
    }

    /// For people: the median world, the 99th of a hundred, and the worst.
    pub fn told(&self, scenario: &str) -> String {
        let spread = |all: &[u64], word: &dyn Fn(u64) -> String| {
            let at =
                |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).map(|it| word(*it));
            let of = |it: Option<String>| it.unwrap_or("-".into());
            format!("{:>12} {:>12} {:>12}", of(at(50)), of(at(99)), of(at(100)))
        };
        let secs = |millis: u64| format!("{:.1} s", millis as f64 / 1_000.0);
        let count = |count: u64| count.to_string();
        let mut text = format!(
            "{scenario}, {} seeds: {} of {} nodes replaced\n\n  {:32}{:>12} {:>12} {:>12}",
            self.seeds, self.ready, self.claims, "of a world", "p50", "p99", "worst"
        );
        let rows: [(&str, String); 6] = [
            ("longest time to capacity", spread(&self.longest_ms, &secs)),
            ("pods unavailable, in all", spread(&self.unavailable_ms, &secs)),
            ("pods killed hard", spread(&self.killed, &count)),
            ("launch calls", spread(&self.calls, &count)),
            ("cost", spread(&self.spent, &dollars)),
            ("cost, all on-demand", spread(&self.all_on_demand, &dollars)),
        ];
        for (name, row) in rows {
            let _ = write!(text, "\n  {name:32}{row}");
        }
        let Some((seed, _)) = self.failed.first() else {
            return format!("{text}\n\n  every invariant held in every world");
        };
        let _ = write!(text, "\n\n  {} worlds in which something was found:", self.failed.len());
        for (seed, what) in self.failed.iter().take(20) {
            let _ = write!(text, "\n    seed {seed}: {what}");
        }
        let _ = write!(text, "\n  see one with: spotkeeper rehearse {scenario} --seed {seed}");
        text
    }
}
