//! What EC2 says of an instance that a notice is about: the third witness, beside the node's own metadata service and the
//! queue. And of one that was taken while nobody heard of it.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::interruption::{InterruptionStatus, NoticeEntry, Phase};
use crate::domain::notice::{Action, InstanceId, InstanceState, Kind, Source};
use crate::interruption::merge::{SETTLED_MAX, settled};
use crate::provision::Block;

/// How many instances are looked at in one call.
pub const LOOK_MAX: usize = 200;

/// How often EC2 is looked at for one notice, at most.
pub const LOOKS_MAX: u32 = 60;

/// For how long, where a notice has no deadline.
pub const LOOKS_FOR: Duration = Duration::from_secs(120);

/// How soon after the first word of a notice, and after each look the next.
pub const FIRST_LOOK: Duration = Duration::from_secs(1);
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(5)];

/// The pause after so many looks.
pub fn pause(looks: u32) -> Duration {
    let nth = usize::try_from(looks.saturating_sub(1)).unwrap_or(usize::MAX);
    PAUSES[nth.min(PAUSES.len() - 1)]
}

/// A reservation that ends later than this does not end because of a warning.
const ENDS_SOON: SignedDuration = SignedDuration::from_hours(2);

/// The event of a notice that an instance was taken and nobody had heard of it. An instance ends but once.
pub const ENDED: &str = "ended";

/// How long before the end of a capacity block its nodes are to be empty: EC2 ends the instances from half an hour before
/// it, and announces that ten minutes earlier.
const BLOCK_EMPTY: SignedDuration = SignedDuration::from_mins(40);

/// How long they have for it.
const BLOCK_DRAIN: SignedDuration = SignedDuration::from_mins(10);

/// The notice that an instance's capacity block ends, when it is time for it.
pub fn block_ends(block: &Block, wall: Timestamp) -> Option<NoticeEntry> {
    let ends = block.ends?;
    (ends.duration_since(wall) <= BLOCK_EMPTY + BLOCK_DRAIN).then(|| NoticeEntry {
        source: Source::Provisioner,
        kind: Kind::CapacityBlockEnding,
        event_id: block.reservation.clone(),
        action: None,
        reporter: None,
        noticed_at: Some(wall),
        deadline: ends.checked_sub(BLOCK_EMPTY).ok(),
    })
}

/// What EC2 says of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub instance: InstanceId,
    pub state: InstanceState,
    /// It is EC2 that has brought it to that state (`StateReason` is `Server.…`), not somebody (`Client.…`).
    pub by_ec2: bool,
    /// What its spot request is marked for: `marked-for-termination`, `-stop`, `-hibernation`.
    pub marked: Option<Action>,
    /// When the capacity reservation ends that it runs in, where that was asked for and is known.
    pub reserved_until: Option<Timestamp>,
}

/// What EC2 says that bears a notice out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    Marked(Action),
    Taken(InstanceState),
    ReservationEnds(Timestamp),
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marked(action) => write!(f, "EC2 has marked its spot request for it ({action})"),
            Self::Taken(state) => write!(f, "EC2 itself has brought the instance to {state}"),
            Self::ReservationEnds(at) => write!(f, "EC2 ends the reservation that it runs in at {at}"),
        }
    }
}

/// EC2 could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotSeen {
    /// It asks for fewer calls.
    pub throttled: bool,
    pub why: String,
}

impl Sight {
    /// The state that EC2 itself has brought it to.
    fn taken(&self) -> Option<InstanceState> {
        let going = !matches!(self.state, InstanceState::Pending | InstanceState::Running);
        (self.by_ec2 && going).then_some(self.state)
    }

    /// Whether EC2 takes it, by whatever it says.
    pub fn is_taken(&self) -> bool {
        self.marked.is_some() || self.taken().is_some() || self.reserved_until.is_some()
    }

    /// What bears out a notice of this kind, at this time.
    pub fn evidence(&self, kind: Kind, wall: Timestamp) -> Option<Evidence> {
        let taken = self.taken().map(Evidence::Taken);
        match kind {
            Kind::SpotInterruption => self.marked.map(Evidence::Marked).or(taken),
            Kind::StateChange => taken,
            Kind::CapacityReservationInterruption | Kind::CapacityBlockEnding => {
                let soon = |at: &Timestamp| at.duration_since(wall) <= ENDS_SOON;
                self.reserved_until.filter(soon).map(Evidence::ReservationEnds).or(taken)
            }
            Kind::RebalanceRecommendation | Kind::ScheduledChange | Kind::AutoScalingTermination | Kind::Requested => {
                None
            }
        }
    }
}

