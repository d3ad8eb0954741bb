//! The state of the model, and how one thing after the other changes it.

use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::api::interruption::Phase;
use spotkeeper::domain::node::Node;
use spotkeeper::domain::notice::{Action, InstanceId, Notice, Source, Subject};
use spotkeeper::domain::pod::{OnInterruption, PodUid};
use spotkeeper::domain::time::{Deadline, Epoch, Instant};
use spotkeeper::engine::Core;
use spotkeeper::interruption::invariants::Witness;
use spotkeeper::interruption::invariants::ledger::{Ledger, PodFate};
use spotkeeper::interruption::{Answer, Effect, Identity, Input, Keeper, Pace, Policy, Reading, SpotAction};

use super::services::{Api, PodSim, asked, failed};
use super::{Drain, Seen, Truth};
use crate::explore::{Part, at};

/// When the instance is taken, and when each source says so: much closer together than in life.
const DEADLINE_MS: u64 = 40_000;
const SAID_MS: [u64; 2] = [1_000, 4_000];

/// When all is over, also where nothing is taken.
const END_MS: u64 = 50_000;

/// How often IMDS is asked.
const POLL_MS: u64 = 5_000;
const POLL_URGENT_MS: u64 = 2_000;

/// How long a call may be on its way.
const CALL_MS: u64 = 3_000;

/// What an agent needs to do what it can do: to be asked, to be told, to try again.
const SLACK: Duration = Duration::from_secs(8);

pub const NODE: &str = "node-a";
pub const NAMESPACE: &str = "ns";

/// A pod whose budget never allows its eviction, one with a long grace, and one that has neither.
const PODS: [(&str, u64); 3] = [("held", 10), ("slow", 60), ("free", 2)];

pub fn wall(millis: u64) -> Timestamp {
    Epoch(Timestamp::from_second(1_790_000_000).expect("a time in range")).wall(at(millis))
}

fn instance() -> InstanceId {
    "i-0123456789abcdef0".parse().expect("an instance id")
}

/// What the queue says.
fn notice() -> Notice {
    Notice {
        instance: instance(),
        source: Source::Sqs,
        subject: Subject::SpotInterruption(Action::Terminate),
        event_id: "event-1".into(),
        deadline: Some(wall(DEADLINE_MS)),
    }
}

#[derive(Clone, Debug, Hash, PartialEq)]
pub struct World {
    pub now: u64,
    pub truth: Truth,
    pub agent: Part<Agent>,
    pub api: Part<Api>,
    pub ledger: Part<Ledger>,
    /// Since when the agent knows a confirmed deadline, and which.
    pub able: Option<(u64, u64)>,
    /// Who has said it: IMDS, the queue.
    said: [bool; 2],
    imds_is_away: bool,
    misses: bool,
    pub flight: Vec<Part<Message>>,
    pub left: u8,
    pub broken: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Agent {
    life: u32,
    pub up: Option<Up>,
    back_at: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Up {
    pub core: Keeper,
    pub witness: Witness,
    pub born: u64,
    polls_at: u64,
    pace: Pace,
    pub watches: bool,
    /// The Node as the performer knows it.
    node: Option<Node>,
}

#[derive(Clone, Debug)]
pub struct Message {
    life: u32,
    sent: u64,
    what: What,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "few at a time")]
pub enum What {
    /// To the API server: of an ask with its place in the ledger.
    Call(Effect, Option<(usize, usize)>),
    /// From it: what a watch tells; the state is read when it arrives.
    Node,
    Record,
    Pods,
    Pod(usize),
}

impl Message {
    pub fn is_call(&self) -> bool {
        matches!(self.what, What::Call(..))
    }

