//! The IMDS adapter against a server with IMDS's rules, which can be told to break each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant as StdInstant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use axum::serve::ListenerExt;
use spotkeeper::adapters::imds::{Imds, ImdsError, Options, Questions};
use spotkeeper::adapters::metrics::Exposition;
use spotkeeper::adapters::metrics::agent::Metrics;
use spotkeeper::adapters::wall_clock::WallClock;
use spotkeeper::domain::notice::Action;
use spotkeeper::domain::time::Instant;
use tokio::net::TcpListener;

const SPOT: &str = "/latest/meta-data/spot/instance-action";
const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const SCHEDULED: &str = "/latest/meta-data/events/maintenance/scheduled";
const LIFECYCLE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
const IDENTITY: &str = "/latest/dynamic/instance-identity/document";
const TOKEN: &str = "/latest/api/token";
const ACTION: &str = r#"{"action":"stop","time":"2026-04-24T17:11:44Z"}"#;

#[derive(Clone)]
enum Says {
    Body(String),
    Status(u16),
    Redirect(String),
    Dated(String, String),
    Endless,
    Nothing,
}

#[derive(Default)]
struct Inside {
    says: HashMap<&'static str, Says>,
    /// Taken before what it says, in this order.
    first: Vec<(&'static str, Says)>,
    tokens: usize,
    ttl: Option<u64>,
    seen: Vec<String>,
    connections: usize,
}

/// The service. It gives tokens `t1`, `t2`, …, of which only the last is good.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<Inside>>);

impl Service {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    fn says(&self, path: &'static str, says: Says) {
        self.inside().says.insert(path, says);
    }

    fn first(&self, path: &'static str, says: Says) {
        self.inside().first.push((path, says));
    }

    fn body(&self, path: &'static str, body: &str) {
        self.says(path, Says::Body(body.to_owned()));
    }

    fn count(&self, request: &str) -> usize {
        let inside = self.inside();
        inside.seen.iter().filter(|seen| *seen == request).count()
    }

    async fn begin(&self) -> Options {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let counted = self.clone();
        let listener = listener.tap_io(move |_| counted.inside().connections += 1);
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Options { endpoint, ..Options::default() }
    }

