//! A Node whose instance has ended for good: its volumes are let go, then the Node.
//!
//! Kubernetes takes a volume from a node that does not answer only after minutes, since it cannot know whether the node
//! still writes to it. EC2 knows: an instance that is terminated writes nothing. The taint
//! `node.kubernetes.io/out-of-service` says so.

use std::time::Duration;

use super::Effect;
use super::writes::Pause;
use crate::domain::time::Instant;
use crate::interruption::Outcome;

/// How long the attachments of its volumes are waited for.
const DETACHED_WITHIN: Duration = Duration::from_secs(60);

/// How often they are looked at, and how soon what failed is tried again, and the longest.
const AGAIN: Duration = Duration::from_secs(2);
const AGAIN_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Whether volumes are attached is being asked.
    Looking,
    /// They are: the taint is to be set.
    Tainting,
    /// It is set: they are waited for.
    Detaching { until: Instant },
    /// Nothing is attached any more, or for too long: the Node is to go.
    Deleting,
}

/// How far one Node has come.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) node: String,
    /// Of the Node: another one of its name is not touched.
    pub(super) uid: String,
    stage: Stage,
    again: Instant,
    on_its_way: bool,
    /// Of what fails.
    pause: Pause,
}

impl Run {
    pub(super) fn new(now: Instant, node: String, uid: String) -> Self {
        Self { node, uid, stage: Stage::Looking, again: now, on_its_way: false, pause: Pause::default() }
    }

    /// What is to be done now.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Effect> {
        if self.on_its_way || now < self.again {
            return None;
        }
        if let Stage::Detaching { until } = self.stage
            && until <= now
        {
            self.stage = Stage::Deleting;
        }
        self.on_its_way = true;
        let (node, uid) = (self.node.clone(), self.uid.clone());
        Some(match self.stage {
            Stage::Looking | Stage::Detaching { .. } => Effect::ReadAttachments { node },
            Stage::Tainting => Effect::TaintOutOfService { node, uid },
            Stage::Deleting => Effect::DeleteNode { node, uid },
        })
    }

    /// How many volumes are attached. Returns how many there are where that sets the taint going; what went wrong, the
    /// first time in a row.
    pub(super) fn attachments(&mut self, now: Instant, found: Result<usize, String>) -> Result<Option<usize>, String> {
        self.on_its_way = false;
        self.again = now + AGAIN;
        match (found, self.stage) {
            (Err(why), _) => return self.failed(now, why).map_or(Ok(None), Err),
            (Ok(0), Stage::Looking | Stage::Detaching { .. }) => (self.stage, self.again) = (Stage::Deleting, now),
            (Ok(some), Stage::Looking) => {
                (self.stage, self.again, self.pause) = (Stage::Tainting, now, Pause::default());
                return Ok(Some(some));
            }
            _ => {}
        }
        self.pause = Pause::default();
        Ok(None)
    }

    /// How the taint was answered. Returns what went wrong, the first time in a row.
    pub(super) fn tainted(&mut self, now: Instant, outcome: Outcome) -> Option<String> {
        self.on_its_way = false;
        self.again = now + AGAIN;
        match outcome {
            Outcome::Done => {
                self.stage = Stage::Detaching { until: now + DETACHED_WITHIN };
                self.pause = Pause::default();
                None
            }
            Outcome::Refused(why) | Outcome::Failed(why) => self.failed(now, why),
        }
    }

    /// How its deletion was answered: the watch tells when it is gone. Returns what went wrong, the first time in a row.
    pub(super) fn deleted(&mut self, now: Instant, outcome: Outcome) -> Option<String> {
        self.on_its_way = false;
        self.again = now + AGAIN * 5;
        match outcome {
            Outcome::Done => {
                self.pause = Pause::default();
                None
            }
            Outcome::Refused(why) | Outcome::Failed(why) => self.failed(now, why),
        }
    }

    fn failed(&mut self, now: Instant, why: String) -> Option<String> {
        let first = self.pause.is_new();
        self.again = now + self.pause.next(AGAIN, AGAIN_MAX);
        first.then_some(why)
    }

    pub(super) fn wakeup(&self) -> Option<Instant> {
        let until = match self.stage {
            Stage::Detaching { until } => until,
            _ => self.again,
        };
        (!self.on_its_way).then(|| self.again.min(until).max(self.again))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    fn run() -> Run {
        Run::new(at(0), "n".into(), "u".into())
    }

    fn looks(run: &mut Run, now: Instant) -> bool {
        run.advance(now) == Some(Effect::ReadAttachments { node: "n".into() })
    }

    #[test]
    fn a_node_without_volumes_goes_at_once() {
        let mut run = run();
        assert!(looks(&mut run, at(0)) && run.advance(at(0)).is_none(), "one at a time");
        assert_eq!(run.attachments(at(1), Ok(0)), Ok(None));
        assert_eq!(run.advance(at(1)), Some(Effect::DeleteNode { node: "n".into(), uid: "u".into() }));
    }

    #[test]
    fn volumes_are_let_go_first_and_waited_for_a_minute_at_most() {
        for never in [false, true] {
            let mut run = run();
            assert!(looks(&mut run, at(0)));
            assert_eq!(run.attachments(at(0), Ok(2)), Ok(Some(2)));
            assert_eq!(run.advance(at(0)), Some(Effect::TaintOutOfService { node: "n".into(), uid: "u".into() }));
            assert_eq!(run.tainted(at(1), Outcome::Done), None);
            let mut now = at(3);
            while now < at(61) {
                assert!(looks(&mut run, now), "{now:?}");
                assert!(run.attachments(now, Ok(if never || now < at(30) { 1 } else { 0 })).is_ok());
                if !never && now >= at(30) {
                    break;
                }
                now = now + AGAIN;
            }
            let delete = Some(Effect::DeleteNode { node: "n".into(), uid: "u".into() });
            assert_eq!(run.advance(if never { at(61) } else { now }), delete, "never: {never}");
        }
    }

    #[test]
    fn what_could_not_be_read_or_written_is_tried_again() {
        let mut run = run();
        assert!(looks(&mut run, at(0)));
        assert_eq!(run.attachments(at(0), Err("denied".into())), Err("denied".into()));
        assert!(run.advance(at(1)).is_none() && looks(&mut run, at(2)));
        assert_eq!(run.attachments(at(2), Err("denied".into())), Ok(None), "said once, and tried more and more rarely");
        assert!(run.advance(at(5)).is_none() && looks(&mut run, at(6)));
        assert_eq!(run.attachments(at(6), Ok(1)), Ok(Some(1)));
        run.advance(at(6));
        assert_eq!(run.tainted(at(7), Outcome::Refused("no".into())), Some("no".into()));
        assert_eq!(run.advance(at(9)), Some(Effect::TaintOutOfService { node: "n".into(), uid: "u".into() }));
        assert_eq!(run.tainted(at(10), Outcome::Refused("no".into())), None, "said once");
    }
}
