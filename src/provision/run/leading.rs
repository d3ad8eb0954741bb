//! Beginning to lead, listing what there is, what others do to it meanwhile, and no longer leading.

use super::{AGAIN, Copies, Provisioner, Reading, Templates, Term, Tidy, bridge, collect, gone};
use crate::api::node_claim::Purpose;
use crate::domain::time::Instant;
use crate::provision::{Because, Claim, Effect, Launch, claim, launch};

impl Provisioner {
    pub(super) fn lease_held(&mut self, now: Instant, until: Instant, effects: &mut Vec<Effect>) {
        if self.lead.held(now, until) {
            self.forget();
            self.risks.looks_from(now);
            self.remembering.begins(now);
            self.term = Term::Listing { again: None, on_its_way: false };
            self.say("", Because::Leads, effects);
        }
    }

    /// Everything that only a leader knows.
    pub(super) fn forget(&mut self) {
        self.claims.clear();
        self.drop_launches();
        self.replacements.clear();
        self.declined.clear();
        self.instances.clear();
        self.reading = Reading::default();
        self.copies = Copies::default();
        self.templates = Templates::new(self.settings.template_grace);
        self.tidy = Tidy::default();
        self.retiring.clear();
        self.pools.forget();
        self.labelling.clear();
        self.bridges = bridge::Bridges::default();
        self.ledger.forget();
        self.gone = gone::Gone::default();
        self.collecting = collect::Collecting::default();
        self.looks.forget();
        self.unheard.forget();
        self.said.clear();
        self.found.forget();
        self.unread.clear();
        self.looks_at_all();
        self.term = Term::Following;
    }

    pub(super) fn listed(
        &mut self,
        now: Instant,
        claims: &[Claim],
        launches: &[Launch],
        unread: Vec<String>,
        effects: &mut Vec<Effect>,
    ) {
        if !matches!(self.term, Term::Listing { .. }) {
            return;
        }
        // First: what could not be read when the list was made may have gone since.
        self.cannot_read(unread, effects);
        self.term = Term::Leading;
        self.leads_since = now;
        for claim in claims {
            let run = claim::Run::resume(now, &self.epoch, claim, self.settings.registration);
            self.claims.insert(claim.name.clone(), run);
        }
        // Those that are open last: what is on its way is a claim's, whatever else is there of it.
        let (closed, open): (Vec<&Launch>, Vec<_>) = launches.iter().partition(|one| one.status.outcome.is_some());
        for launch in closed.into_iter().chain(open) {
            for of in &launch.spec.claims {
                if let Some(run) = self.claims.get_mut(&of.name).filter(|run| run.uid() == Some(&of.uid)) {
                    run.attach(launch);
                }
            }
            self.launches.insert(launch.name.clone(), launch::Run::resume(now, launch));
        }
        for (name, what) in self.claims.take_missed() {
            match what {
                Some(claim) => self.claim_seen(now, &claim),
                None => self.claim_gone(&name),
            }
        }
        let back = claims.iter().filter(|claim| claim.spec.purpose == Purpose::ReturnToSpot);
        self.returns.resumed(now, back.map(|claim| (claim.created, claim.spec.node_pool.clone())));
        let there = &self.launches;
        self.shortages.keep_probes(|launch| there.contains_key(launch));
        self.looks_at_all();
        self.probes_on_their_way(now);
        self.seek_all(now);
    }

    /// A claim that somebody else made or deleted.
    pub(super) fn claim_seen(&mut self, now: Instant, claim: &Claim) {
        self.unread.remove(&claim.name);
        match self.term {
            Term::Leading => {}
            Term::Listing { .. } => return self.claims.misses(&claim.name, Some(claim)),
            Term::Following => return,
        }
        match self.claims.get_mut(&claim.name) {
            // Ours, and written faster than it is seen: only what others may do to it is taken from here.
            Some(run) if run.uid() == Some(&claim.uid) => {
                run.deleting |= claim.deleting;
                run.writes.seen(now, &claim.status);
            }
            // What the watch shows late of one that went before ours. A younger one has taken its name while nobody looked.
            Some(run) if run.uid().is_some() && claim.created <= run.wanted_since => {}
            _ => {
                let run = claim::Run::resume(now, &self.epoch, claim, self.settings.registration);
                self.claims.insert(claim.name.clone(), run);
            }
        }
    }

    pub(super) fn claim_gone(&mut self, name: &str) {
        self.unread.remove(name);
        if matches!(self.term, Term::Listing { .. }) {
            return self.claims.misses(name, None);
        }
        let run = self.claims.remove(name);
        let failed = run.as_ref().is_some_and(claim::Run::has_failed);
        if let Some((of, spec)) = run.and_then(|run| Some((run.spec.replaces.clone()?, run.spec))) {
            if failed {
                self.found.failed.insert(of.instance_id.clone(), spec);
            }
            self.replacements.remove(&of.instance_id);
            self.found.unwritten.remove(&of.instance_id);
            self.doomed.touch(&of.instance_id);
        }
    }

    /// These claims are there, and are not understood: as long as they are, no instance counts as nobody's.
    pub(super) fn cannot_read(&mut self, names: Vec<String>, effects: &mut Vec<Effect>) {
        for name in names {
            if self.unread.insert(name.clone()) {
                self.say(&name, Because::Unreadable { claim: name.clone() }, effects);
            }
        }
    }

    /// Forgets the launches, but for the creations that are on their way: one of these may still come to be written.
    fn drop_launches(&mut self) {
        let written = self.launches.values().filter(|run| run.is_being_written());
        self.creating.extend(written.map(|run| run.name.clone()));
        self.launches.clear();
    }

    /// What there is has to be listed anew.
    pub(super) fn list_again(&mut self) {
        self.term = Term::Listing { again: None, on_its_way: false };
        self.claims.clear();
        self.drop_launches();
        self.replacements.clear();
        self.found.forget();
        self.looks_at_all();
    }

    /// Lists what there is, where that is to be done. Not before every creation on its way has been answered: what is
    /// written after the listing would be missing from it, and the call that it records would be counted nowhere.
    pub(super) fn list(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Term::Listing { again, on_its_way } = &mut self.term
            && !*on_its_way
            && again.is_none_or(|at| at <= now)
            && self.creating.is_empty()
        {
            *on_its_way = true;
            effects.push(Effect::List);
        }
    }

    pub(super) fn list_failed(&mut self, now: Instant, why: String, effects: &mut Vec<Effect>) {
        if let Term::Listing { again, on_its_way } = &mut self.term {
            (*again, *on_its_way) = (Some(now + AGAIN), false);
            self.say("", Because::ReadFailed { what: "the list of NodeClaims and Launches", why }, effects);
        }
    }
}
