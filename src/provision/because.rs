//! The reasons of decisions about capacity, as values: log line, event and `because` are printed from them.

use std::fmt;
use std::time::Duration;

use super::failure::Class;
use super::ledger::Bill;
use super::pools::Fault;
use super::witness::Evidence;
use crate::api::interruption::NoticeKey;
use crate::domain::notice::{InstanceId, InstanceState, Kind};
use crate::domain::offering::{CapacityType, MicroDollars, Offering};
use crate::domain::quantity::in_dollars;

/// Why something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Because {
    /// A node is doomed: another is wanted in its place.
    Wanted { node: String, kind: Option<Kind> },
    /// Karpenter replaces its nodes itself.
    LeftToKarpenter { node: String },
    /// Nothing is known that could be copied.
    NothingToCopy { instance: InstanceId, node: String, why: String },
    /// What an instance without a launch template is made of could not be read.
    NotCopied { instance: InstanceId, why: String },
    /// Nothing has used a launch template of ours for a while.
    TemplateUnused { template: String },
    /// The pool that is to serve cannot, as it is.
    PoolCannotWork { pool: String, fault: Fault },
    /// The pool can serve.
    PoolReady { pool: String },
    /// Nothing can be launched for a claim of a pool yet.
    NothingToLaunch { why: String },
    /// A limit of the pool leaves no room.
    LimitReached { pool: String, field: &'static str, used: u64, max: u64 },
    /// Fallback may not cost more: spot is waited for.
    CostCapReached { pool: String, cost: MicroDollars, max: MicroDollars },
    /// A rule needs a price that is not known.
    NoPrice { of: String, rule: String },
    /// An instance of a claim has ended: what it cost.
    Billed(Box<Bill>),
    /// EC2 is asked.
    Asking { capacity: CapacityType, count: usize, offerings: usize },
    /// An instance came.
    Launched { instance: InstanceId, offering: Offering },
    /// An instance is paid for otherwise than was asked for.
    TurnedOut { instance: InstanceId, offering: Offering },
    /// A rung gave nothing: the next one follows at once.
    FellThrough { from: CapacityType, why: String, next: Option<CapacityType> },
    /// A rung was passed over.
    Skipped { capacity: CapacityType, why: &'static str },
    /// Every rung was tried.
    Exhausted { again_in: Duration },
    /// Something is believed to be short.
    Short { what: String, code: String, believed: Duration },
    /// It gave something again.
    Recovered { what: String },
    /// A call that EC2 has done nothing for was asked for by what the pool said before.
    TakenBack { pool: String },
    /// EC2 asks for fewer calls.
    Throttled { code: String },
    /// The request cannot work as it is.
    Misconfigured { code: String, message: String, again_in: Duration },
    /// It is not known whether the call was done: it is repeated with the same token.
    Unknown { why: String },
    /// It was never learnt, and nothing was found.
    PresumedNone { after: Duration },
    /// Its Node was seen.
    Registered { node: String },
    /// What its user data has the Node say was wrong.
    Relabelled { node: String, wrong: String },
    /// Its Node is Ready.
    Ready { node: String, after: Duration },
    /// No Node came in time.
    NeverRegistered { instance: InstanceId, within: Duration },
    /// Twice in a row: it is the recipe.
    RecipeNeverRegisters { template: String },
    /// The instance ended before its time.
    InstanceGone { instance: InstanceId },
    /// The node of a claim has joined, and is not Ready for too long.
    NeverReady { instance: InstanceId, node: String, within: Duration },
    /// What stood in was itself taken before it was a Ready node.
    TriedAgain { instance: InstanceId, claim: String },
    /// The capacity block of a node ends.
    BlockEnds { node: String, block: String },
    /// A NodeClaim that is there and is not understood.
    Unreadable { claim: String },
    /// Two instances for one claim, or one for none.
    Surplus { instance: InstanceId, launch: String },
    /// An instance of ours that no claim has named for a while.
    Leaked { instance: InstanceId, launch: String },
    /// So many at once that it is rather the claims that are missing.
    TooManyLeaks { instances: usize },
    /// A node of ours is to go: its drain is asked for.
    Retires { node: String, why: &'static str },
    /// It is empty: its instance is ended.
    Ends { instance: InstanceId, why: &'static str },
    /// An on-demand node is moved back to spot.
    Returns { node: String },
    /// That has failed, and has changed nothing.
    ReturnFailed { node: String, why: String, again_in: Duration },
    /// A node is still not empty long after its spot node was Ready.
    ReturnHeld { node: String, by: String },
    /// The group has replaced its node itself: the stand-in is not needed any more.
    BridgeEnds { group: String, by: InstanceId },
    /// Its instance has ended for good: the Node is to go.
    NodeGone { node: String, instance: InstanceId },
    /// Volumes are attached to a Node whose instance has ended.
    OutOfService { node: String, volumes: usize },
    /// Nothing can be said of where it runs.
    NoProviderId { node: String },
    /// A record names another node than its instance runs on.
    Contradicts { record: String, node: String },
    /// A record is over, and old or one of too many.
    Collected,
    /// A spot pool is being interrupted.
    Risky { what: String },
    /// What a claim is launched with has changed since it was given up.
    LooksAgain,
    /// It is not wanted any more.
    NoLongerWanted { why: &'static str },
    /// This replica leads from now on.
    Leads,
    /// It does not any more.
    Follows,
    /// An earlier leader has left what it knew of shortages and trouble.
    Recalled { short: usize, trouble: usize },
    /// What it has left cannot be used.
    NotRecalled { why: String },
    /// An instance could not be ended; it is tried again.
    NotEnded { instance: InstanceId, why: String },
    /// A claim names an instance that is none of this cluster's launches.
    NotOurs { instance: InstanceId },
    /// Something could not be written; it is tried again.
    WriteFailed { what: String, why: String },
    /// EC2 says what a notice says that nobody else had confirmed.
    SeenInEc2 { notice: NoticeKey, evidence: Evidence },
    /// EC2 has taken an instance, and nobody had heard of it.
    TakenUnheard { node: String, instance: InstanceId, state: InstanceState },
    /// Something of the API server or of EC2 could not be read; it is tried again.
    ReadFailed { what: &'static str, why: String },
}

impl Because {
    /// What an error of EC2 is answered with, in a word of people.
    pub(super) fn of_class(class: Class) -> &'static str {
        match class {
            Class::Capacity => "no capacity",
            Class::Quota => "a quota is used up",
            Class::Addresses => "no free address in the subnet",
            Class::Throttle => "throttled",
            Class::SetUp => "the set-up is wrong",
            Class::Unknown => "no answer",
        }
    }

    /// The reason in one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Wanted { .. } => "Wanted",
            Self::LeftToKarpenter { .. } => "LeftToKarpenter",
            Self::NothingToCopy { .. } => "NothingToCopy",
            Self::NotCopied { .. } => "NotCopied",
            Self::TemplateUnused { .. } => "TemplateUnused",
            Self::PoolCannotWork { .. } => "PoolCannotWork",
            Self::PoolReady { .. } => "PoolReady",
            Self::NothingToLaunch { .. } => "NothingToLaunch",
            Self::LimitReached { .. } => "LimitReached",
            Self::CostCapReached { .. } => "CostCapReached",
            Self::NoPrice { .. } => "NoPrice",
            Self::Billed(_) => "Billed",
            Self::Asking { .. } => "Asking",
            Self::Launched { .. } => "Launched",
            Self::TurnedOut { .. } => "TurnedOut",
            Self::FellThrough { .. } => "FellThrough",
            Self::Skipped { .. } => "Skipped",
            Self::Exhausted { .. } => "Exhausted",
            Self::Short { .. } => "Short",
            Self::Recovered { .. } => "Recovered",
            Self::TakenBack { .. } => "TakenBack",
            Self::Throttled { .. } => "Throttled",
            Self::Misconfigured { .. } => "Misconfigured",
            Self::Unknown { .. } => "UnknownOutcome",
            Self::PresumedNone { .. } => "PresumedNone",
            Self::Registered { .. } => "Registered",
            Self::Relabelled { .. } => "Relabelled",
            Self::Ready { .. } => "Ready",
            Self::NeverRegistered { .. } => "NeverRegistered",
            Self::RecipeNeverRegisters { .. } => "RecipeNeverRegisters",
            Self::InstanceGone { .. } => "InstanceGone",
            Self::NeverReady { .. } => "NeverReady",
            Self::TriedAgain { .. } => "TriedAgain",
            Self::BlockEnds { .. } => "BlockEnds",
            Self::Unreadable { .. } => "Unreadable",
            Self::Surplus { .. } => "Surplus",
            Self::Leaked { .. } => "Leaked",
            Self::TooManyLeaks { .. } => "TooManyLeaks",
            Self::Retires { .. } => "Retires",
            Self::Ends { .. } => "Ends",
            Self::Returns { .. } => "Returns",
            Self::ReturnFailed { .. } => "ReturnFailed",
            Self::ReturnHeld { .. } => "ReturnHeld",
            Self::BridgeEnds { .. } => "BridgeEnds",
            Self::NodeGone { .. } => "NodeGone",
            Self::OutOfService { .. } => "OutOfService",
            Self::NoProviderId { .. } => "NoProviderID",
            Self::Contradicts { .. } => "Contradicts",
            Self::Collected => "Collected",
            Self::Risky { .. } => "Risky",
            Self::LooksAgain => "LooksAgain",
            Self::NoLongerWanted { .. } => "NoLongerWanted",
            Self::Leads => "Leads",
            Self::Follows => "Follows",
            Self::Recalled { .. } => "Recalled",
            Self::NotRecalled { .. } => "NotRecalled",
            Self::NotEnded { .. } => "NotEnded",
            Self::NotOurs { .. } => "NotOurs",
            Self::WriteFailed { .. } => "WriteFailed",
            Self::SeenInEc2 { .. } => "SeenInEC2",
            Self::TakenUnheard { .. } => "TakenUnheard",
            Self::ReadFailed { .. } => "ReadFailed",
        }
    }

    /// Whether a person should look at it.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::NothingToCopy { .. }
                | Self::NotCopied { .. }
                | Self::PoolCannotWork { .. }
                | Self::NothingToLaunch { .. }
                | Self::LimitReached { .. }
                | Self::CostCapReached { .. }
                | Self::NoPrice { .. }
                | Self::Exhausted { .. }
                | Self::Misconfigured { .. }
                | Self::Unknown { .. }
                | Self::PresumedNone { .. }
                | Self::NeverRegistered { .. }
                | Self::NeverReady { .. }
                | Self::Unreadable { .. }
                | Self::RecipeNeverRegisters { .. }
                | Self::Surplus { .. }
                | Self::Leaked { .. }
                | Self::TooManyLeaks { .. }
                | Self::ReturnHeld { .. }
                | Self::Contradicts { .. }
                | Self::TakenUnheard { .. }
                | Self::NotEnded { .. }
                | Self::NotOurs { .. }
                | Self::NotRecalled { .. }
                | Self::WriteFailed { .. }
                | Self::ReadFailed { .. }
        )
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted { node, kind: Some(kind) } => {
                write!(f, "{kind} of {node}: another node is wanted in its place")
            }
            Self::Wanted { node, kind: None } => write!(f, "{node} is doomed: another node is wanted in its place"),
            Self::LeftToKarpenter { node } => write!(f, "{node} is Karpenter's, which replaces it itself"),
            Self::NothingToCopy { node, why, .. } => write!(f, "{node} cannot be replaced: {why}"),
            Self::NotCopied { instance, why } => {
                write!(
                    f,
                    "what {instance} is made of is not known, so nothing could stand in for it, trying again: {why}"
                )
            }
            Self::TemplateUnused { template } => {
                write!(f, "nothing has used launch template {template} for a while: it is deleted")
            }
            Self::PoolCannotWork { pool, fault } => write!(f, "NodePool {pool} cannot work: {fault}"),
            Self::PoolReady { pool } => write!(f, "NodePool {pool} can serve"),
            Self::NothingToLaunch { why } => write!(f, "nothing can be launched yet: {why}"),
            Self::LimitReached { pool, field, used, max } => {
                write!(
                    f,
                    "NodePool {pool} has {used} of {max} ({field}): nothing more fits; raise it, or wait for room"
                )
            }
            Self::CostCapReached { pool, cost, max } => write!(
                f,
                "fallback of NodePool {pool} costs US$ {} an hour of at most {} (spec.fallback.maxHourlyFallbackCost): \
                 spot is waited for",
                in_dollars(*cost),
                in_dollars(*max)
            ),
            Self::NoPrice { of, rule } => write!(f, "no price of {of} is known: {rule}; give --prices"),
            Self::Billed(bill) => billed(f, bill),
            Self::Asking { capacity, count, offerings } => {
                write!(f, "EC2 is asked for {count} × {capacity} out of {offerings} offerings")
            }
            Self::Launched { instance, offering } => write!(f, "{instance} was launched: {offering}"),
            Self::TurnedOut { instance, offering } if offering.capacity_type == CapacityType::Reserved => {
                write!(f, "{instance} runs in a capacity reservation: it is {offering}")
            }
            Self::TurnedOut { instance, offering } => {
                write!(f, "{instance} runs in no capacity reservation, these were used up: it is {offering}")
            }
            Self::FellThrough { from, why, next: Some(next) } => write!(f, "{from}: {why}; {next} is next"),
            Self::FellThrough { from, why, next: None } => write!(f, "{from}: {why}; that was the last rung"),
            Self::Skipped { capacity, why } => write!(f, "{capacity} is passed over: {why}"),
            Self::Exhausted { again_in } => {
                write!(f, "no capacity on any rung; asked again in {} s", again_in.as_secs())
            }
            Self::Short { what, code, believed } => {
                write!(f, "{what} is short ({code}); believed for {} s", believed.as_secs())
            }
            Self::Recovered { what } => write!(f, "{what} gives again"),
            Self::TakenBack { pool } => {
                write!(f, "NodePool {pool} has changed before EC2 did anything: asked for anew by what it says now")
            }
            Self::Throttled { code } => write!(f, "EC2 asks for fewer calls ({code})"),
            Self::Misconfigured { code, message, again_in } => {
                write!(f, "{code}: {message}; change it, it is tried again in {} s", again_in.as_secs())
            }
            Self::Unknown { why } => {
                write!(f, "it is not known what came of the call ({why}); repeated with its token")
            }
            Self::PresumedNone { after } => {
                write!(
                    f,
                    "nothing was found of the call for {} s: it is presumed to have done nothing",
                    after.as_secs()
                )
            }
            Self::Registered { node } => write!(f, "node {node} has joined"),
            Self::Relabelled { node, wrong } => write!(f, "labels of node {node} were wrong: {wrong}"),
            Self::Ready { node, after } => {
                write!(f, "node {node} is Ready, {:.1} s after it was wanted", after.as_secs_f64())
            }
            Self::NeverRegistered { instance, within } => {
                write!(f, "{instance} was no node within {} s: it is ended", within.as_secs())
            }
            Self::RecipeNeverRegisters { template } => write!(
                f,
                "two instances of {template} in a row never became a Ready node: look at its user data, \
                 security groups, role and device plugins; then delete this claim: it is made anew"
            ),
            Self::InstanceGone { instance } => write!(f, "{instance} has ended"),
            Self::NeverReady { instance, node, within } => write!(
                f,
                "node {node} was not Ready, with its startup taints gone and its devices registered, within {} s: \
                 {instance} is ended",
                within.as_secs()
            ),
            Self::TriedAgain { instance, claim } => {
                write!(f, "{instance} was taken before its node was Ready: its own claim, {claim}, asks for another")
            }
            Self::BlockEnds { node, block } => {
                write!(f, "capacity block {block} of node {node} ends: it is to be empty 40 minutes before that")
            }
            Self::Unreadable { claim } => write!(
                f,
                "NodeClaim {claim} cannot be read: it is not served, and no instance counts as nobody's as long as it is \
                 there; update the provisioner, or put right what was written by hand"
            ),
            Self::Surplus { instance, launch } => {
                write!(f, "{instance} of launch {launch} is one too many: it is ended")
            }
            Self::Leaked { instance, launch } => {
                write!(f, "{instance} of launch {launch} belongs to no claim: it is ended")
            }
            Self::TooManyLeaks { instances } => write!(
                f,
                "{instances} instances of this cluster belong to no claim: rather the claims are missing, so none is ended"
            ),
            Self::Retires { node, why } => write!(f, "{node} is to go, {why}: its drain is asked for"),
            Self::Ends { instance, why } => write!(f, "{instance} is empty, and {why}: it is ended"),
            Self::Returns { node } => write!(f, "spot has been quiet: a spot node is tried in the place of {node}"),
            Self::ReturnFailed { node, why, again_in } => {
                write!(f, "{node} stays on-demand ({why}); tried again after {} s of quiet", again_in.as_secs())
            }
            Self::ReturnHeld { node, by } => write!(
                f,
                "{node} is not empty an hour after its spot node was Ready ({by}): other returns do not wait for it any \
                 more"
            ),
            Self::BridgeEnds { group, by } => write!(f, "{by} has come to group {group} in the place of its node"),
            Self::NodeGone { node, instance } => write!(f, "{instance} has ended for good: Node {node} is to go"),
            Self::OutOfService { node, volumes } => {
                write!(f, "{volumes} volumes are attached to {node}, which has ended: they are let go")
            }
            Self::NoProviderId { node } => {
                write!(f, "{node} has no spec.providerID, so it is not known which instance it is: it is left alone")
            }
            Self::Contradicts { record, node } => {
                write!(f, "the record names node {record}, and its instance runs {node}: the record is deleted")
            }
            Self::Collected => f.write_str("it is over, and old or one of too many: the record is deleted"),
            Self::Risky { what } => write!(f, "{what} is being interrupted: new nodes go elsewhere first"),
            Self::LooksAgain => f.write_str("what it is launched with has changed: it is tried again"),
            Self::NoLongerWanted { why } => write!(f, "no longer wanted: {why}"),
            Self::Leads => f.write_str("this replica leads"),
            Self::Follows => f.write_str("this replica does not lead any more"),
            Self::Recalled { short, trouble } => {
                write!(f, "shortages that an earlier leader knew of: {short}; spot pools that made trouble: {trouble}")
            }
            Self::NotRecalled { why } => {
                write!(
                    f,
                    "what an earlier leader has left of shortages makes no sense ({why}): nothing is known of them"
                )
            }
            Self::NotEnded { instance, why } => write!(f, "{instance} could not be ended, trying again: {why}"),
            Self::NotOurs { instance } => {
                write!(
                    f,
                    "{instance} was not launched for this cluster, by its tags: it is left alone, whatever names it"
                )
            }
            Self::WriteFailed { what, why } => write!(f, "{what} could not be written, trying again: {why}"),
            Self::SeenInEc2 { notice, evidence } => write!(f, "{notice} is so: {evidence}"),
            Self::TakenUnheard { node, instance, state } => write!(
                f,
                "EC2 has taken {instance} (it is {state}), and nobody had heard of it: {node} is written down as lost; \
                 look at its agent and at the queue"
            ),
            Self::ReadFailed { what, why } => write!(f, "{what} could not be read, trying again: {why}"),
        }
    }
}

fn billed(f: &mut fmt::Formatter<'_>, bill: &Bill) -> fmt::Result {
    let hours = bill.ran.as_secs_f64() / 3_600.0;
    let dollars =
        |amount: Option<MicroDollars>| amount.map_or("?".to_owned(), |amount| format!("{:.4}", amount as f64 / 1e6));
    write!(
        f,
        "{} ran for {hours:.2} h on {}: US$ {:.4} paid, {} on demand, {} on spot",
        bill.instance,
        bill.offering,
        bill.paid as f64 / 1e6,
        dollars(bill.on_demand),
        dollars(bill.spot)
    )
}
