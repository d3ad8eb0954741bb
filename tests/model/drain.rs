//! One node whose instance is said to be taken in 40 s, its agent (the real core 1), three pods, and two sources of notices
//! that come in any order, twice, or contradict each other.
//!
//! Left out: other kinds of notices, stand-ins, clocks that are off; IMDS is asked more rarely than in life, and an answer
//! of the API server is on its way for no time unless it waits for others. The simulator has all of these.

mod noted;
mod services;
mod world;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spotkeeper::api::interruption::Phase;
use stateright::{Checker, Model, Property};

use crate::explore::{deviations, explore, holds};
use world::World;

/// What is true, whatever the notices say.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Truth {
    /// The instance is taken; IMDS says so before the queue does.
    ImdsFirst,
    /// The queue says it first.
    QueueFirst,
    /// The queue says it, and it is not so: a healthy IMDS denies it.
    NotSo,
    /// The queue says it, and IMDS has been away from the start.
    Deaf,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Drain {
    truths: Vec<Truth>,
    deviations: u8,
    /// A performer that says that a pod is deleted before the API server has said so, to show that the model finds it.
    swallows_deletes: bool,
    seen: Arc<[AtomicU64; 6]>,
}

/// What a model must have seen somewhere, to prove anything.
#[derive(Clone, Copy, Debug)]
pub enum Seen {
    Confirmed,
    Refuted,
    Blocked,
    Deleted,
    TookOver,
    Redelivered,
}

impl Drain {
    fn new(deviations: u8) -> Self {
        let truths = vec![Truth::ImdsFirst, Truth::QueueFirst, Truth::NotSo, Truth::Deaf];
        Self { truths, deviations, swallows_deletes: false, seen: Arc::default() }
    }

    fn saw(&self, what: Seen) {
        self.seen[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn seen(&self, what: Seen) -> u64 {
        self.seen[what as usize].load(Ordering::Relaxed)
    }
}

/// One step. Numbers are places in the queue of messages.
#[derive(Clone, Copy, PartialEq)]
pub enum Step {
    Arrives(usize),
    /// Time passes until something is due.
    Passes,
    /// A call is done, and its answer lost.
    AnswerLost(usize),
    /// It does not arrive.
    Lost(usize),
    /// The API server is busy.
    Throttled(usize),
    /// The agent dies, and is back after so many milliseconds; what it had sent is done, or is not.
    Dies(u64, bool),
    /// The agent reads the queue's message itself, once more.
    Redelivered,
    /// IMDS does not answer from now on.
    Deafens,
    /// IMDS does not answer one round.
    Misses,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrives(index) => write!(f, "arrives {index}"),
            Self::Passes => f.write_str("time passes"),
            Self::AnswerLost(index) => write!(f, "answer lost {index}"),
            Self::Lost(index) => write!(f, "lost {index}"),
            Self::Throttled(index) => write!(f, "throttled {index}"),
            Self::Dies(down, true) => write!(f, "the agent dies for {down} ms, what it had sent is done"),
            Self::Dies(down, false) => write!(f, "the agent dies for {down} ms"),
            Self::Redelivered => f.write_str("the queue's message is read again"),
            Self::Deafens => f.write_str("IMDS goes away"),
            Self::Misses => f.write_str("IMDS does not answer once"),
        }
    }
}

