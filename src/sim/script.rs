//! What is done to a world, step by step.

use super::scenario::{ApiState, Step};
use super::world::{Event, ScheduledSaid, SpotSaid, World};
use crate::api::interruption::NoticeEntry;
use crate::domain::node::Taint;
use crate::domain::notice::{Kind, Source, Subject};
use crate::interruption::invariants::ledger::Foreign;
use crate::interruption::mark::INTERRUPTION;

impl World {
    pub fn step(&mut self, index: usize) {
        let Some((_, step)) = self.scenario.script.get(index).cloned() else {
            return;
        };
        match step {
            Step::Api(state) => return self.set_api(state),
            Step::Queue(message) => return self.send(message),
            Step::KillProvisioner { down_ms } => return self.kill_stand_ins(down_ms),
            _ => {}
        }
        let Some(node) = step.node().and_then(|name| self.node_named(name)) else {
            return;
        };
        self.tell(node, || format!("-- {step:?}"));
        let imds = &mut self.nodes[node].imds;
        match step {
            Step::ImdsSpot { action, deadline_ms, slides, .. } => {
                imds.spot = Some(SpotSaid { action, deadline_ms, slides });
            }
            Step::ImdsRebalance { .. } => imds.rebalance = Some(World::announced(self.now)),
            Step::ImdsScheduled { event_id, code, not_before_ms, over, .. } => {
                imds.scheduled.retain(|said| said.event_id != event_id);
                imds.scheduled.push(ScheduledSaid { event_id, code, not_before_ms, over });
            }
            Step::ImdsUnscheduled { event_id, .. } => {
                imds.scheduled.retain(|said| said.event_id != event_id);
            }
            Step::ImdsLifecycle { state, .. } => imds.lifecycle = Some(state),
            Step::Imds { state, .. } => imds.state = state,
            Step::Ec2Confirms { subject, event_id, deadline_ms, .. } => {
                self.ec2_confirms(node, &subject, event_id, deadline_ms)
            }
            Step::Request { deadline_ms, .. } => self.request(node, Source::Operator, "by-hand", deadline_ms),
            Step::Retire { .. } => self.request(node, Source::Provisioner, "surplus", None),
            Step::Withdraw { .. } => self.withdraw(node),
            Step::DeleteRecord { .. } => self.delete_record(node),
            Step::Kill { down_ms, .. } => {
                self.kill_agent(node);
                self.schedule(self.now + down_ms, Event::Start { node });
            }
            Step::Mute { millis, .. } => self.nodes[node].mute_until = self.now + millis,
            Step::Clock { by_secs, .. } => {
                self.nodes[node].skew_secs += by_secs;
                self.nodes[node].ledger.clock_was_off = true;
            }
            Step::Taint { key, .. } => self.taint(node, key),
            Step::Touch { .. } => self.node_changed(node),
            Step::NewPod { pod, .. } => {
                if self.nodes[node].alive {
                    self.add_pod(node, pod);
                }
            }
            Step::Relist { .. } => self.relist_pods(node),
            Step::Reboot { down_ms, .. } => self.reboot(node, down_ms),
            Step::Recreate { .. } => self.recreate_node(node),
            Step::Die { .. } => {
                self.check_drained(node);
                self.kill_agent(node);
                self.instance_dies(node);
            }
            Step::Api(_) | Step::Queue(_) | Step::KillProvisioner { .. } => {}
        }
        self.note_ability(node);
    }

    pub fn set_api(&mut self, state: ApiState) {
        let was = std::mem::replace(&mut self.api, state);
        self.api_since = self.now;
        if !self.nodes.is_empty() {
            self.tell(0, || format!("-- the API server is {state:?}"));
        }
        for node in 0..self.nodes.len() {
            self.note_ability(node);
        }
        if was == ApiState::Away && state != ApiState::Away {
            self.relist_all();
        }
    }

