//! The socket side: who may connect, when a connection is cut, and when an answer went out.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::Fault;
use super::answers::{CarriesNotice, Instance};

/// As many as may wait to be accepted.
const BACKLOG: i32 = 128;

/// A port that stays ours whether or not somebody listens on it.
pub struct Port {
    /// Bound for good: shut, it refuses; listening again, it is where it was.
    bound: Socket,
    address: SocketAddr,
    instance: Arc<Mutex<Instance>>,
    cuts: watch::Sender<()>,
    accepting: Mutex<Option<AbortHandle>>,
}

impl Port {
    /// A free port of the loopback address, open at once.
    pub fn open(instance: Arc<Mutex<Instance>>) -> Port {
        // A port that the kernel chose goes back to it when the socket is shut; one that was asked for stays. Bound by
        // both for a moment, it cannot be taken in between.
        let chosen = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = chosen.local_addr().ok().and_then(|address| address.as_socket()).expect("it has an address");
        let bound = bind(address);
        let port = Port { bound, address, instance, cuts: watch::Sender::new(()), accepting: Mutex::default() };
        port.reopen();
        port
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection that is open; what they asked and was not answered stays so.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub fn shut(&self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
            self.bound.shutdown(std::net::Shutdown::Both).expect("a listener can be shut");
        }
        self.cut();
    }

    /// Listens again, if it was shut.
    pub fn reopen(&self) {
        let mut accepting = self.accepting.lock().unwrap();
        if accepting.is_none() {
            self.bound.listen(BACKLOG).expect("the port is still ours");
            let listener = self.bound.try_clone().expect("a descriptor can be cloned");
            let listener = TcpListener::from_std(listener.into()).expect("the runtime takes it");
            let task = tokio::spawn(accept(listener, self.instance.clone(), self.cuts.clone()));
            *accepting = Some(task.abort_handle());
        }
    }
}

fn bind(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be had");
    socket.set_reuse_address(true).expect("an address can be used again");
    socket.set_nonblocking(true).expect("a socket can be set not to block");
    socket.bind(&address.into()).expect("a port can be had");
    socket
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Serves until it is aborted: its connections end with it.
async fn accept(listener: TcpListener, instance: Arc<Mutex<Instance>>, cuts: watch::Sender<()>) {
    let mut connections = JoinSet::new();
    // An `Err` is a connection that ended before it was accepted, or a listener that was shut: then this is being
    // aborted.
    while let Ok((stream, _)) = listener.accept().await {
        instance.lock().unwrap().connections += 1;
        connections.spawn(serve(stream, instance.clone(), cuts.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, instance: Arc<Mutex<Instance>>, mut cut: watch::Receiver<()>) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let carries_notice = Arc::new(AtomicBool::new(false));
    let wire = Wire { stream, instance: instance.clone(), carries_notice: carries_notice.clone() };
    if instance.lock().unwrap().fault == Fault::Reset {
        return;
    }
    let service = service_fn(|request: Request<Incoming>| {
        let (instance, carries_notice) = (instance.clone(), carries_notice.clone());
        async move {
            let response = answer(&instance, &request).await;
            carries_notice.store(response.extensions().get::<CarriesNotice>().is_some(), Ordering::Relaxed);
            Ok::<Response, Infallible>(response)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(wire), service);
    tokio::select! {
        // First, so that nothing is answered once it is cut.
        biased;
        _ = cut.changed() => {}
        // What goes wrong on it is the client's to tell.
        _ = connection => {}
    }
}

async fn answer(instance: &Mutex<Instance>, request: &Request<Incoming>) -> Response {
    let fault = instance.lock().unwrap().asked(request.uri().path());
    match fault {
        // Both end when the connection is cut.
        Fault::Hang | Fault::Reset => std::future::pending().await,
        Fault::Delay(delay) => tokio::time::sleep(delay).await,
        Fault::None | Fault::Status(_) | Fault::DenyTokens | Fault::Garbage | Fault::GarbageTokens => {}
    }
    instance.lock().unwrap().answer(request.method(), request.uri().path(), request.headers())
}

/// A connection that knows when a notice left it, and that can end with a reset.
struct Wire {
    stream: TcpStream,
    instance: Arc<Mutex<Instance>>,
    /// Whether what is written next is an answer with the notice.
    carries_notice: Arc<AtomicBool>,
}

impl Wire {
    /// `at` is taken before the write: the client may be at work before the write returns.
    fn written(&self, at: Instant) {
        if self.carries_notice.swap(false, Ordering::Relaxed) {
            self.instance.lock().unwrap().first_notice.get_or_insert(at);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let at = Instant::now();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.written(at);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let at = Instant::now();
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.written(at);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.instance.lock().unwrap().fault == Fault::Reset {
            // Closing then sends RST rather than FIN.
            let _ = self.stream.set_zero_linger();
        }
    }
}
