//! What a keeper's effects come to at the API server. The node's own agent has such hands, and so has the provisioner
//! for each node that it stands in for.

use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;

use crate::adapters::kubernetes::{Kubernetes, Subject, outcome};
use crate::api::interruption::InterruptionStatus;
use crate::domain::node::Node;
use crate::interruption::mark::{Mark, mark_patch, unmark_patch};
use crate::interruption::{Ask, Because, Identity, Outcome};

/// Writes for one node.
pub struct Hands {
    pub me: Identity,
    pub kubernetes: Kubernetes,
    /// The Node as it was seen last, by watch or in the answer to a patch.
    node: Mutex<Option<Node>>,
}

impl Hands {
    pub fn new(me: Identity, kubernetes: Kubernetes) -> Self {
        Self { me, kubernetes, node: Mutex::new(None) }
    }

    pub fn node(&self) -> Option<Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_node(&self, node: Node) {
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
    }

    /// What records and events are about.
    pub fn subject(&self) -> Subject {
        Subject {
            instance: self.me.instance.clone(),
            node: self.me.node.clone(),
            provider_id: self.me.provider_id.clone(),
            node_uid: self.node().map(|node| node.uid).filter(|uid| !uid.is_empty()),
        }
    }

    /// Brings the Node to this mark, in one patch.
    pub async fn mark(&self, mark: &Mark) -> Outcome {
        self.patch_node(|node| mark_patch(node, mark)).await
    }

    /// Undoes what the Node's annotation says that was done.
    pub async fn unmark(&self) -> Outcome {
        self.patch_node(unmark_patch).await
    }

    /// One patch of the node, conflicts answered by computing it again.
    async fn patch_node(&self, patch: impl Fn(&Node) -> Option<serde_json::Value>) -> Outcome {
        let result = self.kubernetes.patch_node(&self.me.node, self.node(), patch).await;
        let outcome = outcome(&result);
        if let Ok(node) = result {
            self.set_node(node);
        }
        outcome
    }

    /// Writes the record's status; where `on` is given, only on this version of the record.
    pub async fn record_status(&self, status: &InterruptionStatus, on: Option<&str>) -> Outcome {
        outcome(&self.kubernetes.record_status(&self.me.instance, status, on).await)
    }

    /// A decision goes to the log.
    pub fn log(&self, because: &Because) {
        let (reason, text) = (because.reason(), because.to_string());
        let (instance, node) = (&self.me.instance, &self.me.node);
        if because.is_warning() {
            tracing::warn!(reason, %instance, node, "{text}");
        } else {
            tracing::info!(reason, %instance, node, "{text}");
        }
    }
}

/// An ask goes to the log before it is sent.
pub fn log_ask(ask: &Ask) {
    tracing::info!(
        reason = ask.because.reason(),
        verb = ?ask.verb,
        pod = format!("{}/{}", ask.namespace, ask.name),
        grace_secs = ask.grace_secs,
        "asked to go: {}",
        ask.because
    );
}

/// A task that watches, for as long as this is kept.
#[derive(Default)]
pub struct Watching(Option<AbortHandle>);

impl Watching {
    /// Watches by this task from now on, and by no other.
    pub fn by(&mut self, task: &tokio::task::JoinHandle<()>) {
        self.end();
        self.0 = Some(task.abort_handle());
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub fn end(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.end();
    }
}
