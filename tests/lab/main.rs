//! Tests on the lab: a real control plane, agents as real processes under the shipped manifests.

#[path = "../support/lab.rs"]
mod support;

mod api_server;
mod aws_mock;
mod control_plane;
mod drain;
mod faults;
mod imds;
mod lifecycle;
mod manifests;
mod moto;
mod notices;
mod permissions;
mod policies;
mod queue;
mod security;
