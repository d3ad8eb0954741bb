//! What the workloads on the node are told: a read-only HTTP endpoint on the node's own address, and a file.
//!
//! - `GET /v1/notice`: `200` with the [`Notice`] as JSON, `204` while there is none. Both carry an `ETag`.
//! - `GET /v1/notice?wait=30s`: waits for a notice, at most 60 s. With `If-None-Match: <the ETag last seen>` it waits
//!   for any change instead, and answers at once where one has been missed; `304` when nothing changed in time.
//!   Passing the last `ETag` every time, a client never misses the last word.
//! - `GET /latest/meta-data/spot/instance-action`, `GET /latest/meta-data/events/recommendations/rebalance` and
//!   `PUT /latest/api/token` as IMDS has them, so that an unchanged poller of IMDS works. A token is given by IMDS's
//!   rules, and not asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::domain::notice::{InstanceId, Kind};
use crate::domain::time::Epoch;
use crate::interruption::Announcement;

pub mod file;

/// The longest that a request may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How many requests may wait at the same time, unless told otherwise.
pub const WAITING_MAX: usize = 256;

/// A notice as workloads read it: the body of `/v1/notice` and the content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    pub instance_id: InstanceId,
    pub node_name: String,
    /// What is announced, such as `SpotInterruption`.
    pub kind: Kind,
    /// `terminate`, `stop`, `hibernate`, or a scheduled event's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// When the instance will be taken (RFC 3339), where that is announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When it was confirmed (RFC 3339).
    pub confirmed_at: Timestamp,
    /// Counts the interruptions of this instance, from 1.
    pub episode: i64,
    /// The `noticeTime` of a rebalance recommendation (RFC 3339), where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Timestamp>,
}

impl Notice {
    fn of(announcement: &Announcement, epoch: &Epoch) -> Self {
        Self {
            instance_id: announcement.instance.clone(),
            node_name: announcement.node.clone(),
            kind: announcement.kind,
            action: announcement.action.clone(),
            deadline: announcement.deadline.map(|deadline| deadline.announced),
            confirmed_at: epoch.wall(announcement.since),
            episode: announcement.episode,
            rebalance: announcement.rebalance,
        }
    }
}

/// What is being said; every change has a number of its own.
#[derive(Clone, Debug, Default)]
struct Said {
    version: u64,
    notice: Option<Arc<Notice>>,
}

/// Where the program says something. Saying it neither blocks nor fails.
#[derive(Debug)]
pub struct Board {
    said: watch::Sender<Said>,
    epoch: Epoch,
}

/// Where what is said can be read. Clones read the same.
#[derive(Clone, Debug)]
pub struct Reader {
    said: watch::Receiver<Said>,
    /// Tells the versions of this process from those of one before it.
    run: u64,
}

/// A board on which nothing stands.
pub fn board(epoch: Epoch) -> (Board, Reader) {
    let (sender, receiver) = watch::channel(Said::default());
    let run = epoch.0.as_millisecond().unsigned_abs();
    let board = Board { said: sender, epoch };
    let reader = Reader { said: receiver, run };
    (board, reader)
}

impl Board {
    /// Says it, to whoever waits at once. Saying the same again is no change.
    pub fn tell(&self, announcement: &Announcement) {
        self.put(Some(Notice::of(announcement, &self.epoch)));
    }

    /// Says nothing any more.
    pub fn retract(&self) {
        self.put(None);
    }

    fn put(&self, notice: Option<Notice>) {
        self.said.send_if_modified(|said| {
            if said.notice.as_deref() == notice.as_ref() {
                return false;
            }
            said.version += 1;
            said.notice = notice.map(Arc::new);
            true
        });
    }
}

impl Reader {
    fn now(&self) -> Said {
        self.said.borrow().clone()
    }

    fn etag(&self, said: &Said) -> String {
        format!("\"{:x}-{}\"", self.run, said.version)
    }
}

#[derive(Clone)]
struct Server {
    reader: Reader,
    waiting: Arc<Semaphore>,
}

