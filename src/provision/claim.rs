//! One claim's life: from the wish to the Ready node.

mod object;
mod resume;

use std::time::Duration;

use super::retire::Reason;
use super::writes::Writes;
use super::{Because, Created, failure};
use crate::api::launch::Launched;
use crate::api::node_claim::{
    ATTEMPT_BECAUSE_MAX, ATTEMPTS_MAX, Attempt, BECAUSE_MAX, ClaimPhase, NodeClaimSpec, NodeClaimStatus, Purpose,
};
use crate::domain::notice::InstanceId;
use crate::domain::offering::{CapacityType, MicroDollars, Offering};
use crate::domain::quantity::in_dollars;
use crate::domain::time::{Epoch, Instant};
pub(super) use object::Object;

/// How long a claim waits after a full pass over the ladder that left nothing to believe in, and the longest.
const PASS_FIRST: Duration = Duration::from_secs(15);
const PASS_MAX: Duration = Duration::from_secs(600);

/// How long a claim waits where the request itself is wrong.
const WRONG_FIRST: Duration = Duration::from_secs(60);
/// The first of these pauses where it is the credentials: they are renewed by somebody, as a rule in seconds.
const PASSING_FIRST: Duration = Duration::from_secs(5);
const WRONG_MAX: Duration = Duration::from_secs(1_800);

/// How many instances in a row may fail to become a Node.
const NEVER_REGISTERED_MAX: i64 = 2;

/// How soon a creation is tried again that failed, and the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The text of a reason, as much of it as a status takes: EC2's messages of missing permissions are longer.
fn in_short(because: &Because, most: usize) -> String {
    because.to_string().chars().take(most).collect()
}

/// A claim, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) name: String,
    pub(super) object: Object,
    pub(super) spec: NodeClaimSpec,
    pub(super) status: NodeClaimStatus,
    pub(super) writes: Writes<NodeClaimStatus>,
    pub(super) wanted_since: Instant,
    /// It is to go: somebody has deleted it, or it is not wanted any more.
    pub(super) deleting: bool,
    /// Why it is to go, where nobody has deleted it.
    pub(super) leaves: Option<Reason>,
    /// The rung that is next.
    pub(super) rung: usize,
    /// Nothing is asked before this.
    pub(super) not_before: Option<Instant>,
    /// It skips spot: its pool has too few nodes on demand.
    pub(super) for_floor: bool,
    /// The cap on cost holds it back from on-demand; what fallback cost then.
    pub(super) capped_at: Option<MicroDollars>,
    /// The launch that is on its way.
    pub(super) launch: Option<String>,
    /// Its Node says whose it is.
    pub(super) labelled: bool,
    /// When the instance is to be a Node.
    pub(super) register_by: Option<Instant>,
    /// Full passes over the ladder in a row that gave nothing.
    passes: u32,
    /// Times in a row that the request itself was wrong.
    wrong: u32,
    /// The last time for a permission or a credential.
    forbidden: bool,
    /// Times in a row that it could not be created.
    uncreated: u32,
    changes: u64,
}

impl Run {
    /// A claim that is still to be created.
    pub(super) fn new(now: Instant, name: String, spec: NodeClaimSpec) -> Self {
        let status = NodeClaimStatus { phase: Some(ClaimPhase::Pending), ..NodeClaimStatus::default() };
        Self {
            name,
            object: Object::Missing { again: None, on_its_way: false },
            spec,
            status,
            writes: Writes::from(None),
            wanted_since: now,
            deleting: false,
            leaves: None,
            rung: 0,
            not_before: None,
            for_floor: false,
            capped_at: None,
            launch: None,
            labelled: false,
            register_by: None,
            passes: 0,
            wrong: 0,
            forbidden: false,
            uncreated: 0,
            // What is known of the Interruption may be of an earlier leader's: it is looked at once.
            changes: 1,
        }
    }

    pub(super) fn uid(&self) -> Option<&str> {
        match &self.object {
            Object::There { uid } | Object::Going { uid, .. } => Some(uid),
            Object::Missing { .. } => None,
        }
    }

    pub(super) fn phase(&self) -> ClaimPhase {
        self.status.phase.unwrap_or(ClaimPhase::Pending)
    }

