//! Tests on the lab: a real control plane, agents as real processes under the shipped manifests.

#[path = "../support/lab.rs"]
mod support;

mod control_plane;
mod imds;
mod notices;
