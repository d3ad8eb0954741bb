//! AWS Health: scheduled changes of EC2, of which one message may name many instances.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::super::{EVENT_ID_CHARS_MAX, ParseError, WORD_CHARS_MAX, bounded, excerpt, moment, required, wrong};
use super::{Message, NotForUs, Parsed, envelope, instance_of};
use crate::domain::notice::{InstanceId, Notice, ScheduleCode, Source, Subject};

/// The most instances that one message is believed to name.
pub const INSTANCES_MAX: usize = 1_000;

const HEALTH: &str = "an AWS Health event";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    event_arn: Option<String>,
    service: Option<String>,
    event_type_code: Option<String>,
    event_type_category: Option<String>,
    status_code: Option<String>,
    start_time: Option<String>,
    affected_entities: Option<Vec<Entity>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entity {
    /// A text, where it is an instance; of any other shape it must not cost the entities beside it.
    entity_value: Option<serde_json::Value>,
}

/// Reads the envelope of an AWS Health event. Only scheduled changes of EC2 instances are for us.
pub(super) fn parse(body: &[u8]) -> Result<Parsed, ParseError> {
    let (_, _, health) = envelope::<Health>(body)?;
    let text = |value: Option<String>| excerpt(&value.unwrap_or_default());
    if health.service.as_deref() != Some("EC2") {
        return Ok(Parsed::NotForUs(NotForUs::HealthOfService(text(health.service))));
    }
    if health.event_type_category.as_deref() != Some("scheduledChange") {
        let category = text(health.event_type_category);
        return Ok(Parsed::NotForUs(NotForUs::HealthCategory(category)));
    }
    let type_code = required(HEALTH, "detail.eventTypeCode", health.event_type_code)?;
    let Some(code) = schedule_code(&type_code) else {
        return Ok(Parsed::NotForUs(NotForUs::HealthCode(excerpt(&type_code))));
    };
    if health.status_code.as_deref() == Some("closed") {
        return Ok(Parsed::NotForUs(NotForUs::HealthClosed));
    }
    let (instances, problems) = instances(health.affected_entities.unwrap_or_default())?;
    if instances.is_empty() {
        return Ok(Parsed::NotForUs(NotForUs::HealthWithoutInstances));
    }
    let event_id = bounded(HEALTH, "detail.eventArn", health.event_arn, EVENT_ID_CHARS_MAX)?;
    let deadline = moment(HEALTH, "detail.startTime", health.start_time)?;
    let notices = instances
        .into_iter()
        .map(|instance| Notice {
            instance,
            source: Source::Sqs,
            subject: Subject::ScheduledChange(code.clone()),
            event_id: event_id.clone(),
            deadline: Some(deadline),
        })
        .collect();
    Ok(Parsed::Message(Message { notices, problems }))
}

/// The instances among the entities, each once, and an error for each entity that is none.
fn instances(entities: Vec<Entity>) -> Result<(BTreeSet<InstanceId>, Vec<ParseError>), ParseError> {
    const FIELD: &str = "detail.affectedEntities[].entityValue";
    if entities.len() > INSTANCES_MAX {
        let count = entities.len().to_string();
        return Err(wrong(HEALTH, "number of detail.affectedEntities", &count, "at most 1000"));
    }
    let mut problems = Vec::new();
    let mut found = BTreeSet::new();
    for entity in entities {
        let value = entity.entity_value.map(|value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        });
        match instance_of(HEALTH, FIELD, value) {
            Ok(instance) => {
                found.insert(instance);
            }
            Err(problem) => problems.push(problem),
        }
    }
    Ok((found, problems))
}

/// The scheduled event's code, as IMDS writes it, of a Health event's type; `None` where the type is not
/// `AWS_EC2_…_SCHEDULED`.
///
/// A type without a counterpart in IMDS keeps its own name, in IMDS's spelling: what it does to the instance is not
/// guessed from its words.
pub(super) fn schedule_code(type_code: &str) -> Option<ScheduleCode> {
    let name = type_code.strip_prefix("AWS_EC2_")?.strip_suffix("_SCHEDULED")?;
    let plain = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    if name.is_empty() || name.len() > WORD_CHARS_MAX || !name.bytes().all(plain) {
        return None;
    }
    let code = match name {
        "INSTANCE_REBOOT" | "INSTANCE_REBOOT_MAINTENANCE" | "INSTANCE_REBOOT_FLEXIBLE_MAINTENANCE" => "instance-reboot",
        "SYSTEM_REBOOT" | "SYSTEM_REBOOT_MAINTENANCE" => "system-reboot",
        "SYSTEM_MAINTENANCE" | "INSTANCE_NETWORK_MAINTENANCE" | "INSTANCE_POWER_MAINTENANCE" => "system-maintenance",
        "INSTANCE_STOP" => "instance-stop",
        "INSTANCE_RETIREMENT" | "PERSISTENT_INSTANCE_RETIREMENT" => "instance-retirement",
        other => return Some(ScheduleCode(other.to_ascii_lowercase().replace('_', "-"))),
    };
    Some(ScheduleCode(code.to_owned()))
}
