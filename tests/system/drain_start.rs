//! `Immediate` against `CapacityFirst`: which costs workloads less. The table in docs/decisions.md is printed by
//!
//! ```text
//! SPOTKEEPER_DRAIN_SEEDS=20 cargo test --test system immediate_against_capacity_first -- --nocapture
//! ```

use spotkeeper::interruption::DrainStart::{self, CapacityFirst, Immediate};
use spotkeeper::sim::system::Scenario;
use spotkeeper::sim::system::scenario::{ApiState, Step, Which, a_cluster, a_deployment};

const NODES: u32 = 6;

/// What one way of draining costs, summed over worlds.
#[derive(Clone, Copy, Default)]
struct Cost {
    unavailable_ms: u64,
    killed: u64,
    cut_short: u64,
    pods: u64,
}

impl Cost {
    fn plus(self, other: Self) -> Self {
        Self {
            unavailable_ms: self.unavailable_ms + other.unavailable_ms,
            killed: self.killed + other.killed,
            cut_short: self.cut_short + other.cut_short,
            pods: self.pods + other.pods,
        }
    }

    /// Seconds for which each pod that had to move was not there.
    fn secs(self) -> f64 {
        self.unavailable_ms as f64 / 1_000.0 / self.pods.max(1) as f64
    }
}

/// One world: two of six nodes are taken.
#[derive(Clone, Copy)]
struct Case {
    seed: u64,
    boot_secs: u64,
    grace_secs: u64,
    /// Pods fill the cluster to so many of a hundred.
    full_percent: u32,
    budget: bool,
    /// The agents die for up to forty seconds on the way, or the API server is away for so long.
    trouble: bool,
}

impl Case {
    fn world(self, drain: DrainStart) -> Scenario {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let replicas = NODES * 8 * self.full_percent / 100 - 1;
        // A pod stops within its grace, mostly well before its end.
        let stops_in = self.grace_secs * rng.u64(200..1_000);
        let mut web = a_deployment("shop/web", replicas).grace(self.grace_secs).stops_in(stops_in);
        web = web.starts_in(rng.u64(5_000..30_000));
        if self.budget {
            web = web.budget(replicas / 10 + 1);
        }
        let mut world = a_cluster(NODES as usize).named("drain").seed(self.seed).workload(web);
        world.policy.drain = drain;
        world = world.boots_in(self.boot_secs * 1_000, 10_000);
        let first = rng.usize(0..4);
        if self.trouble {
            let (at, lasts) = (rng.u64(10_000..120_000), rng.u64(5_000..40_000));
            world = match rng.bool() {
                true => world.at(at, Step::KillAgents { of: Which::All, down_ms: lasts }),
                false => world.at(at, Step::Api(ApiState::Away)).at(at + lasts, Step::Api(ApiState::Well)),
            };
        }
        world.interrupts(10_000, Which::Nodes { from: first, count: 2 }).until(8 * 60_000)
    }

    fn cost(self, drain: DrainStart) -> Cost {
        let outcome = self.world(drain).judge().outcome;
        assert_eq!(outcome.findings, [], "seed {}, {drain}", self.seed);
        let web = outcome.workload("shop/web").expect("it is there");
        Cost {
            unavailable_ms: web.unavailable_pod_ms,
            killed: web.killed,
            cut_short: web.cut_short,
            pods: web.stopped + web.killed,
        }
    }
}

fn both(cases: impl Iterator<Item = Case> + Clone) -> [Cost; 2] {
    [Immediate, CapacityFirst].map(|drain| cases.clone().map(|case| case.cost(drain)).fold(Cost::default(), Cost::plus))
}

fn row(what: &str, [now, first]: [Cost; 2]) {
    println!(
        "| {what} | {:.1} | {:.1} | {} / {} | {} / {} |",
        now.secs(),
        first.secs(),
        now.killed,
        first.killed,
        now.cut_short,
        first.cut_short
    );
}

#[test]
fn immediate_against_capacity_first() {
    let seeds: u64 = std::env::var("SPOTKEEPER_DRAIN_SEEDS").map_or(1, |text| text.parse().expect("a number"));
    println!("| cluster | boot | grace | Immediate: s a pod | CapacityFirst: s a pod | killed | cut short |");
    println!("|---|---|---|---|---|---|---|");
    let mut sums = Vec::new();
    for (what, full_percent, trouble) in
        [("55 % full", 55, false), ("95 % full", 95, false), ("95 %, trouble", 95, true)]
    {
        let mut sum = [Cost::default(); 2];
        for boot_secs in [30, 60, 90, 120] {
            for grace_secs in [5, 30, 60, 110] {
                let cases = (0..seeds).flat_map(|seed| {
                    [false, true].map(|budget| Case { seed, boot_secs, grace_secs, full_percent, budget, trouble })
                });
                let costs = both(cases);
                row(&format!("{what} | {boot_secs} s | {grace_secs} s"), costs);
                sum = [sum[0].plus(costs[0]), sum[1].plus(costs[1])];
            }
        }
        row(&format!("{what} | all | all"), sum);
        sums.push(sum);
    }
    let [room, full, _] = sums.as_slice() else { panic!("three kinds of clusters") };
    for [now, first] in [room, full] {
        assert!(now.pods > 0 && first.pods > 0, "pods had to move");
        assert_eq!(now.killed + first.killed, 0, "neither leaves a pod to be killed");
    }
    assert!(full[1].secs() < full[0].secs(), "where there is no room, waiting for it costs less");
}
