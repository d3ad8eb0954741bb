//! What is done to the Node, and how exactly that is undone.
//!
//! Both directions are pure functions from the Node as it is to the patch that is missing, so that a conflict is
//! answered by computing the patch again. What was done is kept in one annotation on the Node itself: undoing needs
//! nothing else, and never touches a cordon, taint or label that was somebody else's.

use serde::{Deserialize, Serialize};

use crate::domain::node::{Node, Taint};
use crate::domain::notice::Kind;

/// The taint and the annotation that a marked node carries.
pub const INTERRUPTION: &str = "spotkeeper.dev/interruption";

/// The well-known label that takes a node out of external load balancers.
pub const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// How a node is to be marked: unschedulable, the taint, and the annotation that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub kind: Kind,
    pub episode: i64,
    /// RFC 3339, for people.
    pub deadline: Option<String>,
    /// Whether the node also leaves external load balancers: not while its pods stay.
    pub exclude_from_load_balancers: bool,
}

/// The annotation's value: who did what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marked {
    pub by: String,
    pub kind: Kind,
    pub episode: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// The boot in which the node was marked.
    #[serde(rename = "bootID", default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The node was schedulable before.
    #[serde(default)]
    pub cordoned: bool,
    /// The label was not there before.
    #[serde(default)]
    pub excluded: bool,
}

impl Marked {
    /// What the node's annotation says; `None` where there is none that can be read.
    pub fn of(node: &Node) -> Option<Self> {
        serde_json::from_str(node.annotations.get(INTERRUPTION)?).ok()
    }
}

/// The merge patch that brings `node` to `mark`; `None` where nothing is missing.
///
/// It carries the node's resourceVersion, so that it fails with a conflict rather than drop a taint that somebody
/// else has added meanwhile.
pub fn mark_patch(node: &Node, mark: &Mark) -> Option<serde_json::Value> {
    let before = Marked::of(node);
    let excluded_before = node.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS);
    let exclude = mark.exclude_from_load_balancers && !excluded_before;
    let marked = Marked {
        by: "spotkeeper-agent".to_owned(),
        kind: mark.kind,
        episode: mark.episode,
        deadline: mark.deadline.clone(),
        boot_id: node.boot_id.clone(),
        cordoned: !node.unschedulable || before.as_ref().is_some_and(|b| b.cordoned),
        excluded: exclude || (excluded_before && before.as_ref().is_some_and(|b| b.excluded)),
    };
    let taint = Taint {
        key: INTERRUPTION.to_owned(),
        value: Some(mark.kind.as_str().to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    };
    let tainted =
        node.taints.iter().any(|t| (&t.key, &t.value, &t.effect) == (&taint.key, &taint.value, &taint.effect));
    if node.unschedulable && tainted && !exclude && before.as_ref() == Some(&marked) {
        return None;
    }
    let mut taints: Vec<&Taint> = node.taints.iter().filter(|t| t.key != INTERRUPTION).collect();
    taints.push(&taint);
    let mut metadata = serde_json::json!({
        "resourceVersion": node.resource_version,
        "annotations": { INTERRUPTION: serde_json::to_string(&marked).unwrap_or_default() },
    });
    if exclude {
        metadata["labels"] = serde_json::json!({ EXCLUDE_FROM_LOAD_BALANCERS: "true" });
    }
    Some(serde_json::json!({
        "metadata": metadata,
        "spec": { "unschedulable": true, "taints": taints.into_iter().map(taint_json).collect::<Vec<_>>() },
    }))
}

/// The merge patch that undoes what the node's annotation says that we did; `None` where nothing of ours is left.
pub fn unmark_patch(node: &Node) -> Option<serde_json::Value> {
    let tainted = node.taints.iter().any(|t| t.key == INTERRUPTION);
    if !tainted && !node.annotations.contains_key(INTERRUPTION) {
        return None;
    }
    let marked = Marked::of(node);
    let mut metadata = serde_json::json!({
        "resourceVersion": node.resource_version,
        "annotations": { INTERRUPTION: null },
    });
    if marked.as_ref().is_some_and(|m| m.excluded) {
        metadata["labels"] = serde_json::json!({ EXCLUDE_FROM_LOAD_BALANCERS: null });
    }
    let left: Vec<_> = node.taints.iter().filter(|t| t.key != INTERRUPTION).collect();
    let uncordon = marked.is_some_and(|m| m.cordoned);
    // The control plane adds its own taint for `unschedulable` and takes it off again; nothing to do for it here.
    let mut spec = serde_json::json!({});
    if tainted {
        spec["taints"] = if left.is_empty() {
            serde_json::Value::Null
        } else {
            left.into_iter().map(taint_json).collect::<Vec<_>>().into()
        };
    }
    if uncordon {
        spec["unschedulable"] = serde_json::Value::Null;
    }
    Some(serde_json::json!({ "metadata": metadata, "spec": spec }))
}

fn taint_json(taint: &Taint) -> serde_json::Value {
    let mut json = serde_json::json!({ "key": taint.key, "effect": taint.effect });
    if let Some(value) = &taint.value {
        json["value"] = value.as_str().into();
    }
    if let Some(time) = &taint.time_added {
        json["timeAdded"] = time.as_str().into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody wrote nonsense where our annotation is: what we did is not known then, and is left.
    #[test]
    fn an_annotation_that_cannot_be_read_undoes_no_cordon() {
        bolero::check!().with_type::<String>().for_each(|text: &String| {
            let mut node = Node { unschedulable: true, ..Node::default() };
            node.annotations.insert(INTERRUPTION.to_owned(), text.clone());
            if Marked::of(&node).is_none() {
                let patch = unmark_patch(&node).expect("the annotation is taken off");
                assert!(patch["spec"].as_object().is_some_and(serde_json::Map::is_empty), "{patch}");
            }
        });
    }
}
