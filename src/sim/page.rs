//! One rehearsal as a page to look at: one file, no network, for eyes, keyboards and screen readers.
//!
//! The page is three files beside this one, put together here with the data as JSON.

use serde::Serialize;

use super::system::Outcome;

/// Policies side by side in the same world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The columns; ours is the first.
    pub policies: Vec<String>,
    pub rows: Vec<Measure>,
    /// What must be known to read it.
    pub notes: Vec<String>,
}

/// One row of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Measure {
    pub measure: String,
    /// For people, one for each policy.
    pub values: Vec<String>,
    /// Which of them is the best, where one is.
    pub best: Option<usize>,
}

#[derive(Serialize)]
struct Data<'a> {
    outcome: &'a Outcome,
    comparison: Option<&'a Comparison>,
}

/// The page of an outcome, and of a comparison where there is one.
pub fn page(outcome: &Outcome, comparison: Option<&Comparison>) -> Result<String, serde_json::Error> {
    let data = serde_json::to_string(&Data { outcome, comparison })?;
    // Whatever stands in a name or a reason, it does not end the script element, nor begin a comment in it.
    let data = data.replace('<', "\\u003c");
    Ok(include_str!("page/report.html")
        .replace("/*STYLE*/", include_str!("page/report.css"))
        .replace("/*SCRIPT*/", include_str!("page/report.js"))
        .replace("/*DATA*/", &data))
}
