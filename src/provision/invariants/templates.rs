//! P-12: what uses a launch template, told from outside.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::launch::LaunchSpec;
use crate::api::node_claim::Recipe;
use crate::domain::notice::InstanceId;
use crate::provision::templates::OurTemplate;
use crate::provision::{Claim, Copied, Input, Instance};

/// What a replica was told that names a launch template.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    claims: BTreeMap<String, String>,
    classes: BTreeMap<String, String>,
    /// The ids of those that living instances were launched with.
    instances: BTreeMap<InstanceId, Option<String>>,
    /// The names of those that are like an instance.
    copies: BTreeMap<InstanceId, String>,
    /// Where there are any, these may serve what would be copied.
    pools: BTreeSet<String>,
}

impl Uses {
    pub(super) fn took_in(&mut self, input: &Input) {
        match input {
            Input::Listed { claims, .. } => {
                self.claims.clear();
                claims.iter().for_each(|claim| self.claim(claim));
            }
            Input::ClaimSeen(claim) => self.claim(claim),
            Input::ClaimGone { name } | Input::ClaimDeleted { name, outcome: crate::interruption::Outcome::Done } => {
                self.claims.remove(name);
            }
            Input::ClassSeen { name, recipe: Ok(Recipe { launch_template, .. }) } => {
                self.classes.insert(name.clone(), launch_template.clone());
            }
            Input::ClassSeen { name, recipe: Err(_) } | Input::ClassGone { name } => drop(self.classes.remove(name)),
            Input::PoolSeen(pool) => drop(self.pools.insert(pool.name.clone())),
            Input::PoolGone { name } => {
                self.pools.remove(name);
                // What nobody would have copied may not be there any more.
                self.copies.clear();
            }
            Input::InstancesRead { all, instances } => self.instances(*all, instances),
            Input::Copied { instance, copied: Copied::Like { template, .. } } => {
                self.copies.insert(instance.clone(), template.clone());
            }
            _ => {}
        }
    }

    fn claim(&mut self, claim: &Claim) {
        if let Some(recipe) = &claim.spec.recipe {
            self.claims.insert(claim.name.clone(), recipe.launch_template.clone());
        }
    }

    fn instances(&mut self, all: bool, instances: &[Instance]) {
        if all {
            self.instances.clear();
        }
        for one in instances.iter().filter(|one| one.alive) {
            self.instances.insert(one.id.clone(), one.template.as_ref().map(|(id, _)| id.clone()));
        }
    }

    /// Who uses it, in words.
    pub(super) fn of<'a>(
        &self,
        template: &OurTemplate,
        mut launches: impl Iterator<Item = (&'a String, &'a LaunchSpec)>,
    ) -> Option<String> {
        let named = |by: &str| by == template.id || by == template.name;
        let claim = self.claims.iter().find(|(_, by)| named(by)).map(|(name, _)| format!("claim {name}"));
        let class = self.classes.iter().find(|(_, by)| named(by)).map(|(name, _)| format!("class {name}"));
        let launched = |(id, by): (&InstanceId, &Option<String>)| {
            let used = by.as_ref().is_some_and(|by| named(by));
            let like = by.is_none() && self.pools.is_empty() && self.copies.get(id).is_some_and(|by| named(by));
            (used || like).then(|| format!("instance {id}"))
        };
        let instance = self.instances.iter().find_map(launched);
        let launch = launches.find(|(_, spec)| named(&spec.recipe.launch_template));
        claim.or(class).or(instance).or_else(|| launch.map(|(name, _)| format!("launch {name}")))
    }
}
