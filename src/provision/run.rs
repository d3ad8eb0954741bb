//! The state machine: claims, launches and what they know of each other.
//!
//! What happened is taken in; then [`Provisioner::advance`] brings what is to what should be. It is idempotent. All of it
//! rests on what the API server has: a replica that begins to lead lists the claims and launches first, and continues
//! each where its record says that it is.
//!
//! ```text
//!  who leads          leading        begins, lists, ends       remembering  what the next leader is left
//!  what there is      reading        EC2's instances           watched      maps that know what has changed
//!                     claims, found  indices over both         nameless     Nodes without a providerID
//!                     classes        EC2NodeClasses            copying      what instances without a template are made of
//!  what is wanted     wishing        a claim for whom          declining    for whom none comes
//!                     unheard        nodes taken without a word            confirming  notices that EC2 is asked about
//!  asking EC2         asking         who asks for what         pooling, counting  room in NodePools
//!                     reserved       room in reservations      answers      what came of it
//!  nodes that come    labelling      registered, Ready
//!  nodes that go      retire         drained, then ended       comeback     back to spot
//!                     bridge         an Auto Scaling group's own has come
//!  clearing up        tidy           surplus and orphaned instances        gone  Nodes of instances that have ended
//!                     collect        Interruptions             unused       launch templates
//!  saying it          writing        claims, Launches, Interruptions
//! ```

mod answers;
mod asking;
mod bridge;
mod claims;
mod classes;
mod collect;
mod comeback;
mod confirming;
mod copying;
mod counting;
mod declining;
mod found;
mod gone;
mod labelling;
mod leading;
mod nameless;
mod pooling;
mod reading;
mod remembering;
mod reserved;
mod retire;
mod tidy;
mod unheard;
mod unused;
mod watched;
mod wishing;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::bucket::Bucket;
use super::claim;
use super::copies::Copies;
use super::launch;
use super::leadership::Leadership;
use super::ledger::Ledger;
use super::pools::Pools;
use super::retire as retiring;
use super::risk::Risks;
use super::shortage::Shortages;
use super::templates::Templates;
use super::writes::Writes;
use super::{Because, Doomed, Effect, Input, Instance, NodeView, Replacement, Settings};
use crate::api::node_claim::{ClaimPhase, Recipe};
use crate::domain::notice::InstanceId;
use crate::domain::offering::Catalog;
use crate::domain::time::{Epoch, Instant};
use crate::engine::Core;
use claims::Claims;
use confirming::Looks;
use counting::Counted;
use found::Found;
use labelling::Labelling;
use nameless::Nameless;
use reading::Reading;
use remembering::Remembering;
use tidy::Tidy;
use unheard::Unheard;
use watched::Watched;

const AGAIN: Duration = Duration::from_secs(1);

/// How long a doomed instance is asked after before the next try.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// How long EC2 may take to show an instance that it has just launched.
const NOT_SHOWN_YET: Duration = Duration::from_secs(180);

/// Core 2: keeps the claims of one cluster.
#[derive(Clone, Debug)]
pub struct Provisioner {
    settings: Settings,
    epoch: Epoch,
    /// When it was last called.
    now: Instant,
    lead: Leadership,
    term: Term,
    /// Since when what there is is known.
    leads_since: Instant,
    catalog: Arc<Catalog>,
    /// What is launched with each EC2NodeClass, or why nothing can be.
    classes: BTreeMap<String, Result<Recipe, String>>,
    pools: Pools,
    counted: Counted,
    claims: Claims,
    launches: Watched<String, launch::Run>,
    /// Launches whose creation was on its way when what there is was last listed anew.
    creating: BTreeSet<String>,
    doomed: Watched<InstanceId, Doomed>,
    /// What the Interruptions are to say, and which change of the claim it was made from.
    replacements: BTreeMap<InstanceId, (u64, Writes<Replacement>)>,
    /// The Interruptions for which no claim is made, and what their records are to say.
    declined: BTreeMap<InstanceId, Replacement>,
    nodes: Watched<String, NodeView>,
    found: Found,
    nodes_synced: bool,
    /// Doomed Nodes that are gone already: what they were says what is wanted in their place.
    gone_nodes: BTreeMap<String, NodeView>,
    instances: BTreeMap<InstanceId, Instance>,
    reading: Reading,
    copies: Copies,
    /// What there is has changed, and nobody has looked through it for instances without a launch template.
    look_for_plain: bool,
    templates: Templates,
    classes_synced: bool,
    shortages: Shortages,
    reserved: reserved::Reserved,
    bucket: Bucket,
    tidy: Tidy,
    ledger: Ledger,
    /// What is being written to Nodes.
    labelling: BTreeMap<String, Labelling>,
    /// The nodes whose drain is asked for.
    retiring: BTreeMap<InstanceId, retiring::Run>,
    /// Where spot makes trouble.
    risks: Risks,
    remembering: Remembering,
    returns: comeback::Returns,
    bridges: bridge::Bridges,
    gone: gone::Gone,
    collecting: collect::Collecting,
    /// What EC2 is asked about notices.
    looks: Looks,
    /// What EC2 took while nobody heard of it.
    nameless: Nameless,
    /// NodeClaims that cannot be read, by name: what they name is not known.
    unread: BTreeSet<String>,
    unheard: Unheard,
    said: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// Another replica leads, or none.
    Following,
    /// The lease is ours; what there is is being listed, from then on.
    Listing {
        again: Option<Instant>,
        on_its_way: bool,
    },
    Leading,
}

