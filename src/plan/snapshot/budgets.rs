//! PodDisruptionBudgets: which pods they are about, and how many of them may be missing.

use std::collections::{BTreeMap, BTreeSet};

use super::{BudgetFacts, PodFacts};
use crate::api::node_pool::IntOrString;
use crate::plan::objects::Budget;
use crate::plan::reading::Gap;
use crate::plan::selector::selects;

pub(super) fn facts(
    budgets: &[Budget],
    pods: &mut [PodFacts],
    labels: &[BTreeMap<String, String>],
    gaps: &mut BTreeSet<Gap>,
) -> Vec<BudgetFacts> {
    let mut all: Vec<&Budget> = budgets.iter().collect();
    all.sort_by_key(|of| (&of.metadata.namespace, &of.metadata.name));
    let mut facts = Vec::new();
    for budget in all {
        let path = format!("{}/{}", budget.metadata.namespace, budget.metadata.name);
        match one(budget, pods, labels) {
            Ok(of) => {
                of.pods.iter().for_each(|pod| pods[*pod].budgets.push(facts.len()));
                facts.push(of);
            }
            Err(why) => {
                gaps.insert(Gap(format!("PodDisruptionBudget {path}: {why}: it is left out")));
            }
        }
    }
    facts
}

fn one(budget: &Budget, pods: &[PodFacts], labels: &[BTreeMap<String, String>]) -> Result<BudgetFacts, String> {
    let Budget { metadata, spec, status } = budget;
    let mut about = Vec::new();
    for (at, pod) in pods.iter().enumerate() {
        let selector = spec.selector.as_ref().filter(|_| pod.namespace == metadata.namespace && !pod.finished);
        if let Some(selector) = selector
            && selects(selector, &labels[at]).map_err(|unknown| format!("spec.selector: {}", unknown.0))?
        {
            about.push(at);
        }
    }
    let current = status.observed_generation == metadata.generation && status.expected_pods.is_some();
    let said = |number: Option<i64>| number.filter(|_| current).map(|number| u32::try_from(number).unwrap_or(0));
    let expected = said(status.expected_pods).unwrap_or(u32::try_from(about.len()).unwrap_or(u32::MAX));
    let (field, limit) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => ("maxUnavailable", limit),
        (None, Some(limit)) => ("minAvailable", limit),
        // As the API server's default has it: nothing has to be there.
        (None, None) => ("minAvailable", &IntOrString::Int(0)),
    };
    let count =
        counted(limit, expected).ok_or_else(|| format!("spec.{field}: `{limit}` is no number or percentage"))?;
    let computed = if field == "maxUnavailable" { expected.saturating_sub(count) } else { count };
    let desired = said(status.desired_healthy).unwrap_or(computed);
    let healthy = about.iter().filter(|at| pods[**at].ready && !pods[**at].leaving).count();
    Ok(BudgetFacts {
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        rule: format!("{field}: {limit}"),
        expected,
        may_miss: expected.saturating_sub(desired),
        missing: expected.saturating_sub(u32::try_from(healthy).unwrap_or(u32::MAX)),
        guards_unready: spec.unhealthy_pod_eviction_policy != "AlwaysAllow",
        pods: about,
    })
}

/// A number, or a percentage of what is expected, rounded up as Kubernetes does.
fn counted(limit: &IntOrString, expected: u32) -> Option<u32> {
    let text = limit.to_string();
    match text.strip_suffix('%') {
        Some(part) => {
            let part: u64 = part.parse().ok()?;
            u32::try_from((u64::from(expected).checked_mul(part)?).div_ceil(100)).ok()
        }
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_up() {
        let of = |text: &str, expected| counted(&IntOrString::String(text.into()), expected);
        assert_eq!((of("50%", 3), of("0%", 9), of("100%", 7), of("1", 3)), (Some(2), Some(0), Some(7), Some(1)));
        assert_eq!((of("half", 3), of("-1", 3), of("%", 3), of("99999999999999999999%", 3)), (None, None, None, None));
        assert_eq!(counted(&IntOrString::Int(2), 3), Some(2));
    }
}
