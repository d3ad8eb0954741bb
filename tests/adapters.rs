//! The adapters against servers that speak their protocols, over real sockets on the loopback.

#[path = "adapters/imds.rs"]
mod imds;