impl Provisioner {
    pub fn new(settings: Settings, epoch: Epoch) -> Self {
        let (size, per_sec) = settings.bucket;
        let belief = settings.belief;
        let looks = Looks::new(settings.looks);
        Self {
            epoch,
            now: Instant::default(),
            lead: Leadership::default(),
            term: Term::Following,
            leads_since: Instant::default(),
            catalog: Arc::default(),
            classes: BTreeMap::new(),
            pools: Pools::default(),
            counted: Counted::default(),
            claims: Claims::default(),
            launches: Watched::default(),
            creating: BTreeSet::new(),
            doomed: Watched::default(),
            replacements: BTreeMap::new(),
            declined: BTreeMap::new(),
            nodes: Watched::default(),
            found: Found::default(),
            nodes_synced: false,
            gone_nodes: BTreeMap::new(),
            instances: BTreeMap::new(),
            reading: Reading::default(),
            copies: Copies::default(),
            look_for_plain: false,
            templates: Templates::new(settings.template_grace),
            classes_synced: false,
            shortages: Shortages::believing(belief),
            reserved: reserved::Reserved::default(),
            bucket: Bucket::new(size, per_sec),
            tidy: Tidy::default(),
            ledger: Ledger::default(),
            labelling: BTreeMap::new(),
            retiring: BTreeMap::new(),
            risks: Risks::default(),
            remembering: Remembering::default(),
            returns: comeback::Returns::default(),
            bridges: bridge::Bridges::default(),
            gone: gone::Gone::default(),
            collecting: collect::Collecting::default(),
            looks,
            nameless: Nameless::default(),
            unread: BTreeSet::new(),
            unheard: Unheard::default(),
            said: BTreeSet::new(),
            settings,
        }
    }

    /// It looks at everything with every input, as if it did not know what may have changed: to be compared with.
    pub fn thorough(mut self) -> Self {
        self.claims.looks_at_everything();
        self.launches.looks_at_everything();
        self.doomed.looks_at_everything();
        self.nodes.looks_at_everything();
        self.counted.counts_always();
        self
    }

    /// Whether it could act now: it leads, has listed what there is, and knows what EC2 offers.
    pub fn leads(&self) -> bool {
        self.term == Term::Leading
    }

    /// Whether it leads, and what begins at `now` ends in its term.
    pub fn may_act(&self, now: Instant) -> bool {
        self.leads() && self.lead.may_act(now)
    }

    /// How many claims there are in each phase.
    pub fn phases(&self) -> BTreeMap<ClaimPhase, usize> {
        let mut phases = BTreeMap::new();
        for run in self.claims.values() {
            *phases.entry(run.phase()).or_default() += 1;
        }
        phases
    }

    fn say(&mut self, about: &str, because: Because, effects: &mut Vec<Effect>) {
        effects.push(Effect::Decided { about: about.to_owned(), because });
    }

