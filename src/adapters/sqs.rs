//! The queue. This is the only file that names `aws_sdk_sqs`.
//!
//! - `error`: how it fails, by what can be done about it.
//! - `url`: what a queue's URL says.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Config, Region, StalledStreamProtectionConfig};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::operation::delete_message_batch::DeleteMessageBatchError;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use jiff::Timestamp;

use super::wall_clock::WallClock;
pub use error::SqsError;
pub use url::check_url;
use url::region_of;

mod error;
mod url;

/// The behaviour of the AWS crates that this program was tested with: an update of theirs changes nothing else.
fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// The permission for deleting, one by one or in a batch.
const DELETE: &str = "sqs:DeleteMessage";

/// To set up a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often an attempt to delete or to release is made. Receiving is tried once: who receives asks again anyway.
const ATTEMPTS_MAX: u32 = 3;

/// Which queue, and how to receive from it.
#[derive(Clone, Debug)]
pub struct Options {
    /// `https://sqs.<region>.amazonaws.com/<account>/<name>`.
    pub queue_url: String,
    /// The queue's region; `None` takes it from the URL, and where that names none, from the environment.
    pub region: Option<String>,
    /// How long a receive waits for a message, at most 20 s.
    pub wait: Duration,
    /// How long a received message is hidden from other readers: the time there is to write what it says.
    pub visibility_timeout: Duration,
    /// For one attempt of a call, beside the time that a long poll waits by itself.
    pub attempt_timeout: Duration,
    /// By which a message's age is measured.
    pub wall_clock: WallClock,
}

impl Options {
    pub fn new(queue_url: impl Into<String>) -> Self {
        Self {
            queue_url: queue_url.into(),
            region: None,
            wait: Duration::from_secs(20),
            visibility_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            wall_clock: WallClock::default(),
        }
    }
}

/// By which a message is deleted or released; a new one comes with every receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// A message that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The same at every receive, for logs.
    pub id: String,
    pub receipt: Receipt,
    pub body: String,
    /// `ApproximateReceiveCount`: 1 at the first receive.
    pub receives: u32,
    /// The time since `SentTimestamp`; zero where that lies ahead or cannot be read.
    pub age: Duration,
}

/// A message that was not deleted, and comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeleted {
    pub receipt: Receipt,
    /// SQS's code, such as `ReceiptHandleIsInvalid`; empty where it said nothing about this message.
    pub code: String,
    pub why: String,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct Queue {
    client: aws_sdk_sqs::Client,
    options: Options,
}

impl Queue {
    /// The most messages of one receive, and of one batch.
    pub const BATCH_MAX: u32 = 10;

    /// The queue at this URL, with everything else as it is usual.
    pub async fn connect(queue_url: &str, wall_clock: WallClock) -> Result<Self, SqsError> {
        Self::open(Options { wall_clock, ..Options::new(queue_url) }).await
    }

    /// With region, credentials and endpoint from where AWS's tools look for them (`AWS_ENDPOINT_URL` and
    /// `AWS_ENDPOINT_URL_SQS` included). No call is made to SQS.
    pub async fn open(options: Options) -> Result<Self, SqsError> {
        check_url(&options.queue_url)?;
        let mut loader = aws_config::defaults(behavior());
        let region = options.region.clone().or_else(|| region_of(&options.queue_url));
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        Self::with(&loader.load().await, options)
    }

