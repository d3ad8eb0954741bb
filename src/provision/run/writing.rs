//! What the provisioner writes to the API server: its claims, and what they and the Interruptions say.

use std::time::Duration;

use super::watched::Pace;
use super::{AGAIN, Provisioner};
use crate::api::node_claim::ClaimPhase;
use crate::domain::notice::InstanceId;
use crate::domain::time::Instant;
use crate::interruption::Outcome;
use crate::provision::claim::{self, Object};
use crate::provision::writes::{Pause, Writes};
use crate::provision::{Because, Created, Effect, Replacement};

/// The longest pause between two tries to delete a claim.
const GONE_AGAIN_MAX: Duration = Duration::from_secs(60);

impl Provisioner {
    /// Creates claims, and removes those that are done with.
    pub(super) fn objects(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let may_act = |run: &&claim::Run| run.deleting || !matches!(run.object, Object::There { .. });
        let of = self.claims.looked_at(Pace::Always).filter(may_act).map(|run| run.name.clone());
        for name in of.collect::<Vec<_>>() {
            let before = effects.len();
            let Some(run) = self.claims.quietly(&name) else { continue };
            match &mut run.object {
                Object::Missing { again, on_its_way } if !*on_its_way && again.is_none_or(|at| at <= now) => {
                    *on_its_way = true;
                    effects.push(Effect::CreateClaim { name: run.name.clone(), spec: Box::new(run.spec.clone()) });
                }
                Object::There { uid } if run.deleting && run.launch.is_none() && run.status.instance_id.is_none() => {
                    let (uid, pause) = (uid.clone(), Pause::default());
                    run.object = Object::Going { uid, again: None, on_its_way: false, pause };
                }
                _ => {}
            }
            if let Object::Going { uid, again, on_its_way, .. } = &mut run.object
                && !*on_its_way
                && again.is_none_or(|at| at <= now)
            {
                *on_its_way = true;
                effects.push(Effect::DeleteClaim { name: run.name.clone(), uid: uid.clone() });
            }
            if effects.len() > before {
                self.claims.touch(&name);
            }
        }
    }

    /// Writes what has changed.
    pub(super) fn write(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for name in self.claims.to_look_at(Pace::Always) {
            let Some(run) = self.claims.quietly(&name) else { continue };
            let Object::There { uid } = &run.object else { continue };
            if let Some(status) = run.writes.next(now, &run.status) {
                let uid = uid.clone();
                self.claims.touch(&name);
                effects.push(Effect::WriteClaim { name, uid, status: Box::new(status) });
            }
        }
        let mut names = self.launches.to_look_at(Pace::Always);
        let again = self.launches.values().filter(|run| run.writes.retry().is_some_and(|at| at <= now));
        names.extend(again.map(|run| run.name.clone()));
        for name in names {
            let Some(run) = self.launches.quietly(&name) else { continue };
            let Some(uid) = run.uid.clone() else { continue };
            if run.status.outcome.is_some()
                && let Some(status) = run.writes.next(now, &run.status)
            {
                effects.push(Effect::WriteLaunch { name: run.name.clone(), uid, status: Box::new(status) });
            }
        }
        self.write_replacements(now, effects);
        self.write_declined(now, effects);
    }