    fn request(&mut self, node: usize, source: Source, event_id: &str, deadline_ms: Option<u64>) {
        let entry = NoticeEntry {
            source,
            kind: Kind::Requested,
            event_id: event_id.into(),
            action: None,
            reporter: None,
            noticed_at: Some(World::wall(self.now)),
            deadline: deadline_ms.map(World::announced),
        };
        self.write_notice(node, entry);
    }

    fn ec2_confirms(&mut self, node: usize, subject: &Subject, event_id: String, deadline_ms: Option<u64>) {
        let entry = NoticeEntry {
            source: Source::Provisioner,
            kind: subject.kind(),
            event_id,
            action: subject.action(),
            reporter: None,
            noticed_at: Some(World::wall(self.now)),
            deadline: deadline_ms.map(World::announced),
        };
        self.write_notice(node, entry);
    }

    /// Who has asked for it takes his request back; what was seen in EC2 stays.
    fn withdraw(&mut self, node: usize) {
        if let Some(record) = &mut self.nodes[node].record {
            record.notices.retain(|entry| entry.kind != Kind::Requested);
            self.record_changed(node);
        }
    }

    fn delete_record(&mut self, node: usize) {
        // Another record begins another history.
        let violations = self.nodes[node].ledger.judge_statuses();
        self.violated(node, violations);
        self.nodes[node].ledger.statuses.clear();
        if self.nodes[node].record.take().is_some() {
            self.record_changed(node);
        }
    }

    fn taint(&mut self, node: usize, key: String) {
        let taint = Taint {
            key,
            value: Some("somebody".into()),
            effect: "NoExecute".into(),
            time_added: Some(World::announced(self.now).to_string()),
        };
        let sim = &mut self.nodes[node];
        sim.object.taints.push(taint.clone());
        sim.foreign.taints.push(taint);
        self.node_changed(node);
    }

    fn recreate_node(&mut self, node: usize) {
        let sim = &mut self.nodes[node];
        sim.foreign = Foreign::default();
        let object = &mut sim.object;
        object.uid.push_str("-again");
        object.unschedulable = false;
        object.taints.clear();
        object.labels.clear();
        // How it is to be treated is written on it again by whoever wrote it before.
        object.annotations.remove(INTERRUPTION);
        self.node_changed(node);
        self.delete_record(node);
    }

    /// The instance starts anew. What was announced for the boot before is not announced any more.
    fn reboot(&mut self, node: usize, down_ms: u64) {
        self.kill_agent(node);
        let sim = &mut self.nodes[node];
        sim.boots += 1;
        sim.object.boot_id = Some(format!("boot-{}", sim.boots));
        sim.imds.spot = None;
        sim.imds.scheduled.iter_mut().for_each(|said| said.over = true);
        self.node_changed(node);
        self.schedule(self.now + down_ms, Event::Start { node });
    }
}

impl Step {
    /// The node that it is about, by name.
    fn node(&self) -> Option<&str> {
        match self {
            Self::ImdsSpot { node, .. }
            | Self::ImdsRebalance { node }
            | Self::ImdsScheduled { node, .. }
            | Self::ImdsUnscheduled { node, .. }
            | Self::ImdsLifecycle { node, .. }
            | Self::Imds { node, .. }
            | Self::Ec2Confirms { node, .. }
            | Self::Request { node, .. }
            | Self::Retire { node }
            | Self::Withdraw { node }
            | Self::DeleteRecord { node }
            | Self::Kill { node, .. }
            | Self::Mute { node, .. }
            | Self::Clock { node, .. }
            | Self::Taint { node, .. }
            | Self::Touch { node }
            | Self::NewPod { node, .. }
            | Self::Relist { node }
            | Self::Reboot { node, .. }
            | Self::Recreate { node }
            | Self::Die { node } => Some(node),
            Self::Queue(_) | Self::Api(_) | Self::KillProvisioner { .. } => None,
        }
    }
}
