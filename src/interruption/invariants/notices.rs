//! What is announced and confirmed, as a witness works it out from the inputs alone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::MustDrain;
use crate::api::interruption::{NoticeEntry, NoticeKey, Phase};
use crate::domain::node::Node;
use crate::domain::notice::{InstanceId, Kind, Source, Subject};
use crate::domain::time::{Deadline, Epoch, Instant};
use crate::interruption::merge::{Anchor, effective_deadline_of, has_counterpart};
use crate::interruption::{Input, Policy, Reading, Rebalance, Record, ScheduledEvent};

/// How long a record waits for the node that it is about.
const NODE_AWAITED: Duration = Duration::from_secs(3);

/// How many notices, and how many that are over, are remembered.
const REMEMBERED_MAX: usize = 512;

/// One announcement.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) subject: Subject,
    announced: Option<Timestamp>,
    pub(super) deadline: Option<Instant>,
    confirmed: bool,
    /// Not only the record says it.
    said_here: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Announced {
    policy: Policy,
    node: Option<Node>,
    imds: ImdsSeen,
    said: BTreeMap<NoticeKey, Said>,
    /// Announcements that are over, and are not heard again.
    over: VecDeque<String>,
    record_read: bool,
    /// It has no IMDS, and takes the node's agent at its word; with its clock.
    stands_in: Option<Epoch>,
    /// A deadline of the record that none of its notices tells.
    recorded: Option<Instant>,
    /// A replacement of the node was Ready.
    replaced: bool,
    anchor: Anchor,
    /// A record that waits for its node; since when.
    awaiting_node: Option<(Instant, Option<Record>)>,
}

/// What IMDS said last, and whether it is to be believed.
#[derive(Clone, Debug, Default)]
struct ImdsSeen {
    failed_in_a_row: u32,
    reading: Reading,
}

impl ImdsSeen {
    fn unhealthy(&self) -> bool {
        self.failed_in_a_row >= 2
    }

    fn says(&self, kind: Kind) -> bool {
        let reading = &self.reading;
        self.failed_in_a_row == 0
            && match kind {
                Kind::SpotInterruption => reading.spot.is_some(),
                Kind::RebalanceRecommendation => reading.rebalance.is_some() || reading.spot.is_some(),
                Kind::ScheduledChange => reading.scheduled.iter().flatten().any(|event| !event.over),
                Kind::AutoScalingTermination => reading.lifecycle.as_deref() == Some("Terminated"),
                _ => false,
            }
    }
}

