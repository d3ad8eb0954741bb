//! From what the simulator saw to what it means for this cluster.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{AskedBy, Capacity, Down, End, NodePlan, PodPlan, Replacement, Request, TypePrice};
use super::question::Question;
use super::snapshot::{PodFacts, Snapshot};
use super::world::{NOTICE_MS, World};
use crate::domain::pod::OnInterruption;
use crate::domain::requirements::NODE_POOL;
use crate::interruption::Verb;
use crate::sim::system::given::PodAsks;
use crate::sim::system::{ClaimOutcome, Decision, NodeState, NodeTimeline, PodState, PodTimeline, Report};

/// Reasons for which nothing comes in a node's place, or not now.
const STANDS_IN_THE_WAY: [&str; 10] = [
    "LeftToKarpenter",
    "NothingToCopy",
    "PoolCannotWork",
    "NothingToLaunch",
    "LimitReached",
    "CostCapReached",
    "NoPrice",
    "Exhausted",
    "Misconfigured",
    "RecipeNeverRegisters",
];

/// Of these, those for which nothing is asked for at all.
const NONE_IS_WANTED: [&str; 2] = ["LeftToKarpenter", "NothingToCopy"];

/// What is known of a world that has been run.
pub struct Run<'a> {
    pub snapshot: &'a Snapshot,
    pub question: &'a Question,
    pub lost: &'a [usize],
    pub world: &'a World,
    pub report: &'a Report,
}

/// A moment of the world as one since the notice.
fn since(at_ms: u64) -> u64 {
    at_ms.saturating_sub(NOTICE_MS)
}

