//! Two claims that share a call, two replicas of the real core 2, one lease, and an EC2 whose answers get lost.
//!
//! Left out: how claims come to be (they are there from the start), nodes and their registration, quotas and buckets; a
//! watch tells what has changed whenever time passes. The simulator has all of these.

mod services;
mod world;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stateright::{Checker, Model, Property};

use crate::explore::{deviations, explore, holds};
use world::{How, World};

/// Mishaps begin in this time; then the world calms down and must come to its end.
const MISHAPS_UNTIL: u64 = 40_000;

/// The model.
#[derive(Clone, Debug)]
pub struct Claims {
    claims: usize,
    /// How many spot instances there are: one world for each.
    spot: Vec<usize>,
    deviations: u8,
    /// A performer that does not repeat a call with the same token, to show that the model finds it.
    loses_token: bool,
    seen: Arc<[AtomicU64; 5]>,
}

/// What must have been seen for the model to say anything.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Led,
    Unknown,
    Repeated,
    Surplus,
    FellThrough,
}

impl Claims {
    fn new(deviations: u8) -> Self {
        Self { claims: 2, spot: vec![0, 1, 2], deviations, loses_token: false, seen: Arc::default() }
    }

    fn saw(&self, what: Seen) {
        self.seen[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn seen(&self, what: Seen) -> u64 {
        self.seen[what as usize].load(Ordering::Relaxed)
    }
}

/// What happens next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The message at this place arrives; what is not the oldest overtakes.
    Arrives(usize, How),
    /// Time passes until something is due.
    Passes,
    /// A message whose caller has given it up arrives after all.
    ArrivesLate(usize),
    /// It is done, and its answer lost.
    AnswerLost(usize),
    /// It does not arrive.
    Lost(usize),
    /// Its caller gives it up while it is on its way.
    GivenUp(usize),
    Throttled(usize),
    /// Dies, and is back after so many milliseconds.
    Dies(usize, u64),
    /// Its renewals of the lease do not get through.
    Starves(usize),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrives(index, how) => write!(f, "{how:?} {index}"),
            Self::Passes => f.write_str("time passes"),
            Self::ArrivesLate(index) => write!(f, "late {index}"),
            Self::AnswerLost(index) => write!(f, "answer lost {index}"),
            Self::Lost(index) => write!(f, "lost {index}"),
            Self::GivenUp(index) => write!(f, "given up {index}"),
            Self::Throttled(index) => write!(f, "throttled {index}"),
            Self::Dies(replica, down) => write!(f, "replica {replica} dies for {down} ms"),
            Self::Starves(replica) => write!(f, "replica {replica} does not renew"),
        }
    }
}

