//! Which labels a selector is about, by Kubernetes' own rules.

use std::collections::BTreeMap;

use super::objects::{Expression, LabelSelector, NodeSelector, NodeSelectorTerm, Taint, Toleration};

type Labels = BTreeMap<String, String>;

/// What a selector says that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown(pub String);

/// Whether a budget's selector is about a pod of these labels.
pub fn selects(selector: &LabelSelector, labels: &Labels) -> Result<bool, Unknown> {
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    let mut all = equal;
    // Every one is looked at, so that one that nobody knows does not hide behind one that fails.
    for expression in &selector.match_expressions {
        all &= holds(expression, labels.get(&expression.key).map(String::as_str))?;
    }
    Ok(all)
}

fn holds(expression: &Expression, value: Option<&str>) -> Result<bool, Unknown> {
    let among = || value.is_some_and(|value| expression.values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let than = number(expression.values.first().map(String::as_str));
    Ok(match expression.operator.as_str() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number(value).zip(than).is_some_and(|(value, than)| value > than),
        "Lt" => number(value).zip(than).is_some_and(|(value, than)| value < than),
        other => return Err(Unknown(format!("{}: no operator is called `{other}`", expression.key))),
    })
}

/// Whether a node may take a pod that requires this of it: one term is enough, none at all is never met.
pub fn allows(selector: &NodeSelector, name: &str, labels: &Labels) -> Result<bool, Unknown> {
    let mut any = false;
    for term in &selector.node_selector_terms {
        any |= term_holds(term, name, labels)?;
    }
    Ok(any)
}

fn term_holds(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> Result<bool, Unknown> {
    let mut all = !(term.match_expressions.is_empty() && term.match_fields.is_empty());
    for expression in &term.match_expressions {
        all &= holds(expression, labels.get(&expression.key).map(String::as_str))?;
    }
    for field in &term.match_fields {
        all &= holds(field, (field.key == "metadata.name").then_some(name))?;
    }
    Ok(all)
}

/// The values that a label has to have, as far as every term says so.
pub fn values_of<'a>(selector: &'a NodeSelector, keys: &[&str]) -> Vec<&'a str> {
    let of = |term: &'a NodeSelectorTerm| {
        let named = term.match_expressions.iter().find(|one| one.operator == "In" && keys.contains(&one.key.as_str()));
        named.map(|one| one.values.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let all: Option<Vec<Vec<&str>>> = selector.node_selector_terms.iter().map(of).collect();
    let mut values: Vec<&str> = all.unwrap_or_default().into_iter().flatten().collect();
    values.sort_unstable();
    values.dedup();
    values
}

/// Whether a pod that tolerates this may come to a node with these taints.
pub fn tolerates(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    let keeps_off = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    taints.iter().filter(keeps_off).all(|taint| tolerations.iter().any(|one| covers(one, taint)))
}

fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let exists = toleration.operator == "Exists";
    let key = toleration.key == taint.key || toleration.key.is_empty() && exists;
    effect && key && (exists || toleration.value == taint.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn selector(text: &str) -> LabelSelector {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_selector_is_read_by_kubernetes_rules() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("n", "7")]);
        for (text, expected) in [
            ("{}", true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"web","tier":"back"}}"#, false),
            (r#"{"matchExpressions":[{"key":"app","operator":"In","values":["db","web"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"app","operator":"NotIn","values":["web"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"gone","operator":"NotIn","values":["web"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Exists"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#, false),
            (r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#, false),
        ] {
            assert_eq!(selects(&selector(text), &web), Ok(expected), "{text}");
        }
        let unknown = selector(r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"app","operator":"Like"}]}"#);
        assert!(selects(&unknown, &web).unwrap_err().0.contains("Like"));
    }

    #[test]
    fn a_node_is_allowed_by_one_term_of_its_affinity() {
        let of = |text: &str| serde_json::from_str::<NodeSelector>(text).unwrap();
        let node = labels(&[("gen", "7"), ("zone", "a")]);
        for (text, expected) in [
            (r#"{}"#, false),
            (r#"{"nodeSelectorTerms":[{}]}"#, false),
            (r#"{"nodeSelectorTerms":[{"matchExpressions":[{"key":"gen","operator":"Gt","values":["6"]}]}]}"#, true),
            (r#"{"nodeSelectorTerms":[{"matchExpressions":[{"key":"gen","operator":"Lt","values":["x"]}]}]}"#, false),
            (
                r#"{"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"In","values":["b"]}]},
                    {"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}"#,
                true,
            ),
        ] {
            assert_eq!(allows(&of(text), "n", &node), Ok(expected), "{text}");
        }
        let zones =
            of(r#"{"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"In","values":["b","a"]}]}]}"#);
        assert_eq!(values_of(&zones, &["zone"]), ["a", "b"]);
    }

    #[test]
    fn a_taint_keeps_off_who_does_not_tolerate_it() {
        let taint = |effect: &str| Taint { key: "gpu".into(), value: "yes".into(), effect: effect.into() };
        let one = |text: &str| vec![serde_json::from_str::<Toleration>(text).unwrap()];
        assert!(tolerates(&[], &[taint("PreferNoSchedule")]));
        assert!(!tolerates(&[], &[taint("NoSchedule")]));
        assert!(tolerates(&one(r#"{"operator":"Exists"}"#), &[taint("NoExecute")]));
        assert!(tolerates(&one(r#"{"key":"gpu","value":"yes","effect":"NoSchedule"}"#), &[taint("NoSchedule")]));
        assert!(!tolerates(&one(r#"{"key":"gpu","value":"no"}"#), &[taint("NoSchedule")]));
        assert!(!tolerates(&one(r#"{"value":"yes"}"#), &[taint("NoSchedule")]));
    }
}
