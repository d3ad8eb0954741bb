//! A client for the servers under test, and a server on a free port.

use std::net::SocketAddr;

use axum::Router;
use spotkeeper::adapters::serve::{self, Limits};

/// Serves on a free port of the loopback until the test's runtime ends.
pub async fn served(router: Router, limits: Limits) -> SocketAddr {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let listener = serve::bind(any).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve::serve(listener, router, limits));
    address
}

/// Asks without any proxy.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Status and body of a GET.
pub async fn get(url: String) -> (u16, String) {
    let response = client().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}