/// The endpoint. At most `waiting_max` requests may wait at the same time; one more is answered `503` at once.
pub fn router(reader: Reader, waiting_max: usize) -> Router {
    let server = Server { reader, waiting: Arc::new(Semaphore::new(waiting_max)) };
    Router::new()
        .route("/v1/notice", get(notice))
        .route("/latest/meta-data/spot/instance-action", get(instance_action))
        .route("/latest/meta-data/events/recommendations/rebalance", get(rebalance))
        .route("/latest/api/token", put(token))
        .with_state(server)
}

#[derive(Deserialize)]
struct Asked {
    wait: Option<String>,
}

async fn notice(State(server): State<Server>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let wait = match asked.wait.as_deref().map(duration) {
        None => Duration::ZERO,
        Some(Some(wait)) => wait.min(WAIT_MAX),
        Some(None) => {
            let text = "`wait` must be a duration such as 30s or 500ms\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let seen = headers.get(header::IF_NONE_MATCH).cloned();
    let said = server.reader.now();
    if wait.is_zero() || is_news(&server.reader, &said, seen.as_ref()) {
        return answer(&server.reader, &said, seen.as_ref());
    }
    let Ok(_permit) = server.waiting.try_acquire() else {
        let text = "too many requests are waiting on this node; ask again, or without `wait`\n";
        let later = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, text).into_response();
    };
    let mut reader = server.reader.clone();
    let news = async {
        loop {
            // Looks before it waits: what changed since the look above is not missed.
            let said = reader.said.borrow_and_update().clone();
            if is_news(&server.reader, &said, seen.as_ref()) || reader.said.changed().await.is_err() {
                return;
            }
        }
    };
    // Running out of time is an answer, too: what stands on the board now.
    let _ = tokio::time::timeout(wait, news).await;
    answer(&server.reader, &server.reader.now(), seen.as_ref())
}

/// Whether a request that waits is to be answered: by what it has not seen, or, where it has seen nothing yet, by any
/// notice.
fn is_news(reader: &Reader, said: &Said, seen: Option<&HeaderValue>) -> bool {
    match seen {
        Some(seen) => seen.as_bytes() != reader.etag(said).as_bytes(),
        None => said.notice.is_some(),
    }
}

fn answer(reader: &Reader, said: &Said, seen: Option<&HeaderValue>) -> Response {
    let etag = [(header::ETAG, reader.etag(said))];
    if seen.is_some() && !is_news(reader, said, seen) {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    match &said.notice {
        Some(notice) => (etag, axum::Json(&**notice)).into_response(),
        None => (StatusCode::NO_CONTENT, etag).into_response(),
    }
}

/// `30s`, `30`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().ok().map(Duration::from_millis);
    }
    let secs = text.strip_suffix('s').unwrap_or(text);
    secs.parse().ok().map(Duration::from_secs)
}

#[derive(Serialize)]
struct InstanceAction<'a> {
    action: &'a str,
    time: String,
}

async fn instance_action(State(server): State<Server>) -> Response {
    let said = server.reader.now();
    let Some(notice) = said.notice.filter(|notice| notice.kind == Kind::SpotInterruption) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (Some(action), Some(deadline)) = (&notice.action, notice.deadline) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let time = seconds(deadline);
    axum::Json(InstanceAction { action, time }).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rebalance {
    notice_time: String,
}

async fn rebalance(State(server): State<Server>) -> Response {
    match server.reader.now().notice.and_then(|notice| notice.rebalance) {
        Some(time) => axum::Json(Rebalance { notice_time: seconds(time) }).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// As IMDS writes a time: whole seconds, UTC.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// Gives a token by IMDS's rules. It opens nothing: what is behind it is for every workload of the node.
async fn token(headers: HeaderMap) -> Response {
    if headers.contains_key("x-forwarded-for") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let ttl = headers
        .get(TTL_HEADER)
        .and_then(|value| value.to_str().ok()?.trim().parse::<u32>().ok())
        .filter(|ttl| (1..=21_600).contains(ttl));
    match ttl {
        Some(ttl) => ([(TTL_HEADER, ttl.to_string())], "spotkeeper-notice").into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_with_and_without_a_unit() {
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("30"), Some(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "s", "ms", "-1s", "1h", "1.5s", "99999999999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn any_text_is_a_wait_or_none() {
        bolero::check!().with_type::<String>().for_each(|text: &String| {
            duration(text);
        });
    }
}
