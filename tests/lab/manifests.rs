//! The manifests as a person applies them: each overlay is accepted by a real API server as it stands, and no pod of
//! theirs asks for more than it needs.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::cluster::{Cluster, text};
use crate::support::control_plane::{ControlPlane, root};
use crate::support::facts::eventually;
use crate::support::imds::Imds;
use crate::support::objects::a_pod;

const SOON: Duration = Duration::from_secs(20);

fn rendered(plane: &ControlPlane, folder: &Path) -> String {
    let output = plane.kubectl(&["kustomize", folder.to_str().expect("UTF-8")]).output().expect("kubectl runs");
    assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("YAML is UTF-8")
}

/// What the API server would say to these manifests, with unknown and doubled fields refused.
fn accepted(plane: &ControlPlane, what: &str, yaml: &str) {
    let mut command = plane.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        "-",
    ]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kubectl runs");
    child.stdin.take().expect("it is piped").write_all(yaml.as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && why.trim().is_empty(), "{what}: {why}");
    assert!(said.lines().count() > 10, "{what}: {said}");
}

/// What keeps a container from being worth more than its program.
fn is_confined(what: &str, pod: &Value, container: &Value) {
    let of = &container["securityContext"];
    assert_eq!(of["allowPrivilegeEscalation"], false, "{what}");
    assert_eq!(of["readOnlyRootFilesystem"], true, "{what}");
    assert_eq!(of["capabilities"]["drop"], json!(["ALL"]), "{what}");
    assert!(of["privileged"].is_null(), "{what}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
    let (requests, limits) = (&container["resources"]["requests"], &container["resources"]["limits"]);
    assert!(requests["cpu"].is_string() && requests["memory"].is_string() && limits["memory"].is_string(), "{what}");
    assert!(limits["cpu"].is_null(), "{what}: throttled, it would miss what it is there for");
}

/// Checks every pod template of these manifests; returns how many there are.
fn pods_are_confined(overlay: &str, yaml: &str) -> usize {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("kustomize writes YAML");
    let workloads = all.iter().filter(|one| one["spec"]["template"]["spec"]["containers"].is_array());
    let mut pods = 0;
    for workload in workloads {
        let what = format!("{overlay}: {} {}", text(&workload["kind"]), text(&workload["metadata"]["name"]));
        let pod = &workload["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().expect("checked above") {
            is_confined(&what, pod, container);
            assert_eq!(
                (&pod["securityContext"]["runAsNonRoot"], &pod["securityContext"]["runAsUser"]),
                (&json!(true), &json!(65532))
            );
            assert!(container["securityContext"]["capabilities"]["add"].is_null(), "{what}");
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container[probe]["httpGet"]["port"].is_string(), "{what} has no {probe}");
            }
        }
        for container in pod["initContainers"].as_array().into_iter().flatten() {
            is_confined(&what, pod, container);
            assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["CHOWN"]), "{what}");
        }
        if workload["kind"] == "DaemonSet" {
            assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]), "{what}");
            assert_eq!(pod["priorityClassName"], "system-node-critical", "{what}");
            assert_eq!(pod["hostNetwork"], true, "{what}");
            assert!(pod["hostPID"].is_null() && pod["hostIPC"].is_null(), "{what}");
        }
        pods += 1;
    }
    pods
}

#[tokio::test]
async fn every_overlay_is_accepted_as_it_stands_and_its_pods_are_confined() {
    let plane = ControlPlane::shared();
    for (overlay, pods) in [("imds-only", 1), ("sqs", 1), ("strict", 2), ("full", 2)] {
        let yaml = rendered(plane, &root().join("manifests/overlays").join(overlay));
        accepted(plane, overlay, &yaml);
        assert_eq!(pods_are_confined(overlay, &yaml), pods, "{overlay}");
    }
}

#[tokio::test]
async fn the_notice_file_is_added_to_any_overlay_with_the_same_image() {
    let plane = ControlPlane::shared();
    for overlay in ["imds-only", "sqs", "strict", "full"] {
        // kustomize takes relative paths only.
        let folder = tempfile::tempdir_in(root().join("manifests/overlays")).expect("the folder can be written");
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
            "resources": [format!("../{overlay}")],
            "components": ["../../components/notice-file"],
            "images": [{ "name": "spotkeeper-agent", "newName": "registry.example/agent", "newTag": "9" }],
        });
        std::fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).expect("it can be written");
        let yaml = rendered(plane, folder.path());
        accepted(plane, overlay, &yaml);
        pods_are_confined(overlay, &yaml);
        assert!(
            yaml.contains("image: registry.example/agent:9") && !yaml.contains("image: spotkeeper-agent"),
            "{yaml}"
        );
        assert!(yaml.contains("--prepare-notice-dir=/run/spotkeeper"), "{yaml}");
    }
}

#[tokio::test]
async fn what_the_readme_says_to_try_drains_a_node_and_gives_it_back() {
    let cluster = Cluster::new("readme").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name)).await;
    cluster.running(&node, 1).await;
    let imds = Imds::start(&node.instance).await;
    let _agent = Agent::on(&cluster, &node, &imds.endpoint()).await.start().await;
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let block = readme.split("ask for it yourself").nth(1).and_then(|rest| rest.split("```sh\n").nth(1));
    let block = block.and_then(|rest| rest.split("```").next()).expect("a block of commands");
    let block = block.replace("ip-10-0-0-1.ec2.internal", &node.name);
    let (asks, rest) = block.split_once("kubectl get interruption").expect("it is looked at");
    let (_, deletes) = rest.split_once('\n').expect("and deleted");
    let names: String =
        asks.lines().take_while(|line| !line.starts_with("kubectl")).map(|line| format!("{line}\n")).collect();
    let run = |script: &str| {
        let output = cluster.plane.shell(script).output().expect("a shell runs");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(asks);
    cluster.phase(&node, "Drained", SOON).await;
    run(&format!("{names}{deletes}"));
    eventually("the node is given back", SOON, async || {
        let seen = cluster.node_json(&node).await;
        if seen["spec"]["unschedulable"] == true { Err(seen["spec"].to_string()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn the_notice_file_appears_with_the_notice_and_goes_when_it_is_withdrawn() {
    let cluster = Cluster::new("file").await;
    let node = cluster.node("a").await;
    let imds = Imds::start(&node.instance).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("notice.json");
    // A process before this one was killed and has left it behind.
    std::fs::write(&path, "{}").expect("it can be written");
    let agent = Agent::on(&cluster, &node, &imds.endpoint()).await;
    let agent = agent.arg("--notice-file").arg(path.to_str().expect("UTF-8")).start().await;
    eventually("what was left is gone", SOON, async || if path.exists() { Err("it is there".into()) } else { Ok(()) })
        .await;
    imds.scheduled("near", "instance-reboot", "active", Duration::from_secs(300));
    let seen = eventually("the file is there", Duration::from_secs(60), async || {
        let file = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        serde_json::from_str::<Value>(&file).map_err(|error| format!("a torn file: {error}: {file}"))
    })
    .await;
    let (_, served) = agent.notice("/v1/notice").await.expect("it is served");
    assert_eq!(seen, serde_json::from_str::<Value>(&served).expect("JSON"), "both say the same");
    assert_eq!((text(&seen["instanceId"]), text(&seen["kind"])), (node.instance.clone(), "ScheduledChange".to_owned()));
    imds.clear_scheduled();
    eventually("the file is gone", Duration::from_secs(60), async || {
        if path.exists() { Err("it is there".into()) } else { Ok(()) }
    })
    .await;
}
