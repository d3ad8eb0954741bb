//! EC2: moto's, with a layer of ours before it.
//!
//! Types, zones, subnets, templates, instances and tags are moto's. `CreateFleet` is ours: it honours ClientToken, fills
//! `Errors`, runs dry by plan, throttles, loses answers, and what it launches becomes a node after a boot time. See
//! `answers` for the XML of it.

mod answers;
mod iam;
mod templates;
mod witness;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use kube::Client;
use serde_json::{Value, json};

use self::answers::{Asked, Given, between, failure, fleet};
use super::cluster::{Cluster, NodeHandle, send};
use super::facts::eventually;
use super::moto::Moto;
use super::objects::a_node;

/// What EC2 is to do. All of it can be changed at any time.
#[derive(Default)]
pub struct Plan {
    /// Capacity types (`spot`, `on-demand`) that have nothing, and the code that says so.
    pub dry: BTreeMap<&'static str, &'static str>,
    /// Refuses the whole call with this code.
    pub refuses: Option<&'static str>,
    /// So many answers to `CreateFleet` are lost after the call was done.
    pub loses: u32,
    /// How long `CreateFleet` takes.
    pub takes: Duration,
    /// How long an instance takes to become a node; `None`: it never does.
    pub boots: Option<Duration>,
    /// Actions that an IAM policy does not allow.
    pub forbids: BTreeSet<&'static str>,
    /// The status of the spot requests of instances; all others are `fulfilled`.
    pub marked: BTreeMap<String, &'static str>,
    /// Instances that EC2 itself takes: why, as `StateReason` says.
    pub taken: BTreeMap<String, &'static str>,
}

/// One `CreateFleet` as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    /// When it was answered.
    pub answered: Instant,
    pub asked: Asked,
    /// `None` while it is worked on, and where it was refused.
    pub launched: Option<usize>,
}

struct Shared {
    moto: String,
    /// One request at a time: two at once that change its tables make it fail now and then.
    moto_is_free: tokio::sync::Mutex<()>,
    http: reqwest::Client,
    client: Client,
    /// The label that the nodes of this test have.
    of: String,
    plan: Mutex<Plan>,
    calls: Mutex<Vec<Call>>,
    /// Every action that was asked for.
    actions: Mutex<BTreeSet<String>>,
    /// What was answered under a token, and to which request.
    tokens: Mutex<HashMap<String, (Asked, String)>>,
    /// What was launched by `CreateFleet`, in order.
    launched: Mutex<Vec<NodeHandle>>,
    policy: iam::Policy,
    /// What the shipped policy did not allow.
    denied: Mutex<Vec<String>>,
}

/// A running EC2.
pub struct Ec2 {
    shared: Arc<Shared>,
    pub endpoint: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Ec2 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Ec2 {
    /// In front of this moto, its instances becoming nodes of this cluster.
    pub async fn start(moto: &Moto, cluster: &Cluster) -> Ec2 {
        let shared = Arc::new(Shared {
            moto: moto.endpoint.clone(),
            moto_is_free: tokio::sync::Mutex::default(),
            http: reqwest::Client::new(),
            client: cluster.client.clone(),
            of: cluster.namespace.clone(),
            plan: Mutex::new(Plan { boots: Some(Duration::from_millis(500)), ..Plan::default() }),
            calls: Mutex::default(),
            actions: Mutex::default(),
            tokens: Mutex::default(),
            launched: Mutex::default(),
            policy: iam::Policy::shipped(),
            denied: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let endpoint = format!("http://{}", listener.local_addr().expect("it has an address"));
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Ec2 { shared, endpoint, server }
    }

    pub fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared.plan.lock().unwrap()
    }

    /// Every `CreateFleet` so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// The capacity types asked for so far, in order.
    pub fn asked_for(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.asked.market).collect()
    }

    /// The names of all actions asked for so far.
    pub fn actions(&self) -> BTreeSet<String> {
        self.shared.actions.lock().unwrap().clone()
    }

    /// What the shipped IAM policy did not allow of what was asked for so far.
    pub fn denied(&self) -> Vec<String> {
        self.shared.denied.lock().unwrap().clone()
    }

    /// What `CreateFleet` has launched so far, with the names of the nodes that come of it.
    pub fn launched(&self) -> Vec<NodeHandle> {
        self.shared.launched.lock().unwrap().clone()
    }

    /// Which of the launched have not been ended.
    pub async fn alive(&self) -> Vec<NodeHandle> {
        let mut alive = Vec::new();
        for node in self.launched() {
            let form = [("Action", "DescribeInstances"), ("InstanceId.1", node.instance.as_str())];
            let text = self.shared.forward(&form).await;
            let state = between(&text, "<instanceState>", "</instanceState>").unwrap_or_default();
            if state.contains("running") || state.contains("pending") {
                alive.push(node);
            }
        }
        alive
    }

    /// A launch template, as a node group has one.
    pub async fn template(&self) -> String {
        let name = format!("nodes-{}", super::control_plane::uuid());
        let form = [
            ("Action", "CreateLaunchTemplate"),
            ("LaunchTemplateName", name.as_str()),
            ("LaunchTemplateData.ImageId", IMAGE),
            ("LaunchTemplateData.InstanceType", "m7g.large"),
        ];
        let text = self.shared.forward(&form).await;
        between(&text, "<launchTemplateId>", "<").unwrap_or_else(|| panic!("no template: {text}"))
    }

    /// An image that is there.
    pub fn image(&self) -> &'static str {
        IMAGE
    }

