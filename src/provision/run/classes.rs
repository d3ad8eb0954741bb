//! What the EC2NodeClasses say is launched.

use super::Provisioner;
use crate::api::node_claim::Recipe;
use crate::domain::time::Instant;

impl Provisioner {
    /// A class was resolved. Claims that wait because their template was wrong ask again with it at once, where it is
    /// the same one: it was made again.
    pub(super) fn class_seen(&mut self, now: Instant, name: String, recipe: Result<Recipe, String>) {
        let template = recipe.as_ref().ok().map(|recipe| recipe.launch_template.clone());
        self.classes.insert(name, recipe);
        self.looks_at_all();
        self.look_for_plain = true;
        template.into_iter().for_each(|template| self.template_is_there(now, &template));
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
