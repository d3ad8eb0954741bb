//! A container image that `make image` or `make images` has built: what is in it, and that it runs as the manifests run
//! it, with a read-only root and as nobody in particular.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The image, unpacked.
struct Image {
    _dir: tempfile::TempDir,
    root: PathBuf,
    config: Value,
}

/// The program whose image is looked at: `agent`, or `provisioner`.
fn program() -> String {
    let of = std::env::var("SPOTKEEPER_IMAGE_OF").unwrap_or_else(|_| "agent".into());
    format!("spotkeeper-{of}")
}

fn image() -> Image {
    let archive = std::env::var("SPOTKEEPER_IMAGE")
        .expect("SPOTKEEPER_IMAGE names the OCI archive of `make image`; `make test` builds it and sets this");
    let dir = tempfile::tempdir().expect("a folder can be made");
    let unpack = |archive: &Path, into: &Path| {
        std::fs::create_dir_all(into).expect("a folder can be made");
        let status = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into).status().expect("tar runs");
        assert!(status.success(), "{} cannot be unpacked", archive.display());
    };
    let layout = dir.path().join("layout");
    unpack(Path::new(&archive), &layout);
    let json = |path: PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(path).expect("it is in the archive")).expect("it is JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("a digest").replace(':', "/");
        layout.join("blobs").join(digest)
    };
    let manifest = json(blob(&json(layout.join("index.json"))["manifests"][0]));
    let root = dir.path().join("root");
    for layer in manifest["layers"].as_array().expect("layers") {
        unpack(&blob(layer), &root);
    }
    Image { config: json(blob(&manifest["config"]))["config"].clone(), root, _dir: dir }
}

impl Image {
    /// Runs the entry point as the manifests do: uid 65532, the root read-only.
    fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec chroot --userspec=65532:65532 "$0" "$@""#;
        Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(&self.root)
            .arg(format!("/{}", program()))
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(env.iter().copied())
            .output()
            .expect("unshare is there (util-linux), and this test runs as root")
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_image_is_one_static_binary_with_certificates_for_a_user_who_is_not_root() {
    let image = image();
    assert_eq!(image.config["User"], "65532:65532");
    assert_eq!(image.config["Entrypoint"][0], format!("/{}", program()));
    let top: Vec<_> = std::fs::read_dir(&image.root).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(top.len() == 2 && top.iter().any(|name| name == "etc"), "{top:?}");
    assert!(image.root.join("etc/ssl/certs/ca-certificates.crt").metadata().unwrap().len() > 10_000);
    let binary = std::fs::read(image.root.join(program())).unwrap();
    // A dynamic executable names its loader.
    assert!(!binary.windows(8).any(|w| w == b"/ld-musl" || w == b"/ld-linu"), "the binary is not static");
}

#[test]
fn it_starts_as_an_unknown_user_on_a_read_only_root() {
    let image = image();
    let version = image.run(&["--version"], &[]);
    assert_eq!(text(&version).trim(), format!("{} {}", program(), env!("CARGO_PKG_VERSION")));
    let usage = image.run(&["--no-such-flag"], &[]);
    assert_eq!(usage.status.code(), Some(64), "{}", text(&usage));
    assert!(text(&usage).contains("--no-such-flag"), "{}", text(&usage));
    let here = [
        ("NODE_NAME", "a"),
        ("POD_NAME", "a"),
        ("POD_NAMESPACE", "spotkeeper"),
        ("SPOTKEEPER_ADMIN_LISTEN", "127.0.0.1:0"),
        ("SPOTKEEPER_NOTICE_LISTEN", "127.0.0.1:0"),
    ];
    let alone = image.run(&[], &here);
    assert_eq!(alone.status.code(), Some(1), "{}", text(&alone));
    assert!(text(&alone).contains("no API server is configured"), "{}", text(&alone));
}