    /// With a configuration that was made elsewhere.
    pub fn with(aws: &SdkConfig, options: Options) -> Result<Self, SqsError> {
        check_url(&options.queue_url)?;
        if aws.region().is_none() {
            return Err(SqsError::NoRegion(options.queue_url));
        }
        let config = aws_sdk_sqs::config::Builder::from(aws)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS_MAX)
                    .with_initial_backoff(Duration::from_millis(200))
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .timeout_config(timeouts(options.attempt_timeout))
            // It watches the flow of long bodies; these are short, and bounded by the time-outs.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        let client = aws_sdk_sqs::Client::from_conf(config);
        Ok(Self { client, options })
    }

    /// Waits for messages, at most [`Options::wait`]; none is an answer, too.
    pub async fn receive(&self) -> Result<Vec<Received>, SqsError> {
        self.receive_for(self.options.wait).await
    }

    /// Waits for messages, at most `wait` (whole seconds).
    ///
    /// Giving up while it waits may leave a message hidden until its visibility time-out ends; nothing is lost.
    pub async fn receive_for(&self, wait: Duration) -> Result<Vec<Received>, SqsError> {
        const ACTION: &str = "sqs:ReceiveMessage";
        let once = Config::builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(wait + self.options.attempt_timeout));
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.options.queue_url)
            .max_number_of_messages(Self::BATCH_MAX as i32)
            .wait_time_seconds(seconds(wait))
            .visibility_timeout(seconds(self.options.visibility_timeout))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .customize()
            .config_override(once)
            .send()
            .await
            .map_err(|error| self.failed(ACTION, error))?;
        let now = self.options.wall_clock.reads();
        let messages = answer.messages.unwrap_or_default();
        Ok(messages.into_iter().filter_map(|message| received(message, now)).collect())
    }

    /// Deletes one message. One that is still there comes again, and then changes nothing that was written.
    pub async fn delete(&self, receipt: Receipt) -> Result<(), SqsError> {
        match self.delete_all(&[receipt]).await?.pop() {
            None => Ok(()),
            Some(undeleted) => Err(SqsError::Refused {
                action: DELETE,
                queue: self.options.queue_url.clone(),
                code: undeleted.code,
                source: undeleted.why.into(),
            }),
        }
    }

    /// Deletes these, ten at a time, and says which are still there.
    ///
    /// What failed through no fault of the request is tried once more. A message that is still there comes again,
    /// and then changes nothing that was written.
    pub async fn delete_all(&self, receipts: &[Receipt]) -> Result<Vec<Undeleted>, SqsError> {
        let mut left = Vec::new();
        for batch in receipts.chunks(Self::BATCH_MAX as usize) {
            let (again, refused) = self.delete_batch(batch).await?;
            left.extend(refused);
            if !again.is_empty() {
                let batch: Vec<_> = again.into_iter().map(|undeleted| undeleted.receipt).collect();
                let (again, refused) = self.delete_batch(&batch).await?;
                left.extend(again.into_iter().chain(refused));
            }
        }
        Ok(left)
    }

    /// What is worth another try, and what is not.
    async fn delete_batch(&self, batch: &[Receipt]) -> Result<(Vec<Undeleted>, Vec<Undeleted>), SqsError> {
        let mut request = self.client.delete_message_batch().queue_url(&self.options.queue_url);
        for (index, receipt) in batch.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&receipt.0)
                .build()
                .map_err(|error| {
                    let error = SdkError::<DeleteMessageBatchError>::construction_failure(error);
                    self.failed(DELETE, error)
                })?;
            request = request.entries(entry);
        }
        let answer = request.send().await.map_err(|error| self.failed(DELETE, error))?;
        let mut open: BTreeMap<String, Receipt> =
            batch.iter().enumerate().map(|(index, receipt)| (index.to_string(), receipt.clone())).collect();
        for deleted in &answer.successful {
            open.remove(deleted.id());
        }
        let (mut again, mut refused) = (Vec::new(), Vec::new());
        for failed in &answer.failed {
            let Some(receipt) = open.remove(failed.id()) else {
                continue;
            };
            let undeleted = Undeleted {
                receipt,
                code: failed.code().to_owned(),
                why: failed.message().unwrap_or_default().to_owned(),
            };
            if failed.sender_fault() {
                refused.push(undeleted);
            } else {
                again.push(undeleted);
            }
        }
        again.extend(open.into_values().map(|receipt| Undeleted {
            receipt,
            code: String::new(),
            why: "the answer does not mention it".to_owned(),
        }));
        Ok((again, refused))
    }

    /// Makes a message visible to all readers again after this time (whole seconds, at most 12 h).
    pub async fn release(&self, receipt: Receipt, after: Duration) -> Result<(), SqsError> {
        self.client
            .change_message_visibility()
            .queue_url(&self.options.queue_url)
            .receipt_handle(receipt.0)
            .visibility_timeout(seconds(after))
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.failed("sqs:ChangeMessageVisibility", error))
    }

    fn failed<E>(&self, action: &'static str, error: SdkError<E>) -> SqsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let queue = self.options.queue_url.clone();
        let code = error.code().unwrap_or_default().to_owned();
        // Anything else, such as a success that cannot be read, says no more than that nobody is there.
        let refused = error.raw_response().is_some_and(|response| response.status().is_client_error());
        let source: Box<dyn Error + Send + Sync> = Box::new(error);
        match class_of(&code) {
            Some(Class::Denied) => SqsError::Denied { action, queue, code, source },
            Some(Class::Missing) => SqsError::MissingQueue { queue, source },
            Some(Class::Throttled) => SqsError::Throttled { action, queue, code, source },
            None if refused => SqsError::Refused { action, queue, code, source },
            None => SqsError::Away { action, queue, source },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Denied,
    Missing,
    Throttled,
}

/// By SQS's own codes, of its JSON protocol and of the older query protocol, which it still uses in some answers.
fn class_of(code: &str) -> Option<Class> {
    Some(match code {
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "KMS.AccessDeniedException"
        | "KmsAccessDenied"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Class::Denied,
        "AWS.SimpleQueueService.NonExistentQueue" | "QueueDoesNotExist" => Class::Missing,
        "KMS.ThrottlingException"
        | "KmsThrottled"
        | "OverLimit"
        | "RequestThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => Class::Throttled,
        _ => return None,
    })
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * ATTEMPTS_MAX)
        .build()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

/// `None` for what can be neither deleted nor released, having no receipt: nothing is left to do about it.
fn received(message: Message, now: Timestamp) -> Option<Received> {
    let number = |name| -> Option<i64> { message.attributes.as_ref()?.get(&name)?.parse().ok() };
    let receives = number(MessageSystemAttributeName::ApproximateReceiveCount)
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1);
    let sent =
        number(MessageSystemAttributeName::SentTimestamp).and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let age = sent.and_then(|sent| Duration::try_from(now.duration_since(sent)).ok()).unwrap_or_default();
    Some(Received {
        id: message.message_id.unwrap_or_default(),
        receipt: Receipt(message.receipt_handle?),
        body: message.body.unwrap_or_default(),
        receives,
        age,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_attributes_of_a_message_do_no_harm() {
        let now: Timestamp = "2026-04-24T17:09:44Z".parse().unwrap();
        let sent = |text: &str| {
            Message::builder()
                .receipt_handle("r")
                .attributes(MessageSystemAttributeName::SentTimestamp, text)
                .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "-7")
                .build()
        };
        for (text, age) in [("1777050580000", 4), ("9999999999999", 0), ("-9223372036854775808", 0), ("soon", 0)] {
            let read = received(sent(text), now).unwrap();
            assert_eq!(read.age, Duration::from_secs(age), "{text}");
            assert_eq!(read.receives, 1);
        }
        assert_eq!(received(Message::builder().body("x").build(), now), None);
    }
}
