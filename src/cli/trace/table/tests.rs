use super::*;

fn points(text: &str) -> BTreeMap<String, Vec<Point>> {
    let table = read(text).unwrap_or_else(|mistake| panic!("{mistake}: {text}"));
    table.pools.into_iter().map(|(pool, points)| (pool.to_string(), points)).collect()
}

fn mistake(text: &str) -> (usize, usize, String) {
    let Mistake { line, column, what } = read(text).expect_err(text);
    (line, column, what)
}

#[test]
fn spans_are_when_there_is_capacity_and_between_them_there_is_none() {
    let text = "# mine\ninstance_type,zone,from,until,capacity\nm7g.large, eu-west-1a, 10m, 20m, 5\r\n\nm7g.large,eu-west-1a,0s,5m,\nm6g.large,eu-west-1a,1s,2s,3\n";
    let found = points(text);
    let minute = 60_000;
    assert_eq!(
        found["m7g.large@eu-west-1a"],
        [(0, None), (5 * minute, Some(0)), (10 * minute, Some(5))],
        "where the table ends nothing is said any more"
    );
    assert_eq!(found["m6g.large@eu-west-1a"], [(0, Some(0)), (1_000, Some(3)), (2_000, Some(0))]);
}

#[test]
fn changes_hold_until_the_next_and_wall_clock_times_begin_with_the_first() {
    let text = "at,available,zone,instance_type\n2026-04-24T17:10:00Z,yes,a,t.x\n2026-04-24T17:12:00+00:00,no,a,t.x\n2026-04-24T17:11:00Z,0,b,t.x\n";
    let found = points(text);
    assert_eq!(found["t.x@a"], [(0, None), (120_000, Some(0))]);
    assert_eq!(found["t.x@b"], [(60_000, Some(0))], "before its first row nothing is said of it");
}

#[test]
fn spans_that_touch_are_one() {
    let text = "instance_type,zone,from,until\nt,a,0s,1s\nt,a,1s,2s\nu,a,0s,9s\n";
    assert_eq!(points(text)["t@a"], [(0, None), (2_000, Some(0))]);
}

#[test]
fn a_mistake_is_named_with_its_line_its_column_and_what_was_expected() {
    let spans = "instance_type,zone,from,until\n";
    for (text, line, column, named) in [
        ("", 1, 1, "the first line names the columns"),
        ("# only this\n", 1, 1, "there is nothing"),
        (spans, 1, 1, "no row"),
        ("instance_type,zone,from,til\n", 1, 25, "`til` is no column; there are instance_type"),
        ("instance_type,zone,from,from\n", 1, 25, "twice"),
        ("instance_type,from,until\nt,0s,1s\n", 1, 1, "no column `zone`"),
        ("instance_type,zone,from,until,at\n", 1, 1, "not both"),
        ("instance_type,zone,at\n", 1, 1, "no column `available`"),
        ("instance_type,zone\n", 1, 1, "no column `from`"),
        ("instance_type,zone,from,until\nt,a,0s\n", 2, 5, "3 fields; the first line names 4 columns"),
        ("instance_type,zone,from,until\nt,a,0s,1s,2s\n", 2, 11, "5 fields"),
        ("instance_type,zone,from,until\nt, ,0s,1s\n", 2, 4, "`zone` is empty"),
        ("instance_type,zone,from,until\nt,a, soon,1s\n", 2, 6, "`soon` is no time: an offset like 90s"),
        ("instance_type,zone,from,until\nt,a,-5s,1s\n", 2, 5, "`-5s` is no time"),
        ("instance_type,zone,from,until\nt,a,5s,5s\n", 2, 8, "`until` is not later"),
        ("instance_type,zone,from,until\nt,a,5s,2026-04-24T17:10:00Z\n", 2, 8, "either the one or the other"),
        ("instance_type,zone,from,until\nt,a,0s,9s\nt,a,8s,10s\n", 3, 5, "t@a has another row"),
        ("instance_type,zone,at,available\nt,a,0s,maybe\n", 2, 8, "neither true nor false"),
        ("instance_type,zone,at,available\nt,a,0s,1\nt,a,0s,0\n", 3, 5, "another row"),
        ("instance_type,zone,at,available,capacity\nt,a,0s,1,-1\n", 2, 10, "`-1` is no number of instances"),
        ("instance_type,zone,at,available\n\"t\",a,0s,1\n", 2, 1, "without"),
    ] {
        let found = mistake(text);
        assert!((found.0, found.1) == (line, column) && found.2.contains(named), "{text:?}: {found:?}");
    }
}

/// What is said of a table that was bent a hundred thousand times: it is read, or refused where the mistake can be.
#[test]
fn no_table_makes_it_panic() {
    let whole = "instance_type,zone,from,until,capacity\nm7g.large,eu-west-1a,0s,90m,4\nm6g.large,b,2026-04-24T17:10:00Z,3h,\n# x\n";
    let bits =
        [",", "\n", "\"", "\r", "\u{feff}", "ä", "9999999999999999999h", "-1", "at", "available", "#", " ", "\0"];
    let (mut read_whole, mut refused) = (0, 0);
    for seed in 0..100_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut text: Vec<char> = whole.chars().collect();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(0..=text.len());
            match rng.u8(0..3) {
                0 => text.truncate(at),
                1 if at < text.len() => drop(text.remove(at)),
                _ => drop(text.splice(at..at, bits[rng.usize(..bits.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        match read(&text) {
            Ok(table) => {
                read_whole += 1;
                assert!(table.pools.values().all(|points| points.is_sorted_by_key(|(at, _)| *at)), "seed {seed}");
            }
            Err(mistake) => {
                refused += 1;
                let line = text.lines().nth(mistake.line - 1).unwrap_or_default();
                assert!(mistake.column <= line.chars().count() + 2, "seed {seed}: {mistake}: {text:?}");
            }
        }
    }
    assert!(read_whole > 200 && refused > 50_000, "{read_whole} were read and {refused} refused");
}
