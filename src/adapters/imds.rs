//! The instance metadata service of the node's own instance.
//!
//! One connection that is kept open, IMDSv2, no proxy, no redirects, every request and every answer bounded. Nothing
//! is kept between rounds but the token, so an hour of failures leaves nothing behind.

use std::time::{Duration, Instant as StdInstant};

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{self, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};

use super::metrics::agent::Metrics;
use super::wall_clock::WallClock;
use crate::domain::time::{Deadline, Instant};
use crate::domain::wire::imds::{self as wire, BODY_BYTES_MAX, IdentityDocument};
use crate::domain::wire::{ParseError, timestamp};
use crate::interruption::{Reading, ScheduledEvent, SpotAction};
pub use error::ImdsError;

mod error;
mod token;

const INSTANCE_ACTION: &str = "meta-data/spot/instance-action";
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
const SCHEDULED: &str = "meta-data/events/maintenance/scheduled";
const LIFECYCLE: &str = "meta-data/autoscaling/target-lifecycle-state";
const IDENTITY: &str = "dynamic/instance-identity/document";

/// How far the local wall clock may be off the answer's `Date`, which has whole seconds, before `Date` is believed.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(3);

/// How to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://169.254.169.254` or `http://[fd00:ec2::254]`.
    pub endpoint: String,
    /// The life of a token, 1 s to 6 h.
    pub token_ttl: Duration,
    /// The most time that one request may take.
    pub timeout: Duration,
    /// Ask without a token where none is to be had (IMDSv1).
    pub v1_fallback: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoint: "http://169.254.169.254".to_owned(),
            token_ttl: Duration::from_secs(21_600),
            timeout: Duration::from_millis(500),
            v1_fallback: false,
        }
    }
}

/// What a round asks for, beside the spot interruption and the rebalance recommendation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    pub scheduled: bool,
    pub lifecycle: bool,
}

impl Questions {
    pub const ALL: Self = Self { scheduled: true, lifecycle: true };
}

/// What came of a round that counts as answered.
#[derive(Debug)]
pub struct Round {
    pub reading: Reading,
    /// What could not be read nevertheless.
    pub problems: Vec<ImdsError>,
}

/// An answer `200`.
struct Answer {
    body: Vec<u8>,
    /// What the wall clock reads by the best knowledge.
    reads: Timestamp,
    /// When the answer came, on our own clock.
    at: Instant,
}

/// The service.
#[derive(Debug)]
pub struct Imds {
    client: Client,
    base: Url,
    options: Options,
    access: token::Access,
    /// Corrected where an answer shows the local one to be off.
    wall_clock: WallClock,
    /// The last round had a spot interruption.
    spot_known: bool,
    metrics: Metrics,
}