    /// What a launch template of this name says.
    pub async fn template_named(&self, name: &str) -> String {
        let form = [("Action", "DescribeLaunchTemplateVersions"), ("LaunchTemplateName", name)];
        self.shared.forward(&form).await
    }

    /// A spot instance that runs, made with this template, and its node.
    pub async fn node(&self, cluster: &Cluster, name: &str, template: &str) -> NodeHandle {
        self.node_of("m7g.large", cluster, name, template).await
    }

    /// The same, of this type.
    pub async fn node_of(&self, of: &str, cluster: &Cluster, name: &str, template: &str) -> NodeHandle {
        let subnet = self.subnets().await.remove(0);
        let tags = [("aws:ec2launchtemplate:id", template), ("aws:ec2launchtemplate:version", "1")];
        let instance = self.shared.run_all(1, of, &subnet, "spot", &tags).await.remove(0);
        cluster.node_on(name, &instance).await
    }

    /// So many spot instances that run, made with this template.
    pub async fn instances(&self, count: usize, template: &str) -> Vec<String> {
        let subnet = self.subnets().await.remove(0);
        let tags = [("aws:ec2launchtemplate:id", template), ("aws:ec2launchtemplate:version", "1")];
        self.shared.run_all(count, "m7g.large", &subnet, "spot", &tags).await
    }

    /// AWS takes an instance.
    pub async fn terminate(&self, instance: &str) {
        self.plan().taken.insert(instance.to_owned(), "Server.SpotInstanceTermination");
        self.shut(instance).await;
    }

    /// Somebody ends an instance.
    pub async fn shut(&self, instance: &str) {
        let text = self.shared.forward(&[("Action", "TerminateInstances"), ("InstanceId.1", instance)]).await;
        assert!(text.contains("<currentState>"), "{text}");
    }

    /// The subnets of the default VPC.
    pub async fn subnets(&self) -> Vec<String> {
        let text = self.shared.forward(&[("Action", "DescribeSubnets")]).await;
        let ids = text.split("<subnetId>").skip(1).filter_map(|rest| rest.split('<').next());
        ids.map(str::to_owned).collect()
    }

    /// Waits until so many calls were made.
    pub async fn called(&self, calls: usize) -> Vec<Call> {
        eventually(&format!("{calls} calls of CreateFleet"), Duration::from_secs(30), async || {
            let so_far = self.calls();
            if so_far.len() >= calls { Ok(so_far) } else { Err(format!("{so_far:?}")) }
        })
        .await
    }
}

/// An image that moto knows.
const IMAGE: &str = "ami-12c6146b";

impl Shared {
    /// Asks moto, as the lab.
    async fn forward(&self, form: &[(&str, &str)]) -> String {
        let credential = "AWS4-HMAC-SHA256 Credential=lab/20260101/eu-west-1/ec2/aws4_request";
        let mut body = url_encoded(form);
        body.push_str("&Version=2016-11-15");
        let _turn = self.moto_is_free.lock().await;
        let answer = self
            .http
            .post(&self.moto)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", credential)
            .body(body)
            .send()
            .await
            .expect("moto answers");
        answer.text().await.expect("the answer has a text")
    }

    async fn run_all(
        &self,
        count: usize,
        name: &str,
        subnet: &str,
        market: &str,
        tags: &[(&str, &str)],
    ) -> Vec<String> {
        self.run_with(count, name, subnet, market, tags, &[("ImageId", IMAGE)]).await
    }

