//! Systems drawn from a seed.

use super::scenario::{
    ApiFaults, ApiState, ImdsState, Pools, Scenario, State, Step, SupplyFaults, TWO_MINUTES, Which, Workload,
    a_cluster, a_deployment, a_stateful_set, a_training_job,
};
use crate::api::node_pool::OnInterruption;
use crate::domain::offering::CapacityType;
use crate::domain::policy::DrainStart;
use crate::interruption::Rebalance;
use crate::sim::supply::scenario::a_pool;

const MINUTE: u64 = 60_000;

/// How long a drawn world goes on after its last step: the longest belief must have ended (33 min), and an instance that
/// never became a node after it (15 min).
const AFTER: u64 = 65 * MINUTE;

/// What is drawn from is independent of what the world draws while it runs.
const SALT: u64 = 0x0a11_0f17;

impl Scenario {
    /// The system of a seed: always the same one.
    pub fn from_seed(seed: u64) -> Self {
        let mut draw = Draw { rng: fastrand::Rng::with_seed(seed ^ SALT), zones: Vec::new() };
        let rng = &mut draw.rng;
        let nodes = rng.usize(1..9);
        let mut scenario = a_cluster(nodes).named("drawn").seed(seed);
        scenario.cloud.types.truncate(rng.usize(1..5));
        scenario.cloud.zones.truncate(rng.usize(1..4));
        draw.zones = scenario.cloud.zones.clone();
        scenario = scenario.boots_in(rng.u64(20_000..100_000), rng.u64(0..30_000));
        scenario.cloud.spot = [None, Some(0), Some(2)][rng.usize(..3)];
        scenario.queue = rng.bool();
        if rng.u8(..3) == 0 {
            scenario = scenario.nodes(rng.usize(1..3), CapacityType::OnDemand, None);
        }
        scenario.policy.rebalance = [Rebalance::Ignore, Rebalance::Avoid, Rebalance::Drain][rng.usize(..3)];
        if rng.u8(..8) == 0 {
            scenario.settings.spot_patience = std::time::Duration::from_secs(rng.u64(10..200));
        }
        for number in 0..rng.usize(1..4) {
            let workload = draw.workload(number, nodes);
            scenario = scenario.workload(workload);
        }
        if draw.rng.bool() {
            (scenario.api_faults, scenario.supply_faults) = draw.faults();
        }
        let mut at = 5_000;
        for _ in 0..draw.rng.usize(1..8) {
            at += [draw.rng.u64(..2_000), draw.rng.u64(..20_000), draw.rng.u64(..5 * MINUTE)][draw.rng.usize(..3)];
            for (later, step) in draw.steps(nodes) {
                scenario = scenario.at(at + later, step);
            }
        }
        well_in_the_end(pooled(scenario, seed))
    }
}

/// One system in four has a NodePool that all nodes are of. It is drawn apart, so that the rest of a seed is as it was.
fn pooled(scenario: Scenario, seed: u64) -> Scenario {
    let mut rng = fastrand::Rng::with_seed(seed ^ SALT ^ 0x0900_1000);
    if rng.u8(..4) > 0 {
        return scenario;
    }
    let mut pool = a_pool();
    if rng.bool() {
        pool = pool.nodes_max(rng.i64(1..12));
    }
    if rng.u8(..3) == 0 {
        pool = pool.floor(["1", "30%"][rng.usize(..2)]);
    }
    pool.interruption = Some(OnInterruption {
        rebalance: [None, Some(Rebalance::Replace), Some(Rebalance::Drain)][rng.usize(..3)],
        drain: [None, Some(DrainStart::Immediate), Some(DrainStart::CapacityFirst)][rng.usize(..3)],
        margin: [None, Some("2s".to_owned()), Some("20s".to_owned())][rng.usize(..3)].clone(),
    });
    scenario.of_pool("general", pool)
}

/// In the end everything is well, so that everybody must be served.
fn well_in_the_end(mut scenario: Scenario) -> Scenario {
    let last = scenario.script.iter().map(|(at, _)| *at).max().unwrap_or(0);
    for step in [
        Step::NoFaults,
        Step::Api(ApiState::Well),
        Step::Ec2(State::Well),
        Step::Join(true),
        Step::Imds { of: Which::All, state: ImdsState::Well },
        Step::Pools { of: Pools::of(CapacityType::OnDemand), left: None, takes_percent: 0 },
        Step::Refuse { capacity_type: CapacityType::Spot, code: None },
        Step::Refuse { capacity_type: CapacityType::OnDemand, code: None },
    ] {
        scenario = scenario.at(last + 1_000, step);
    }
    scenario.until(last + 1_000 + TWO_MINUTES + AFTER)
}

struct Draw {
    rng: fastrand::Rng,
    zones: Vec<String>,
}

