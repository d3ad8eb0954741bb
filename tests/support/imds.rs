//! An instance metadata service of our own: faithful where AWS's mock is not, and faulty at will.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
pub const SPOT: &str = "/latest/meta-data/spot/instance-action";
pub const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
pub const SCHEDULED: &str = "/latest/meta-data/events/maintenance/scheduled";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Every answer is this status.
    Status(u16),
    /// Tokens are given out, and every one is refused.
    DenyTokens,
    /// Every 200 has a body that nobody can read.
    Garbage,
    /// Nothing is answered.
    Hang,
    /// Every answer comes this late.
    Delay(Duration),
}

#[derive(Default)]
struct Inner {
    instance: String,
    zone: String,
    tokens: HashMap<String, Instant>,
    spot: Option<(String, SpotTime)>,
    rebalance: Option<Timestamp>,
    scheduled: Vec<Value>,
    lifecycle: Option<String>,
    fault: Fault,
    requests: BTreeMap<String, u64>,
    first_notice: Option<Instant>,
}

#[derive(Clone, Copy)]
enum SpotTime {
    At(Timestamp),
    /// As AWS's mock does: so long from every poll.
    Sliding(Duration),
}

/// One instance's service. It ends when dropped.
pub struct Imds {
    inner: Arc<Mutex<Inner>>,
    address: std::net::SocketAddr,
    serving: Mutex<Option<AbortHandle>>,
}

impl Imds {
    /// Starts on a free port of the loopback address.
    pub async fn start(instance: &str) -> Imds {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port can be had");
        let address = listener.local_addr().expect("it has an address");
        let inner = Inner {
            instance: instance.to_owned(),
            zone: "eu-west-1a".to_owned(),
            ..Inner::default()
        };
        let imds = Imds {
            inner: Arc::new(Mutex::new(inner)),
            address,
            serving: Mutex::default(),
        };
        imds.serve(listener);
        imds
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new()
            .fallback(answer)
            .with_state(self.inner.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        *self.serving.lock().unwrap() = Some(task.abort_handle());
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap());
    }

    /// The instance is marked: its action comes in `left`. Returns the announced time, which has whole seconds.
    pub fn spot(&self, action: &str, left: Duration) -> Timestamp {
        let at = Timestamp::now()
            .checked_add(SignedDuration::try_from(left).unwrap())
            .unwrap();
        let at = Timestamp::from_second(at.as_second()).unwrap();
        self.set(|inner| inner.spot = Some((action.to_owned(), SpotTime::At(at))));
        at
    }

    /// The same, its time sliding with every poll.
    pub fn spot_sliding(&self, left: Duration) {
        self.set(|inner| inner.spot = Some(("terminate".to_owned(), SpotTime::Sliding(left))));
    }

    pub fn clear_spot(&self) {
        self.set(|inner| inner.spot = None);
    }

    pub fn rebalance(&self) {
        self.set(|inner| inner.rebalance = Some(Timestamp::now()));
    }

    /// A scheduled event `left` from now; `state` is `active`, `completed` or `canceled`.
    pub fn scheduled(&self, id: &str, code: &str, state: &str, left: Duration) {
        let at = Timestamp::now()
            .checked_add(SignedDuration::try_from(left).unwrap())
            .unwrap();
        let at = at.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
        let event = json!({
            "NotBefore": at, "NotAfter": "", "Code": code, "Description": "the lab's", "EventId": id, "State": state,
        });
        self.set(|inner| {
            inner.scheduled.retain(|e| e["EventId"] != id);
            inner.scheduled.push(event);
        });
    }

    pub fn clear_scheduled(&self) {
        self.set(|inner| inner.scheduled.clear());
    }

    pub fn lifecycle(&self, state: &str) {
        self.set(|inner| inner.lifecycle = Some(state.to_owned()));
    }

    pub fn fault(&self, fault: Fault) {
        self.set(|inner| inner.fault = fault);
    }

    /// The service was started anew: it knows none of its tokens.
    pub fn forget_tokens(&self) {
        self.set(|inner| inner.tokens.clear());
    }

    /// Nobody listens any more.
    pub fn refuse(&self) {
        if let Some(task) = self.serving.lock().unwrap().take() {
            task.abort();
        }
    }

    /// Listens again, on the same port.
    pub async fn recover(&self) {
        self.fault(Fault::None);
        if self.serving.lock().unwrap().is_none() {
            self.serve(
                TcpListener::bind(self.address)
                    .await
                    .expect("the port is still ours"),
            );
        }
    }

