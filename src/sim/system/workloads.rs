//! Workloads: the controllers that make pods, the scheduler that places them, and what is lost with one that is killed.

use std::collections::BTreeSet;

use super::given::Placed;
use super::outcome::{PodState, PodTimeline, WorkloadOutcome};
use super::scenario::{Workload, WorkloadKind};
use super::world::{Event, System};
use crate::sim::scenario::{PodSpec, a_pod};

/// From the death of an instance until its leftover pods are removed from the API, where nobody hastens it: the Node is
/// NotReady after 40 to 50 s, the cloud's controller removes it within 5 s, and pods of no node are collected 40 to 60 s
/// later.
const COLLECTED_MS: std::ops::Range<u64> = 85_000..115_000;

/// From its binding until its containers run, images mostly there.
const CONTAINERS_MS: std::ops::Range<u64> = 500..2_000;

/// From its creation until it is looked at.
const SCHEDULER_MS: std::ops::Range<u64> = 5..50;

pub(super) struct WorkloadSim {
    pub spec: Workload,
    /// Its budgets in the agents' world.
    budgets: Vec<usize>,
    pub available: u32,
    since: u64,
    pub sums: Sums,
}

#[derive(Default)]
pub(super) struct Sums {
    pub unavailable_pod_ms: u64,
    pub killed: u64,
    pub cut_short: u64,
    pub stopped: u64,
    pub work_lost_ms: u64,
    /// The longest time that one of its pods was missing.
    pub longest_gap_ms: u64,
}

/// One pod that a workload wants: one life after the other.
pub(super) struct Slot {
    pub workload: usize,
    pub ordinal: u32,
    /// The present life.
    pub life: Option<usize>,
    lives: u32,
    zone: Option<String>,
    /// Since when it is missing.
    pub missing_since: Option<u64>,
}

/// One pod, from its creation to its end.
pub(super) struct PodLife {
    pub slot: usize,
    pub name: String,
    pub node: Option<usize>,
    /// Its place in the agents' world.
    pub pod: Option<usize>,
    pub available: bool,
    /// It occupies its node.
    on_node: bool,
    /// Since when it works, and what it has not saved begins there.
    works_since: Option<u64>,
    pub states: Vec<(u64, Option<usize>, PodState)>,
}

impl System {
    /// All pods run when the world begins.
    pub fn begin_workloads(&mut self) {
        let budgets: Vec<Vec<usize>> = (0..self.scenario.workloads.len()).map(|at| self.budgets_of(at)).collect();
        for (spec, budgets) in std::mem::take(&mut self.scenario.workloads).into_iter().zip(budgets) {
            let workload = self.workloads.len();
            for ordinal in 0..spec.replicas {
                let slot = Slot { workload, ordinal, life: None, lives: 0, zone: None, missing_since: Some(0) };
                self.slots.push(slot);
            }
            self.workloads.push(WorkloadSim { spec, budgets, available: 0, since: 0, sums: Sums::default() });
        }
        self.own = (0..self.slots.len()).filter(|slot| self.is_own(*slot)).collect();
        for slot in 0..self.slots.len() {
            self.pend(slot);
        }
        let waiting: Vec<_> = self.pending.iter().copied().collect();
        for (priority, arrival, slot) in waiting {
            let given = self.given_place(slot);
            let Some(place) = given.or_else(|| Some(Placed { node: self.place_for(slot)?, ready: true })) else {
                continue;
            };
            self.pending.remove(&(priority, arrival, slot));
            let life = self.bind(slot, place.node);
            if place.ready {
                self.ready(life);
            }
        }
        (0..self.budgets.len()).for_each(|budget| self.count_missing(budget));
    }

    fn given_place(&self, slot: usize) -> Option<Placed> {
        let slot = &self.slots[slot];
        self.workloads[slot.workload].spec.given.placed.get(slot.ordinal as usize).copied()
    }

    fn is_own(&self, slot: usize) -> bool {
        self.workloads[self.slots[slot].workload].spec.kind == WorkloadKind::Provisioner
    }

    /// Another pod is made, and waits for a node.
    fn pend(&mut self, slot: usize) {
        let now = self.now;
        let one = &mut self.slots[slot];
        one.lives += 1;
        let spec = &self.workloads[one.workload].spec;
        let name = match spec.kind {
            WorkloadKind::StatefulSet | WorkloadKind::Pod => format!("{}-{}", spec.name, one.ordinal),
            _ => format!("{}-{}.{}", spec.name, one.ordinal, one.lives),
        };
        self.lives.push(PodLife {
            slot,
            name,
            node: None,
            pod: None,
            available: false,
            on_node: false,
            works_since: None,
            states: vec![(now, None, PodState::Pending)],
        });
        self.slots[slot].life = Some(self.lives.len() - 1);
        self.arrivals += 1;
        let priority = u8::from(!self.is_own(slot));
        self.pending.insert((priority, self.arrivals, slot));
        self.schedule_soon();
    }

