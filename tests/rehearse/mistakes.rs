//! Scenarios and command lines that cannot be used: what is said of them, and where.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use spotkeeper::cli::scenario;

use super::{pool, rehearse, text, with};

#[test]
fn a_mistake_is_named_with_its_place_and_what_was_expected() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.yaml");
    let interrupts = |nodes: &str| with(&format!("steps:\n- {{at: 5s, do: {{interrupt: {{nodes: {nodes}}}}}}}"));
    for (yaml, expected) in [
        (with("stepz: []"), "line 4, column 1: unknown field `stepz`, expected one of description, duration"),
        (with("cloud: {boot: -5s}"), "line 4, column 15: `-5s` is not a duration; write it like 500ms, 5s, 10m or 1h"),
        (interrupts("{zone: eu-west-9z}"), "there is no zone `eu-west-9z`; there are eu-west-1a, eu-west-1b"),
        (interrupts("everything"), "line 5, column"),
        (
            with("steps:\n- {at: 5s, do: {pools: {capacityType: spot, instanceType: m9z.large, left: 0}}}"),
            "line 5, column 59: there is no instance type `m9z.large`; there are m7g.2xlarge",
        ),
        (with("workloads: [{name: web, kind: Deployment, replicas: 2}]"), "`web`: write it as namespace/name"),
        (
            with("workloads: [{name: a/b, kind: Provisioner, replicas: 2}]"),
            "line 4, column 31: unknown variant `Provisioner`, expected one of Deployment, StatefulSet, Job, Pod",
        ),
        (with("cloud: {zones: [a, a]}"), "line 4, column 20: `a`: cloud.zones: at least one, none twice"),
        (
            with("steps:\n- {at: 1s, do: noFaults, repeat: {every: 0s, times: 3}}"),
            "line 5, column 42: a step is repeated",
        ),
        (with("steps:\n- {at: 1s, do: {refuse: {capacityType: spot, code: Nonsense}}}"), "`Nonsense` is no error code"),
        (with("steps:\n- {at: 1s, do: {killProvisioner: {replica: 7, down: 1s}}}"), "there is no replica 7"),
        (pool("limits: {nodez: 3}"), "line 4, column 38: unknown field `nodez`, expected one of cpu, memory, nodes"),
        (pool("limits: {cpu: -4}"), "line 4, column 43: NodePool general: limits.cpu: `-4`"),
        (
            pool("fallback: {onDemandFloor: some}"),
            "line 4, column 55: NodePool general: fallback.onDemandFloor: `some`",
        ),
        (
            pool("fallback: {order: [spot, spot]}"),
            "line 4, column 47: NodePool general: fallback.order: names spot twice",
        ),
        (pool("fallback: {spotPatience: soon}"), "line 4, column 54: NodePool general: fallback.spotPatience: `soon`"),
        (pool("fallback: {maxHourlyFallbackCost: $3}"), "line 4, column 63: NodePool general: fallback.maxHourly"),
        (
            pool("fallback: {returnToSpot: {surge: -1}}"),
            "line 4, column 62: NodePool general: fallback.returnToSpot.surge",
        ),
        (
            pool("interruption: {margin: 90s}"),
            "line 4, column 52: NodePool general: interruption.margin: more than 60s",
        ),
        (
            pool("requirements: [{key: kubernetes.io/arch, operator: In, values: [riscv64]}]"),
            "line 4, column 44: NodePool general: requirements[0]: nothing that EC2 offers here meets it",
        ),
        (with("nodePools: [{name: a}, {name: a}]"), "line 4, column 31: `a`: every NodePool has a name of its own"),
        (with("workloads: [{name: a/b, kind: Pod, replicas: 1, nodePool: gpu}]"), "there is no NodePool `gpu`"),
        (
            with("cloud: {reservations: [{instanceType: m9z.large, zone: eu-west-1a, left: 1}]}"),
            "line 4, column 39: there",
        ),
        ("description: a test\nduration: 5m\nnodes: []".into(), "line 3, column 8: nodes: 0 in all; 1 to 20000"),
        ("description: [".into(), "line 1"),
    ] {
        refused(&file, &yaml, expected);
    }
}

