//! The words that both cores share.

pub mod node;
pub mod notice;
pub mod offering;
pub mod pod;
pub mod policy;
pub mod quantity;
pub mod requirements;
pub mod time;
pub mod wire;
