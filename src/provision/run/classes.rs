//! What the EC2NodeClasses say is launched.

use super::Provisioner;
use crate::api::node_claim::Recipe;
use crate::domain::time::Instant;
use crate::provision::claim;

impl Provisioner {
    /// A class was resolved. Claims that wait because their template was wrong ask again with it at once, where it is
    /// the same one: it was made again.
    pub(super) fn class_seen(&mut self, now: Instant, name: String, recipe: Result<Recipe, String>) {
        let template = recipe.as_ref().ok().map(|recipe| recipe.launch_template.clone());
        let known = self.classes.insert(name.clone(), recipe);
        if known.is_some_and(|known| known.is_ok() && self.classes.get(&name) != Some(&known)) {
            self.recipe_has_changed(&name);
        }
        self.looks_at_all();
        self.look_for_plain = true;
        template.into_iter().for_each(|template| self.template_is_there(now, &template));
    }

    /// Something else is launched with a class: claims of its pools that have failed are tried again.
    fn recipe_has_changed(&mut self, class: &str) {
        let pools = &self.pools;
        let of = |run: &claim::Run| {
            let rules = run.spec.node_pool.as_ref().and_then(|pool| pools.get(pool)?.rules.as_ref().ok());
            rules.is_some_and(|rules| rules.class == class)
        };
        for run in self.claims.all_quietly().filter(|run| run.has_failed() && of(run)) {
            run.look_again();
        }
        self.looks_at_all();
    }

    /// This template can be launched with: whoever waits because it could not be asks again.
    pub(super) fn template_is_there(&mut self, now: Instant, template: &str) {
        let named = |recipe: &Recipe| recipe.launch_template == template;
        let (pools, classes) = (&self.pools, &self.classes);
        for run in self.claims.all_quietly() {
            let own = run.spec.recipe.as_ref().is_some_and(named);
            if own || run.spec.node_pool.as_ref().is_some_and(|pool| pools.recipe(pool, classes).is_ok_and(named)) {
                run.righted(now);
            }
        }
        self.looks_at_all();
    }
}
