//! Where no replacement comes, whoever waits for one is told so.

use super::Provisioner;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::provision::demand::{claim_name, dooms};
use crate::provision::writes::Writes;
use crate::provision::{Because, Doomed, Effect, Replacement};

impl Provisioner {
    /// No claim is made for this one: the log says why, and so does its record.
    pub(super) fn decline(&mut self, doomed: &Doomed, name: &str, because: Because, effects: &mut Vec<Effect>) {
        self.said.insert(name.to_owned());
        let said = Replacement {
            none_comes: true,
            episode: doomed.episode,
            because: because.to_string(),
            ..Replacement::default()
        };
        self.declined.insert(doomed.instance.clone(), said);
        self.say(name, because, effects);
    }

    /// An instance was taken before its node was Ready: its own claim asks for another, and no claim is made for it.
    pub(super) fn tried_again(&mut self, instance: &InstanceId, claim: String, effects: &mut Vec<Effect>) {
        let Some(doomed) = self.doomed.get(instance).filter(|doomed| dooms(doomed)) else { return };
        let name = claim_name(doomed);
        let because = Because::TriedAgain { instance: instance.clone(), claim: claim.clone() };
        let said =
            Replacement { claim, episode: doomed.episode, because: because.to_string(), ..Replacement::default() };
        self.said.insert(name.clone());
        self.declined.insert(instance.clone(), said);
        self.say(&name, because, effects);
    }

    /// Writes what was declined.
    pub(super) fn write_declined(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let doomed = &self.doomed;
        self.declined.retain(|instance, said| doomed.get(instance).is_some_and(|of| of.episode == said.episode));
        for (instance, said) in &self.declined {
            let known = || doomed.get(instance).map(|of| of.replacement.clone());
            let writes = self.replacements.entry(instance.clone()).or_insert_with(|| (0, Writes::from(known())));
            if let Some(replacement) = writes.1.next(now, said) {
                effects.push(Effect::WriteReplacement { instance: instance.clone(), replacement });
            }
            match writes.1.is_idle() {
                true => self.found.unwritten.remove(instance),
                false => self.found.unwritten.insert(instance.clone()),
            };
        }
    }
}
