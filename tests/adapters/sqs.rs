//! The SQS adapter against a server that speaks AWS's JSON protocol, as far as the three calls need it.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Response;
use serde_json::{Value, json};
use spotkeeper::adapters::sqs::{Options, Queue, Receipt, SqsError};
use tokio::net::TcpListener;

#[derive(Clone)]
enum Says {
    Json(Value),
    /// Status, code and message.
    Error(u16, &'static str),
    Text(u16, &'static str),
    Nothing,
}

/// The service: answers in this order, the last one for ever.
#[derive(Clone)]
struct Service {
    answers: Arc<Mutex<Vec<Says>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Service {
    fn saying(answers: &[Says]) -> Self {
        let mut answers = answers.to_vec();
        answers.reverse();
        Self { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }

    async fn queue(&self) -> Queue {
        self.queue_with(Duration::from_secs(5)).await
    }

    async fn queue_with(&self, attempt_timeout: Duration) -> Queue {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        queue_at(&endpoint, attempt_timeout)
    }
}

fn queue_at(endpoint: &str, attempt_timeout: Duration) -> Queue {
    let keys = Credentials::new("key", "secret", None, None, "test");
    let aws = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .endpoint_url(endpoint)
        .build();
    let options =
        Options { wait: Duration::ZERO, attempt_timeout, ..Options::new(format!("{endpoint}/123456789012/q")) };
    Queue::with(&aws, options).unwrap()
}

async fn answer(State(service): State<Service>, request: Request) -> Response<Body> {
    let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    service.asked.lock().unwrap().push((target, body));
    let says = {
        let mut answers = service.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop() } else { answers.last().cloned() }
    };
    let response = Response::builder().header("content-type", "application/x-amz-json-1.0");
    match says.unwrap() {
        Says::Json(json) => response.body(json.to_string().into()),
        Says::Error(status, code) => {
            let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "told so"});
            response.status(status).body(body.to_string().into())
        }
        Says::Text(status, text) => response.status(status).body(text.into()),
        Says::Nothing => std::future::pending().await,
    }
    .unwrap()
}

fn receipts(count: usize) -> Vec<Receipt> {
    (0..count).map(|n| Receipt(format!("r{n}"))).collect()
}

fn deleted(ids: &[&str]) -> Value {
    ids.iter().map(|id| json!({"Id": id})).collect()
}

fn failed(id: &str, code: &str, sender_fault: bool) -> Value {
    json!({"Id": id, "Code": code, "Message": "no", "SenderFault": sender_fault})
}

#[tokio::test]
async fn messages_come_with_what_decides_their_fate() {
    let sent = jiff::Timestamp::now().as_millisecond() - 90_000;
    let service = Service::saying(&[Says::Json(json!({"Messages": [
        {"MessageId": "m1", "ReceiptHandle": "r1", "Body": "{}", "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
         "Attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": sent.to_string()}},
        {"MessageId": "m2", "Body": "cannot be deleted"},
        {"MessageId": "m3", "ReceiptHandle": "r3"},
    ]}))]);
    let received = service.queue().await.receive().await.unwrap();
    assert_eq!(received.len(), 2);
    assert_eq!((received[0].id.as_str(), received[0].body.as_str()), ("m1", "{}"));
    assert_eq!(received[0].receives, 3);
    assert!((90..100).contains(&received[0].age.as_secs()));
    assert_eq!((received[1].receives, received[1].age), (1, Duration::ZERO));
    let (target, asked) = &service.asked()[0];
    assert_eq!(target, "AmazonSQS.ReceiveMessage");
    assert_eq!(asked["MaxNumberOfMessages"], 10);
    assert_eq!(asked["VisibilityTimeout"], 30);
    assert_eq!(asked["MessageSystemAttributeNames"], json!(["ApproximateReceiveCount", "SentTimestamp"]));
}

#[tokio::test]
async fn an_empty_queue_is_no_error() {
    let service = Service::saying(&[Says::Json(json!({}))]);
    assert_eq!(service.queue().await.receive().await.unwrap(), []);
}

#[tokio::test]
async fn what_failed_by_no_fault_of_the_request_is_deleted_in_a_second_try() {
    let service = Service::saying(&[
        Says::Json(json!({
            "Successful": deleted(&["0", "2"]),
            "Failed": [failed("1", "ReceiptHandleIsInvalid", true), failed("3", "InternalError", false)],
        })),
        Says::Json(json!({"Successful": deleted(&["0"]), "Failed": []})),
    ]);
    let left = service.queue().await.delete_all(&receipts(4)).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].receipt.0.as_str(), left[0].code.as_str()), ("r1", "ReceiptHandleIsInvalid"));
    let asked = service.asked();
    assert_eq!(asked[1].1["Entries"], json!([{"Id": "0", "ReceiptHandle": "r3"}]));
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn one_that_is_still_there_is_an_error() {
    let stale = failed("0", "ReceiptHandleIsInvalid", true);
    let service = Service::saying(&[
        Says::Json(json!({"Successful": deleted(&["0"]), "Failed": []})),
        Says::Json(json!({"Successful": [], "Failed": [stale]})),
    ]);
    let queue = service.queue().await;
    queue.delete(Receipt("r0".into())).await.unwrap();
    let error = queue.delete(Receipt("r0".into())).await.unwrap_err();
    assert!(error.to_string().contains("was refused (ReceiptHandleIsInvalid)"), "{error}");
}

