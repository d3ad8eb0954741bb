//! One HTTP/2 connection to the API server for everything that the agent asks of it, in its own name and in its node's.
//!
//! kube's own client speaks HTTP/1.1: every call that is on its way at the same time as others needs a connection, and a
//! TLS handshake, of its own. A drain asks for all pods at once. With a hundred nodes taken in one second the
//! handshakes alone kept the API server busy for seconds, which `make bench` shows.

use std::time::Duration;

use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tower::ServiceBuilder;

use super::ConnectError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection whose other end is gone without a word is noticed after both, and given up: until then every call would
/// be sent into it.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The connection; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Connection {
    http: HttpClient<HttpsConnector<HttpConnector>, Body>,
    config: Config,
}

impl Connection {
    /// Prepares it. Nothing is sent yet.
    pub fn new(config: Config) -> Result<Self, ConnectError> {
        if config.proxy_url.is_some() {
            return Err(ConnectError::Proxy);
        }
        let server = &config.cluster_url;
        if !matches!(server.scheme_str(), Some("http" | "https")) || server.host().is_none_or(str::is_empty) {
            return Err(ConnectError::Server { url: server.to_string() });
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = config.rustls_client_config().map_err(ConnectError::Client)?;
        let mut https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = &config.tls_server_name {
            let name = name.clone().try_into().map_err(|_| ConnectError::ServerName { name: name.clone() })?;
            https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let http = HttpClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(https.enable_all_versions().wrap_connector(tcp));
        Ok(Self { http, config })
    }

    /// A client in our own name.
    pub fn own(&self) -> Result<Client, ConnectError> {
        self.client(&self.config)
    }

    /// A client that speaks as `user` (impersonation).
    pub fn speaking_as(&self, user: String) -> Result<Client, ConnectError> {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user);
        self.client(&config)
    }

    fn client(&self, config: &Config) -> Result<Client, ConnectError> {
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(ConnectError::Client)?)
            .layer(config.extra_headers_layer().map_err(ConnectError::Client)?)
            .map_err(tower::BoxError::from)
            .service(self.http.clone());
        Ok(Client::new(service, config.default_namespace.clone()))
    }
}
