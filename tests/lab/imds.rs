//! The lab's metadata service keeps IMDS's rules, and breaks them when it is told to.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::facts::eventually;
use crate::support::imds::{
    Fault, HISTORY, IDENTITY, Imds, LIFECYCLE, REBALANCE, SCHEDULED, SPOT, TOKEN, TOKEN_HEADER, TTL_HEADER,
};

const SOON: Duration = Duration::from_secs(10);

/// A client with one kept-alive connection, as an agent is.
struct Client {
    http: reqwest::Client,
    endpoint: String,
    token: String,
}

impl Client {
    async fn of(imds: &Imds) -> Client {
        let mut client = Client { http: reqwest::Client::new(), endpoint: imds.endpoint(), token: String::new() };
        let answer = client.put(&[(TTL_HEADER, "21600")]).await;
        assert_eq!(answer.headers()[TTL_HEADER], "21600");
        client.token = answer.text().await.unwrap();
        client
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Response, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.timeout(SOON).send().await
    }

    async fn put(&self, headers: &[(&str, &str)]) -> Response {
        self.send(Method::PUT, TOKEN, headers).await.unwrap()
    }

    async fn ask(&self, path: &str) -> Result<Response, reqwest::Error> {
        self.send(Method::GET, path, &[(TOKEN_HEADER, &self.token)]).await
    }

    async fn status(&self, path: &str) -> StatusCode {
        self.ask(path).await.unwrap().status()
    }

    async fn text(&self, path: &str) -> String {
        let answer = self.ask(path).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }
}

#[tokio::test]
async fn a_token_needs_a_ttl_of_one_second_to_six_hours_and_no_proxy() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    for ttl in ["0", "21601", "-1", "ten", ""] {
        assert_eq!(client.put(&[(TTL_HEADER, ttl)]).await.status(), StatusCode::BAD_REQUEST, "{ttl}");
    }
    assert_eq!(client.put(&[]).await.status(), StatusCode::BAD_REQUEST);
    let proxied = client.put(&[(TTL_HEADER, "60"), ("x-forwarded-for", "10.0.0.7")]).await;
    assert_eq!(proxied.status(), StatusCode::FORBIDDEN);
    assert_eq!(client.put(&[(TTL_HEADER, "1")]).await.status(), StatusCode::OK);
    assert_eq!(imds.requests(TOKEN), 9);
}

