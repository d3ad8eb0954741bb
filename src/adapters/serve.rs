//! An HTTP/1 server whose every resource has a limit: pods of the node can reach it, and none of them may exhaust it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinSet};

/// What clients may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; one more is closed at once, unless it is from this very host: the kubelet, which restarts what
    /// does not answer it, must not be kept out by others.
    pub connections_max: usize,
    /// Open connections of one address.
    pub connections_per_address_max: usize,
    /// Until a request's head must have arrived, also on a connection that is kept open between two requests.
    pub head_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 320, connections_per_address_max: 64, head_timeout: Duration::from_secs(15) }
    }
}

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long accepting pauses when the process is out of descriptors: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a server cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; is another process on this port, or is the address not this host's?")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Begins to listen.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves until it is dropped, which also closes every connection.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(HEAD_BYTES_MAX);
    let mut open = Open::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if open.admits(peer.ip(), is_of_this_host(&stream, peer), &limits) => {
                    open.begin(peer.ip(), connection(&http, stream, router.clone()));
                }
                // Dropping the stream closes it.
                Ok(_) => {}
                // A client that left while it was waiting is no news.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections, trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = open.tasks.join_next_with_id() => open.ended(match ended {
                Ok((id, ())) => id,
                Err(error) => error.id(),
            }),
        }
    }
}

fn connection(http: &http1::Builder, stream: TcpStream, router: Router) -> impl Future<Output = ()> + Send + 'static {
    // Without it small answers would wait for the client's acknowledgement; a socket that refuses it still works.
    let _ = stream.set_nodelay(true);
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    async {
        // How a client's connection ends concerns the client alone.
        let _ = serving.await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn is_of_this_host(stream: &TcpStream, peer: SocketAddr) -> bool {
    stream.local_addr().is_ok_and(|own| own.ip() == peer.ip())
}

/// The open connections; its size is bounded by the limits.
#[derive(Default)]
struct Open {
    tasks: JoinSet<()>,
    peers: HashMap<Id, IpAddr>,
}

impl Open {
    fn admits(&self, peer: IpAddr, of_this_host: bool, limits: &Limits) -> bool {
        let of_peer = self.peers.values().filter(|other| **other == peer).count();
        (of_this_host || self.peers.len() < limits.connections_max) && of_peer < limits.connections_per_address_max
    }

    fn begin(&mut self, peer: IpAddr, connection: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(connection);
        self.peers.insert(task.id(), peer);
    }

    fn ended(&mut self, id: Id) {
        self.peers.remove(&id);
    }
}
