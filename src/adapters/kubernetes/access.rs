//! What this agent may do, asked at start: a missing permission is said before it is needed.

use kube::api::ListParams;
use kube::{Api, Client};

use super::{Kubernetes, http_request, one_line, wire};
use crate::agent::config::PodAccess;

/// With whose rights pods are listed, evicted and deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMode {
    /// The node's identity: no other node's pod can be touched.
    Node,
    /// The agent's own.
    Own,
    /// Nobody's: pods are left alone.
    None,
}

impl PodMode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Own => "own",
            Self::None => "none",
        }
    }
}

/// What is missing.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(
        "not allowed to {0}: apply the ClusterRole of the manifests, or name what it should do without (--pod-access)"
    )]
    Missing(String),
    #[error("the API server did not say what this agent may do: {0}")]
    Unanswered(String),
    #[error(transparent)]
    Connect(#[from] super::ConnectError),
}

/// A call that the agent will make: verb, group, resource, subresource.
type Call = (&'static str, &'static str, &'static str, &'static str);

const ALWAYS: &[Call] = &[
    ("patch", "", "nodes", ""),
    ("create", "spotkeeper.dev", "interruptions", ""),
    ("patch", "spotkeeper.dev", "interruptions", ""),
    ("patch", "spotkeeper.dev", "interruptions", "status"),
    ("watch", "spotkeeper.dev", "interruptions", ""),
];
const OWN_PODS: &[Call] = &[("list", "", "pods", ""), ("create", "", "pods", "eviction"), ("delete", "", "pods", "")];
const NODE_PODS: &[Call] = &[
    ("impersonate-on:associated-node:create", "", "pods", "eviction"),
    ("impersonate-on:associated-node:delete", "", "pods", ""),
    ("impersonate-on:associated-node:watch", "", "pods", ""),
];

impl Kubernetes {
    /// Finds out with whose rights pods can be evicted, and checks every permission that this needs.
    pub async fn pod_mode(&self, node: &str, wanted: PodAccess) -> Result<(PodMode, Self), AccessError> {
        let mode = match wanted {
            PodAccess::None => PodMode::None,
            PodAccess::Own => PodMode::Own,
            PodAccess::Node => PodMode::Node,
            PodAccess::Auto => match self.lists_own_pods(&self.as_node(node)?, node).await {
                Ok(()) => PodMode::Node,
                Err(AccessError::Missing(_)) => PodMode::Own,
                Err(error) => return Err(error),
            },
        };
        let pods: &[Call] = match mode {
            PodMode::Node => NODE_PODS,
            PodMode::Own => OWN_PODS,
            PodMode::None => &[],
        };
        for call in ALWAYS.iter().chain(pods) {
            self.may(call).await?;
        }
        let kubernetes = match mode {
            PodMode::Node => {
                let client = self.as_node(node)?;
                self.lists_own_pods(&client, node).await?;
                self.clone().with_pod_client(client)
            }
            PodMode::Own | PodMode::None => self.clone(),
        };
        Ok((mode, kubernetes))
    }

    /// Asks whether one call is allowed (SelfSubjectAccessReview, which everybody may create).
    async fn may(&self, call: &Call) -> Result<(), AccessError> {
        let (verb, group, resource, subresource) = *call;
        let review = serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource,
            } },
        });
        let asked = async {
            let request = http_request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)?;
            self.own.request::<serde_json::Value>(request).await
        };
        let answer = self
            .timed("create", "selfsubjectaccessreviews", asked)
            .await
            .map_err(|error| AccessError::Unanswered(one_line(&error)))?;
        if answer["status"]["allowed"].as_bool() == Some(true) {
            return Ok(());
        }
        let slash = if subresource.is_empty() { "" } else { "/" };
        Err(AccessError::Missing(format!("{verb} {resource}{slash}{subresource} (group \"{group}\")")))
    }

    /// Whether this client may list the pods of its node: the call that an API server without constrained
    /// impersonation, or without the grant, refuses.
    async fn lists_own_pods(&self, client: &Client, node: &str) -> Result<(), AccessError> {
        let pods: Api<wire::PodObject> = Api::all_with(client.clone(), &wire::pods());
        let params = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(1);
        match self.timed("list", "pods", async { pods.list(&params).await }).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                Err(AccessError::Missing(format!("list pods as system:node:{node} ({})", status.message)))
            }
            Err(error) => Err(AccessError::Unanswered(one_line(&error))),
        }
    }
}
