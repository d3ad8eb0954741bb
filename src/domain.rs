//! The words that both cores share.

pub mod pod;
pub mod time;
