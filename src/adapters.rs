//! What touches the world: each adapter speaks to one thing outside.

pub mod admin;
pub mod imds;
pub mod kubernetes;
pub mod lease;
pub mod metrics;
pub mod notice_server;
pub mod serve;
pub mod sqs;
