//! What others send: bytes in, words of the domain out.
//!
//! - [`imds`]: the answers of the instance metadata service.
//! - [`queue`]: the bodies of messages that EventBridge, Auto Scaling and SNS put into the queue.
//!
//! Everything here is total: whatever the bytes are, the answer is a value or a [`ParseError`], never a panic. Where
//! one entry of a list cannot be read, the others are kept and the error stands beside them. Texts that go on into
//! the API are held to the limits of its schema here.

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::de::DeserializeOwned;

pub mod imds;
pub mod queue;

/// The most characters of an event's id, as the schema of the Interruption has it.
pub const EVENT_ID_CHARS_MAX: usize = 256;

/// The most characters of an action, a scheduled event's code or a lifecycle state.
pub const WORD_CHARS_MAX: usize = 64;

/// The most characters of a foreign text that an error repeats.
const EXCERPT_CHARS_MAX: usize = 120;

/// Why something that was received cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// More bytes than such a text can have.
    #[error("{what} has {bytes} bytes, more than the {most} that are read")]
    TooLong { what: &'static str, bytes: usize, most: usize },
    /// Not JSON, or JSON of another shape.
    #[error("{what} cannot be read: {why}")]
    Shape { what: &'static str, why: String },
    /// A field that is needed is not there, or is empty.
    #[error("{what} has no `{field}`")]
    Missing { what: &'static str, field: &'static str },
    /// A field is there, and what it says makes no sense.
    #[error("the `{field}` of {what} is `{value}`, which is not {expected}")]
    Field { what: &'static str, field: &'static str, value: String, expected: &'static str },
}

/// Reads JSON of at most `most` bytes; objects nested deeper than 128 are refused by the JSON reader itself.
fn json<T: DeserializeOwned>(what: &'static str, bytes: &[u8], most: usize) -> Result<T, ParseError> {
    if bytes.len() > most {
        let bytes = bytes.len();
        return Err(ParseError::TooLong { what, bytes, most });
    }
    serde_json::from_slice(bytes).map_err(|error| ParseError::Shape { what, why: excerpt(&error.to_string()) })
}

/// A field that must be there and say something.
fn required(what: &'static str, field: &'static str, value: Option<String>) -> Result<String, ParseError> {
    value.filter(|text| !text.trim().is_empty()).ok_or(ParseError::Missing { what, field })
}

/// A field that must be there and fit into `most` characters.
fn bounded(what: &'static str, field: &'static str, value: Option<String>, most: usize) -> Result<String, ParseError> {
    let text = required(what, field, value)?;
    if text.chars().count() > most || text.chars().any(char::is_control) {
        return Err(wrong(what, field, &text, "a short, printable text"));
    }
    Ok(text)
}

/// A moment that must be there.
fn moment(what: &'static str, field: &'static str, value: Option<String>) -> Result<Timestamp, ParseError> {
    let text = required(what, field, value)?;
    timestamp(&text).ok_or_else(|| wrong(what, field, &text, "a time (RFC 3339 or RFC 2822)"))
}

/// Reads both ways in which AWS writes a time: `2026-04-24T17:11:44Z` and `[Fri, ]5 Jun 2026 15:10:09 GMT`.
///
/// The day of the week is redundant and not checked: a wrong one must not cost a notice.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    const RFC_2822: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let text = text.trim();
    // Both forms fit easily; nothing longer is worth a look.
    if text.len() > WORD_CHARS_MAX {
        return None;
    }
    text.parse().ok().or_else(|| RFC_2822.parse_timestamp(text).ok())
}

fn wrong(what: &'static str, field: &'static str, value: &str, expected: &'static str) -> ParseError {
    ParseError::Field { what, field, value: excerpt(value), expected }
}

/// The beginning of a foreign text, fit for one line of a log.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_aws_writes_them() {
        let at = |text: &str| timestamp(text).map(|t| t.to_string());
        for (text, expected) in [
            ("2026-04-24T17:11:44Z", Some("2026-04-24T17:11:44Z")),
            ("2026-04-24T17:11:44.5Z", Some("2026-04-24T17:11:44.5Z")),
            ("2026-04-24T19:11:44+02:00", Some("2026-04-24T17:11:44Z")),
            ("21 Jan 2026 09:00:43 GMT", Some("2026-01-21T09:00:43Z")),
            ("5 Jan 2026 09:00:43 GMT", Some("2026-01-05T09:00:43Z")),
            ("Fri, 05 Jun 2026 15:10:09 GMT", Some("2026-06-05T15:10:09Z")),
            // The 5th was a Friday.
            ("Sat, 05 Jun 2026 15:10:09 GMT", Some("2026-06-05T15:10:09Z")),
            ("", None),
            ("tomorrow", None),
            ("2026-13-45T00:00:00Z", None),
            ("99999-01-01T00:00:00Z", None),
        ] {
            assert_eq!(at(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn any_text_is_a_time_or_none() {
        bolero::check!().with_type::<String>().for_each(|text: &String| {
            timestamp(text);
        });
    }

    #[test]
    fn what_an_error_repeats_is_short_and_one_line() {
        let long = "a\n".repeat(100_000);
        let error = bounded("a test", "field", Some(long), 64).unwrap_err();
        let text = error.to_string();
        assert!(text.len() < 1_000 && !text.contains('\n'), "{text}");
    }
}
