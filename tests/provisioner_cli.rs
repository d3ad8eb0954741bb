//! What a person sees who starts the provisioner wrongly.

use std::process::{Command, Output};

fn run(args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_spotkeeper-provisioner"))
        .args(args)
        .env_clear()
        .env("KUBECONFIG", "no/such/kubeconfig")
        .output()
        .expect("the provisioner can be started");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, text)
}

#[test]
fn a_mistake_on_the_command_line_is_named_and_ends_with_64() {
    for (args, named) in [
        (&["--pod-name", "a", "--no-such-flag"][..], "--no-such-flag"),
        (&["--pod-name", "a", "--order", "spot,magic"], "--order"),
        (&["--pod-name", "a", "--resync", "0s"], "--resync"),
        (&["--pod-name", "a", "--shortage-belief", "1s"], "--shortage-belief"),
        (&[], "--pod-name"),
    ] {
        let (output, text) = run(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
    }
}

#[test]
fn help_and_version_end_with_0() {
    let (output, text) = run(&["--help"]);
    assert!(output.status.success() && text.contains("SPOTKEEPER_ORDER"), "{text}");
    let (output, text) = run(&["--version"]);
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn a_price_file_with_nonsense_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.json");
    std::fs::write(&path, r#"{"m7g.large": "cheap"}"#).unwrap();
    let path = path.to_str().unwrap();
    let (output, text) = run(&["--pod-name", "a", "--admin-listen", "127.0.0.1:0", "--prices", path]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("prices.json") && text.contains("m7g.large"), "{text}");
}
