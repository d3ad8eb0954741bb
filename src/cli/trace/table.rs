//! The table: comma-separated values, with a first line that names the columns.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::Pool;
use crate::domain::time::duration;

/// The most rows that a table may have: more is a slip of the pen.
const ROWS_MAX: usize = 1_000_000;

/// A table cannot be used, and where that is seen: line and column from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub line: usize,
    pub column: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

impl std::error::Error for Mistake {}

/// What is left in a pool from a moment on: when, in milliseconds, and how many instances; `None`: without end.
pub type Point = (u64, Option<u32>);

/// When each pool had how much, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub pools: BTreeMap<Pool, Vec<Point>>,
    /// In which line each pool is named first.
    pub lines: BTreeMap<Pool, usize>,
}

const COLUMNS: [&str; 7] = ["instance_type", "zone", "from", "until", "at", "available", "capacity"];
const INSTANCE_TYPE: usize = 0;
const ZONE: usize = 1;
const FROM: usize = 2;
const UNTIL: usize = 3;
const AT: usize = 4;
const AVAILABLE: usize = 5;
const CAPACITY: usize = 6;

/// One field of a line, and in which column it begins.
#[derive(Clone, Copy)]
struct Field<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

impl Field<'_> {
    fn wrong(&self, what: impl Into<String>) -> Mistake {
        Mistake { line: self.line, column: self.column, what: what.into() }
    }
}

/// A line's fields, without the blanks around them.
fn fields(line: usize, text: &str) -> Result<Vec<Field<'_>>, Mistake> {
    let mut all = Vec::new();
    let mut column = 1;
    for part in text.split(',') {
        let blanks = part.chars().take_while(|c| c.is_whitespace()).count();
        let field = Field { text: part.trim(), line, column: column + blanks };
        if field.text.contains('"') {
            return Err(field.wrong("a quotation mark: fields are written without"));
        }
        all.push(field);
        column += part.chars().count() + 1;
    }
    Ok(all)
}

/// Where each of [`COLUMNS`] is.
fn header(fields: &[Field]) -> Result<[Option<usize>; COLUMNS.len()], Mistake> {
    let mut places = [None; COLUMNS.len()];
    for (place, field) in fields.iter().enumerate() {
        let known = COLUMNS.iter().position(|name| *name == field.text);
        let Some(known) = known else {
            let what = format!("`{}` is no column; there are {}", field.text, COLUMNS.join(", "));
            return Err(field.wrong(what));
        };
        if places[known].replace(place).is_some() {
            return Err(field.wrong(format!("the column `{}` is there twice", field.text)));
        }
    }
    let missing = |columns: &[usize]| columns.iter().find(|column| places[**column].is_none()).map(|at| COLUMNS[*at]);
    let spans = places[FROM].is_some() || places[UNTIL].is_some();
    let changes = places[AT].is_some() || places[AVAILABLE].is_some();
    let what = match missing(&[INSTANCE_TYPE, ZONE]) {
        Some(name) => format!("there is no column `{name}`"),
        None if spans && changes => "either `from` and `until` or `at` and `available`, not both".to_owned(),
        None => match missing(if changes { &[AT, AVAILABLE] } else { &[FROM, UNTIL] }) {
            Some(name) => format!("there is no column `{name}`: either `from` and `until` or `at` and `available`"),
            None => return Ok(places),
        },
    };
    let first = fields.first().map_or((1, 1), |field| (field.line, field.column));
    Err(Mistake { line: first.0, column: first.1, what })
}

/// A moment as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    Offset(u64),
    Wall(Timestamp),
}

fn time(field: &Field) -> Result<Time, Mistake> {
    if let Ok(wall) = field.text.parse::<Timestamp>() {
        return Ok(Time::Wall(wall));
    }
    let offset = duration(field.text).ok().and_then(|offset| u64::try_from(offset.as_millis()).ok());
    let what = || {
        let text = field.text;
        format!("`{text}` is no time: an offset like 90s, 15m or 2h, or RFC 3339 like 2026-04-24T17:11:44Z")
    };
    offset.map(Time::Offset).ok_or_else(|| field.wrong(what()))
}

fn capacity(field: Option<&Field>) -> Result<Option<u32>, Mistake> {
    match field {
        Some(field) if !field.text.is_empty() => field.text.parse().map(Some).map_err(|_| {
            let what = format!("`{}` is no number of instances: empty is without end", field.text);
            field.wrong(what)
        }),
        _ => Ok(None),
    }
}

fn available(field: &Field) -> Result<bool, Mistake> {
    match field.text {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        text => Err(field.wrong(format!("`{text}` is neither true nor false"))),
    }
}

