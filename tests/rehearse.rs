//! The command `spotkeeper rehearse`: what is shipped, what it says, and what it makes of mistakes.

#[path = "rehearse/mistakes.rs"]
mod mistakes;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use spotkeeper::cli::{scenario, shipped};

fn rehearse(args: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_spotkeeper")).arg("rehearse").args(args).output();
    command.expect("the binary is built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is UTF-8")
}

#[test]
fn every_shipped_scenario_holds_every_invariant() {
    let judged = |(name, text): &(&str, &str)| {
        let scenario = scenario::read(name, text).unwrap_or_else(|mistake| panic!("{name}: {mistake}"));
        let outcome = scenario.judge().outcome;
        assert!(outcome.findings.is_empty(), "{name}: {:?}", outcome.findings);
        let launched = outcome.calls.instances_launched > 0;
        assert!(launched && outcome.work.events > 1_000, "{name}: a rehearsal in which nothing happens proves nothing");
    };
    let (even, odd): (Vec<_>, Vec<_>) = shipped::ALL.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    std::thread::scope(|scope| {
        for half in [even, odd] {
            scope.spawn(move || half.into_iter().for_each(|(_, one)| judged(one)));
        }
    });
}

#[test]
fn the_list_names_what_is_shipped_and_says_what_it_is() {
    let output = rehearse(&["--list"]);
    let list = text(&output.stdout);
    assert_eq!(list.lines().count(), shipped::ALL.len());
    for (line, (name, _)) in list.lines().zip(shipped::ALL) {
        assert!(line.starts_with(name) && line.len() > 40, "{line}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_another_story() {
    let of = |seed: &str| rehearse(&["gpu-training", "--seed", seed]).stdout;
    let (first, again, other) = (of("7"), of("7"), of("8"));
    assert!(first == again && first != other && first.len() > 2_000);
    let told = text(&first);
    for words in ["time to capacity", "pod-seconds", "killed hard", "launch calls", "all on-demand $", "all held"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn many_seeds_are_summed_up_and_json_has_one_line_for_each() {
    let output = rehearse(&["single-notice", "--seeds", "5"]);
    assert!(text(&output.stdout).contains("5 seeds: 5 of 5 nodes replaced"), "{output:?}");
    let output = rehearse(&["single-notice", "--seeds", "3", "--seed", "10", "--output", "json"]);
    let seeds: Vec<u64> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"))
        .map(|outcome| outcome["seed"].as_u64().expect("a seed"))
        .collect();
    assert_eq!(seeds, [10, 11, 12]);
}

#[test]
fn a_page_is_written_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("page.html");
    let output = rehearse(&["single-notice", "--html", file.to_str().expect("UTF-8")]);
    assert!(output.status.success());
    assert!(std::fs::read_to_string(&file).expect("it is there").contains("<title>Rehearsal</title>"));
    let nowhere = rehearse(&["single-notice", "--html", "/nowhere/page.html"]);
    assert_eq!(nowhere.status.code(), Some(74));
    assert!(text(&nowhere.stderr).contains("--html /nowhere/page.html") && nowhere.stdout.is_empty(), "{nowhere:?}");
}

/// The comparison of a shipped scenario as JSON, by policy.
fn compared(args: &[&str]) -> std::collections::BTreeMap<String, serde_json::Value> {
    let output = rehearse(&[args, &["--against", "cluster-autoscaler,karpenter,handler", "--output", "json"]].concat());
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let columns = outcome["comparison"].as_array().expect("a comparison").clone();
    columns.into_iter().map(|one| (one["policy"].as_str().expect("a name").to_owned(), one)).collect()
}

#[test]
fn tiers_starve_a_model_of_cluster_autoscaler_and_not_ours() {
    let minutes = |of: &serde_json::Value| of["firstOnDemandMs"].as_f64().map(|ms| ms / 60_000.0);
    // 48 groups: never. Of two the table of L1 says 97 minutes; of eight whose failures are seen within two, 50.
    for (set, expected) in [
        (&["tier-starvation"][..], None),
        (&["tier-starvation", "--autoscaler-groups", "2"], Some(97.0)),
        (&["tier-starvation", "--autoscaler-groups", "8", "--autoscaler-notices", "2m"], Some(50.0)),
    ] {
        let columns = compared(set);
        let autoscaler = minutes(&columns["cluster-autoscaler"]);
        let near = |(said, table): (f64, f64)| (said - table).abs() <= 1.0;
        assert!(autoscaler.is_some() == expected.is_some() && autoscaler.zip(expected).is_none_or(near), "{set:?}");
        let ours = &columns["spotkeeper"];
        assert!(minutes(ours).is_some_and(|minutes| minutes < 0.1) && ours["missingNodeMs"] == 0, "{ours}");
        assert_eq!((&columns["handler"]["served"], &columns["handler"]["launchCalls"]), (&0.into(), &0.into()));
    }
}

#[test]
fn a_comparison_is_labelled_and_what_it_cannot_say_has_a_reason() {
    let columns = compared(&["spot-outage"]);
    for (policy, column) in &columns {
        assert_eq!(column["doomed"], 12, "all see the same notices");
        assert_eq!(column["model"], *policy != "spotkeeper", "{policy}");
        for field in ["unavailablePodMs", "cost"] {
            let said = column[field].is_number();
            assert!(said != column["unsaid"][field].is_string(), "{policy}: {field}: {column}");
        }
    }
    let output = rehearse(&["single-notice", "--against", "karpenter,handler", "--seeds", "3"]);
    let told = text(&output.stdout);
    for words in ["medians of 3 worlds", "karpenter (model)", "3 of 3", "0 of 3", "never", "leaves out consolidation"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let page = dir.path().join("page.html");
    rehearse(&["single-notice", "--against", "karpenter", "--html", page.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(page).expect("it is there");
    assert!(page.contains("karpenter (model)") && page.contains("capacity missing"));
}

/// All fields of a JSON value, however deep; names that are data (capacity types, what is not said of a policy) left out.
fn fields(of: &serde_json::Value, all: &mut std::collections::BTreeSet<String>) {
    match of {
        serde_json::Value::Object(map) => map.iter().for_each(|(name, value)| {
            all.insert(name.clone());
            if !["byCapacityType", "askedMs", "unsaid"].contains(&name.as_str()) {
                fields(value, all);
            }
        }),
        serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, all)),
        _ => {}
    }
}

#[test]
fn the_page_of_the_docs_has_every_field_of_the_json() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rehearse.md");
    let docs = std::fs::read_to_string(docs).expect("it is there");
    let output = rehearse(&["gpu-training", "--against", "karpenter", "--output", "json"]);
    let outcome = serde_json::from_slice(&output.stdout).expect("one object");
    let mut all = std::collections::BTreeSet::new();
    fields(&outcome, &mut all);
    let says = |name: &&String| docs.contains(&format!("`{name}`")) || docs.contains(&format!("`{name}[]`"));
    let missing: Vec<&String> = all.iter().filter(|name| !says(name)).collect();
    assert!(all.len() > 60 && missing.is_empty(), "docs/rehearse.md does not mention {missing:?}");
}

/// The README's table has two scenarios; what it says of them is what comes.
#[test]
fn the_readme_shows_what_comes() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let time = |ms: &serde_json::Value| match ms.as_f64() {
        None => "never".to_owned(),
        Some(ms) if ms < 100_000.0 => format!("{:.1} s", ms / 1_000.0),
        Some(ms) => format!("{:.0} min", ms / 60_000.0),
    };
    let both = |of: &serde_json::Value| match (of["halfReadyMs"].as_f64(), of["allReadyMs"].as_f64()) {
        (Some(half), Some(all)) if all < 100_000.0 => format!("{:.0} / {:.0} s", half / 1_000.0, all / 1_000.0),
        (Some(half), Some(all)) => format!("{:.0} / {:.0} min", half / 60_000.0, all / 60_000.0),
        _ => "never".to_owned(),
    };
    let one = |of: &serde_json::Value| match of["allReadyMs"].as_f64() {
        Some(ms) => format!("{:.0} s", ms / 1_000.0),
        None => "never".to_owned(),
    };
    type Said<'a> = &'a dyn Fn(&serde_json::Value) -> String;
    let asked: Said = &|of| time(&of["firstOnDemandMs"]);
    let missing: Said = &|of| {
        let seconds = of["missingNodeMs"].as_u64().expect("a number") / 1_000;
        if seconds < 1_000 { seconds.to_string() } else { format!("{},{:03}", seconds / 1_000, seconds % 1_000) }
    };
    let calls: Said = &|of| {
        let an_hour = of["launchCallsAnHour"].as_f64().expect("a number");
        if an_hour == 0.0 { "0".to_owned() } else { format!("{an_hour:.1}") }
    };
    let of_outage: [(&str, Said); 4] = [
        ("on-demand asked for after", asked),
        ("half / all of them replaced after", &both),
        ("node-seconds with nothing in the place of what was taken", missing),
        ("launch calls an hour", calls),
    ];
    let of_tiers: [(&str, Said); 2] = [("on-demand asked for after", asked), ("replaced after", &one)];
    for (scenario, rows) in [("spot-outage", &of_outage[..]), ("tier-starvation", &of_tiers)] {
        let columns = compared(&[scenario]);
        for (name, said) in rows {
            let cells = ["spotkeeper", "cluster-autoscaler", "karpenter", "handler"].map(|of| said(&columns[of]));
            let row = format!("| {name} | {} |", cells.join(" | "));
            assert!(readme.contains(&row), "README.md shows another row for {scenario}: copy this one into it:\n{row}");
        }
    }
}

/// A scenario with this in the place of its steps.
fn with(rest: &str) -> String {
    format!("description: a test\nduration: 5m\nnodes: [{{count: 3}}]\n{rest}\n")
}

/// A scenario with a NodePool of which this is said.
fn pool(says: &str) -> String {
    with(&format!("nodePools: [{{name: general, {says}}}]"))
}

#[test]
fn a_reader_that_has_read_enough_changes_nothing_of_the_verdict() {
    for args in
        [&["spot-outage"][..], &["spot-outage", "--output", "json"], &["single-notice", "--seeds", "2"], &["--list"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
        let mut child = command
            .arg("rehearse")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_spotkeeper"))
        .args(["rehearse", "single-notice"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("it ends");
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output.stderr).contains("standard output: No space left"), "{output:?}");
}

#[test]
fn a_command_line_that_cannot_be_used_is_refused_with_64() {
    for args in [
        &["no-such-scenario"][..],
        &[],
        &["single-notice", "--seeds", "0"],
        &["single-notice", "--output", "pdf"],
        &["single-notice", "--against", "spotkeeper"],
        &["single-notice", "--autoscaler-groups", "2"],
        &["single-notice", "--against", "karpenter", "--autoscaler-notices", "0s"],
    ] {
        let output = rehearse(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn any_text_is_a_scenario_or_a_mistake() {
    bolero::check!().with_type::<String>().for_each(|text: &String| drop(scenario::read("fuzzed", text)));
    // Near misses: a good one with one byte changed.
    let (name, good) = shipped::ALL[2];
    bolero::check!().with_type::<(u16, u8)>().for_each(|(at, byte): &(u16, u8)| {
        let mut bytes = good.as_bytes().to_vec();
        let at = usize::from(*at) % bytes.len();
        bytes[at] = *byte;
        if let Ok(text) = String::from_utf8(bytes) {
            drop(scenario::read(name, &text));
        }
    });
}

#[test]
fn the_page_of_the_docs_has_every_word_of_a_scenario() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rehearse.md");
    let docs = std::fs::read_to_string(docs).expect("it is there");
    for (name, _) in shipped::ALL {
        assert!(docs.contains(&format!("`{name}`")), "docs/rehearse.md does not mention {name}");
    }
    for (_, column) in compared(&["single-notice"]) {
        for (field, _) in column.as_object().expect("an object") {
            assert!(docs.contains(&format!("`{field}`")), "docs/rehearse.md does not mention {field}");
        }
    }
    // What the reader expects where it meets a word that it does not know is every word there is.
    let nonsense = "{nonsense: 1}";
    for place in ["nonsense: 1", "cloud: {nonsense: 1}", "settings: {nonsense: 1}", "faults: {nonsense: 1}"] {
        expected_words(&with(place), &docs);
    }
    for place in ["limits", "fallback", "interruption"] {
        expected_words(&pool(&format!("{place}: {nonsense}")), &docs);
    }
    expected_words(&pool("fallback: {returnToSpot: {nonsense: 1}}"), &docs);
    expected_words(&with("cloud: {reservations: [{nonsense: 1}]}"), &docs);
    expected_words(&with("cloud: {instanceTypes: [{nonsense: 1}]}"), &docs);
    for place in ["workloads", "steps", "nodePools"] {
        expected_words(&with(&format!("{place}: [{nonsense}]")), &docs);
    }
    expected_words(&with(&format!("steps: [{{at: 1s, do: {nonsense}}}]")), &docs);
    expected_words(&with(&format!("steps: [{{at: 1s, do: {{rebalance: {{nodes: {nonsense}}}}}}}]")), &docs);
    let example = docs.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    assert!(scenario::read("example", example).expect("it is valid").judge().outcome.findings.is_empty());
    let pools = docs.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next()).expect("another one");
    let pools = scenario::read("pools", &format!("{}{pools}", with(""))).expect("it is valid");
    assert_eq!(pools.pools.len(), 1);
}

#[track_caller]
fn expected_words(yaml: &str, docs: &str) {
    let mistake = scenario::read("probe", yaml).expect_err("it is nonsense").to_string();
    let (_, words) = mistake.split_once("expected one of ").unwrap_or_else(|| panic!("{mistake}"));
    for word in words.split(", ").map(|word| word.trim_matches(['`', ' '])) {
        assert!(docs.contains(&format!("`{word}`")), "docs/rehearse.md does not mention `{word}`");
    }
}

#[test]
fn a_trace_beside_the_scenario_is_followed_and_its_mistakes_are_named_by_both_lines() {
    let dir = tempfile::tempdir().expect("a folder");
    let (scenario, table) = (dir.path().join("s.yaml"), dir.path().join("t.csv"));
    let yaml = "description: x\nduration: 1h\ncloud:\n  trace: {file: t.csv}\nnodes: [{count: 3}]\n";
    std::fs::write(&scenario, yaml).expect("it can be written");
    let run = |rows: &str| {
        std::fs::write(&table, format!("instance_type,zone,from,until\n{rows}")).expect("it can be written");
        rehearse(&[scenario.to_str().expect("UTF-8"), "--output", "json"])
    };
    for (rows, named) in [
        ("m7g.2xlarge,eu-west-1a,0s,soon\n", "line 4, column 17: t.csv, line 2, column 27: `soon` is no time"),
        ("m9.large,eu-west-1a,0s,10m\n", "t.csv, line 2: m9.large@eu-west-1a: the scenario has the instance types m7g"),
        ("m7g.2xlarge,mars-1a,0s,10m\n", "mars-1a: the scenario has the zones eu-west-1a"),
    ] {
        let output = run(rows);
        assert!(output.status.code() == Some(64) && text(&output.stderr).contains(named), "{output:?}");
    }
    let output = run("m7g.2xlarge,eu-west-1a,0s,10m\nm7g.2xlarge,eu-west-1a,20m,2h\n");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(outcome["capacity"]["ready"], 1, "the node of the pool that ran dry is replaced");
    let pools = outcome["timelines"]["pools"].as_array().expect("a list");
    let dry = |pool: &&serde_json::Value| pool["truth"].as_array().is_some_and(|truth| truth.len() == 3);
    assert_eq!(pools.iter().filter(dry).count(), 1);
    std::fs::remove_file(&table).expect("it is there");
    let output = rehearse(&[scenario.to_str().expect("UTF-8")]);
    assert!(text(&output.stderr).contains("t.csv: No such file"), "{output:?}");
}

#[test]
fn so_many_times_a_scenario_has_so_many_times_its_nodes() {
    let output = rehearse(&["zone-storm", "--times", "3", "--output", "json"]);
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(outcome["capacity"]["ready"], 18, "a third of 54 nodes is in the zone that is taken");
    let output = rehearse(&["thousand-nodes", "--times", "21"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("--times 21: nodes: 21000 in all"), "{output:?}");
}
