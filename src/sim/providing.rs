//! A provisioner, as far as an agent hears of it: what the records say of replacements.

use super::scenario::ProvisionerSpec;
use super::world::{Event, World};
use crate::api::interruption::{Phase, ReplacementStatus};

impl World {
    /// A record has changed: a confirmed episode is heard of once.
    pub fn provisioner_sees(&mut self, node: usize) {
        let sim = &self.nodes[node];
        let Some(status) = sim.record.as_ref().map(|record| &record.status) else { return };
        let confirmed = status.phase.is_some_and(|phase| phase >= Phase::Confirmed && !phase.ends_episode());
        if !confirmed || sim.answered == Some(status.episode) {
            return;
        }
        let episode = status.episode;
        let said = ReplacementStatus { episode, because: "as the scenario says".into(), ..Default::default() };
        let asked = ReplacementStatus { claim: format!("{}-{episode}", sim.instance), ..said.clone() };
        self.nodes[node].answered = Some(episode);
        match self.scenario.provisioner {
            ProvisionerSpec::Absent => {}
            ProvisionerSpec::Declines { answers_in_ms } => {
                self.provides_in(answers_in_ms, node, ReplacementStatus { none_comes: true, ..said });
            }
            ProvisionerSpec::Provides { answers_in_ms, ready_in_ms } => {
                self.provides_in(answers_in_ms, node, asked.clone());
                if let Some(ready) = ready_in_ms {
                    let ready = answers_in_ms.saturating_add(ready);
                    self.provides_in(ready, node, ReplacementStatus { ready: true, ..asked });
                }
            }
        }
    }

    fn provides_in(&mut self, millis: u64, node: usize, replacement: ReplacementStatus) {
        let replacement = Box::new(replacement);
        self.schedule(self.now + millis, Event::Provides { node, replacement });
    }

    /// The provisioner's word reaches the API server, where that can be reached.
    pub fn provides(&mut self, node: usize, replacement: ReplacementStatus) {
        if self.api == super::scenario::ApiState::Away {
            let replacement = Box::new(replacement);
            return self.schedule(self.now + 1_000, Event::Provides { node, replacement });
        }
        let Some(record) = &mut self.nodes[node].record else { return };
        if record.status.episode != replacement.episode {
            return;
        }
        record.status.replacement = Some(replacement.clone());
        self.tell(node, || format!("the provisioner says: {replacement:?}"));
        self.record_changed(node);
    }
}
