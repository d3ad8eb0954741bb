//! The shipped IAM policy, asked about every call that the provisioner makes in the lab.
//!
//! moto enforces policies, too, but knows no conditions on tags: a statement that has one denies. So this is ours. For
//! each call it tells which resources EC2 asks about, with the tags that the request gives them or that they have, and
//! whether a statement allows the action on each. What an action needs beside itself (`RunInstances` and `CreateTags`
//! within `CreateFleet`) is asked about as well. `iam:PassRole` is not.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::support::control_plane::root;

pub type Tags = BTreeMap<String, String>;

/// What an action is done to.
#[derive(Debug, Default)]
pub struct Resource {
    arn: String,
    /// Tags that the request gives it.
    given: Tags,
    /// Tags that it has.
    has: Tags,
    /// The action that makes what is tagged.
    created_by: Option<&'static str>,
}

impl Resource {
    fn any(kind: &str) -> Self {
        Self { arn: format!("arn:aws:ec2:eu-west-1:123456789012:{kind}/x"), ..Self::default() }
    }

    fn context(&self, key: &str) -> Option<&str> {
        if let Some(tag) = key.strip_prefix("aws:RequestTag/") {
            return self.given.get(tag).map(String::as_str);
        }
        if let Some(tag) = key.strip_prefix("aws:ResourceTag/") {
            return self.has.get(tag).map(String::as_str);
        }
        (key == "ec2:CreateAction").then_some(self.created_by?)
    }
}

/// A policy document.
pub struct Policy(Vec<Value>);

impl Policy {
    /// The one that is shipped.
    pub fn shipped() -> Self {
        let text =
            std::fs::read_to_string(root().join("manifests/aws/provisioner-policy.json")).expect("it is shipped");
        let policy: Value = serde_json::from_str(&text).expect("it is JSON");
        Self(policy["Statement"].as_array().expect("statements").clone())
    }

    /// The first thing that a call needs and this policy does not allow; `has`: the tags of what it is done to.
    pub fn forbids(&self, form: &HashMap<String, String>, has: &Tags) -> Option<String> {
        let needs = needed(form, has);
        needs
            .into_iter()
            .find(|(action, on)| !self.allows(action, on))
            .map(|(action, on)| format!("{action} on {}", on.arn))
    }

    fn allows(&self, action: &str, on: &Resource) -> bool {
        self.0.iter().any(|statement| {
            assert_eq!(statement["Effect"], "Allow", "denials are not evaluated here");
            let is_of = |field: &str, value: &str| words(&statement[field]).iter().any(|one| matches(one, value));
            let resource = match statement.get("NotResource") {
                Some(_) => !is_of("NotResource", &on.arn),
                None => is_of("Resource", &on.arn),
            };
            is_of("Action", action) && resource && meets(&statement["Condition"], on)
        })
    }
}

