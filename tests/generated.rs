//! What is generated from the Rust types and checked in: `make generate` writes it, this test compares it.

use std::path::Path;

use kube::CustomResourceExt;
use spotkeeper::adapters::metrics;
use spotkeeper::api::interruption::Interruption;
use spotkeeper::api::launch::Launch;
use spotkeeper::api::node_claim::NodeClaim;
use spotkeeper::api::node_class::EC2NodeClass;
use spotkeeper::api::node_pool::NodePool;

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

/// Compares the CRD of a type with its file.
fn compare_crd<K: CustomResourceExt>(module: &str) {
    let crd = K::crd();
    let (kind, plural) = (crd.spec.names.kind.clone(), crd.spec.names.plural.clone());
    let mut crd = serde_json::to_value(crd).expect("a CRD is JSON");
    // The derive leaves these to the API server; `kubectl diff` is quiet with them.
    crd["spec"]["names"]["listKind"] = format!("{kind}List").into();
    let yaml = serde_saphyr::to_string(&crd).expect("JSON is YAML");
    let text = format!("# Generated from src/api/{module}.rs by `make generate`; do not edit.\n{yaml}");
    compare(&format!("manifests/crd/{plural}.yaml"), &text);
}

#[test]
fn the_crds_are_those_of_the_rust_types() {
    compare_crd::<Interruption>("interruption");
    compare_crd::<NodeClaim>("node_claim");
    compare_crd::<NodePool>("node_pool");
    compare_crd::<Launch>("launch");
    compare_crd::<EC2NodeClass>("node_class");
}

/// Compares what stands between `<!-- name -->` and `<!-- /name -->` in a page; or writes it.
fn compare_section(path: &str, name: &str, generated: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let page = std::fs::read_to_string(&file).expect("the page is there");
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = page.split_once(&open).unwrap_or_else(|| panic!("{path} has no `{}`", open.trim()));
    let (_, after) = rest.split_once(&close).unwrap_or_else(|| panic!("{path} has no `{close}`"));
    compare(path, &format!("{before}{open}{generated}{close}{after}"));
}

fn table<'a>(metrics: impl IntoIterator<Item = &'a metrics::Described>) -> String {
    let mut table = "| metric | labels | |\n|---|---|---|\n".to_owned();
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        table.push_str(&format!("| `{}` | {} | {} |\n", metric.name, labels.join(", "), metric.help));
    }
    table
}

#[test]
fn the_readme_lists_every_metric_as_it_is() {
    compare_section("README.md", "metrics", &table(metrics::agent::ALL.iter().chain(metrics::ALL)));
}

#[cfg(feature = "provisioner")]
#[test]
fn the_readme_lists_every_metric_of_the_provisioner_as_it_is() {
    compare_section("README.md", "provisioner-metrics", &table(metrics::provisioner::ALL));
}

#[test]
fn the_readme_lists_every_flag_with_its_variable() {
    lists_every_flag::<spotkeeper::agent::config::Config>();
    #[cfg(feature = "provisioner")]
    lists_every_flag::<spotkeeper::provisioner::config::Config>();
}

fn lists_every_flag<C: clap::CommandFactory>() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let command = C::command();
    for argument in command.get_arguments().filter(|a| a.get_id() != "help" && a.get_id() != "version") {
        let flag = format!("`--{}`", argument.get_long().expect("every argument is a flag"));
        assert!(readme.contains(&flag), "README.md does not mention {flag}");
        if let Some(variable) = argument.get_env() {
            let variable = format!("`{}`", variable.to_string_lossy());
            assert!(readme.contains(&variable), "README.md does not mention {variable}");
        }
    }
}
