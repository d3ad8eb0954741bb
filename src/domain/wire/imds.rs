//! The answers of the instance metadata service. All take the body of a `200`; a `404` is no answer to parse.

use jiff::Timestamp;
use serde::Deserialize;

use super::{EVENT_ID_CHARS_MAX, ParseError, WORD_CHARS_MAX, bounded, json, moment, wrong};
use crate::domain::notice::{Action, InstanceId, ScheduleCode};

/// The most bytes of an answer that are read.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// `spot/instance-action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceAction {
    pub action: Action,
    /// When EC2 begins.
    pub time: Timestamp,
}

/// Reads `spot/instance-action`: `{"action":"terminate","time":"2026-04-24T17:11:44Z"}`.
///
/// An action that EC2 may invent later is taken as `terminate`, the harshest: what is certain is that the instance is
/// to be taken.
pub fn instance_action(body: &[u8]) -> Result<InstanceAction, ParseError> {
    #[derive(Deserialize)]
    struct Wire {
        action: Option<String>,
        time: Option<String>,
    }
    const WHAT: &str = "spot/instance-action";
    let wire: Wire = json(WHAT, body, BODY_BYTES_MAX)?;
    let action = bounded(WHAT, "action", wire.action, WORD_CHARS_MAX)?;
    Ok(InstanceAction {
        action: Action::from_word(&action).unwrap_or(Action::Terminate),
        time: moment(WHAT, "time", wire.time)?,
    })
}

/// Reads `events/recommendations/rebalance`: `{"noticeTime":"2026-10-16T19:18:24Z"}`.
pub fn rebalance(body: &[u8]) -> Result<Timestamp, ParseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        notice_time: Option<String>,
    }
    const WHAT: &str = "events/recommendations/rebalance";
    let wire: Wire = json(WHAT, body, BODY_BYTES_MAX)?;
    moment(WHAT, "noticeTime", wire.notice_time)
}

/// `events/maintenance/scheduled`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// The entries that could be read.
    pub events: Vec<Scheduled>,
    /// One error for each entry that could not.
    pub problems: Vec<ParseError>,
}

/// One scheduled event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub event_id: String,
    pub code: ScheduleCode,
    /// Always there in an event that is not over.
    pub not_before: Option<Timestamp>,
    /// `completed` or `canceled`. A state that EC2 may invent later is not the end of an event.
    pub over: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireEvent {
    event_id: Option<String>,
    code: Option<String>,
    not_before: Option<String>,
    state: Option<String>,
}

/// Reads `events/maintenance/scheduled`, a list that is empty in most instances' lives.
pub fn maintenance(body: &[u8]) -> Result<Maintenance, ParseError> {
    const WHAT: &str = "events/maintenance/scheduled";
    let entries: Vec<serde_json::Value> = json(WHAT, body, BODY_BYTES_MAX)?;
    let mut read = Maintenance::default();
    for entry in entries {
        match scheduled(entry) {
            Ok(event) => read.events.push(event),
            Err(problem) => read.problems.push(problem),
        }
    }
    Ok(read)
}

fn scheduled(entry: serde_json::Value) -> Result<Scheduled, ParseError> {
    const WHAT: &str = "an entry of events/maintenance/scheduled";
    let wire = WireEvent::deserialize(entry)
        .map_err(|error| ParseError::Shape { what: WHAT, why: super::excerpt(&error.to_string()) })?;
    let over = matches!(wire.state.as_deref(), Some("completed" | "canceled" | "cancelled"));
    let not_before = match moment(WHAT, "NotBefore", wire.not_before) {
        Ok(time) => Some(time),
        // What is over has no need of a time; what is to come is nothing without one.
        Err(_) if over => None,
        Err(error) => return Err(error),
    };
    Ok(Scheduled {
        event_id: bounded(WHAT, "EventId", wire.event_id, EVENT_ID_CHARS_MAX)?,
        code: ScheduleCode(bounded(WHAT, "Code", wire.code, WORD_CHARS_MAX)?),
        not_before,
        over,
    })
}

/// Reads a text of one word: `autoscaling/target-lifecycle-state` (`InService`, `Terminated`, `Warmed:Stopped`).
pub fn lifecycle_state(body: &[u8]) -> Result<String, ParseError> {
    const WHAT: &str = "autoscaling/target-lifecycle-state";
    let text = String::from_utf8_lossy(body.get(..BODY_BYTES_MAX).unwrap_or(body));
    let word = bounded(WHAT, "text", Some(text.trim().to_owned()), WORD_CHARS_MAX)?;
    if word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_')) {
        Ok(word)
    } else {
        Err(wrong(WHAT, "text", &word, "a lifecycle state"))
    }
}

/// The instance identity document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityDocument {
    pub instance: InstanceId,
    /// `eu-west-1`.
    pub region: String,
    /// `eu-west-1a`.
    pub zone: Option<String>,
    /// `m7g.large`.
    pub instance_type: Option<String>,
    /// Twelve digits.
    pub account: Option<String>,
}

/// Reads `dynamic/instance-identity/document`.
pub fn identity_document(body: &[u8]) -> Result<IdentityDocument, ParseError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        instance_id: Option<String>,
        region: Option<String>,
        availability_zone: Option<String>,
        instance_type: Option<String>,
        account_id: Option<String>,
    }
    const WHAT: &str = "instance-identity/document";
    let wire: Wire = json(WHAT, body, BODY_BYTES_MAX)?;
    let id = bounded(WHAT, "instanceId", wire.instance_id, WORD_CHARS_MAX)?;
    let optional =
        |field, value: Option<String>| value.map(|text| bounded(WHAT, field, Some(text), WORD_CHARS_MAX)).transpose();
    Ok(IdentityDocument {
        instance: id.parse().map_err(|_| wrong(WHAT, "instanceId", &id, "an EC2 instance id"))?,
        region: bounded(WHAT, "region", wire.region, WORD_CHARS_MAX)?,
        zone: optional("availabilityZone", wire.availability_zone)?,
        instance_type: optional("instanceType", wire.instance_type)?,
        account: optional("accountId", wire.account_id)?,
    })
}

#[cfg(test)]
mod tests;