/// Whether EC2 has anything to say of notices of this kind.
fn is_in_ec2(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::SpotInterruption | Kind::StateChange | Kind::CapacityReservationInterruption | Kind::CapacityBlockEnding
    )
}

/// Whether the reservation that the instance runs in bears on notices of this kind.
pub fn is_of_reservation(kind: Kind) -> bool {
    matches!(kind, Kind::CapacityReservationInterruption | Kind::CapacityBlockEnding)
}

/// The notices of a record that the queue alone has told, that are not over, and of which EC2 can be asked.
pub fn unconfirmed<'a>(notices: &'a [NoticeEntry], over: &'a [String]) -> impl Iterator<Item = &'a NoticeEntry> {
    let open = |entry: &NoticeEntry| !over.contains(&settled(entry));
    let told_otherwise = move |entry: &NoticeEntry| {
        notices.iter().any(|other| {
            let by_imds = other.source == Source::Imds && other.kind == entry.kind && open(other);
            let seen =
                other.source == Source::Provisioner && (other.kind, &other.event_id) == (entry.kind, &entry.event_id);
            by_imds || seen
        })
    };
    notices
        .iter()
        .filter(|entry| entry.source == Source::Sqs && is_in_ec2(entry.kind))
        .filter(move |entry| !over.contains(&settled(entry)) && !told_otherwise(entry))
}

/// What was seen, as a notice beside the one that it bears out.
pub fn notice(of: &NoticeEntry, evidence: Evidence, wall: Timestamp) -> NoticeEntry {
    let action = match evidence {
        Evidence::Marked(action) => Some(action.as_str().to_owned()),
        _ => of.action.clone(),
    };
    let deadline = match evidence {
        Evidence::ReservationEnds(at) => of.deadline.or(Some(at)),
        _ => of.deadline,
    };
    NoticeEntry { source: Source::Provisioner, reporter: None, noticed_at: Some(wall), action, deadline, ..of.clone() }
}

/// The notice that EC2 has taken an instance, and nobody had heard of it.
pub fn unheard(state: InstanceState, wall: Timestamp) -> NoticeEntry {
    NoticeEntry {
        source: Source::Provisioner,
        kind: Kind::StateChange,
        event_id: ENDED.to_owned(),
        action: Some(state.as_str().to_owned()),
        reporter: None,
        noticed_at: Some(wall),
        deadline: None,
    }
}

/// Whether a notice is one of [`unheard`].
pub fn is_unheard(entry: &NoticeEntry) -> bool {
    (entry.source, entry.kind) == (Source::Provisioner, Kind::StateChange) && entry.event_id == ENDED
}

/// The status of a record whose instance was taken unheard: it is over, with everything that the record tells of, so that
/// nobody begins to drain a node that is no more. `None` where somebody has heard of it meanwhile.
pub fn taken(
    status: &InterruptionStatus,
    notices: &[NoticeEntry],
    because: String,
    wall: Timestamp,
) -> Option<InterruptionStatus> {
    let phase = status.phase.unwrap_or(Phase::Noticed);
    let over = |entry: &&NoticeEntry| status.settled.contains(&settled(entry));
    if phase == Phase::Gone && notices.iter().filter(over).any(is_unheard) {
        return None;
    }
    // A rebalance recommendation that was heeded is no word of the end.
    let heard = phase >= Phase::Confirmed && !phase.ends_episode();
    // Without a kind nobody can have acted on it: it was edited by hand.
    if heard && status.kind.is_some_and(|kind| kind != Kind::RebalanceRecommendation) {
        return None;
    }
    let mut next = status.clone();
    // What has ended was another life of it.
    if phase.ends_episode() || next.episode == 0 {
        next.episode += 1;
        next.timeline = Default::default();
        next.pods = Default::default();
        next.deadline = None;
    }
    next.replacement = None;
    next.phase = Some(Phase::Gone);
    next.kind = Some(Kind::StateChange);
    next.because = Some(because);
    next.timeline.noticed_at.get_or_insert(wall);
    next.timeline.ended_at = Some(wall);
    for entry in notices {
        let what = settled(entry);
        if !next.settled.contains(&what) {
            next.settled.push(what);
        }
    }
    let surplus = next.settled.len().saturating_sub(SETTLED_MAX);
    next.settled.drain(..surplus);
    Some(next)
}

#[cfg(test)]
mod tests;
