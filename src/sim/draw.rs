//! Worlds drawn from a seed.

use super::scenario::{
    ApiState, Faults, ImdsState, Message, NodeSpec, PodSpec, ProvisionerSpec, Scenario, Step, a_cluster, a_node, a_pod,
};
use crate::domain::notice::{Action, InstanceState, ScheduleCode, Subject};
use crate::domain::pod::OnInterruption;
use crate::domain::policy::{DRAIN, MARGIN, REBALANCE};
use crate::interruption::{DrainBy, DrainStart, Rebalance};

/// What is drawn from is independent of what the world draws while it runs.
const SALT: u64 = 0x5eed_0f5c_e4a7_1005;

/// And so is what EC2 is seen to say.
const WITNESS_SALT: u64 = 0x7412_d317_ae55_0ec2;

const GRACES: [u64; 8] = [0, 1, 5, 30, 30, 30, 110, 600];

struct Draw {
    rng: fastrand::Rng,
    scenario: Scenario,
    /// When the latest deadline is.
    last_deadline: u64,
}

impl Scenario {
    /// The world of a seed: always the same one.
    pub fn from_seed(seed: u64) -> Self {
        let mut draw = Draw { rng: fastrand::Rng::with_seed(seed ^ SALT), scenario: a_cluster(), last_deadline: 0 };
        draw.scenario.seed = seed;
        draw.policy();
        draw.budgets();
        let nodes = if draw.rng.u32(0..3) == 0 { draw.rng.usize(2..4) } else { 1 };
        for index in 0..nodes {
            let node = draw.node(index);
            draw.scenario.nodes.push(node);
        }
        for index in 0..nodes {
            let name = draw.scenario.nodes[index].name.clone();
            draw.announcements(&name);
            draw.trouble(&name);
        }
        draw.faults();
        draw.api_trouble();
        draw.capacity();
        draw.silence();
        draw.third_witness();
        draw.scenario.ends_ms = draw.last_deadline + 45_000;
        draw.scenario
    }
}

