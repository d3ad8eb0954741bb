//! The provisioner's own notices: that a node of ours be drained, and that this be left; what it has seen in EC2.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};

use super::{Kubernetes, Subject, field_manager};
use crate::api::GROUP;
use crate::api::interruption::NoticeEntry;
use crate::domain::notice::{InstanceId, Kind, Source};
use crate::provision::witness;

/// The notice that asks for a drain.
fn request(event_id: &str, action: Option<String>, since: Option<Timestamp>) -> NoticeEntry {
    NoticeEntry {
        source: Source::Provisioner,
        kind: Kind::Requested,
        event_id: event_id.to_owned(),
        action,
        reporter: None,
        noticed_at: since,
        deadline: None,
    }
}

impl Kubernetes {
    /// Asks for the drain of a node, in the record of its instance, which is made where it is missing. Sent again it changes
    /// nothing.
    pub async fn request_drain(
        &self,
        of: &Subject,
        event_id: &str,
        action: Option<String>,
        since: Timestamp,
    ) -> Result<(), kube::Error> {
        self.apply_notice(of, &request(event_id, action, Some(since))).await
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
        let params = PatchParams::apply(&field_manager(&request(event_id, None, None))).force();
        let call = async { self.interruptions().patch(name, &params, &Patch::Apply(&apply)).await.map(drop) };
        self.timed("apply", "interruptions", call).await
    }

    /// Writes what was seen in EC2 into the record of an instance, which is made where it is missing.
    pub async fn record_seen(&self, of: &Subject, entry: &NoticeEntry) -> Result<(), kube::Error> {
        self.apply_notice(of, entry).await
    }

    /// Writes down that EC2 has taken an instance and nobody had heard of it: the notice, and a status that is over. Where
    /// somebody has heard of it meanwhile, the status is left as it is.
    pub async fn record_taken(&self, of: &Subject, entry: &NoticeEntry, because: &str) -> Result<(), kube::Error> {
        self.apply_notice(of, entry).await?;
        let name = of.instance.as_str();
        let call = async { self.interruptions().get(name).await };
        let found = self.timed("get", "interruptions", call).await?;
        let status = found.status.unwrap_or_default();
        let wall = entry.noticed_at.unwrap_or_else(Timestamp::now);
        match witness::taken(&status, &found.spec.notices, because.to_owned(), wall) {
            // On the version that was read: an agent that says something now is heard at the next try.
            Some(next) => self.record_status(&of.instance, &next, found.metadata.resource_version.as_deref()).await,
            None => Ok(()),
        }
    }
}
