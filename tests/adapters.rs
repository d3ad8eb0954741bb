//! The adapters against servers that speak their protocols, over real sockets on the loopback.

#[path = "adapters/admin.rs"]
mod admin;
#[path = "adapters/client.rs"]
mod client;
#[path = "adapters/imds.rs"]
mod imds;
#[path = "adapters/kubernetes.rs"]
mod kubernetes;
#[path = "adapters/notice_server.rs"]
mod notice_server;
#[path = "adapters/sqs.rs"]
mod sqs;
