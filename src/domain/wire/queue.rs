//! The bodies of the queue's messages.
//!
//! Three shapes are read, the last two also where SNS has wrapped them into its `Message`: an EventBridge envelope,
//! and what Auto Scaling sends to a queue directly. The queue sees a whole account and region, so much of what comes
//! is recognised and [not for us](NotForUs).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::{EVENT_ID_CHARS_MAX, ParseError, WORD_CHARS_MAX, bounded, json, moment, timestamp, wrong};
use crate::domain::notice::{Action, InstanceId, InstanceState, Notice, Source, Subject};

/// The most bytes of a body that are read: what SQS takes at most.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// From the `time` of a spot interruption warning to the moment at which EC2 takes the instance.
pub const SPOT_WARNING: Duration = Duration::from_secs(120);

pub use health::INSTANCES_MAX;

mod health;

const ENVELOPE: &str = "an EventBridge event";
const HOOK: &str = "an Auto Scaling lifecycle notification";

/// What a body that could be read says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Message(Message),
    NotForUs(NotForUs),
}

/// What is announced, about one instance or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// At least one; no two name the same instance.
    pub notices: Vec<Notice>,
    /// One error for each instance of the message that could not be read.
    pub problems: Vec<ParseError>,
}

/// Why a message that was understood asks nothing of us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotForUs {
    /// An instance begins or goes on: `pending` or `running`.
    Alive(InstanceState),
    /// Auto Scaling tries a new lifecycle hook.
    TestNotification,
    /// A lifecycle hook for a launch.
    Launching,
    /// Another of Auto Scaling's notifications, which is no lifecycle hook.
    OtherNotification(String),
    /// AWS Health speaks of another service.
    HealthOfService(String),
    /// AWS Health announces no change: `issue`, `accountNotification`, `investigation`.
    HealthCategory(String),
    /// A change of EC2 that is not one of an instance's scheduled events.
    HealthCode(String),
    /// The scheduled change is over.
    HealthClosed,
    /// The scheduled change names no EC2 instance.
    HealthWithoutInstances,
    /// An event that nobody here has a use for.
    OtherEvent { source: String, detail_type: String },
}

impl NotForUs {
    /// One word for a metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Alive(_) => "Alive",
            Self::TestNotification => "TestNotification",
            Self::Launching => "Launching",
            Self::OtherNotification(_) => "OtherNotification",
            Self::HealthOfService(_) => "HealthOfService",
            Self::HealthCategory(_) => "HealthCategory",
            Self::HealthCode(_) => "HealthCode",
            Self::HealthClosed => "HealthClosed",
            Self::HealthWithoutInstances => "HealthWithoutInstances",
            Self::OtherEvent { .. } => "OtherEvent",
        }
    }
}

impl fmt::Display for NotForUs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive(state) => write!(f, "an instance is {state}"),
            Self::TestNotification => f.write_str("Auto Scaling tries a lifecycle hook"),
            Self::Launching => f.write_str("a lifecycle hook for a launch"),
            Self::OtherNotification(event) => write!(f, "Auto Scaling's notification {event}"),
            Self::HealthOfService(service) => write!(f, "AWS Health on the service {service}"),
            Self::HealthCategory(category) => write!(f, "AWS Health with the category {category}"),
            Self::HealthCode(code) => write!(f, "AWS Health with the code {code}"),
            Self::HealthClosed => f.write_str("AWS Health on a change that is over"),
            Self::HealthWithoutInstances => f.write_str("AWS Health without an EC2 instance"),
            Self::OtherEvent { source, detail_type } => write!(f, "the event `{detail_type}` of `{source}`"),
        }
    }
}

/// What tells the shapes apart.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    source: Option<String>,
    #[serde(rename = "Type")]
    sns_type: Option<String>,
    #[serde(rename = "Message")]
    sns_message: Option<String>,
    #[serde(rename = "LifecycleTransition")]
    transition: Option<String>,
    #[serde(rename = "Event")]
    event: Option<String>,
}

