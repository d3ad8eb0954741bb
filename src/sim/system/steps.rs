//! What is done to the world, and how it reaches its two halves.

use super::outcome::NodeState;
use super::scenario::{ApiState, State, Step, Which};
use super::world::{Event, System, is_spot};
use crate::api::interruption::{NoticeEntry, Phase, ReplacementStatus};
use crate::domain::notice::{Action, InstanceId, Kind, Source, Subject};
use crate::provision::{Doomed, witness};
use crate::sim::scenario::Message;
use crate::sim::world::SpotSaid;

/// Within how long of a pool's running dry its instances are taken.
const TAKEN_WITHIN_MS: u64 = 60_000;

/// How long EventBridge takes.
const EVENT_BRIDGE_MS: std::ops::Range<u64> = 300..3_000;

impl System {
    pub fn do_step(&mut self, step: Step) {
        match step {
            Step::Interrupt { of, notice_ms } => {
                let instances: Vec<usize> = match of {
                    // One that has not become a node yet may be taken, too.
                    Which::StandIn => self.first_stand_in().into_iter().collect(),
                    of => self.nodes_of(&of).into_iter().map(|node| self.nodes[node].instance).collect(),
                };
                instances.into_iter().for_each(|instance| self.interrupt(instance, notice_ms));
            }
            Step::Rebalance { of } => {
                for node in self.nodes_of(&of) {
                    let now = crate::sim::world::World::announced(self.now);
                    self.agents.nodes[node].imds.rebalance.get_or_insert(now);
                    self.agents.rouse(node);
                    self.send(node, Subject::RebalanceRecommendation, None);
                }
            }
            Step::Pools { of, left, takes_percent } => self.fill_pools(&of, left, takes_percent),
            Step::Refuse { capacity_type, code: Some(code) } => {
                self.supply.cloud.refuses.insert(capacity_type, code);
            }
            Step::Refuse { capacity_type, code: None } => drop(self.supply.cloud.refuses.remove(&capacity_type)),
            Step::Join(joins) => self.supply.cloud.joins = joins,
            Step::Api(state) => {
                self.agents.set_api(state);
                self.supply.api = if state == ApiState::Away { State::Away } else { State::Well };
                self.supply.weather();
            }
            Step::Ec2(state) => {
                self.supply.cloud.state = state;
                self.supply.weather();
            }
            Step::Imds { of, state } => {
                for node in self.nodes_of(&of) {
                    self.agents.nodes[node].imds.state = state;
                    self.agents.rouse(node);
                }
            }
            Step::KillAgents { of, down_ms } => {
                for node in self.nodes_of(&of) {
                    self.agents.kill_agent(node);
                    self.schedule(self.now + down_ms, Event::Agent { node });
                }
            }
            Step::NoFaults => {
                self.agents.scenario.faults = Default::default();
                self.supply.supply.faults = Default::default();
            }
            Step::KillProvisioner { replica, down_ms } => self.supply.kill(replica, down_ms),
            Step::KillLeader { down_ms } => {
                let leader = self.supply.lease.filter(|(_, until)| *until > self.now).map(|(holder, _)| holder);
                leader.into_iter().for_each(|replica| self.supply.kill(replica, down_ms));
            }
        }
    }

    /// The nodes that are meant, among those that live.
    fn nodes_of(&self, of: &Which) -> Vec<usize> {
        let lives = |node: &usize| !self.nodes[*node].gone;
        let all = (0..self.nodes.len()).filter(lives);
        match of {
            Which::Node(node) => {
                Some(*node).filter(|node| *node < self.nodes.len() && lives(node)).into_iter().collect()
            }
            Which::Nodes { from, count } => {
                all.filter(|node| (*from..from.saturating_add(*count)).contains(node)).collect()
            }
            Which::Zone(zone) => all.filter(|node| self.nodes[*node].zone == *zone).collect(),
            Which::Spot => {
                let spot = |node: &usize| is_spot(&self.supply.cloud.instances[self.nodes[*node].instance].offering);
                all.filter(spot).collect()
            }
            Which::All => all.collect(),
            Which::StandIn => all.filter(|node| self.nodes[*node].stands_in).take(1).collect(),
            Which::Provisioners => self.homes().into_iter().map(|(_, node)| node).filter(|node| lives(node)).collect(),
        }
    }

