//! What stands in the way of capacity.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, some};
use crate::domain::offering::CapacityType;
use crate::domain::requirements::NODE_POOL;
use crate::plan::outcome::{Code, Finding, NodePlan};
use crate::provision::pools::read;

const KARPENTER: &str = "karpenter.sh/nodepool";

impl Found<'_> {
    pub(super) fn supply(&mut self) {
        self.pools();
        self.not_replaced();
        self.not_spot();
        self.prices();
        self.pending();
    }

    fn nodes_named(code: Code, object: String, what: String, change: String, nodes: Vec<String>) -> Finding {
        Finding { code, object, what, change, nodes, pods: Vec::new() }
    }

    /// The NodePools that nodes which go are labelled for, and their classes, where they cannot work whatever EC2 has.
    fn pools(&mut self) {
        let mut of_pool: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for node in self.nodes {
            node.node_pool.iter().for_each(|pool| of_pool.entry(pool).or_default().push(node.name.clone()));
        }
        let mut found = Vec::new();
        for (pool, nodes) in of_pool {
            let Some(spec) = self.run.snapshot.pools.get(pool) else { continue };
            if let Err(fault) = read(spec) {
                let (object, change) = (format!("NodePool {pool}"), format!("{}: put it right", fault.field));
                found.push(Self::nodes_named(Code::PoolCannotWork, object, fault.to_string(), change, nodes.clone()));
            }
            let class = &spec.template.spec.node_class_ref.name;
            let (what, change) = match self.run.snapshot.classes.get(class) {
                Some(Err(why)) => (why.clone(), "what its condition Ready names".to_owned()),
                None if !self.run.snapshot.classes.is_empty() => (
                    format!("there is none; NodePool {pool} launches with it"),
                    format!("make it, or name another in spec.template.spec.nodeClassRef.name of NodePool {pool}"),
                ),
                _ => continue,
            };
            let object = format!("EC2NodeClass {class}");
            found.push(Self::nodes_named(Code::ClassCannotLaunch, object, what, change, nodes));
        }
        self.findings.extend(found);
    }

    fn is_karpenters(&self, node: &NodePlan) -> bool {
        let facts = self.run.snapshot.nodes.iter().find(|of| of.name == node.name);
        facts.is_some_and(|of| of.labels.contains_key(KARPENTER))
    }

    /// Nodes in whose place nothing is Ready in the end.
    fn not_replaced(&mut self) {
        let explained: BTreeSet<String> = self
            .findings
            .iter()
            .filter(|one| matches!(one.code, Code::PoolCannotWork | Code::ClassCannotLaunch))
            .flat_map(|one| one.nodes.clone())
            .collect();
        let mut karpenters = Vec::new();
        let mut by_reason: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for node in self.nodes {
            let ready = node.replacement.as_ref().is_some_and(|of| of.ready_ms.is_some());
            if self.is_karpenters(node) {
                karpenters.push(node.name.clone());
            } else if !ready && !explained.contains(&node.name) {
                let object = match &node.node_pool {
                    Some(pool) => format!("NodePool {pool}"),
                    None => format!("Node {}", node.name),
                };
                let because =
                    node.because.clone().unwrap_or("no instance was Ready by the end of what was simulated".into());
                by_reason.entry((object, because)).or_default().push(node.name.clone());
            }
        }
        for ((object, because), nodes) in by_reason {
            let what = format!("nothing comes in the place of {}: {because}", some(&nodes, 3));
            let change = match object.strip_prefix("NodePool ") {
                Some(_) => "spec.fallback.order, spec.limits, spec.fallback.maxHourlyFallbackCost or \
                            spec.template.spec.requirements, whichever the reason names"
                    .to_owned(),
                None => format!("a NodePool that serves it, and its label {NODE_POOL}; or the provisioner's --order"),
            };
            self.findings.push(Self::nodes_named(Code::NoReplacement, object, what, change, nodes));
        }
        if !karpenters.is_empty() {
            let what = format!("{} Karpenter's: spotkeeper drains, Karpenter replaces", are(&karpenters));
            let (object, nodes) = ("Karpenter".to_owned(), karpenters);
            self.notes.push(Self::nodes_named(Code::LeftToKarpenter, object, what, String::new(), nodes));
        }
    }

    fn not_spot(&mut self) {
        let not = |node: &&NodePlan| node.capacity_type != Some(CapacityType::Spot);
        let nodes: Vec<String> = self.nodes.iter().filter(not).map(|node| node.name.clone()).collect();
        if !nodes.is_empty() {
            let what = format!("{} not labelled as spot: planned as if AWS could take back", are(&nodes));
            self.notes.push(Self::nodes_named(Code::NotSpot, "Nodes".into(), what, String::new(), nodes));
        }
    }

    fn prices(&mut self) {
        let requests = self.nodes.iter().filter_map(|node| node.replacement.as_ref()).flat_map(|of| &of.requests);
        let types = requests.flat_map(|request| &request.instance_types).filter(|of| of.on_demand.is_none());
        let names: BTreeSet<String> = types.map(|of| of.name.clone()).collect();
        if !names.is_empty() {
            let names: Vec<String> = names.into_iter().collect();
            let what = format!("what {} cost on demand is not known", some(&names, 4));
            let change = "--prices FILE, as the provisioner has it".to_owned();
            self.notes.push(Self::nodes_named(Code::NoPrice, "prices".into(), what, change, Vec::new()));
        }
    }

    fn pending(&mut self) {
        let waits = |pod: &&crate::plan::snapshot::PodFacts| pod.node.is_none() && pod.is_a_workloads();
        let pods: Vec<String> = self.run.snapshot.pods.iter().filter(waits).map(|pod| pod.path()).collect();
        if !pods.is_empty() {
            let what = format!("{} Pending before anything happens, and not part of this plan", are(&pods));
            let (code, object) = (Code::Pending, "Pods".to_owned());
            self.notes.push(Finding { code, object, what, change: String::new(), nodes: Vec::new(), pods });
        }
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", some(names, 4), if names.len() == 1 { "is" } else { "are" })
}
