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
        (&["--queue-only"], "--queue-url"),
        (&[], "--node-name"),
    ] {
        let (output, text) = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
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
