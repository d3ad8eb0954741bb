//! From bytes to objects: what `kubectl get -o json` writes, and what the API server answers to a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::objects::{Budget, Class, Node, PersistentVolume, Pod, Pool, VolumeClaim};

/// How deep objects are gone into: far more than any of Kubernetes' own has.
const DEPTH_MAX: usize = 64;

/// What is read of a cluster: the kind, its resource, its group.
pub const KINDS: [(&str, &str, &str); 7] = [
    ("Node", "nodes", ""),
    ("Pod", "pods", ""),
    ("PodDisruptionBudget", "poddisruptionbudgets", "policy"),
    ("PersistentVolume", "persistentvolumes", ""),
    ("PersistentVolumeClaim", "persistentvolumeclaims", ""),
    ("NodePool", "nodepools", "spotkeeper.dev"),
    ("EC2NodeClass", "ec2nodeclasses", "spotkeeper.dev"),
];

/// The bytes are no objects of Kubernetes at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{from}: it is no complete JSON ({source}); write it with `kubectl get … -A -o json`")]
    Json { from: String, source: serde_json::Error },
    #[error("{from}: {what}; write it with `kubectl get … -A -o json`")]
    NoObject { from: String, what: &'static str },
}

/// Something that is missing from what is known of a cluster: what follows may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap(pub String);

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The objects of a cluster, as they came.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub budgets: Vec<Budget>,
    pub volumes: Vec<PersistentVolume>,
    pub claims: Vec<VolumeClaim>,
    pub pools: Vec<Pool>,
    pub classes: Vec<Class>,
    pub gaps: Vec<Gap>,
    /// The kinds of which there was a list, also an empty one.
    pub listed: BTreeSet<String>,
    /// Those that cannot be read, by kind and name.
    pub left_out: BTreeSet<(&'static str, String)>,
    /// By kind and name: what is there twice is taken once.
    seen: BTreeMap<(&'static str, String, String), ()>,
}

impl Objects {
    /// Reads one text: an object, a list, or several of them one after the other.
    pub fn read(&mut self, from: &str, text: &[u8]) -> Result<(), ReadError> {
        let mut any = false;
        for value in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            let value = value.map_err(|source| ReadError::Json { from: from.to_owned(), source })?;
            self.take(from, value)?;
            any = true;
        }
        if any { Ok(()) } else { Err(ReadError::NoObject { from: from.to_owned(), what: "it is empty" }) }
    }

    fn take(&mut self, from: &str, value: Value) -> Result<(), ReadError> {
        let no_object = |what| ReadError::NoObject { from: from.to_owned(), what };
        let Value::Object(mut object) = value else { return Err(no_object("it is no object of Kubernetes")) };
        let Some(kind) = object.get("kind").and_then(Value::as_str).map(str::to_owned) else {
            return Err(no_object("it has no `kind`"));
        };
        let group = group_of(object.get("apiVersion"));
        if kind == "Status" && group.is_empty() {
            let message = object.get("message").and_then(Value::as_str).unwrap_or("without a word why");
            self.gaps.push(Gap(format!("{from}: the API server did not give what was asked of it: {message}")));
            return Ok(());
        }
        match object.remove("items") {
            None if !kind.ends_with("List") => self.add(&kind, &group, Value::Object(object)),
            // Go writes a list of nothing so.
            None | Some(Value::Null) => drop(self.listed.insert(of_list(&kind).to_owned())),
            Some(Value::Array(items)) => {
                let more = object.get("metadata").and_then(|of| of.get("continue")).and_then(Value::as_str);
                if more.is_some_and(|more| !more.is_empty()) {
                    self.gaps.push(Gap(format!("{from}: the {kind} is cut off (metadata.continue); read all of it")));
                }
                // The API server's lists name the kind once, kubectl's with every item.
                let all = of_list(&kind);
                self.listed.insert(all.to_owned());
                for (at, item) in items.into_iter().enumerate() {
                    let own = item.get("kind").and_then(Value::as_str).unwrap_or(all).to_owned();
                    if own.is_empty() {
                        self.gaps.push(Gap(format!("{from}: items[{at}] of the {kind} has no `kind`: it is left out")));
                    }
                    let group = item.get("apiVersion").map_or(group.clone(), |version| group_of(Some(version)));
                    self.add(&own, &group, item);
                }
            }
            Some(_) => return Err(no_object("its `items` are no list")),
        }
        Ok(())
    }

    /// Takes one object, where it is of a kind that is read.
    pub fn add(&mut self, kind: &str, group: &str, value: Value) {
        let Some((kind, _, _)) = KINDS.iter().find(|(known, _, of)| *known == kind && *of == group) else { return };
        let text = |key: &str| value.get("metadata").and_then(|of| of.get(key)).and_then(Value::as_str);
        let (namespace, name) = (text("namespace").unwrap_or_default(), text("name").unwrap_or_default());
        if name.is_empty() {
            return self.gaps.push(Gap(format!("a {kind} has no name (metadata.name): it is left out")));
        }
        let key = (*kind, namespace.to_owned(), name.to_owned());
        let path = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        if self.seen.insert(key, ()).is_some() {
            return;
        }
        let said = match *kind {
            "Node" => put(value, &mut self.nodes),
            "Pod" => put(value, &mut self.pods),
            "PodDisruptionBudget" => put(value, &mut self.budgets),
            "PersistentVolume" => put(value, &mut self.volumes),
            "PersistentVolumeClaim" => put(value, &mut self.claims),
            "NodePool" => put(value, &mut self.pools),
            _ => put(value, &mut self.classes),
        };
        if let Err(why) = said {
            self.left_out.insert((kind, path.clone()));
            self.gaps.push(Gap(format!("{kind} {path} cannot be read ({why}): it is left out")));
        }
    }
}

/// `policy` of `policy/v1`, nothing of `v1`.
fn group_of(version: Option<&Value>) -> String {
    let version = version.and_then(Value::as_str).unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group).to_owned()
}

/// `Pod` of `PodList`, nothing of kubectl's `List`.
fn of_list(kind: &str) -> &str {
    kind.strip_suffix("List").unwrap_or_default()
}

fn put<T: DeserializeOwned>(value: Value, into: &mut Vec<T>) -> Result<(), String> {
    let read = serde_path_to_error::deserialize(without_nulls(value, 0));
    into.push(read.map_err(|error: serde_path_to_error::Error<serde_json::Error>| error.to_string())?);
    Ok(())
}

/// `null` is how Go says that there is nothing.
fn without_nulls(value: Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return value;
    }
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value, depth + 1))).collect())
        }
        Value::Array(all) => Value::Array(all.into_iter().map(|value| without_nulls(value, depth + 1)).collect()),
        other => other,
    }
}