    fn first_stand_in(&self) -> Option<usize> {
        let instances = self.supply.cloud.instances.iter().enumerate();
        let mut stand_ins = instances.filter(|(_, one)| one.token.is_some() && one.died_ms.is_none());
        stand_ins.find(|(index, _)| !self.taken.contains_key(index)).map(|(index, _)| index)
    }

    /// AWS announces that it takes an instance, and takes it.
    pub fn interrupt(&mut self, instance: usize, notice_ms: u64) {
        let one = &self.supply.cloud.instances[instance];
        if one.died_ms.is_some() || !is_spot(&one.offering) || self.taken.contains_key(&instance) {
            return;
        }
        let deadline = self.now + notice_ms;
        self.taken.insert(instance, deadline);
        self.supply.taken.insert(instance);
        self.supply.cloud.instances[instance].end.marked = true;
        self.supply.schedule(deadline, crate::sim::supply::world::Event::Dies { instance });
        if let Some(node) = self.node_of(instance) {
            self.announce(node, deadline);
        }
    }

    pub fn announce(&mut self, node: usize, deadline_ms: u64) {
        let action = Action::Terminate;
        self.agents.nodes[node].imds.spot = Some(SpotSaid { action, deadline_ms, slides: false });
        self.agents.rouse(node);
        self.nodes[node].announced = Some((self.now, deadline_ms));
        self.state(node, NodeState::Announced);
        self.send(node, Subject::SpotInterruption(action), Some(deadline_ms));
    }

    /// EventBridge puts it into the queue.
    fn send(&mut self, node: usize, subject: Subject, deadline_ms: Option<u64>) {
        if self.scenario.queue {
            let name = self.nodes[node].name.clone();
            let event_id = format!("event-{}-{}", self.now, name);
            let after = self.rng.u64(EVENT_BRIDGE_MS);
            self.agents.send_in(Message { about: vec![(name, subject)], event_id, deadline_ms }, after);
        }
    }

    fn fill_pools(&mut self, of: &super::scenario::Pools, left: Option<u32>, takes_percent: u8) {
        let pools: Vec<_> = self.supply.cloud.pools.keys().filter(|pool| of.has(pool)).cloned().collect();
        for pool in &pools {
            self.supply.cloud.pools.insert(pool.clone(), left);
            self.pool_changed(pool);
        }
        if left != Some(0) || takes_percent == 0 {
            return;
        }
        let in_pools = |one: &crate::sim::supply::cloud::InstanceSim| {
            one.died_ms.is_none() && is_spot(&one.offering) && of.has(&one.offering)
        };
        let instances = self.supply.cloud.instances.iter().enumerate();
        let in_pools: Vec<usize> = instances.filter(|(_, one)| in_pools(one)).map(|(index, _)| index).collect();
        for instance in in_pools {
            if self.rng.u8(0..100) < takes_percent {
                let at = self.now + self.rng.u64(0..TAKEN_WITHIN_MS);
                self.schedule(at, Event::Interrupt { instance, notice_ms: super::scenario::TWO_MINUTES });
            }
        }
    }

    /// An Interruption has changed: the provisioners see it, as far as it concerns them.
    pub fn record_changed(&mut self, node: usize) {
        let sim = &self.agents.nodes[node];
        let Some(record) = &sim.record else { return };
        let status = &record.status;
        let phase = status.phase.unwrap_or(Phase::Noticed);
        let seen = Doomed {
            instance: sim.instance.clone(),
            node: sim.name.clone(),
            episode: status.episode,
            phase,
            kind: status.kind,
            kept_in_zone: status.pods.kept_in_zone,
            policy: status.policy,
            notices: record.notices.clone(),
            settled: status.settled.clone(),
            replacement: Default::default(),
            record: Default::default(),
        };
        let doomed = phase >= Phase::Confirmed && !phase.ends_episode();
        self.supply.interruption(seen);
        self.state(node, NodeState::of(phase));
        let leaving: Vec<usize> = self.homes().into_iter().filter(|(_, home)| *home == node).map(|(r, _)| r).collect();
        for replica in leaving {
            if std::mem::replace(&mut self.supply.replicas[replica].leaves, doomed) != doomed && doomed {
                self.supply.release_lease(replica);
            }
        }
    }