    /// How often a path was asked for.
    pub fn requests(&self, path: &str) -> u64 {
        self.inner
            .lock()
            .unwrap()
            .requests
            .get(path)
            .copied()
            .unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.inner.lock().unwrap().requests.values().sum()
    }

    /// When an answer first said that the instance is marked.
    pub fn first_notice(&self) -> Option<Instant> {
        self.inner.lock().unwrap().first_notice
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.refuse();
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let fault = {
        let mut inner = inner.lock().unwrap();
        *inner.requests.entry(path.clone()).or_default() += 1;
        inner.fault
    };
    match fault {
        Fault::Status(code) => {
            return StatusCode::from_u16(code)
                .expect("a status")
                .into_response();
        }
        Fault::Hang => std::future::pending().await,
        Fault::Delay(delay) => tokio::time::sleep(delay).await,
        Fault::None | Fault::DenyTokens | Fault::Garbage => {}
    }
    let mut inner = inner.lock().unwrap();
    let answer = match (request.method(), path.as_str()) {
        (&Method::PUT, "/latest/api/token") => return inner.give_token(request.headers()),
        (&Method::GET, "/latest/api/token") => {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        (&Method::GET, path) => match inner.token(request.headers()) {
            Ok(left) => with_ttl(inner.item(path), left),
            Err(refusal) => return refusal.into_response(),
        },
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    if fault == Fault::Garbage && answer.status() == StatusCode::OK {
        return (StatusCode::OK, "<html>\u{0}not what you asked for").into_response();
    }
    answer
}

fn with_ttl(body: Option<String>, left: u64) -> Response {
    let headers = [(TTL_HEADER, left.to_string())];
    match body {
        Some(body) => (StatusCode::OK, headers, body).into_response(),
        None => (StatusCode::NOT_FOUND, headers, Body::empty()).into_response(),
    }
}

impl Inner {
    fn give_token(&mut self, headers: &HeaderMap) -> Response {
        if headers.contains_key("x-forwarded-for") {
            return StatusCode::FORBIDDEN.into_response();
        }
        let ttl = headers
            .get(TTL_HEADER)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=21_600).contains(ttl)) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let token = format!("AQ{:016x}==", fastrand::u64(..));
        self.tokens
            .insert(token.clone(), Instant::now() + Duration::from_secs(ttl));
        (StatusCode::OK, [(TTL_HEADER, ttl.to_string())], token).into_response()
    }

    /// The seconds that the request's token is still good for.
    fn token(&self, headers: &HeaderMap) -> Result<u64, StatusCode> {
        let token = headers
            .get(TOKEN_HEADER)
            .and_then(|value| value.to_str().ok());
        let until = token
            .and_then(|token| self.tokens.get(token))
            .ok_or(StatusCode::UNAUTHORIZED)?;
        let left = until
            .checked_duration_since(Instant::now())
            .ok_or(StatusCode::UNAUTHORIZED)?;
        if self.fault == Fault::DenyTokens {
            Err(StatusCode::UNAUTHORIZED)
        } else {
            Ok(left.as_secs())
        }
    }

    fn item(&mut self, path: &str) -> Option<String> {
        match path {
            SPOT => {
                let (action, time) = self.spot.as_ref()?;
                let time = match time {
                    SpotTime::At(at) => *at,
                    SpotTime::Sliding(left) => Timestamp::now() + *left,
                };
                let time = time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let body = json!({ "action": action, "time": time }).to_string();
                self.first_notice.get_or_insert_with(Instant::now);
                Some(body)
            }
            REBALANCE => {
                let noticed = self.rebalance?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                Some(json!({ "noticeTime": noticed }).to_string())
            }
            SCHEDULED => Some(Value::from(self.scheduled.clone()).to_string()),
            "/latest/meta-data/events/maintenance/history" => Some("[]".to_owned()),
            "/latest/meta-data/autoscaling/target-lifecycle-state" => self.lifecycle.clone(),
            "/latest/meta-data/instance-life-cycle" => Some("spot".to_owned()),
            "/latest/meta-data/instance-id" => Some(self.instance.clone()),
            "/latest/dynamic/instance-identity/document" => Some(
                json!({
                    "accountId": "123456789012", "instanceId": self.instance, "instanceType": "m7i.large",
                    "availabilityZone": self.zone, "region": "eu-west-1", "privateIp": "10.0.0.1",
                })
                .to_string(),
            ),
            _ => None,
        }
    }
}
