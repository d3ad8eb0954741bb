//! Pods, the kubelets that stop them, the budgets that protect them, and the controllers that replace them.

use super::scenario::{ApiState, PodSpec};
use super::watches::{Change, PodView};
use super::world::{BudgetSim, Event, Told, World, moment};
use super::{NodeAtEnd, PodAtEnd};
use crate::domain::pod::{Pod, PodUid};
use crate::interruption::invariants::ledger::{Asked, PodFate};
use crate::interruption::{Answer, Ask, Verb};
use std::time::Duration;

pub(super) struct PodSim {
    pub spec: PodSpec,
    pub uid: PodUid,
    pub node: usize,
    /// Its place in the ledger of its node.
    fate: usize,
    /// Since when it was asked to end, and when its grace runs out.
    going: Option<(u64, u64)>,
    grace_secs: u64,
    pub finished: bool,
    pub out_at: Option<u64>,
    pub gone: bool,
    /// It is Ready: a budget does not protect one that is not.
    pub serves: bool,
    version: u32,
    pub asked: Vec<(u64, Verb)>,
    /// When a budget refused, or several did.
    pub refused: Vec<(u64, Vec<String>)>,
    pub accepted: Vec<(u64, Verb, Option<u32>)>,
}

impl World {
    pub fn add_pod(&mut self, node: usize, spec: PodSpec) {
        let index = self.pods.len();
        let evictable = view(&spec, PodUid(String::new()), spec.finished).evictable();
        let ledger = &mut self.nodes[node].ledger;
        ledger.pods.push(PodFate {
            path: format!("{}/{}", spec.namespace, spec.name),
            grace: Duration::from_secs(spec.grace_secs),
            policy: spec.policy,
            evictable: evictable && !spec.terminating,
            created: moment(self.now),
            out_at: None,
            asks: Vec::new(),
        });
        let fate = ledger.pods.len() - 1;
        self.nodes[node].pods.push(index);
        let (terminating, grace) = (spec.terminating, spec.grace_secs);
        self.pods.push(PodSim {
            uid: PodUid(format!("uid-{index}")),
            node,
            fate,
            going: None,
            grace_secs: grace,
            finished: spec.finished,
            out_at: None,
            gone: false,
            serves: true,
            version: 0,
            asked: Vec::new(),
            refused: Vec::new(),
            accepted: Vec::new(),
            spec,
        });
        if terminating {
            self.ends(index, grace);
        }
        self.pod_changed(index);
    }

    /// Notes an ask that is being sent; returns its place.
    pub fn note_ask(&mut self, node: usize, ask: &Ask) -> (usize, usize) {
        let sent = moment(self.now);
        // An ask for a pod that never was is the witness's business: it is noted with the first pod.
        let index = self.pod_of(&ask.uid).unwrap_or(0);
        let Some(pod) = self.pods.get_mut(index) else {
            return (0, 0);
        };
        pod.asked.push((self.now, ask.verb));
        let fate = pod.fate;
        let asks = &mut self.nodes[node].ledger.pods[fate].asks;
        asks.push(Asked { sent, acknowledged: None, ends_at: None });
        (index, asks.len() - 1)
    }

    /// The answer to an ask has reached its agent.
    pub fn acknowledged(&mut self, pod: usize, ask: usize, input: &crate::interruption::Input) {
        let crate::interruption::Input::Asked { answer: Answer::Accepted, .. } = input else {
            return;
        };
        let (node, fate, now) = (self.pods[pod].node, self.pods[pod].fate, moment(self.now));
        if let Some(asked) = self.nodes[node].ledger.pods[fate].asks.get_mut(ask) {
            asked.acknowledged = Some(now);
        }
    }

