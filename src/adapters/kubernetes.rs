//! The API server: each call with a time-out of its own, and no retries beneath the core's.
//!
//! - [`connection`]: the one connection under all of it.
//! - [`wire`]: what is read of Node, Pod and Interruption.
//! - [`watches`]: what feeds the core.
//! - `supply`: NodeClaims, Launches, and what else the provisioner reads and writes.
//! - `node_classes`: EC2NodeClasses.
//! - `requests`: the provisioner's own notices.
//! - `departures`: Nodes and Interruptions that are done with.
//! - [`access`]: what this agent may do, asked at start.
//! - [`events`]: decisions, as events on the Node and the Interruption.

#[cfg(feature = "agent")]
pub mod access;
pub mod connection;
#[cfg(feature = "provisioner")]
mod departures;
pub mod events;
#[cfg(feature = "provisioner")]
mod labels;
#[cfg(feature = "provisioner")]
mod node_classes;
#[cfg(feature = "provisioner")]
mod requests;
#[cfg(feature = "provisioner")]
pub mod supply;
pub mod watches;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client, Config};

use self::connection::Connection;
use self::wire::{NodeObject, PodObject};
use super::metrics::{ApiRequest, Common};
use crate::api::interruption::{Interruption, InterruptionStatus, NoticeEntry};
use crate::domain::node::Node;
use crate::domain::notice::{InstanceId, Source};
use crate::interruption::{Answer, Ask, Outcome, Verb};

/// The time-out of one call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a patch of the Node is computed anew after a conflict, before the core is told.
const CONFLICTS_MAX: u32 = 8;

/// The field manager of an Interruption's status.
const STATUS_MANAGER: &str = "spotkeeper-agent";

/// The API server cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "no API server is configured: in a pod the ServiceAccount token is missing (automountServiceAccountToken), \
         elsewhere KUBECONFIG names no usable file"
    )]
    Infer(#[source] kube::config::InferConfigError),
    #[error("the configuration of the API server cannot be used")]
    Client(#[source] kube::Error),
    #[error("the API server's address {url:?} is not a URL like https://HOST:PORT: correct `server` in the kubeconfig")]
    Server { url: String },
    #[error("the kubeconfig's tls-server-name {name:?} is neither a DNS name nor an IP address")]
    ServerName { name: String },
    #[error("the kubeconfig's proxy-url is not supported: name an address that can be reached without a proxy")]
    Proxy,
}

/// The API server, as this agent and, for pods, perhaps as the node that it runs on.
#[derive(Clone)]
pub struct Kubernetes {
    own: Client,
    connection: Connection,
    pods: Client,
    metrics: Common,
    hearer: Option<Hearer>,
}

/// Is told of every call that was done or denied: the verb, the resource and, where it was denied, what the API server
/// says.
pub type Hearer = Arc<dyn Fn(&'static str, &'static str, Option<&str>) + Send + Sync>;

/// The node of an Interruption, as its record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub instance: InstanceId,
    pub node: String,
    pub provider_id: String,
    /// The Node's uid, where it is known: the record goes when the Node goes.
    pub node_uid: Option<String>,
}

impl Kubernetes {
    /// Reads the configuration (kubeconfig, or the pod's ServiceAccount). Nothing is sent yet.
    pub async fn connect(metrics: Common) -> Result<Self, ConnectError> {
        let config = Config::infer().await.map_err(ConnectError::Infer)?;
        Self::with(config, metrics)
    }

    /// Uses this configuration. Nothing is sent yet.
    pub fn with(config: Config, metrics: Common) -> Result<Self, ConnectError> {
        let connection = Connection::new(config)?;
        let own = connection.own()?;
        Ok(Self { pods: own.clone(), own, connection, metrics, hearer: None })
    }

    /// A client that speaks of pods as `system:node:<node>` (constrained impersonation).
    pub fn as_node(&self, node: &str) -> Result<Client, ConnectError> {
        self.connection.speaking_as(format!("system:node:{node}"))
    }

    /// Speaks of pods through `client` from now on.
    pub fn with_pod_client(mut self, client: Client) -> Self {
        self.pods = client;
        self
    }

