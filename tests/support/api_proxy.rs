//! Stands between an agent and the API server, and misbehaves.
//!
//! [`Tunnel`] knows bytes only, whatever the server: an agent speaks TLS and HTTP/2 to the real API server through it. [`Proxy`] knows
//! requests, which costs the agent's TLS: it speaks plain HTTP to the proxy, which speaks to the API server with the
//! agent's own token.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::control_plane::ControlPlane;

/// What a tunnel does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Pass,
    /// Connections are ended, and new ones, too.
    Refuse,
    /// Connections stay, and nothing comes through.
    Hang,
}

/// A tunnel to a server; it ends when dropped.
pub struct Tunnel {
    /// Where it is entered.
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    task: AbortHandle,
}

impl Tunnel {
    /// A tunnel to the server of this URL.
    pub async fn to(server: &str) -> Tunnel {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = server.rsplit('/').next().unwrap_or_default().to_owned();
        let line = watch::Sender::new(Line::Pass);
        let seen = line.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.expect("connections come");
                tokio::spawn(carry(here, server.clone(), seen.clone()));
            }
        });
        Tunnel { address, line, task: task.abort_handle() }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(here: TcpStream, server: String, mut line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Refuse {
        return;
    }
    let Ok(there) = TcpStream::connect(server).await else { return };
    let ((from_here, to_here), (from_there, to_there)) = (here.into_split(), there.into_split());
    tokio::select! {
        () = pump(from_here, to_there, line.clone()) => {}
        () = pump(from_there, to_here, line.clone()) => {}
        _ = line.wait_for(|line| *line == Line::Refuse) => {}
    }
}

async fn pump(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        if line.wait_for(|line| *line == Line::Pass).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// What a proxy does with requests, until it is told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// How long every request is held back.
    pub delay: Duration,
    /// Evictions are answered as a throttled API server does.
    pub throttle_evictions: bool,
    /// So many patches of Nodes are refused as conflicts.
    pub conflicts: u32,
}

/// A proxy to the API server; it ends when dropped.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    plane: &'static ControlPlane,
    clients: tokio::sync::Mutex<HashMap<String, kube::Client>>,
    manners: Mutex<Manners>,
    asked: Mutex<Vec<(String, u16)>>,
    cuts: watch::Sender<u32>,
}

impl Proxy {
    pub async fn to(plane: &'static ControlPlane) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            plane,
            clients: Default::default(),
            manners: Default::default(),
            asked: Default::default(),
            cuts: watch::Sender::new(0),
        });
        let app = Router::new().fallback(pass_on).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Proxy { url, shared, task: task.abort_handle() }
    }

    pub fn set(&self, manners: Manners) {
        *self.shared.manners.lock().expect("no test panicked here") = manners;
    }

    /// Ends every open watch as the API server does when the version that it came from is too old.
    pub fn expire_watches(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How many watches are open.
    pub fn watches(&self) -> usize {
        self.shared.cuts.receiver_count()
    }

    /// The codes that requests were answered with, of those whose method and path contain `what`.
    pub fn answers(&self, what: &str) -> Vec<u16> {
        let asked = self.shared.asked.lock().expect("no test panicked here");
        asked.iter().filter(|(request, _)| request.contains(what)).map(|(_, code)| *code).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let what = format!("{} {}", request.method(), request.uri());
    let answer = answer(&shared, request).await;
    let mut asked = shared.asked.lock().expect("no test panicked here");
    asked.push((what, answer.status().as_u16()));
    answer
}

async fn answer(shared: &Shared, request: Request) -> Response {
    let delay = shared.manners.lock().expect("no test panicked here").delay;
    tokio::time::sleep(delay).await;
    if let Some(refusal) = shared.refusal(&request) {
        return refusal;
    }
    let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let cut = shared.cuts.subscribe();
    let answer = match shared.forward(request).await {
        Ok(answer) => answer,
        Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    let (parts, body) = answer.into_parts();
    let body = Body::new(body);
    Response::from_parts(parts, if watch { until_cut(body, cut) } else { body })
}

/// The watch's body until it is cut, and then the error that ends it.
fn until_cut(body: Body, mut cut: watch::Receiver<u32>) -> Body {
    let expired = json!({ "type": "ERROR", "object": status(410, "Expired", "too old resource version") });
    let last = Bytes::from(format!("{expired}\n"));
    let cut = async move {
        let _ = cut.changed().await;
    };
    let last = futures::stream::once(async move { Ok(last) });
    Body::from_stream(body.into_data_stream().take_until(cut).chain(last))
}

impl Shared {
    /// The answer that the API server is not asked for.
    fn refusal(&self, request: &Request) -> Option<Response> {
        let mut manners = self.manners.lock().expect("no test panicked here");
        let path = request.uri().path();
        if manners.throttle_evictions && path.ends_with("/eviction") {
            let mut throttled = status(429, "TooManyRequests", "the server has received too many requests");
            throttled["details"] = json!({ "retryAfterSeconds": 1 });
            return Some(json_response(429, &throttled));
        }
        if manners.conflicts > 0 && request.method() == "PATCH" && path.starts_with("/api/v1/nodes/") {
            manners.conflicts -= 1;
            return Some(json_response(409, &status(409, "Conflict", "the object has been modified")));
        }
        None
    }

    async fn forward(&self, request: Request) -> Result<http::Response<kube::client::Body>, kube::Error> {
        let (mut parts, body) = request.into_parts();
        let token = parts.headers.remove(header::AUTHORIZATION);
        let token = token.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
        let client = {
            let mut clients = self.clients.lock().await;
            match clients.get(token) {
                Some(client) => client.clone(),
                None => clients.entry(token.to_owned()).or_insert(self.plane.client_of(token).await).clone(),
            }
        };
        parts.headers.remove(header::HOST);
        parts.uri = parts.uri.path_and_query().expect("a request has a path").as_str().parse().expect("it is one");
        let body = to_bytes(body, usize::MAX).await.expect("the agent sends its body");
        client.send(http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()))).await
    }
}

fn status(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn json_response(code: u16, body: &serde_json::Value) -> Response {
    let code = StatusCode::from_u16(code).expect("it is a code");
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
