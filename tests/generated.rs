//! What is generated from the Rust types and checked in: `make generate` writes it, this test compares it.

use std::path::Path;

use kube::CustomResourceExt;
use spotkeeper::api::interruption::Interruption;

/// Compares `generated` with the file; with `SPOTKEEPER_GENERATE=1` writes it instead.
fn compare(path: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("SPOTKEEPER_GENERATE").is_some() {
        std::fs::write(&file, generated).expect("the file can be written");
    }
    let checked_in = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        checked_in == generated,
        "{path} is not what the Rust types say: run `make generate` and commit the result"
    );
}

#[test]
fn the_interruption_crd_is_the_one_of_the_rust_type() {
    let mut crd = serde_json::to_value(Interruption::crd()).expect("a CRD is JSON");
    // The derive leaves these to the API server; `kubectl diff` is quiet with them.
    crd["spec"]["names"]["listKind"] = "InterruptionList".into();
    let yaml = serde_saphyr::to_string(&crd).expect("JSON is YAML");
    compare(
        "manifests/crd/interruptions.yaml",
        &format!("# Generated from src/api/interruption.rs by `make generate`; do not edit.\n{yaml}"),
    );
}