    /// Tells `hearer` of what is denied from now on.
    pub fn heard_by(mut self, hearer: Hearer) -> Self {
        self.hearer = Some(hearer);
        self
    }

    pub fn client(&self) -> &Client {
        &self.own
    }

    pub fn nodes(&self) -> Api<NodeObject> {
        Api::all_with(self.own.clone(), &wire::nodes())
    }

    pub fn interruptions(&self) -> Api<Interruption> {
        Api::all(self.own.clone())
    }

    pub fn all_pods(&self) -> Api<PodObject> {
        Api::all_with(self.pods.clone(), &wire::pods())
    }

    pub async fn node(&self, name: &str) -> Result<Node, kube::Error> {
        self.timed("get", "nodes", async { self.nodes().get(name).await.map(Node::from) }).await
    }

    /// Patches the Node until `patch` finds nothing missing. `cached` is tried first: it is nearly always current, and
    /// where it is not, its resourceVersion makes the API server refuse.
    ///
    /// Returns the Node as it is afterwards.
    pub async fn patch_node(
        &self,
        name: &str,
        cached: Option<Node>,
        patch: impl Fn(&Node) -> Option<serde_json::Value>,
    ) -> Result<Node, kube::Error> {
        let mut node = match cached {
            Some(node) => node,
            None => self.node(name).await?,
        };
        for _ in 0..CONFLICTS_MAX {
            let Some(missing) = patch(&node) else {
                return Ok(node);
            };
            let call = async { self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(&missing)).await };
            match self.timed("patch", "nodes", call).await {
                Ok(object) => return Ok(object.into()),
                Err(kube::Error::Api(status)) if status.code == 409 => node = self.node(name).await?,
                Err(error) => return Err(error),
            }
        }
        Err(conflict(name))
    }

    /// Writes one notice into the record, creating it where it is missing. One that is there already stays as its first
    /// reporter wrote it.
    pub async fn record_notice(&self, of: &Subject, entry: &NoticeEntry) -> Result<(), kube::Error> {
        // The API server's cache is good enough to see a redelivery by; it costs no read of etcd.
        if entry.source == Source::Sqs && self.says(of, entry, Some("0")).await? {
            return Ok(());
        }
        match self.apply_notice(of, entry).await {
            // Admission lets nobody change another's entry, and the cache may not have had it yet.
            Err(kube::Error::Api(status)) if status.code == 403 || status.code == 422 => {
                match self.says(of, entry, None).await {
                    Ok(true) => Ok(()),
                    _ => Err(kube::Error::Api(status)),
                }
            }
            result => result,
        }
    }

    /// Whether the record has this announcement, with this deadline, whoever reported it.
    async fn says(&self, of: &Subject, entry: &NoticeEntry, version: Option<&str>) -> Result<bool, kube::Error> {
        let params = GetParams { resource_version: version.map(str::to_owned) };
        let said = |e: &NoticeEntry| e.key() == entry.key() && e.deadline == entry.deadline;
        match self
            .timed("get", "interruptions", async { self.interruptions().get_with(of.instance.as_str(), &params).await })
            .await
        {
            Ok(found) => Ok(found.spec.notices.iter().any(said)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn apply_notice(&self, of: &Subject, entry: &NoticeEntry) -> Result<(), kube::Error> {
        let mut metadata = serde_json::json!({ "name": of.instance.as_str() });
        if let Some(uid) = &of.node_uid {
            metadata["ownerReferences"] =
                serde_json::json!([{ "apiVersion": "v1", "kind": "Node", "name": of.node, "uid": uid }]);
        }
        let apply = serde_json::json!({
            "apiVersion": "spotkeeper.dev/v1alpha1",
            "kind": "Interruption",
            "metadata": metadata,
            "spec": {
                "instanceID": of.instance.as_str(),
                "providerID": of.provider_id,
                "nodeName": of.node,
                "notices": [entry],
            },
        });
        let params = PatchParams::apply(&field_manager(entry)).force();
        let name = of.instance.as_str();
        self.timed("apply", "interruptions", async {
            self.interruptions().patch(name, &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// Writes the status of the record, which must be there; where `on` is given, only on this version of it.
    pub async fn record_status(
        &self,
        instance: &InstanceId,
        status: &InterruptionStatus,
        on: Option<&str>,
    ) -> Result<(), kube::Error> {
        let mut metadata = serde_json::json!({ "name": instance.as_str() });
        if let Some(version) = on {
            metadata["resourceVersion"] = version.into();
        }
        let apply = serde_json::json!({
            "apiVersion": "spotkeeper.dev/v1alpha1",
            "kind": "Interruption",
            "metadata": metadata,
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let name = instance.as_str();
        self.timed("apply", "interruptions/status", async {
            self.interruptions().patch_status(name, &params, &Patch::Apply(&apply)).await.map(drop)
        })
        .await
    }

    /// Asks one pod to go.
    pub async fn ask(&self, ask: &Ask) -> Answer {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": ask.grace_secs,
            "preconditions": { "uid": ask.uid.0 },
        });
        let pod = format!("/api/v1/namespaces/{}/pods/{}", ask.namespace, ask.name);
        let request = match ask.verb {
            Verb::Evict => http_request(
                "POST",
                &format!("{pod}/eviction"),
                &serde_json::json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": { "namespace": ask.namespace, "name": ask.name },
                    "deleteOptions": options,
                }),
            ),
            Verb::Delete => http_request("DELETE", &pod, &options),
        };
        let call = async {
            let request = request?;
            self.pods.request::<serde::de::IgnoredAny>(request).await.map(drop)
        };
        let (verb, resource) = match ask.verb {
            Verb::Evict => ("create", "pods/eviction"),
            Verb::Delete => ("delete", "pods"),
        };
        match self.timed(verb, resource, call).await {
            Ok(()) => Answer::Accepted,
            Err(kube::Error::Api(status)) => answer_of(&status),
            Err(error) => Answer::Failed(one_line(&error)),
        }
    }

    /// The call, counted, or a time-out in the words of the API.
    async fn timed<T>(
        &self,
        verb: &'static str,
        resource: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, kube::Error> {
        let began = std::time::Instant::now();
        let result = tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| {
            let why = format!("the API server did not answer within {} s", CALL_TIMEOUT.as_secs());
            Err(status(504, "Timeout", why))
        });
        let code = match &result {
            Ok(_) => "ok".to_owned(),
            Err(kube::Error::Api(status)) => status.code.to_string(),
            Err(_) => "connection".to_owned(),
        };
        self.metrics.api_asked(ApiRequest { verb, resource, result: code }, began.elapsed());
        match (&self.hearer, &result) {
            (Some(hearer), Ok(_)) => hearer(verb, resource, None),
            (Some(hearer), Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                hearer(verb, resource, Some(&status.message));
            }
            _ => {}
        }
        result
    }
}

fn http_request(method: &str, path: &str, body: &serde_json::Value) -> Result<http::Request<Vec<u8>>, kube::Error> {
    let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(bytes)
        .map_err(kube::Error::HttpError)
}

/// What the API server's refusal of an ask means.
pub fn answer_of(status: &Status) -> Answer {
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    match status.code {
        404 => Answer::Gone,
        // The only precondition that we send is the uid: another pod has the name by now.
        409 if !status.message.contains("object has been modified") => Answer::Gone,
        429 => match causes().find(|cause| cause.reason == "DisruptionBudget") {
            Some(cause) => Answer::Blocked { budget: budget_in(&cause.message) },
            None => Answer::Throttled {
                retry_after: status
                    .details
                    .as_ref()
                    .filter(|details| details.retry_after_seconds > 0)
                    .map(|details| Duration::from_secs(details.retry_after_seconds.into())),
            },
        },
        500 if status.message.contains("more than one PodDisruptionBudget") => Answer::TooManyBudgets,
        401 | 403 => Answer::Forbidden(status.message.clone()),
        _ => Answer::Failed(format!("{} {}: {}", status.code, status.reason, status.message)),
    }
}

/// The budget's name in the cause of a 429: "The disruption budget NAME needs …" or "… is still being processed…".
fn budget_in(message: &str) -> Option<String> {
    let rest = message.split_once("disruption budget ")?.1;
    let name = rest.split_whitespace().next()?;
    (!name.is_empty()).then(|| name.trim_matches('"').to_owned())
}

/// Whether a write on an object of a certain uid found none, or another one of its name.
pub fn is_gone<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409))
}

/// How a write ended, as the core wants to know it.
pub fn outcome<T>(result: &Result<T, kube::Error>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 401 | 403 | 422) => {
            Outcome::Refused(status.message.clone())
        }
        Err(error) => Outcome::Failed(one_line(error)),
    }
}