impl Draw {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(0..n) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())].clone()
    }

    fn policy(&mut self) {
        let rebalance = self.pick(&[Rebalance::Ignore, Rebalance::Avoid, Rebalance::Drain]);
        let lead = std::time::Duration::from_secs(self.rng.u64(20..120));
        let cordon_only = self.one_in(25);
        let policy = &mut self.scenario.policy;
        policy.rebalance = rebalance;
        policy.scheduled_lead = lead;
        policy.cordon_only = cordon_only;
    }

    fn budgets(&mut self) {
        for name in ["web", "db", "never"] {
            let replaced = self.rng.bool().then(|| self.rng.u64(500..40_000));
            let (max, replaced) = match name {
                "never" => (0, None),
                _ => (self.rng.u32(1..3), replaced),
            };
            self.scenario = self.scenario.clone().budget(name, max, replaced);
        }
    }

    fn node(&mut self, index: usize) -> NodeSpec {
        let mut node = a_node(&format!("node-{}", ["a", "b", "c"][index]));
        node.cordoned = self.one_in(8);
        node.excluded = self.one_in(8);
        if self.one_in(4) {
            node = node.tainted_by_somebody("gpu");
        }
        let many = self.one_in(60);
        let pods = if many { 110 } else { self.rng.usize(0..9) };
        for n in 0..pods {
            let pod = self.pod(&format!("ns/{}-{n}", node.name));
            node.pods.push(pod);
        }
        node
    }

    fn pod(&mut self, path: &str) -> PodSpec {
        let grace = self.pick(&GRACES);
        let stops = match self.rng.u32(0..4) {
            0 => self.rng.u64(0..500),
            1 | 2 => self.rng.u64(500..20_000),
            _ => self.rng.u64(10_000..700_000),
        };
        let mut pod = a_pod(path).grace(grace).stops_in(stops);
        pod.policy = self.pick(&[
            OnInterruption::Evict,
            OnInterruption::Evict,
            OnInterruption::Evict,
            OnInterruption::Evict,
            OnInterruption::Wait,
            OnInterruption::Stay,
        ]);
        match self.rng.u32(0..14) {
            0 => pod.of_a_daemon_set(),
            1 => pod.mirror(),
            2 => pod.finished(),
            3 => pod.terminating(),
            4 => {
                let millis = self.rng.u64(500..30_000);
                pod.finalizer(millis)
            }
            5 => pod.of_a_stateful_set().budget("db"),
            6 | 7 => pod.budget("web"),
            8 => pod.budget("never"),
            9 => pod.budget("web").budget("db"),
            _ => pod,
        }
    }

    fn announcements(&mut self, node: &str) {
        let at = self.rng.u64(500..15_000);
        match self.rng.u32(0..12) {
            0..=3 => self.spot(node, at),
            4 => self.by_queue_alone(node, at),
            5 => self.forged(node, at),
            6 => self.rebalance(node, at),
            7 | 8 => self.maintenance(node, at),
            9 => self.request(node, at),
            10 => self.other_kinds(node, at),
            _ => self.restarted_instance(node, at),
        }
    }

    fn push(&mut self, at: u64, step: Step) {
        self.scenario.script.push((at, step));
    }

    /// A spot interruption by IMDS, and mostly by the queue as well: sooner, later, twice, or after the end.
    fn spot(&mut self, node: &str, at: u64) {
        let left = self.pick(&[120_000, 118_000, 110_000, 60_000, 30_000, 16_000, 5_000, 1_000]);
        let deadline = at + left;
        let slides = self.one_in(5);
        let action = self.pick(&[Action::Terminate, Action::Terminate, Action::Stop, Action::Hibernate]);
        let name = node.to_owned();
        self.push(at, Step::ImdsSpot { node: name.clone(), action, deadline_ms: deadline, slides });
        let copies = self.pick(&[0, 1, 1, 2, 5]);
        for _ in 0..copies {
            let sent = at.saturating_sub(2_000) + self.rng.u64(0..left + 10_000);
            let event_id = self.pick(&["event-1", "event-1", "event-2"]);
            let drift = self.rng.u64(0..8_000);
            self.message(sent, node, Subject::SpotInterruption(action), event_id, Some(deadline + drift));
        }
        if self.one_in(5) {
            let earlier = at.saturating_sub(self.rng.u64(0..10_000));
            self.push(earlier, Step::ImdsRebalance { node: name.clone() });
        }
        self.push(deadline, Step::Die { node: name });
        self.last_deadline = self.last_deadline.max(deadline);
    }

    /// The queue alone says it, and IMDS agrees late, or cannot be asked.
    fn by_queue_alone(&mut self, node: &str, at: u64) {
        let deadline = at + self.rng.u64(20_000..120_000);
        let (name, action) = (node.to_owned(), Action::Terminate);
        self.message(at, node, Subject::SpotInterruption(action), "event-1", Some(deadline));
        if self.rng.bool() {
            let agrees = at + self.pick(&[0, 250, 1_000, 5_000, 15_000]);
            let step = Step::ImdsSpot { node: name.clone(), action, deadline_ms: deadline, slides: false };
            self.push(agrees, step);
        } else {
            let state = self.pick(&[ImdsState::Refuses, ImdsState::Hangs]);
            let from = at.saturating_sub(self.rng.u64(0..3_000));
            self.push(from, Step::Imds { node: name.clone(), state });
        }
        self.push(deadline, Step::Die { node: name });
        self.last_deadline = self.last_deadline.max(deadline);
    }

    /// The queue says what is not so; perhaps a real notice follows.
    fn forged(&mut self, node: &str, at: u64) {
        let deadline = at + self.rng.u64(2_000..60_000);
        let subject = Subject::SpotInterruption(Action::Terminate);
        self.message(at, node, subject.clone(), "forged", Some(deadline));
        if self.rng.bool() {
            let again = at + self.rng.u64(0..5_000);
            self.message(again, node, subject, "forged", Some(deadline));
        }
        self.last_deadline = self.last_deadline.max(deadline);
        if self.one_in(3) {
            let later = deadline + self.rng.u64(0..20_000);
            self.spot(node, later);
        }
    }

    fn rebalance(&mut self, node: &str, at: u64) {
        self.push(at, Step::ImdsRebalance { node: node.to_owned() });
        if self.rng.bool() {
            self.message(at + 500, node, Subject::RebalanceRecommendation, "rebalance-1", None);
        }
        if self.rng.bool() {
            let later = at + self.rng.u64(1_000..40_000);
            self.spot(node, later);
        }
    }

    /// A scheduled event: kept, moved, withdrawn, or followed by the reboot.
    fn maintenance(&mut self, node: &str, at: u64) {
        let not_before_ms = at + self.rng.u64(30_000..400_000);
        let code = self.pick(&["system-reboot", "instance-reboot", "instance-stop", "system-maintenance"]);
        let said = |not_before_ms, over| Step::ImdsScheduled {
            node: node.to_owned(),
            event_id: "maintenance-1".into(),
            code: code.into(),
            not_before_ms,
            over,
        };
        self.push(at, said(not_before_ms, false));
        if self.rng.bool() {
            let subject = Subject::ScheduledChange(ScheduleCode(code.into()));
            self.message(at + 1_000, node, subject, "arn:health-1", Some(not_before_ms));
        }
        let later = at + self.rng.u64(2_000..not_before_ms - at);
        self.last_deadline = self.last_deadline.max(not_before_ms);
        match self.rng.u32(0..4) {
            0 => self.push(later, said(not_before_ms, true)),
            1 => self.push(later, Step::ImdsUnscheduled { node: node.to_owned(), event_id: "maintenance-1".into() }),
            2 => {
                let moved = not_before_ms + self.rng.u64(20_000..200_000);
                self.push(later, said(moved, false));
                if moved.is_multiple_of(2) {
                    // AWS Health announces it anew under the same id, perhaps before its first word was read.
                    let subject = Subject::ScheduledChange(ScheduleCode(code.into()));
                    self.message(later.saturating_sub(moved % 5_000), node, subject, "arn:health-1", Some(moved));
                }
                self.last_deadline = self.last_deadline.max(moved);
            }
            _ => {
                let down_ms = self.rng.u64(5_000..40_000);
                self.push(not_before_ms + 1_000, Step::Reboot { node: node.to_owned(), down_ms });
            }
        }
    }

    fn request(&mut self, node: &str, at: u64) {
        let node = node.to_owned();
        let deadline_ms = self.rng.bool().then(|| at + self.rng.u64(20_000..120_000));
        let ours = self.rng.u32(0..3) == 0;
        let request = Step::Request { node: node.clone(), deadline_ms };
        self.push(at, if ours { Step::Retire { node: node.clone() } } else { request });
        let deadline_ms = deadline_ms.filter(|_| !ours);
        self.last_deadline = self.last_deadline.max(deadline_ms.unwrap_or(at + 60_000));
        match self.rng.u32(0..4) {
            0 | 1 => {
                let later = at + self.rng.u64(100..60_000);
                self.push(later, Step::Withdraw { node: node.clone() });
                // And wanted again, by the same words.
                if self.rng.bool() {
                    let again = if ours { Step::Retire { node } } else { Step::Request { node, deadline_ms: None } };
                    let at = later + self.rng.u64(100..30_000);
                    self.push(at, again);
                }
            }
            2 => {
                let later = at + self.rng.u64(100..60_000);
                self.push(later, Step::DeleteRecord { node });
            }
            _ => {}
        }
    }

    fn other_kinds(&mut self, node: &str, at: u64) {
        let subject = self.pick(&[
            Subject::StateChange(InstanceState::Stopping),
            Subject::StateChange(InstanceState::ShuttingDown),
            Subject::CapacityReservationInterruption,
            Subject::CapacityBlockEnding,
            Subject::AutoScalingTermination,
        ]);
        let terminates = subject == Subject::AutoScalingTermination && self.rng.bool();
        self.message(at, node, subject, "event-1", None);
        if terminates {
            let state = "Terminated".to_owned();
            self.push(at + 700, Step::ImdsLifecycle { node: node.to_owned(), state });
        }
        self.last_deadline = self.last_deadline.max(at + 40_000);
    }

    /// Stopped and started again under the same id; then perhaps interrupted again.
    fn restarted_instance(&mut self, node: &str, at: u64) {
        let deadline_ms = at + self.pick(&[120_000, 40_000, 16_000]);
        let action = self.pick(&[Action::Stop, Action::Hibernate]);
        let name = node.to_owned();
        self.push(at, Step::ImdsSpot { node: name.clone(), action, deadline_ms, slides: false });
        let down_ms = self.rng.u64(3_000..60_000);
        self.push(deadline_ms, Step::Reboot { node: name, down_ms });
        let back = deadline_ms + down_ms;
        self.last_deadline = self.last_deadline.max(back + 30_000);
        if self.rng.bool() {
            let again = back + self.rng.u64(5_000..30_000);
            self.spot(node, again);
        }
    }

    fn message(&mut self, at: u64, node: &str, subject: Subject, event_id: &str, deadline_ms: Option<u64>) {
        let message =
            Message { about: vec![(node.to_owned(), subject)], event_id: format!("{event_id}-{node}"), deadline_ms };
        self.push(at, Step::Queue(message));
    }

    /// What happens to a node and its agent beside.
    fn trouble(&mut self, node: &str) {
        let end = self.last_deadline + 10_000;
        let name = || node.to_owned();
        let kills = self.pick(&[0, 0, 0, 1, 1, 2, 5]);
        for _ in 0..kills {
            let (at, down_ms) = (self.rng.u64(0..end), self.rng.u64(200..8_000));
            self.push(at, Step::Kill { node: name(), down_ms });
        }
        if self.one_in(6) {
            let (at, by) = (self.rng.u64(0..end), self.pick(&[-3_600, 3_600, -7, 7]));
            self.push(at, Step::Clock { node: name(), by_secs: by });
        }
        if self.one_in(4) {
            let (at, back) = (self.rng.u64(0..end), self.rng.u64(500..60_000));
            let state = self.pick(&[ImdsState::Refuses, ImdsState::Hangs]);
            self.push(at, Step::Imds { node: name(), state });
            self.push(at + back, Step::Imds { node: name(), state: ImdsState::Well });
        }
        for n in 0..self.pick(&[0u32, 0, 1, 3]) {
            let at = self.rng.u64(0..end);
            let step = match self.rng.u32(0..4) {
                0 => Step::Taint { node: name(), key: format!("theirs-{n}") },
                1 => Step::Touch { node: name() },
                2 => Step::Relist { node: name() },
                _ => {
                    let pod = self.pod(&format!("late/{node}-{n}"));
                    Step::NewPod { node: name(), pod: PodSpec { terminating: false, ..pod } }
                }
            };
            self.push(at, step);
        }
        if self.one_in(30) {
            let at = self.rng.u64(0..end);
            self.push(at, Step::DeleteRecord { node: name() });
        }
        if self.scenario.seed % 41 == 7 {
            self.push(end * (self.scenario.seed % 10) / 10, Step::Recreate { node: name() });
        }
    }

    fn faults(&mut self) {
        if self.rng.bool() {
            return;
        }
        let mut often = |n: u32| (self.rng.u32(0..3) == 0).then(|| self.rng.u32(3..n));
        let (lost, refused, throttled, imds) = (often(60), often(40), often(40), often(30));
        self.scenario.faults = Faults {
            lost_answer_one_in: lost,
            refused_one_in: refused,
            throttled_one_in: throttled,
            imds_one_in: imds,
            slow_ms: self.pick(&[0, 0, 200, 1_500]),
            watch_lag_ms: self.pick(&[0, 0, 100, 2_000]),
        };
    }

    /// Whether evictions wait for capacity, and what becomes of it.
    fn capacity(&mut self) {
        if self.one_in(3) {
            self.scenario.policy.drain = DrainStart::CapacityFirst;
        }
        if self.scenario.policy.rebalance == Rebalance::Drain && self.one_in(2) {
            self.scenario.policy.rebalance = Rebalance::Replace;
        }
        let answers_in_ms = self.pick(&[20, 200, 1_500, 2_500, 10_000]);
        let ready_in_ms = self.pick(&[None, Some(0), Some(5_000), Some(40_000), Some(90_000)]);
        self.scenario.provisioner = match self.rng.u32(0..5) {
            0 => ProvisionerSpec::Absent,
            1 => ProvisionerSpec::Declines { answers_in_ms },
            _ => ProvisionerSpec::Provides { answers_in_ms, ready_in_ms },
        };
        for node in &mut self.scenario.nodes {
            let said = match self.rng.u32(0..12) {
                0 => (DRAIN, "CapacityFirst"),
                1 => (DRAIN, "Immediate"),
                2 => (REBALANCE, "Replace"),
                3 => (MARGIN, "9s"),
                4 => (MARGIN, "soon"),
                _ => continue,
            };
            node.annotations.push((said.0.to_owned(), said.1.to_owned()));
        }
    }

    /// Agents that are away for long or that nobody hears, with a provisioner that takes over.
    fn silence(&mut self) {
        if !self.one_in(3) {
            return;
        }
        self.scenario.takes_over = true;
        // Who is let go on and who takes over hear of each other within the two seconds that each waits.
        let faults = &mut self.scenario.faults;
        (faults.watch_lag_ms, faults.slow_ms) = (faults.watch_lag_ms.min(500), faults.slow_ms.min(200));
        if self.one_in(6) {
            self.scenario.policy.drain_by = DrainBy::Provisioner;
        }
        let end = self.last_deadline + 10_000;
        let names: Vec<String> = self.scenario.nodes.iter().map(|node| node.name.clone()).collect();
        for node in names {
            let at = self.rng.u64(0..end);
            match self.rng.u32(0..4) {
                0 => {
                    let down_ms = self.pick(&[12_000, 15_000, 40_000, 100_000_000]);
                    self.push(at, Step::Kill { node, down_ms });
                }
                1 => {
                    let millis = self.rng.u64(1_000..60_000);
                    self.push(at, Step::Mute { node, millis });
                }
                _ => {}
            }
        }
        for _ in 0..self.pick(&[0, 0, 1, 2]) {
            let (at, down_ms) = (self.rng.u64(0..end), self.pick(&[500, 12_000, 25_000, 100_000_000]));
            self.push(at, Step::KillProvisioner { down_ms });
        }
    }

    /// The provisioner sees in EC2 some of what the queue says, true or not as IMDS has it. By numbers of its own, so that
    /// the worlds of seeds are otherwise what they were.
    fn third_witness(&mut self) {
        let mut rng = fastrand::Rng::with_seed(self.scenario.seed ^ WITNESS_SALT);
        let mut seen = Vec::new();
        for (at, step) in &self.scenario.script {
            let Step::Queue(message) = step else { continue };
            let elsewhere =
                matches!(message.about[0].1, Subject::ScheduledChange(_) | Subject::RebalanceRecommendation);
            if elsewhere || rng.u32(0..3) != 0 {
                continue;
            }
            let (node, subject) = message.about[0].clone();
            let (event_id, deadline_ms) = (message.event_id.clone(), message.deadline_ms);
            // Mostly after the queue was read, and sometimes before.
            let at = at.saturating_sub(500) + rng.u64(0..8_000);
            seen.push((at, Step::Ec2Confirms { node, subject, event_id, deadline_ms }));
        }
        self.scenario.script.extend(seen);
    }

    fn api_trouble(&mut self) {
        if !self.one_in(4) {
            return;
        }
        let at = self.rng.u64(0..self.last_deadline + 5_000);
        let lasts = self.rng.u64(500..40_000);
        let state = self.pick(&[ApiState::Away, ApiState::Away, ApiState::Slow, ApiState::Flooded]);
        self.push(at, Step::Api(state));
        self.push(at + lasts, Step::Api(ApiState::Well));
    }
}
