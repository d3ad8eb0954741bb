//! How asking IMDS fails.

use reqwest::StatusCode;

use super::BODY_BYTES_MAX;
use crate::domain::wire::ParseError;

/// Why IMDS gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    #[error("the IMDS endpoint `{0}` is not of the form http://ADDRESS or http://[ADDRESS]")]
    Endpoint(String),
    #[error("cannot set up the HTTP client for IMDS")]
    Client(#[source] reqwest::Error),
    #[error(
        "IMDS refuses to give a token (403): it is switched off for this instance, or a proxy stands between; \
         set the instance's metadata option HttpEndpoint to enabled"
    )]
    SwitchedOff,
    #[error(
        "IMDS did not answer the request for a token in time; a pod without hostNetwork needs the instance's \
         metadata option HttpPutResponseHopLimit to be 2 or more, otherwise run it with hostNetwork: true"
    )]
    TokenTimedOut,
    #[error("IMDS answered the request for a token with {status}")]
    TokenStatus { status: StatusCode },
    #[error("IMDS gave a token that cannot be sent in a header")]
    TokenUnreadable,
    #[error("IMDS refuses a token that it has just given (401), for /latest/{path}")]
    Unauthorized { path: &'static str },
    #[error("IMDS did not answer /latest/{path} in time")]
    TimedOut { path: &'static str },
    #[error("cannot ask IMDS for /latest/{path}; does this pod run on EC2, and may it reach the endpoint?")]
    Unreachable { path: &'static str, source: reqwest::Error },
    #[error("IMDS answered /latest/{path} with {status}")]
    Status { path: &'static str, status: StatusCode },
    #[error("IMDS has no /latest/{path}, which every instance has; is the endpoint IMDS?")]
    Absent { path: &'static str },
    #[error("IMDS's answer to /latest/{path} has more than {BODY_BYTES_MAX} bytes")]
    TooLong { path: &'static str },
    #[error("IMDS's answer to /latest/{path} makes no sense")]
    Unreadable { path: &'static str, source: ParseError },
}

impl ImdsError {
    pub(super) fn of_transport(path: &'static str, error: reqwest::Error) -> Self {
        if error.is_timeout() {
            Self::TimedOut { path }
        } else {
            let source = error.without_url();
            Self::Unreachable { path, source }
        }
    }

    /// One word for a metric's label.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Endpoint(_) | Self::Client(_) => "misconfigured",
            Self::SwitchedOff => "switched_off",
            Self::TokenTimedOut | Self::TimedOut { .. } => "timeout",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Unreachable { .. } => "unreachable",
            Self::TokenStatus { .. } | Self::Status { .. } => "status",
            Self::Absent { .. } => "absent",
            Self::TooLong { .. } | Self::TokenUnreadable | Self::Unreadable { .. } => "unreadable",
        }
    }
}
