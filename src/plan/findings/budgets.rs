//! What PodDisruptionBudgets would refuse, and why.

use std::collections::BTreeMap;

use super::{Found, count, seconds};
use crate::plan::outcome::{AskedBy, Code, PodPlan};
use crate::plan::snapshot::BudgetFacts;

impl Found<'_> {
    pub(super) fn budgets(&mut self) {
        let mut refused: BTreeMap<Vec<String>, Vec<&PodPlan>> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| pod.refusals > 0) {
            refused.entry(pod.refused_by.clone()).or_default().push(pod);
        }
        let snapshot = self.run.snapshot;
        if snapshot.budgets.is_empty() && !snapshot.budgets_listed && !self.pods.is_empty() {
            let what = "none is in what was read; one that may not be listed, or was not asked for, leaves no trace, and \
                        what it would refuse is not in this plan";
            let change = "read them too: kubectl get pdb -A".to_owned();
            let note = self.about(Code::NoBudgets, "PodDisruptionBudgets".into(), what.into(), change, &[]);
            self.notes.push(note);
        }
        for (by, pods) in refused {
            match by.as_slice() {
                [one] => self.budget(one, &pods),
                several => self.several(several, &pods),
            }
        }
    }

    /// More than one budget on a pod: the API server refuses every eviction of it.
    fn several(&mut self, by: &[String], pods: &[&PodPlan]) {
        let what = format!(
            "{} {} by more than one budget, and the API server refuses every eviction of such a pod (500): deleted \
             after {}",
            count(pods.len(), "pod"),
            if pods.len() == 1 { "is selected" } else { "are selected" },
            until(pods)
        );
        let change = "spec.selector of one of them: narrow it so that every pod is selected once".to_owned();
        let object = format!("PodDisruptionBudgets {}", by.join(", "));
        let finding = self.about(Code::SeveralBudgets, object, what, change, pods);
        self.findings.push(finding);
    }

    fn budget(&mut self, path: &str, pods: &[&PodPlan]) {
        let Some(facts) = self.run.snapshot.budgets.iter().find(|of| of.path() == path) else { return };
        let object = format!("PodDisruptionBudget {path}");
        let deleted: Vec<&PodPlan> = pods.iter().filter(|pod| pod.asked_by == AskedBy::Deleted).copied().collect();
        if facts.may_miss == 0 {
            let (why, change) = never(facts);
            let what = format!("{why}: {} would be asked for until {} and then deleted", self.of(pods), until(pods));
            let finding = self.about(Code::BudgetNeverAllows, object, what, change, pods);
            self.findings.push(finding);
        } else if deleted.is_empty() {
            let last = pods.iter().filter_map(|pod| pod.refused_until_ms).max().unwrap_or(0);
            let what = format!(
                "({}) lets {} go after having refused until {}: in time",
                facts.rule,
                self.of(pods),
                seconds(last)
            );
            let note = self.about(Code::BlockedForAWhile, object, what, String::new(), pods);
            self.notes.push(note);
        } else {
            let what = format!(
                "({}) {}; so {} would be deleted against it after {}",
                facts.rule,
                why_full(facts, pods.len()),
                self.of(&deleted),
                until(&deleted)
            );
            let more = u32::try_from(pods.len()).unwrap_or(u32::MAX).max(facts.may_miss + 1);
            let change = format!(
                "spec.maxUnavailable: {more}, where that many may be missing at once; or spread its pods over more nodes \
                 (spec.template.spec.topologySpreadConstraints); or let new pods be Ready sooner"
            );
            let finding = self.about(Code::BudgetOverridden, object, what, change, &deleted);
            self.findings.push(finding);
        }
    }

    /// `shop/db-0`, or how many.
    fn of(&self, pods: &[&PodPlan]) -> String {
        match pods {
            [one] => one.name.clone(),
            many => count(many.len(), "pod"),
        }
    }
}

/// When asking ends.
fn until(pods: &[&PodPlan]) -> String {
    let mut times: Vec<u64> = pods.iter().filter_map(|pod| pod.refused_until_ms).collect();
    times.sort_unstable();
    match (times.first(), times.last()) {
        (Some(first), Some(last)) if last.saturating_sub(*first) > 1_500 => {
            format!("{} to {}", seconds(*first), seconds(*last))
        }
        (_, last) => seconds(last.copied().unwrap_or(0)),
    }
}

/// Why a budget never allows anything, and what to change.
fn never(facts: &BudgetFacts) -> (String, String) {
    let BudgetFacts { rule, expected, .. } = facts;
    if rule.starts_with("maxUnavailable") {
        return (format!("{rule} never lets a pod go"), "spec.maxUnavailable: 1".to_owned());
    }
    if *expected == 1 {
        let why = format!("{rule} with one replica never lets it go");
        let change =
            "a second replica (spec.replicas: 2 of its controller), or spec.maxUnavailable: 1 in the place of \
                      spec.minAvailable"
                .to_owned();
        return (why, change);
    }
    let why = format!("{rule} of {expected} never lets a pod go");
    let change = format!(
        "spec.minAvailable: {} or less, or spec.maxUnavailable: 1 in the place of it",
        expected.saturating_sub(1)
    );
    (why, change)
}

fn why_full(facts: &BudgetFacts, here: usize) -> String {
    let BudgetFacts { missing, expected, may_miss, .. } = facts;
    if missing >= may_miss {
        return format!(
            "has nothing left to give: {missing} of its {expected} pods are not Ready before anything happens"
        );
    }
    format!(
        "lets {may_miss} of its {expected} pods be missing; {here} are on the nodes that go, and those in their place are \
         not Ready soon enough"
    )
}