    pub fn schedule_soon(&mut self) {
        if !self.scheduling && !self.pending.is_empty() {
            self.scheduling = true;
            let at = self.now + self.rng.u64(SCHEDULER_MS);
            self.schedule(at, Event::Schedule);
        }
    }

    /// One pass over the pods that wait.
    pub fn schedule_pods(&mut self) {
        self.scheduling = false;
        let most = self.room.values().filter_map(|zone| zone.last()).map(|(free, _)| *free).max().unwrap_or(0);
        if most == 0 {
            return;
        }
        let waiting: Vec<_> = self.pending.iter().copied().collect();
        let mut without = BTreeSet::new();
        for (priority, arrival, slot) in waiting {
            if self.room.values().all(|zone| zone.last().is_none_or(|(free, _)| *free == 0)) {
                return;
            }
            // Room only becomes less in one pass: where there was none for another like it there is none for this one.
            let like = (self.slots[slot].workload, self.slots[slot].zone.clone());
            if !self.is_own(slot) && without.contains(&like) {
                continue;
            }
            let Some(node) = self.place_for(slot) else {
                without.insert(like);
                continue;
            };
            self.pending.remove(&(priority, arrival, slot));
            let life = self.bind(slot, node);
            let starts = self.workloads[self.slots[slot].workload].spec.starts_in_ms;
            let at = self.now + self.rng.u64(CONTAINERS_MS) + starts;
            self.schedule(at, Event::Started { life });
        }
    }

    /// The node with the most room, in the zone that the pod is bound to where it is. Replicas of the provisioner keep
    /// apart where they can.
    fn place_for(&self, slot: usize) -> Option<usize> {
        let one = &self.slots[slot];
        let need = self.workloads[one.workload].spec.cpu_millis;
        let selector = &self.workloads[one.workload].spec.node_pool;
        let zones = self.room.iter().filter(|((zone, pool), _)| {
            one.zone.as_ref().is_none_or(|bound| bound == zone) && (selector.is_none() || selector == pool)
        });
        if !self.is_own(slot) {
            let in_zone = |nodes: &BTreeSet<(u32, usize)>| {
                let mut fits = nodes.iter().rev().take_while(|(free, _)| *free >= need);
                fits.find(|(_, node)| self.takes(slot, *node)).copied()
            };
            let best =
                zones.filter_map(|(_, nodes)| in_zone(nodes)).max_by_key(|(free, node)| (*free, usize::MAX - node));
            return best.map(|(_, node)| node);
        }
        let others: Vec<usize> = (0..self.slots.len())
            .filter(|other| *other != slot && self.slots[*other].workload == one.workload)
            .filter_map(|other| self.lives[self.slots[other].life?].node)
            .collect();
        let fits =
            zones.flat_map(|(_, nodes)| nodes.iter().rev().take(others.len() + 1)).filter(|(free, _)| *free >= need);
        let spot =
            |node: usize| super::world::is_spot(&self.supply.cloud.instances[self.nodes[node].instance].offering);
        fits.max_by_key(|(free, node)| (!others.contains(node), !spot(*node), *free, usize::MAX - node))
            .map(|(_, node)| *node)
    }

    /// The pod is on this node from now on.
    fn bind(&mut self, slot: usize, node: usize) -> usize {
        let now = self.now;
        let one = &mut self.slots[slot];
        let life = one.life.unwrap_or_default();
        let workload = &self.workloads[one.workload];
        if workload.spec.zonal {
            one.zone.get_or_insert_with(|| self.nodes[node].zone.clone());
        }
        let mut spec = pod_spec(&workload.spec, &self.lives[life].name);
        spec.budgets = workload.budgets.iter().map(|of| self.agents.budgets[*of].spec.name.clone()).collect();
        let pod = self.agents.pods.len();
        self.agents.add_pod(node, spec);
        self.agents.pods[pod].serves = false;
        self.pods.push(life);
        let one = &mut self.lives[life];
        (one.node, one.pod, one.on_node) = (Some(node), Some(pod), true);
        one.states.push((now, Some(node), PodState::Starting));
        let (need, bound, memory) =
            (workload.spec.cpu_millis, workload.spec.has_volume(), workload.spec.given.memory_mib);
        self.nodes[node].used_mib += memory;
        self.occupy(node, i64::from(need), 1, bound);
        life
    }

