//! One call's life: written down, made, repeated with the same token until its fate is known, or presumed.

use std::time::Duration;

use super::writes::{Pause, Writes};
use super::{Answer, Because, Created, Effect, FleetError, Launch};
use crate::api::launch::{LaunchOutcome, LaunchSpec, LaunchStatus, Launched};
use crate::domain::time::{Epoch, Instant};

/// How long look-ups must stay empty until a call whose fate is unknown is presumed to have done nothing. Longer than
/// EC2 takes to show an instance.
const PRESUMED_AFTER: Duration = Duration::from_secs(60);

/// How long the record of a call that was presumed to have done nothing is kept.
const PRESUMED_KEPT: Duration = Duration::from_secs(3_600);

/// How long the record of any other is kept once its claims know: for as long as a write of theirs that is late may bring
/// back what they were before, and whoever leads then has to know whose the instances are.
const SETTLED_KEPT: Duration = Duration::from_secs(60);

const REPEAT_FIRST: Duration = Duration::from_millis(500);
const REPEAT_MAX: Duration = Duration::from_secs(10);
const WRITE_AGAIN: Duration = Duration::from_millis(500);
const WRITE_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// To be created; tried again then.
    Unwritten { again: Option<Instant>, on_its_way: bool },
    /// The call is to be made, not before this.
    Due { again: Option<Instant> },
    /// Made; without an answer in time it is due again.
    Called { give_up: Instant },
    /// Its fate is known.
    Answered,
    /// Its claims know; the record is to go.
    Settled { again: Option<Instant>, on_its_way: bool, pause: Pause },
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) spec: LaunchSpec,
    pub(super) status: LaunchStatus,
    pub(super) writes: Writes<LaunchStatus>,
    pub(super) errors: Vec<FleetError>,
    stage: Stage,
    /// It is not known what came of it.
    unknown: bool,
    /// Nobody wants it any more: it is looked for, and not asked for again.
    abandoned: bool,
    repeats: u32,
    /// How often it could not be written down.
    unwritten: u32,
    look_up: Option<Instant>,
    looking: bool,
    /// What look-ups have found so far.
    found: Vec<Launched>,
    /// When look-ups were answered first and last since then.
    seen: Option<(Instant, Instant)>,
    closed_at: Option<Instant>,
    /// Its claims have been told.
    pub(super) told: bool,
    /// Which generation of its pool it asks by.
    pub(super) by_generation: Option<i64>,
    /// Its pool had changed before EC2 did anything for it: its claims ask anew.
    pub(super) taken_back: bool,
}

/// What a call's answer means for the claims that shared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The status says what came; `errors` what did not.
    Known,
    /// EC2 is busy: the same call again later.
    Throttled(String),
    /// The request is wrong.
    Wrong { code: String, message: String },
    /// Not known yet.
    Unknown(String),
}

impl Run {
    pub(super) fn new(name: String, spec: LaunchSpec) -> Self {
        Self {
            name,
            uid: None,
            spec,
            status: LaunchStatus::default(),
            writes: Writes::from(None),
            errors: Vec::new(),
            stage: Stage::Unwritten { again: None, on_its_way: false },
            unknown: false,
            abandoned: false,
            repeats: 0,
            unwritten: 0,
            look_up: None,
            looking: false,
            found: Vec::new(),
            seen: None,
            closed_at: None,
            told: false,
            by_generation: None,
            taken_back: false,
        }
    }

