//! Kubernetes objects with good defaults, said fluently: `a_pod("web-0").on(&node).grace(30)`.

use serde_json::{Value, json};

/// An object to be created.
#[derive(Clone, Debug)]
pub struct Thing(pub Value);

/// How long a pod of the lab works on after it was asked to end, in whole seconds.
const ENDS_AFTER: &str = "lab.spotkeeper.dev/ends-after";

fn pod_spec() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 30,
        "containers": [{ "name": "main", "image": "registry.invalid/main:1" }],
        // The lab's own nodes only: nothing runs on those of other tests.
        "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }],
    })
}

/// A node that kwok keeps alive.
pub fn a_node(name: &str, instance: &str) -> Thing {
    Thing(json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": name, "labels": {
            "lab.spotkeeper.dev/kubelet": "kwok", "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        } },
        "spec": { "providerID": format!("aws:///eu-west-1a/{instance}") },
        "status": {
            "nodeInfo": {
                "bootID": format!("boot-1-of-{name}"), "machineID": "", "systemUUID": "", "kernelVersion": "",
                "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "v1.36.3", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64",
            },
            "allocatable": { "cpu": "64", "memory": "256Gi", "pods": "200" },
            "capacity": { "cpu": "64", "memory": "256Gi", "pods": "200" },
        },
    }))
}

pub fn a_pod(name: &str) -> Thing {
    Thing(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name }, "annotations": {} },
        "spec": pod_spec(),
    }))
}

fn workload(api: &str, kind: &str, name: &str, replicas: u32, extra: Value) -> Thing {
    let mut spec = json!({
        "replicas": replicas,
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name }, "annotations": {} }, "spec": pod_spec() },
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    if kind == "DaemonSet" {
        spec.as_object_mut().expect("an object").remove("replicas");
    }
    Thing(json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name }, "spec": spec }))
}

pub fn a_deployment(name: &str, replicas: u32) -> Thing {
    workload("apps/v1", "Deployment", name, replicas, json!({}))
}

pub fn a_statefulset(name: &str, replicas: u32) -> Thing {
    workload(
        "apps/v1",
        "StatefulSet",
        name,
        replicas,
        json!({ "serviceName": name, "podManagementPolicy": "Parallel" }),
    )
}

pub fn a_daemonset(name: &str) -> Thing {
    workload("apps/v1", "DaemonSet", name, 1, json!({}))
}

/// A Job whose backoffLimit an eviction does not touch.
pub fn a_job(name: &str) -> Thing {
    let mut spec = pod_spec();
    spec["restartPolicy"] = "Never".into();
    Thing(json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
        "spec": {
            "backoffLimit": 0,
            "podFailurePolicy": { "rules": [{
                "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
            }] },
            "template": { "metadata": { "labels": { "app": name }, "annotations": {} }, "spec": spec },
        },
    }))
}

/// A budget over the pods labelled `app: <of>`.
pub fn a_budget(name: &str, of: &str) -> Thing {
    Thing(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": name },
        "spec": { "selector": { "matchLabels": { "app": of } }, "maxUnavailable": 0 },
    }))
}

impl Thing {
    /// The pod, or the template of its pods.
    fn pod(&mut self) -> &mut Value {
        if self.0["kind"] == "Pod" { &mut self.0 } else { &mut self.0["spec"]["template"] }
    }

    /// Bound to this node without the scheduler.
    pub fn on(mut self, node: &str) -> Self {
        self.pod()["spec"]["nodeName"] = node.into();
        self
    }

    /// For the scheduler: only on nodes with this label.
    pub fn where_label(mut self, key: &str, value: &str) -> Self {
        self.pod()["spec"]["nodeSelector"] = json!({ key: value });
        self
    }

    /// What each of its containers asks for, such as `100m`.
    pub fn cpu(mut self, cpu: &str) -> Self {
        self.pod()["spec"]["containers"][0]["resources"]["requests"]["cpu"] = cpu.into();
        self
    }

    pub fn grace(mut self, secs: u32) -> Self {
        self.pod()["spec"]["terminationGracePeriodSeconds"] = secs.into();
        self
    }

    /// How many seconds it works on after it was asked to end, where its grace allows.
    pub fn ends_after(self, secs: u32) -> Self {
        self.annotated(ENDS_AFTER, &secs.to_string())
    }

    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.pod()["metadata"]["annotations"][key] = value.into();
        self
    }

    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.0["metadata"]["labels"][key] = value.into();
        self
    }

    pub fn app(mut self, app: &str) -> Self {
        self.pod()["metadata"]["labels"]["app"] = app.into();
        self
    }

    pub fn finalizer(mut self, finalizer: &str) -> Self {
        self.0["metadata"]["finalizers"] = json!([finalizer]);
        self
    }

    pub fn max_unavailable(mut self, pods: u32) -> Self {
        self.0["spec"]["maxUnavailable"] = pods.into();
        self
    }

    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }
}
