//! Replacement capacity on the lab: real control plane, real SDK, provisioners as processes under the shipped manifests.

#[path = "../support/lab.rs"]
mod support;

mod classes;
mod copies;
mod departures;
mod faults;
mod ladder;
mod leaders;
mod permissions;
mod pools;
mod scene;
mod takeover;
mod witness;
