//! What an instance's metadata service says, and to whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Fault, HISTORY, IDENTITY, LIFECYCLE, REBALANCE, SCHEDULED, SPOT, TOKEN, TOKEN_HEADER, TTL_HEADER};

/// What a broken proxy, a captive portal or a cut answer may leave of a 200.
const GARBAGE: [&[u8]; 5] = [
    b"<html>\0not what you asked for",
    b"{\"action\":\"terminate\",\"time\":\"2026-0",
    b"\xff\xfe\x00",
    b"",
    b"[[[[{\"action\":null}",
];

/// Marks the answer that says that the instance is marked.
#[derive(Clone, Copy)]
pub struct CarriesNotice;

/// When the action of a spot notice comes.
#[derive(Clone, Copy)]
pub enum SpotTime {
    At(Timestamp),
    /// As AWS's mock does: so long from every poll.
    Sliding(Duration),
}

/// One instance, its tokens, and what was asked about it.
#[derive(Default)]
pub struct Instance {
    pub id: String,
    pub zone: String,
    pub tokens: HashMap<String, Instant>,
    pub spot: Option<(String, SpotTime)>,
    pub rebalance: Option<Timestamp>,
    pub scheduled: Vec<Value>,
    pub history: Vec<Value>,
    pub lifecycle: Option<String>,
    pub fault: Fault,
    pub requests: BTreeMap<String, u64>,
    pub connections: u64,
    pub first_notice: Option<Instant>,
    pub clock_off: SignedDuration,
}

/// As both items about spot write their times.
fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain"), (header::SERVER, "EC2ws")], body.into()).into_response()
}

fn refused(status: StatusCode) -> Response {
    text(status, status.canonical_reason().unwrap_or_default())
}

impl Instance {
    /// Counts a request, and says what goes wrong with it.
    pub fn asked(&mut self, path: &str) -> Fault {
        *self.requests.entry(path.to_owned()).or_default() += 1;
        self.fault
    }

    pub fn answer(&mut self, method: &Method, path: &str, headers: &HeaderMap) -> Response {
        if let Fault::Status(code) = self.fault {
            return refused(StatusCode::from_u16(code).expect("a status"));
        }
        match (method, path) {
            (&Method::PUT, TOKEN) => return self.give_token(headers),
            (&Method::GET | &Method::HEAD, path) if path != TOKEN => {}
            _ => return refused(StatusCode::METHOD_NOT_ALLOWED),
        }
        let left = match self.token(headers) {
            Ok(left) => left,
            Err(refusal) => return refused(refusal),
        };
        let path = latest(path);
        let mut response = match self.item(&path) {
            Some(_) if self.fault == Fault::Garbage => text(StatusCode::OK, self.garbage()),
            Some(body) => text(StatusCode::OK, body),
            None => refused(StatusCode::NOT_FOUND),
        };
        if path == SPOT && response.status() == StatusCode::OK && self.fault != Fault::Garbage {
            response.extensions_mut().insert(CarriesNotice);
        }
        response.headers_mut().insert(TTL_HEADER, left.into());
        if !self.clock_off.is_zero() {
            let date = (Timestamp::now() + self.clock_off).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            response.headers_mut().insert(header::DATE, date.parse().expect("a date is a header"));
        }
        response
    }

    /// Another one at every request.
    fn garbage(&self) -> &'static [u8] {
        let asked: u64 = self.requests.values().sum();
        GARBAGE[usize::try_from(asked).unwrap_or(0) % GARBAGE.len()]
    }

    fn give_token(&mut self, headers: &HeaderMap) -> Response {
        if headers.contains_key("x-forwarded-for") {
            return refused(StatusCode::FORBIDDEN);
        }
        let ttl = headers.get(TTL_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=21_600).contains(ttl)) else {
            return refused(StatusCode::BAD_REQUEST);
        };
        let token = format!("AQ{:032x}==", (u128::from(fastrand::u64(..)) << 64) | u128::from(fastrand::u64(..)));
        let mut response = match self.fault {
            Fault::GarbageTokens => text(StatusCode::OK, self.garbage()),
            _ => text(StatusCode::OK, token.clone()),
        };
        self.tokens.insert(token, Instant::now() + Duration::from_secs(ttl));
        response.headers_mut().insert(TTL_HEADER, ttl.into());
        response
    }

    /// The seconds that the request's token is still good for.
    fn token(&self, headers: &HeaderMap) -> Result<u64, StatusCode> {
        let token = headers.get(TOKEN_HEADER).and_then(|value| value.to_str().ok());
        let until = token.and_then(|token| self.tokens.get(token)).ok_or(StatusCode::UNAUTHORIZED)?;
        let left = until.checked_duration_since(Instant::now()).ok_or(StatusCode::UNAUTHORIZED)?;
        if self.fault == Fault::DenyTokens { Err(StatusCode::UNAUTHORIZED) } else { Ok(left.as_secs()) }
    }

    /// The item at this path, or what stands below it, as `ls` would say it.
    fn item(&self, path: &str) -> Option<String> {
        let items = self.items();
        let path = path.trim_end_matches('/');
        if let Some(body) = items.get(path) {
            return Some(body.clone());
        }
        let below = items.keys().filter_map(|item| item.strip_prefix(path)?.strip_prefix('/'));
        let names = below.map(|item| match item.split_once('/') {
            Some((folder, _)) => format!("{folder}/"),
            None => item.to_owned(),
        });
        let names: BTreeSet<String> = names.collect();
        (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
    }

    /// All that there is now: what has not happened has no item.
    fn items(&self) -> BTreeMap<&'static str, String> {
        let region = self.zone.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let identity = json!({
            "accountId": "123456789012", "instanceId": self.id, "instanceType": "m7i.large",
            "availabilityZone": self.zone, "region": region, "privateIp": "10.0.0.1",
            "architecture": "x86_64", "imageId": "ami-0123456789abcdef0", "version": "2017-09-30",
        });
        let mut items = BTreeMap::from([
            (IDENTITY, identity.to_string()),
            (SCHEDULED, Value::from(self.scheduled.clone()).to_string()),
            (HISTORY, Value::from(self.history.clone()).to_string()),
            ("/latest/meta-data/instance-id", self.id.clone()),
            ("/latest/meta-data/instance-life-cycle", "spot".to_owned()),
            ("/latest/meta-data/placement/availability-zone", self.zone.clone()),
        ]);
        if let Some((action, time)) = &self.spot {
            let time = match time {
                SpotTime::At(at) => *at,
                SpotTime::Sliding(left) => Timestamp::now() + *left,
            };
            items.insert(SPOT, json!({ "action": action, "time": rfc3339(time) }).to_string());
        }
        if let Some(noticed) = self.rebalance {
            items.insert(REBALANCE, json!({ "noticeTime": rfc3339(noticed) }).to_string());
        }
        if let Some(state) = &self.lifecycle {
            items.insert(LIFECYCLE, state.clone());
        }
        items
    }
}

/// A path of a dated version, as one of `latest`.
fn latest(path: &str) -> String {
    let dated = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    match dated {
        Some((version, rest)) if version.parse::<jiff::civil::Date>().is_ok() => format!("/latest/{rest}"),
        _ => path.to_owned(),
    }
}
