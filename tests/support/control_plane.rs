//! A real control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and kwok for the kubelets.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::process::{Process, free_port};

/// Where the parts are; builds what is missing.
pub static PARTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = root().join("tests/lab/parts.sh");
    let output = Command::new(script).stderr(Stdio::inherit()).output().expect("tests/lab/parts.sh can be run");
    assert!(output.status.success(), "the lab cannot be built; its own words are above");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
});

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The administrator's token, of this loopback API server only.
const TOKEN: &str = "lab-administrator";

/// A running control plane. It ends with the value, or with the process.
pub struct ControlPlane {
    pub dir: PathBuf,
    pub kubeconfig: PathBuf,
    pub server: String,
    processes: Vec<Process>,
}

static SHARED: OnceLock<ControlPlane> = OnceLock::new();
static STRICT: OnceLock<ControlPlane> = OnceLock::new();
static AUDITED: OnceLock<ControlPlane> = OnceLock::new();
static FULL: OnceLock<ControlPlane> = OnceLock::new();

impl ControlPlane {
    /// The one of this test binary, with `manifests/overlays/sqs` applied.
    pub fn shared() -> &'static ControlPlane {
        SHARED.get_or_init(|| ControlPlane::for_the_process("manifests/overlays/sqs", false))
    }

    /// Another one, with `manifests/overlays/strict` applied.
    pub fn strict() -> &'static ControlPlane {
        STRICT.get_or_init(|| ControlPlane::for_the_process("manifests/overlays/strict", true))
    }

    /// One more like the shared one, for tests that make so many objects that the others would notice, or that look into
    /// its API server's audit log.
    pub fn audited() -> &'static ControlPlane {
        AUDITED.get_or_init(|| ControlPlane::for_the_process("manifests/overlays/sqs", true))
    }

    /// One with `manifests/overlays/full` applied: agents and provisioner.
    pub fn full() -> &'static ControlPlane {
        FULL.get_or_init(|| ControlPlane::for_the_process("manifests/overlays/full", true))
    }

    fn for_the_process(overlay: &str, audited: bool) -> ControlPlane {
        extern "C" fn clean() {
            for lab in [&SHARED, &STRICT, &AUDITED, &FULL].into_iter().filter_map(OnceLock::get) {
                let _ = std::fs::remove_dir_all(&lab.dir);
            }
        }
        let lab = ControlPlane::start_with(audited);
        // A static is never dropped. The kernel ends the processes; the folder is left to this.
        // SAFETY: `clean` is a plain function that does not unwind.
        unsafe { libc::atexit(clean) };
        lab.apply(overlay);
        lab
    }

    /// Starts one; panics where a part does not come up.
    pub fn start() -> ControlPlane {
        ControlPlane::start_with(false)
    }

    /// The same; `audited` where its API server is to log what our own accounts do.
    fn start_with(audited: bool) -> ControlPlane {
        let dir = tempfile::Builder::new().prefix("spotkeeper-lab-").tempdir().expect("a folder can be made").keep();
        let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
        let server = format!("https://127.0.0.1:{port}");
        let kubeconfig = dir.join("admin.kubeconfig");
        let mut lab = ControlPlane { dir, kubeconfig, server, processes: Vec::new() };
        lab.make_keys();
        lab.run("etcd", &etcd_flags(&lab.dir, client_port, peer_port));
        let mut flags = apiserver_flags(&lab.dir, client_port, port);
        if audited {
            flags.extend(audit_flags(&lab.dir));
        }
        lab.run("kube-apiserver", &flags);
        lab.write_kubeconfig(&lab.kubeconfig.clone(), TOKEN);
        lab.wait_until_ready();
        let kubeconfig = format!("--kubeconfig={}", lab.kubeconfig.display());
        lab.run(
            "kube-controller-manager",
            &[
                kubeconfig.clone(),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={}", free_port()),
                "--leader-elect=false".into(),
                format!("--service-account-private-key-file={}", lab.dir.join("sa.key").display()),
                "--controllers=*,-nodeipam,-route,-cloud-node-lifecycle,-service-lb-controller".into(),
            ],
        );
        lab.run(
            "kube-scheduler",
            &[
                kubeconfig.clone(),
                "--bind-address=127.0.0.1".into(),
                format!("--secure-port={}", free_port()),
                "--leader-elect=false".into(),
            ],
        );
        lab.run(
            "kwok",
            &[
                kubeconfig,
                "--manage-nodes-with-label-selector=lab.spotkeeper.dev/kubelet=kwok".into(),
                "--node-lease-duration-seconds=40".into(),
                format!("--config={}", root().join("tests/lab/stages.yaml").display()),
                "--server-address=127.0.0.1:0".into(),
            ],
        );
        lab
    }

    fn run(&mut self, name: &str, flags: &[String]) {
        let mut command = Command::new(PARTS.join(name));
        command.args(flags).current_dir(&self.dir);
        // kwok keeps a folder of its own in the home directory.
        command.env("HOME", &self.dir);
        let log = self.dir.join(format!("{name}.log"));
        self.processes.push(Process::start(name, command, &log));
    }

    fn make_keys(&self) {
        let openssl = |args: &[&str]| {
            let status = Command::new("openssl").args(args).current_dir(&self.dir).stderr(Stdio::null()).status();
            assert!(status.is_ok_and(|s| s.success()), "openssl is needed: apt-get install openssl");
        };
        openssl(&["genrsa", "-out", "sa.key", "2048"]);
        openssl(&["rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"]);
        std::fs::write(self.dir.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
    }

    /// Waits for the API server to say that it is ready.
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = self.kubectl(&["get", "--raw", "/readyz"]).output().expect("kubectl runs");
            if ready.status.success() {
                return;
            }
            for process in &mut self.processes {
                assert!(process.ended().is_none(), "{}", process.log_tail());
            }
            let why = String::from_utf8_lossy(&ready.stderr).into_owned();
            assert!(Instant::now() < deadline, "the API server is not ready after 60 s: {why}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Writes a kubeconfig for the bearer of `token`.
    pub fn write_kubeconfig(&self, path: &Path, token: &str) {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": {
                "server": self.server, "certificate-authority": self.dir.join("tls/apiserver.crt"),
            } }],
            "users": [{ "name": "lab", "user": { "token": token } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        });
        std::fs::write(path, config.to_string()).expect("a kubeconfig can be written");
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PARTS.join("kubectl"));
        command.arg(format!("--kubeconfig={}", self.kubeconfig.display())).args(args).env("HOME", &self.dir);
        command
    }

    /// What a person types at a shell, as the administrator.
    pub fn shell(&self, script: &str) -> Command {
        let mut path = std::ffi::OsString::from(&*PARTS);
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.arg("-ec").arg(script).env("PATH", path).env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.dir);
        command
    }

    /// Applies a kustomization of the repository, and waits for what it defines to be in force.
    pub fn apply(&self, kustomization: &str) {
        let folder = root().join(kustomization);
        let folder = folder.to_str().expect("a path in UTF-8");
        let run = |args: &[&str]| {
            let output = self.kubectl(args).output().expect("kubectl runs");
            assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        // Kinds that the CRDs define are not known until they are established.
        run(&["apply", "--server-side", "-k", root().join("manifests/crd").to_str().expect("UTF-8")]);
        run(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        run(&["apply", "--server-side", "-k", folder]);
        self.wait_for_admission();
    }

    /// Waits until the admission policies are in force: the API server takes them up some time after they are written.
    ///
    /// Each is shown an act that it refuses and nothing else would; as a dry run, so that nothing comes of it.
    fn wait_for_admission(&self) {
        let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"admission-probe"}}"#;
        let record = r#"{"apiVersion":"spotkeeper.dev/v1alpha1","kind":"Interruption","metadata":{"name":"i-00000000"},
            "spec":{"instanceID":"i-00000000","nodeName":"x","providerID":"aws:///x/i-00000000"}}"#;
        let probe = |file: &str, content: &str| {
            let path = self.dir.join(file);
            std::fs::write(&path, content).expect("the lab's folder can be written");
            path.display().to_string()
        };
        let (node, record) = (probe("node.json", node), probe("record.json", record));
        let created = self.kubectl(&["create", "-f", &node]).output().expect("kubectl runs");
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
        let agent = "--as=system:serviceaccount:spotkeeper:spotkeeper-agent";
        let acts: [&[&str]; 2] = [
            &[
                "patch",
                "node",
                "admission-probe",
                "--dry-run=server",
                agent,
                "--type=merge",
                "-p",
                r#"{"metadata":{"labels":{"x":"y"}}}"#,
            ],
            &["create", "-f", &record, "--dry-run=server", agent, "--validate=false"],
        ];
        let deadline = Instant::now() + Duration::from_secs(30);
        for act in acts {
            loop {
                let output = self.kubectl(act).output().expect("kubectl runs");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if said.contains("ValidatingAdmissionPolicy") {
                    break;
                }
                assert!(Instant::now() < deadline, "the policies of the manifests are not in force: {act:?}: {said}");
            }
        }
        let deleted = self.kubectl(&["delete", "node", "admission-probe"]).output().expect("kubectl runs");
        assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    }

    /// A client of the administrator, for the current runtime.
    pub async fn client(&self) -> Client {
        self.client_of(TOKEN).await
    }

    /// A client of whoever bears `token`.
    pub async fn client_of(&self, token: &str) -> Client {
        Client::try_from(self.config(token).await).expect("a client can be made")
    }

    /// A client of whoever bears `token`, speaking as `user`.
    pub async fn client_as(&self, token: &str, user: &str) -> Client {
        let mut config = self.config(token).await;
        config.auth_info.impersonate = Some(user.to_owned());
        Client::try_from(config).expect("a client can be made")
    }

    /// What a client of whoever bears `token` is made from.
    pub async fn config(&self, token: &str) -> Config {
        let path = self.dir.join(format!("{}.kubeconfig", uuid()));
        self.write_kubeconfig(&path, token);
        let kubeconfig = Kubeconfig::read_from(&path).expect("our own kubeconfig can be read");
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("it is complete");
        config.default_retry = false;
        config
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.processes.clear();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A name that nothing else has.
pub fn uuid() -> String {
    format!("{:012x}", fastrand::u64(..) & 0xffff_ffff_ffff)
}

fn etcd_flags(dir: &Path, client: u16, peer: u16) -> Vec<String> {
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        "--unsafe-no-fsync".into(),
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
    ]
}

/// Writes the policy that logs each answered request of our own accounts, and names it.
fn audit_flags(dir: &Path) -> [String; 2] {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            { "level": "Metadata", "userGroups": ["system:serviceaccounts:spotkeeper"] },
            { "level": "None" },
        ],
    });
    let path = dir.join("audit.yaml");
    std::fs::write(&path, policy.to_string()).expect("the lab's folder can be written");
    let log = dir.join("audit.log");
    [format!("--audit-policy-file={}", path.display()), format!("--audit-log-path={}", log.display())]
}

fn apiserver_flags(dir: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", file("tls")),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--allow-privileged=true".into(),
        "--endpoint-reconciler-type=none".into(),
    ]
}
