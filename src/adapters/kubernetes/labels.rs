//! What the provisioner writes to Nodes: labels, annotations and taints of those that it launched.

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Kubernetes;
use crate::provision::labels::NodePatch;

/// How often a patch with taints is made again where the Node has changed under it.
const CONFLICTS_MAX: usize = 5;

impl Kubernetes {
    /// Patches a Node. Labels and annotations merge by themselves; taints are one list, which is written whole and only
    /// where the Node is still as it was read.
    pub async fn label_node(&self, name: &str, patch: &NodePatch) -> Result<(), kube::Error> {
        let metadata = json!({ "labels": patch.labels, "annotations": patch.annotations });
        if patch.taints.is_empty() {
            return self.patch_fleet_node(name, &json!({ "metadata": metadata })).await;
        }
        let mut conflicts = 0;
        loop {
            let node = self.node(name).await?;
            let missing = |taint: &&crate::domain::node::Taint| {
                !node.taints.iter().any(|has| has.key == taint.key && has.effect == taint.effect)
            };
            let taints = node.taints.iter().chain(patch.taints.iter().filter(missing)).map(|taint| {
                let mut one = json!({ "key": taint.key, "effect": taint.effect });
                if let Some(value) = &taint.value {
                    one["value"] = value.as_str().into();
                }
                if let Some(added) = &taint.time_added {
                    one["timeAdded"] = added.as_str().into();
                }
                one
            });
            let mut metadata = metadata.clone();
            metadata["resourceVersion"] = node.resource_version.as_str().into();
            let body = json!({ "metadata": metadata, "spec": { "taints": taints.collect::<Vec<_>>() } });
            match self.patch_fleet_node(name, &body).await {
                Err(kube::Error::Api(status)) if status.code == 409 && conflicts < CONFLICTS_MAX => conflicts += 1,
                result => return result,
            }
        }
    }

    async fn patch_fleet_node(&self, name: &str, body: &serde_json::Value) -> Result<(), kube::Error> {
        let call = async { self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(body)).await.map(drop) };
        self.timed("patch", "nodes", call).await
    }
}
