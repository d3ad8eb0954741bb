//! EC2NodeClasses: what the provisioner reads of them, and what it says of them.

use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::events::note;
use super::supply::{MANAGER, applied};
use super::{Kubernetes, http_request};
use crate::api::condition::{Condition, ConditionStatus};
use crate::api::node_class::{EC2NodeClass, EC2NodeClassStatus};
use crate::domain::notice::InstanceId;
use crate::provision::Because;

impl Kubernetes {
    pub fn node_classes(&self) -> Api<EC2NodeClass> {
        Api::all(self.own.clone())
    }

    /// Writes a class's status, where it is still the one with this uid.
    pub async fn write_class(&self, name: &str, uid: &str, status: &EC2NodeClassStatus) -> Result<(), kube::Error> {
        let apply = applied("EC2NodeClass", name, Some(uid), status);
        self.timed("apply", "ec2nodeclasses/status", async {
            let params = PatchParams::apply(MANAGER).force();
            self.node_classes().patch_status(name, &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// Says in an event on an Interruption, and in one on its Node, what was decided.
    pub async fn publish_decision(
        &self,
        instance: &InstanceId,
        node: &str,
        because: &Because,
    ) -> Result<(), kube::Error> {
        let record = serde_json::json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption", "name": instance.as_str(),
        });
        let node = serde_json::json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node });
        for regarding in [record, node] {
            let text = because.to_string();
            self.publish_note(&note(&regarding, because.reason(), because.is_warning(), &text, Timestamp::now()))
                .await?;
        }
        Ok(())
    }

    /// Says in an event on the class that this condition has changed.
    pub async fn publish_condition(&self, name: &str, uid: &str, of: &Condition) -> Result<(), kube::Error> {
        let regarding = serde_json::json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "EC2NodeClass", "name": name, "uid": uid,
        });
        let event = note(&regarding, &of.reason, of.status != ConditionStatus::True, &of.message, Timestamp::now());
        self.publish_note(&event).await
    }

    async fn publish_note(&self, event: &serde_json::Value) -> Result<(), kube::Error> {
        let request = http_request("POST", "/apis/events.k8s.io/v1/namespaces/default/events", event)?;
        self.timed("create", "events", async { self.own.request::<serde::de::IgnoredAny>(request).await.map(drop) })
            .await
    }
}
