//! One test's stage: a cluster, an EC2, a spot node, and what becomes of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, NodeHandle, text};
use crate::support::control_plane::ControlPlane;
use crate::support::ec2::Ec2;
use crate::support::facts::eventually;
use crate::support::moto::Moto;
use crate::support::provisioner::{Provisioner, Starting};

/// How long a replacement may take here, boot included.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Provisioners act on a whole cluster: one scene at a time.
static STAGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct Scene {
    _stage: tokio::sync::MutexGuard<'static, ()>,
    pub cluster: Cluster,
    pub moto: Moto,
    pub ec2: Ec2,
    pub template: String,
}

/// Removes what the scene before has left.
async fn clear(cluster: &Cluster) {
    let ours = "/apis/spotkeeper.dev/v1alpha1";
    for plural in ["nodepools", "ec2nodeclasses", "nodeclaims", "launches", "interruptions"] {
        // A resource that was defined just now is not served at once.
        let list = eventually(&format!("{plural} are listed"), PATIENCE, async || {
            cluster.get(&format!("{ours}/{plural}")).await
        })
        .await;
        for object in list["items"].as_array().into_iter().flatten() {
            let path = format!("{ours}/{plural}/{}", text(&object["metadata"]["name"]));
            let free = json!({ "metadata": { "finalizers": null } });
            let _ = cluster.send("PATCH", &path, "application/merge-patch+json", &free).await;
            let _ = cluster.delete(&path).await;
        }
    }
    for path in [
        "/apis/coordination.k8s.io/v1/namespaces/spotkeeper/leases/spotkeeper-provisioner",
        "/api/v1/namespaces/spotkeeper/configmaps/spotkeeper-catalog",
        "/api/v1/namespaces/spotkeeper/configmaps/spotkeeper-memory",
    ] {
        let _ = cluster.delete(path).await;
    }
}

impl Scene {
    pub async fn new(what: &str) -> Scene {
        let stage = STAGE.lock().await;
        let cluster = Cluster::on(ControlPlane::full, what).await;
        clear(&cluster).await;
        let moto = Moto::start(&cluster.plane.dir).await;
        let ec2 = Ec2::start(&moto, &cluster).await;
        let template = ec2.template().await;
        Scene { _stage: stage, cluster, moto, ec2, template }
    }

    /// A spot node, made with the template.
    pub async fn node(&self, name: &str) -> NodeHandle {
        self.ec2.node(&self.cluster, name, &self.template).await
    }

    pub async fn provisioner(&self) -> Starting {
        Provisioner::of(&self.cluster, &self.moto, &self.ec2).await.arg("--resync=2s")
    }

