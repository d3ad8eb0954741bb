//! The words that both cores share.

pub mod node;
pub mod notice;
pub mod pod;
pub mod time;
pub mod wire;
