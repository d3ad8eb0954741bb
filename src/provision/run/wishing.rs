//! Which claims are wanted for the interruptions that there are.

use super::Provisioner;
use super::watched::Pace;
use crate::api::node_claim::ClaimPhase;
use crate::domain::time::Instant;
use crate::provision::demand::{Wish, claim_name, wants, wish, withdrawn};
use crate::provision::{Because, Doomed, Effect, NodeView, claim};

impl Provisioner {
    /// One claim for each confirmed interruption.
    pub(super) fn demand(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut wanted = Vec::new();
        self.claims.index(now);
        let mut of = self.doomed.to_look_at(Pace::Changed);
        of.append(&mut self.found.unmet);
        let changed = self.claims.to_look_at(Pace::Changed);
        let replaced = changed.iter().filter_map(|name| self.claims.get(name)?.spec.replaces.as_ref());
        of.extend(replaced.map(|of| of.instance_id.clone()));
        for doomed in of.iter().filter_map(|id| self.doomed.get(id)) {
            let name = claim_name(doomed);
            if let Some(run) = self.claims.get(&name) {
                let early = run.phase() < ClaimPhase::Launched && run.launch.is_none();
                if withdrawn(doomed) && early && !run.deleting {
                    wanted.push((name, None));
                }
            } else if wants(doomed, &self.settings) && !self.is_served(doomed, &name) && !self.said.contains(&name) {
                // Until there is a claim, or a word that there will be none.
                self.found.unmet.insert(doomed.instance.clone());
                if self.retires(&doomed.instance) || self.comes_back(&doomed.instance) {
                    continue;
                }
                // What is no Ready node yet is tried again by its own claim when it has ended.
                if self.claims.of_instance(&doomed.instance).any(|run| run.phase() < ClaimPhase::Ready) {
                    continue;
                }
                let of = self.instances.get(&doomed.instance);
                // What stands in for another was launched by a claim: the next one is like it.
                let ours = self.claims.of_instance(&doomed.instance).next().map(|run| &run.spec);
                let ours = ours.or_else(|| self.found.failed.get(&doomed.instance));
                let node = self.nodes.get(&doomed.node).or_else(|| self.gone_nodes.get(&doomed.node));
                let node = node.or_else(|| self.unheard.node(&doomed.node));
                let wish = match ours {
                    _ if !self.pools.are_known(now, self.leads_since) => Wish::Later,
                    Some(spec) if self.is_up_to_date(spec) => Wish::like(spec, doomed, &self.settings),
                    _ => wish(
                        doomed,
                        node,
                        of.map(|of| (of, self.copies.of(&of.id))),
                        &self.catalog,
                        (&self.pools, &self.classes),
                        &self.settings,
                    ),
                };
                let kept = doomed.kept_in_zone || node.is_some_and(|node| node.bound_to_zone);
                let zone = of.map(|of| of.offering.zone.as_str()).filter(|_| kept);
                wanted.push((name, Some((doomed.clone(), wish.kept_in(zone)))));
            }
        }
        for (name, what) in wanted {
            match what {
                None => {
                    let because = self.claims.get_mut(&name).map(|run| run.unwanted("the announcement was withdrawn"));
                    because.into_iter().for_each(|because| self.say(&name, because, effects));
                }
                Some((doomed, Wish::Claim(spec))) => {
                    self.found.failed.remove(&doomed.instance);
                    self.say(&name, Because::Wanted { node: doomed.node.clone(), kind: doomed.kind }, effects);
                    self.claims.insert(name.clone(), claim::Run::new(now, name, *spec));
                }
                Some((_, Wish::Later)) => {}
                Some((doomed, Wish::Uncopied)) => self.copies.want(now, &doomed.instance),
                Some((_, Wish::Waits(because))) => {
                    if self.said.insert(format!("{name}: {because}")) {
                        self.say(&name, because, effects);
                    }
                }
                Some((doomed, Wish::None(because))) => self.decline(&doomed, &name, because, effects),
                Some((doomed, Wish::Unknown)) if self.reading.is_unknown(now, &doomed.instance) => {
                    let (node, why) = (doomed.node.clone(), "EC2 does not know its instance any more".into());
                    let instance = doomed.instance.clone();
                    self.decline(&doomed, &name, Because::NothingToCopy { instance, node, why }, effects);
                }
                Some((doomed, Wish::Unknown)) => {
                    // One that was just read and not shown is read again at its time.
                    let again = self.reading.missing.contains_key(&doomed.instance);
                    if self.reading.wanted.insert(doomed.instance) && !self.reading.on_its_way && !again {
                        self.reading.next = now;
                    }
                }
            }
        }
    }

    /// Whether its record names the claim that serves it: its own, or that of which it was an instance. One that had failed,
    /// and that a person has deleted, is made anew.
    fn is_served(&self, doomed: &Doomed, name: &str) -> bool {
        let said = &doomed.replacement;
        let failed = (said.claim == name && said.none_comes) || self.found.failed.contains_key(&doomed.instance);
        !failed && (said.claim == name || (said.episode == doomed.episode && !said.claim.is_empty()))
    }

    pub(super) fn node_seen(&mut self, now: Instant, node: NodeView) {
        let mut node = self.named(now, node);
        if let Some(known) = self.nodes.get(&node.name).filter(|known| known.bound_to_zone) {
            // Its pods may be gone by the time that another node is wanted for them: while it is doomed, what kept them
            // there still does.
            let doomed = known.instance.as_ref().and_then(|instance| self.doomed.get(instance));
            node.bound_to_zone |= doomed.is_some_and(|doomed| !doomed.phase.ends_episode());
        }
        self.set_node(node);
    }
}