    /// What the API server makes of an ask.
    pub fn ask_pod(&mut self, ask: &Ask, noted: (usize, usize)) -> Answer {
        let is_there = |index: &usize| {
            let pod = &self.pods[*index];
            !pod.gone && pod.spec.namespace == ask.namespace && pod.spec.name == ask.name
        };
        let Some(index) = self.pod_of(&ask.uid).filter(is_there) else {
            return Answer::Gone;
        };
        let pod = &self.pods[index];
        let starts = pod.going.is_none() && !pod.finished;
        let budgets: Vec<usize> = self.budgets_of(index);
        if ask.verb == Verb::Evict
            && starts
            && let Some(refusal) = self.refusal(pod.serves, &budgets)
        {
            let names = budgets.iter().map(|budget| self.budgets[*budget].spec.name.clone()).collect();
            self.pods[index].refused.push((self.now, names));
            return refusal;
        }
        if starts {
            budgets.into_iter().for_each(|budget| self.missing_one_more(budget));
        }
        let grace = ask.grace_secs.map_or(self.pods[index].spec.grace_secs, u64::from);
        self.ends(index, grace);
        let pod = &mut self.pods[index];
        pod.accepted.push((self.now, ask.verb, ask.grace_secs));
        let ends_at = pod.going.map(|(_, ends)| moment(ends));
        let (node, fate) = (pod.node, pod.fate);
        if let Some(asked) = self.nodes[node].ledger.pods[fate].asks.get_mut(noted.1) {
            asked.ends_at = ends_at;
        }
        Answer::Accepted
    }

    /// What its budgets say to the eviction of a pod.
    fn refusal(&self, serves: bool, budgets: &[usize]) -> Option<Answer> {
        // One that is not Ready is no loss, where its budget does not want it back first.
        let counts = |b: &&usize| {
            let BudgetSim { spec, missing } = &self.budgets[**b];
            serves || spec.guards_unready && *missing > spec.max_unavailable
        };
        let budgets: Vec<&usize> = budgets.iter().filter(counts).collect();
        if budgets.len() > 1 {
            return Some(Answer::TooManyBudgets);
        }
        let full = |b: &&usize| self.budgets[**b].missing >= self.budgets[**b].spec.max_unavailable;
        let budget = budgets.into_iter().find(full)?;
        Some(Answer::Blocked { budget: Some(self.budgets[*budget].spec.name.clone()) })
    }

    fn budgets_of(&self, pod: usize) -> Vec<usize> {
        let names = &self.pods[pod].spec.budgets;
        (0..self.budgets.len()).filter(|b| names.contains(&self.budgets[*b].spec.name)).collect()
    }

    fn missing_one_more(&mut self, budget: usize) {
        self.budgets[budget].missing += 1;
        if let Some(millis) = self.budgets[budget].spec.replaced_in_ms {
            self.schedule(self.now + millis, Event::Replaced { budget });
        }
    }

    /// A pod is asked to end: its kubelet stops it within `grace_secs`, or within less that it was given before.
    fn ends(&mut self, index: usize, grace_secs: u64) {
        let now = self.now;
        let alive = self.nodes[self.pods[index].node].alive;
        let pod = &mut self.pods[index];
        let ends = now + grace_secs * 1000;
        let (since, before) = pod.going.unwrap_or((now, u64::MAX));
        if ends < before {
            pod.going = Some((since, ends));
            pod.grace_secs = grace_secs;
        }
        let (ends, first) = (ends.min(before), before == u64::MAX);
        pod.version += 1;
        let version = pod.version;
        if alive && pod.out_at.is_none() {
            let stops = (since + pod.spec.stops_in_ms).min(ends).max(now);
            self.schedule(stops, Event::PodEnds { pod: index, version });
        }
        if first {
            self.outward(Told::PodGoing { pod: index });
        }
        if grace_secs == 0 {
            self.object_goes(index);
        } else {
            self.pod_changed(index);
        }
    }

    /// The pod of this uid: uids are given out in the order of the pods.
    fn pod_of(&self, uid: &PodUid) -> Option<usize> {
        let index: usize = uid.0.strip_prefix("uid-")?.parse().ok()?;
        (index < self.pods.len()).then_some(index)
    }

    /// The kubelet has stopped a pod's containers.
    pub fn pod_ends(&mut self, index: usize, version: u32) {
        let now = self.now;
        let pod = &mut self.pods[index];
        if pod.version != version || !self.nodes[pod.node].alive || pod.out_at.is_some() {
            return;
        }
        pod.out_at = Some(now);
        let (node, fate, finalizer) = (pod.node, pod.fate, pod.spec.finalizer_ms);
        self.nodes[node].ledger.pods[fate].out_at = Some(moment(now));
        self.figures.pods_out += 1;
        let whole = self.pods[index].stopped_by_itself(now);
        self.outward(Told::PodOut { pod: index, whole });
        let path = format!("{}/{}", self.pods[index].spec.namespace, self.pods[index].spec.name);
        self.tell(node, || format!("{path} has stopped"));
        match finalizer {
            Some(millis) => {
                self.pods[index].finished = true;
                self.pod_changed(index);
                self.schedule(now + millis, Event::ObjectGoes { pod: index });
            }
            None => self.object_goes(index),
        }
    }

