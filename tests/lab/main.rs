//! Tests on the lab: a real control plane, agents as real processes under the shipped manifests.

#[path = "../support/lab.rs"]
mod support;

mod aws_mock;
mod control_plane;
mod faults;
mod imds;
mod moto;
mod notices;
mod policies;
mod security;
