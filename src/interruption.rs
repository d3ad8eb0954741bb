//! Core 1: the life of one instance's interruption, from the first notice to the empty node.
//!
//! ```text
//!  IMDS answers ──┐                                  ┌─> tell the workloads
//!  queue, record ─┼─> merge ──> confirm ──> run ─────┼─> mark the node
//!  node, pods ────┘   (one        (the queue wakes,  ├─> record (notices, status)
//!                      episode)    IMDS decides)     └─> drain: evict, at the latest start delete
//! ```
//!
//! - `run`: the state machine; [`Keeper`] implements [`Core`](crate::engine::Core).
//! - [`merge`]: notices into one episode: which are new, which are confirmed, which deadline holds.
//! - [`drain`]: which pods, in what order, with what grace, and when asking ends and deleting begins.
//! - [`mark`]: what is done to the Node, and how exactly that is undone.
//! - [`policy`]: what a person may choose.
//! - [`queue`]: what becomes of a message that was read from the queue.
//! - `stand_in`: the provisioner's part, where the node's agent is silent.
//! - [`because`]: the reasons of decisions.
//! - [`invariants`]: what must always hold, as predicates over the stream of inputs and effects.

use std::time::Duration;

use jiff::Timestamp;

use crate::api::interruption::{InterruptionStatus, NoticeEntry, NoticeKey};
use crate::domain::node::Node;
use crate::domain::notice::{Action, InstanceId, Kind, Notice, ScheduleCode};
use crate::domain::pod::{Pod, PodUid};
use crate::domain::time::{Deadline, Instant};
pub use because::Because;
pub use mark::Mark;
pub use policy::{DrainBy, DrainStart, Policy, Rebalance};
pub use run::Keeper;
pub use run::turn::STAND_IN;
pub use stand_in::StandIn;

pub mod because;
pub mod drain;
pub mod invariants;
pub mod mark;
pub mod merge;
pub mod policy;
pub mod queue;
mod run;
mod stand_in;

/// Who this agent is. It does not change while the program runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub instance: InstanceId,
    pub node: String,
    pub provider_id: String,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "inputs are moved one by one, not stored in numbers")]
pub enum Input {
    /// The node's own IMDS answered a round of questions.
    ImdsAnswered(Reading),
    /// It did not: refused, timed out, 401 again after a new token, 5xx, or an answer that cannot be read.
    ImdsFailed,
    /// This very process received a notice for this instance from the queue.
    Noticed { notice: Notice, deadline: Option<Deadline> },
    /// The Interruption that is named after this instance, as the API server has it now; `None` where there is none.
    RecordSeen(Option<Record>),
    /// The node, as the API server has it now.
    NodeSeen(Node),
    /// All pods of this node.
    PodsListed(Vec<Pod>),
    /// One pod of this node is new or has changed.
    PodSeen(Pod),
    /// A pod's object is gone.
    PodGone(PodUid),
    /// [`Effect::Mark`] or [`Effect::Unmark`] was answered.
    Marked(Outcome),
    /// [`Effect::RecordNotice`] was answered.
    NoticeRecorded { key: NoticeKey, outcome: Outcome },
    /// [`Effect::RecordStatus`] was answered.
    StatusRecorded(Outcome),
    /// [`Effect::Ask`] was answered.
    Asked { uid: PodUid, verb: Verb, answer: Answer },
}

/// What IMDS said in one round of questions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub spot: Option<SpotAction>,
    /// The `noticeTime` of a rebalance recommendation.
    pub rebalance: Option<Timestamp>,
    /// The scheduled events; `None` where this round did not ask for them.
    pub scheduled: Option<Vec<ScheduledEvent>>,
    /// `autoscaling/target-lifecycle-state`; `None` where this round did not ask for it, or there is none.
    pub lifecycle: Option<String>,
}

/// `spot/instance-action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpotAction {
    pub action: Action,
    pub deadline: Deadline,
}