#[tokio::test]
async fn an_item_needs_a_token_that_is_known_and_not_expired() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    assert_eq!(client.status(IDENTITY).await, StatusCode::OK);
    assert_eq!(client.send(Method::GET, IDENTITY, &[]).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let unknown = client.send(Method::GET, IDENTITY, &[(TOKEN_HEADER, "AQ==")]).await.unwrap();
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
    imds.forget_tokens();
    assert_eq!(client.status(IDENTITY).await, StatusCode::UNAUTHORIZED);
    let short = client.put(&[(TTL_HEADER, "1")]).await.text().await.unwrap();
    let short = Client { token: short, ..client };
    assert_eq!(short.status(IDENTITY).await, StatusCode::OK);
    eventually("the token expires", SOON, async || match short.status(IDENTITY).await {
        StatusCode::UNAUTHORIZED => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
}

#[tokio::test]
async fn answers_say_how_long_the_token_is_good_for_and_what_time_it_is() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    let answer = client.ask(SPOT).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let left: u64 = answer.headers()[TTL_HEADER].to_str().unwrap().parse().unwrap();
    assert!((21_590..21_600).contains(&left), "{left}");
    assert!(answer.headers().contains_key("date"));
    let post = client.send(Method::POST, SPOT, &[(TOKEN_HEADER, &client.token)]).await.unwrap();
    assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.status(TOKEN).await, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn what_has_not_happened_is_not_found_and_maintenance_is_empty() {
    let imds = Imds::start_in("i-0abc", "eu-north-1b").await;
    let client = Client::of(&imds).await;
    for path in [SPOT, REBALANCE, LIFECYCLE, "/latest/meta-data/spot/", "/latest/meta-data/tags/instance/Name"] {
        assert_eq!(client.status(path).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(client.json(SCHEDULED).await, json!([]));
    assert_eq!(client.json(HISTORY).await, json!([]));
    assert_eq!(client.text("/latest/meta-data/instance-life-cycle").await, "spot");
    let identity = client.json(IDENTITY).await;
    assert_eq!(identity["instanceId"], "i-0abc");
    assert_eq!(identity["availabilityZone"], "eu-north-1b");
    assert_eq!(identity["region"], "eu-north-1");
}

#[tokio::test]
async fn what_happens_is_said_in_the_words_and_shapes_of_imds() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    let at = imds.spot("stop", Duration::from_secs(120));
    assert_eq!(client.json(SPOT).await, json!({ "action": "stop", "time": at.to_string() }));
    assert_eq!(client.text("/latest/meta-data/spot/").await, "instance-action");
    assert_eq!(client.text("/2021-07-15/meta-data/instance-id").await, "i-0");
    imds.rebalance();
    let noticed: Timestamp = client.json(REBALANCE).await["noticeTime"].as_str().unwrap().parse().unwrap();
    assert!(noticed <= Timestamp::now() && noticed.subsec_nanosecond() == 0, "{noticed}");
    imds.lifecycle("Terminated");
    assert_eq!(client.text(LIFECYCLE).await, "Terminated");
    imds.scheduled("e-1", "instance-stop", "active", Duration::from_secs(3600));
    imds.scheduled("e-1", "instance-stop", "active", Duration::from_secs(7200));
    let events = client.json(SCHEDULED).await;
    assert_eq!(events.as_array().unwrap().len(), 1, "{events}");
    let not_before = events[0]["NotBefore"].as_str().unwrap();
    jiff::fmt::strtime::parse("%d %b %Y %H:%M:%S GMT", not_before).unwrap();
    imds.scheduled_ends("e-1", "canceled");
    assert_eq!(client.json(SCHEDULED).await, json!([]));
    assert_eq!(client.json(HISTORY).await[0]["State"], "canceled");
    imds.clear_spot();
    assert_eq!(client.status(SPOT).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_sliding_time_moves_with_every_poll() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    imds.spot_sliding(Duration::from_secs(120));
    let first = client.json(SPOT).await["time"].clone();
    eventually("the time slides", SOON, async || {
        if client.json(SPOT).await["time"] == first { Err(first.to_string()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn the_first_notice_is_timed_between_the_question_and_its_answer() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    assert_eq!(client.status(SPOT).await, StatusCode::NOT_FOUND);
    assert_eq!(imds.first_notice(), None, "a 404 is no notice");
    imds.spot("terminate", Duration::from_secs(120));
    imds.fault(Fault::Garbage);
    client.text(SPOT).await;
    assert_eq!(imds.first_notice(), None, "nobody can read it");
    imds.fault(Fault::None);
    let asked = Instant::now();
    client.text(SPOT).await;
    let first = imds.first_notice().expect("it was said");
    assert!(asked <= first && first <= Instant::now());
    client.text(SPOT).await;
    assert_eq!(imds.first_notice(), Some(first), "only the first counts");
    imds.spot("terminate", Duration::from_secs(60));
    assert_eq!(imds.first_notice(), None, "marked again");
}

#[tokio::test]
async fn refusing_ends_kept_alive_connections_and_recovery_is_on_the_same_port() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    client.text(IDENTITY).await;
    assert_eq!(imds.connections(), 1, "the connection is kept alive");
    for round in 1..=3 {
        imds.refuse();
        let asked = imds.total();
        assert!(client.ask(IDENTITY).await.is_err());
        assert!(client.ask(IDENTITY).await.unwrap_err().is_connect(), "nobody listens");
        assert_eq!(imds.total(), asked);
        imds.recover().await;
        client.text(IDENTITY).await;
        assert_eq!(imds.connections(), 1 + round);
    }
}

#[tokio::test]
async fn connections_are_reset_until_it_recovers() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    client.text(IDENTITY).await;
    imds.fault(Fault::Reset);
    for _ in 0..3 {
        let error = client.ask(IDENTITY).await.unwrap_err();
        assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    }
    imds.fault(Fault::None);
    client.text(IDENTITY).await;
}

#[tokio::test]
async fn what_hangs_is_cut_when_the_fault_ends() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    imds.fault(Fault::Hang);
    let hanging = async {
        let asked = Instant::now();
        (client.ask(IDENTITY).await.unwrap_err(), asked.elapsed())
    };
    let ending = async {
        eventually("the question arrives", SOON, async || {
            if imds.requests(IDENTITY) == 1 { Ok(()) } else { Err("it was not asked".to_owned()) }
        })
        .await;
        imds.fault(Fault::None);
    };
    let ((error, took), ()) = tokio::join!(hanging, ending);
    assert!(!error.is_timeout() && took < SOON, "{error:?}");
    client.text(IDENTITY).await;
}

#[tokio::test]
async fn faults_of_answers_take_effect_on_open_connections_and_end() {
    let imds = Imds::start("i-0").await;
    let client = Client::of(&imds).await;
    imds.fault(Fault::Status(503));
    assert_eq!(client.status(IDENTITY).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.put(&[(TTL_HEADER, "60")]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    imds.fault(Fault::DenyTokens);
    assert_eq!(client.put(&[(TTL_HEADER, "60")]).await.status(), StatusCode::OK);
    assert_eq!(client.status(IDENTITY).await, StatusCode::UNAUTHORIZED);
    imds.fault(Fault::Garbage);
    for _ in 0..10 {
        let body = client.ask(IDENTITY).await.unwrap().bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&body).is_err(), "{body:?}");
    }
    assert_eq!(client.status(SPOT).await, StatusCode::NOT_FOUND, "what is not there is no garbage");
    imds.fault(Fault::GarbageTokens);
    let token = client.put(&[(TTL_HEADER, "60")]).await.bytes().await.unwrap();
    assert!(!token.starts_with(b"AQ"), "{token:?}");
    imds.fault(Fault::Delay(Duration::from_millis(200)));
    let asked = Instant::now();
    client.text(IDENTITY).await;
    assert!(asked.elapsed() >= Duration::from_millis(200));
    imds.fault(Fault::None);
    client.text(IDENTITY).await;
    assert_eq!(imds.connections(), 1);
}
