pub mod api;
pub mod domain;
pub mod engine;
pub mod interruption;
#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "agent")]
pub mod adapters;
#[cfg(feature = "agent")]
pub mod config;
#[cfg(feature = "agent")]
pub mod driver;
#[cfg(feature = "agent")]
pub mod telemetry;
