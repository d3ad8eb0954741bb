//! The API server: calls arrive, are done or not, and are answered or not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::agents::CALL_TIMEOUT;
use super::scenario::ApiState;
use super::watches::Change;
use super::world::{Event, Told, World, moment};
use crate::api::interruption::{InterruptionStatus, NoticeEntry, Phase};
use crate::domain::node::{Node, Taint};
use crate::domain::policy::OnNode;
use crate::interruption::invariants::ledger::foreign_kept;
use crate::interruption::mark::{Mark, mark_patch, unmark_patch};
use crate::interruption::{Answer, Ask, Input, Outcome};

/// How often the performer computes a patch anew after a conflict.
const CONFLICTS_MAX: u32 = 8;

/// An Interruption as the API server has it.
#[derive(Clone)]
pub(super) struct RecordObject {
    pub version: u64,
    pub node: String,
    pub provider_id: String,
    pub notices: Vec<NoticeEntry>,
    pub status: InterruptionStatus,
}

/// One call of a performer.
pub(super) enum Call {
    /// Towards a mark, or undoing it. `from` is the Node that the patch is computed from: without one it is read first.
    PatchNode {
        mark: Option<Mark>,
        from: Option<Node>,
        tries: u32,
    },
    Notice(NoticeEntry),
    Status(Box<InterruptionStatus>),
    /// Where the record is still of this version.
    StatusOn(String, Box<InterruptionStatus>),
    /// `noted`: the pod and the ask in its ledger.
    Ask {
        ask: Ask,
        noted: (usize, usize),
    },
}

/// What came of a call at the API server.
#[expect(clippy::large_enum_variant, reason = "one at a time, in a simulator")]
enum Done {
    Answer(Input),
    /// Another request follows.
    Next(Call),
}

impl Call {
    /// The answer of a call that failed.
    fn failed(&self, why: &str) -> Input {
        let outcome = Outcome::Failed(why.to_owned());
        match self {
            Self::PatchNode { .. } => Input::Marked(outcome),
            Self::Notice(entry) => Input::NoticeRecorded { key: entry.key(), outcome },
            Self::Status(_) | Self::StatusOn(..) => Input::StatusRecorded(outcome),
            Self::Ask { ask, .. } => asked(ask, Answer::Failed(why.to_owned())),
        }
    }

    fn throttled(&self, retry_after: Option<Duration>) -> Input {
        match self {
            Self::Ask { ask, .. } => asked(ask, Answer::Throttled { retry_after }),
            _ => self.failed("429 TooManyRequests"),
        }
    }

    fn noted(&self) -> Option<(usize, usize)> {
        match self {
            Self::Ask { noted, .. } => Some(*noted),
            _ => None,
        }
    }
}

fn asked(ask: &Ask, answer: Answer) -> Input {
    Input::Asked { uid: ask.uid.clone(), verb: ask.verb, answer }
}

impl World {
    /// Sends a call.
    pub fn call(&mut self, node: usize, life: u32, call: Call) {
        if let Call::PatchNode { mark, from: Some(from), .. } = &call
            && patch(from, mark.as_ref()).is_none()
        {
            // As far as the performer knows there is nothing to do.
            let input = Box::new(Input::Marked(Outcome::Done));
            return self.schedule(self.now, Event::Input { node, life, input });
        }
        let at = self.now + self.latency();
        let (call, sent) = (Box::new(call), self.now);
        self.schedule(at, Event::Arrive { node, life, call, sent });
    }

