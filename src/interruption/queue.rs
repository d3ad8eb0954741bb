//! What becomes of a message that was read from the queue.
//!
//! A message is deleted only after what it says is in the API, and a message that cannot be read is never deleted:
//! the queue's redrive policy brings it to the dead-letter queue, where a person finds it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::api::interruption::NoticeEntry;
use crate::domain::notice::{InstanceId, Notice};
use crate::domain::wire::ParseError;
use crate::domain::wire::queue::{NotForUs, Parsed};

/// How old a message about an instance without a node must be to be deleted: younger ones may speak of a node that is
/// just joining.
pub const JOINING_AGE: Duration = Duration::from_secs(60);

/// At how many receives such a message is deleted whatever its age, before a redrive policy takes it for poison.
pub const JOINING_RECEIVES: u32 = 3;

/// When such a message is looked at again. Three looks, this far apart, are about [`JOINING_AGE`].
pub const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// From the receive after this one on, a message that cannot be dealt with is hidden for longer and longer: where no
/// redrive policy takes it to a dead-letter queue, it must not come twice a minute for as long as the queue keeps it.
const PATIENT_RECEIVES: u32 = 3;

/// The first and the longest of these pauses.
const PAUSE_FIRST: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// The queue's own word on a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// `ApproximateReceiveCount`: 1 at the first receive.
    pub receives: u32,
    /// The time since `SentTimestamp`; zero where that lies ahead.
    pub age: Duration,
}

impl Delivery {
    /// How long it stays hidden where it could not be dealt with; `None` leaves that to its visibility time-out.
    pub fn pause(self) -> Option<Duration> {
        let beyond = self.receives.checked_sub(PATIENT_RECEIVES + 1)?;
        Some(PAUSE_FIRST.saturating_mul(1 << beyond.min(8)).min(PAUSE_MAX))
    }

    /// Whether a node for its instance is still waited for.
    fn may_be_joining(self) -> bool {
        self.age < JOINING_AGE && self.receives < JOINING_RECEIVES
    }
}

/// The node that runs on an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRef {
    pub name: String,
    pub uid: String,
    pub provider_id: String,
}

/// An entry to be written into the Interruption of a node's instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForNode {
    pub node: NodeRef,
    pub notice: Notice,
    pub entry: NoticeEntry,
}

/// What is to be done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Write these, then do what follows. Where a write fails, do not delete it: the message comes again after
    /// [`Delivery::pause`], and what was written before is not changed by writing it again.
    Record {
        entries: Vec<ForNode>,
        then: Then,
        /// Instances of the message that could not be read, to be logged.
        problems: Vec<ParseError>,
    },
    /// It asks nothing of this cluster.
    Delete { because: Discarded },
    /// It is not deleted.
    Leave {
        because: Left,
        /// Make it visible again after this time; `None` leaves that to its visibility time-out.
        again_in: Option<Duration>,
    },
}

/// What follows when the entries of a message have been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// All it says is in the API. `strangers` of its instances are not in this cluster.
    Delete { strangers: usize },
    /// Some of its instances may just be joining: make it visible again after this time.
    Release { after: Duration },
}

/// Why a message is deleted without a trace in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discarded {
    NotForUs(NotForUs),
    /// No node of this cluster runs on any of its instances, and none has come in the meantime.
    NotInThisCluster {
        instances: usize,
    },
}

/// Why a message is left in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Poison: it is for the dead-letter queue.
    Unreadable(ParseError),
    /// None of its instances has a node yet.
    MayBeJoining { instances: usize },
}

impl Discarded {
    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotForUs(why) => why.reason(),
            Self::NotInThisCluster { .. } => "NotInThisCluster",
        }
    }
}

impl Left {
    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "Unreadable",
            Self::MayBeJoining { .. } => "MayBeJoining",
        }
    }
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotForUs(why) => why.fmt(f),
            Self::NotInThisCluster { instances } => {
                write!(f, "no node of this cluster runs on its instances ({instances})")
            }
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "{error}; it is left for the dead-letter queue"),
            Self::MayBeJoining { instances } => {
                write!(f, "its instances ({instances}) have no node yet and may be joining")
            }
        }
    }
}

/// Decides what becomes of a message.
///
/// `node_of` must know all nodes of the cluster: while the watch on them has not been listed once, messages must not
/// be received at all. `reporter` is the node of the one who reads, `now` goes into the entries as `noticedAt`.
pub fn dispose(
    parsed: Result<Parsed, ParseError>,
    delivery: Delivery,
    reporter: &str,
    now: Timestamp,
    node_of: impl Fn(&InstanceId) -> Option<NodeRef>,
) -> Disposition {
    let message = match parsed {
        Ok(Parsed::Message(message)) => message,
        Ok(Parsed::NotForUs(why)) => {
            return Disposition::Delete { because: Discarded::NotForUs(why) };
        }
        Err(error) => {
            return Disposition::Leave { because: Left::Unreadable(error), again_in: delivery.pause() };
        }
    };
    let instances = message.notices.len();
    let entries: Vec<ForNode> = message
        .notices
        .into_iter()
        .filter_map(|notice| {
            let node = node_of(&notice.instance)?;
            let entry = entry(&notice, reporter, now);
            Some(ForNode { node, notice, entry })
        })
        .collect();
    let strangers = instances - entries.len();
    match (entries.is_empty(), strangers > 0 && delivery.may_be_joining()) {
        (true, true) => Disposition::Leave { because: Left::MayBeJoining { instances }, again_in: Some(LOOK_AGAIN) },
        (true, false) => Disposition::Delete { because: Discarded::NotInThisCluster { instances } },
        (false, joining) => Disposition::Record {
            entries,
            then: if joining { Then::Release { after: LOOK_AGAIN } } else { Then::Delete { strangers } },
            problems: message.problems,
        },
    }
}

