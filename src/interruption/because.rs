//! The reasons of decisions, as values: the log line, the Kubernetes event, the metric's label and the record's
//! `because` are printed from them.

use std::fmt;
use std::time::Duration;

use crate::api::interruption::NoticeKey;
use crate::domain::notice::{Kind, Source};

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// A notice was heard that was not known before.
    Noticed { notice: NoticeKey, left: Option<Duration> },
    /// A notice of another source said the same.
    SaidAgain { notice: NoticeKey },
    /// It counts from now on.
    Confirmed { kind: Kind, by: Confirmation, left: Option<Duration> },
    /// IMDS denied it to the end.
    Refuted { notice: NoticeKey, denials: u32 },
    /// Its deadline had passed before it could be confirmed, and the instance still runs.
    Stale { notice: NoticeKey },
    /// The policy for rebalance recommendations is `Ignore`.
    Ignored { kind: Kind },
    /// There is nothing on the node that could confirm a notice of this kind; it is recorded only.
    RecordedOnly { kind: Kind },
    /// A scheduled event is far ahead: the drain begins later.
    Scheduled { begins_in: Duration },
    /// The API server acknowledged the mark.
    Cordoned,
    /// The node could not be marked; it is tried again.
    MarkFailed { why: String },
    /// The pods are being asked to go.
    Draining { pods: usize, left: Option<Duration> },
    /// Evictions wait for the replacement (`CapacityFirst`).
    Held { claim: String },
    /// The replacement is Ready: what waited for it goes on.
    ReplacementReady { claim: String },
    /// No replacement comes, or none is needed.
    NoReplacement { why: String },
    /// The provisioner has not said a word about a replacement.
    NobodyAnswers,
    /// A drain without a deadline has waited for a replacement for as long as it does.
    WaitedLongEnough { waited: Duration },
    /// The node's agent is silent (or leaves it to the provisioner): the provisioner drains.
    StandsIn { silent: Duration },
    /// The provisioner that led before had taken over: this one goes on.
    GoesOn,
    /// The agent is back, and drains itself.
    HandedBack,
    /// The provisioner has taken over while this agent was silent.
    Yielded,
    /// The provisioner that had taken over is silent.
    TakenBack,
    /// The provisioner cordons and drains (`--drain-by=provisioner`).
    LeftToProvisioner,
    /// The agent has ended the episode.
    EndedByAgent,
    /// An annotation of the Node cannot be used.
    PolicyUnread { why: String },
    /// Asked as the plan says.
    Planned,
    /// A PodDisruptionBudget (or what else is named) did not allow it; asked again until the latest start.
    Blocked { pod: String, by: String },
    /// The latest moment from which the pod's grace still fits.
    LatestStart { pod: String, by: Option<String> },
    /// The pod had been given a grace that ends after the deadline.
    Outlives { pod: String },
    /// A permission is missing.
    Forbidden { pod: String, why: String },
    /// No pod is left that the drain is about.
    Empty { spare: Option<Duration> },
    /// The deadline came first.
    Missed { left: usize },
    /// The announcement was withdrawn.
    Withdrawn { notice: NoticeKey },
    /// An episode was open, and nothing that is announced belongs to it any more.
    NothingAnnounced,
    /// A scheduled event was moved to a later time.
    Rescheduled { notice: NoticeKey },
    /// The instance has started anew.
    Rebooted,
    /// Only marking was asked for.
    CordonOnly,
    /// The record says another node than ours.
    Contradicted { record: String },
    /// The record could not be written; the drain goes on without it.
    RecordFailed { why: String },
    /// So many notices are known that one more by the queue is not heeded.
    Crowded { notice: NoticeKey },
    /// The agent lacks what it needs to keep its node.
    NotReady { why: String },
}

/// Who confirmed a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// The instance's own metadata service says it, too.
    Imds,
    /// The metadata service is not healthy, so the queue is believed.
    ImdsUnhealthy,
    /// A person asked for it.
    Operator,
    /// The provisioner saw it in EC2.
    Provisioner,
    /// The provisioner asks for it: another node has taken this one's place.
    Asked,
}