    pub fn is_ask(&self) -> bool {
        matches!(self.what, What::Call(Effect::Ask(_), _))
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("{:?}", self.what).chars().take(140).collect()
    }
}

impl World {
    pub fn new(model: &Drain, truth: Truth) -> Self {
        let pods = PODS.iter().enumerate().map(|(index, (name, grace))| PodSim {
            uid: PodUid(format!("uid-{index}")),
            name,
            grace: *grace,
            going: None,
            gone: false,
        });
        let node = Node {
            name: NODE.into(),
            uid: "uid-node".into(),
            resource_version: "1".into(),
            provider_id: Some(format!("aws:///zone-a/{}", instance())),
            boot_id: Some("boot-1".into()),
            ..Node::default()
        };
        let fates = PODS.iter().map(|(name, grace)| PodFate {
            path: format!("{NAMESPACE}/{name}"),
            grace: Duration::from_secs(*grace),
            policy: OnInterruption::Evict,
            evictable: true,
            created: at(0),
            out_at: None,
            asks: Vec::new(),
        });
        let policy = Policy::default();
        let ledger = Ledger { margin: policy.margin, slack: SLACK, pods: fates.collect(), ..Ledger::default() };
        let mut world = Self {
            now: 0,
            truth,
            agent: Part::new(Agent { life: 0, up: None, back_at: None }),
            api: Part::new(Api { node, record: None, pods: pods.collect() }),
            ledger: Part::new(ledger),
            able: None,
            said: [false; 2],
            imds_is_away: truth == Truth::Deaf,
            misses: false,
            flight: Vec::new(),
            left: model.deviations,
            broken: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let now = self.now;
        let me = Identity {
            instance: instance(),
            node: NODE.into(),
            provider_id: self.api.node.provider_id.clone().unwrap_or_default(),
        };
        let up = Up {
            core: Keeper::new(me, Policy::default(), Epoch(wall(now))),
            witness: Witness::new(Policy::default()),
            born: now,
            polls_at: now + 10,
            pace: Pace::Usual,
            watches: false,
            node: None,
        };
        self.agent.change(|agent| {
            agent.life += 1;
            (agent.up, agent.back_at) = (Some(up), None);
        });
        self.send(What::Node);
        self.send(What::Record);
    }

    pub fn send(&mut self, what: What) {
        let message = Message { life: self.agent.life, sent: self.now, what };
        self.flight.push(Part::new(message));
    }

    pub fn is_up(&self) -> bool {
        self.agent.up.is_some()
    }

    /// Whether the queue has said it.
    pub fn is_said(&self) -> bool {
        self.said[1]
    }

    /// Whether IMDS answers.
    pub fn hears(&self) -> bool {
        !self.imds_is_away && !self.misses
    }

    /// When a source says it; `None` where it never does.
    fn says_at(&self, source: usize) -> Option<u64> {
        match (self.truth, source) {
            (Truth::ImdsFirst, source) => Some(SAID_MS[source]),
            (Truth::QueueFirst, source) => Some(SAID_MS[1 - source]),
            (Truth::NotSo | Truth::Deaf, 1) => Some(SAID_MS[0]),
            _ => None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.now >= if self.truth == Truth::NotSo { END_MS } else { DEADLINE_MS }
    }

    pub fn phase(&self) -> Option<Phase> {
        self.api.record.as_ref().and_then(|record| record.status.phase)
    }

    /// The next moment at which something is due of itself.
    fn next(&self) -> u64 {
        let mut next = vec![END_MS, DEADLINE_MS];
        next.extend((0..2).filter(|source| !self.said[*source]).filter_map(|source| self.says_at(source)));
        next.extend(self.agent.back_at);
        next.extend(self.api.pods.iter().filter(|pod| !pod.gone).filter_map(|pod| pod.going));
        next.extend(self.agent.up.as_ref().map(|up| up.polls_at));
        let later = next.into_iter().filter(|at| *at > self.now).min().unwrap_or(END_MS);
        // What the core waits for may be due at once.
        let woken = self.agent.up.as_ref().and_then(|up| Some(up.born + up.core.next_wakeup()?.as_millis()));
        woken.map_or(later, |at| at.max(self.now).min(later))
    }

    /// Whether time may pass while messages are on their way: none takes longer than its time-out.
    pub fn may_pass(&self) -> bool {
        let next = self.next();
        self.flight.iter().all(|message| next <= message.sent + CALL_MS)
    }

    /// Watches keep their order among themselves; calls have none.
    pub fn may_overtake(&self, index: usize) -> bool {
        let watch = |message: &Message| matches!(message.what, What::Pods | What::Pod(_));
        let same = |message: &Message| match self.flight[index].what {
            What::Node => matches!(message.what, What::Node),
            What::Record => matches!(message.what, What::Record),
            What::Pods | What::Pod(_) => watch(message),
            What::Call(..) => false,
        };
        !self.flight[..index].iter().any(|message| same(message))
    }

    pub fn passes(&mut self, model: &Drain) {
        self.now = self.next();
        let now = self.now;
        if self.is_over() {
            self.close_ability();
            return;
        }
        for source in 0..2 {
            if !self.said[source] && self.says_at(source).is_some_and(|at| at <= now) {
                self.said[source] = true;
                if source == 1 {
                    self.apply(&spotkeeper::interruption::queue::entry(&notice(), "node-b", wall(now)));
                }
            }
        }
        let ends = (0..PODS.len()).filter(|pod| {
            let pod = &self.api.pods[*pod];
            !pod.gone && pod.going.is_some_and(|ends| ends <= now)
        });
        for pod in ends.collect::<Vec<_>>() {
            self.api.change(|api| api.pods[pod].gone = true);
            self.ledger.change(|ledger| ledger.pods[pod].out_at = Some(at(now)));
            self.pod_changed(pod);
        }
        if self.agent.back_at.is_some_and(|at| at <= now) {
            model.saw(Seen::TookOver);
            self.start();
        }
        let due = |up: &Up| up.core.next_wakeup().is_some_and(|at| up.born + at.as_millis() <= now);
        if self.agent.up.as_ref().is_some_and(due) {
            self.run(model, |up, at, effects| up.core.wake(at, effects));
        }
        if self.agent.up.as_ref().is_some_and(|up| up.polls_at <= now) {
            self.polls(model);
        }
    }

    /// One round of questions to IMDS.
    fn polls(&mut self, model: &Drain) {
        let (now, said) = (self.now, self.said[0]);
        let fails = self.imds_is_away || std::mem::take(&mut self.misses);
        let Some(up) = &self.agent.up else { return };
        let here = at(now - up.born);
        let spot = said.then(|| SpotAction {
            action: Action::Terminate,
            deadline: Deadline::place(wall(DEADLINE_MS), wall(now), here),
        });
        let every = if up.pace == Pace::Urgent { POLL_URGENT_MS } else { POLL_MS };
        self.agent.change(|agent| agent.up.iter_mut().for_each(|up| up.polls_at = now + every));
        let reading = Reading { spot, scheduled: Some(Vec::new()), ..Reading::default() };
        self.feed(model, if fails { Input::ImdsFailed } else { Input::ImdsAnswered(reading) });
    }

    fn feed(&mut self, model: &Drain, input: Input) {
        if let Input::NodeSeen(node) = &input {
            self.agent.change(|agent| agent.up.iter_mut().for_each(|up| up.node = Some(node.clone())));
        }
        let mut broken = Vec::new();
        self.run(model, |up, at, effects| {
            broken.extend(up.witness.input(at, &input));
            up.core.handle(at, input, effects);
        });
        self.broken.extend(broken.iter().map(ToString::to_string));
    }

    fn run(&mut self, model: &Drain, run: impl FnOnce(&mut Up, Instant, &mut Vec<Effect>)) {
        let now = self.now;
        let (mut effects, mut broken) = (Vec::new(), Vec::new());
        self.agent.change(|agent| {
            let Some(up) = &mut agent.up else { return };
            let here = at(now - up.born);
            run(up, here, &mut effects);
            for effect in &effects {
                broken.extend(up.witness.effect(here, effect).iter().map(ToString::to_string));
            }
            if effects.is_empty() && up.core.next_wakeup().is_some_and(|next| next <= here) {
                broken.push("what is due was not done: it would wake for ever".into());
            }
        });
        self.broken.extend(broken);
        self.note_ability();
        effects.into_iter().for_each(|effect| self.begins(model, effect));
    }

    fn begins(&mut self, model: &Drain, effect: Effect) {
        match effect {
            Effect::Decided(because) => match because.reason() {
                "Confirmed" => model.saw(Seen::Confirmed),
                "Refuted" => model.saw(Seen::Refuted),
                _ => {}
            },
            Effect::Mark(_)
            | Effect::Unmark
            | Effect::RecordNotice(_)
            | Effect::RecordStatus(_)
            | Effect::RecordStatusOn { .. } => self.send(What::Call(effect, None)),
            Effect::Ask(ask) => {
                let noted = self.note_ask(&ask);
                self.send(What::Call(Effect::Ask(ask), noted));
            }
            Effect::WatchPods => {
                self.agent.change(|agent| agent.up.iter_mut().for_each(|up| up.watches = true));
                self.send(What::Pods);
            }
            Effect::ForgetPods => {
                self.agent.change(|agent| agent.up.iter_mut().for_each(|up| up.watches = false));
                self.flight.retain(|message| !matches!(message.what, What::Pods | What::Pod(_)));
            }
            Effect::PollImds(pace) => {
                let now = self.now;
                self.agent.change(|agent| {
                    agent.up.iter_mut().for_each(|up| (up.pace, up.polls_at) = (pace, now + 10));
                });
            }
            Effect::Tell(_) | Effect::Retract | Effect::StandDown | Effect::StandUp => {}
        }
    }

    /// A message arrives.
    pub fn arrives(&mut self, model: &Drain, index: usize) {
        let message = self.flight.remove(index);
        match &message.what {
            What::Call(effect, noted) => {
                let input = self.done(model, effect, *noted);
                self.answers(model, &message, input);
            }
            What::Node => self.feed(model, Input::NodeSeen(self.api.node.clone())),
            What::Record => self.feed(model, Input::RecordSeen(self.record())),
            What::Pods => {
                let pods = (0..PODS.len()).filter(|pod| !self.api.pods[*pod].gone).map(|pod| self.pod(pod));
                self.feed(model, Input::PodsListed(pods.collect()));
            }
            What::Pod(pod) if self.api.pods[*pod].gone => {
                self.feed(model, Input::PodGone(self.api.pods[*pod].uid.clone()));
            }
            What::Pod(pod) => self.feed(model, Input::PodSeen(self.pod(*pod))),
        }
    }

    fn answers(&mut self, model: &Drain, message: &Message, input: Input) {
        if message.life != self.agent.life || self.agent.up.is_none() {
            return;
        }
        if let (What::Call(_, Some((pod, ask))), Input::Asked { answer: Answer::Accepted, .. }) =
            (&message.what, &input)
        {
            let now = at(self.now);
            self.ledger.change(|ledger| ledger.pods[*pod].asks[*ask].acknowledged = Some(now));
        }
        self.feed(model, input);
    }

    /// A call is not answered; `done`: what it asks for is done nevertheless.
    pub fn is_lost(&mut self, model: &Drain, index: usize, done: bool) {
        let message = self.flight.remove(index);
        if let What::Call(effect, noted) = &message.what {
            if done {
                self.done(model, effect, *noted);
            }
            self.answers(model, &message, failed(effect));
        }
    }

    pub fn is_throttled(&mut self, model: &Drain, index: usize) {
        let message = self.flight.remove(index);
        if let What::Call(Effect::Ask(ask), _) = &message.what {
            self.answers(model, &message, asked(ask, Answer::Throttled { retry_after: None }));
        }
    }

    /// Another agent that reads the queue has the message, and this one, too.
    pub fn is_redelivered(&mut self, model: &Drain) {
        model.saw(Seen::Redelivered);
        let Some(up) = &self.agent.up else { return };
        let here = at(self.now - up.born);
        let deadline = Some(Deadline::place(wall(DEADLINE_MS), wall(self.now), here));
        self.feed(model, Input::Noticed { notice: notice(), deadline });
    }

    pub fn deafens(&mut self) {
        self.imds_is_away = true;
    }

    pub fn misses(&mut self) {
        self.misses = true;
    }

    /// The agent dies; what it has sent may still be done.
    pub fn dies(&mut self, model: &Drain, down_ms: u64, done: bool) {
        let back_at = Some(self.now + down_ms);
        self.close_ability();
        self.agent.change(|agent| (agent.up, agent.back_at) = (None, back_at));
        for message in std::mem::take(&mut self.flight) {
            if let What::Call(effect, noted) = &message.what
                && done
            {
                self.done(model, effect, *noted);
            }
        }
    }
}