/// The entry of the Interruption that a notice becomes.
pub fn entry(notice: &Notice, reporter: &str, noticed_at: Timestamp) -> NoticeEntry {
    NoticeEntry {
        source: notice.source,
        kind: notice.subject.kind(),
        event_id: notice.event_id.clone(),
        action: notice.subject.action(),
        reporter: Some(reporter.to_owned()),
        noticed_at: Some(noticed_at),
        deadline: notice.deadline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::notice::{Action, ScheduleCode, Source, Subject};
    use crate::domain::wire::queue::Message;

    const OURS: &str = "i-0123456789abcdef0";
    const THEIRS: &str = "i-0fedcba9876543210";
    const FIRST: Delivery = Delivery { receives: 1, age: Duration::from_secs(1) };

    fn message(instances: &[&str]) -> Result<Parsed, ParseError> {
        let notice = |id: &&str| Notice {
            instance: id.parse().unwrap(),
            source: Source::Sqs,
            subject: Subject::ScheduledChange(ScheduleCode("system-reboot".into())),
            event_id: "arn:1".into(),
            deadline: Some("2026-06-05T15:10:09Z".parse().unwrap()),
        };
        Ok(Parsed::Message(Message { notices: instances.iter().map(notice).collect(), problems: Vec::new() }))
    }

    fn disposed(parsed: Result<Parsed, ParseError>, delivery: Delivery) -> Disposition {
        let now = "2026-05-20T00:00:00Z".parse().unwrap();
        dispose(parsed, delivery, "node-r", now, |id| {
            (id.as_str() == OURS).then(|| NodeRef {
                name: "node-1".into(),
                uid: "uid-1".into(),
                provider_id: format!("aws:///eu-west-1a/{OURS}"),
            })
        })
    }

    #[test]
    fn what_is_about_our_node_is_written_and_then_deleted() {
        let Disposition::Record { entries, then, .. } = disposed(message(&[OURS]), FIRST) else { panic!() };
        assert_eq!(then, Then::Delete { strangers: 0 });
        assert_eq!(entries[0].node.name, "node-1");
        let entry = &entries[0].entry;
        assert_eq!(entry.key().to_string(), "sqs/ScheduledChange/arn:1");
        assert_eq!(entry.reporter.as_deref(), Some("node-r"));
        assert_eq!(entry.action.as_deref(), Some("system-reboot"));
        assert!(entry.noticed_at.is_some() && entry.deadline.is_some());
    }

    #[test]
    fn a_stranger_is_waited_for_until_it_is_old_or_came_often() {
        let at = |receives, secs| Delivery { receives, age: Duration::from_secs(secs) };
        for (delivery, waits) in [
            (at(1, 0), true),
            (at(2, 59), true),
            (at(3, 40), false),
            (at(1, 60), false),
            (at(u32::MAX, u64::MAX), false),
        ] {
            let expected = if waits {
                Disposition::Leave { because: Left::MayBeJoining { instances: 1 }, again_in: Some(LOOK_AGAIN) }
            } else {
                Disposition::Delete { because: Discarded::NotInThisCluster { instances: 1 } }
            };
            assert_eq!(disposed(message(&[THEIRS]), delivery), expected, "{delivery:?}");
        }
    }

    #[test]
    fn our_nodes_of_a_message_are_written_at_once_though_others_may_be_joining() {
        let old = Delivery { receives: 2, age: JOINING_AGE };
        for (delivery, expected) in [(FIRST, Then::Release { after: LOOK_AGAIN }), (old, Then::Delete { strangers: 1 })]
        {
            let Disposition::Record { entries, then, .. } = disposed(message(&[THEIRS, OURS]), delivery) else {
                panic!()
            };
            assert_eq!((entries.len(), then), (1, expected));
        }
    }

    #[test]
    fn poison_is_left_and_what_is_not_for_us_deleted_however_often_they_come() {
        for (receives, pause_secs) in [(1, None), (3, None), (4, Some(60)), (6, Some(240)), (1_000, Some(900))] {
            let delivery = Delivery { receives, age: JOINING_AGE * receives };
            let error = ParseError::Missing { what: "the message", field: "id" };
            let again_in = pause_secs.map(Duration::from_secs);
            let expected = Disposition::Leave { because: Left::Unreadable(error.clone()), again_in };
            assert_eq!(disposed(Err(error), delivery), expected);
            assert_eq!(
                disposed(Ok(Parsed::NotForUs(NotForUs::TestNotification)), delivery),
                Disposition::Delete { because: Discarded::NotForUs(NotForUs::TestNotification) }
            );
        }
    }

    #[test]
    fn a_spot_warning_is_recorded_with_its_action() {
        let notice = Notice {
            instance: OURS.parse().unwrap(),
            source: Source::Sqs,
            subject: Subject::SpotInterruption(Action::Stop),
            event_id: "e".into(),
            deadline: None,
        };
        let entry = entry(&notice, "node-r", Timestamp::UNIX_EPOCH);
        assert_eq!(entry.action.as_deref(), Some("stop"));
        assert_eq!(Subject::from_record(entry.kind, entry.action.as_deref()), Some(notice.subject));
    }
}