    /// A pod's object is removed, as soon as the API server can be told.
    pub fn object_goes(&mut self, index: usize) {
        if self.pods[index].gone {
            return;
        }
        if self.api == ApiState::Away {
            return self.schedule(self.now + 500, Event::ObjectGoes { pod: index });
        }
        self.pods[index].gone = true;
        self.outward(Told::PodGone { pod: index });
        let (node, uid) = (self.pods[index].node, self.pods[index].uid.clone());
        for (life, watch) in self.nodes[node].pod_watches() {
            self.changed_for(node, life, Change::PodGone(watch, uid.clone()));
        }
        if self.pods[index].spec.stateful {
            let pod = Box::new(self.pods[index].spec.clone());
            let at = self.now + self.rng.u64(300..2_000);
            self.schedule(at, Event::Recreate { node, pod });
        }
    }

    /// A StatefulSet starts the next pod of the same name: here where the node takes it, elsewhere where not.
    pub fn recreate(&mut self, node: usize, mut pod: PodSpec) {
        if self.nodes[node].alive && !self.nodes[node].object.unschedulable {
            pod.terminating = false;
            self.add_pod(node, pod);
        }
    }

    fn pod_changed(&mut self, index: usize) {
        let node = self.pods[index].node;
        if self.api == ApiState::Away {
            return;
        }
        for (life, watch) in self.nodes[node].pod_watches() {
            let view = self.pods[index].view();
            self.changed_for(node, life, Change::Pod(watch, view));
        }
    }

    pub fn pod_views(&self, node: usize) -> Vec<PodView> {
        self.pods_on(node).filter(|pod| !pod.gone).map(PodSim::view).collect()
    }

    fn pods_on(&self, node: usize) -> impl Iterator<Item = &PodSim> {
        self.nodes[node].pods.iter().map(|pod| &self.pods[*pod])
    }

    /// Whether a pod is left that a drain is about.
    pub fn drain_left(&self, node: usize) -> bool {
        self.pods_on(node).filter(|pod| !pod.gone).any(|pod| pod.view().pod.evictable())
    }

    /// The instance is taken: what runs on it dies.
    pub fn instance_dies(&mut self, node: usize) {
        let running = |pod: &&usize| {
            let pod = &self.pods[**pod];
            !pod.gone && pod.out_at.is_none() && !pod.finished && pod.spec.bound.is_none()
        };
        let lost: Vec<usize> = self.nodes[node].pods.iter().filter(running).copied().collect();
        self.figures.pods_lost += lost.len() as u64;
        lost.into_iter().for_each(|pod| self.outward(Told::PodKilled { pod }));
        self.nodes[node].alive = false;
    }

    pub fn at_end(&self) -> Vec<NodeAtEnd> {
        let pods = |node: usize| {
            self.pods_on(node).map(|pod| PodAtEnd {
                path: format!("{}/{}", pod.spec.namespace, pod.spec.name),
                out_at_ms: pod.out_at,
                accepted: pod.accepted.clone(),
                asked: pod.asked.clone(),
            })
        };
        let node = |(index, sim): (usize, &super::world::NodeSim)| NodeAtEnd {
            node: sim.object.clone(),
            record: sim.record.as_ref().map(|record| record.status.clone()),
            notices: sim.record.iter().flat_map(|record| record.notices.clone()).collect(),
            pods: pods(index).collect(),
        };
        self.nodes.iter().enumerate().map(node).collect()
    }
}

impl PodSim {
    /// Whether it had the time that it takes to stop.
    fn stopped_by_itself(&self, now: u64) -> bool {
        self.going.is_none_or(|(since, _)| now >= since + self.spec.stops_in_ms)
    }

    fn view(&self) -> PodView {
        PodView {
            pod: view(&self.spec, self.uid.clone(), self.finished),
            deletion: self.going.map(|(_, ends)| (World::announced(ends), self.grace_secs)),
        }
    }
}

fn view(spec: &PodSpec, uid: PodUid, finished: bool) -> Pod {
    Pod {
        uid,
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        grace: Duration::from_secs(spec.grace_secs),
        policy: spec.policy,
        bound_to_node: spec.bound,
        kept_in_zone: spec.zonal,
        finished,
        ends_at: None,
    }
}