    /// Continues what an earlier leader has begun: it may have made the call or not.
    pub(super) fn resume(now: Instant, launch: &Launch) -> Self {
        let mut run = Self::new(launch.name.clone(), launch.spec.clone());
        run.uid = Some(launch.uid.clone());
        run.status = launch.status.clone();
        run.writes = Writes::from(Some(launch.status.clone()));
        run.stage = if launch.status.outcome.is_some() { Stage::Answered } else { Stage::Due { again: None } };
        if launch.status.outcome.is_none() {
            run.unknown = true;
            run.look_up = Some(now + REPEAT_FIRST);
        }
        run
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Unwritten { .. } | Stage::Due { .. } | Stage::Called { .. })
    }

    /// Whether it is being written down, for the call to follow. One that could not be waits for its next try, and is in
    /// nobody's way meanwhile.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self.stage, Stage::Unwritten { on_its_way: true, .. })
    }

    /// Whether this is the first time in a row that it could not be written down.
    pub(super) fn has_just_failed(&self) -> bool {
        self.unwritten == 1
    }

    /// Whether this is the first time that it is not known what came of it.
    pub(super) fn is_newly_unknown(&self) -> bool {
        self.repeats == 1
    }

    /// Whether a call is on its way.
    pub(super) fn is_called(&self) -> bool {
        matches!(self.stage, Stage::Called { .. })
    }

    pub(super) fn create(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Stage::Unwritten { again, on_its_way } = &mut self.stage
            && !*on_its_way
            && again.is_none_or(|at| at <= now)
        {
            *on_its_way = true;
            effects.push(Effect::CreateLaunch { name: self.name.clone(), spec: Box::new(self.spec.clone()) });
        }
    }

    /// How the API server answered its creation. `Some(true)`: it is written; `Some(false)`: a record of this name is
    /// there that is not this one, and this one is given up.
    pub(super) fn created(&mut self, now: Instant, outcome: Created) -> Option<bool> {
        // The late answer to a request of before the last listing.
        if !matches!(self.stage, Stage::Unwritten { on_its_way: true, .. }) {
            return None;
        }
        match outcome {
            Created::Made { uid } => {
                self.uid = Some(uid);
                self.stage = Stage::Due { again: None };
                Some(true)
            }
            Created::Exists => Some(false),
            Created::Refused(_) | Created::Failed(_) => {
                let pause = WRITE_AGAIN.saturating_mul(1 << self.unwritten.min(8)).min(WRITE_MAX);
                self.stage = Stage::Unwritten { again: Some(now + pause), on_its_way: false };
                self.unwritten = self.unwritten.saturating_add(1);
                None
            }
        }
    }

    /// Whether a call is to be made now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.abandoned && matches!(&self.stage, Stage::Due { again } if again.is_none_or(|at| at <= now))
    }

    /// Whether a call is to be made, now or later.
    pub(super) fn is_uncalled(&self) -> bool {
        matches!(self.stage, Stage::Due { .. })
    }

    /// `any` claim waits for it still, or one that `stays`. A call that was never made is not made for nobody; of one that may
    /// have been made long ago it is found out by tag what came of it: its token may be forgotten by now, and a repetition
    /// would launch anew.
    pub(super) fn is_waited_for(&mut self, now: Instant, epoch: &Epoch, any: bool, stays: bool) {
        if !matches!(self.stage, Stage::Due { .. }) {
            return;
        }
        if !self.unknown && !stays {
            self.close(now, epoch, LaunchOutcome::Nothing, "nobody waits for it any more: it was not called".into());
        } else if self.unknown && !any {
            self.abandoned = true;
            self.look_up.get_or_insert(now + REPEAT_FIRST);
        }
    }

    /// Its pool is of this generation by now. A call that certainly has done nothing, because it was never made or only
    /// throttled, is not made by what the pool said before: it might pass a limit that was lowered since. One whose outcome
    /// is not known goes on with its token.
    pub(super) fn pool_is(&mut self, now: Instant, epoch: &Epoch, generation: Option<i64>) {
        if self.by_generation != generation && !self.unknown && matches!(self.stage, Stage::Due { .. }) {
            self.taken_back = true;
            self.close(now, epoch, LaunchOutcome::Nothing, "its NodePool has changed: it was not called".into());
        }
    }

    /// Makes the call; `give_up`: without an answer by then its fate is unknown.
    pub(super) fn call(&mut self, give_up: Instant, not_after: Instant, effects: &mut Vec<Effect>) {
        let Some(token) = self.uid.clone() else { return };
        self.stage = Stage::Called { give_up };
        effects.push(Effect::Call { launch: self.name.clone(), token, spec: Box::new(self.spec.clone()), not_after });
    }

    /// Takes in EC2's answer.
    pub(super) fn answered(&mut self, now: Instant, epoch: &Epoch, answer: Answer) -> Option<Fate> {
        if !self.is_open() {
            return None;
        }
        match answer {
            Answer::Fleet { instances, errors } => {
                self.errors = errors;
                self.known(now, epoch, instances);
                Some(Fate::Known)
            }
            Answer::Refused { code, message } => match super::failure::class(&code) {
                super::failure::Class::Throttle => {
                    self.stage = Stage::Due { again: None };
                    Some(Fate::Throttled(code))
                }
                super::failure::Class::Unknown => {
                    // A mismatch says that a launch under this token exists: repeating cannot tell which.
                    Some(self.unknown(now, format!("{code}: {message}")))
                }
                // Whether a request may be made is looked at before its token: this says nothing of what came of it before.
                super::failure::Class::SetUp if self.unknown => Some(self.unknown(now, format!("{code}: {message}"))),
                super::failure::Class::SetUp => {
                    self.close(now, epoch, LaunchOutcome::Nothing, format!("{code}: {message}"));
                    Some(Fate::Wrong { code, message })
                }
                _ => {
                    self.errors = vec![FleetError { code, message, instance_type: None, zone: None, subnet_id: None }];
                    self.known(now, epoch, Vec::new());
                    Some(Fate::Known)
                }
            },
            Answer::Unknown(why) => Some(self.unknown(now, why)),
        }
    }

    fn unknown(&mut self, now: Instant, why: String) -> Fate {
        self.unknown = true;
        let pause = REPEAT_FIRST.saturating_mul(1 << self.repeats.min(6)).min(REPEAT_MAX);
        self.repeats = self.repeats.saturating_add(1);
        self.stage = Stage::Due { again: Some(now + pause) };
        self.look_up.get_or_insert(now + REPEAT_FIRST);
        Fate::Unknown(why)
    }

    fn known(&mut self, now: Instant, epoch: &Epoch, mut instances: Vec<Launched>) {
        instances.sort();
        instances.dedup();
        let outcome = if instances.is_empty() { LaunchOutcome::Nothing } else { LaunchOutcome::Launched };
        let because = match self.errors.first() {
            Some(error) => format!("{} came; {}: {}", instances.len(), error.code, error.message),
            None => format!("{} came", instances.len()),
        };
        self.status.instances = instances;
        self.close(now, epoch, outcome, because);
    }

    fn close(&mut self, now: Instant, epoch: &Epoch, outcome: LaunchOutcome, because: String) {
        self.status.outcome = Some(outcome);
        self.status.because = Some(because.chars().take(1024).collect());
        self.status.answered_at = Some(epoch.wall(now));
        self.stage = Stage::Answered;
        self.closed_at = Some(now);
        self.look_up = None;
    }

    /// Whether its fate is known and written down, and its claims have not been told.
    ///
    /// What EC2 answered it answers again to whoever repeats the call; what was presumed or found by tag it may not. So
    /// these go on only when the API server has it.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.stage == Stage::Answered && !self.told && self.writes.has(&self.status)
    }

    /// What has become due: a call without an answer, a look-up, the presumption.
    pub(super) fn advance(&mut self, now: Instant, epoch: &Epoch, effects: &mut Vec<Effect>) {
        if let Stage::Called { give_up } = self.stage
            && give_up <= now
        {
            self.unknown(now, "no answer in time".into());
        }
        if !self.is_open() {
            return;
        }
        if self.look_up.is_some_and(|at| at <= now)
            && !self.looking
            && let Some(token) = self.uid.clone()
        {
            self.looking = true;
            effects.push(Effect::LookUp { launch: self.name.clone(), token });
        }
        let Some((first, last)) = self.seen.filter(|_| self.unknown) else {
            return;
        };
        if last.since(first) < PRESUMED_AFTER || self.is_called() {
            return;
        }
        // Repeating with the token has not told in all this time; what can be seen by tag is what there is.
        if self.found.is_empty() {
            let because = Because::PresumedNone { after: last.since(first) };
            self.close(now, epoch, LaunchOutcome::PresumedNone, because.to_string());
        } else {
            let found = std::mem::take(&mut self.found);
            self.known(now, epoch, found);
        }
    }

    /// Takes in what was found by tag.
    pub(super) fn looked(&mut self, now: Instant, epoch: &Epoch, found: Result<Vec<Launched>, String>) {
        self.looking = false;
        if !self.is_open() {
            return;
        }
        self.look_up = Some(now + Duration::from_secs(5));
        let Ok(mut found) = found else { return };
        let first = self.seen.map_or(now, |(first, _)| first);
        self.seen = Some((first, now));
        found.sort();
        if found.len() >= usize::try_from(self.spec.count).unwrap_or(usize::MAX) {
            self.known(now, epoch, found);
        } else {
            // Some may be missing yet: EC2 shows them one by one.
            self.found = found;
        }
    }

    /// Its claims know: the record may go. The one of a call that was presumed to have done nothing stays for a while:
    /// what turns up of it is surplus, and is known as such.
    pub(super) fn settle(&mut self, now: Instant) {
        self.closed_at.get_or_insert(now);
        if self.may_settle(now) && self.stage == Stage::Answered && self.told {
            self.stage = Stage::Settled { again: None, on_its_way: false, pause: Pause::default() };
        }
    }

    /// Whether it is time to look whether its claims know.
    pub(super) fn may_settle(&self, now: Instant) -> bool {
        let presumed = self.status.outcome == Some(LaunchOutcome::PresumedNone);
        let kept = if presumed { PRESUMED_KEPT } else { SETTLED_KEPT };
        self.stage == Stage::Answered && self.closed_at.is_none_or(|at| now.since(at) >= kept)
    }

    pub(super) fn delete(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let (Stage::Settled { again, on_its_way, .. }, Some(uid)) = (&mut self.stage, &self.uid)
            && !*on_its_way
            && again.is_none_or(|at| at <= now)
        {
            *on_its_way = true;
            effects.push(Effect::DeleteLaunch { name: self.name.clone(), uid: uid.clone() });
        }
    }

    /// Its record could not be deleted. Returns whether that is news.
    pub(super) fn not_deleted(&mut self, now: Instant) -> bool {
        let Stage::Settled { again, on_its_way, pause } = &mut self.stage else { return false };
        let first = pause.is_new();
        (*again, *on_its_way) = (Some(now + pause.next(WRITE_AGAIN, WRITE_MAX)), false);
        first
    }

    /// Its record is not there any more: nobody reads what would be written, so that counts as written.
    pub(super) fn record_is_gone(&mut self) {
        self.writes = Writes::from(Some(self.status.clone()));
    }

    /// When something is due. A call that is due already waits for a token, not for a time.
    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let look_up = self.look_up.filter(|_| self.is_open() && !self.looking);
        let stage = match &self.stage {
            Stage::Unwritten { again, on_its_way: false } | Stage::Settled { again, on_its_way: false, .. } => *again,
            Stage::Due { again } => again.filter(|at| *at > now),
            Stage::Called { give_up } => Some(*give_up),
            _ => None,
        };
        [look_up, stage].into_iter().flatten().min()
    }
}
