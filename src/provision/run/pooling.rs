//! Claims of NodePools: what is launched for them, and why not.

use super::Provisioner;
use crate::api::node_claim::{NodeClaimSpec, Recipe};
use crate::provision::{Because, Effect, Pool};

impl Provisioner {
    /// A pool is new or has changed.
    pub(super) fn pool_seen(&mut self, pool: Pool) {
        let name = pool.name.clone();
        if !self.pools.seen(pool, &self.catalog) {
            return;
        }
        // What was held back by what it said before looks again, from the first rung on.
        for run in self.claims.values_mut().filter(|run| run.spec.node_pool.as_ref() == Some(&name)) {
            run.look_again();
        }
    }

    /// What is launched for a claim; or why nothing can be.
    pub(super) fn recipe(&self, own: Option<&Recipe>, pool: Option<&str>) -> Result<Recipe, String> {
        match (own, pool) {
            (Some(recipe), _) => Ok(recipe.clone()),
            (None, Some(pool)) => self.pools.recipe(pool, &self.classes).cloned(),
            (None, None) => Err("the claim has neither a recipe nor a NodePool".into()),
        }
    }

    /// Claims that nothing can be asked for now; they are looked at again with the next input.
    pub(super) fn hold(&mut self, names: &[String], because: &Because, effects: &mut Vec<Effect>) {
        for name in names {
            if self.claims.get_mut(name).is_some_and(|run| run.waits(because)) {
                self.say(name, because.clone(), effects);
            }
        }
    }

    /// Whether a claim like this one would be made again: its pool still says the same.
    pub(super) fn is_up_to_date(&self, spec: &NodeClaimSpec) -> bool {
        let Some(name) = &spec.node_pool else { return true };
        let rules = self.pools.get(name).and_then(|served| served.rules.as_ref().ok());
        rules.is_some_and(|rules| spec.requirements.starts_with(&rules.requirements) && spec.order == rules.order)
    }
}
