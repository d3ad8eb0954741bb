#[cfg(feature = "agent")]
pub mod adapters;
pub mod api;
pub mod domain;
pub mod engine;
pub mod interruption;