    /// A node's free room changes, and perhaps whether pods run on it.
    fn occupy(&mut self, node: usize, millis: i64, pods: i32, bound: bool) {
        let one = &mut self.nodes[node];
        if one.open {
            self.room.entry(one.place()).or_default().remove(&(one.cpu_millis - one.used_millis, node));
        }
        one.used_millis = u32::try_from((i64::from(one.used_millis) + millis).max(0)).unwrap_or(0).min(one.cpu_millis);
        one.busy = one.busy.saturating_add_signed(pods);
        one.bound = one.bound.saturating_add_signed(if bound { pods } else { 0 });
        if one.open {
            self.room.entry(one.place()).or_default().insert((one.cpu_millis - one.used_millis, node));
        }
        self.set_busy(node);
        if millis < 0 {
            self.schedule_soon();
        }
    }

    /// Whether a node takes pods may have changed.
    pub fn look_at(&mut self, node: usize) {
        self.set_cordoned(node);
        let object = &self.agents.nodes[node].object;
        let shut = object.unschedulable || object.taints.iter().any(|taint| taint.effect.starts_with("No"));
        let one = &mut self.nodes[node];
        let open = one.ready && !one.gone && !shut;
        if open == one.open {
            return;
        }
        one.open = open;
        let (entry, place) = ((one.cpu_millis - one.used_millis, node), one.place());
        let room = self.room.entry(place).or_default();
        if open {
            room.insert(entry);
            self.schedule_soon();
        } else {
            room.remove(&entry);
        }
    }

    pub fn started(&mut self, life: usize) {
        let one = &self.lives[life];
        let begins = one.states.last().is_some_and(|(_, _, state)| *state == PodState::Starting);
        if begins && self.slots[one.slot].life == Some(life) {
            self.ready(life);
        }
    }

    fn ready(&mut self, life: usize) {
        let now = self.now;
        let one = &mut self.lives[life];
        let (slot, node) = (one.slot, one.node);
        (one.available, one.works_since) = (true, Some(now));
        one.states.push((now, node, PodState::Running));
        if let Some(pod) = one.pod {
            self.agents.pods[pod].serves = true;
        }
        let workload = self.slots[slot].workload;
        if let Some(since) = self.slots[slot].missing_since.take() {
            let gap = &mut self.workloads[workload].sums.longest_gap_ms;
            *gap = (*gap).max(now - since);
        }
        self.available(workload, 1);
        if self.is_own(slot) && now > 0 {
            self.supply.start_replica(self.slots[slot].ordinal as usize);
        }
    }

    /// So many more pods of a workload are available; the time so far is counted.
    fn available(&mut self, workload: usize, more: i32) {
        let now = self.now;
        let one = &mut self.workloads[workload];
        let missing = one.spec.replicas.saturating_sub(one.available);
        one.sums.unavailable_pod_ms += u64::from(missing) * (now - one.since);
        one.since = now;
        one.available = one.available.saturating_add_signed(more);
        let budgets = one.budgets.clone();
        budgets.into_iter().for_each(|budget| self.count_missing(budget));
    }

    /// It serves no more.
    fn unavailable(&mut self, life: usize) {
        let slot = self.lives[life].slot;
        let workload = self.slots[slot].workload;
        if std::mem::take(&mut self.lives[life].available) {
            self.slots[slot].missing_since.get_or_insert(self.now);
            self.available(workload, -1);
        } else {
            self.available(workload, 0);
        }
    }

    fn pod_state(&mut self, life: usize, state: PodState) {
        let (now, one) = (self.now, &mut self.lives[life]);
        let node = one.node;
        one.states.push((now, node, state));
    }

    fn leaves_node(&mut self, life: usize) {
        let one = &mut self.lives[life];
        if let Some(node) = one.node.filter(|_| std::mem::take(&mut one.on_node)) {
            let spec = &self.workloads[self.slots[self.lives[life].slot].workload].spec;
            let (need, bound) = (spec.cpu_millis, spec.has_volume());
            let memory = spec.given.memory_mib;
            self.nodes[node].used_mib = self.nodes[node].used_mib.saturating_sub(memory);
            self.occupy(node, -i64::from(need), -1, bound);
        }
    }

    fn kind(&self, life: usize) -> WorkloadKind {
        self.workloads[self.slots[self.lives[life].slot].workload].spec.kind
    }

    fn is_current(&self, life: usize) -> bool {
        self.slots[self.lives[life].slot].life == Some(life)
    }

