//! House rules that a program can check. Each says what to do where it fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that passes this wants splitting along its concepts.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that git knows or would take, by its path in the repository.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is needed: apt-get install git");
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    list.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

fn rust_files() -> Vec<String> {
    files().into_iter().filter(|path| path.ends_with(".rs")).collect()
}

/// Fails with every line of `found`.
fn none(found: Vec<String>, advice: &str) {
    assert!(found.is_empty(), "{advice}:\n  {}", found.join("\n  "));
}

#[test]
fn files_stay_readable() {
    let long = rust_files().into_iter().filter_map(|path| {
        let lines = read(&path).lines().count();
        (lines > LINES_MAX).then(|| format!("{path}: {lines} lines"))
    });
    none(long.collect(), "split these along their concepts (foo.rs and foo/)");
}

#[test]
fn modules_are_named_after_things() {
    let banned = ["utils", "util", "common", "helpers", "helper", "manager", "handler", "misc", "mod"];
    let named = |path: &String| Path::new(path).file_stem().is_some_and(|stem| banned.iter().any(|b| stem == *b));
    none(rust_files().into_iter().filter(named).collect(), "name these after what is in them");
}

#[test]
fn nothing_is_left_unfinished_or_skipped() {
    // Put together so that this file does not find itself.
    let marks = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["db", "g!("].concat(),
        ["#[ign", "ore"].concat(),
        ["FIX", "ME"].concat(),
    ];
    let found = rust_files().into_iter().flat_map(|path| {
        let text = read(&path);
        let hits = text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| line.contains(mark.as_str())));
        hits.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
    });
    none(found.collect(), "finish these");
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    let marks = [["/ro", "ot/"].concat(), ["/wo", "rk/"].concat(), ["/ho", "me/"].concat()];
    let found = files().into_iter().filter(|path| !path.ends_with(".sum") && path != "Cargo.lock").flat_map(|path| {
        let text = read(&path);
        let hits = text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| line.contains(mark.as_str())));
        hits.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
    });
    none(found.collect(), "paths are relative to the repository");
}

#[test]
fn the_cores_are_pure() {
    let banned = [
        "tokio",
        "kube::",
        "reqwest",
        "axum",
        "aws_sdk",
        "aws_config",
        "aws_smithy",
        "std::time::Instant",
        "SystemTime",
        "Timestamp::now",
        "fastrand",
        "std::env",
        "std::fs",
        "std::net",
    ];
    // `provisioner` is the shell around `provision`.
    let cores = ["src/domain", "src/interruption", "src/provision.", "src/provision/", "src/engine.rs"];
    let pure = |path: &String| cores.iter().any(|core| path.starts_with(core));
    let found = rust_files().into_iter().filter(pure).flat_map(|path| {
        let text = read(&path);
        let code = text.lines().take_while(|line| *line != "mod tests {").enumerate();
        let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
        let hits = code.filter(|(_, line)| banned.iter().any(|word| line.contains(word)));
        hits.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
    });
    none(found.collect(), "the cores do no I/O, read no clock and draw no random numbers");
}

#[test]
fn an_sdk_is_named_in_its_own_adapter_only() {
    for (sdk, adapter) in [("aws_sdk_sqs", "src/adapters/sqs"), ("aws_sdk_ec2", "src/adapters/ec2")] {
        let elsewhere =
            |path: &String| path.starts_with("src/") && !path.starts_with(adapter) && path != "src/adapters.rs";
        let found = rust_files().into_iter().filter(elsewhere).filter(|path| read(path).contains(sdk));
        none(found.collect(), &format!("only {adapter} names {sdk}"));
    }
}

