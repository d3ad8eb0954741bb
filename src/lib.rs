//! Keeps Kubernetes workloads on AWS spot capacity.
//!
//! # How it flows
//!
//! ```text
//!  IMDS ─────────┐
//!  SQS ──────────┤  adapters parse      core decides           adapters perform
//!  Node, pods ───┼─> Input ───────> interruption::Keeper ──> Effect ──> API server, notice endpoint, log
//!  Interruption ─┘      ^              (pure, no clock)          │
//!                       └────────────── results ─────────────────┘
//!
//!  Interruptions ┐
//!  claims, pools ┼─> Input ──> provision::Provisioner ──> Effect ──> EC2, API server, log
//!  Nodes, EC2 ───┘      ^        (pure, no clock)            │
//!                       └─────────── results ────────────────┘
//! ```
//!
//! # Where things are
//!
//! | module | what is there |
//! |---|---|
//! | [`engine`] | what a core is: inputs in, effects out, time passed in |
//! | [`domain`] | the words: time, notices (and how bytes become them), nodes, pods |
//! | [`interruption`] | core 1: from a notice to an empty node |
//! | [`provision`] | core 2: from a doomed node to a Ready one in its place |
//! | [`api`] | the custom resources |
//! | `sim` | the seeded simulator of the whole (feature `sim`) |
//! | `adapters` | IMDS, SQS, EC2, Kubernetes, leases, the wall clock, the notice endpoint, admin |
//! | `driver` | the one loop that runs a core on tokio (feature `runtime`) |
//! | `hands` | what a keeper's effects come to at the API server, for agent and provisioner (feature `runtime`) |
//! | `agent` | wiring and performer of `spotkeeper-agent` (feature `agent`) |
//! | `provisioner` | wiring and performer of `spotkeeper-provisioner` (feature `provisioner`) |
//! | `plan` | what would happen to a cluster that exists, by the simulator (feature `cli`) |
//! | `cli` | `spotkeeper`, the command: `rehearse`, `plan`, `trace` (feature `cli`) |
//! | `prices` | the file of `--prices` (features `cli`, `provisioner`) |
//! | `config`, `telemetry` | flags and environment; the log (feature `runtime`) |
//!
//! The cores compile alone (`cargo check --lib --no-default-features`): no async runtime and no SDK is within their
//! reach. Adapters depend on cores, never the other way round.

#![forbid(unsafe_code)]

pub mod api;
pub mod domain;
pub mod engine;
pub mod interruption;
pub mod provision;
#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "cli")]
pub mod plan;

#[cfg(any(feature = "cli", feature = "provisioner"))]
pub mod prices;

#[cfg(feature = "runtime")]
pub mod adapters;
#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod driver;
#[cfg(feature = "runtime")]
pub mod hands;
#[cfg(feature = "provisioner")]
pub mod provisioner;
#[cfg(feature = "runtime")]
pub mod telemetry;
