//! TLS and HTTP/1.1 for whoever connects.
//!
//! Clients are hostile: each phase of a connection has its time, each head of a request its
//! size, and there are so many connections at once; the next ones wait in the host's queue.
//! Bodies are not read. What a defect of the handler would be to others is an answer 500.

use crate::Leaves;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::ring;
use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// First byte of a TLS connection: a record of the handshake (*RFC 8446 §5.1*).
const HANDSHAKE: u8 = 22;
/// How long a failure to accept, as for want of descriptors, is waited out.
const PAUSE: Duration = Duration::from_millis(100);
/// How long requests that are under way have when the server is told to end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Characters of a target that the log has.
const LOGGED: usize = 200;
/// The header by which a handler names a request, and the log with it.
const REQUEST_ID: &str = "request-id";
/// Threads that run the handler.
const WORKERS: usize = 2;

/// Answers a request's method and target; runs on several threads.
pub type Handler = dyn Fn(&Method, &Uri) -> Response<Vec<u8>> + Send + Sync;

/// Is told of each request, and of each connection that comes to none, in one line.
pub type Log = dyn Fn(&str) + Send + Sync;

/// What a client may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Until the client has sent its first byte, and for the handshake of TLS, each.
    pub handshake: Duration,
    /// For the head of a request, and between two.
    pub head: Duration,
    /// For all of a connection.
    pub connection: Duration,
    /// Bytes of a request's head.
    pub head_size: usize,
    /// Header fields of a request.
    pub headers: usize,
}

impl Default for Limits {
    /// Ample for clients that fetch something.
    fn default() -> Self {
        Self {
            connections: 64,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            connection: Duration::from_secs(60),
            head_size: 16 << 10,
            headers: 64,
        }
    }
}

/// A server that listens, and waits for [`Server::run`] to answer.
pub struct Server {
    runtime: Runtime,
    listener: net::TcpListener,
    limits: Limits,
}

impl Server {
    /// Listens at this address.
    ///
    /// # Errors
    /// The host refuses.
    pub fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let listener = net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().max_blocking_threads(WORKERS).build()?;
        Ok(Self { runtime, listener, limits })
    }

    /// The address it listens at, with the port that was chosen if none was asked for.
    ///
    /// # Errors
    /// The host refuses.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until SIGINT or SIGTERM, and then what is under way. `ready` is called once
    /// signals are heeded.
    ///
    /// # Errors
    /// The host refuses sockets or signals, or `ready` fails.
    pub fn run(
        self,
        leaves: Leaves,
        handler: Box<Handler>,
        log: Box<Log>,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let end = {
            let _context = self.runtime.enter();
            let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
            async move {
                let [interrupt, terminate] = &mut signals;
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
        };
        ready()?;
        self.run_until(end, leaves, handler, log)
    }

    /// Answers until a future is there, and then what is under way.
    ///
    /// # Errors
    /// The host refuses sockets.
    pub fn run_until(
        self,
        end: impl Future<Output = ()>,
        leaves: Leaves,
        handler: Box<Handler>,
        log: Box<Log>,
    ) -> io::Result<()> {
        let Self { runtime, listener, limits } = self;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(leaves));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let service = Arc::new(Service { acceptor, handler, log, limits });
        runtime.block_on(async {
            service.accept(TcpListener::from_std(listener)?, end).await;
            Ok(())
        })
    }
}

/// What connections share.
struct Service {
    acceptor: TlsAcceptor,
    handler: Box<Handler>,
    log: Box<Log>,
    limits: Limits,
}

impl Service {
    /// Serves who connects until `end`.
    async fn accept(self: Arc<Self>, listener: TcpListener, end: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(self.limits.connections));
        let (ending, ended) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut end = pin!(end);
        loop {
            let next = async {
                // never closed, so there will be one
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                next = next => next,
                () = &mut end => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (service, ended) = (self.clone(), ended.clone());
                    connections.spawn(async move {
                        let all = service.limits.connection;
                        // whoever takes longer is cut off
                        let _ = timeout(all, service.converse(stream, peer, ended)).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    (self.log)(&format!("no connection: {error}"));
                    sleep(PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop((listener, ended));
        // its receivers notice
        drop(ending);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = timeout(FAREWELL, all).await;
    }

    /// A connection from its first byte to its last.
    async fn converse(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, mut ended: watch::Receiver<()>) {
        let failed = |what: &str| (self.log)(&format!("{peer} {what}"));
        let limits = self.limits;
        let mut first = [0];
        match timeout(limits.handshake, stream.peek(&mut first)).await {
            Ok(Ok(1)) => {}
            Ok(_) => return failed("said nothing"),
            Err(_) => return failed("said nothing in time"),
        }
        if first[0] != HANDSHAKE {
            failed("speaks no TLS");
            return refuse_plain(stream).await;
        }
        let (stream, rest) = match twice(stream) {
            Ok(both) => both,
            Err(error) => return failed(&error.to_string()),
        };
        let tls = match timeout(limits.handshake, self.acceptor.accept(stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => return failed(&format!("TLS: {error}")),
            Err(_) => return failed("TLS: no handshake in time"),
        };
        let answer = service_fn(|request: Request<Incoming>| self.clone().answer(request, peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_header_size(limits.head_size)
            .max_headers(limits.headers)
            .serve_connection(TokioIo::new(tls), answer);
        let mut connection = pin!(connection);
        let done = tokio::select! {
            done = connection.as_mut() => done,
            _ = ended.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = done {
            failed(&format!("HTTP: {error}"));
        }
        linger(rest).await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, _) = request.into_parts();
        let line = format!("{peer} {} {}", head.method, printable(&head.uri));
        let service = self.clone();
        let response = spawn_blocking(move || (service.handler)(&head.method, &head.uri)).await;
        let response = response.unwrap_or_else(|_| {
            let mut response = Response::new(b"the service failed\n".to_vec());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            response
        });
        let id = response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
        (self.log)(&format!("{line} {} {} {id}", response.status().as_u16(), response.body().len()));
        Ok(response.map(|body| Full::new(Bytes::from(body))))
    }
}

/// A target as it can stand in a log: what a client sends shall not move a terminal's cursor.
fn printable(target: &Uri) -> String {
    let text = target.to_string();
    let shown = text.chars().take(LOGGED).map(|c| if c.is_ascii_graphic() { c } else { '?' });
    shown.chain((text.len() > LOGGED).then_some('…')).collect()
}

/// Tells a client that speaks HTTP without TLS what is wrong.
async fn refuse_plain(mut stream: TcpStream) {
    const BODY: &str = "this service speaks TLS: its address begins with https://\n";
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close";
    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    linger(stream).await;
}

/// Two holds on one connection, which is closed with the second.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, TcpStream)> {
    let stream = stream.into_std()?;
    let again = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, TcpStream::from_std(again)?))
}

/// Reads some of what a client still sends after the answer: closed with anything unread, the
/// connection would be reset, and the answer lost on its way.
async fn linger(mut stream: TcpStream) {
    let mut some = [0; 16 << 10];
    for _ in 0..64 {
        match timeout(PAUSE, stream.read(&mut some)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
    }
}