    fn choose(&self, request: &Request) -> Says {
        let mut inside = self.inside();
        let path = request.uri().path();
        inside.seen.push(format!("{} {path}", request.method()));
        if let Some(at) = inside.first.iter().position(|(of, _)| *of == path) {
            return inside.first.remove(at).1;
        }
        if let Some(says) = inside.says.get(path).cloned() {
            let good = format!("t{}", inside.tokens);
            let given = request.headers().get("x-aws-ec2-metadata-token");
            let without = inside.says.contains_key("no token needed");
            if path == TOKEN || without || given.is_some_and(|given| *given == *good) {
                return says;
            }
            return Says::Status(401);
        }
        if path == TOKEN && *request.method() == Method::PUT {
            assert!(request.headers().contains_key("x-aws-ec2-metadata-token-ttl-seconds"));
            inside.tokens += 1;
            return Says::Body(format!("t{}", inside.tokens));
        }
        Says::Status(404)
    }
}

async fn answer(State(service): State<Service>, request: Request) -> Response<Body> {
    let says = service.choose(&request);
    let response = Response::builder();
    let response = match service.inside().ttl {
        Some(ttl) => response.header("x-aws-ec2-metadata-token-ttl-seconds", ttl),
        None => response,
    };
    match says {
        Says::Body(body) => response.body(body.into()),
        Says::Status(status) => response.status(status).body(Body::empty()),
        Says::Redirect(to) => response.status(302).header("location", to).body(Body::empty()),
        Says::Dated(date, body) => response.header("date", date).body(body.into()),
        Says::Endless => response.body(Body::from(vec![b' '; 1 << 20])),
        Says::Nothing => std::future::pending().await,
    }
    .unwrap()
}

async fn imds(service: &Service) -> Imds {
    Imds::new(service.begin().await, WallClock::default(), Metrics::new()).unwrap()
}

const NOW: Instant = Instant::from_millis(1_000_000);

async fn read(imds: &mut Imds) -> Result<spotkeeper::adapters::imds::Round, ImdsError> {
    imds.read(NOW, Questions::ALL).await
}

#[tokio::test]
async fn a_quiet_instance_is_asked_over_one_connection_with_one_token() {
    let service = Service::default();
    let mut imds = imds(&service).await;
    for _ in 0..5 {
        let round = read(&mut imds).await.unwrap();
        assert_eq!(round.reading.spot, None);
        assert_eq!(round.reading.rebalance, None);
        assert_eq!(round.reading.scheduled, Some(Vec::new()));
        assert_eq!(round.reading.lifecycle, None);
    }
    let round = imds.read(NOW, Questions::default()).await.unwrap();
    assert_eq!(round.reading.scheduled, None);
    assert_eq!(service.count(&format!("PUT {TOKEN}")), 1);
    assert_eq!(service.count(&format!("GET {SPOT}")), 6);
    assert_eq!(service.count(&format!("GET {SCHEDULED}")), 5);
    assert_eq!(service.inside().connections, 1);
}

#[tokio::test]
async fn everything_that_is_announced_is_read() {
    let service = Service::default();
    service.body(SPOT, ACTION);
    service.body(REBALANCE, r#"{"noticeTime":"2026-04-24T17:00:00Z"}"#);
    service.body(
        SCHEDULED,
        r#"[{"NotBefore":"21 Jan 2126 09:00:43 GMT","Code":"system-reboot","EventId":"e-1","State":"active"},
            {"NotBefore":"","Code":"system-reboot","EventId":"e-2","State":"canceled"},
            {"Code":"broken"}]"#,
    );
    service.body(LIFECYCLE, "InService");
    let mut imds = imds(&service).await;
    let first = read(&mut imds).await.unwrap().reading;
    assert!(first.spot.is_some() && first.rebalance.is_none(), "an interruption that is news is handed on at once");
    let round = read(&mut imds).await.unwrap();
    let spot = round.reading.spot.unwrap();
    assert_eq!(spot.action, Action::Stop);
    assert_eq!(spot.deadline.announced.to_string(), "2026-04-24T17:11:44Z");
    assert_eq!(round.reading.rebalance.unwrap().to_string(), "2026-04-24T17:00:00Z");
    let events = round.reading.scheduled.unwrap();
    assert_eq!((events[0].over, events[1].over, events.len()), (false, true, 2));
    assert_eq!(round.reading.lifecycle.as_deref(), Some("InService"));
    assert!(matches!(round.problems[..], [ImdsError::Unreadable { .. }]));
}

#[tokio::test]
async fn a_token_that_was_lost_is_replaced_at_once() {
    let service = Service::default();
    service.body(SPOT, ACTION);
    let mut imds = imds(&service).await;
    read(&mut imds).await.unwrap();
    // A restart of the service forgets the token.
    service.inside().tokens += 10;
    assert!(read(&mut imds).await.unwrap().reading.spot.is_some());
    assert_eq!(service.count(&format!("PUT {TOKEN}")), 2);
}

#[tokio::test]
async fn a_storm_of_401_is_two_requests_a_round_and_then_an_error() {
    let service = Service::default();
    service.says(SPOT, Says::Status(401));
    let mut imds = imds(&service).await;
    for round in 1..=3 {
        let error = read(&mut imds).await.unwrap_err();
        assert!(matches!(error, ImdsError::Unauthorized { .. }), "{error}");
        assert_eq!(service.count(&format!("GET {SPOT}")), 2 * round);
    }
    service.body(SPOT, ACTION);
    assert!(read(&mut imds).await.unwrap().reading.spot.is_some());
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let service = Service::default();
    service.inside().ttl = Some(1);
    let mut imds = imds(&service).await;
    let began = StdInstant::now();
    while service.count(&format!("PUT {TOKEN}")) < 2 {
        read(&mut imds).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "never renewed");
    }
    assert!(began.elapsed() >= Duration::from_millis(800));
}

#[tokio::test]
async fn a_service_that_hangs_costs_one_time_out_a_round_and_is_read_again_afterwards() {
    let service = Service::default();
    let options = Options { timeout: Duration::from_millis(300), ..service.begin().await };
    let mut imds = Imds::new(options, WallClock::default(), Metrics::new()).unwrap();
    service.says(SPOT, Says::Nothing);
    for _ in 0..3 {
        let error = read(&mut imds).await.unwrap_err();
        assert!(matches!(error, ImdsError::TimedOut { .. }), "{error}");
    }
    assert_eq!(service.count(&format!("GET {REBALANCE}")), 0);
    service.body(SPOT, ACTION);
    assert!(read(&mut imds).await.unwrap().reading.spot.is_some());
}