/// What a slip of the pen would else have come to: nothing at all, or something that was not meant.
#[test]
fn what_would_do_nothing_or_something_else_is_a_mistake_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("mine.yaml");
    let step = |what: &str| with(&format!("steps: [{{at: 5s, do: {what}}}]"));
    let workload = |what: &str| with(&format!("workloads: [{{name: a/b, kind: Job, replicas: 1, {what}}}]"));
    let types =
        |what: &str| with(&format!("cloud: {{instanceTypes: [{{name: a.b, {what}, spot: 0.1, onDemand: 1}}]}}"));
    for (yaml, expected) in [
        ("duration: 5m\nnodes: [{count: 1}]".into(), "missing field `description`"),
        ("description: x\nduration: 0s\nnodes: [{count: 1}]".into(), "line 2, column 11: it takes some time"),
        ("description: x\nduration: 1m\nduration: 2m".into(), "line 3, column 1: `duration` is there twice"),
        (String::new(), "it ends too early, or is empty"),
        ("[]".into(), "line 1, column 1: fields and their values are expected here"),
        ("description: x\nduration: 5m\nnodes: [{count: 1.5}]".into(), "`1.5`: a whole number, 0 or more, is expected"),
        (workload("maxUnavailable: 50%"), "line 4, column 65: `50%`: a whole number, 0 or more, is expected here"),
        (workload("grace: 1500ms"), "line 4, column 56: `1500ms`: a grace is whole seconds"),
        (workload("checkpointEvery: 0s"), "it takes some time: more than 0s"),
        (workload("cpuMillis: 9000"), "line 4, column 60: cpuMillis: 9000, and no instance type of this scenario has"),
        (with("workloads: [{name: a/b/c, kind: Job, replicas: 1}]"), "`a/b/c`: write it as namespace/name"),
        (
            with("workloads: [{name: a/b, kind: Job, replicas: 1}, {name: a/b, kind: Pod, replicas: 1}]"),
            "line 4, column 57: `a/b` is there already",
        ),
        (with("workloads: {name: a/b}"), "line 4, column 12: a list is expected here"),
        (with("settings: {margin: 10m}"), "line 4, column 20: margin: more than 60s"),
        (with("settings: {spotPatience: 25h}"), "line 4, column 26: spotPatience: more than 24h"),
        (with("settings: {order: []}"), "line 4, column 19: order: at least one"),
        (with("settings: {order: [spot, spot]}"), "line 4, column 19: order: names spot twice"),
        (with("faults: {ec2AnswerLost: 0}"), "line 4, column 25: one in 0: 1 (every one) or more"),
        (types("vcpus: 4294967295, memoryGiB: 1"), "line 4, column 44: vcpus: 4294967295 of them; 1 to"),
        (types("vcpus: 1, memoryGiB: 18446744073709551615"), "memoryGiB: 18446744073709551615 GiB; 1 to"),
        (types("vcpus: 0, memoryGiB: 1"), "vcpus: 0 of them"),
        (types("vcpus: 4294967296, memoryGiB: 1"), "line 4, column 44: `4294967296`: that is too large"),
        (types("vcpus: cheap, memoryGiB: 1"), "`cheap`: a whole number, 0 or more, is expected here"),
        (with("cloud: {instanceTypes: []}"), "line 4, column 24: cloud.instanceTypes: at least one"),
        (with("cloud: {createFleetBucket: [0, 5]}"), "line 4, column 28: cloud.createFleetBucket"),
        (step("{interrupt: {nodes: {node: 99}}}"), "line 4, column 49: there is no node 99: at first they are 0 to 2"),
        (step("{interrupt: {nodes: {some: {from: 1, count: 3}}}}"), "there is no node 3: at first they are 0 to 2"),
        (
            step("{rebalance: {nodes: {some: {from: 18446744073709551615, count: 2}}}}"),
            "there is no node 18446744073709551615",
        ),
        (
            "description: x\nduration: 5m\nnodes: [{count: 1, capacityType: on-demand}]\n\
             steps: [{at: 5s, do: {interrupt: {nodes: {node: 0}}}}]"
                .into(),
            "node 0 is on-demand: AWS interrupts spot nodes",
        ),
        (step("{pools: {capacityType: spot, left: 0, takesPercent: 250}}"), "250 of a hundred: 0 to 100"),
        (
            step("{pools: {capacityType: reserved, left: 0}}"),
            "line 4, column 45: there is no such pool: none of `cloud.r",
        ),
        (step("{interrupt: {nodes: spot}, rebalance: {nodes: spot}}"), "write what else is to happen as another entry"),
        (with("steps: [{at: 5m, do: noFaults}]"), "line 4, column 14: it is over by then"),
        (
            format!("description: x\nduration: 5m\nnodes:\n{}", "- {count: 1}\n".repeat(90_000)),
            "larger than any scenario",
        ),
    ] {
        refused(&file, &yaml, expected);
    }
    // What is there without a value is as if it were not there.
    let empty = with("workloads:\ncloud:\nsettings:\nfaults:\nsteps:\nnodePools:");
    assert!(
        scenario::read("empty", &empty).is_ok_and(|of| of.nodes.len() == 1),
        "{:?}",
        scenario::read("e", &empty).err()
    );
}

#[track_caller]
fn refused(file: &Path, yaml: &str, expected: &str) {
    std::fs::write(file, yaml).expect("it can be written");
    let output = rehearse(&[file.to_str().expect("UTF-8")]);
    let said = text(&output.stderr);
    let yaml = yaml.get(..300).unwrap_or(yaml);
    assert_eq!(output.status.code(), Some(64), "{yaml}\n{said}");
    assert!(said.contains("mine.yaml: ") && said.contains(expected), "{expected}: {yaml}\n{said}");
}

#[test]
fn what_is_no_file_no_text_or_on_standard_input_is_called_by_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, b"a\n\xff\xff").expect("it can be written");
    let garbage = garbage.to_str().expect("UTF-8");
    for (args, named) in [
        (&[garbage][..], "garbage: line 2: it is no text (UTF-8)\n"),
        (&["no-such-scenario"], "no-such-scenario: No such file or directory (os error 2); it is no shipped scenario"),
        (&["single-notice", "--seed", "18446744073709551615", "--seeds", "2"], "the last seed is 18446744073709551615"),
        (&["single-notice", "--seeds", "-1"], "'-1' for '--seeds <M>'"),
    ] {
        let output = rehearse(args);
        assert!(output.status.code() == Some(64) && text(&output.stderr).contains(named), "{args:?}: {output:?}");
    }
    let of = |input: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spotkeeper"));
        command.args(["rehearse", "-", "--output", "json"]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary is built");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let output = of(&format!("\u{feff}{}", with("")));
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    assert_eq!(text(&of(&with("stepz: []")).stderr).split(": line").next(), Some("spotkeeper: standard input"));
}
