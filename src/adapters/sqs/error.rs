//! How the queue fails, by what can be done about it.

use std::error::Error;

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SqsError {
    #[error("the queue URL `{0}` is not of the form https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")]
    NotAQueueUrl(String),
    #[error("the region of the queue `{0}` is not in its URL; set AWS_REGION")]
    NoRegion(String),
    #[error("{action} on {queue} is denied ({code}); allow it in the IAM policy of this agent's role")]
    Denied { action: &'static str, queue: String, code: String, source: Box<dyn Error + Send + Sync> },
    #[error("the queue {queue} does not exist; check its URL, account and region")]
    MissingQueue { queue: String, source: Box<dyn Error + Send + Sync> },
    #[error("{action} on {queue} is throttled ({code})")]
    Throttled { action: &'static str, queue: String, code: String, source: Box<dyn Error + Send + Sync> },
    #[error("{action} on {queue} was refused ({code})")]
    Refused { action: &'static str, queue: String, code: String, source: Box<dyn Error + Send + Sync> },
    #[error(
        "{action} on {queue} was not answered; is its endpoint reachable, and are there AWS credentials (a role for \
         this ServiceAccount, or the instance profile)?"
    )]
    Away { action: &'static str, queue: String, source: Box<dyn Error + Send + Sync> },
}

impl SqsError {
    /// One word for a metric's label.
    pub fn result(&self) -> &'static str {
        match self {
            Self::NotAQueueUrl(_) | Self::NoRegion(_) => "misconfigured",
            Self::Denied { .. } => "denied",
            Self::MissingQueue { .. } => "missing_queue",
            Self::Throttled { .. } => "throttled",
            Self::Refused { .. } => "refused",
            Self::Away { .. } => "away",
        }
    }

    /// Whether a person must change something before it can work.
    pub fn needs_a_person(&self) -> bool {
        !matches!(self, Self::Throttled { .. } | Self::Away { .. })
    }
}
