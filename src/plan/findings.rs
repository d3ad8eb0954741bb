//! What is to be changed, and what is to be known: one for each object, with the field.
//!
//! - `budgets`: those of PodDisruptionBudgets.
//! - `supply`: those of capacity.

mod budgets;
mod supply;

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Run;
use super::outcome::{Code, Down, End, Finding, NodePlan, PodPlan};
use super::snapshot::PodFacts;
use crate::domain::pod::ON_INTERRUPTION;

/// What was found so far.
pub(super) struct Found<'a> {
    run: &'a Run<'a>,
    pods: &'a [PodPlan],
    nodes: &'a [NodePlan],
    /// The pods of the snapshot by their paths.
    places: BTreeMap<String, usize>,
    findings: Vec<Finding>,
    notes: Vec<Finding>,
}

/// Names, the first few of them.
pub(super) fn some(names: &[String], most: usize) -> String {
    let first = names.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// `1 pod`, `2 pods`.
pub(super) fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `It has`, `They have`.
fn they(pods: &[&PodPlan], one: &'static str, many: &'static str) -> &'static str {
    if pods.len() == 1 { one } else { many }
}

/// `0.4 s`, `85 s`.
pub(super) fn seconds(millis: u64) -> String {
    let seconds = millis as f64 / 1_000.0;
    if seconds < 9.95 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// Findings and notes, each in the order of their codes and objects.
pub fn found(run: &Run, nodes: &[NodePlan], pods: &[PodPlan], down: &[Down]) -> (Vec<Finding>, Vec<Finding>) {
    let places = run.snapshot.pods.iter().enumerate().map(|(at, pod)| (pod.path(), at)).collect();
    let mut found = Found { run, pods, nodes, places, findings: Vec::new(), notes: Vec::new() };
    found.budgets();
    found.graces();
    found.policies();
    found.lonely();
    found.local_volumes();
    found.supply();
    found.not_ready_again();
    found.down(down);
    found.volumes();
    found.not_weighed();
    found.invariants();
    let key = |one: &Finding| (one.code, one.object.clone());
    found.findings.sort_by_key(key);
    found.notes.sort_by_key(key);
    (found.findings, found.notes)
}

impl Found<'_> {
    fn facts(&self, pod: &PodPlan) -> Option<&PodFacts> {
        self.places.get(&pod.name).map(|at| &self.run.snapshot.pods[*at])
    }

    /// A finding about these pods.
    fn about(&self, code: Code, object: String, what: String, change: String, pods: &[&PodPlan]) -> Finding {
        let mut nodes: Vec<String> = pods.iter().map(|pod| pod.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        Finding { code, object, what, change, nodes, pods: pods.iter().map(|pod| pod.name.clone()).collect() }
    }

    /// Pods by who makes them.
    fn by_owner<'p>(pods: impl Iterator<Item = &'p PodPlan>) -> BTreeMap<String, Vec<&'p PodPlan>> {
        let mut owners: BTreeMap<String, Vec<&PodPlan>> = BTreeMap::new();
        pods.for_each(|pod| owners.entry(pod.of.clone()).or_default().push(pod));
        owners
    }

    /// Pods that get less than their own grace.
    fn graces(&mut self) {
        // A budget that is asked until the last moment costs the second that the ask takes: that is the budget's to change.
        let by_a_budget = |pod: &PodPlan| pod.refusals > 0 && pod.short_by_secs <= 1;
        let short = |pod: &&PodPlan| {
            pod.granted_secs.is_some() && pod.end != End::InTime && pod.policy != "stay" && !by_a_budget(pod)
        };
        for (of, pods) in Self::by_owner(self.pods.iter().filter(short)) {
            let worst =
                pods.iter().max_by_key(|pod| pod.short_by_secs).unwrap_or_else(|| unreachable!("none is empty"));
            let granted = worst.granted_secs.unwrap_or(0);
            let why = match worst.refused_by.as_slice() {
                [] => String::new(),
                by => {
                    format!(", since {} refused until {}", by.join(", "), seconds(worst.refused_until_ms.unwrap_or(0)))
                }
            };
            let what = format!(
                "{} of it {} {} s to end and would get {granted} s{why}: {} s too few",
                count(pods.len(), "pod"),
                they(&pods, "may take", "may each take"),
                worst.grace_secs,
                worst.short_by_secs
            );
            let template = template(&of);
            let change = format!(
                "{template}.terminationGracePeriodSeconds: {granted} or less; where it needs longer, let it save its work \
                 when it hears of the notice (GET /v1/notice on port 9733 of its node)"
            );
            let finding = self.about(Code::GraceTooLong, of, what, change, &pods);
            self.findings.push(finding);
        }
    }

    fn policies(&mut self) {
        for (of, pods) in Self::by_owner(self.pods.iter().filter(|pod| pod.policy == "stay")) {
            let what = format!(
                "{} of it {} never asked to go ({ON_INTERRUPTION}: stay), and killed with {}",
                count(pods.len(), "pod"),
                they(&pods, "is", "are"),
                they(&pods, "its node", "their nodes")
            );
            let change = format!(
                "{}: take the annotation off or set it to `wait`, or keep it off spot with spec.nodeSelector \
                 spotkeeper.dev/capacity-type: on-demand",
                annotations(&of)
            );
            let finding = self.about(Code::Stays, of, what, change, &pods);
            self.findings.push(finding);
        }
        let waits = |pod: &&PodPlan| pod.policy == "wait" && pod.asked_ms.is_some();
        for (of, pods) in Self::by_owner(self.pods.iter().filter(waits)) {
            let first = pods.iter().filter_map(|pod| pod.asked_ms).min().unwrap_or(0);
            let from = self.facts(pods[0]).and_then(|facts| facts.policy_from).unwrap_or(ON_INTERRUPTION);
            let what = format!(
                "{} of it {} on until {} after the notice ({from}), and {} asked then",
                count(pods.len(), "pod"),
                they(&pods, "works", "work"),
                seconds(first),
                they(&pods, "is", "are")
            );
            let note = self.about(Code::Waits, of, what, String::new(), &pods);
            self.notes.push(note);
        }
    }

    /// Pods that nobody makes again.
    fn lonely(&mut self) {
        let bare = |pod: &&PodPlan| self.facts(pod).is_some_and(|facts| facts.owner.is_none());
        let pods: Vec<&PodPlan> = self.pods.iter().filter(bare).collect();
        for pod in pods {
            let what = "no controller makes it: once it has gone it does not come back".to_owned();
            let change = "run it as a Deployment, a StatefulSet or a Job".to_owned();
            let finding = self.about(Code::Bare, pod.of.clone(), what, change, &[pod]);
            self.findings.push(finding);
        }
    }

    fn local_volumes(&mut self) {
        let local = |pod: &&PodPlan| self.facts(pod).and_then(|of| of.kept.as_ref()).is_some_and(|kept| kept.on_node);
        for (of, pods) in Self::by_owner(self.pods.iter().filter(local)) {
            let claim = self.facts(pods[0]).and_then(|of| of.kept.as_ref()).map(|kept| kept.claim.clone());
            let claim = claim.unwrap_or_default();
            let what = format!(
                "its data is on a disk of its node (PersistentVolumeClaim {claim}) and ends with the instance; its \
                 successor waits for a node that does not come back"
            );
            let change = format!(
                "PersistentVolumeClaim {claim}: spec.storageClassName of a network volume (EBS), or keep it off spot \
                 with spec.nodeSelector spotkeeper.dev/capacity-type: on-demand"
            );
            let finding = self.about(Code::LocalVolume, of, what, change, &pods);
            self.findings.push(finding);
        }
    }

    /// Pods whose successors are Pending to the end, though their node was replaced.
    fn not_ready_again(&mut self) {
        let replaced = |name: &str| {
            let node = self.nodes.iter().find(|node| node.name == name);
            node.and_then(|node| node.replacement.as_ref()).is_some_and(|of| of.ready_ms.is_some())
        };
        let waits = |pod: &&PodPlan| {
            let facts = self.facts(pod);
            let comes = facts.is_some_and(|of| of.owner.is_some() && !of.kept.as_ref().is_some_and(|it| it.on_node));
            comes && pod.ready_again_ms.is_none() && replaced(&pod.node)
        };
        for (of, pods) in Self::by_owner(self.pods.iter().filter(waits)) {
            let zone = match pods[0].kept_in.as_slice() {
                [] => String::new(),
                zones => format!(" in {}, where its volume is", zones.join(", ")),
            };
            let what = format!(
                "{} of it would find no room{zone}: neither what is left nor the nodes that come in the place of those \
                 that go take {}",
                count(pods.len(), "pod"),
                they(&pods, "it", "them")
            );
            let change = format!(
                "{}.containers[].resources.requests: less than a replacement has left beside its DaemonSets; or let \
                 other nodes take it (nodeSelector, affinity, tolerations)",
                template(&of)
            );
            let finding = self.about(Code::NotReadyAgain, of, what, change, &pods);
            self.findings.push(finding);
        }
    }

    fn down(&mut self, down: &[Down]) {
        for one in down {
            let pods: Vec<&PodPlan> = self.pods.iter().filter(|pod| pod.of == one.of).collect();
            // What does not come back at all is said elsewhere.
            let Some(until) = one.until_ms else { continue };
            let long = seconds(until.saturating_sub(one.from_ms));
            if one.pods == 1 {
                let what = format!("its one pod is down for about {long}");
                let change = "spec.replicas: 2, where that may not be".to_owned();
                let note = self.about(Code::OneReplica, one.of.clone(), what, change, &pods);
                self.notes.push(note);
            } else {
                let all = if pods.len() == 2 { "both".to_owned() } else { format!("all {}", pods.len()) };
                let what = format!("{all} pods that are Ready are on nodes that go at once: none is for about {long}");
                let change = format!(
                    "{}.topologySpreadConstraints over kubernetes.io/hostname and topology.kubernetes.io/zone; or keep \
                     some of them on on-demand nodes (NodePool: spec.fallback.onDemandFloor); and a PodDisruptionBudget \
                     with spec.maxUnavailable: 1 where it has none",
                    template(&one.of)
                );
                let finding = self.about(Code::AllAtOnce, one.of.clone(), what, change, &pods);
                self.findings.push(finding);
            }
        }
    }

    fn volumes(&mut self) {
        let kept = |pod: &&PodPlan| !pod.kept_in.is_empty();
        for (of, pods) in Self::by_owner(self.pods.iter().filter(kept)) {
            let mut zones: Vec<String> = pods.iter().flat_map(|pod| pod.kept_in.clone()).collect();
            zones.sort();
            zones.dedup();
            let zones = zones.join(", ");
            let what = format!(
                "{} of it {} kept in {zones} by a volume: so is what is asked for in the place of {}",
                count(pods.len(), "pod"),
                they(&pods, "is", "are"),
                they(&pods, "its node", "their nodes")
            );
            let note = self.about(Code::KeptInZone, of, what, String::new(), &pods);
            self.notes.push(note);
        }
    }

    /// What the scheduler looks at and the simulator does not, by the fields that say so.
    fn not_weighed(&mut self) {
        let says = |pod: &&PodPlan| !pod.not_weighed.is_empty();
        for (of, pods) in Self::by_owner(self.pods.iter().filter(says)) {
            let fields = pods.iter().filter_map(|pod| self.facts(pod)).flat_map(|facts| &facts.not_weighed);
            let fields = fields.map(|(field, over)| format!("{}.{field} ({over})", template(&of)));
            let fields: Vec<String> = fields.collect::<BTreeSet<_>>().into_iter().collect();
            let what = format!(
                "not weighed: {}. Where {} of it may go again depends on it, so {} may be Ready later than said, or not \
                 at all",
                fields.join(", "),
                count(pods.len(), "pod"),
                they(&pods, "it", "they")
            );
            let note = self.about(Code::NotWeighed, of, what, String::new(), &pods);
            self.notes.push(note);
        }
    }

    fn invariants(&mut self) {
        for one in &self.run.report.outcome.findings {
            self.findings.push(Finding {
                code: Code::Invariant,
                object: "spotkeeper".into(),
                what: format!("{}: {}", one.code, one.what),
                change: "a mistake of ours: please report it with what was read".into(),
                nodes: Some(one.node.clone()).filter(|node| !node.is_empty()).into_iter().collect(),
                pods: Vec::new(),
            });
        }
    }
}

/// Where the pods of a controller are described: `spec.template.spec` of most, `spec` of a Pod.
fn template(of: &str) -> &'static str {
    if of.starts_with("Pod ") { "spec" } else { "spec.template.spec" }
}

fn annotations(of: &str) -> &'static str {
    if of.starts_with("Pod ") { "metadata.annotations" } else { "spec.template.metadata.annotations" }
}
