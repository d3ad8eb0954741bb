//! What the manifests grant, compared with what the API server's audit log says that our accounts used.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::cluster::text;
use super::control_plane::{ControlPlane, root};
use super::facts::eventually;

/// Leases are looked at every 10 to 30 s, and the watches end with their program.
const LATER: Duration = Duration::from_secs(60);

/// `account group/resource verb`.
type Rights = BTreeSet<String>;

/// What the rules of an overlay grant to our accounts.
fn granted(plane: &ControlPlane, overlay: &str) -> Rights {
    let folder = root().join(overlay);
    let output = plane.kubectl(&["kustomize", folder.to_str().expect("UTF-8")]).output().expect("kubectl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Vec<Value> = serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap();
    let named = |kind: &str, name: &Value| {
        let found = all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == *name);
        found.unwrap_or_else(|| panic!("{overlay} binds a {kind} {name} that it does not have"))
    };
    let mut rights = Rights::new();
    for binding in all.iter().filter(|one| matches!(one["kind"].as_str(), Some("RoleBinding" | "ClusterRoleBinding"))) {
        let role = named(binding["roleRef"]["kind"].as_str().unwrap(), &binding["roleRef"]["name"]);
        for account in binding["subjects"].as_array().unwrap() {
            for rule in role["rules"].as_array().unwrap() {
                rights.extend(of_rule(&account["name"], rule));
            }
        }
    }
    rights
}

fn of_rule(account: &Value, rule: &Value) -> Rights {
    let list = |key: &str| rule[key].as_array().cloned().unwrap_or_default().iter().map(text).collect::<Vec<_>>();
    let mut rights = Rights::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            rights.extend(list("verbs").iter().map(|verb| format!("{} {group}/{resource} {verb}", text(account))));
        }
    }
    rights
}

/// What our accounts did, and were allowed to.
fn used(log: &Path) -> Rights {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let mut rights = Rights::new();
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
        if code == 403 {
            continue;
        }
        let account = text(&event["user"]["username"]).rsplit(':').next().unwrap_or_default().to_owned();
        let of = &event["objectRef"];
        let resource = [text(&of["resource"]), text(&of["subresource"])].join("/");
        let resource = format!("{}/{}", text(&of["apiGroup"]), resource.trim_end_matches('/'));
        let verb = text(&event["verb"]);
        if event["impersonatedUser"].is_object() {
            rights.insert(format!("{account} authentication.k8s.io/nodes impersonate:associated-node"));
            rights.insert(format!("{account} {resource} impersonate-on:associated-node:{verb}"));
            continue;
        }
        // Server-side apply of what is not there yet needs the right to create it, too.
        if verb == "patch" && code == 201 {
            rights.insert(format!("{account} {resource} create"));
        }
        rights.insert(format!("{account} {resource} {verb}"));
    }
    rights
}

/// Waits until `account` has used every right that the overlay grants it; accounts that begin so are meant, too.
pub async fn none_is_too_many(plane: &ControlPlane, overlay: &str, account: &str) {
    let mut granted = granted(plane, overlay);
    granted.retain(|right| right.starts_with(account));
    assert!(granted.len() > 10, "{granted:?}");
    // A watch is logged when it ends.
    eventually("every right that is granted is used", LATER, async || {
        let used = used(&plane.dir.join("audit.log"));
        // Who may list may read: `get` is needed rarely, where two wrote at once, and gives nothing more.
        let implied = |right: &str| right.strip_suffix(" get").is_some_and(|of| used.contains(&format!("{of} list")));
        let idle: Vec<&String> = granted.difference(&used).filter(|right| !implied(right)).collect();
        if idle.is_empty() { Ok(()) } else { Err(format!("never used: {idle:#?}")) }
    })
    .await;
}
