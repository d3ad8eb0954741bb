//! The custom resources, group `spotkeeper.dev/v1alpha1`.
//!
//! The plain data compiles alone, so that the cores can speak it; the feature `api` adds the Kubernetes types and the
//! schemas.

pub mod condition;
pub mod interruption;
pub mod launch;
pub mod node_claim;
pub mod node_class;
pub mod node_pool;

/// The group of all our resources.
pub const GROUP: &str = "spotkeeper.dev";
