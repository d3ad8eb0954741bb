//! Launch templates in EC2's truth: what is like an instance that has none, what the class comes to, and who uses them.

use super::cloud::{InstanceSim, THEIRS, TemplateSim};
use super::scenario::{CLASS, State};
use super::world::World;
use crate::api::node_claim::Recipe;
use crate::domain::notice::InstanceId;
use crate::interruption::Outcome;
use crate::provision::templates::OurTemplate;
use crate::provision::{Copied, Input};

/// How soon a replica may know that a class has changed, or that a pool has gone.
const SEEN_MS: u64 = 2_000;

/// What has become of the launch templates of ours.
#[derive(Default)]
pub(in crate::sim) struct Ours {
    /// How often the class was changed so that another template is made of it.
    class_moves: u32,
    /// When that was last, or a pool went.
    pub moved_ms: u64,
    /// Those that were deleted because nothing used them.
    pub deleted: Vec<String>,
}

impl World {
    /// The name of the template that says the same as an instance without one.
    fn like(&self, one: &InstanceSim) -> Option<String> {
        let place = self.find(&one.id).filter(|_| one.template.is_none())?;
        Some(format!("spotkeeper-{:012x}", place % self.supply.plain_kinds.max(1)))
    }

    /// Has a template of ours, as whoever names one by its content does. Returns whether it was made.
    fn have_template(&mut self, name: &str) -> bool {
        if self.cloud.templates.contains_key(name) {
            return false;
        }
        let id = format!("lt-{}", self.uid());
        self.cloud.templates.insert(name.to_owned(), TemplateSim { id, ours: true });
        true
    }

    /// What another like this one is launched with.
    fn copy(&mut self, instance: &InstanceId) -> Copied {
        if self.cloud.state == State::Throttles {
            return Copied::Failed("RequestLimitExceeded".into());
        }
        let one = self.find(instance).map(|place| &self.cloud.instances[place]);
        let Some(one) = one.filter(|one| one.died_ms.is_none() && one.shown_ms <= self.now) else {
            return Copied::Gone;
        };
        let Some(template) = self.like(one) else {
            self.found("P-3w", format!("{instance} has a launch template, and is copied without it"));
            return Copied::Failed("it has one".into());
        };
        self.figures.copied += 1;
        let made = self.have_template(&template);
        Copied::Like { template, made }
    }

    /// The template that the class of all pools comes to.
    pub fn class_template(&self) -> String {
        if self.supply.inline_class { format!("spotkeeper-class{}", self.ours.class_moves) } else { "lt-class".into() }
    }

    /// Whoever resolves classes has their templates made.
    pub fn resolve_class(&mut self) {
        let name = self.class_template();
        if self.supply.inline_class {
            self.have_template(&name);
        }
        let recipe = Ok(self.class_recipe());
        self.classes.insert(CLASS.into(), recipe.clone());
        self.broadcast(&Input::ClassSeen { name: CLASS.into(), recipe });
    }

    pub fn class_moves(&mut self) {
        (self.ours.class_moves, self.ours.moved_ms) = (self.ours.class_moves + 1, self.now);
        self.resolve_class();
    }

    /// Somebody deletes all that are ours; of the class it is made again.
    pub fn delete_templates(&mut self) {
        self.cloud.templates.retain(|_, of| !of.ours);
        if self.classes.values().all(Result::is_ok) {
            self.resolve_class();
        }
    }

    /// The id of what a recipe names, where that is there.
    pub fn template_of(&self, recipe: &Recipe) -> Option<String> {
        match recipe.launch_template.as_str() {
            name if name.starts_with("spotkeeper-") => self.cloud.templates.get(name).map(|of| of.id.clone()),
            id => Some(id.to_owned()),
        }
    }

    pub fn our_templates(&self) -> Vec<OurTemplate> {
        let ours = self.cloud.templates.iter().filter(|(_, of)| of.ours);
        ours.map(|(name, of)| OurTemplate { id: of.id.clone(), name: name.clone() }).collect()
    }

    pub fn copy_of(&mut self, instance: InstanceId) -> Input {
        let copied = self.copy(&instance);
        Input::Copied { instance, copied }
    }

    pub fn delete_template(&mut self, of: OurTemplate) -> Input {
        if self.cloud.templates.get(&of.name).is_some_and(|one| one.id == of.id) {
            self.tell(|| format!("-- {} is deleted", of.name));
            self.cloud.templates.remove(&of.name);
            self.ours.deleted.push(of.name.clone());
            self.figures.templates_deleted += 1;
        }
        Input::TemplateDeleted { of, outcome: Outcome::Done }
    }

    /// P-12: whoever is about to delete a template deletes one of ours, and nothing uses it.
    pub fn check_unused(&mut self, of: &OurTemplate) {
        let named = |recipe: &Recipe| recipe.launch_template == of.name || recipe.launch_template == of.id;
        let theirs = self.cloud.templates.get(&of.name).is_some_and(|one| one.id == of.id && !one.ours);
        let claim = self.claims.values().find(|claim| claim.spec.recipe.as_ref().is_some_and(named));
        let launch = self.launches.values().find(|one| one.status.outcome.is_none() && named(&one.spec.recipe));
        let known = self.ours.moved_ms + SEEN_MS < self.now;
        let class = self.classes.values().flatten().any(named) && known;
        // Where there are pools, these may serve it.
        let copied = self.pools.is_empty() && known;
        let living = self.cloud.instances.iter().filter(|one| one.died_ms.is_none());
        let instance = living.filter(|one| match &one.template {
            Some(id) => *id == of.id && id != THEIRS,
            None => copied && self.like(one).is_some_and(|name| name == of.name),
        });
        let by = [
            theirs.then(|| "it is somebody else's".to_owned()),
            claim.map(|claim| format!("claim {} uses it", claim.name)),
            launch.map(|launch| format!("launch {} uses it", launch.name)),
            class.then(|| "the class uses it".to_owned()),
            instance.map(|one| format!("{} is made with it, or like it", one.id)).next(),
        ];
        for why in by.into_iter().flatten() {
            self.found("P-12", format!("{} is deleted, and {why}", of.name));
        }
    }

    /// Whether nothing is left that a claim could be launched with: somebody has deleted its template, and what it was like
    /// has ended.
    pub fn is_beyond_copying(&self, claim: &str) -> bool {
        let recipe = self.claims.get(claim).and_then(|claim| claim.spec.recipe.as_ref());
        recipe.is_some_and(|recipe| self.template_of(recipe).is_none())
    }
}