impl Because {
    /// The reason in one CamelCase word: an event's `reason`, a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Noticed { .. } => "Noticed",
            Self::SaidAgain { .. } => "SaidAgain",
            Self::Confirmed { .. } => "Confirmed",
            Self::Refuted { .. } => "Refuted",
            Self::Stale { .. } => "Stale",
            Self::Ignored { .. } => "Ignored",
            Self::RecordedOnly { .. } => "RecordedOnly",
            Self::Scheduled { .. } => "Scheduled",
            Self::Cordoned => "Cordoned",
            Self::MarkFailed { .. } => "MarkFailed",
            Self::Draining { .. } => "Draining",
            Self::Held { .. } => "Held",
            Self::ReplacementReady { .. } => "ReplacementReady",
            Self::NoReplacement { .. } => "NoReplacement",
            Self::NobodyAnswers => "NobodyAnswers",
            Self::WaitedLongEnough { .. } => "WaitedLongEnough",
            Self::StandsIn { .. } => "StandsIn",
            Self::GoesOn => "GoesOn",
            Self::HandedBack => "HandedBack",
            Self::Yielded => "Yielded",
            Self::TakenBack => "TakenBack",
            Self::LeftToProvisioner => "LeftToProvisioner",
            Self::EndedByAgent => "EndedByAgent",
            Self::PolicyUnread { .. } => "PolicyUnread",
            Self::Planned => "Planned",
            Self::Blocked { .. } => "Blocked",
            Self::LatestStart { .. } => "LatestStart",
            Self::Outlives { .. } => "Outlives",
            Self::Forbidden { .. } => "Forbidden",
            Self::Empty { .. } => "Empty",
            Self::Missed { .. } => "Missed",
            Self::Withdrawn { .. } => "Withdrawn",
            Self::NothingAnnounced => "NothingAnnounced",
            Self::Rescheduled { .. } => "Rescheduled",
            Self::Rebooted => "Rebooted",
            Self::CordonOnly => "CordonOnly",
            Self::Contradicted { .. } => "Contradicted",
            Self::RecordFailed { .. } => "RecordFailed",
            Self::Crowded { .. } => "Crowded",
            Self::NotReady { .. } => "NotReady",
        }
    }

    /// Whether it is worth an event beside its log line. What is only said again is not, nor is what IMDS announces, which
    /// is confirmed in the same moment: in a storm every event is one more write for an API server that has none to spare.
    pub fn is_event(&self) -> bool {
        match self {
            Self::SaidAgain { .. } => false,
            Self::Noticed { notice, .. } => notice.source != Source::Imds,
            _ => true,
        }
    }

    /// Whether a person should look at it: a Warning event, a log line at `warn`.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::MarkFailed { .. }
                | Self::Forbidden { .. }
                | Self::LatestStart { .. }
                | Self::Missed { .. }
                | Self::Contradicted { .. }
                | Self::RecordFailed { .. }
                | Self::PolicyUnread { .. }
                | Self::Crowded { .. }
                | Self::NotReady { .. }
                | Self::TakenBack
        ) || matches!(self, Self::StandsIn { silent } if !silent.is_zero())
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noticed { notice, left: Some(left) } => {
                write!(f, "{notice} was announced, {} before its deadline", secs(left))
            }
            Self::Noticed { notice, left: None } => {
                write!(f, "{notice} was announced, without a deadline")
            }
            Self::SaidAgain { notice } => write!(f, "{notice} says the same"),
            Self::Confirmed { kind, by, left } => {
                write!(f, "{kind} is confirmed: {by}")?;
                left.iter().try_for_each(|left| write!(f, "; {} left", secs(left)))
            }
            Self::Refuted { notice, denials } => {
                write!(
                    f,
                    "{notice} was denied by a healthy IMDS in all of {denials} answers until its deadline came near"
                )
            }
            Self::Stale { notice } => {
                write!(f, "{notice} has a deadline that passed before it was heard, and the instance still runs")
            }
            Self::Ignored { kind } => write!(f, "the policy for {kind} is Ignore"),
            Self::RecordedOnly { kind } => {
                write!(f, "nothing on the node can confirm {kind}: it is recorded and evicts nothing")
            }
            Self::Scheduled { begins_in } => {
                write!(f, "the scheduled event is far ahead: the drain begins in {}", secs(begins_in))
            }
            Self::Cordoned => f.write_str("the node takes no new pods"),
            Self::MarkFailed { why } => {
                write!(f, "the node could not be marked, trying again: {why}")
            }
            Self::Draining { pods, left: Some(left) } => write!(f, "{pods} pods are to go, {} left", secs(left)),
            Self::Draining { pods, left: None } => {
                write!(f, "{pods} pods are asked to go, without a deadline")
            }
            Self::Held { claim } => write!(f, "evictions wait for the replacement, NodeClaim {claim}"),
            Self::ReplacementReady { claim } => write!(f, "the replacement is Ready: NodeClaim {claim}"),
            Self::NoReplacement { why } => write!(f, "no replacement is waited for: {why}"),
            Self::NobodyAnswers => {
                f.write_str("no provisioner has said anything of a replacement: the pods are asked to go now")
            }
            Self::WaitedLongEnough { waited } => {
                write!(f, "the replacement did not become Ready within {}: it is waited for no longer", secs(waited))
            }
            Self::StandsIn { silent } if silent.is_zero() => {
                f.write_str("the provisioner drains this node, as its agent was told to let it")
            }
            Self::StandsIn { silent } => {
                write!(f, "the node's agent has been silent for {}: the provisioner drains in its place", secs(silent))
            }
            Self::GoesOn => f.write_str("another provisioner had taken this drain over: this one goes on with it"),
            Self::HandedBack => f.write_str("the node's agent is back and drains itself"),
            Self::Yielded => f.write_str("the provisioner has taken this drain over, and is let finish it"),
            Self::TakenBack => {
                f.write_str("the provisioner that had taken this drain over is silent: it is taken back")
            }
            Self::LeftToProvisioner => f.write_str("the provisioner cordons and drains (--drain-by=provisioner)"),
            Self::EndedByAgent => f.write_str("the node's agent has ended it"),
            Self::PolicyUnread { why } => {
                write!(f, "an annotation of the node is ignored and the agent's flag holds: {why}")
            }
            Self::Planned => f.write_str("as planned"),
            Self::Blocked { pod, by } => write!(f, "{pod} cannot be evicted yet: {by}"),
            Self::LatestStart { pod, by: Some(by) } => {
                write!(f, "{pod} is deleted at its latest start, because {by} never allowed its eviction")
            }
            Self::LatestStart { pod, by: None } => {
                write!(f, "{pod} is deleted at its latest start, because its eviction was not answered")
            }
            Self::Outlives { pod } => {
                write!(f, "{pod} was given a grace that ends after the deadline: it is shortened")
            }
            Self::Forbidden { pod, why } => write!(f, "{pod} may not be asked to go: {why}"),
            Self::Empty { spare: Some(spare) } => {
                write!(f, "the node is empty, {} before the deadline", secs(spare))
            }
            Self::Empty { spare: None } => f.write_str("the node is empty"),
            Self::Missed { left } => {
                write!(f, "the deadline has come with {left} pods left: nothing is asked any more")
            }
            Self::Withdrawn { notice } => write!(f, "{notice} was withdrawn"),
            Self::NothingAnnounced => f.write_str("what was announced was withdrawn while no agent looked"),
            Self::Rescheduled { notice } => write!(f, "{notice} was moved to a later time"),
            Self::Rebooted => f.write_str("the instance has started anew"),
            Self::CordonOnly => f.write_str("only marking the node was asked for (--cordon-only)"),
            Self::Contradicted { record } => {
                write!(f, "the Interruption of this instance names {record}: it is ignored; delete it")
            }
            Self::RecordFailed { why } => {
                write!(f, "the Interruption could not be written, the drain goes on without it: {why}")
            }
            Self::Crowded { notice } => {
                write!(f, "{notice} is not heeded: more notices of the queue wait for IMDS's word than can be true")
            }
            Self::NotReady { why } => write!(f, "the node is not kept: {why}"),
        }
    }
}

impl fmt::Display for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imds => "IMDS says so",
            Self::ImdsUnhealthy => "IMDS is not healthy, so the queue is believed",
            Self::Operator => "a person asked for it",
            Self::Provisioner => "the provisioner saw it in EC2",
            Self::Asked => "the provisioner asks for it",
        })
    }
}

fn secs(duration: &Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
