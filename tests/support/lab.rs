//! The lab: real parts for tests, for `make demo` and for `make bench`.
//!
//! | module | part |
//! |---|---|
//! | [`control_plane`] | etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok as kubelet |
//! | [`cluster`] | one test's corner of it |
//! | [`objects`] | nodes, pods, workloads and budgets, said fluently |
//! | [`agent`] | agents as processes, with tokens bound to their node |
//! | [`api_proxy`] | what stands between an agent and the API server, and misbehaves |
//! | [`imds`] | instance metadata: our own service, faithful and faulty at will |
//! | [`aws_mock`] | instance metadata as AWS mocks it |
//! | [`moto`] | SQS, and EventBridge in front of it |
//! | `ec2` | EC2: moto's, with a layer before it that runs dry, throttles and loses answers |
//! | `provisioner` | provisioners as processes |
//! | [`rights`] | what the manifests grant, and what of it was used |
//! | [`facts`], [`process`] | waiting for facts; processes that end with the test |
#![allow(dead_code, reason = "each of tests, demo and bench uses a part of it")]

pub mod agent;
pub mod api_proxy;
pub mod aws_mock;
pub mod cluster;
pub mod control_plane;
#[cfg(feature = "provisioner")]
pub mod ec2;
pub mod facts;
pub mod imds;
pub mod moto;
pub mod objects;
pub mod process;
#[cfg(feature = "provisioner")]
pub mod provisioner;
pub mod rights;

/// The agent of this build.
pub const AGENT: &str = env!("CARGO_BIN_EXE_spotkeeper-agent");