    /// Somebody asked it to end.
    pub fn pod_going(&mut self, pod: usize) {
        let life = self.pods[pod];
        self.unavailable(life);
        self.pod_state(life, PodState::Terminating);
        let at_once = matches!(self.kind(life), WorkloadKind::Deployment | WorkloadKind::Provisioner);
        if at_once && self.is_current(life) && !self.is_own(self.lives[life].slot) {
            self.pend(self.lives[life].slot);
        }
    }

    /// It has stopped: by itself, or at the end of its grace.
    pub fn pod_out(&mut self, pod: usize, whole: bool) {
        let life = self.pods[pod];
        let workload = self.slots[self.lives[life].slot].workload;
        self.unavailable(life);
        self.workloads[workload].sums.stopped += 1;
        if !whole {
            self.workloads[workload].sums.cut_short += 1;
            self.lose_work(life);
        }
        self.pod_state(life, if whole { PodState::Stopped } else { PodState::CutShort });
        self.replica_stops(life, true);
        self.leaves_node(life);
    }

    /// It died with its instance.
    pub fn pod_killed(&mut self, pod: usize) {
        let life = self.pods[pod];
        let workload = self.slots[self.lives[life].slot].workload;
        self.unavailable(life);
        self.workloads[workload].sums.killed += 1;
        self.lose_work(life);
        self.pod_state(life, PodState::Killed);
        self.replica_stops(life, false);
        self.leaves_node(life);
        let at = self.now + self.rng.u64(COLLECTED_MS);
        self.schedule(at, Event::Collected { pod });
    }

    /// Its object is gone: where its controller has waited for that, it makes another.
    pub fn pod_gone(&mut self, pod: usize) {
        let life = self.pods[pod];
        let slot = self.lives[life].slot;
        if self.is_current(life) && self.kind(life) != WorkloadKind::Pod {
            self.pend(slot);
        } else if self.is_current(life) {
            self.slots[slot].life = None;
        }
        self.leaves_node(life);
    }

    fn lose_work(&mut self, life: usize) {
        let one = &self.lives[life];
        let workload = self.slots[one.slot].workload;
        let Some((every, since)) = self.workloads[workload].spec.checkpoint_ms.zip(one.works_since) else { return };
        self.workloads[workload].sums.work_lost_ms += (self.now - since) % every.max(1);
    }

    /// A replica of the provisioner ends with its pod.
    fn replica_stops(&mut self, life: usize, gives_up: bool) {
        let slot = self.lives[life].slot;
        if self.is_own(slot) {
            let replica = self.slots[slot].ordinal as usize;
            if gives_up {
                self.supply.release_lease(replica);
            }
            self.supply.stop(replica);
            self.supply.replicas[replica].leaves = false;
        }
    }

    /// The nodes on which the replicas of the provisioner run, by replica.
    pub fn homes(&self) -> Vec<(usize, usize)> {
        let own = self.own.iter().map(|slot| &self.slots[*slot]);
        own.filter_map(|slot| Some((slot.ordinal as usize, self.lives[slot.life?].node?))).collect()
    }

    pub fn workload_outcomes(&mut self) -> Vec<WorkloadOutcome> {
        for workload in 0..self.workloads.len() {
            self.available(workload, 0);
        }
        let of = |one: &WorkloadSim| WorkloadOutcome {
            name: one.spec.path(),
            kind: one.spec.kind,
            replicas: one.spec.replicas,
            available_at_end: one.available,
            unavailable_pod_ms: one.sums.unavailable_pod_ms,
            longest_gap_ms: one.sums.longest_gap_ms,
            stopped: one.sums.stopped,
            cut_short: one.sums.cut_short,
            killed: one.sums.killed,
            work_lost_ms: one.sums.work_lost_ms,
        };
        self.workloads.iter().map(of).collect()
    }

    pub fn pod_timelines(&mut self) -> Vec<PodTimeline> {
        let lives = std::mem::take(&mut self.lives);
        let of = |life: PodLife| {
            let workload = &self.workloads[self.slots[life.slot].workload].spec;
            let node = |node: Option<usize>| node.map(|node| self.nodes[node].name.clone());
            PodTimeline {
                name: format!("{}/{}", workload.namespace, life.name),
                workload: workload.path(),
                states: life.states.into_iter().map(|(at, on, state)| (at, node(on), state)).collect(),
            }
        };
        lives.into_iter().map(of).collect()
    }
}

fn pod_spec(workload: &Workload, name: &str) -> PodSpec {
    let mut spec = a_pod(&format!("{}/{name}", workload.namespace));
    spec.grace_secs = workload.grace_secs;
    spec.stops_in_ms = workload.stops_in_ms;
    spec.policy = workload.policy;
    spec.zonal = workload.has_volume();
    spec
}
