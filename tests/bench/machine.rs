//! What the figures were taken on.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::agent;
use crate::support::control_plane::root;

/// Machine, date, commit and binary.
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "loadBefore": read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        "date": jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        "commit": commit(),
        "agent": if std::env::var_os("SPOTKEEPER_AGENT").is_some() { "SPOTKEEPER_AGENT" } else { "debug build" },
        "agentVersion": output(Command::new(agent::binary()).arg("--version")),
    })
}

fn commit() -> String {
    output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()))
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    output.unwrap_or_default()
}

/// Where the figures go, unless `SPOTKEEPER_BENCH_JSON` says otherwise: beside what Cargo builds.
pub fn default_json() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.json")
}
