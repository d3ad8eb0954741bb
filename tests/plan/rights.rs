//! The shipped rights: every resource that is read may be listed, and nothing else is allowed.

use std::collections::BTreeSet;

use serde_json::Value;
use spotkeeper::plan::reading::KINDS;

#[test]
fn the_shipped_rights_are_lists_of_what_is_read_and_no_more() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/examples/plan-reader.yaml");
    let text = std::fs::read_to_string(file).expect("it is shipped");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    let kinds: Vec<&str> = documents.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ClusterRole", "ServiceAccount", "ClusterRoleBinding"]);
    let texts =
        |of: &Value| of.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut granted = BTreeSet::new();
    for rule in documents[0]["rules"].as_array().unwrap() {
        assert_eq!(texts(&rule["verbs"]), ["list"], "{rule}");
        assert!(rule.get("nonResourceURLs").is_none() && rule.get("resourceNames").is_none(), "{rule}");
        for group in texts(&rule["apiGroups"]) {
            granted.extend(texts(&rule["resources"]).into_iter().map(|resource| (group.clone(), resource)));
        }
    }
    let read: BTreeSet<_> =
        KINDS.iter().map(|(_, resource, group)| ((*group).to_owned(), (*resource).to_owned())).collect();
    assert_eq!(granted, read);
}