    /// Brings what is to what should be. `changed`: something of the world may have changed, rather than that one of our
    /// own writes was answered; in a storm most inputs are such answers, and what they cannot change is not looked at.
    fn advance(&mut self, now: Instant, changed: bool, effects: &mut Vec<Effect>) {
        self.now = now;
        if !self.lead.holds(now) {
            if self.term != Term::Following {
                self.forget();
                self.say("", Because::Follows, effects);
            }
            return;
        }
        // Whatever begins now may end in another's term.
        if !self.lead.may_act(now) {
            return;
        }
        self.recall(now, effects);
        self.list(now, effects);
        if self.term != Term::Leading {
            return;
        }
        let changed = self.begin_turn(now, changed);
        self.take_turn(now, changed, effects);
    }

    /// Whether this turn looks at everything that may have changed; marks what that is.
    fn begin_turn(&mut self, now: Instant, changed: bool) -> bool {
        let changed = changed || self.tidy.wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.pools.wakeup(now, self.leads_since).is_some_and(|at| at <= now);
        let changed = changed || self.retire_wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.returns.wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.bridges.wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.gone.wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.unheard.wakeup().is_some_and(|at| at <= now);
        let changed = changed || self.collecting.wakeup() <= now;
        self.claims.begin(now, changed);
        if self.claims.take_recounted() {
            self.count_again();
        }
        self.launches.turn(changed);
        self.doomed.turn(changed);
        self.nodes.turn(changed);
        changed
    }

    fn take_turn(&mut self, now: Instant, changed: bool, effects: &mut Vec<Effect>) {
        if changed {
            self.look_for_risks(now, effects);
            self.come_back(now, effects);
            self.demand(now, effects);
            self.follow_nodes(now, effects);
            self.look_at_bridges(now, effects);
            self.claims_that_leave(effects);
        }
        self.read(now, effects);
        self.look(now, effects);
        self.keep_copies(now, effects);
        self.never_registered(now, effects);
        self.objects(now, effects);
        self.advance_launches(now, effects);
        if changed {
            self.lift_holds(now);
        }
        self.look_for_capacity(now, effects);
        self.send(now, effects);
        self.write(now, effects);
        self.write_labels(now, effects);
        if changed {
            self.record_taken(now, effects);
            self.sweep(now, effects);
            self.let_nodes_go(now, effects);
            self.collect(now, effects);
            self.look_at_templates(now, effects);
            self.write_pools(now, effects);
            self.keep_ledger(now, effects);
        }
        self.remember(now, effects);
    }
}

impl Core for Provisioner {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        let changed = !input.answers_a_write();
        self.claims.index(now);
        self.take_in(now, input, effects);
        self.advance(now, changed, effects);
        self.claims.end(now);
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.due_next()
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.claims.index(now);
        self.advance(now, true, effects);
        self.claims.end(now);
    }
}