/// Reads the body of a message.
pub fn parse(body: &[u8]) -> Result<Parsed, ParseError> {
    let shape: Shape = json("the message", body, BODY_BYTES_MAX)?;
    match (shape.sns_type.as_deref(), &shape.sns_message) {
        (Some("Notification"), Some(inner)) => {
            let shape = json("the Message of an SNS notification", inner.as_bytes(), BODY_BYTES_MAX)?;
            unwrapped(shape, inner.as_bytes())
        }
        _ => unwrapped(shape, body),
    }
}

fn unwrapped(shape: Shape, body: &[u8]) -> Result<Parsed, ParseError> {
    match shape {
        Shape { detail_type: Some(detail_type), source, .. } => event(source.unwrap_or_default(), detail_type, body),
        Shape { event, transition, .. } if event.is_some() || transition.is_some() => {
            notification(event, transition, body)
        }
        _ => Err(ParseError::Shape {
            what: "the message",
            why: "it is neither an EventBridge event (`detail-type`) nor a notification of Auto Scaling \
                  (`LifecycleTransition` or `Event`), directly or in an SNS notification"
                .to_owned(),
        }),
    }
}

/// An EventBridge envelope; the account may be missing.
#[derive(Deserialize)]
struct Envelope<D> {
    id: Option<String>,
    time: Option<String>,
    detail: Option<D>,
}

fn envelope<D: serde::de::DeserializeOwned>(body: &[u8]) -> Result<(Option<String>, Option<String>, D), ParseError> {
    let read: Envelope<D> = json(ENVELOPE, body, BODY_BYTES_MAX)?;
    let detail = read.detail.ok_or(ParseError::Missing { what: ENVELOPE, field: "detail" })?;
    Ok((read.id, read.time, detail))
}