/// One word or several.
fn words(of: &Value) -> Vec<&str> {
    match of {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn meets(conditions: &Value, on: &Resource) -> bool {
    conditions.as_object().into_iter().flatten().all(|(operator, keys)| {
        keys.as_object().into_iter().flatten().all(|(key, values)| {
            let Some(actual) = on.context(key) else { return false };
            words(values).iter().any(|value| match operator.as_str() {
                "StringEquals" => *value == actual,
                "StringLike" => matches(value, actual),
                other => panic!("{other} is not evaluated here"),
            })
        })
    })
}

/// `*` is anything.
fn matches(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((start, rest)) => {
            let Some(value) = value.strip_prefix(start) else { return false };
            (0..=value.len()).filter(|at| value.is_char_boundary(*at)).any(|at| matches(rest, &value[at..]))
        }
    }
}

/// The tags that a request gives to what it makes of this kind.
fn given(form: &HashMap<String, String>, kind: &str) -> Tags {
    let specs = (1..).map_while(|n| form.get(&format!("TagSpecification.{n}.ResourceType")).map(|of| (n, of)));
    let tags = specs.filter(|(_, of)| *of == kind).flat_map(|(n, _)| {
        (1..).map_while(move |m| {
            let of = |part: &str| form.get(&format!("TagSpecification.{n}.Tag.{m}.{part}")).cloned();
            Some((of("Key")?, of("Value").unwrap_or_default()))
        })
    });
    tags.collect()
}

/// Every action that a call needs, and on what.
fn needed(form: &HashMap<String, String>, has: &Tags) -> Vec<(&'static str, Resource)> {
    let make = |kind: &str| Resource { given: given(form, kind), ..Resource::any(kind) };
    let tag = |kind: &str, by| ("ec2:CreateTags", Resource { created_by: Some(by), ..make(kind) });
    let all = |action: &'static str, kinds: &[&str]| kinds.iter().map(|kind| (action, make(kind))).collect::<Vec<_>>();
    let there = ["launch-template", "subnet", "security-group", "image"];
    let more = ["instance", "volume", "network-interface", "spot-instances-request", "key-pair"];
    let run = all("ec2:RunInstances", &[&more, &there[..]].concat());
    match form.get("Action").map(String::as_str).unwrap_or_default() {
        "RunInstances" => run,
        "CreateFleet" => {
            let mut needs = all("ec2:CreateFleet", &[&["fleet", "instance"], &there[..]].concat());
            needs.extend(run);
            needs.extend([
                tag("fleet", "CreateFleet"),
                tag("instance", "CreateFleet"),
                tag("instance", "RunInstances"),
            ]);
            needs
        }
        "CreateLaunchTemplate" => {
            let kind = "launch-template";
            vec![("ec2:CreateLaunchTemplate", make(kind)), tag(kind, "CreateLaunchTemplate")]
        }
        "DeleteLaunchTemplate" => vec![("ec2:DeleteLaunchTemplate", tagged("launch-template", has))],
        "TerminateInstances" => vec![("ec2:TerminateInstances", tagged("instance", has))],
        action => {
            let action: &'static str = Box::leak(format!("ec2:{action}").into_boxed_str());
            vec![(action, Resource { arn: "*".to_owned(), ..Resource::default() })]
        }
    }
}

/// What is there, with its tags.
fn tagged(kind: &str, has: &Tags) -> Resource {
    Resource { has: has.clone(), ..Resource::any(kind) }
}

/// The tags in EC2's XML of one thing.
pub fn tags_in(xml: &str) -> Tags {
    let set = xml.split("<tagSet>").nth(1).and_then(|rest| rest.split("</tagSet>").next()).unwrap_or_default();
    let part = |item: &str, open: &str| Some(item.split(open).nth(1)?.split('<').next()?.to_owned());
    set.split("<item>").filter_map(|item| Some((part(item, "<key>")?, part(item, "<value>")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn forbids(of: &[(&str, &str)], has: &[(&str, &str)]) -> Option<String> {
        let has = has.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Policy::shipped().forbids(&form(of), &has)
    }

    const OURS: (&str, &str) = ("spotkeeper.dev/cluster", "u");

    #[test]
    fn what_is_not_of_the_cluster_is_neither_ended_nor_deleted() {
        for action in ["TerminateInstances", "DeleteLaunchTemplate"] {
            assert_eq!(forbids(&[("Action", action)], &[OURS]), None);
            assert!(forbids(&[("Action", action)], &[("team", "a")]).is_some(), "{action}");
        }
    }

    #[test]
    fn nothing_is_launched_or_made_without_the_tag_of_the_cluster() {
        let tagged = |kinds: &[&'static str]| {
            let mut all = vec![("Action".to_owned(), "CreateFleet".to_owned())];
            for (n, kind) in kinds.iter().enumerate() {
                let spec = format!("TagSpecification.{}", n + 1);
                all.push((format!("{spec}.ResourceType"), (*kind).to_owned()));
                all.push((format!("{spec}.Tag.1.Key"), OURS.0.to_owned()));
                all.push((format!("{spec}.Tag.1.Value"), OURS.1.to_owned()));
            }
            Policy::shipped().forbids(&all.into_iter().collect(), &Tags::new())
        };
        assert_eq!(tagged(&["instance", "fleet"]), None);
        assert!(tagged(&["fleet"]).is_some_and(|why| why.contains("CreateFleet on") && why.contains("instance/")));
        assert!(tagged(&["instance"]).is_some_and(|why| why.contains("fleet/")));
        assert!(forbids(&[("Action", "CreateLaunchTemplate")], &[]).is_some());
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        for action in ["StopInstances", "ModifyInstanceAttribute", "DeleteVolume", "CreateTags", "RunInstances"] {
            assert!(forbids(&[("Action", action)], &[OURS]).is_some(), "{action}");
        }
        assert_eq!(forbids(&[("Action", "DescribeInstances")], &[]), None);
    }
}