impl Announced {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            node: None,
            imds: ImdsSeen::default(),
            said: BTreeMap::new(),
            over: VecDeque::new(),
            record_read: false,
            stands_in: None,
            recorded: None,
            replaced: false,
            anchor: Anchor::default(),
            awaiting_node: None,
        }
    }

    /// Takes the node's agent at its word.
    pub(super) fn standing_in(self, epoch: Epoch) -> Self {
        Self { stands_in: Some(epoch), ..self }
    }

    pub(super) fn stands_in(&self) -> bool {
        self.stands_in.is_some()
    }

    /// The Node may say how it is to be treated.
    pub(super) fn obeys(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The deadlines that count.
    pub(super) fn deadlines(&self) -> Vec<Instant> {
        self.confirmed().filter_map(|said| said.deadline).chain(self.recorded).collect()
    }

    /// Whether a replacement of the node was Ready.
    pub(super) fn replaced(&self) -> bool {
        self.replaced
    }

    /// The announcements that count: of scheduled events those of IMDS, where it lists any.
    pub(super) fn confirmed(&self) -> impl Iterator<Item = &Said> {
        let scheduled = |key: &NoticeKey, by| key.source == by && key.kind == Kind::ScheduledChange;
        let imds_lists = self.said.iter().any(|(key, said)| said.confirmed && scheduled(key, Source::Imds));
        let counts = move |key: &NoticeKey| !(imds_lists && scheduled(key, Source::Sqs));
        self.said.iter().filter(move |(key, said)| said.confirmed && counts(key)).map(|(_, said)| said)
    }

    /// Whether the record of an earlier run was taken in.
    pub(super) fn record_read(&self) -> bool {
        self.record_read
    }

    pub(super) fn must_drain(&self) -> Option<MustDrain> {
        let drains = self.confirmed().filter(|said| said.subject.kind() != Kind::RebalanceRecommendation);
        drains
            .filter_map(|said| {
                let deadline = said.deadline?;
                let from = match said.subject {
                    Subject::ScheduledChange(_) => deadline - self.policy.scheduled_lead,
                    _ => Instant::default(),
                };
                Some(MustDrain { deadline: self.recorded.map_or(deadline, |at| at.min(deadline)), from })
            })
            .min_by_key(|must| must.deadline)
    }

    pub(super) fn input(&mut self, now: Instant, input: &Input) {
        match input {
            Input::ImdsAnswered(reading) => self.imds_answered(now, reading),
            Input::ImdsFailed => {
                self.imds.failed_in_a_row = self.imds.failed_in_a_row.saturating_add(1);
            }
            Input::Noticed { notice, deadline } if self.is_ours(&notice.instance) => {
                let key =
                    NoticeKey { source: notice.source, kind: notice.subject.kind(), event_id: notice.event_id.clone() };
                self.hear(now, key, notice.subject.clone(), *deadline, true);
            }
            Input::RecordSeen(record) => {
                let replacement = record.as_ref().and_then(|record| record.status.replacement.as_ref());
                self.replaced |= replacement.is_some_and(|of| of.ready);
                let since = self.awaiting_node.as_ref().map_or(now, |(since, _)| *since);
                self.awaiting_node = Some((since, record.clone()));
            }
            Input::NodeSeen(node) => self.node = Some(node.clone()),
            _ => {}
        }
        self.passes(now);
    }

    /// Time passes: a record is read when its node is known, or has been waited for long enough.
    pub(super) fn passes(&mut self, now: Instant) {
        let waits = |since: Instant| self.node.is_none() && now < since + NODE_AWAITED;
        if let Some((since, record)) = self.awaiting_node.take() {
            if record.is_some() && waits(since) {
                self.awaiting_node = Some((since, record));
            } else {
                self.record_seen(now, record.as_ref());
            }
        }
        self.confirm();
    }

    /// The announcement is over; says whether it was confirmed.
    pub(super) fn give_up(&mut self, key: &NoticeKey) -> bool {
        let key = slot(key);
        let Some(said) = self.said.remove(&key) else {
            return false;
        };
        self.put_aside(&key, said.announced);
        said.confirmed
    }

    /// The instance has started anew: what was announced for the boot before has happened.
    pub(super) fn rebooted(&mut self, now: Instant) {
        let happened = |key: &NoticeKey, said: &Said| {
            !said.said_here || key.kind == Kind::ScheduledChange || said.deadline.is_some_and(|deadline| deadline < now)
        };
        let over: Vec<NoticeKey> =
            self.said.iter().filter(|(key, said)| happened(key, said)).map(|(key, _)| key.clone()).collect();
        for key in over {
            self.give_up(&key);
        }
    }

    fn is_ours(&self, instance: &InstanceId) -> bool {
        let ours = self.node.as_ref().and_then(|node| node.provider_id.as_deref());
        ours.and_then(InstanceId::from_provider_id).is_none_or(|ours| ours == *instance)
    }

    fn imds_answered(&mut self, now: Instant, reading: &Reading) {
        self.imds.failed_in_a_row = 0;
        let listed_before = self.imds.reading.scheduled.clone();
        let scheduled = reading.scheduled.clone().or_else(|| self.imds.reading.scheduled.take());
        self.imds.reading = Reading { scheduled, ..reading.clone() };
        let key = |kind, event_id: &str| NoticeKey { source: Source::Imds, kind, event_id: event_id.to_owned() };
        if let Some(spot) = reading.spot {
            let id = spot.deadline.announced.to_string();
            let key = key(Kind::SpotInterruption, &id);
            self.hear(now, key, Subject::SpotInterruption(spot.action), Some(spot.deadline), true);
        }
        if let Some(noticed) = reading.rebalance {
            let key = key(Kind::RebalanceRecommendation, &noticed.to_string());
            self.hear(now, key, Subject::RebalanceRecommendation, None, true);
        }
        let Some(events) = &reading.scheduled else {
            return;
        };
        let active: Vec<_> = events.iter().filter(|event| !event.over).collect();
        let off = |key: &NoticeKey, said: &Said| {
            key.kind == Kind::ScheduledChange
                && match key.source {
                    Source::Imds => !active.iter().any(|event| event.event_id == key.event_id),
                    Source::Sqs => said.confirmed && active.is_empty(),
                    Source::Operator | Source::Provisioner => false,
                }
        };
        let off: Vec<NoticeKey> = self.said.iter().filter(|(k, s)| off(k, s)).map(|(k, _)| k.clone()).collect();
        for key in off {
            self.give_up(&key);
        }
        for event in active {
            let key = key(Kind::ScheduledChange, &event.event_id);
            let listed = |before: &Vec<ScheduledEvent>| before.iter().any(|b| !b.over && b.event_id == event.event_id);
            if listed_before.as_ref().is_some_and(|before| !listed(before)) && !event.not_before.passed(now) {
                let what = settled(&key, Some(event.not_before.announced));
                self.over.retain(|over| *over != what);
            }
            let subject = Subject::ScheduledChange(event.code.clone());
            self.hear(now, key, subject, Some(event.not_before), true);
        }
    }

    fn record_seen(&mut self, now: Instant, record: Option<&Record>) {
        let contradicts = |record: &&Record| {
            self.node.as_ref().is_some_and(|node| {
                record.node != node.name || node.provider_id.as_ref().is_some_and(|id| *id != record.provider_id)
            })
        };
        if record.as_ref().is_some_and(contradicts) {
            return;
        }
        let notices = record.map_or(&[][..], |record| &record.notices);
        let missing = |key: &NoticeKey| {
            matches!(key.source, Source::Operator | Source::Provisioner)
                && !notices.iter().any(|(entry, _)| entry.key() == *key)
        };
        let missing: Vec<NoticeKey> = self.said.keys().filter(|key| missing(key)).cloned().collect();
        for key in missing {
            self.give_up(&key);
            // Taken out of the record by whoever had put it there: in there again it is another wish.
            let taken_out = format!("{key}@");
            self.over.retain(|what| !what.starts_with(&taken_out));
        }
        let Some(record) = record else { return };
        let status = &record.status;
        let boot_id = self.node.as_ref().and_then(|node| node.boot_id.as_ref());
        let other_boot = boot_id.zip(status.boot_id.as_ref()).is_some_and(|(now, then)| now != then);
        let open = status.phase.is_some_and(|phase| !phase.ends_episode());
        if self.stands_in.is_some() {
            // What the agent has ended is over.
            // (A wish is over when it is taken out of the record, and may be made again.)
            let ended = |key: &NoticeKey, said: &Said| {
                !matches!(key.source, Source::Operator | Source::Provisioner)
                    && status.settled.contains(&settled(key, said.announced))
            };
            let ended: Vec<NoticeKey> = self.said.iter().filter(|(k, s)| ended(k, s)).map(|(k, _)| k.clone()).collect();
            for key in ended {
                self.give_up(&key);
            }
        }
        if !self.record_read {
            let wish = |what: &&String| what.starts_with("operator/") || what.starts_with("provisioner/");
            let there =
                |what: &&String| notices.iter().any(|(entry, _)| what.starts_with(&format!("{}@", entry.key())));
            // A wish that is not in the record any more may be made again.
            self.over.extend(status.settled.iter().filter(|what| !wish(what) || there(what)).cloned());
        }
        // What it says of this boot this boot has said, too.
        self.record_read |= other_boot;
        for (entry, deadline) in &record.notices {
            let passed = deadline.is_some_and(|deadline| deadline.passed(now));
            if entry.source == Source::Imds && passed && !open {
                continue;
            }
            self.hear_recorded(now, entry, *deadline);
            let trusted = !self.record_read || self.stands_in.is_some();
            let before = trusted && open && status.phase >= Some(Phase::Confirmed);
            let counted =
                status.kind == Some(entry.kind) || (entry.deadline.is_some() && entry.deadline == status.deadline);
            if before
                && counted
                && let Some(said) = self.said.get_mut(&slot(&entry.key()))
            {
                said.confirmed = true;
            }
        }
        self.record_read = true;
        let told = |said: &Said| said.announced.is_some() && said.announced == status.deadline;
        let untold = open && self.stands_in.is_some() && !self.said.values().any(told);
        self.recorded = record.deadline.filter(|_| untold).map(|deadline| deadline.at);
    }

    fn hear_recorded(&mut self, now: Instant, entry: &NoticeEntry, deadline: Option<Deadline>) {
        if let Some(subject) = Subject::from_record(entry.kind, entry.action.as_deref()) {
            let ago = self.stands_in.zip(entry.noticed_at).map_or(Duration::ZERO, |(epoch, at)| epoch.ago(at, now));
            self.hear_from(now, ago, entry.key(), subject, deadline, entry.source == Source::Sqs);
        }
    }

    fn hear(&mut self, now: Instant, key: NoticeKey, subject: Subject, deadline: Option<Deadline>, here: bool) {
        self.hear_from(now, Duration::ZERO, key, subject, deadline, here);
    }

    /// `ago`: how long ago it was first heard of, by whomever.
    fn hear_from(
        &mut self,
        now: Instant,
        ago: Duration,
        key: NoticeKey,
        subject: Subject,
        deadline: Option<Deadline>,
        here: bool,
    ) {
        let deadline = deadline.map(|deadline| self.anchor.place(now, deadline));
        let announced = deadline.map(|deadline| deadline.announced);
        let ignored = key.kind == Kind::RebalanceRecommendation && self.policy.rebalance == Rebalance::Ignore;
        if ignored || self.over.contains(&settled(&key, announced)) {
            return;
        }
        let placed = effective_deadline_of(&subject, deadline, now, ago).map(|deadline| deadline.at);
        let slot = slot(&key);
        let follows = key.kind == Kind::ScheduledChange && here;
        if let Some(said) = self.said.get_mut(&slot) {
            said.said_here |= here;
            let moved = announced.is_some() && announced != said.announced;
            let earlier = said.announced.is_none() || announced < said.announced;
            // What an earlier life wrote of a scheduled event was moved since, if IMDS says otherwise now.
            let first = here || (!self.record_read && key.kind != Kind::ScheduledChange);
            if moved && (follows || (earlier && first)) {
                // Hibernation begins when it was first heard of, whatever time is announced.
                said.deadline = if follows { placed } else { said.deadline.into_iter().chain(placed).min() };
                said.announced = announced;
            }
            return;
        }
        if self.said.len() >= REMEMBERED_MAX {
            self.said.pop_first();
        }
        let said = Said { subject, announced, deadline: placed, confirmed: false, said_here: here };
        self.said.insert(slot, said);
    }

    fn confirm(&mut self) {
        // What the provisioner saw in EC2 confirms the notice of its kind and event, whatever IMDS says.
        let by_ec2 = |key: &&NoticeKey| key.source == Source::Provisioner;
        let in_ec2: Vec<NoticeKey> = self.said.keys().filter(by_ec2).cloned().collect();
        let is_in_ec2 = |key: &NoticeKey| in_ec2.iter().any(|of| of.kind == key.kind && of.event_id == key.event_id);
        for (key, said) in self.said.iter_mut().filter(|(_, said)| !said.confirmed) {
            said.confirmed = match key.source {
                Source::Imds | Source::Operator | Source::Provisioner => true,
                Source::Sqs if is_in_ec2(key) => true,
                Source::Sqs => has_counterpart(key.kind) && (self.imds.says(key.kind) || self.imds.unhealthy()),
            };
        }
    }

    fn put_aside(&mut self, key: &NoticeKey, announced: Option<Timestamp>) {
        self.over.push_back(settled(key, announced));
        if self.over.len() > REMEMBERED_MAX {
            self.over.pop_front();
        }
    }
}

/// Under which key an announcement is kept: IMDS has no event ids, and its times may slide from answer to answer.
fn slot(key: &NoticeKey) -> NoticeKey {
    let mut slot = key.clone();
    if key.source == Source::Imds && key.kind != Kind::ScheduledChange {
        slot.event_id.clear();
    }
    slot
}

fn settled(key: &NoticeKey, announced: Option<Timestamp>) -> String {
    let announced = announced.map(|time| time.to_string()).unwrap_or_default();
    match (key.source, key.kind) {
        // The event id of an IMDS notice is its time, which its slot has not kept.
        (Source::Imds, Kind::SpotInterruption) => {
            format!("{}/{}/{announced}@{announced}", key.source, key.kind)
        }
        _ => format!("{key}@{announced}"),
    }
}
