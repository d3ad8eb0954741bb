//! What goes: Nodes whose instances have ended, and Interruptions that are over.

use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::Object;
use serde::{Deserialize, Serialize};

use super::supply::{gone, only};
use super::wire::{self, WireTaint};
use super::{Kubernetes, conflict};

/// Says that whatever ran on the node has ended, so that its volumes are let go at once.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

const CONFLICTS_MAX: u32 = 5;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Taints {
    taints: Vec<WireTaint>,
}

impl Kubernetes {
    /// How many volumes are attached to a node.
    pub async fn attachments(&self, node: &str) -> Result<usize, kube::Error> {
        let api: Api<VolumeAttachment> = Api::all(self.own.clone());
        let call = async { api.list(&ListParams::default()).await };
        let all = self.timed("list", "volumeattachments", call).await?;
        Ok(all.items.iter().filter(|one| one.spec.node_name == node).count())
    }

    /// Taints a Node as out of service, where it is still this one.
    pub async fn taint_out_of_service(&self, node: &str, uid: &str) -> Result<(), kube::Error> {
        let api: Api<Object<Taints, serde_json::Value>> = Api::all_with(self.own.clone(), &wire::nodes());
        for _ in 0..CONFLICTS_MAX {
            let found = self.timed("get", "nodes", async { api.get_opt(node).await }).await?;
            let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(uid)) else { return Ok(()) };
            let mut taints = found.spec.taints;
            if taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
                return Ok(());
            }
            taints.push(WireTaint {
                key: OUT_OF_SERVICE.to_owned(),
                value: Some("nodeshutdown".to_owned()),
                effect: "NoExecute".to_owned(),
                time_added: None,
            });
            let patch = serde_json::json!({
                "metadata": { "uid": uid, "resourceVersion": found.metadata.resource_version },
                "spec": { "taints": taints },
            });
            let call = async { api.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop) };
            match self.timed("patch", "nodes", call).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => return result,
            }
        }
        Err(conflict(node))
    }

    /// Deletes a Node, where it is still this one.
    pub async fn delete_node(&self, node: &str, uid: &str) -> Result<(), kube::Error> {
        let call = async { self.nodes().delete(node, &only(uid)).await.map(drop) };
        gone(self.timed("delete", "nodes", call).await)
    }

    /// Takes the owner off an Interruption: it outlives its Node.
    pub async fn disown(&self, instance: &str, uid: &str) -> Result<(), kube::Error> {
        let patch = serde_json::json!({ "metadata": { "uid": uid, "ownerReferences": null } });
        let call = async {
            self.interruptions().patch(instance, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
        };
        gone(self.timed("patch", "interruptions", call).await)
    }

    /// Deletes an Interruption, where it is still this one.
    pub async fn delete_interruption(&self, instance: &str, uid: &str) -> Result<(), kube::Error> {
        let call = async { self.interruptions().delete(instance, &only(uid)).await.map(drop) };
        gone(self.timed("delete", "interruptions", call).await)
    }
}
