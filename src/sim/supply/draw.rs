//! Worlds drawn from a seed.

use super::scenario::{Faults, State, Step, Supply, a_cluster, a_pool};
use crate::api::node_pool::NodePoolSpec;
use crate::domain::offering::CapacityType;

const MINUTE: u64 = 60_000;

/// How long a drawn world goes on after its last step: the longest belief must have ended (33 min), and an instance that
/// never became a node after it (15 min).
const AFTER: u64 = 65 * MINUTE;

impl Supply {
    /// The world of a seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5091_7ee9);
        let nodes = rng.usize(1..8);
        let mut supply = a_cluster(nodes);
        supply.seed = seed;
        supply.types = rng.usize(1..6);
        supply.zones = rng.usize(1..4);
        supply.boot_ms = rng.u64(20_000..120_000);
        supply.spot = [None, Some(0), Some(2)][rng.usize(..3)];
        if rng.bool() {
            supply.faults = faults(&mut rng);
        }
        let mut of_memory = fastrand::Rng::with_seed(seed ^ 0x3e30_4717);
        supply.faults.memory_odd_one_in = (of_memory.u8(..4) == 0).then_some(2);
        supply.faults.memory_fails = of_memory.u8(..10) == 0;
        if of_memory.u8(..8) == 0 {
            supply.clocks_off_ms = [0, of_memory.i64(-10 * MINUTE as i64..10 * MINUTE as i64)];
        }
        if rng.u8(..6) == 0 {
            supply.bucket = (3, 0.5);
        }
        if rng.u8(..8) == 0 {
            supply.settings.spot_patience = std::time::Duration::from_secs(rng.u64(10..200));
        }
        if rng.u8(..3) == 0 {
            supply = supply.of("general", pool(&mut rng));
            if rng.bool() {
                supply = supply.beside("other", pool(&mut rng));
            }
        }
        if rng.u8(..3) > 0 {
            // Returns within the time that a world has.
            let minutes = |n: u64| std::time::Duration::from_secs(n * 60);
            supply.settings.returns.after = minutes(rng.u64(1..10));
            supply.settings.returns.min_stay = minutes(rng.u64(0..10));
            supply.settings.returns.surge = rng.u64(0..3);
        }
        supply.nodes_stay = rng.u8(..3) == 0;
        supply.volumes = rng.usize(..3);
        let mut at = 2_000;
        for _ in 0..rng.usize(1..9) {
            at += [rng.u64(..2_000), rng.u64(..20_000), rng.u64(..5 * MINUTE)][rng.usize(..3)];
            for (later, step) in steps(&mut rng, nodes) {
                supply.script.push((at + later, step));
            }
        }
        supply.draw_templates(seed, at);
        supply.draw_reservations(seed, at);
        supply.script.sort_by_key(|(at, _)| *at);
        let last = supply.script.last().map_or(at, |(at, _)| *at);
        if seed % 5 == 3 {
            supply.script.extend(witnessed(seed, nodes, last));
            supply.script.sort_by_key(|(at, _)| *at);
        }
        // In the end everything is well, so that everybody must be served.
        for step in [
            Step::Api(State::Well),
            Step::Ec2(State::Well),
            Step::Join(true),
            Step::Block(false),
            Step::Left { capacity: CapacityType::OnDemand, zone: None, left: None },
            Step::Refuse { capacity: CapacityType::Spot, code: None },
            Step::Refuse { capacity: CapacityType::OnDemand, code: None },
        ] {
            supply.script.push((last + 1_000, step));
        }
        supply.ends_ms = last + 1_000 + AFTER;
        supply
    }
}

/// What the queue alone tells, true or not, and what EC2 takes unheard. By numbers of its own, so that the other worlds of
/// seeds are what they were.
fn witnessed(seed: u64, nodes: usize, last: u64) -> Vec<(u64, Step)> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x7412_d317);
    let mut steps = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let node = rng.usize(..nodes);
        let step = match rng.u8(..6) {
            0 | 1 => Step::QueueSays { node, so: true },
            2 => Step::QueueSays { node, so: false },
            3 => Step::Shut { node },
            _ => Step::TakeUnheard { node },
        };
        steps.push((rng.u64(1_000..last.max(1_001)), step));
    }
    steps
}