    /// The provisioner asks for the drain of a node.
    pub fn drain_requested(&mut self, instance: &InstanceId, event_id: &str, action: Option<String>) {
        let Some(node) = self.agents.node_of(instance) else { return };
        // Nothing needs to stand in for what is to go.
        self.supply.unwanted.insert(instance.to_string());
        let entry = NoticeEntry {
            source: Source::Provisioner,
            kind: Kind::Requested,
            event_id: event_id.to_owned(),
            action,
            reporter: None,
            noticed_at: None,
            deadline: None,
        };
        self.agents.write_notice(node, entry);
    }

    /// The provisioner has seen in EC2 what a notice says.
    pub fn seen_in_ec2(&mut self, instance: &InstanceId, entry: NoticeEntry) {
        if let Some(node) = self.agents.node_of(instance) {
            self.agents.write_notice(node, entry);
        }
    }

    /// The provisioner writes down that an instance was taken, and nobody had heard of it.
    pub fn taken_unheard(&mut self, instance: &InstanceId, entry: NoticeEntry, because: &str) {
        let Some(node) = self.agents.node_of(instance) else { return };
        self.agents.write_notice(node, entry);
        let Some(record) = &self.agents.nodes[node].record else { return };
        let wall = crate::sim::world::World::announced(self.now);
        if let Some(next) = witness::taken(&record.status, &record.notices, because.to_owned(), wall) {
            self.agents.write_status(node, next);
        }
    }

    pub fn request_withdrawn(&mut self, instance: &InstanceId, event_id: &str) {
        let Some(node) = self.agents.node_of(instance) else { return };
        let Some(record) = &mut self.agents.nodes[node].record else { return };
        let ours = |entry: &NoticeEntry| entry.source == Source::Provisioner && entry.event_id == event_id;
        record.notices.retain(|entry| !ours(entry));
        self.agents.record_changed(node);
    }

    /// The provisioner has written what stands in for a node.
    pub fn replacement_written(&mut self, instance: &InstanceId) {
        let Some(doomed) = self.supply.doomed.get(instance) else { return };
        let said = doomed.replacement.clone();
        let Some(node) = self.agents.node_of(instance) else { return };
        let Some(record) = &mut self.agents.nodes[node].record else { return };
        record.status.replacement = Some(ReplacementStatus {
            claim: said.claim,
            capacity_type: said.capacity_type,
            ready: said.ready,
            none_comes: said.none_comes,
            episode: said.episode,
            because: said.because,
        });
        self.agents.record_changed(node);
    }

    /// An instance has ended: AWS took it, or a provisioner ended it.
    pub fn instance_died(&mut self, instance: usize) {
        let taken = self.taken.get(&instance).is_some_and(|at| *at <= self.now);
        let Some(node) = self.node_of(instance) else { return };
        if !taken && self.nodes[node].busy > 0 {
            let what = format!("it was ended with {} pods of workloads on it", self.nodes[node].busy);
            let name = self.nodes[node].name.clone();
            self.found(&name, "P-6", what);
        }
        let heard = self.supply.doomed.get(&self.agents.nodes[node].instance);
        if taken && heard.is_none_or(|doomed| doomed.phase < Phase::Confirmed) {
            self.unheard.insert(self.agents.nodes[node].instance.clone());
        }
        self.nodes[node].gone = true;
        self.nodes[node].ready = false;
        self.look_at(node);
        self.state(node, NodeState::Gone);
        self.agents.check_drained(node);
        self.agents.kill_agent(node);
        self.agents.instance_dies(node);
    }
}