    /// A call has reached the API server.
    pub fn arrive(&mut self, node: usize, life: u32, call: Call, sent: u64) {
        if !self.lives(node, life) {
            // The caller was killed: what had been sent may still be done, but not after its next life began.
            if self.nodes[node].was_last(life) && self.api != ApiState::Away && self.rng.bool() {
                let _ = self.carry_out(node, life, call);
            }
            return;
        }
        let timeout = sent + u64::try_from(CALL_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        let latency = self.latency();
        let noted = call.noted();
        let (at, input) = match self.refuses(node, life, &call, timeout) {
            Some((at, input)) => (at, input),
            None => {
                let lost = self.chance(self.scenario.faults.lost_answer_one_in);
                let late = self.now + latency > timeout;
                let failed = call.failed("no answer within 5 s");
                match self.carry_out(node, life, call) {
                    Done::Answer(_) | Done::Next(_) if lost || late => (timeout, failed),
                    Done::Answer(input) => (self.now + latency, input),
                    Done::Next(call) => {
                        let at = self.now + latency + self.latency();
                        let (call, sent) = (Box::new(call), self.now);
                        return self.schedule(at, Event::Arrive { node, life, call, sent });
                    }
                }
            }
        };
        let input = Box::new(input);
        let event = match noted {
            Some((pod, ask)) => Event::Answered { node, life, input, pod, ask },
            None => Event::Input { node, life, input },
        };
        self.schedule(at, event);
    }

    /// The answer where the API server does not do it at all, and when.
    fn refuses(&mut self, node: usize, life: u32, call: &Call, timeout: u64) -> Option<(u64, Input)> {
        let at = self.now + self.latency();
        match self.api {
            ApiState::Away if self.rng.bool() => {
                return Some((at.min(timeout), call.failed("connection refused")));
            }
            ApiState::Away => return Some((timeout, call.failed("no answer within 5 s"))),
            ApiState::Flooded if self.rng.u32(0..10) < 7 => {
                let retry_after = self.rng.bool().then(|| Duration::from_secs(1));
                return Some((at, call.throttled(retry_after)));
            }
            _ => {}
        }
        if self.nodes[node].is_mute(life, self.now) && matches!(call, Call::Notice(_) | Call::Status(_)) {
            return Some((at, call.failed("503 ServiceUnavailable")));
        }
        if matches!(call, Call::Ask { .. }) && self.chance(self.scenario.faults.throttled_one_in) {
            return Some((at, call.throttled(None)));
        }
        let refused = self.chance(self.scenario.faults.refused_one_in);
        refused.then(|| (at, call.failed("503 ServiceUnavailable")))
    }

    fn carry_out(&mut self, node: usize, life: u32, call: Call) -> Done {
        match call {
            Call::PatchNode { mark, from, tries } => self.patch_node((node, life), mark, from, tries),
            Call::Notice(entry) => {
                let key = entry.key();
                self.write_notice(node, entry);
                Done::Answer(Input::NoticeRecorded { key, outcome: Outcome::Done })
            }
            Call::StatusOn(version, status) => {
                let current = self.nodes[node].record.as_ref().map(|record| record.version.to_string());
                Done::Answer(Input::StatusRecorded(match current {
                    Some(current) if current == version => self.write_status(node, *status),
                    _ => Outcome::Failed("409 Conflict".into()),
                }))
            }
            Call::Status(status) => Done::Answer(Input::StatusRecorded(self.write_status(node, *status))),
            Call::Ask { ask, noted } => {
                let answer = self.ask_pod(&ask, noted);
                Done::Answer(asked(&ask, answer))
            }
        }
    }

    fn patch_node(&mut self, (node, life): (usize, u32), mark: Option<Mark>, from: Option<Node>, tries: u32) -> Done {
        let now = self.object(node).clone();
        let Some(from) = from else {
            return match patch(&now, mark.as_ref()) {
                None => Done::Answer(Input::Marked(Outcome::Done)),
                Some(_) => Done::Next(Call::PatchNode { mark, from: Some(now), tries }),
            };
        };
        let Some(patch) = patch(&from, mark.as_ref()) else {
            return Done::Answer(Input::Marked(Outcome::Done));
        };
        if patch["metadata"]["resourceVersion"] != now.resource_version.as_str() {
            let tries = tries + 1;
            return if tries >= CONFLICTS_MAX {
                Done::Answer(Input::Marked(Outcome::Failed("409 Conflict".into())))
            } else {
                Done::Next(Call::PatchNode { mark, from: None, tries })
            };
        }
        let object = &mut self.nodes[node].object;
        apply_patch(object, &patch);
        match mark {
            Some(mark) => self.tell(node, || format!("the node is marked: {}", mark.kind)),
            None => self.tell(node, || "the node's mark is undone".into()),
        }
        self.node_changed(node);
        let sim = &mut self.nodes[node];
        let object = sim.object.clone();
        let violations = foreign_kept(&object, &sim.foreign);
        if let Some(agent) = sim.actor_mut(life) {
            agent.cached = Some(object);
        }
        self.violated(node, violations);
        Done::Answer(Input::Marked(Outcome::Done))
    }

    fn object(&self, node: usize) -> &Node {
        &self.nodes[node].object
    }

    /// The Node has changed: it gets another resourceVersion, and whoever watches it hears of it.
    pub fn node_changed(&mut self, node: usize) {
        let object = &mut self.nodes[node].object;
        let version: u64 = object.resource_version.parse().unwrap_or(0);
        object.resource_version = (version + 1).to_string();
        let object = object.clone();
        self.changed(node, Change::Node(object));
        self.outward(Told::Node { node });
    }

    /// Somebody changes annotations of a Node: `None` takes one off.
    pub fn annotate(&mut self, node: usize, annotations: BTreeMap<String, Option<String>>) {
        let object = &mut self.nodes[node].object;
        for (key, value) in annotations {
            match value {
                Some(value) => object.annotations.insert(key, value),
                None => object.annotations.remove(&key),
            };
        }
        let policy = self.scenario.policy.on(&OnNode::read(&object.annotations));
        self.nodes[node].ledger.is_kept_by(&policy);
        self.node_changed(node);
    }

    /// Server-side apply of one entry: nobody's apply drops another's, and the first reporter stays.
    pub fn write_notice(&mut self, node: usize, entry: NoticeEntry) {
        let sim = &mut self.nodes[node];
        let record = sim.record.get_or_insert_with(|| RecordObject {
            version: 0,
            node: sim.name.clone(),
            provider_id: sim.object.provider_id.clone().unwrap_or_default(),
            notices: Vec::new(),
            status: InterruptionStatus::default(),
        });
        let key = entry.key();
        match record.notices.iter_mut().find(|known| known.key() == key) {
            Some(known) if known.deadline == entry.deadline && known.action == entry.action => {
                return;
            }
            Some(known) => (known.deadline, known.action) = (entry.deadline, entry.action),
            None => record.notices.push(entry),
        }
        self.record_changed(node);
    }

    pub fn record_changed(&mut self, node: usize) {
        if let Some(record) = &mut self.nodes[node].record {
            record.version += 1;
        }
        let record = self.nodes[node].record.clone().map(Box::new);
        self.changed(node, Change::Record(record));
        self.outward(Told::Record { node });
    }

    pub fn write_status(&mut self, node: usize, status: InterruptionStatus) -> Outcome {
        let at = moment(self.now);
        let sim = &mut self.nodes[node];
        let Some(record) = &mut sim.record else {
            return Outcome::Failed("404 NotFound".into());
        };
        // The replacement is the provisioner's field: an agent's apply leaves it as it is.
        let status = InterruptionStatus { replacement: record.status.replacement.clone(), ..status };
        if record.status == status {
            return Outcome::Done;
        }
        let before = (record.status.episode, record.status.phase);
        record.status = status.clone();
        let after = (status.episode, status.phase);
        sim.ledger.statuses.push((at, status));
        if before != after {
            match after.1 {
                Some(Phase::Drained) => self.figures.drained += 1,
                Some(Phase::Cancelled) => self.figures.cancelled += 1,
                Some(Phase::Refuted) => self.figures.refuted += 1,
                _ => {}
            }
            self.tell(node, || format!("the record says: episode {}, {:?}", after.0, after.1));
        }
        self.record_changed(node);
        self.provisioner_sees(node);
        Outcome::Done
    }
}

fn patch(from: &Node, mark: Option<&Mark>) -> Option<serde_json::Value> {
    match mark {
        Some(mark) => mark_patch(from, mark),
        None => unmark_patch(from),
    }
}

/// Applies a merge patch as an API server does, to the fields that the Node has here.
pub fn apply_patch(node: &mut Node, patch: &serde_json::Value) {
    for (map, field) in [(&mut node.annotations, "annotations"), (&mut node.labels, "labels")] {
        for (key, value) in patch["metadata"][field].as_object().into_iter().flatten() {
            match value.as_str() {
                Some(value) => drop(map.insert(key.clone(), value.to_owned())),
                None => drop(map.remove(key)),
            }
        }
    }
    let Some(spec) = patch["spec"].as_object() else {
        return;
    };
    if let Some(unschedulable) = spec.get("unschedulable") {
        node.unschedulable = unschedulable.as_bool().unwrap_or(false);
    }
    if let Some(taints) = spec.get("taints") {
        node.taints = taints.as_array().into_iter().flatten().map(taint).collect();
    }
}

fn taint(json: &serde_json::Value) -> Taint {
    let text = |field: &str| json[field].as_str().map(str::to_owned);
    Taint {
        key: text("key").unwrap_or_default(),
        value: text("value"),
        effect: text("effect").unwrap_or_default(),
        time_added: text("timeAdded"),
    }
}