impl Supply {
    /// Capacity that is reserved, asked for first, and used by others as well.
    fn draw_reservations(&mut self, seed: u64, last: u64) {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x2e5e_27ed);
        if rng.u8(..5) > 0 {
            return;
        }
        self.reserved = rng.u32(1..5);
        let order = vec![CapacityType::Reserved, CapacityType::Spot, CapacityType::OnDemand];
        self.settings.order.clone_from(&order);
        let pools = self.script.iter_mut().filter_map(|(_, step)| match step {
            Step::Pool(_, pool) => Some(&mut **pool),
            _ => None,
        });
        for pool in self.pools.values_mut().chain(pools).filter(|_| rng.u8(..4) > 0) {
            pool.fallback.get_or_insert_default().order = Some(order.clone());
        }
        for _ in 0..rng.usize(..3) {
            let left = Some(rng.u32(..3));
            let step = Step::Left { capacity: CapacityType::Reserved, zone: None, left };
            self.script.push((rng.u64(..last.max(5 * MINUTE)), step));
        }
    }

    /// Nodes without a launch template, a class that moves, and somebody who deletes what is ours.
    fn draw_templates(&mut self, seed: u64, last: u64) {
        // Of its own: what the worlds have else is as it was before there was this.
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7e3b_1a7e);
        self.plain_of_four = [0, 0, 1, 4][rng.usize(..4)];
        self.plain_kinds = rng.usize(1..4);
        self.inline_class = rng.bool();
        self.settings.template_grace = std::time::Duration::from_secs(rng.u64(2..15) * 60);
        for _ in 0..rng.usize(..3) {
            let step = if rng.u8(..3) == 0 { Step::DeleteTemplates } else { Step::ClassMoves };
            self.script.push((rng.u64(..last.max(5 * MINUTE)), step));
        }
    }
}

/// A pool with some limit, floor or cap, or with none.
fn pool(rng: &mut fastrand::Rng) -> NodePoolSpec {
    let mut pool = a_pool();
    match rng.u8(..6) {
        0 => pool = pool.nodes_max(rng.i64(0..6)),
        1 => pool = pool.vcpus_max(rng.i64(0..60)),
        2 => pool = pool.floor(["1", "2", "50%"][rng.usize(..3)]),
        3 => pool = pool.cost_max(["0.3", "0.65", "1.3"][rng.usize(..3)]),
        4 => pool = pool.nodes_max(rng.i64(1..8)).floor("1").cost_max("0.65"),
        _ => {}
    }
    pool.weight = Some(rng.i64(0..3));
    pool
}

fn faults(rng: &mut fastrand::Rng) -> Faults {
    let one_in = |rng: &mut fastrand::Rng| rng.bool().then(|| rng.u32(3..30));
    Faults {
        api_lost_one_in: one_in(rng),
        api_refused_one_in: one_in(rng),
        ec2_lost_one_in: one_in(rng),
        ec2_late_one_in: one_in(rng),
        ec2_error_one_in: one_in(rng),
        shown_after_ms: [0, 2_000, 20_000][rng.usize(..3)],
        never_joins_one_in: (rng.u8(..4) == 0).then(|| rng.u32(4..20)),
        names_one_one_in: rng.bool().then_some(2),
        ..Faults::default()
    }
}

/// One thing, and perhaps its end.
fn steps(rng: &mut fastrand::Rng, nodes: usize) -> Vec<(u64, Step)> {
    let node = rng.usize(..nodes);
    let down_ms = [500, 5_000, 40_000][rng.usize(..3)];
    let later = [rng.u64(1_000..30_000), rng.u64(MINUTE..20 * MINUTE)][rng.usize(..2)];
    let capacity = [CapacityType::Spot, CapacityType::OnDemand][rng.usize(..2)];
    match rng.u8(..19) {
        17 => vec![(0, Step::Pool("general", Box::new(pool(rng))))],
        18 => vec![(0, Step::Class(Err("not now"))), (later, Step::Class(Ok(())))],
        0..4 => vec![(0, Step::Doom { node })],
        4 => vec![(0, Step::DoomMany { from: 0, count: nodes })],
        5 => vec![(0, Step::Doom { node }), (rng.u64(..3_000), Step::Withdraw { node })],
        6 => vec![(rng.u64(..2_000), Step::KillLeader { down_ms })],
        7 => vec![(0, Step::Kill { replica: rng.usize(..2), down_ms })],
        8 => {
            let zone = rng.bool().then(|| rng.usize(..3));
            vec![(0, Step::Left { capacity, zone, left: Some(0) }), (later, Step::Left { capacity, zone, left: None })]
        }
        9 => {
            let states = [State::Away, State::Throttles];
            vec![(0, Step::Ec2(states[rng.usize(..2)])), (later.min(4 * MINUTE), Step::Ec2(State::Well))]
        }
        10 => vec![(0, Step::Api(State::Away)), (later.min(4 * MINUTE), Step::Api(State::Well))],
        11 => {
            let codes = [
                "MaxSpotInstanceCountExceeded",
                "InsufficientFreeAddressesInSubnet",
                "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
                "InvalidLaunchTemplateId.NotFound",
            ];
            let code = Some(codes[rng.usize(..codes.len())]);
            vec![(0, Step::Refuse { capacity, code }), (later, Step::Refuse { capacity, code: None })]
        }
        12 => vec![(rng.u64(..10 * MINUTE), Step::DeleteClaim)],
        15 => vec![
            (0, Step::InGroup { node, group: 0 }),
            (10, Step::Doom { node }),
            (later, Step::GroupLaunches { group: 0 }),
        ],
        16 => vec![(0, Step::GroupLaunches { group: rng.usize(..2) })],
        13 => vec![(0, Step::Block(true)), (later, Step::Block(false))],
        _ => vec![(rng.u64(..3 * MINUTE), Step::DoomStandIn)],
    }
}