impl Run<'_> {
    pub fn nodes(&self) -> Vec<NodePlan> {
        self.lost.iter().map(|at| self.node(*at)).collect()
    }

    fn node(&self, at: usize) -> NodePlan {
        let facts = &self.snapshot.nodes[at];
        let timeline = &self.report.outcome.timelines.nodes[at];
        let when = |state: NodeState| timeline.states.iter().find(|(_, one)| *one == state).map(|(at, _)| since(*at));
        let own = |pod: &&PodFacts| pod.node == Some(at) && pod.bound.is_some() && !pod.finished;
        let claim = self.claim(timeline);
        let ready = claim.is_some_and(|claim| claim.ready_ms.is_some());
        let why = if ready { None } else { self.because(timeline, claim) };
        let wanted = why.is_none_or(|why| !NONE_IS_WANTED.contains(&why.reason));
        NodePlan {
            name: facts.name.clone(),
            instance_type: facts.of.name.clone(),
            zone: facts.zone.clone(),
            capacity_type: facts.capacity_type,
            node_pool: facts.labels.get(NODE_POOL).cloned(),
            cordoned_ms: when(NodeState::Cordoned).or(when(NodeState::Draining)).or(when(NodeState::Drained)),
            drained_ms: when(NodeState::Drained),
            own_pods: self.snapshot.pods.iter().filter(own).count(),
            replacement: claim.filter(|_| wanted).map(|claim| self.replacement(claim)),
            because: why.map(|why| why.because.clone()),
        }
    }

    fn claim(&self, node: &NodeTimeline) -> Option<&ClaimOutcome> {
        let of = |name: &str| name.strip_prefix(&node.instance).and_then(|rest| rest.strip_prefix('-')).is_some();
        self.report.outcome.claims.iter().find(|claim| of(&claim.name))
    }

    fn replacement(&self, claim: &ClaimOutcome) -> Replacement {
        let ours = self.report.launches.iter().filter(|(_, spec)| spec.claims.iter().any(|of| of.name == claim.name));
        let request = |(at, spec): &crate::sim::system::given::Asked| {
            let zones: BTreeSet<&String> = spec.overrides.iter().map(|of| &of.zone).collect();
            let types: BTreeSet<&String> = spec.overrides.iter().map(|of| &of.instance_type).collect();
            let price = |name: &&String| TypePrice {
                name: (*name).clone(),
                on_demand: self.question.prices.get(*name).copied(),
            };
            Request {
                at_ms: since(*at),
                capacity_type: spec.capacity_type,
                count: spec.count,
                instance_types: types.iter().map(price).collect(),
                zones: zones.into_iter().cloned().collect(),
            }
        };
        Replacement {
            asked_ms: claim.asked_ms.iter().map(|(of, at)| (*of, since(*at))).collect(),
            requests: ours.map(request).collect(),
            capacity_type: claim.capacity_type,
            ready_ms: claim.ready_ms.map(since),
        }
    }

    /// The last reason that stands in the way of a replacement.
    fn because(&self, node: &NodeTimeline, claim: Option<&ClaimOutcome>) -> Option<&Decision> {
        let about =
            |name: &str| name == node.name || name == node.instance || claim.is_some_and(|claim| claim.name == name);
        let decisions = self.report.outcome.decisions.iter().rev();
        let mut reasons = decisions.filter(|one| about(&one.about) && STANDS_IN_THE_WAY.contains(&one.reason));
        reasons.next()
    }

    /// The pods of workloads on the nodes that are lost, in the order of the snapshot.
    pub fn pods(&self) -> Vec<PodPlan> {
        let mut first: BTreeMap<(usize, u32), usize> = BTreeMap::new();
        let mut later: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
        for (life, asks) in self.report.asks.iter().enumerate() {
            let key = (asks.workload, asks.ordinal);
            match first.entry(key) {
                Entry::Vacant(none_yet) => drop(none_yet.insert(life)),
                Entry::Occupied(_) => later.entry(key).or_default().push(life),
            }
        }
        let mut all = Vec::new();
        for (workload, pods) in self.world.pods.iter().enumerate() {
            for (ordinal, at) in pods.iter().enumerate() {
                let key = (workload, u32::try_from(ordinal).unwrap_or(u32::MAX));
                let lost = self.snapshot.pods[*at].node.is_some_and(|node| self.lost.contains(&node));
                if let Some(life) = first.get(&key).filter(|_| lost) {
                    let later = later.get(&key).map(Vec::as_slice).unwrap_or_default();
                    all.push((*at, self.pod(*at, *life, later)));
                }
            }
        }
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, pod)| pod).collect()
    }

    fn pod(&self, at: usize, life: usize, later: &[usize]) -> PodPlan {
        let facts = &self.snapshot.pods[at];
        let asks: &PodAsks = &self.report.asks[life];
        let timeline: &PodTimeline = &self.report.outcome.timelines.pods[life];
        let last = timeline.states.last().map(|(at, _, state)| (*at, *state));
        let granted = asks.accepted.last().map(|(_, _, secs)| secs.map_or(facts.grace_secs, u64::from));
        let end = match last {
            Some((_, PodState::Stopped)) => End::InTime,
            Some((_, PodState::CutShort)) => End::CutShort,
            Some((_, PodState::Killed)) => End::Killed,
            // Its end is not to be seen; that it was given all of its grace is.
            _ if granted.is_some_and(|secs| secs >= facts.grace_secs) => End::InTime,
            _ => End::Killed,
        };
        let again = later.iter().find_map(|life| {
            let states = &self.report.outcome.timelines.pods[*life].states;
            states.iter().find(|(_, _, state)| *state == PodState::Running)
        });
        PodPlan {
            name: facts.path(),
            of: facts.whose(),
            node: facts.node.map(|node| self.snapshot.nodes[node].name.clone()).unwrap_or_default(),
            policy: match facts.policy {
                OnInterruption::Evict => "evict",
                OnInterruption::Wait => "wait",
                OnInterruption::Stay => "stay",
            },
            grace_secs: facts.grace_secs,
            asked_ms: asks.first_ms.map(since),
            refusals: asks.refused.len(),
            refused_by: asks
                .refused
                .iter()
                .flat_map(|(_, by)| by.clone())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            refused_until_ms: asks.refused.last().map(|(at, _)| since(*at)),
            asked_by: match asks.accepted.first().map(|(_, verb, _)| *verb) {
                Some(Verb::Delete) => AskedBy::Deleted,
                Some(Verb::Evict) => AskedBy::Evicted,
                None => AskedBy::None,
            },
            granted_secs: granted,
            end,
            ends_ms: last.map(|(at, _)| since(at)),
            short_by_secs: facts.grace_secs.saturating_sub(granted.unwrap_or(0)),
            ready_again_ms: again.map(|(at, _, _)| since(*at)),
            ready_again_on: again.and_then(|(_, node, _)| node.clone()),
            kept_in: facts.kept.as_ref().map(|kept| kept.zones.clone()).unwrap_or_default(),
            not_weighed: facts.not_weighed.iter().map(|(field, _)| format!("spec.{field}")).collect(),
        }
    }

    pub fn capacity(&self, nodes: &[NodePlan]) -> Capacity {
        let of: Vec<&Replacement> = nodes.iter().filter_map(|node| node.replacement.as_ref()).collect();
        let mut by_capacity_type = BTreeMap::new();
        for capacity_type in of.iter().filter_map(|one| one.capacity_type) {
            *by_capacity_type.entry(capacity_type).or_default() += 1;
        }
        let dearest = |one: &&Replacement| {
            let types = one.requests.iter().flat_map(|request| &request.instance_types);
            types.map(|of| of.on_demand).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
        };
        Capacity {
            wanted: of.len(),
            ready: of.iter().filter(|one| one.ready_ms.is_some()).count(),
            first_ready_ms: of.iter().filter_map(|one| one.ready_ms).min(),
            last_ready_ms: of.iter().filter_map(|one| one.ready_ms).max(),
            by_capacity_type,
            at_most_on_demand: of.iter().map(dearest).sum::<Option<u64>>().filter(|_| !of.is_empty()),
        }
    }

    /// Workloads of which no pod is Ready for a while: those all of whose Ready pods are on the nodes that are lost.
    pub fn down(&self) -> Vec<Down> {
        let mut owners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, pod) in self.snapshot.pods.iter().enumerate().filter(|(_, pod)| pod.is_a_workloads()) {
            if pod.owner.as_ref().is_some_and(|owner| owner.kind != "Job") {
                owners.entry(pod.whose()).or_default().push(at);
            }
        }
        let places: BTreeMap<usize, (usize, usize)> = self
            .world
            .pods
            .iter()
            .enumerate()
            .flat_map(|(workload, pods)| pods.iter().enumerate().map(move |(ordinal, at)| (*at, (workload, ordinal))))
            .collect();
        let mut down = Vec::new();
        for (of, pods) in owners {
            let ready: Vec<&usize> = pods.iter().filter(|at| self.snapshot.pods[**at].ready).collect();
            let all: Option<Vec<_>> = ready.iter().map(|at| places.get(at)).collect();
            let Some(slots) = all.filter(|all| !all.is_empty()) else { continue };
            down.extend(self.none_ready(&slots).map(|(from, until)| Down {
                of,
                pods: pods.len(),
                from_ms: since(from),
                until_ms: until.map(since),
            }));
        }
        down
    }

    /// The longest time within which none of these ran, if there is any.
    fn none_ready(&self, slots: &[&(usize, usize)]) -> Option<(u64, Option<u64>)> {
        let mut changes: Vec<(u64, i32)> = Vec::new();
        for (asks, timeline) in self.report.asks.iter().zip(&self.report.outcome.timelines.pods) {
            if !slots.iter().any(|(workload, ordinal)| (*workload, *ordinal) == (asks.workload, asks.ordinal as usize))
            {
                continue;
            }
            let mut runs = false;
            for (at, _, state) in &timeline.states {
                let now = *state == PodState::Running;
                if now != runs {
                    changes.push((*at, if now { 1 } else { -1 }));
                }
                runs = now;
            }
        }
        // At one moment what begins goes before what ends.
        changes.sort_by_key(|(at, change)| (*at, -change));
        let (mut running, mut since, mut longest) = (0, None, None);
        let length = |(from, until): &(u64, Option<u64>)| until.map_or(u64::MAX, |until| until - from);
        for (at, change) in changes {
            running += change;
            match since {
                None if running == 0 => since = Some(at),
                Some(from) if running > 0 => {
                    longest = longest.into_iter().chain([(from, Some(at))]).max_by_key(length);
                    since = None;
                }
                _ => {}
            }
        }
        longest.into_iter().chain(since.map(|from| (from, None))).max_by_key(length)
    }
}