/// The error and its causes, in one line: a text of others does not begin another one in the log.
pub fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let refusal = refusal(error);
        let link = match refusal {
            // Its own text has the status twice, the second time as Rust prints it.
            Some(status) => format!("{} {}: {}", status.code, status.reason, status.message),
            None => error.to_string(),
        };
        if !text.contains(&link) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&link);
        }
        next = if refusal.is_some() { None } else { error.source() };
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The API server's status, where the error is one.
fn refusal<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Status> {
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
    match error.downcast_ref::<kube::Error>().or(boxed)? {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

fn conflict(node: &str) -> kube::Error {
    status(409, "Conflict", format!("node {node} changed under each of {CONFLICTS_MAX} patches"))
}

fn status(code: u16, reason: &str, message: String) -> kube::Error {
    kube::Error::Api(Status { code, message, reason: reason.to_owned(), ..Status::default() }.boxed())
}

/// The field manager of a notice: one for each key of the map-list, so that nobody's apply drops another's entry.
///
/// The API server allows 128 characters; a longer event id is replaced by its FNV-1a hash.
pub fn field_manager(entry: &NoticeEntry) -> String {
    let name = format!("spotkeeper/{}", entry.key());
    if name.len() <= 128 && name.is_ascii() {
        return name;
    }
    let hash = entry
        .event_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("spotkeeper/{}/{}/{hash:016x}", entry.source, entry.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: serde_json::Value) -> Answer {
        answer_of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_budgets_429_is_told_from_a_busy_servers() {
        let blocked = refusal(serde_json::json!({
            "code": 429, "reason": "TooManyRequests", "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "details": { "causes": [{ "reason": "DisruptionBudget", "message": "The disruption budget web needs 3 healthy pods and has 3 currently" }] }
        }));
        assert_eq!(blocked, Answer::Blocked { budget: Some("web".into()) });
        let busy = refusal(serde_json::json!({
            "code": 429, "reason": "TooManyRequests", "message": "too many requests", "details": { "retryAfterSeconds": 3 }
        }));
        assert_eq!(busy, Answer::Throttled { retry_after: Some(Duration::from_secs(3)) });
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let of = |code: u16, message: &str| refusal(serde_json::json!({ "code": code, "message": message }));
        assert_eq!(of(404, "pods \"web-0\" not found"), Answer::Gone);
        assert_eq!(of(409, "Precondition failed: UID in precondition: a, UID in object meta: b"), Answer::Gone);
        assert_eq!(
            of(500, "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."),
            Answer::TooManyBudgets
        );
        assert!(matches!(of(403, "forbidden"), Answer::Forbidden(_)));
        assert!(matches!(of(500, "etcdserver: leader changed"), Answer::Failed(_)));
    }

    #[test]
    fn an_error_is_one_line_whatever_the_api_server_wrote() {
        let error = status(403, "Forbidden", "not\nyou\u{1b}[31m, {\"level\":\"INFO\"}".to_owned());
        assert_eq!(one_line(&error), "403 Forbidden: not you [31m, {\"level\":\"INFO\"}");
    }

    #[test]
    fn a_field_manager_fits_and_keeps_events_apart() {
        let entry = |id: &str| NoticeEntry {
            source: crate::domain::notice::Source::Sqs,
            kind: crate::domain::notice::Kind::ScheduledChange,
            event_id: id.to_owned(),
            action: None,
            reporter: None,
            noticed_at: None,
            deadline: None,
        };
        assert_eq!(field_manager(&entry("abc")), "spotkeeper/sqs/ScheduledChange/abc");
        let (one, two) = (field_manager(&entry(&"x".repeat(200))), field_manager(&entry(&"x".repeat(201))));
        assert!(one.len() <= 128 && one != two);
    }
}
