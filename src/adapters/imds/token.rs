//! The session token of IMDSv2: fetched when it is needed, renewed before its end, replaced when it is refused.

use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode};

use super::{Imds, ImdsError, body_of};

/// Carries the token in a GET.
pub(super) const HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const PATH: &str = "api/token";

/// How long a token that is still good is used before its renewal is tried again, and how long IMDSv1 is used before
/// a token is asked for again.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// By what right IMDS is asked.
#[derive(Debug, Default)]
pub(super) enum Access {
    /// A token is to be fetched.
    #[default]
    None,
    /// IMDSv2.
    Token { value: HeaderValue, renew_at: Instant, ends_at: Instant },
    /// IMDSv1, which is asked without.
    Without { until: Instant },
}

impl Access {
    /// Forgets this token, which was refused.
    pub(super) fn forget(&mut self, token: Option<&HeaderValue>) {
        match self {
            Access::Token { value, .. } if Some(&*value) != token => {}
            _ => *self = Access::None,
        }
    }
}

impl Imds {
    /// The token to ask with; `None` asks without.
    pub(super) async fn token(&mut self) -> Result<Option<HeaderValue>, ImdsError> {
        let now = Instant::now();
        let held = match &self.access {
            Access::Token { value, renew_at, .. } if now < *renew_at => return Ok(Some(value.clone())),
            Access::Without { until } if now < *until => return Ok(None),
            Access::Token { value, ends_at, .. } if now < *ends_at => Some((value.clone(), *ends_at)),
            _ => None,
        };
        let fetched = self.fetch_token().await;
        let result = fetched.as_ref().map_or_else(ImdsError::result, |_| "found");
        self.metrics.imds_asked(PATH, result);
        match (fetched, held) {
            (Ok((value, ttl)), _) => {
                self.access = Access::Token { value: value.clone(), renew_at: now + ttl * 4 / 5, ends_at: now + ttl };
                Ok(Some(value))
            }
            // Still good for a while, so its renewal need not cost a round.
            (Err(_), Some((value, ends_at))) => {
                self.access = Access::Token { value: value.clone(), renew_at: now + TRY_AGAIN, ends_at };
                Ok(Some(value))
            }
            (Err(error), None) if self.options.v1_fallback && speaks_v1(&error) => {
                self.access = Access::Without { until: now + TRY_AGAIN };
                Ok(None)
            }
            (Err(error), None) => {
                self.access = Access::None;
                Err(error)
            }
        }
    }

    async fn fetch_token(&self) -> Result<(HeaderValue, Duration), ImdsError> {
        let asked = self.options.token_ttl.as_secs().clamp(1, 21_600);
        let response =
            self.client.request(Method::PUT, self.url(PATH)?).header(TTL_HEADER, asked).send().await.map_err(
                |error| match ImdsError::of_transport(PATH, error) {
                    ImdsError::TimedOut { .. } => ImdsError::TokenTimedOut,
                    other => other,
                },
            )?;
        let status = response.status();
        let given = response
            .headers()
            .get(TTL_HEADER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map_or(asked, |given: u64| given.clamp(1, asked));
        let body = body_of(PATH, response).await?;
        match status {
            StatusCode::OK => {
                let mut value = HeaderValue::from_bytes(body.trim_ascii()).map_err(|_| ImdsError::TokenUnreadable)?;
                value.set_sensitive(true);
                Ok((value, Duration::from_secs(given)))
            }
            StatusCode::FORBIDDEN => Err(ImdsError::SwitchedOff),
            status => Err(ImdsError::TokenStatus { status }),
        }
    }
}

/// Whether a service that answers so may still answer without a token: it does not know of tokens, or its answer to
/// the PUT did not come over the hop.
fn speaks_v1(error: &ImdsError) -> bool {
    match error {
        ImdsError::TokenTimedOut => true,
        ImdsError::TokenStatus { status } => matches!(*status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED),
        _ => false,
    }
}
