//! What is announced about an instance, from whichever source.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An EC2 instance id: `i-` and 8 or 17 hexadecimal digits (anything from 8 to 17 is accepted). Every index has a copy of
/// it, so that a copy costs nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(Arc<str>);

/// A text that is no instance id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an EC2 instance id (`i-` and 8 to 17 hexadecimal digits)")]
pub struct NotAnInstanceId(String);

impl InstanceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instance of a node's `spec.providerID`, `aws:///<zone>/<instance id>`.
    pub fn from_provider_id(provider_id: &str) -> Option<Self> {
        let path = provider_id.strip_prefix("aws://")?;
        path.rsplit('/').next()?.parse().ok()
    }
}

impl FromStr for InstanceId {
    type Err = NotAnInstanceId;
    fn from_str(text: &str) -> Result<Self, NotAnInstanceId> {
        let digits = text.strip_prefix("i-").unwrap_or("");
        let hexadecimal = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if (8..=17).contains(&digits.len()) && hexadecimal {
            Ok(Self(text.into()))
        } else {
            Err(NotAnInstanceId(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NotAnInstanceId;
    fn try_from(text: String) -> Result<Self, NotAnInstanceId> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Declares an enum whose variants are words of the API, with `as_str`, `from_word` and `Display`.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "api", derive(schemars::JsonSchema))]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant),+ }
        impl $name {
            /// Every word, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// As it stands on the wire and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
            /// The one that is written `word`, exactly.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
    };
}
pub(crate) use words;

words! {
    /// Who says it.
    Source {
        /// The instance's own metadata service.
        Imds = "imds",
        /// The queue that EventBridge feeds.
        Sqs = "sqs",
        /// A person.
        Operator = "operator",
        /// The provisioner, which saw it in EC2.
        Provisioner = "provisioner",
    }
}

words! {
    /// What is announced, without its particulars.
    Kind {
        SpotInterruption = "SpotInterruption",
        RebalanceRecommendation = "RebalanceRecommendation",
        ScheduledChange = "ScheduledChange",
        StateChange = "StateChange",
        CapacityReservationInterruption = "CapacityReservationInterruption",
        CapacityBlockEnding = "CapacityBlockEnding",
        AutoScalingTermination = "AutoScalingTermination",
        Requested = "Requested",
    }
}

words! {
    /// What EC2 does with an interrupted spot instance.
    Action { Terminate = "terminate", Stop = "stop", Hibernate = "hibernate" }
}

words! {
    /// The state of an instance, as EC2's state-change event names it.
    InstanceState {
        Pending = "pending",
        Running = "running",
        Stopping = "stopping",
        Stopped = "stopped",
        ShuttingDown = "shutting-down",
        Terminated = "terminated",
    }
}

/// What a scheduled event will do to the instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScheduleCode(pub String);

impl ScheduleCode {
    /// Whether the same instance is back, on the same root volume, when the event is over.
    ///
    /// `instance-reboot`, `system-reboot` and `system-maintenance` come back; `instance-stop` and
    /// `instance-retirement`, and every code that EC2 may invent later, are taken as the end of this boot.
    pub fn comes_back(&self) -> bool {
        matches!(self.0.as_str(), "instance-reboot" | "system-reboot" | "system-maintenance")
    }
}

/// What is announced, with its particulars.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    SpotInterruption(Action),
    RebalanceRecommendation,
    ScheduledChange(ScheduleCode),
    StateChange(InstanceState),
    CapacityReservationInterruption,
    CapacityBlockEnding,
    AutoScalingTermination,
    /// A person wants the node emptied.
    Requested,
}

impl Subject {
    pub fn kind(&self) -> Kind {
        match self {
            Self::SpotInterruption(_) => Kind::SpotInterruption,
            Self::RebalanceRecommendation => Kind::RebalanceRecommendation,
            Self::ScheduledChange(_) => Kind::ScheduledChange,
            Self::StateChange(_) => Kind::StateChange,
            Self::CapacityReservationInterruption => Kind::CapacityReservationInterruption,
            Self::CapacityBlockEnding => Kind::CapacityBlockEnding,
            Self::AutoScalingTermination => Kind::AutoScalingTermination,
            Self::Requested => Kind::Requested,
        }
    }