impl Draw {
    fn workload(&mut self, number: usize, nodes: usize) -> Workload {
        let rng = &mut self.rng;
        // Half of the room at most is used, so that what has fitted once fits again.
        let replicas = rng.u32(1..=nodes as u32);
        let (path, grace) = (format!("ns/w{number}"), [1, 5, 30, 30, 60, 110, 600][rng.usize(..7)]);
        let mut workload = match rng.u8(..4) {
            0 | 1 => a_deployment(&path, replicas),
            2 => a_stateful_set(&path, replicas),
            _ => a_training_job(&path, replicas).cpu(2_000).checkpoints(rng.u64(10_000..20 * MINUTE)),
        };
        workload = workload.grace(grace).starts_in(rng.u64(500..60_000));
        workload = workload.stops_in([rng.u64(..500), rng.u64(500..20_000), rng.u64(10_000..200_000)][rng.usize(..3)]);
        match rng.u8(..4) {
            0 => workload,
            1 => workload.budget(0),
            _ => workload.budget(rng.u32(1..4)),
        }
    }

    fn faults(&mut self) -> (ApiFaults, SupplyFaults) {
        let rng = &mut self.rng;
        let mut one_in = |least: u32| (rng.u8(..3) == 0).then(|| rng.u32(least..60));
        let api = ApiFaults {
            lost_answer_one_in: one_in(3),
            refused_one_in: one_in(3),
            throttled_one_in: one_in(3),
            imds_one_in: one_in(3),
            slow_ms: 0,
            watch_lag_ms: 0,
        };
        let supply = SupplyFaults {
            api_lost_one_in: one_in(3),
            api_refused_one_in: one_in(3),
            ec2_lost_one_in: one_in(3),
            ec2_late_one_in: one_in(3),
            ec2_error_one_in: one_in(3),
            names_one_one_in: one_in(2),
            shown_after_ms: [0, 2_000, 20_000][self.rng.usize(..3)],
            never_joins_one_in: (self.rng.u8(..6) == 0).then(|| self.rng.u32(4..20)),
            ..SupplyFaults::default()
        };
        let rng = &mut self.rng;
        let api = ApiFaults {
            slow_ms: [0, 0, 200, 1_500][rng.usize(..4)],
            watch_lag_ms: [0, 0, 100, 2_000][rng.usize(..4)],
            ..api
        };
        (api, supply)
    }

    fn which(&mut self, nodes: usize) -> Which {
        match self.rng.u8(..8) {
            0..3 => Which::Node(self.rng.usize(..nodes)),
            3 => Which::Zone(self.zones[self.rng.usize(..self.zones.len())].clone()),
            4 => Which::Spot,
            5 => Which::Provisioners,
            6 => Which::StandIn,
            _ => Which::All,
        }
    }

    /// One thing, and perhaps its end.
    fn steps(&mut self, nodes: usize) -> Vec<(u64, Step)> {
        let of = self.which(nodes);
        let rng = &mut self.rng;
        let down_ms = [500, 5_000, 40_000, 200_000][rng.usize(..4)];
        let later = [rng.u64(1_000..30_000), rng.u64(MINUTE..10 * MINUTE)][rng.usize(..2)];
        let capacity_type = [CapacityType::Spot, CapacityType::OnDemand][rng.usize(..2)];
        let pools = || Pools::of(capacity_type);
        match rng.u8(..14) {
            0..4 => vec![(0, Step::Interrupt { of, notice_ms: TWO_MINUTES })],
            4 => vec![(0, Step::Rebalance { of: of.clone() }), (later, Step::Interrupt { of, notice_ms: TWO_MINUTES })],
            5 | 6 => {
                let zone = rng.bool().then(|| self.zones[rng.usize(..self.zones.len())].clone());
                let pools = Pools { zone, ..pools() };
                let takes_percent = [0, 50, 100][rng.usize(..3)];
                vec![
                    (0, Step::Pools { of: pools.clone(), left: Some(0), takes_percent }),
                    (later, Step::Pools { of: pools, left: None, takes_percent: 0 }),
                ]
            }
            7 => vec![(rng.u64(..2_000), Step::KillLeader { down_ms })],
            8 => vec![(0, Step::KillAgents { of, down_ms })],
            9 => vec![(0, Step::Ec2([State::Away, State::Throttles][rng.usize(..2)])), (later, Step::Ec2(State::Well))],
            10 | 11 => {
                let states = [ApiState::Away, ApiState::Away, ApiState::Slow, ApiState::Flooded];
                let lasts = rng.u64(500..MINUTE);
                vec![(0, Step::Api(states[rng.usize(..4)])), (lasts, Step::Api(ApiState::Well))]
            }
            12 => {
                let codes = ["MaxSpotInstanceCountExceeded", "InsufficientFreeAddressesInSubnet", "VcpuLimitExceeded"];
                let code = Some(codes[rng.usize(..codes.len())]);
                vec![(0, Step::Refuse { capacity_type, code }), (later, Step::Refuse { capacity_type, code: None })]
            }
            _ => {
                let state = [ImdsState::Refuses, ImdsState::Hangs][rng.usize(..2)];
                vec![(0, Step::Imds { of: of.clone(), state }), (later, Step::Imds { of, state: ImdsState::Well })]
            }
        }
    }
}