fn event(source: String, detail_type: String, body: &[u8]) -> Result<Parsed, ParseError> {
    match (source.as_str(), detail_type.as_str()) {
        ("aws.ec2", "EC2 Spot Instance Interruption Warning") => spot_warning(body),
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => of_one(body, Subject::RebalanceRecommendation),
        // AWS's own pages have it under either name.
        (
            "aws.ec2",
            "EC2 Capacity Reservation Instance Interruption Warning"
            | "EC2 Interruptible Capacity Reservation Instance Interruption Warning",
        ) => reservation_warning(body),
        ("aws.ec2", "EC2 Instance State-change Notification") => state_change(body),
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => {
            let (id, _, hook) = envelope::<Hook>(body)?;
            termination(hook, id)
        }
        ("aws.autoscaling", "EC2 Instance-launch Lifecycle Action") => Ok(Parsed::NotForUs(NotForUs::Launching)),
        ("aws.health", "AWS Health Event") => health::parse(body),
        _ => Ok(Parsed::NotForUs(NotForUs::OtherEvent {
            source: super::excerpt(&source),
            detail_type: super::excerpt(&detail_type),
        })),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    instance_id: Option<String>,
    instance_action: Option<String>,
    state: Option<String>,
    instance_termination_time: Option<String>,
}

/// A deadline is not in the message: EC2 sends it two minutes ahead. That holds for a hibernation, too, only as the
/// latest time, since it begins at once; whoever plans the drain knows that from the action.
fn spot_warning(body: &[u8]) -> Result<Parsed, ParseError> {
    let (id, time, detail) = envelope::<Detail>(body)?;
    let word = bounded(ENVELOPE, "detail.instance-action", detail.instance_action, WORD_CHARS_MAX)?;
    // As in IMDS: an action that is not known yet is taken as the harshest.
    let action = Action::from_word(&word).unwrap_or(Action::Terminate);
    let sent = moment(ENVELOPE, "time", time)?;
    let mut notice = one(id, detail.instance_id, Subject::SpotInterruption(action))?;
    notice.deadline = sent.checked_add(SPOT_WARNING).ok();
    Ok(only(notice))
}

fn of_one(body: &[u8], subject: Subject) -> Result<Parsed, ParseError> {
    let (id, _, detail) = envelope::<Detail>(body)?;
    Ok(only(one(id, detail.instance_id, subject)?))
}

/// The time at which the instance will be ended is in the message, as a rule. Without it, or where it cannot be read,
/// there is no deadline: the notice itself must not be lost for that.
fn reservation_warning(body: &[u8]) -> Result<Parsed, ParseError> {
    let (id, _, detail) = envelope::<Detail>(body)?;
    let mut notice = one(id, detail.instance_id, Subject::CapacityReservationInterruption)?;
    notice.deadline = detail.instance_termination_time.as_deref().and_then(timestamp);
    Ok(only(notice))
}

fn state_change(body: &[u8]) -> Result<Parsed, ParseError> {
    let (id, _, detail) = envelope::<Detail>(body)?;
    let word = bounded(ENVELOPE, "detail.state", detail.state, WORD_CHARS_MAX)?;
    let state = InstanceState::from_word(&word)
        .ok_or_else(|| wrong(ENVELOPE, "detail.state", &word, "a state of an instance"))?;
    if matches!(state, InstanceState::Pending | InstanceState::Running) {
        return Ok(Parsed::NotForUs(NotForUs::Alive(state)));
    }
    Ok(only(one(id, detail.instance_id, Subject::StateChange(state))?))
}

fn one(id: Option<String>, instance: Option<String>, subject: Subject) -> Result<Notice, ParseError> {
    Ok(Notice {
        instance: instance_of(ENVELOPE, "detail.instance-id", instance)?,
        source: Source::Sqs,
        subject,
        event_id: bounded(ENVELOPE, "id", id, EVENT_ID_CHARS_MAX)?,
        deadline: None,
    })
}

fn only(notice: Notice) -> Parsed {
    Parsed::Message(Message { notices: vec![notice], problems: Vec::new() })
}

fn instance_of(what: &'static str, field: &'static str, value: Option<String>) -> Result<InstanceId, ParseError> {
    let id = super::required(what, field, value)?;
    id.parse().map_err(|_| wrong(what, field, &id, "an EC2 instance id"))
}

/// A lifecycle hook's particulars, the same in an event's `detail` and in a message that Auto Scaling sends itself.
#[derive(Deserialize)]
struct Hook {
    #[serde(rename = "LifecycleActionToken")]
    token: Option<String>,
    #[serde(rename = "EC2InstanceId")]
    instance: Option<String>,
    #[serde(rename = "RequestId")]
    request: Option<String>,
}

fn notification(event: Option<String>, transition: Option<String>, body: &[u8]) -> Result<Parsed, ParseError> {
    match (event.as_deref(), transition.as_deref()) {
        (Some("autoscaling:TEST_NOTIFICATION"), _) => Ok(Parsed::NotForUs(NotForUs::TestNotification)),
        (_, Some("autoscaling:EC2_INSTANCE_LAUNCHING")) => Ok(Parsed::NotForUs(NotForUs::Launching)),
        (_, Some("autoscaling:EC2_INSTANCE_TERMINATING")) => {
            let hook: Hook = json(HOOK, body, BODY_BYTES_MAX)?;
            let request = hook.request.clone();
            termination(hook, request)
        }
        (_, Some(other)) => Err(wrong(HOOK, "LifecycleTransition", other, "a transition that is known")),
        (Some(other), None) if other.starts_with("autoscaling:") => {
            Ok(Parsed::NotForUs(NotForUs::OtherNotification(super::excerpt(other))))
        }
        (other, None) => Err(wrong(HOOK, "Event", other.unwrap_or(""), "one of Auto Scaling's")),
    }
}

/// The token is the same on every way that the notification takes, so it serves as the event's id before `otherwise`.
fn termination(hook: Hook, otherwise: Option<String>) -> Result<Parsed, ParseError> {
    Ok(only(Notice {
        instance: instance_of(HOOK, "EC2InstanceId", hook.instance)?,
        source: Source::Sqs,
        subject: Subject::AutoScalingTermination,
        event_id: bounded(HOOK, "LifecycleActionToken", hook.token.or(otherwise), EVENT_ID_CHARS_MAX)?,
        deadline: None,
    }))
}

#[cfg(test)]
mod tests;