/// What one row says.
struct Row<'a> {
    pool: Pool,
    from: (Time, Field<'a>),
    until: Option<(Time, Field<'a>)>,
    left: Option<u32>,
}

fn row<'a>(fields: &[Field<'a>], places: &[Option<usize>; COLUMNS.len()]) -> Result<Row<'a>, Mistake> {
    let wanted = places.iter().flatten().count();
    if fields.len() != wanted {
        let at = fields.get(wanted).or(fields.last());
        let what = format!("{} fields; the first line names {wanted} columns", fields.len());
        return Err(at.map_or(Mistake { line: 1, column: 1, what: what.clone() }, |field| field.wrong(what)));
    }
    let field = |column: usize| places[column].and_then(|place| fields.get(place)).copied();
    let named = |column: usize| {
        let field = field(column).unwrap_or(fields[0]);
        let empty = || field.wrong(format!("`{}` is empty", COLUMNS[column]));
        if field.text.is_empty() { Err(empty()) } else { Ok(field) }
    };
    let pool = Pool { instance_type: named(INSTANCE_TYPE)?.text.to_owned(), zone: named(ZONE)?.text.to_owned() };
    let some = capacity(field(CAPACITY).as_ref())?;
    if places[AT].is_some() {
        let at = named(AT)?;
        let left = if available(&named(AVAILABLE)?)? { some } else { Some(0) };
        return Ok(Row { pool, from: (time(&at)?, at), until: None, left });
    }
    let (from, until) = (named(FROM)?, named(UNTIL)?);
    Ok(Row { pool, from: (time(&from)?, from), until: Some((time(&until)?, until)), left: some })
}

/// Reads a table.
pub fn read(text: &str) -> Result<Table, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let Some((at, first)) = lines.next() else {
        let what = format!("there is nothing; the first line names the columns: {}", COLUMNS[..4].join(","));
        return Err(Mistake { line: 1, column: 1, what });
    };
    let places = header(&fields(at, first)?)?;
    let mut rows = Vec::new();
    for (at, line) in lines {
        if rows.len() == ROWS_MAX {
            return Err(Mistake { line: at, column: 1, what: format!("more than {ROWS_MAX} rows") });
        }
        rows.push(row(&fields(at, line)?, &places)?);
    }
    if rows.is_empty() {
        return Err(Mistake { line: at, column: 1, what: "there is no row below the names of the columns".into() });
    }
    in_order(rows)
}

/// A row on the clock of the table: from, until, the field that says from when, and what is left.
type Placed<'a> = (u64, Option<u64>, Field<'a>, Option<u32>);

/// Puts the rows into the order of time, from the first moment on.
fn in_order(rows: Vec<Row>) -> Result<Table, Mistake> {
    let zero = rows.iter().map(|row| row.from.0).min().unwrap_or(Time::Offset(0));
    let millis = |(time, field): (Time, Field)| match (zero, time) {
        (Time::Offset(_), Time::Offset(at)) => Ok(at),
        (Time::Wall(zero), Time::Wall(at)) => Ok(u64::try_from(at.duration_since(zero).as_millis()).unwrap_or(0)),
        _ => Err(field.wrong("offsets and RFC 3339 in one table: either the one or the other")),
    };
    let mut of: BTreeMap<Pool, Vec<Placed>> = BTreeMap::new();
    for row in rows {
        let (from, until) = (millis(row.from)?, row.until.map(millis).transpose()?);
        if let (Some((_, field)), Some(_)) = (row.until, until.filter(|until| *until <= from)) {
            return Err(field.wrong("`until` is not later than `from`"));
        }
        of.entry(row.pool).or_default().push((from, until, row.from.1, row.left));
    }
    // Where the table ends nothing is said any more: what is left then stays.
    let last = of.values().flatten().filter_map(|(_, until, ..)| *until).max().unwrap_or(0);
    let mut table = Table::default();
    for (pool, mut rows) in of {
        let first = rows.iter().map(|(_, _, field, _)| field.line).min().unwrap_or(1);
        rows.sort_by_key(|(from, _, field, _)| (*from, field.line));
        let mut points: Vec<Point> = Vec::new();
        let mut end: Option<u64> = None;
        for (from, until, field, left) in rows {
            if end.is_some_and(|end| from < end)
                || (until.is_none() && points.last().is_some_and(|(at, _)| *at == from))
            {
                return Err(field.wrong(format!("{pool} has another row for the same time")));
            }
            match (until, end) {
                // Outside of its spans there is nothing.
                (Some(_), None) if from > 0 => points.push((0, Some(0))),
                (Some(_), Some(end)) if from > end => points.push((end, Some(0))),
                _ => {}
            }
            points.push((from, left));
            end = until;
        }
        points.extend(end.filter(|end| *end < last).map(|end| (end, Some(0))));
        points.dedup_by_key(|(_, left)| *left);
        table.lines.insert(pool.clone(), first);
        table.pools.insert(pool, points);
    }
    Ok(table)
}

#[cfg(test)]
mod tests;
