//! Where the program meets the world. Adapters depend on the cores and the domain, never the other way round.
//!
//! Inwards:
//! - [`imds`]: asks the instance metadata service of the node's own instance.
//! - [`sqs`]: receives from and deletes in the queue; the only file that names `aws_sdk_sqs`.
//! - [`ec2`]: instances, launches, what there is and what it costs; the only file that names `aws_sdk_ec2`.
//!
//! Both ways:
//! - [`kubernetes`]: the API server: watches, the node's mark, records, evictions.
//! - [`lease`]: which agents read the queue; [`leader`]: which provisioner leads.
//!
//! Outwards:
//! - [`notice_server`]: what the workloads on the node are told, over HTTP or as a file.
//! - [`wall_clock`]: what time it is, by the best knowledge.
//! - [`admin`]: `/livez`, `/readyz` and `/metrics`.
//! - [`metrics`]: every metric, typed.
//! - [`serve`]: HTTP/1 with limits on everything; both servers stand on it.

pub mod admin;
#[cfg(feature = "provisioner")]
pub mod ec2;
#[cfg(feature = "agent")]
pub mod imds;
pub mod kubernetes;
#[cfg(feature = "provisioner")]
pub mod leader;
#[cfg(feature = "agent")]
pub mod lease;
pub mod metrics;
#[cfg(feature = "agent")]
pub mod notice_server;
pub mod serve;
#[cfg(feature = "agent")]
pub mod sqs;
pub mod wall_clock;
