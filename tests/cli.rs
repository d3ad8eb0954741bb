//! What a person sees who starts the agent wrongly.

use std::process::{Command, Output};

fn run(args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spotkeeper-agent"))
        .args(args)
        .env_clear()
        .env("KUBECONFIG", "no/such/kubeconfig")
        .output()
        .expect("the agent can be started");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[test]
fn a_mistake_on_the_command_line_is_named_and_ends_with_64() {
    for (args, named) in [
        (&["--node-name", "a", "--no-such-flag"][..], "--no-such-flag"),
        (&["--node-name", "a", "--margin", "soon"], "--margin"),
        (&["--node-name", "a", "--rebalance", "Sometimes"], "--rebalance"),
        (&["--node-name", "a", "--queue-readers", "0"], "--queue-readers"),
        (&["--node-name", "a", "--imds-endpoint", "https://169.254.169.254"], "--imds-endpoint"),
        (&["--node-name", "a", "--imds-endpoint", "169.254.169.254"], "http://169.254.169.254"),
        (&["--node-name", "a", "--imds-endpoint", "http://169.254.169.254/latest"], "--imds-endpoint"),
        (&["--node-name", "a", "--imds-interval", "10ms"], "--imds-interval"),
        (&["--node-name", "a", "--imds-interval", "1h"], "--imds-interval"),
        (&["--node-name", "a", "--scheduled-lead", "18446744073709551s"], "more than a year"),
        (&["--node-name", "a", "--margin", "5"], "5s"),
        (&["--node-name", "a", "--margin", "2m"], "--margin"),
        (&["--node-name", "a", "--pod-access", "root"], "--pod-access"),
        (&["--node-name", "a", "--queue-url", "spotkeeper"], "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"),
        (&["--node-name", "a", "--queue-url", "https://example.com"], "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"),
        (&["--node-name", "a", "--admin-listen", "9732"], "0.0.0.0:9732"),
        (&["--node-name", "a", "--notice-file", "/"], "--notice-file"),
        (&["--node-name", "a", "--log", "loud"], "`loud` is not a level"),
        (&["--node-name", "a", "--log-format", "xml"], "--log-format"),
        (&["--node-name", ""], "--node-name"),
        (&["--prepare-notice-dir", "/tmp/x", "--node-name", "a"], "--prepare-notice-dir"),
        (&["a"], "unexpected argument"),
        (&["--queue-only"], "--queue-url"),
        (&[], "--node-name"),
    ] {
        let (output, text) = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
}

/// Runs it with this in its environment and nothing else; returns its exit code and what it says.
fn run_with(env: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spotkeeper-agent"))
        .args(args)
        .args(["--admin-listen", "127.0.0.1:0"])
        .env_clear()
        .env("KUBECONFIG", "no/such/kubeconfig")
        .envs(env.iter().copied())
        .output()
        .expect("the agent can be started");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

#[test]
fn a_mistake_in_the_environment_is_named_by_its_flag_and_ends_with_64() {
    for (env, named) in [
        (("SPOTKEEPER_MARGIN", "soon"), "--margin"),
        (("SPOTKEEPER_DRY_RUN", "maybe"), "--dry-run"),
        (("SPOTKEEPER_QUEUE_URL", ""), "--queue-url"),
        (("SPOTKEEPER_QUEUE_READERS", "many"), "--queue-readers"),
        (("SPOTKEEPER_LOG", ""), "--log"),
        (("POD_NAMESPACE", ""), "--namespace"),
    ] {
        let (code, text) = run_with(&[env, ("NODE_NAME", "a")], &[]);
        assert_eq!(code, Some(64), "{env:?}: {text}");
        assert!(text.contains(named), "{env:?}: {text}");
    }
    let (code, text) = run_with(&[("NODE_NAME", "")], &[]);
    assert!(code == Some(64) && text.contains("--node-name"), "{text}");
}

#[test]
fn an_environment_that_cannot_work_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let kubeconfig = |text: &str| {
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let to = |server: &str| {
        format!(
            "{{apiVersion: v1, kind: Config, current-context: x, clusters: [{{name: c, cluster: {{server: '{server}'}}}}], \
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{token: t}}}}]}}"
        )
    };
    for (config, named) in
        [("clusters: [", "KUBECONFIG"), (&to("nonsense"), "nonsense"), (&to("10.0.0.1:6443"), "10.0.0.1:6443")]
    {
        let (code, text) =
            run_with(&[("KUBECONFIG", &kubeconfig(config)), ("NODE_NAME", "a")], &["--log-format", "json"]);
        assert_eq!(code, Some(1), "{text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.contains("\"ERROR\"") && last.contains(named), "{named}: {text}");
    }
    // A queue whose URL names no region, where the environment names none either.
    let reader = &["--queue-only", "--queue-url", "http://127.0.0.1:1/123456789012/q"];
    let kubeconfig = kubeconfig(&to("http://127.0.0.1:1"));
    let (code, text) = run_with(&[("KUBECONFIG", &kubeconfig), ("AWS_EC2_METADATA_DISABLED", "true")], reader);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("set AWS_REGION") && !text.contains("WARN"), "{text}");
}

#[test]
fn why_it_ends_is_said_also_where_its_log_is_off() {
    let (code, text) = run_with(&[("NODE_NAME", "a")], &["--log", "off"]);
    assert!(code == Some(1) && text.contains("KUBECONFIG"), "{text}");
}

#[test]
fn help_and_version_end_with_0() {
    let (output, text) = run(&["--help"]);
    assert!(output.status.success() && text.contains("SPOTKEEPER_QUEUE_URL"), "{text}");
    let (output, text) = run(&["--version"]);
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn without_an_api_server_it_says_what_to_configure() {
    let (output, text) = run(&["--node-name", "a", "--admin-listen", "127.0.0.1:0", "--notice-listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("KUBECONFIG"), "{text}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (output, text) = run(&["--node-name", "a", "--admin-listen", &address]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("--admin-listen") && text.contains(&address), "{text}");
}