/// One entry of `events/maintenance/scheduled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledEvent {
    pub event_id: String,
    pub code: ScheduleCode,
    /// `NotBefore`, placed on our clock.
    pub not_before: Deadline,
    /// `completed` or `canceled`, rather than `active`.
    pub over: bool,
}

/// The Interruption of this instance as it was read, its deadlines placed on our clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its resourceVersion.
    pub version: String,
    /// `spec.nodeName` and `spec.providerID`: a record that contradicts the node is ignored.
    pub node: String,
    pub provider_id: String,
    pub notices: Vec<(NoticeEntry, Option<Deadline>)>,
    pub status: InterruptionStatus,
    /// `status.deadline`, placed on our clock.
    pub deadline: Option<Deadline>,
    /// For how long pods had been asked when it was read: since `status.timeline.firstEvictionAt`.
    pub asked_for: Option<Duration>,
}

/// How a write to the API server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// Refused for good as it is (403, 422): trying again soon is pointless, and what stands in the way is said.
    Refused(String),
    /// It may work later (time-out, 5xx, 429, connection lost).
    Failed(String),
}

/// How the API server answered when a pod was asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod is going.
    Accepted,
    /// 404, or another pod has the name by now.
    Gone,
    /// 429 of a PodDisruptionBudget, which is named where the answer does.
    Blocked { budget: Option<String> },
    /// 500: more than one budget selects the pod, which the eviction API never lets through.
    TooManyBudgets,
    /// 429 without a budget: the API server is busy.
    Throttled { retry_after: Option<Duration> },
    /// 403: a permission is missing, which is named.
    Forbidden(String),
    /// Time-out, 5xx, connection lost: it may or may not have happened.
    Failed(String),
}

/// How a pod is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Through `pods/eviction`, which asks its budget.
    Evict,
    /// By deleting it, whatever its budget says.
    Delete,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Say it at the node's notice endpoint. Comes before every effect that needs the network.
    Tell(Announcement),
    /// Say nothing there any more.
    Retract,
    /// Bring the node to this mark, in one patch. Answered by [`Input::Marked`].
    Mark(Mark),
    /// Undo exactly what our annotation says that we did. Answered by [`Input::Marked`].
    Unmark,
    /// Server-side apply this entry. Answered by [`Input::NoticeRecorded`].
    RecordNotice(NoticeEntry),
    /// Write the status. Answered by [`Input::StatusRecorded`].
    RecordStatus(Box<InterruptionStatus>),
    /// Write the status, where the record is still of this version. Answered by [`Input::StatusRecorded`].
    RecordStatusOn { version: String, status: Box<InterruptionStatus> },
    /// List the node's pods, then watch them: `PodsListed`, `PodSeen`, `PodGone`, and `PodsListed` again when the
    /// watch had to start anew.
    WatchPods,
    /// Stop watching them.
    ForgetPods,
    /// Ask a pod to go. Answered by [`Input::Asked`].
    Ask(Ask),
    /// Ask IMDS at this pace from now on.
    PollImds(Pace),
    /// This node will not be there much longer: give up what others can do, such as the lease for the queue.
    StandDown,
    /// It may take part again.
    StandUp,
    /// A decision: a log line, and where people should see it an event on the Node and the Interruption.
    Decided(Because),
}

/// How a pod is asked to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub verb: Verb,
    pub uid: PodUid,
    pub namespace: String,
    pub name: String,
    /// `gracePeriodSeconds`; `None` leaves the pod its own.
    pub grace_secs: Option<u32>,
    pub because: Because,
}

/// How often IMDS is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As configured (every second).
    Usual,
    /// Every 250 ms, including the scheduled events and the lifecycle state: a notice waits for its word.
    Urgent,
}

/// What the workloads on the node are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub instance: InstanceId,
    pub node: String,
    pub episode: i64,
    pub kind: Kind,
    /// `terminate`, `stop`, `hibernate`, or a scheduled event's code.
    pub action: Option<String>,
    pub deadline: Option<Deadline>,
    /// When it was confirmed.
    pub since: Instant,
    /// The `noticeTime` of a rebalance recommendation, where there is one.
    pub rebalance: Option<Timestamp>,
}
