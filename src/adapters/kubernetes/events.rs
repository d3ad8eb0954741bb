//! Decisions, as Kubernetes events on the Node and the Interruption. Best effort: a drain never waits for one.

use jiff::Timestamp;

use super::{Kubernetes, Subject, http_request};
use crate::domain::notice::InstanceId;
use crate::interruption::Because;

/// Cluster-scoped objects have their events in this namespace, where `kubectl describe` looks for them.
const NAMESPACE: &str = "default";

/// The longest note that the API server takes.
const NOTE_MAX: usize = 1024;

/// What an event is about.
enum Regarding<'a> {
    Node,
    Interruption(&'a InstanceId),
}

impl Kubernetes {
    /// Publishes a decision on the Node and on its Interruption.
    pub async fn publish(&self, of: &Subject, because: &Because, at: Timestamp) -> Result<(), kube::Error> {
        self.publish_event(&of.node, Regarding::Node, because, at).await?;
        self.publish_event(&of.node, Regarding::Interruption(&of.instance), because, at).await
    }

    /// Publishes something that concerns the Node alone.
    pub async fn publish_of_node(&self, node: &str, because: &Because, at: Timestamp) -> Result<(), kube::Error> {
        self.publish_event(node, Regarding::Node, because, at).await
    }

    async fn publish_event(
        &self,
        node: &str,
        regarding: Regarding<'_>,
        because: &Because,
        at: Timestamp,
    ) -> Result<(), kube::Error> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
        let request = http_request("POST", &path, &event(node, because, at, regarding))?;
        self.timed("create", "events", async { self.own.request::<serde::de::IgnoredAny>(request).await.map(drop) })
            .await
    }
}

fn event(node: &str, because: &Because, at: Timestamp, regarding: Regarding<'_>) -> serde_json::Value {
    let note: String = because.to_string().chars().take(NOTE_MAX).collect();
    let regarding = match regarding {
        // The kubelet's own events on a Node carry its name for a uid; `kubectl describe node` looks for that.
        Regarding::Node => serde_json::json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node }),
        Regarding::Interruption(instance) => serde_json::json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "name": instance.as_str(),
        }),
    };
    let name = regarding["name"].as_str().unwrap_or_default().to_owned();
    serde_json::json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": NAMESPACE, "name": format!("{name}.{:016x}", fastrand::u64(..)) },
        "eventTime": format!("{at:.6}"),
        "reportingController": "spotkeeper.dev/agent",
        "reportingInstance": node,
        "action": because.reason(),
        "reason": because.reason(),
        "type": if because.is_warning() { "Warning" } else { "Normal" },
        "note": note,
        "regarding": regarding,
    })
}

/// An event of the provisioner's, on a cluster-scoped object.
#[cfg(feature = "provisioner")]
pub(super) fn note(
    regarding: &serde_json::Value,
    reason: &str,
    is_warning: bool,
    text: &str,
    at: Timestamp,
) -> serde_json::Value {
    let name = regarding["name"].as_str().unwrap_or_default();
    let note: String = text.chars().take(NOTE_MAX).collect();
    serde_json::json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": NAMESPACE, "name": format!("{name}.{:016x}", fastrand::u64(..)) },
        "eventTime": format!("{at:.6}"),
        "reportingController": "spotkeeper.dev/provisioner",
        "reportingInstance": "spotkeeper-provisioner",
        "action": reason,
        "reason": reason,
        "type": if is_warning { "Warning" } else { "Normal" },
        "note": note,
        "regarding": regarding,
    })
}