    /// Whether it looks for capacity: nothing has been found, and nothing is on its way.
    pub(super) fn looks(&self) -> bool {
        matches!(self.object, Object::There { .. })
            && self.launch.is_none()
            && self.status.instance_id.is_none()
            && self.phase() != ClaimPhase::Failed
            && !self.has_tried()
            && !self.deleting
    }

    /// Whether it has never asked, and is going to.
    pub(super) fn is_yet_to_ask(&self) -> bool {
        let fresh = self.status.attempts_total == 0 && self.launch.is_none() && self.status.instance_id.is_none();
        fresh && self.phase() != ClaimPhase::Failed && !self.has_tried() && !self.deleting
    }

    /// Whether it was to try once, and has: a return to spot that gives nothing is given up.
    pub(super) fn has_tried(&self) -> bool {
        self.spec.purpose == Purpose::ReturnToSpot
            && (self.status.attempts_total > 0 || self.not_before.is_some())
            && self.launch.is_none()
            && self.status.instance_id.is_none()
    }

    pub(super) fn has_instance(&self) -> bool {
        self.status.instance_id.is_some()
    }

    /// A try to bring it back to spot has failed.
    pub(super) fn stays(&mut self) {
        self.changes += 1;
        self.status.failed_returns += 1;
    }

    pub(super) fn capacity(&self) -> Option<CapacityType> {
        self.spec.order.get(self.rung).copied()
    }

