//! Instances without a launch template: what another is launched with is read and made while they live.

use std::collections::BTreeSet;

use super::Provisioner;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::copies::Copied;
use crate::provision::demand::{KARPENTER, wants};
use crate::provision::pools::serving::Service;
use crate::provision::{Because, Doomed, Effect, Replacement};

impl Provisioner {
    /// Looks for instances of which a copy would be launched, and lets those be read that are due.
    pub(super) fn keep_copies(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.look_for_plain) {
            self.look_for_plain(now);
        }
        let Some(not_after) = self.lead.act_until() else { return };
        for instance in self.copies.read(now) {
            effects.push(Effect::Copy { instance, not_after });
        }
    }

    /// A whole list of instances is there: those that live without a template, and that no pool serves and no Karpenter.
    fn look_for_plain(&mut self, now: Instant) {
        if self.catalog.is_empty() || !self.nodes_synced || !self.pools.are_known(now, self.leads_since) {
            // The next list will do.
            return;
        }
        let mut alive: BTreeSet<InstanceId> = BTreeSet::new();
        for node in self.nodes.values().filter(|node| !node.labels.contains_key(KARPENTER)) {
            let instance = node.instance.as_ref().and_then(|id| self.instances.get(id));
            let Some(of) = instance.filter(|of| of.alive && of.template.is_none()) else { continue };
            let serves = self.pools.serving(Some(node), &of.offering, &self.catalog, &self.classes);
            if matches!(serves, Service::Copy) {
                alive.insert(of.id.clone());
            }
        }
        // What has ended may still be wanted: while its Node is there or went not long ago, as it may have been taken
        // unheard, and until its interruption has its claim.
        let with_node = self.nodes.values().chain(self.unheard.went(now));
        let with_node: BTreeSet<&InstanceId> = with_node.filter_map(|node| node.instance.as_ref()).collect();
        let unserved = |of: &Doomed| wants(of, &self.settings) && of.replacement == Replacement::default();
        let doomed = &self.doomed;
        let may_be_wanted = |id: &InstanceId| with_node.contains(id) || doomed.get(id).is_some_and(unserved);
        self.copies.follow(now, alive, may_be_wanted);
    }

    pub(super) fn copied(&mut self, now: Instant, instance: &InstanceId, copied: &Copied, effects: &mut Vec<Effect>) {
        if let Some(why) = self.copies.answered(now, instance, copied) {
            let because = Because::NotCopied { instance: instance.clone(), why };
            self.say(instance.as_str(), because, effects);
        }
        if let Copied::Like { template, made: true } = copied {
            self.template_is_there(now, template);
        }
    }
}