impl Imds {
    /// `wall_clock` is corrected by the service's own clock.
    pub fn new(options: Options, wall_clock: WallClock, metrics: Metrics) -> Result<Self, ImdsError> {
        let endpoint = || options.endpoint.clone();
        let base = Url::parse(&options.endpoint)
            .and_then(|url| url.join("/latest/"))
            .map_err(|_| ImdsError::Endpoint(endpoint()))?;
        if base.scheme() != "http" || base.host().is_none() {
            return Err(ImdsError::Endpoint(endpoint()));
        }
        let client = Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1)
            .timeout(options.timeout)
            .build()
            .map_err(|error| ImdsError::Client(error.without_url()))?;
        let access = token::Access::default();
        Ok(Self { client, base, options, access, wall_clock, spot_known: false, metrics })
    }

    /// Who this instance is, asked once.
    pub async fn identity(&mut self) -> Result<IdentityDocument, ImdsError> {
        let clock = Clock { now: Instant::default(), began: StdInstant::now() };
        let answer = self.get(IDENTITY, clock).await?;
        let answer = answer.ok_or(ImdsError::Absent { path: IDENTITY })?;
        self.read_as(IDENTITY, wire::identity_document(&answer.body))
    }

    /// Who this instance is, asked until it is answered: in early boot the service may refuse for a while.
    ///
    /// Every failure is handed to `failed`. The pauses grow from 250 ms to 5 s.
    pub async fn identity_at_last(&mut self, mut failed: impl FnMut(&ImdsError)) -> IdentityDocument {
        let mut pause = Duration::from_millis(250);
        loop {
            match self.identity().await {
                Ok(identity) => return identity,
                Err(error) => failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Asks one round of questions, at `now` on our own clock; the spot interruption first.
    ///
    /// A round in which anything failed is a failed one, unless it brought an announcement: that one must not be lost
    /// because something else could not be read. An entry of the scheduled events that cannot be read is a problem
    /// beside the others.
    pub async fn read(&mut self, now: Instant, ask: Questions) -> Result<Round, ImdsError> {
        let clock = Clock { now, began: StdInstant::now() };
        let spot = self.spot(clock).await?;
        let mut round = Round { reading: Reading { spot, ..Reading::default() }, problems: Vec::new() };
        // A spot interruption that is news is handed on at once: whatever else there is comes with the next round.
        let news = spot.is_some() && !self.spot_known;
        self.spot_known = spot.is_some();
        if news {
            return Ok(round);
        }
        match self.read_rest(clock, ask, &mut round).await {
            Err(error) if !announces(&round.reading) => return Err(error),
            Err(error) => round.problems.push(error),
            Ok(()) => {}
        }
        Ok(round)
    }

    /// Stops at the first failure: where one request timed out, the next would only take as long again.
    async fn read_rest(&mut self, clock: Clock, ask: Questions, round: &mut Round) -> Result<(), ImdsError> {
        if let Some(answer) = self.get(REBALANCE, clock).await? {
            let read = wire::rebalance(&answer.body);
            round.reading.rebalance = Some(self.read_as(REBALANCE, read)?);
        }
        if ask.scheduled {
            let events = self.scheduled(clock, &mut round.problems).await?;
            round.reading.scheduled = Some(events);
        }
        if ask.lifecycle
            && let Some(answer) = self.get(LIFECYCLE, clock).await?
        {
            let read = wire::lifecycle_state(&answer.body);
            round.reading.lifecycle = Some(self.read_as(LIFECYCLE, read)?);
        }
        Ok(())
    }

    async fn spot(&mut self, clock: Clock) -> Result<Option<SpotAction>, ImdsError> {
        let Some(answer) = self.get(INSTANCE_ACTION, clock).await? else {
            return Ok(None);
        };
        let read = self.read_as(INSTANCE_ACTION, wire::instance_action(&answer.body))?;
        Ok(Some(SpotAction { action: read.action, deadline: answer.place(read.time) }))
    }

    /// No answer (404) is an empty list: some services say it that way.
    async fn scheduled(
        &mut self,
        clock: Clock,
        problems: &mut Vec<ImdsError>,
    ) -> Result<Vec<ScheduledEvent>, ImdsError> {
        let Some(answer) = self.get(SCHEDULED, clock).await? else {
            return Ok(Vec::new());
        };
        let read = self.read_as(SCHEDULED, wire::maintenance(&answer.body))?;
        problems.extend(read.problems.into_iter().map(|source| {
            let path = SCHEDULED;
            ImdsError::Unreadable { path, source }
        }));
        let placed = |event: wire::Scheduled| ScheduledEvent {
            event_id: event.event_id,
            code: event.code,
            // Only what is over may lack its time, and nothing is decided by the time of what is over.
            not_before: answer.place(event.not_before.unwrap_or(answer.reads)),
            over: event.over,
        };
        Ok(read.events.into_iter().map(placed).collect())
    }

    /// Counts an answer that was there, now that it is known whether it can be read.
    fn read_as<T>(&self, path: &'static str, read: Result<T, ParseError>) -> Result<T, ImdsError> {
        let read = read.map_err(|source| ImdsError::Unreadable { path, source });
        let result = read.as_ref().map_or_else(ImdsError::result, |_| "found");
        self.metrics.imds_asked(path, result);
        read
    }

    /// `None` is a 404: there is no such thing (now). A token that is refused is replaced once.
    async fn get(&mut self, path: &'static str, clock: Clock) -> Result<Option<Answer>, ImdsError> {
        let token = self.token().await?;
        let mut answered = self.get_once(path, token.clone(), clock).await;
        if matches!(answered, Err(ImdsError::Unauthorized { .. })) {
            self.access.forget(token.as_ref());
            let token = self.token().await?;
            answered = self.get_once(path, token, clock).await;
        }
        match &answered {
            // Counted when it has been read.
            Ok(Some(_)) => {}
            Ok(None) => self.metrics.imds_asked(path, "absent"),
            Err(error) => self.metrics.imds_asked(path, error.result()),
        }
        answered
    }

    async fn get_once(
        &mut self,
        path: &'static str,
        token: Option<HeaderValue>,
        clock: Clock,
    ) -> Result<Option<Answer>, ImdsError> {
        let url = self.url(path)?;
        let mut request = self.client.request(Method::GET, url);
        if let Some(token) = token {
            request = request.header(token::HEADER, token);
        }
        let failed = |error: reqwest::Error| ImdsError::of_transport(path, error);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let date = response.headers().get(header::DATE).cloned();
        // Read to its end in any case, or the connection could not be used again.
        let body = body_of(path, response).await?;
        let local = Timestamp::now();
        let reads = wall_clock(date.as_ref(), local);
        if date.is_some() {
            self.wall_clock.correct(reads, local);
        }
        match status {
            StatusCode::OK => Ok(Some(Answer { body, reads, at: clock.now + clock.began.elapsed() })),
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::UNAUTHORIZED => Err(ImdsError::Unauthorized { path }),
            status => Err(ImdsError::Status { path, status }),
        }
    }

    fn url(&self, path: &str) -> Result<Url, ImdsError> {
        self.base.join(path).map_err(|_| ImdsError::Endpoint(self.options.endpoint.clone()))
    }
}

/// Our own clock: what it read when a round began.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    began: StdInstant,
}

impl Answer {
    fn place(&self, announced: Timestamp) -> Deadline {
        Deadline::place(announced, self.reads, self.at)
    }
}

fn announces(reading: &Reading) -> bool {
    reading.spot.is_some()
        || reading.rebalance.is_some()
        || reading.scheduled.as_ref().is_some_and(|events| !events.is_empty())
}

/// At most [`BODY_BYTES_MAX`] are taken; whoever sends more loses the connection.
async fn body_of(path: &'static str, mut response: reqwest::Response) -> Result<Vec<u8>, ImdsError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| ImdsError::of_transport(path, error))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(ImdsError::TooLong { path });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What the wall clock reads by the best knowledge: the local one, unless the service's own clock contradicts it.
///
/// A deadline is written by AWS's clock; where the node's is an hour off, or was just stepped, the time that is left
/// must not be.
fn wall_clock(date: Option<&HeaderValue>, local: Timestamp) -> Timestamp {
    let said = date.and_then(|value| timestamp(value.to_str().ok()?));
    match said {
        Some(said) if local.duration_since(said).abs() > CLOCK_TOLERANCE => said,
        _ => local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_ec2s_endpoints_and_no_nonsense_are_taken() {
        let of = |endpoint: &str| {
            let endpoint = endpoint.to_owned();
            let options = Options { endpoint, ..Options::default() };
            let imds = Imds::new(options, WallClock::default(), Metrics::new())?;
            imds.url(SCHEDULED).map(String::from)
        };
        assert_eq!(
            of("http://169.254.169.254").unwrap(),
            "http://169.254.169.254/latest/meta-data/events/maintenance/scheduled"
        );
        assert_eq!(
            of("http://[fd00:ec2::254]/").unwrap(),
            "http://[fd00:ec2::254]/latest/meta-data/events/maintenance/scheduled"
        );
        for bad in ["", "169.254.169.254", "https://169.254.169.254", "http://", "file:///etc"] {
            assert!(matches!(of(bad), Err(ImdsError::Endpoint(_))), "{bad}");
        }
    }

    #[test]
    fn the_services_clock_counts_where_the_local_one_is_off() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let date = HeaderValue::from_static("Fri, 24 Apr 2026 17:09:44 GMT");
        let reads = |local| wall_clock(Some(&date), at(local)).to_string();
        assert_eq!(reads("2026-04-24T17:09:46.5Z"), "2026-04-24T17:09:46.5Z");
        assert_eq!(reads("2026-04-24T17:09:47Z"), "2026-04-24T17:09:47Z");
        assert_eq!(reads("2026-04-24T17:09:47.5Z"), "2026-04-24T17:09:44Z");
        assert_eq!(reads("2026-04-24T16:09:44Z"), "2026-04-24T17:09:44Z");
        let nonsense = HeaderValue::from_bytes(b"\xff").unwrap();
        let local = at("2026-04-24T17:09:44Z");
        assert_eq!(wall_clock(Some(&nonsense), local), local);
        assert_eq!(wall_clock(None, local), local);
    }
}