#[tokio::test]
async fn why_no_token_is_to_be_had_is_said_with_what_to_change() {
    let service = Service::default();
    let options = Options { timeout: Duration::from_millis(300), ..service.begin().await };
    let mut imds = Imds::new(options, WallClock::default(), Metrics::new()).unwrap();
    for (says, expected) in [
        (Says::Status(403), "HttpEndpoint"),
        (Says::Nothing, "HttpPutResponseHopLimit"),
        (Says::Status(400), "400 Bad Request"),
        (Says::Body("t\u{1}".into()), "cannot be sent in a header"),
        (Says::Endless, "more than 65536 bytes"),
    ] {
        service.says(TOKEN, says);
        let error = read(&mut imds).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn imds_v1_is_used_only_where_it_is_allowed() {
    for (v1_fallback, found) in [(false, false), (true, true)] {
        let service = Service::default();
        service.says(TOKEN, Says::Status(405));
        service.says("no token needed", Says::Nothing);
        service.body(SPOT, ACTION);
        let options = Options { v1_fallback, ..service.begin().await };
        let mut imds = Imds::new(options, WallClock::default(), Metrics::new()).unwrap();
        assert_eq!(read(&mut imds).await.is_ok(), found);
        assert_eq!(read(&mut imds).await.is_ok(), found);
        let asked = service.count(&format!("PUT {TOKEN}"));
        assert_eq!(asked, if found { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_interruption_is_not_lost_because_something_else_is_garbage() {
    let bad =
        [Says::Body("<html>".into()), Says::Status(503), Says::Endless, Says::Redirect("http://127.0.0.1:1/".into())];
    for path in [REBALANCE, SCHEDULED, LIFECYCLE] {
        for says in &bad {
            let service = Service::default();
            service.says(path, says.clone());
            let mut imds = imds(&service).await;
            assert!(read(&mut imds).await.is_err(), "a quiet round with a failure is a failed one");
            service.body(SPOT, ACTION);
            assert!(read(&mut imds).await.unwrap().reading.spot.is_some());
            let round = read(&mut imds).await.unwrap();
            assert!(round.reading.spot.is_some());
            assert_eq!(round.problems.len(), 1, "{:?}", round.problems);
        }
    }
}

#[tokio::test]
async fn a_spot_answer_that_cannot_be_read_is_a_failed_round() {
    let service = Service::default();
    let metrics = Metrics::new();
    let mut imds = Imds::new(service.begin().await, WallClock::default(), metrics.clone()).unwrap();
    service.body(SPOT, "{}");
    let error = read(&mut imds).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "spot/instance-action has no `action`");
    let line = r#"imds_requests_total{path="meta-data/spot/instance-action",result="unreadable"} 1"#;
    assert!(metrics.exposition().contains(line), "{}", metrics.exposition());
}

#[tokio::test]
async fn nobody_there_is_said_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options { endpoint: format!("http://{}", listener.local_addr().unwrap()), ..Options::default() };
    drop(listener);
    let mut imds = Imds::new(options, WallClock::default(), Metrics::new()).unwrap();
    let error = read(&mut imds).await.unwrap_err();
    assert!(matches!(error, ImdsError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn the_time_that_is_left_is_measured_on_the_services_clock_where_ours_is_off() {
    let service = Service::default();
    // Years off, either way, are 110 s before the deadline.
    for year in ["2011", "2126"] {
        let date = if year == "2011" { "Sun, 24 Apr 2011" } else { "Wed, 24 Apr 2126" };
        let body = format!(r#"{{"action":"terminate","time":"{year}-04-24T17:11:44Z"}}"#);
        let date = format!("{date} 17:09:54 GMT");
        service.says(SPOT, Says::Dated(date.clone(), body));
        let recommended = format!(r#"{{"noticeTime":"{year}-04-24T17:11:44Z"}}"#);
        service.says(REBALANCE, Says::Dated(date, recommended));
        let began = StdInstant::now();
        let wall_clock = WallClock::default();
        let mut imds = Imds::new(service.begin().await, wall_clock.clone(), Metrics::new()).unwrap();
        let round = imds.read(NOW, Questions::default()).await.unwrap();
        let at = round.reading.spot.unwrap().deadline.at;
        let expected = NOW + Duration::from_secs(110);
        assert!(at >= expected && at <= expected + began.elapsed(), "{at:?}");
        let wall = wall_clock.reads().to_string();
        assert!(wall.starts_with(&format!("{year}-04-24T17:")), "{wall}");
    }
}

#[tokio::test]
async fn the_identity_is_asked_for_until_it_comes() {
    let service = Service::default();
    service.first(TOKEN, Says::Status(503));
    service.body(IDENTITY, r#"{"instanceId":"i-0123456789abcdef0","region":"eu-west-1"}"#);
    let mut failures = Vec::new();
    let mut imds = imds(&service).await;
    let identity = imds.identity_at_last(|error| failures.push(error.result())).await;
    assert_eq!(identity.instance.as_str(), "i-0123456789abcdef0");
    assert_eq!(failures, ["status"]);
}