    /// The particular that a record keeps beside the kind: the action, the event's code or the state.
    pub fn action(&self) -> Option<String> {
        match self {
            Self::SpotInterruption(action) => Some(action.as_str().to_owned()),
            Self::ScheduledChange(code) => Some(code.0.clone()),
            Self::StateChange(state) => Some(state.as_str().to_owned()),
            _ => None,
        }
    }

    /// The inverse of [`kind`](Self::kind) and [`action`](Self::action).
    ///
    /// A spot interruption with an unknown action is taken as `terminate`, the harshest; a state change needs a known
    /// state.
    pub fn from_record(kind: Kind, action: Option<&str>) -> Option<Self> {
        Some(match kind {
            Kind::SpotInterruption => {
                Self::SpotInterruption(action.and_then(Action::from_word).unwrap_or(Action::Terminate))
            }
            Kind::RebalanceRecommendation => Self::RebalanceRecommendation,
            Kind::ScheduledChange => Self::ScheduledChange(ScheduleCode(action.unwrap_or("unknown").to_owned())),
            Kind::StateChange => Self::StateChange(InstanceState::from_word(action?)?),
            Kind::CapacityReservationInterruption => Self::CapacityReservationInterruption,
            Kind::CapacityBlockEnding => Self::CapacityBlockEnding,
            Kind::AutoScalingTermination => Self::AutoScalingTermination,
            Kind::Requested => Self::Requested,
        })
    }
}

/// One observation from one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub instance: InstanceId,
    pub source: Source,
    pub subject: Subject,
    /// Tells this announcement from another of the same kind by the same source. IMDS has no event ids: its `time`
    /// serves.
    pub event_id: String,
    /// When the instance will be taken, where that is announced.
    pub deadline: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_checked() {
        assert!("i-0123456789abcdef0".parse::<InstanceId>().is_ok());
        assert!("i-12345678".parse::<InstanceId>().is_ok());
        for wrong in
            ["", "i-", "i-123", "i-0123456789ABCDEF0", "i-0123456789abcdef01", "mi-0123456789abcdef0", "i-é2345678"]
        {
            assert!(wrong.parse::<InstanceId>().is_err(), "{wrong}");
        }
        let of = |p| InstanceId::from_provider_id(p).map(String::from);
        assert_eq!(of("aws:///eu-west-1a/i-0123456789abcdef0").as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(of("gce:///eu-west-1a/i-0123456789abcdef0"), None);
        assert_eq!(of("aws:///eu-west-1a/fargate-ip-10-0-0-1"), None);
    }

    #[test]
    fn any_text_is_an_instance_id_or_not() {
        bolero::check!().with_type::<(bool, String)>().for_each(|(prefixed, text): &(bool, String)| {
            let text = if *prefixed { format!("aws:///zone/i-{text}") } else { text.clone() };
            drop(text.parse::<InstanceId>());
            drop(InstanceId::from_provider_id(&text));
        });
    }

    #[test]
    fn a_subject_survives_being_recorded() {
        let subjects = [
            Subject::SpotInterruption(Action::Hibernate),
            Subject::RebalanceRecommendation,
            Subject::ScheduledChange(ScheduleCode("system-reboot".into())),
            Subject::StateChange(InstanceState::ShuttingDown),
            Subject::CapacityReservationInterruption,
            Subject::CapacityBlockEnding,
            Subject::AutoScalingTermination,
            Subject::Requested,
        ];
        for subject in subjects {
            assert_eq!(Subject::from_record(subject.kind(), subject.action().as_deref()), Some(subject));
        }
        assert_eq!(Subject::from_record(Kind::StateChange, Some("melting")), None);
    }
}
