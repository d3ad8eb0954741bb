//! What is wrong with a scenario, and where.

use std::fmt;

use serde_saphyr::{Error, Location};

/// A scenario cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line and column, from 1, where they are known.
    at: Option<(u64, u64)>,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Mistake {}

/// A mistake in a place that is known.
pub(super) fn wrong(at: &Location, what: impl Into<String>) -> Mistake {
    Mistake { at: Some((at.line(), at.column())), what: what.into() }
}

/// One in none.
pub(super) fn wrong_somewhere(what: impl Into<String>) -> Mistake {
    Mistake { at: None, what: what.into() }
}

impl Mistake {
    /// What the reader of YAML says, in words that need no knowledge of the reader.
    pub(super) fn of(error: &Error, text: &str) -> Self {
        let at = error.location().map(|at| (at.line(), at.column()));
        let word = at.and_then(|(line, column)| word_at(text, line, column));
        let written = word.as_ref().map(|word| format!("`{word}`: ")).unwrap_or_default();
        let what = match error.without_snippet() {
            Error::Eof { .. } => {
                "it ends too early, or is empty: a scenario says at least description, duration and nodes".to_owned()
            }
            Error::Unexpected { expected: "sequence start", .. } => {
                format!("{written}a list is expected here, such as [a, b]")
            }
            Error::Unexpected { expected: "mapping start", .. } => {
                format!("{written}fields and their values are expected here, such as {{field: value}}")
            }
            Error::InvalidScalar { .. } if word.as_ref().is_some_and(|of| of.chars().all(|c| c.is_ascii_digit())) => {
                format!("{written}that is too large")
            }
            Error::InvalidScalar { ty, .. } => format!("{written}{} is expected here", expected(ty)),
            Error::DuplicateMappingKey { key, .. } => match key {
                Some(key) => format!("`{key}` is there twice"),
                None => "a field is there twice".to_owned(),
            },
            Error::ExpectedMappingEndAfterEnumVariantValue { .. } => {
                "one word with what belongs to it is expected here; write what else is to happen as another entry of the \
                 list"
                    .to_owned()
            }
            Error::Budget { .. } => "it is larger than any scenario: write `count` and `replicas` in the place of \
                                     entries that are the same"
                .to_owned(),
            other => {
                let what = other.to_string();
                // It says itself where, in the end.
                let told = at.map(|(line, column)| format!(" at line {line}, column {column}"));
                told.and_then(|told| Some(what.strip_suffix(&told)?.to_owned())).unwrap_or(what)
            }
        };
        Self { at, what }
    }
}

/// What a type of Rust's is for people.
fn expected(ty: &str) -> String {
    match ty {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u32" | "u64" | "usize" | "u128" => "a whole number, 0 or more,".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        ty if ty.starts_with("floating") || ty.starts_with('f') => "a number".to_owned(),
        ty if ty.starts_with("bool") => "true or false".to_owned(),
        ty => format!("a value of the kind {ty}"),
    }
}

/// The word that is written in this place.
fn word_at(text: &str, line: u64, column: u64) -> Option<String> {
    let line = text.lines().nth(usize::try_from(line.checked_sub(1)?).ok()?)?;
    let from = line.chars().skip(usize::try_from(column.checked_sub(1)?).ok()?);
    let word: String = from.take_while(|c| !",]}#".contains(*c)).take(40).collect();
    let word = word.trim();
    (!word.is_empty() && !word.starts_with(['{', '['])).then(|| word.to_owned())
}
