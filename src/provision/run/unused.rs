//! Launch templates of ours that nothing uses any more.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Provisioner;
use crate::api::node_claim::Recipe;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::templates::OurTemplate;
use crate::provision::{Because, Effect};

/// How old the list of instances may be by which it is told what is used.
const SEEN_WITHIN: Duration = Duration::from_secs(120);

impl Provisioner {
    /// Asks what templates of ours there are, where it could be told which of them are used.
    pub(super) fn look_at_templates(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !self.templates.on_its_way && self.templates.next <= now && self.sees_what_is_used(now) {
            self.templates.on_its_way = true;
            effects.push(Effect::ReadTemplates);
        }
    }

    pub(super) fn templates_wakeup(&self, now: Instant) -> Option<Instant> {
        // Where it cannot be told yet, the next input tells.
        (!self.templates.on_its_way).then_some(self.templates.next).filter(|at| *at > now)
    }

    /// Whether everything that may use a template is known. While instances run that no claim names, rather the claims are
    /// missing.
    fn sees_what_is_used(&self, now: Instant) -> bool {
        let seen = self.reading.all_at.is_some_and(|at| now.since(at) < SEEN_WITHIN);
        self.nodes_synced
            && self.classes_synced
            && self.pools.are_known(now, self.leads_since)
            && seen
            && self.copies.are_known()
            && !self.tidy.misses_claims()
    }

    /// What is named, by id or by name: by claims, by calls, by classes, by instances that live, and by what is like those
    /// that have none.
    fn templates_used(&self) -> BTreeSet<&str> {
        fn named(recipe: &Recipe) -> &str {
            &recipe.launch_template
        }
        let claims = self.claims.values().filter_map(|run| run.spec.recipe.as_ref()).map(named);
        let launches = self.launches.values().map(|run| named(&run.spec.recipe));
        let classes = self.classes.values().filter_map(|recipe| recipe.as_ref().ok()).map(named);
        let alive = self.instances.values().filter(|one| one.alive);
        let instances = alive.filter_map(|one| one.template.as_ref()).map(|(id, _)| id.as_str());
        claims.chain(launches).chain(classes).chain(instances).chain(self.copies.templates()).collect()
    }

    pub(super) fn templates_read(&mut self, now: Instant, all: Vec<OurTemplate>, effects: &mut Vec<Effect>) {
        let not_after = self.lead.act_until().filter(|_| self.sees_what_is_used(now) && self.lead.may_act(now));
        let Some(not_after) = not_after else {
            self.templates.skipped(now);
            return;
        };
        let mut templates = self.templates.clone();
        let unused = templates.seen(now, all, &self.templates_used());
        self.templates = templates;
        for of in unused {
            self.say("", Because::TemplateUnused { template: of.name.clone() }, effects);
            effects.push(Effect::DeleteTemplate { of, not_after });
        }
    }

    pub(super) fn templates_failed(&mut self, now: Instant, why: String, effects: &mut Vec<Effect>) {
        if self.templates.failed(now) {
            self.say("", Because::ReadFailed { what: "the list of launch templates", why }, effects);
        }
    }

    pub(super) fn template_deleted(&mut self, of: &OurTemplate, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.templates.deleted(&of.id);
        if let Outcome::Refused(why) | Outcome::Failed(why) = outcome {
            let what = format!("the end of launch template {}", of.name);
            self.say("", Because::WriteFailed { what, why }, effects);
        }
    }
}