impl Model for Drain {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        self.truths.iter().map(|truth| World::new(self, *truth)).collect()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.is_over() {
            return;
        }
        steps.push(if world.flight.is_empty() { Step::Passes } else { Step::Arrives(0) });
        if world.left == 0 {
            return;
        }
        if !world.flight.is_empty() && world.may_pass() {
            steps.push(Step::Passes);
        }
        for (index, message) in world.flight.iter().enumerate() {
            if index > 0 && world.may_overtake(index) {
                steps.push(Step::Arrives(index));
            }
            if message.is_call() {
                steps.extend([Step::AnswerLost(index), Step::Lost(index)]);
            }
            if message.is_ask() {
                steps.push(Step::Throttled(index));
            }
        }
        if world.is_up() {
            steps.extend([Step::Dies(1_000, true), Step::Dies(1_000, false), Step::Dies(8_000, false)]);
            if world.is_said() {
                steps.push(Step::Redelivered);
            }
            if world.hears() {
                steps.extend([Step::Deafens, Step::Misses]);
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let free = match step {
            Step::Arrives(index) => index == 0,
            Step::Passes => world.flight.is_empty(),
            _ => false,
        };
        world.left = world.left.checked_sub(u8::from(!free))?;
        match step {
            Step::Arrives(index) => world.arrives(self, index),
            Step::Passes => world.passes(self),
            Step::AnswerLost(index) => world.is_lost(self, index, true),
            Step::Lost(index) => world.is_lost(self, index, false),
            Step::Throttled(index) => world.is_throttled(self, index),
            Step::Dies(down_ms, done) => world.dies(self, down_ms, done),
            Step::Redelivered => world.is_redelivered(self),
            Step::Deafens => world.deafens(),
            Step::Misses => world.misses(),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I-1 to I-5 and I-8: the witness finds nothing", |_, world: &World| {
                world.broken.is_empty()
            }),
            Property::always("I-1, I-4, I-5 and I-6: the ledger finds nothing", |_, world: &World| {
                !world.is_over() || world.judged().is_empty()
            }),
            Property::always("I-3: what was not so leaves nothing on the node", |_, world: &World| {
                !world.is_over() || world.left_on_the_node().is_empty()
            }),
            Property::sometimes("the node is drained in time", |_, world: &World| {
                world.is_over() && world.phase() == Some(Phase::Drained)
            }),
            Property::sometimes("what was not so is refuted", |_, world: &World| {
                world.is_over() && world.phase() == Some(Phase::Refuted)
            }),
        ]
    }
}

/// One line for each step that led there.
fn told(path: stateright::Path<World, Step>) -> String {
    let line = |(world, step): &(World, Option<Step>)| {
        let about = match step {
            Some(Step::Arrives(index) | Step::AnswerLost(index) | Step::Lost(index) | Step::Throttled(index)) => {
                world.flight.get(*index).map(|message| message.name()).unwrap_or_default()
            }
            _ => String::new(),
        };
        format!("{:8.3} s  {step:?}  {about}", world.now as f64 / 1_000.0)
    };
    let steps = path.into_vec();
    let mut text: Vec<String> = steps.iter().map(line).collect();
    if let Some((last, _)) = steps.last() {
        text.push(format!("broken: {:?}\nledger: {:?}", last.broken, last.judged()));
        text.push(format!("record: {:#?}\n{:#?}", last.api.record, last.ledger));
    }
    text.join("\n")
}

#[test]
fn notices_merge_and_the_node_is_drained_by_the_deadline_whatever_is_lost_and_whenever_the_agent_dies() {
    let model = Drain::new(deviations(1));
    let checker = explore("drain", model.clone());
    holds(&checker, told);
    for what in [Seen::Confirmed, Seen::Refuted, Seen::Blocked, Seen::Deleted, Seen::TookOver, Seen::Redelivered] {
        println!("  {what:?}: {} times", model.seen(what));
        assert!(model.seen(what) > 0, "a model that never sees {what:?} proves nothing of it");
    }
}

#[test]
fn a_performer_that_says_a_pod_is_deleted_and_has_not_asked_is_found_to_leave_it() {
    let model = Drain { swallows_deletes: true, truths: vec![Truth::ImdsFirst], ..Drain::new(0) };
    let checker = explore("drain, deletes swallowed", model);
    let path = checker.discovery("I-1, I-4, I-5 and I-6: the ledger finds nothing").expect("a counterexample");
    let judged = path.last_state().judged();
    assert!(judged.iter().any(|what| what.starts_with("I-6: ns/held was not going")), "{judged:?}");
}
