//! The Node, as far as an interruption needs to know it.

use std::collections::BTreeMap;

/// A Node of the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub provider_id: Option<String>,
    /// `status.nodeInfo.bootID`: another one means that the instance has started anew.
    pub boot_id: Option<String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    /// Labels and annotations that begin with `spotkeeper.dev/`, and the label that keeps it out of load balancers.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A taint, with all its fields: they are written back as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
    /// RFC 3339, as read.
    pub time_added: Option<String>,
}