impl Model for Claims {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        self.spot.iter().map(|spot| World::new(self, *spot)).collect()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let waited_for: Vec<usize> = (0..world.flight.len()).filter(|at| !world.flight[*at].orphan).collect();
        let calm = world.left == 0 || world.now > MISHAPS_UNTIL;
        if world.is_over() || (calm && world.flight.is_empty() && world.is_settled()) {
            return;
        }
        match waited_for.first() {
            Some(first) => steps.push(Step::Arrives(*first, How::Well)),
            None => steps.push(Step::Passes),
        }
        let late = (0..world.flight.len()).filter(|at| world.flight[*at].orphan);
        steps.extend(late.map(Step::ArrivesLate));
        if calm {
            return;
        }
        if !waited_for.is_empty() && world.next().is_some_and(|next| world.may_pass(next)) {
            steps.push(Step::Passes);
        }
        for index in waited_for {
            let message = &world.flight[index];
            if !steps.contains(&Step::Arrives(index, How::Well)) {
                steps.push(Step::Arrives(index, How::Well));
            }
            steps.push(Step::Lost(index));
            if message.is_answer() {
                continue;
            }
            steps.extend([Step::AnswerLost(index), Step::GivenUp(index)]);
            if message.is_call() {
                steps.extend([Step::Throttled(index), Step::Arrives(index, How::Twice)]);
            }
            if message.looks() && world.ec2.may_hide(world.now) {
                steps.push(Step::Arrives(index, How::Hides));
            }
        }
        for replica in (0..2).filter(|replica| world.replicas[*replica].up.is_some()) {
            steps.extend([Step::Dies(replica, 1_000), Step::Dies(replica, 45_000)]);
            if world.lease.is_some_and(|(holder, _)| holder == replica) && !world.replicas[replica].starved {
                steps.push(Step::Starves(replica));
            }
        }
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        let first = world.flight.iter().position(|message| !message.orphan);
        let free = match step {
            Step::Arrives(index, How::Well) => Some(index) == first,
            Step::Passes => first.is_none(),
            Step::ArrivesLate(_) => true,
            _ => false,
        };
        world.left = world.left.checked_sub(u8::from(!free))?;
        match step {
            Step::Arrives(index, how) => world.arrives(self, index, how),
            Step::ArrivesLate(index) => world.arrives(self, index, How::Well),
            Step::Passes => {
                let next = world.next()?;
                world.passes(self, next);
            }
            Step::AnswerLost(index) => world.is_lost(self, index, true),
            Step::Lost(index) => world.is_lost(self, index, false),
            Step::GivenUp(index) => world.is_given_up(self, index),
            Step::Throttled(index) => world.is_throttled(self, index),
            Step::Dies(replica, down_ms) => world.dies(replica, down_ms),
            Step::Starves(replica) => world.is_starved(replica),
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P-2 and P-3: the witnesses find nothing", |_, world: &World| world.broken.is_empty()),
            Property::always("P-1: no claim has two live instances for longer than a resync", |_, world: &World| {
                world.twins().is_empty()
            }),
            Property::always(
                "in the end every claim has its instance, and nothing is left over",
                |_, world: &World| !world.is_over() || world.is_settled(),
            ),
            Property::sometimes("everybody is served", |_, world: &World| world.is_settled()),
        ]
    }
}

/// One line for each step that led there.
fn told(path: stateright::Path<World, Step>) -> String {
    let line = |(world, step): &(World, Option<Step>)| {
        let of = |index: &usize| world.flight.get(*index).map(|message| message.name()).unwrap_or_default();
        let about = match step {
            Some(
                Step::Arrives(index, _)
                | Step::ArrivesLate(index)
                | Step::AnswerLost(index)
                | Step::Lost(index)
                | Step::GivenUp(index)
                | Step::Throttled(index),
            ) => of(index),
            Some(Step::Passes) => format!("until {:?}", world.next()),
            _ => String::new(),
        };
        format!("{:8.3} s  {step:?}  {about}", world.now as f64 / 1_000.0)
    };
    let steps = path.into_vec();
    let mut text: Vec<String> = steps.iter().map(line).collect();
    if let Some((last, _)) = steps.last() {
        text.push(format!("broken: {:?}\nclaims: {:#?}", last.broken, last.api.claims));
        text.push(format!("launches: {:#?}\ninstances: {:#?}", last.api.launches, last.ec2.instances));
    }
    text.join("\n")
}

#[test]
fn claims_that_share_a_call_each_get_one_instance_whatever_is_lost_and_whoever_leads() {
    let model = Claims::new(deviations(1));
    let checker = explore("claims", model.clone());
    holds(&checker, told);
    for what in [Seen::Led, Seen::Unknown, Seen::Repeated, Seen::Surplus, Seen::FellThrough] {
        println!("  {what:?}: {} times", model.seen(what));
        assert!(model.seen(what) > 0, "a model that never sees {what:?} proves nothing of it");
    }
}

#[test]
fn a_performer_that_makes_up_a_token_for_each_call_is_found_to_launch_twice() {
    let model = Claims { loses_token: true, spot: vec![2], ..Claims::new(1) };
    let checker = explore("claims, tokens lost", model);
    let path = checker.discovery("P-1: no claim has two live instances for longer than a resync");
    let path = path.expect("a counterexample");
    assert!(!path.last_state().twins().is_empty());
}
