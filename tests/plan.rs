//! `spotkeeper plan`: what it says of clusters as `kubectl get -o json` writes them, and what it makes of bad input.

#[path = "plan/changed.rs"]
mod changed;
#[path = "plan/missing.rs"]
mod missing;
#[path = "plan/mutated.rs"]
mod mutated;
#[path = "plan/rights.rs"]
mod rights;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const NODE: &str = "ip-10-0-1-11.eu-west-1.compute.internal";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/plan").join(name)
}

/// A cluster of the fixtures, to be changed.
fn cluster(name: &str) -> Value {
    let text = std::fs::read_to_string(fixture(name)).expect("the fixture is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Runs it with this on standard input.
fn plan_of(input: &[u8], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
    command.args(["plan", "--from", "-"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary is built");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Whoever refuses the command line reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// The plan as JSON.
fn planned(cluster: &Value, args: &[&str]) -> Value {
    let output = plan_of(cluster.to_string().as_bytes(), &[args, &["--output", "json"]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", said(&output));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn items(cluster: &mut Value) -> &mut Vec<Value> {
    cluster["items"].as_array_mut().expect("a list")
}

fn find<'a>(cluster: &'a mut Value, kind: &str, name: &str) -> &'a mut Value {
    let is = |item: &&mut Value| item["kind"] == kind && item["metadata"]["name"].as_str().unwrap().starts_with(name);
    items(cluster).iter_mut().find(is).unwrap_or_else(|| panic!("{kind} {name}"))
}

/// The one finding of this code.
fn finding<'a>(plan: &'a Value, code: &str) -> &'a Value {
    let all = plan["findings"].as_array().unwrap().iter().chain(plan["notes"].as_array().unwrap());
    let found: Vec<&Value> = all.filter(|one| one["code"] == code).collect();
    assert_eq!(found.len(), 1, "{code}: {plan:#}");
    found[0]
}

fn codes(plan: &Value) -> Vec<&str> {
    plan["findings"].as_array().unwrap().iter().map(|one| one["code"].as_str().unwrap()).collect()
}

fn pod<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let all = plan["pods"].as_array().unwrap();
    all.iter().find(|pod| pod["name"].as_str().unwrap().starts_with(name)).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn a_cluster_with_everything_is_told_for_people() {
    let file = fixture("shop.json");
    let command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"))
        .args(["plan", "--all-spot", "--prices"])
        .arg(fixture("prices.json"))
        .arg("--from")
        .arg(file)
        .output();
    let output = command.expect("the binary is built");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = String::from_utf8(output.stdout).unwrap();
    insta::assert_snapshot!("shop", told);
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    assert!(docs.contains(told.trim_end()), "docs/plan.md shows another output: copy this one into it");
}

#[test]
fn a_cluster_without_a_flaw_ends_with_zero() {
    let output = plan_of(cluster("quiet.json").to_string().as_bytes(), &["--nodes", NODE]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    insta::assert_snapshot!("quiet", String::from_utf8(output.stdout).unwrap());
}

#[test]
fn the_same_question_gets_the_same_answer_to_the_byte() {
    let text = cluster("shop.json").to_string();
    let of = |seed: &str| plan_of(text.as_bytes(), &["--all-spot", "--output", "json", "--seed", seed]).stdout;
    assert_eq!(of("3"), of("3"));
    assert!(serde_json::from_slice::<Value>(&of("3")).is_ok());
}

#[test]
fn several_files_and_lists_of_one_kind_are_one_cluster() {
    let mut shop = cluster("shop.json");
    let whole = planned(&shop, &["--all-spot"]);
    // The API server's own lists say the kind once; what is there twice is taken once.
    let mut stream = shop.to_string();
    let nodes: Vec<Value> = items(&mut shop).iter().filter(|item| item["kind"] == "Node").cloned().collect();
    let bare = |mut node: Value| {
        node.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion");
        node
    };
    let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items":
        nodes.into_iter().map(bare).collect::<Vec<_>>()});
    stream.push_str(&format!("\n{list}\n"));
    let output = plan_of(stream.as_bytes(), &["--all-spot", "--output", "json"]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), whole);
}

#[test]
fn what_cannot_be_read_is_named_and_ends_with_65() {
    let whole = cluster("quiet.json").to_string();
    let truncated = &whole.as_bytes()[..whole.len() - 100];
    for (input, named) in [
        (truncated, "no complete JSON"),
        (b"", "it is empty"),
        (b"[1, 2]", "no object of Kubernetes"),
        (b"error: the server doesn't have a resource type", "no complete JSON"),
        (br#"{"a": 1}"#, "no `kind`"),
        (br#"{"kind": "List", "items": 7}"#, "no list"),
        (br#"{"kind": "List", "items": []}"#, "no Node"),
        (br#"{"kind": "List", "items": null}"#, "no Node"),
        (b"{", "spotkeeper: standard input: it is no complete JSON"),
        (b"\xff\xfe{\0", "spotkeeper: standard input: it is UTF-16"),
        (b"{}\n\xff", "spotkeeper: standard input: line 2: it is no text"),
    ] {
        let output = plan_of(input, &["--all-spot", "--allow-incomplete"]);
        assert_eq!(output.status.code(), Some(65), "{named}: {}", said(&output));
        assert!(said(&output).contains(named), "{named}: {}", said(&output));
    }
    let nowhere = Command::new(env!("CARGO_BIN_EXE_spotkeeper"))
        .args(["plan", "--all-spot", "--from", "no/such/file"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(65));
    assert!(said(&nowhere).contains("--from no/such/file"), "{}", said(&nowhere));
}

#[test]
fn a_question_that_cannot_be_asked_ends_with_64() {
    let quiet = cluster("quiet.json").to_string();
    for (args, named) in [
        (&["--nodes", "no-such-node"][..], "no-such-node"),
        (&["--zone", "eu-west-1z"], "eu-west-1a, eu-west-1b, eu-west-1c"),
        (&["--zone", "eu-west-1c"], "--zone: no Node there says that it is a spot node"),
        (&[], "--nodes"),
        (&["--all-spot", "--zone", "eu-west-1a"], "cannot be used with"),
        (&["--all-spot", "--margin", "2m"], "--margin"),
        (&["--all-spot", "--order", "spot,spot"], "--order"),
        (&["--all-spot", "--order", "magic"], "--order"),
        (&["--all-spot", "--drain", "Later"], "--drain"),
        (&["--all-spot", "--node-boot", "1h"], "--node-boot"),
        (&["--all-spot", "--margin", "-5s"], "`-5s` is not a duration"),
        (&["--all-spot", "--seed", "-1"], "'-1' for '--seed <N>'"),
    ] {
        let output = plan_of(quiet.as_bytes(), args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(named), "{args:?}: {}", said(&output));
    }
}

/// All fields of a JSON value, however deep; capacity types, which are data, left out.
fn fields(of: &Value, all: &mut std::collections::BTreeSet<String>) {
    match of {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            all.insert(name.clone());
            if !["byCapacityType", "askedMs"].contains(&name.as_str()) {
                fields(value, all);
            }
        }),
        Value::Array(items) => items.iter().for_each(|item| fields(item, all)),
        _ => {}
    }
}

#[test]
fn the_page_of_the_docs_has_every_field_and_every_code() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plan.md")).unwrap();
    let (rest, json) = docs.split_once("## The JSON").expect("it is described");
    let plan = planned(&cluster("shop.json"), &["--all-spot"]);
    let mut all = std::collections::BTreeSet::new();
    fields(&plan, &mut all);
    let words: Vec<&str> = json.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let missing: Vec<&String> = all.iter().filter(|name| !words.contains(&name.as_str())).collect();
    assert!(all.len() > 50 && missing.is_empty(), "docs/plan.md does not mention {missing:?}");
    let source = include_str!("../src/plan/outcome.rs");
    let codes = source.split_once("pub enum Code {").and_then(|(_, rest)| rest.split_once('}')).expect("the codes").0;
    let codes = codes.lines().filter_map(|line| line.trim().strip_suffix(',')).filter(|line| !line.contains(' '));
    let mut seen = 0;
    for code in codes {
        let name = code.chars().flat_map(|c| c.is_ascii_uppercase().then_some('-').into_iter().chain(c.to_lowercase()));
        let name: String = name.collect();
        assert!(rest.contains(&format!("`{}`", &name[1..])), "docs/plan.md does not mention {}", &name[1..]);
        seen += 1;
    }
    assert!(seen > 20, "{seen} codes");
}

#[test]
fn a_price_file_or_a_list_of_types_with_nonsense_in_it_is_named_and_ends_with_65() {
    let (dir, quiet) = (tempfile::tempdir().unwrap(), cluster("quiet.json").to_string());
    let file = dir.path().join("it.json");
    for (flag, text, named) in [
        ("--prices", r#"{"m7g.large": "cheap"}"#, "not a JSON object of instance types and dollars an hour"),
        ("--prices", r#"{"m7g.large": "cheap"}"#, "expected f64 at line 1 column 21"),
        ("--prices", r#"{"m7g.large": -1}"#, "m7g.large costs -1"),
        ("--instance-types", "{}", "missing field `InstanceTypes` at line 1 column 2"),
        ("--instance-types", r#"{"InstanceTypes": []}"#, "there is no instance type in it"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = plan_of(quiet.as_bytes(), &["--all-spot", flag, file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(65), "{text}: {}", said(&output));
        assert!(said(&output).contains(named) && said(&output).contains(&format!("{flag} ")), "{}", said(&output));
    }
    let nowhere = plan_of(quiet.as_bytes(), &["--all-spot", "--prices", "no/such/file"]);
    assert!(said(&nowhere).contains("--prices no/such/file cannot be read: No such file"), "{}", said(&nowhere));
}

#[test]
fn a_reader_that_has_read_enough_changes_nothing_of_the_verdict() {
    for (name, output, verdict) in [("shop.json", "text", 1), ("shop.json", "json", 1), ("quiet.json", "json", 0)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
        command.args(["plan", "--all-spot", "--output", output, "--from"]).arg(fixture(name));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.code() == Some(verdict) && output.stderr.is_empty(), "{name}: {output:?}");
    }
}

#[test]
fn what_is_missing_is_said_and_only_left_out_where_that_is_asked_for() {
    let without = |kind: &str| {
        let mut shop = cluster("shop.json");
        items(&mut shop).retain(|item| item["kind"] != kind);
        shop
    };
    for (kind, named) in [
        ("PersistentVolumeClaim", "PersistentVolumeClaim shop/data-db-0 of Pod shop/db-0 is not in it"),
        ("PersistentVolume", "PersistentVolume pvc-11112222 of Pod shop/db-0 is not in it"),
        ("NodePool", "NodePool general"),
        ("EC2NodeClass", "EC2NodeClass default of NodePool general"),
        ("Pod", "no Pod is in it"),
    ] {
        let text = without(kind).to_string();
        let strict = plan_of(text.as_bytes(), &["--all-spot"]);
        assert_eq!(strict.status.code(), Some(65), "{kind}: {}", said(&strict));
        assert!(said(&strict).contains(named), "{kind}: {}", said(&strict));
        let lenient = plan_of(text.as_bytes(), &["--all-spot", "--allow-incomplete"]);
        assert!(matches!(lenient.status.code(), Some(0 | 1)), "{kind}: {}", said(&lenient));
        assert!(said(&lenient).contains("Not known, and left out"), "{kind}: {}", said(&lenient));
    }
}
