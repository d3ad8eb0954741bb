//! What the EC2NodeClasses say is launched.

use super::Provisioner;
use crate::api::node_claim::Recipe;
use crate::domain::time::Instant;

impl Provisioner {
    /// A class was resolved. Claims that wait because their template was wrong ask again with it at once, where it is
    /// the same one: it was made again.
    pub(super) fn class_seen(&mut self, now: Instant, name: String, recipe: Result<Recipe, String>) {
        if let Ok(recipe) = &recipe {
            self.template_is_there(now, &recipe.launch_template);
        }
        self.classes.insert(name, recipe);
    }

    /// This template can be launched with: whoever waits because it could not be asks again.
    pub(super) fn template_is_there(&mut self, now: Instant, template: &str) {
        for run in self.claims.values_mut().filter(|run| run.spec.recipe.launch_template == template) {
            run.righted(now);
        }
    }
}