impl Provisioner {
    fn take_in(&mut self, now: Instant, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::LeaseHeld { until } => self.lease_held(now, until, effects),
            Input::LeaseLost => self.lead.lost(),
            Input::Listed { claims, launches, unread } => {
                self.listed(now, &claims, &launches, unread, effects);
            }
            Input::Unreadable(name) => self.cannot_read(vec![name], effects),
            Input::ListFailed(why) => self.list_failed(now, why, effects),
            Input::Recalled { found } => self.recalled(now, found, effects),
            Input::Remembered { outcome } => self.remembered(now, outcome, effects),
            Input::ClaimSeen(claim) => self.claim_seen(now, &claim),
            Input::ClaimGone { name } => self.claim_gone(&name),
            Input::PoolSeen(pool) => self.pool_seen(pool),
            Input::PoolGone { name } => {
                self.pools.gone(&name);
                self.look_for_plain = true;
                self.looks_at_all();
            }
            Input::PoolsSynced => {
                self.pools.synced();
                self.looks_at_all();
            }
            Input::Labelled { node, outcome } => self.labelled(now, &node, outcome, effects),
            Input::PoolWritten { name, outcome } => self.pool_written(now, &name, outcome, effects),
            Input::ClassSeen { name, recipe } => self.class_seen(now, name, recipe),
            Input::ClassGone { name } => {
                self.classes.remove(&name);
                self.looks_at_all();
            }
            Input::ClassesSynced => self.classes_synced = true,
            Input::Copied { instance, copied } => self.copied(now, &instance, &copied, effects),
            Input::TemplatesRead(all) => self.templates_read(now, all, effects),
            Input::TemplatesFailed(why) => self.templates_failed(now, why, effects),
            Input::TemplateDeleted { of, outcome } => self.template_deleted(&of, outcome, effects),
            Input::CatalogRead(catalog) => self.catalog_read(now, catalog),
            Input::InterruptionSeen(doomed) => self.interruption_seen(now, doomed),
            Input::InterruptionGone { instance } => self.interruption_gone(now, &instance),
            Input::NodeSeen(node) => self.node_seen(now, node),
            Input::NodeGone { name } => self.node_gone(now, name),
            Input::NodesSynced => {
                self.nodes_synced = true;
                self.looks_at_all();
            }
            Input::InstancesRead { all, instances } => self.instances_read(now, all, instances, effects),
            Input::InstancesFailed(why) => self.instances_failed(now, why, effects),
            Input::Looked(answer) => self.looked(now, answer, effects),
            Input::TakenRecorded { instance, outcome } => self.taken_recorded(now, &instance, outcome, effects),
            Input::NoticeWritten { instance, key, outcome } => {
                self.notice_written(now, &instance, &key, outcome, effects);
            }
            Input::ClaimCreated { name, outcome } => self.claim_created(now, &name, outcome, effects),
            Input::ClaimWritten { name, outcome } => self.claim_written(now, &name, outcome, effects),
            Input::ClaimDeleted { name, outcome } => self.claim_deleted(now, &name, outcome, effects),
            Input::LaunchCreated { name, outcome } => self.launch_created(now, &name, outcome, effects),
            Input::LaunchWritten { name, outcome } => self.launch_written(now, &name, outcome, effects),
            Input::LaunchGone { name } => self.launch_gone(&name),
            Input::LaunchDeleted { name, outcome } => self.launch_deleted(now, &name, outcome, effects),
            Input::ReplacementWritten { instance, outcome } => self.replacement_written(now, &instance, outcome),
            Input::Called { launch, answer } => self.called(now, &launch, answer, effects),
            Input::LookedUp { launch, found } => self.looked_up(now, &launch, &found),
            Input::AttachmentsRead { node, found } => self.attachments_read(now, &node, found, effects),
            Input::NodeTainted { node, outcome } => self.node_tainted(now, &node, outcome, effects),
            Input::NodeDeleted { node, outcome } => self.node_deleted(now, &node, outcome, effects),
            Input::RecordWritten { instance, outcome } => self.record_written(&instance, outcome, effects),
            Input::Requested { instance, outcome } => self.requested(now, &instance, false, outcome, effects),
            Input::Withdrawn { instance, outcome } => self.requested(now, &instance, true, outcome, effects),
            Input::Ended { instance, outcome } => self.ended(now, &instance, outcome, effects),
        }
    }

    fn due_next(&self) -> Option<Instant> {
        if self.term == Term::Following {
            return None;
        }
        // Without the right to act nothing is due but the end of the term; a renewal is an input.
        let term_ends = self.lead.ends();
        if !self.lead.may_act(self.now) {
            return term_ends;
        }
        if let Term::Listing { again, on_its_way } = &self.term {
            let recalls = self.remembering_wakeup();
            return again.filter(|_| !on_its_way).into_iter().chain(term_ends).chain(recalls).min();
        }
        let reading = (!self.reading.on_its_way).then_some(self.reading.due());
        let launches = self.launches.values().filter_map(|run| {
            let unwritten = run.status.outcome.and_then(|_| run.writes.wakeup(&run.status));
            [run.wakeup(self.now), unwritten].into_iter().flatten().min()
        });
        let unwritten = self.found.unwritten.iter().filter_map(|id| self.replacements.get(id)?.1.retry());
        let pools = self.pools.wakeup(self.now, self.leads_since);
        [
            reading,
            term_ends,
            self.bucket_wakeup(),
            self.tidy.wakeup(),
            self.retire_wakeup(),
            self.returns.wakeup(),
            self.bridges.wakeup(),
            self.gone.wakeup(),
            self.looks.wakeup(self.now),
            self.unheard.wakeup(),
            self.nodes_synced.then_some(self.collecting.wakeup()),
            pools,
            self.labels_wakeup(),
            self.claims.due(),
            self.remembering_wakeup(),
            self.copies.wakeup(self.now),
            self.templates_wakeup(self.now),
        ]
        .into_iter()
        .flatten()
        .chain(launches)
        .chain(unwritten)
        .min()
    }
}
