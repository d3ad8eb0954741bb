//! The command `spotkeeper trace`, and what a rehearsal makes of a trace.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn spotkeeper(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary is built");
    // Whoever refuses the command line reads nothing.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn records_that_cannot_be_used_are_called_by_the_name_of_their_input_and_end_with_65() {
    for (args, input, named) in [
        (&["-"][..], &b"{"[..], "spotkeeper: standard input: this is no JSON: "),
        (&[], b"", "spotkeeper: standard input: it is empty"),
        (&["-"], b"a\n\xff", "spotkeeper: standard input: line 2: it is no text"),
        (&["-"], b"\xff\xfe{\0", "spotkeeper: standard input: it is UTF-16"),
        (&["-"], br#"{"kind": "Launch", "metadata": {"name": "a"}}"#, "standard input: Launch a: spec: missing field"),
        (&["-"], br#"{"kind": "List", "items": []}"#, "spotkeeper: nothing in these records tells of a spot pool"),
        (&["no/such/file"], b"", "spotkeeper: no/such/file: No such file"),
    ] {
        let output = spotkeeper(&[&["trace", "import"], args].concat(), input);
        assert_eq!(output.status.code(), Some(65), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(named) && output.stdout.is_empty(), "{named}: {}", said(&output));
    }
}

#[test]
fn a_command_line_that_cannot_be_used_is_refused_with_64() {
    for (args, named) in [
        (&["generate"][..], "--pools"),
        (&["generate", "--pools", "m7g.large"], "like m7g.2xlarge@eu-west-1a"),
        (&["generate", "--pools", "a.b@c,a.b@c"], "--pools: a pool is there twice"),
        (&["generate", "--pools", "a.b@c", "--hours", "0"], "--hours"),
        (&["generate", "--pools", "a.b@c", "--hours", "-1"], "--hours"),
        (&["generate", "--pools", "a.b@c", "--seed", "-1"], "--seed"),
        (&["draw"], "draw"),
    ] {
        let output = spotkeeper(&[&["trace"], args].concat(), b"");
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(named), "{args:?}: {}", said(&output));
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
    command.args(["trace", "generate", "--pools", "a.b@c,d.e@c,f.g@c", "--hours", "8784"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// In over 92 of a hundred measured cases the interruptions of one pool fall within three minutes.
#[test]
fn what_a_pool_that_runs_dry_takes_it_takes_within_a_minute() {
    let dir = tempfile::tempdir().expect("a folder");
    let (scenario, table) = (dir.path().join("s.yaml"), dir.path().join("t.csv"));
    let yaml = "description: x\nduration: 1h\ncloud: {trace: {file: t.csv, takesPercent: 60}}\n\
                nodes: [{count: 30, zone: eu-west-1a}]\n";
    std::fs::write(&scenario, yaml).expect("it can be written");
    // As spreadsheets write it, with a mark before the first column.
    let rows = "\u{feff}instance_type,zone,from,until\nm7g.2xlarge,eu-west-1a,0s,10m\nm7g.2xlarge,eu-west-1a,40m,2h\n";
    std::fs::write(&table, rows).expect("it can be written");
    let output = spotkeeper(&["rehearse", scenario.to_str().expect("UTF-8"), "--output", "json"], b"");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let nodes = outcome["timelines"]["nodes"].as_array().expect("a list");
    let announced: Vec<u64> = nodes.iter().filter_map(|node| node["announcedMs"].as_u64()).collect();
    assert!((10..=25).contains(&announced.len()), "{} of 30 were taken, where 60 of a hundred are", announced.len());
    assert!(announced.iter().all(|at| (600_000..660_000).contains(at)), "{announced:?}");
}