    /// Moves with every change of its status.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    fn set(&mut self, phase: ClaimPhase, because: &Because) {
        self.changes += 1;
        self.status.phase = Some(phase);
        self.status.because = Some(in_short(because, BECAUSE_MAX));
    }

    /// Its phase stays as it is, and there is something to be said of it.
    pub(super) fn says(&mut self, because: &Because) {
        self.set(self.phase(), because);
    }

    /// What stood in its way may be gone: it looks for capacity from the first rung on.
    pub(super) fn look_again(&mut self) {
        if self.phase() == ClaimPhase::Failed && !self.deleting {
            self.status.never_registered = 0;
            self.set(ClaimPhase::Pending, &Because::LooksAgain);
        }
        if self.looks() {
            (self.rung, self.not_before) = (0, None);
            (self.for_floor, self.capped_at) = (false, None);
        }
    }

    /// Fallback would cost too much: on to the next rung.
    pub(super) fn capped(&mut self, cost: MicroDollars) {
        self.rung += 1;
        self.capped_at = Some(cost);
    }

    /// Fallback costs this now: where that is less than when it was held back, on-demand is asked for again.
    pub(super) fn cheaper(&mut self, now: Instant, cost: MicroDollars) {
        if self.capped_at.is_some_and(|then| cost < then) && self.looks() {
            let on_demand = self.spec.order.iter().position(|one| *one == CapacityType::OnDemand);
            (self.rung, self.not_before, self.capped_at) = (on_demand.unwrap_or(0), Some(now), None);
        }
    }

    /// Nothing can be asked for it, for a reason of its own. Returns whether that is news.
    pub(super) fn waits(&mut self, because: &Because) -> bool {
        let news = self.status.because.as_deref() != Some(&in_short(because, BECAUSE_MAX));
        if news {
            self.set(ClaimPhase::Pending, because);
        }
        news
    }

    /// How the API server answered its creation. Returns what went wrong, the first time that it does.
    pub(super) fn created(&mut self, now: Instant, outcome: Created) -> Option<String> {
        // The late answer to a request of before the last listing.
        if !matches!(self.object, Object::Missing { on_its_way: true, .. }) {
            return None;
        }
        match outcome {
            Created::Made { uid } => {
                self.object = Object::There { uid };
                None
            }
            // It is seen, and then resumed.
            Created::Exists => {
                self.object = Object::Missing { again: Some(now + RETRY), on_its_way: false };
                None
            }
            Created::Refused(why) | Created::Failed(why) => {
                let pause = RETRY.saturating_mul(1 << self.uncreated.min(8)).min(RETRY_MAX);
                self.object = Object::Missing { again: Some(now + pause), on_its_way: false };
                self.uncreated = self.uncreated.saturating_add(1);
                (self.uncreated == 1).then_some(why)
            }
        }
    }

    /// A launch is on its way.
    pub(super) fn asking(
        &mut self,
        now: Instant,
        epoch: &Epoch,
        launch: &str,
        capacity: CapacityType,
        because: &Because,
    ) {
        self.launch = Some(launch.to_owned());
        self.capped_at = None;
        self.not_before = None;
        self.attempts(launch, capacity);
        self.status.requested_at.get_or_insert(epoch.wall(now));
        self.set(ClaimPhase::Launching, because);
    }

    fn close_attempt(&mut self, because: &Because) {
        self.launch = None;
        if let Some(attempt) = self.status.attempts.last_mut().filter(|attempt| attempt.because.is_none()) {
            attempt.because = Some(in_short(because, ATTEMPT_BECAUSE_MAX));
        }
    }

    /// An instance came.
    pub(super) fn launched(
        &mut self,
        now: Instant,
        epoch: &Epoch,
        got: &Launched,
        price: Option<MicroDollars>,
        registration: Duration,
    ) -> Because {
        let because = Because::Launched { instance: got.instance_id.clone(), offering: got.offering.clone() };
        self.close_attempt(&because);
        self.status.instance_id = Some(got.instance_id.clone());
        self.status.offering = Some(got.offering.clone());
        self.status.hourly_price = price.map(in_dollars);
        self.status.launched_at = Some(epoch.wall(now));
        self.register_by = Some(now + registration);
        (self.passes, self.wrong) = (0, 0);
        self.set(ClaimPhase::Launched, &because);
        because
    }

    /// EC2 shows its instance to be paid for otherwise than was asked for.
    pub(super) fn turned_out(&mut self, offering: Offering, price: Option<MicroDollars>) {
        self.changes += 1;
        self.status.offering = Some(offering);
        self.status.hourly_price = price.map(in_dollars);
    }

    /// The rung gave nothing: the next one.
    pub(super) fn fell_through(&mut self, why: String) -> Because {
        let from = self.status.attempts.last().map(|attempt| attempt.capacity_type);
        let from = from.or(self.capacity()).unwrap_or(CapacityType::OnDemand);
        let at = self.spec.order.iter().position(|capacity| *capacity == from).unwrap_or(self.rung);
        self.rung = at + 1;
        let because = Because::FellThrough { from, why, next: self.capacity() };
        self.close_attempt(&because);
        self.set(ClaimPhase::Pending, &because);
        because
    }

    /// Stays on its rung for another call: what happened was no answer.
    pub(super) fn call_again(&mut self, because: &Because) {
        self.close_attempt(because);
        self.set(ClaimPhase::Pending, because);
    }

    /// The last rung has been tried: the ladder begins anew at `until`, the end of the first belief, or by its own pace
    /// where nothing is believed.
    pub(super) fn exhausted(&mut self, now: Instant, until: Option<Instant>) -> Because {
        let pause = PASS_FIRST.saturating_mul(1 << self.passes.min(8)).min(PASS_MAX);
        self.passes = self.passes.saturating_add(1);
        let again = until.unwrap_or(now + pause).max(now + Duration::from_secs(1));
        self.rung = 0;
        self.for_floor = false;
        self.not_before = Some(again);
        let because = Because::Exhausted { again_in: again.since(now) };
        self.set(ClaimPhase::Pending, &because);
        because
    }

    /// The request cannot work as it is: asked again rarely, from the first rung on.
    pub(super) fn misconfigured(&mut self, now: Instant, code: String, message: String) -> Because {
        let first = if failure::is_passing(&code) { PASSING_FIRST } else { WRONG_FIRST };
        let again_in = first.saturating_mul(1 << self.wrong.min(10)).min(WRONG_MAX);
        self.forbidden = failure::forbids(&code);
        self.wrong = self.wrong.saturating_add(1);
        let because = Because::Misconfigured { code, message, again_in };
        self.close_attempt(&because);
        self.rung = 0;
        self.not_before = Some(now + again_in);
        self.set(ClaimPhase::Pending, &because);
        because
    }

    /// Whether it has found nothing on any rung, this one among them, and waits to ask again.
    pub(super) fn waits_for(&self, now: Instant, capacity: CapacityType) -> bool {
        let waits = self.passes > 0 && self.wrong == 0 && self.not_before.is_some_and(|at| at > now);
        waits && self.looks() && self.spec.order.contains(&capacity)
    }

    /// What was wrong with the request has been put right.
    pub(super) fn righted(&mut self, now: Instant) {
        if self.wrong > 0 && self.looks() {
            self.not_before = Some(now);
        }
    }

    /// Somebody's call was allowed.
    pub(super) fn allowed(&mut self, now: Instant) {
        if std::mem::take(&mut self.forbidden) {
            self.righted(now);
        }
    }

    /// Its instance has ended, or never became a node: another one, from the first rung on.
    pub(super) fn lost(&mut self, now: Instant, because: &Because, never_registered: bool) -> Option<Because> {
        self.status.instance_id = None;
        self.status.offering = None;
        self.status.node_name = None;
        self.status.hourly_price = None;
        self.labelled = false;
        self.register_by = None;
        self.rung = 0;
        self.not_before = Some(now);
        self.set(ClaimPhase::Pending, because);
        self.status.never_registered = if never_registered { self.status.never_registered + 1 } else { 0 };
        if self.status.never_registered < NEVER_REGISTERED_MAX {
            return None;
        }
        let template = match (&self.spec.recipe, &self.spec.node_pool) {
            (Some(recipe), _) => format!("launch template {}", recipe.launch_template),
            (None, pool) => format!("the class of NodePool {}", pool.as_deref().unwrap_or_default()),
        };
        let failed = Because::RecipeNeverRegisters { template };
        self.set(ClaimPhase::Failed, &failed);
        Some(failed)
    }

    /// Its Node was seen, and how it is.
    pub(super) fn node(
        &mut self,
        now: Instant,
        epoch: &Epoch,
        (node, ready): (&str, bool),
        ready_within: Duration,
    ) -> Option<Because> {
        if ready && self.phase() < ClaimPhase::Ready {
            self.status.node_name = Some(node.to_owned());
            self.register_by = None;
            self.status.never_registered = 0;
            self.status.registered_at.get_or_insert(epoch.wall(now));
            self.status.ready_at = Some(epoch.wall(now));
            let because = Because::Ready { node: node.to_owned(), after: now.since(self.wanted_since) };
            self.set(ClaimPhase::Ready, &because);
            return Some(because);
        }
        if self.phase() < ClaimPhase::Registered {
            self.status.node_name = Some(node.to_owned());
            self.register_by = Some(now + ready_within);
            self.status.registered_at = Some(epoch.wall(now));
            let because = Because::Registered { node: node.to_owned() };
            self.set(ClaimPhase::Registered, &because);
            return Some(because);
        }
        None
    }

    /// Notes one more attempt; of many the oldest goes.
    fn attempts(&mut self, launch: &str, capacity_type: CapacityType) {
        self.status.attempts_total += 1;
        self.status.attempts.push(Attempt { launch: launch.to_owned(), capacity_type, because: None });
        if self.status.attempts.len() > ATTEMPTS_MAX {
            self.status.attempts.remove(0);
        }
    }

    /// Whether it has given up: what it launches never becomes a Node. It still has when somebody deletes it therefore.
    pub(super) fn has_failed(&self) -> bool {
        self.status.never_registered >= NEVER_REGISTERED_MAX && self.status.instance_id.is_none()
    }

    /// It is not wanted any more.
    pub(super) fn unwanted(&mut self, why: &'static str) -> Because {
        self.status.never_registered = 0;
        self.goes(why)
    }

    /// It is to go, and what it stood for may still be wanted.
    pub(super) fn goes(&mut self, why: &'static str) -> Because {
        let because = Because::NoLongerWanted { why };
        self.deleting = true;
        self.set(ClaimPhase::Terminating, &because);
        because
    }

    /// Until when this capacity type is to be tried before the next one.
    pub(super) fn patience(&self, capacity: CapacityType) -> Option<Instant> {
        let secs = u64::try_from(self.spec.spot_patience_seconds).unwrap_or(0);
        (capacity == CapacityType::Spot && secs > 0).then(|| self.wanted_since + Duration::from_secs(secs))
    }

    /// When something of it is due. One that may ask already waits for a token, not for a time.
    pub(super) fn wakeup(&self, now: Instant) -> Option<Instant> {
        let object = match &self.object {
            Object::Missing { again, on_its_way: false } | Object::Going { again, on_its_way: false, .. } => *again,
            _ => None,
        };
        let write = self.writes.wakeup(&self.status).filter(|_| matches!(self.object, Object::There { .. }));
        let looks = self.not_before.filter(|at| *at > now && self.looks());
        [object, write, looks, self.register_by].into_iter().flatten().min()
    }

    pub(super) fn instance(&self) -> Option<&InstanceId> {
        self.status.instance_id.as_ref()
    }
}
