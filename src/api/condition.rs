//! Conditions of our resources, as Kubernetes has them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::notice::words;

words! {
    /// Whether a condition holds.
    ConditionStatus {
        True = "True",
        False = "False",
        Unknown = "Unknown",
    }
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Such as `Ready`.
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub r#type: String,
    pub status: ConditionStatus,
    /// In one CamelCase word.
    #[cfg_attr(feature = "api", schemars(length(max = 64)))]
    pub reason: String,
    /// For people.
    #[cfg_attr(feature = "api", schemars(length(max = 1024)))]
    pub message: String,
    /// The generation that it is about.
    #[serde(default)]
    #[cfg_attr(feature = "api", schemars(range(min = 0)))]
    pub observed_generation: i64,
    /// When `status` changed last (RFC 3339).
    pub last_transition_time: Timestamp,
}