    /// The same; `more` says what they are made of.
    async fn run_with(
        &self,
        count: usize,
        name: &str,
        subnet: &str,
        market: &str,
        tags: &[(&str, &str)],
        more: &[(&str, &str)],
    ) -> Vec<String> {
        let count = count.to_string();
        let mut form: Vec<(String, String)> = [
            ("Action", "RunInstances"),
            ("InstanceType", name),
            ("SubnetId", subnet),
            ("MinCount", count.as_str()),
            ("MaxCount", count.as_str()),
            ("TagSpecification.1.ResourceType", "instance"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        form.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        if market == "spot" {
            form.push(("InstanceMarketOptions.MarketType".into(), "spot".into()));
        }
        for (index, (key, value)) in tags.iter().enumerate() {
            form.push((format!("TagSpecification.1.Tag.{}.Key", index + 1), (*key).to_owned()));
            form.push((format!("TagSpecification.1.Tag.{}.Value", index + 1), (*value).to_owned()));
        }
        let form: Vec<(&str, &str)> = form.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let text = self.forward(&form).await;
        let ids: Vec<String> =
            text.split("<instanceId>").skip(1).filter_map(|rest| Some(rest.split_once('<')?.0.to_owned())).collect();
        assert!(!ids.is_empty(), "no instance: {text}");
        ids
    }

    /// `CreateFleet`: what was asked, and the status and text of the answer.
    async fn create_fleet(self: &Arc<Self>, asked: Asked) -> (StatusCode, String) {
        let (takes, refuses, dry) = {
            let plan = self.plan.lock().unwrap();
            (plan.takes, plan.refuses, plan.dry.get(asked.market.as_str()).copied())
        };
        let at = Instant::now();
        // Seen as soon as it comes in: what it makes of it follows.
        let index = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(Call { at, answered: at, asked: asked.clone(), launched: None });
            calls.len() - 1
        };
        let note = |launched| {
            let call = &mut self.calls.lock().unwrap()[index];
            (call.answered, call.launched) = (Instant::now(), launched);
        };
        tokio::time::sleep(takes).await;
        let known = self.tokens.lock().unwrap().get(&asked.token).cloned();
        if let Some((first, answer)) = known {
            note(Some(0));
            return if first == asked {
                (StatusCode::OK, answer)
            } else {
                (StatusCode::BAD_REQUEST, failure("IdempotentParameterMismatch", "another request had this token"))
            };
        }
        if let Some(code) = refuses {
            note(None);
            let throttled = code == "RequestLimitExceeded";
            let status = if throttled { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
            return (status, failure(code, "as planned"));
        }
        let Some(template) = self.template_id(&asked.template.0).await else {
            note(None);
            let text = failure("InvalidLaunchTemplateName.NotFoundException", "there is no such launch template");
            return (StatusCode::BAD_REQUEST, text);
        };
        let mut given = Vec::new();
        if dry.is_none() {
            for index in 0..asked.count {
                let one = &asked.overrides[index % asked.overrides.len()];
                let tags: Vec<_> = asked.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                let template = [
                    ("aws:ec2launchtemplate:id", template.as_str()),
                    ("aws:ec2launchtemplate:version", asked.template.1.as_str()),
                ];
                let tags = [tags, template.to_vec()].concat();
                // What a template says counts where the provisioner has made it; those of tests say what all have.
                let ours = [("LaunchTemplate.LaunchTemplateId", template[0].1)];
                let more = if asked.template.0.starts_with("lt-") { [("ImageId", IMAGE)] } else { ours };
                let id = self.run_with(1, &one.0, &one.1, &asked.market, &tags, &more).await.remove(0);
                given.push(Given { id, name: one.0.clone(), subnet: one.1.clone() });
            }
        }
        note(Some(given.len()));
        for one in &given {
            self.boot(one);
        }
        let answer = fleet(&asked, &given, dry);
        self.tokens.lock().unwrap().insert(asked.token.clone(), (asked, answer.clone()));
        (StatusCode::OK, answer)
    }

    /// The id of a launch template that is named by id or name; what is named by id is taken to be there.
    async fn template_id(&self, named: &str) -> Option<String> {
        if named.starts_with("lt-") {
            return Some(named.to_owned());
        }
        let text = self.forward(&[("Action", "DescribeLaunchTemplates"), ("LaunchTemplateName.1", named)]).await;
        between(&text, "<launchTemplateId>", "<")
    }

    /// The tags of what a call is to end or delete.
    async fn tags_of(&self, action: &str, form: &HashMap<String, String>) -> iam::Tags {
        let asked = match action {
            "TerminateInstances" => [("DescribeInstances", "InstanceId.1", "InstanceId.1"); 2],
            "DeleteLaunchTemplate" => [
                ("DescribeLaunchTemplates", "LaunchTemplateId.1", "LaunchTemplateId"),
                ("DescribeLaunchTemplates", "LaunchTemplateName.1", "LaunchTemplateName"),
            ],
            _ => return iam::Tags::new(),
        };
        let named = asked.iter().find_map(|(describe, to, from)| Some((*describe, *to, form.get(*from)?)));
        let Some((describe, to, id)) = named else { return iam::Tags::new() };
        let text = self.forward(&[("Action", describe), (to, id)]).await;
        iam::tags_in(&text)
    }

    /// The instance becomes a node, as planned.
    fn boot(self: &Arc<Self>, given: &Given) {
        let name = format!("{}-{}", self.of, given.id.trim_start_matches("i-"));
        self.launched.lock().unwrap().push(NodeHandle { name: name.clone(), instance: given.id.clone() });
        let Some(boots) = self.plan.lock().unwrap().boots else { return };
        let (shared, instance) = (self.clone(), given.id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(boots).await;
            let node = a_node(&name, &instance).labelled("lab.spotkeeper.dev/of", &shared.of);
            let made = send(&shared.client, "POST", "/api/v1/nodes", "application/json", &node.0).await;
            let status = json!({ "status": node.0["status"] });
            let path = format!("/api/v1/nodes/{name}/status");
            let kept = send(&shared.client, "PATCH", &path, "application/merge-patch+json", &status).await;
            made.and(kept).expect("the node joins");
        });
    }

    /// The nodes of ended instances go, as a cloud controller sees to.
    async fn ended(&self, form: &HashMap<String, String>) {
        let ids: Vec<&String> =
            form.iter().filter(|(key, _)| key.starts_with("InstanceId.")).map(|(_, id)| id).collect();
        let gone: Vec<NodeHandle> =
            self.launched.lock().unwrap().iter().filter(|node| ids.contains(&&node.instance)).cloned().collect();
        for node in gone {
            let path = format!("/api/v1/nodes/{}", node.name);
            let _ = send(&self.client, "DELETE", &path, "application/json", &Value::Null).await;
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let form: HashMap<String, String> = form_urlencoded(&body);
    let action = form.get("Action").cloned().unwrap_or_default();
    shared.actions.lock().unwrap().insert(action.clone());
    if shared.plan.lock().unwrap().forbids.contains(action.as_str()) {
        let text = failure("UnauthorizedOperation", "You are not authorized to perform this operation.");
        return (StatusCode::FORBIDDEN, xml(), text).into_response();
    }
    if let Some(what) = shared.policy.forbids(&form, &shared.tags_of(&action, &form).await) {
        shared.denied.lock().unwrap().push(what.clone());
        let text = failure("UnauthorizedOperation", &format!("The policy does not allow {what}."));
        return (StatusCode::FORBIDDEN, xml(), text).into_response();
    }
    if action == "CreateFleet" {
        let (status, text) = shared.create_fleet(Asked::of(&form)).await;
        let lost = {
            let mut plan = shared.plan.lock().unwrap();
            let lost = plan.loses > 0;
            plan.loses = plan.loses.saturating_sub(1);
            lost
        };
        if lost {
            // The connection ends without an answer; the call was done.
            return (StatusCode::INTERNAL_SERVER_ERROR, xml(), failure("InternalError", "cut")).into_response();
        }
        return (status, xml(), text).into_response();
    }
    if action == "DescribeSpotInstanceRequests" {
        let text = witness::spot_requests(&form, &shared.plan.lock().unwrap().marked);
        return (StatusCode::OK, xml(), text).into_response();
    }
    let mut request = shared.http.post(&shared.moto).body(body.to_vec());
    for name in ["content-type", "authorization", "x-amz-date"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value.as_bytes());
        }
    }
    let (status, mut text) = {
        let _turn = shared.moto_is_free.lock().await;
        let answer = request.send().await.expect("moto answers");
        let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
        (status, answer.text().await.expect("the answer has a text"))
    };
    match action.as_str() {
        "TerminateInstances" => shared.ended(&form).await,
        "DescribeInstances" => text = witness::with_reasons(&text, &shared.plan.lock().unwrap().taken),
        _ => {}
    }
    (status, xml(), text).into_response()
}

fn xml() -> [(&'static str, &'static str); 1] {
    [("content-type", "text/xml;charset=UTF-8")]
}

fn url_encoded(form: &[(&str, &str)]) -> String {
    reqwest::Url::parse_with_params("http://x/", form).expect("a URL").query().unwrap_or_default().to_owned()
}

fn form_urlencoded(body: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let url = reqwest::Url::parse(&format!("http://x/?{text}")).expect("a form");
    url.query_pairs().into_owned().collect()
}