/// `docker build` has only what the Dockerfile copies: the manifest must be readable there.
#[test]
fn what_the_dockerfile_copies_is_a_package() {
    let there = tempfile::tempdir().expect("a folder can be made");
    let dockerfile = read("Dockerfile");
    let ours = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let copied: Vec<&str> = ours.flat_map(|line| line.split_whitespace().rev().skip(1)).collect();
    let ignored = read(".dockerignore");
    for path in files().iter().filter(|path| copied.iter().any(|from| path.starts_with(from))) {
        let to = there.path().join(path);
        std::fs::create_dir_all(to.parent().expect("it is in a folder")).expect("a folder can be made");
        std::fs::copy(root().join(path), to).expect("it can be copied");
        let kept = ignored.lines().filter_map(|line| line.strip_prefix('!')).any(|kept| path.starts_with(kept));
        assert!(kept, "{path} is copied by the Dockerfile: take it out of .dockerignore");
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(there.path());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Karpenter has resources of the same names: a command of ours that deletes must not mean its.
#[test]
fn commands_name_resources_in_full() {
    let shared = ["nodeclaim", "nodepool", "ec2nodeclass"];
    let written =
        |path: &String| [".md", ".rs", ".yaml"].iter().any(|end| path.ends_with(end)) && path != "tests/tidy.rs";
    let found = files().into_iter().filter(written).flat_map(|path| {
        let text = read(&path);
        let commands = text.lines().enumerate().filter(|(_, line)| line.contains("kubectl"));
        let short = |line: &str| {
            let command = line.split("kubectl").skip(1).flat_map(|rest| rest.split(['`', '|', '#']).next());
            let words = command.flat_map(|rest| rest.split([' ', ','])).map(str::to_owned).collect::<Vec<_>>();
            words.iter().any(|word| {
                let name = word.split(['.', '/']).next().unwrap_or_default();
                let resource =
                    shared.iter().any(|one| name.strip_prefix(one).is_some_and(|s| ["", "s", "es"].contains(&s)));
                resource && !word.contains(".spotkeeper.dev") && !line.contains("--api-version=spotkeeper.dev")
            })
        };
        let hits = commands.filter(|(_, line)| short(line));
        hits.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect::<Vec<_>>()
    });
    none(found.collect(), "write `nodeclaims.spotkeeper.dev`");
}

#[test]
fn every_source_file_is_reached_from_a_root() {
    let mut seen = BTreeSet::new();
    let mut open: Vec<PathBuf> = vec!["src/lib.rs".into()];
    open.extend(rust_files().into_iter().filter(|path| path.starts_with("src/bin/")).map(PathBuf::from));
    while let Some(path) = open.pop() {
        let text = read(path.to_str().expect("UTF-8"));
        let is_root = path.starts_with("src/bin") || path.ends_with("lib.rs");
        let folder = if is_root { path.parent().expect("src").to_owned() } else { path.with_extension("") };
        for line in text.lines().map(str::trim) {
            let seen_by = ["pub(crate) ", "pub(super) ", "pub "].into_iter().find_map(|word| line.strip_prefix(word));
            let declared = seen_by.unwrap_or(line).strip_prefix("mod ");
            if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
                open.push(folder.join(format!("{name}.rs")));
            }
        }
        seen.insert(path);
    }
    let lost = rust_files().into_iter().filter(|path| path.starts_with("src/") && !seen.contains(Path::new(path)));
    none(lost.collect(), "no `mod` names these");
}

#[test]
fn docs_name_only_targets_that_exist() {
    let makefile = read("Makefile");
    let exists = |target: &str| makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
    let pages = files().into_iter().filter(|path| path.ends_with(".md"));
    let found = pages.flat_map(|path| {
        let text = read(&path);
        let named = text.split("`make ").skip(1).map(|rest| rest.split(['`', ' ']).next().unwrap_or("").to_owned());
        named.filter(|target| !exists(target)).map(|target| format!("{path}: make {target}")).collect::<Vec<_>>()
    });
    none(found.collect(), "the Makefile has no such target");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = files().into_iter().filter(|path| path.ends_with(".md"));
    let found = pages.flat_map(|path| {
        let text = read(&path);
        let folder = Path::new(&path).parent().expect("a folder").to_owned();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned));
        let local = links.filter(|link| !link.starts_with("http") && !link.starts_with('#'));
        let broken = local.filter(|link| !root().join(&folder).join(link.split('#').next().unwrap_or("")).exists());
        broken.map(|link| format!("{path}: {link}")).collect::<Vec<_>>()
    });
    none(found.collect(), "these links lead nowhere");
}

#[test]
fn manifests_that_pages_name_exist() {
    let pages = files().into_iter().filter(|path| path.ends_with(".md"));
    let found = pages.flat_map(|path| {
        let text = read(&path);
        let named = text.split("manifests/").skip(1).map(|rest| {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "-_./*$".contains(c))).unwrap_or(rest.len());
            rest[..end].trim_end_matches(['.', '/']).to_owned()
        });
        // A shell's own patterns and variables are looked up as far as they are plain.
        let plain = named.map(|name| name.split(['*', '$']).next().unwrap_or("").trim_end_matches('/').to_owned());
        let lost = plain.filter(|name| !root().join("manifests").join(name).exists());
        lost.map(|name| format!("{path}: manifests/{name}")).collect::<Vec<_>>()
    });
    none(found.collect(), "there is no such file");
}

#[test]
fn ci_runs_what_the_readme_says() {
    assert!(read("README.md").contains("make test"));
    assert!(read(".ci/run").contains("make test"), ".ci/run calls the README's test command");
}
