//! The provisioner's own notices: that a node of ours be drained, and that this be left.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};

use super::{Kubernetes, Subject, field_manager};
use crate::api::GROUP;
use crate::api::interruption::NoticeEntry;
use crate::domain::notice::{InstanceId, Kind, Source};

/// The notice that asks for a drain.
fn request(event_id: &str, action: Option<String>) -> NoticeEntry {
    NoticeEntry {
        source: Source::Provisioner,
        kind: Kind::Requested,
        event_id: event_id.to_owned(),
        action,
        reporter: None,
        noticed_at: Some(Timestamp::now()),
        deadline: None,
    }
}

impl Kubernetes {
    /// Asks for the drain of a node, in the record of its instance, which is made where it is missing.
    pub async fn request_drain(&self, of: &Subject, event_id: &str, action: Option<String>) -> Result<(), kube::Error> {
        self.apply_notice(of, &request(event_id, action)).await
    }

    /// Takes that notice out of the record: an apply of its field manager without it. A record that is gone has none.
    pub async fn withdraw_request(&self, of: &InstanceId, event_id: &str) -> Result<(), kube::Error> {
        let name = of.as_str();
        let call = async { self.interruptions().get_opt(name).await };
        let Some(found) = self.timed("get", "interruptions", call).await? else { return Ok(()) };
        let apply = serde_json::json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": "Interruption",
            "metadata": { "name": name, "uid": found.metadata.uid },
            "spec": {
                "instanceID": found.spec.instance_id,
                "providerID": found.spec.provider_id,
                "nodeName": found.spec.node_name,
            },
        });
        let params = PatchParams::apply(&field_manager(&request(event_id, None))).force();
        let call = async { self.interruptions().patch(name, &params, &Patch::Apply(&apply)).await.map(drop) };
        self.timed("apply", "interruptions", call).await
    }
}