#[tokio::test]
async fn what_the_answer_does_not_mention_counts_as_still_there() {
    let service = Service::saying(&[Says::Json(
        json!({"Successful": deleted(&["0", "77"]), "Failed": [failed("99", "X", false)]}),
    )]);
    let left = service.queue().await.delete_all(&receipts(3)).await.unwrap();
    // The second try's one success is the first of the two that were left.
    assert_eq!(left.iter().map(|l| l.receipt.0.as_str()).collect::<Vec<_>>(), ["r2"]);
}

#[tokio::test]
async fn batches_have_ten_entries() {
    let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let service = Service::saying(&[Says::Json(json!({"Successful": deleted(&all), "Failed": []}))]);
    assert_eq!(service.queue().await.delete_all(&receipts(25)).await.unwrap(), []);
    let sizes: Vec<_> = service.asked().iter().map(|(_, asked)| asked["Entries"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [10, 10, 5]);
}

#[tokio::test]
async fn a_message_is_released_for_others() {
    let service = Service::saying(&[Says::Json(json!({}))]);
    let receipt = Receipt("r1".into());
    service.queue().await.release(receipt, Duration::from_secs(20)).await.unwrap();
    let (target, asked) = &service.asked()[0];
    assert_eq!(target, "AmazonSQS.ChangeMessageVisibility");
    assert_eq!((&asked["ReceiptHandle"], &asked["VisibilityTimeout"]), (&json!("r1"), &json!(20)));
}

#[tokio::test]
async fn failures_are_told_apart_and_receiving_is_tried_once() {
    for (says, result) in [
        (Says::Error(400, "AccessDenied"), "denied"),
        (Says::Error(403, "AccessDeniedException"), "denied"),
        (Says::Error(403, "InvalidClientTokenId"), "denied"),
        (Says::Error(400, "KmsAccessDenied"), "denied"),
        (Says::Error(400, "QueueDoesNotExist"), "missing_queue"),
        (Says::Error(400, "RequestThrottled"), "throttled"),
        (Says::Error(400, "OverLimit"), "throttled"),
        (Says::Error(400, "SomethingNew"), "refused"),
        (Says::Error(500, "InternalError"), "away"),
        (Says::Text(403, "<html>"), "refused"),
        (Says::Text(503, "<html>"), "away"),
        (Says::Text(200, "garbage"), "away"),
        (Says::Text(200, "{\"Messages\": 5}"), "away"),
    ] {
        let service = Service::saying(&[says]);
        let error = service.queue().await.receive().await.unwrap_err();
        assert_eq!(error.result(), result, "{error}: {:?}", error.source());
        assert_eq!(service.asked().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn a_denied_call_says_which_permission_is_missing() {
    let service = Service::saying(&[Says::Error(403, "AccessDenied")]);
    let queue = service.queue().await;
    let error = queue.delete_all(&receipts(1)).await.unwrap_err();
    assert!(matches!(error, SqsError::Denied { .. }) && error.needs_a_person());
    let text = error.to_string();
    assert!(text.contains("sqs:DeleteMessage on http://") && text.contains("IAM policy"), "{text}");
    assert_eq!(service.asked().len(), 1, "a refusal is not tried again");
}

#[tokio::test]
async fn deleting_is_tried_again_where_the_service_failed() {
    let service = Service::saying(&[
        Says::Error(500, "InternalError"),
        Says::Json(json!({"Successful": deleted(&["0"]), "Failed": []})),
    ]);
    assert_eq!(service.queue().await.delete_all(&receipts(1)).await.unwrap(), []);
    assert_eq!(service.asked().len(), 2);
}

#[tokio::test]
async fn a_service_that_never_answers_is_given_up() {
    let service = Service::saying(&[Says::Nothing]);
    let queue = service.queue_with(Duration::from_millis(300)).await;
    let began = Instant::now();
    let error = queue.receive().await.unwrap_err();
    assert!(matches!(error, SqsError::Away { .. }), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!(service.asked().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = queue_at(&endpoint, Duration::from_secs(5)).receive().await.unwrap_err();
    assert!(matches!(error, SqsError::Away { .. }) && !error.needs_a_person());
}

#[tokio::test]
async fn a_queue_is_opened_only_with_a_url_and_a_region() {
    let opened = Queue::open(Options::new("my-queue")).await;
    assert!(matches!(opened, Err(SqsError::NotAQueueUrl(_))));
    let aws = SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12()).build();
    let opened = Queue::with(&aws, Options::new("http://127.0.0.1:1/1/q"));
    assert!(matches!(opened, Err(SqsError::NoRegion(_))));
}