    /// The node's agent has confirmed that its instance will be taken.
    pub async fn doom(&self, node: &NodeHandle) {
        let deadline = jiff::Timestamp::now() + Duration::from_secs(120);
        let record = json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption",
            "metadata": { "name": node.instance },
            "spec": { "instanceID": node.instance, "nodeName": node.name,
                "providerID": format!("aws:///eu-west-1a/{}", node.instance) },
        });
        let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
        self.cluster.send("POST", path, "application/json", &record).await.expect("the record is made");
        let status = json!({ "status": {
            "episode": 1, "phase": "Draining", "kind": "SpotInterruption", "deadline": deadline.to_string(),
        } });
        self.patch_status(node, &status).await;
    }

    /// The node's agent has confirmed that it is to be drained, and leaves that to the provisioner. No replacement is
    /// wanted.
    pub async fn leaves_the_drain(&self, node: &NodeHandle, left: Duration) {
        let deadline = (jiff::Timestamp::now() + left).to_string();
        let record = json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption",
            "metadata": { "name": node.instance },
            "spec": { "instanceID": node.instance, "nodeName": node.name,
                "providerID": format!("aws:///eu-west-1a/{}", node.instance),
                "notices": [{ "source": "provisioner", "kind": "Requested", "eventID": "surplus", "deadline": deadline }] },
        });
        let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
        self.cluster.send("POST", path, "application/json", &record).await.expect("the record is made");
        let status = json!({ "status": {
            "episode": 1, "phase": "Confirmed", "kind": "Requested", "deadline": deadline,
            "policy": { "rebalance": "Avoid", "drain": "Immediate", "marginSeconds": 5, "scheduledLeadSeconds": 600,
                "cordonOnly": false, "drainBy": "provisioner" },
        } });
        self.patch_status(node, &status).await;
    }

    /// Waits for the drain of this node to be asked for, by these words, and cordons it as its agent would.
    pub async fn cordons(&self, node: &NodeHandle, event_id: &str) {
        eventually(&format!("the drain of {} is asked for", node.name), PATIENCE, async || {
            let record = self.cluster.interruption(node).await;
            let notice = &record["spec"]["notices"][0];
            let asked = notice["source"] == "provisioner" && notice["kind"] == "Requested";
            if asked && notice["eventID"] == event_id { Ok(()) } else { Err(record.to_string()) }
        })
        .await;
        let cordoned = self.cluster.patch_node(node, &json!({ "spec": { "unschedulable": true } })).await;
        cordoned.expect("the node is cordoned");
    }

    /// A notice of the provisioner's in the record of a node's instance, as an earlier leader may have left it.
    pub async fn request(&self, node: &NodeHandle, event_id: &str) {
        let entry = json!({ "source": "provisioner", "kind": "Requested", "eventID": event_id });
        let record = json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption",
            "metadata": { "name": node.instance },
            "spec": { "instanceID": node.instance, "nodeName": node.name,
                "providerID": format!("aws:///eu-west-1a/{}", node.instance), "notices": [entry] },
        });
        let manager = format!("spotkeeper%2Fprovisioner%2FRequested%2F{event_id}");
        let path =
            format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{}?fieldManager={manager}&force=true", node.instance);
        let made = self.cluster.send("PATCH", &path, "application/apply-patch+yaml", &record).await;
        made.expect("the record is made");
    }

    /// A notice by the queue alone, as a reader of it writes it.
    pub async fn notice_by_queue(&self, node: &NodeHandle, kind: &str, action: Option<&str>) {
        let now = jiff::Timestamp::now();
        let deadline = (now + Duration::from_secs(120)).to_string();
        let entry = json!({ "source": "sqs", "kind": kind, "eventID": "event-1", "action": action,
            "reporter": "another", "noticedAt": now.to_string(), "deadline": deadline });
        let record = json!({
            "apiVersion": "spotkeeper.dev/v1alpha1", "kind": "Interruption",
            "metadata": { "name": node.instance },
            "spec": { "instanceID": node.instance, "nodeName": node.name,
                "providerID": format!("aws:///eu-west-1a/{}", node.instance), "notices": [entry] },
        });
        let path = "/apis/spotkeeper.dev/v1alpha1/interruptions";
        self.cluster.send("POST", path, "application/json", &record).await.expect("the record is made");
    }

    /// What the agent says has changed.
    pub async fn patch_status(&self, node: &NodeHandle, status: &Value) {
        let path = format!("/apis/spotkeeper.dev/v1alpha1/interruptions/{}/status", node.instance);
        let patched = self.cluster.send("PATCH", &path, "application/merge-patch+json", status).await;
        patched.expect("the status is patched");
    }

    /// The claim for the node's first episode.
    pub async fn claim(&self, node: &NodeHandle) -> Value {
        let path = format!("/apis/spotkeeper.dev/v1alpha1/nodeclaims/{}-1", node.instance);
        self.cluster.get(&path).await.unwrap_or_default()
    }

    /// Waits for the claim to be in this phase.
    pub async fn claim_is(&self, node: &NodeHandle, phase: &str) -> Value {
        eventually(&format!("the claim for {} is {phase}", node.name), PATIENCE, async || {
            let claim = self.claim(node).await;
            if claim["status"]["phase"] == phase { Ok(claim) } else { Err(claim.to_string()) }
        })
        .await
    }

    /// Waits until the claim for the node is gone.
    pub async fn gone(&self, node: &NodeHandle) {
        eventually(&format!("the claim for {} is gone", node.name), PATIENCE, async || {
            let claim = self.claim(node).await;
            if claim.is_null() { Ok(()) } else { Err(claim.to_string()) }
        })
        .await;
    }

    /// Waits until the outcome of every Launch is written.
    pub async fn settled(&self) {
        self.no_launch("no launch is open", PATIENCE, |launch| launch["status"]["outcome"].is_null()).await;
    }

    /// Waits until the records of all Launches are removed: a minute after their claims know.
    pub async fn launches_removed(&self) {
        self.no_launch("no launch is left", 3 * PATIENCE, |_| true).await;
    }

    async fn no_launch(&self, what: &str, patience: Duration, like: fn(&Value) -> bool) {
        eventually(what, patience, async || {
            let list = self.cluster.get("/apis/spotkeeper.dev/v1alpha1/launches").await?;
            let ours = |launch: &&Value| launch["spec"]["recipe"]["launchTemplate"] == self.template && like(launch);
            let left = list["items"].as_array().into_iter().flatten().filter(ours).count();
            if left == 0 { Ok(()) } else { Err(list.to_string()) }
        })
        .await;
    }
}