    /// What the Interruptions say of their replacements.
    fn write_replacements(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut names = self.claims.to_look_at(Pace::Always);
        self.claims.index(now);
        let again = self.found.unwritten.iter().filter(|id| {
            let run = self.replacements.get(*id);
            run.is_none_or(|(_, writes)| writes.retry().map_or(writes.is_idle(), |at| at <= now))
        });
        let again: Vec<InstanceId> = again.cloned().collect();
        // Those to whom no claim has anything to say any more must not be looked at again and again.
        for id in &again {
            self.found.unwritten.remove(id);
        }
        let of = self.doomed.to_look_at(Pace::Always).into_iter().chain(again);
        of.for_each(|id| names.extend(self.claims.replacing(&id).map(|run| run.name.clone())));
        for name in names {
            let Some(run) = self.claims.get(&name).filter(|run| run.uid().is_some()) else { continue };
            // Not before it is written: whoever reads this takes the claim to have been made.
            let Some(of) = &run.spec.replaces else { continue };
            let Some(doomed) = self.doomed.get(&of.instance_id).filter(|d| d.episode == of.episode) else { continue };
            let writes = self.replacements.entry(of.instance_id.clone()).or_insert_with(|| {
                let known = Some(doomed.replacement.clone());
                (0, Writes::from(known))
            });
            if writes.0 == run.changes() && writes.1.is_idle() {
                self.found.unwritten.remove(&of.instance_id);
                continue;
            }
            let replacement = Replacement {
                claim: run.name.clone(),
                capacity_type: run.status.offering.as_ref().map(|offering| offering.capacity_type),
                ready: run.phase() == ClaimPhase::Ready,
                none_comes: run.has_failed(),
                episode: of.episode,
                because: run.status.because.clone().unwrap_or_default(),
            };
            let next = writes.1.next(now, &replacement);
            // While an older one is on its way this one is still to follow.
            if next.is_some() || writes.1.has(&replacement) {
                writes.0 = run.changes();
            }
            // The answer to what is on its way brings it back.
            match writes.1.is_on_its_way() || writes.0 == run.changes() && writes.1.is_idle() {
                true => self.found.unwritten.remove(&of.instance_id),
                false => self.found.unwritten.insert(of.instance_id.clone()),
            };
            if let Some(replacement) = next {
                effects.push(Effect::WriteReplacement { instance: doomed.instance.clone(), replacement });
            }
        }
    }

    pub(super) fn replacement_written(&mut self, now: Instant, instance: &InstanceId, outcome: Outcome) {
        if let Some((_, writes)) = self.replacements.get_mut(instance) {
            writes.answered(now, outcome);
            self.found.unwritten.insert(instance.clone());
        }
    }

    pub(super) fn claim_written(&mut self, now: Instant, name: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let why = self.claims.get_mut(name).and_then(|run| run.writes.answered(now, outcome));
        if let Some(why) = why {
            self.say(name, Because::WriteFailed { what: format!("the status of NodeClaim {name}"), why }, effects);
        }
    }

    pub(super) fn claim_deleted(&mut self, now: Instant, name: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let (Outcome::Refused(why) | Outcome::Failed(why)) = outcome else { return self.claim_gone(name) };
        let Some(Object::Going { again, on_its_way, pause, .. }) = self.claims.get_mut(name).map(|run| &mut run.object)
        else {
            return;
        };
        let first = pause.is_new();
        (*again, *on_its_way) = (Some(now + pause.next(AGAIN, GONE_AGAIN_MAX)), false);
        if first {
            self.say(name, Because::WriteFailed { what: format!("the end of NodeClaim {name}"), why }, effects);
        }
    }

    /// How the API server answered the deletion of a Launch.
    pub(super) fn launch_deleted(&mut self, now: Instant, name: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let (Outcome::Refused(why) | Outcome::Failed(why)) = outcome else {
            self.launches.remove(name);
            return;
        };
        if self.launches.get_mut(name).is_some_and(|run| run.not_deleted(now)) {
            self.say(name, Because::WriteFailed { what: format!("the end of Launch {name}"), why }, effects);
        }
    }

    pub(super) fn launch_written(&mut self, now: Instant, name: &str, outcome: Outcome, effects: &mut Vec<Effect>) {
        let why = self.launches.get_mut(name).and_then(|run| run.writes.answered(now, outcome));
        if let Some(why) = why {
            self.say(name, Because::WriteFailed { what: format!("the status of Launch {name}"), why }, effects);
        }
    }

    /// Somebody has deleted the record of a call: nothing can be written down there any more, and its claims are told from
    /// memory.
    pub(super) fn launch_gone(&mut self, name: &str) {
        self.launches.get_mut(name).into_iter().for_each(|run| run.record_is_gone());
    }

    pub(super) fn claim_created(&mut self, now: Instant, name: &str, outcome: Created, effects: &mut Vec<Effect>) {
        let why = self.claims.get_mut(name).and_then(|run| run.created(now, outcome));
        if let Some(why) = why {
            self.say(name, Because::WriteFailed { what: format!("NodeClaim {name}"), why }, effects);
        }
    }
}
