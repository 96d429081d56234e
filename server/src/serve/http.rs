//! HTTP, on a thread of its own: the listener, and how long it is patient with a slow peer.

use super::api::{self, Api};
use super::notify;
use super::tls::Tls;
use super::webhook;
use super::{ServeError, booting, cleaning, keeper, stream};
use axum::Router;
use axum::http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long the end waits for requests that are being answered.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// The most bytes of a head, and of what is read ahead.
const MAX_HEAD: usize = 64 << 10;
/// The answer to a request in the clear on a port with TLS.
const SAY_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS: its address begins with https://\n";
/// After a failure to accept, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// What one peer may take of the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long the handshake of TLS may take, then a head to arrive, and how long a connection may wait for the next one.
    pub(super) head: Duration,
    /// How long a body may take to arrive.
    pub(super) body: Duration,
    /// How long a peer may leave sent bytes unread.
    pub(super) unread: Duration,
    /// Connections at once; whoever comes later waits in the queue of the system.
    pub(super) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { head: seconds(10), body: seconds(10), unread: seconds(30), connections: 256 }
    }
}

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// HTTP. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Http {
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(super) fn serve_http(listener: TcpListener, api: Api, limits: Limits) -> io::Result<Http> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    let (end, ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("slidecast-http".to_owned()).spawn(move || {
        let work = async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let api = Arc::new(api);
            tokio::spawn(stream::publish(api.clone()));
            tokio::spawn(webhook::deliver(api.clone()));
            tokio::spawn(notify::stay_alive(api.database.clone()));
            let tls = api.tls.clone();
            if let Some(tls) = tls.clone() {
                tokio::spawn(tls.watch());
            }
            tokio::spawn(keeper::keep(api.clone()));
            if let Some(own_disk) = api.own_disk.clone() {
                tokio::spawn(booting::keep(api.clone(), own_disk));
            }
            tokio::spawn(cleaning::clean(api.database.clone(), api.keep_events));
            tokio::select! {
                served = serve(listener, api::router(api, limits), tls, limits) => served,
                _ = ended => Ok(()),
            }
        };
        if let Err(error) = runtime.block_on(work) {
            log::error!("serving HTTP: {error}");
        }
        runtime.shutdown_timeout(LAST_ANSWERS);
    })?;
    Ok(Http { end: Some(end), thread: Some(thread) })
}

impl Drop for Http {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.end.take().map(|end| end.send(()));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Answers every connection with `router`, for ever.
pub(super) async fn serve(
    listener: tokio::net::TcpListener,
    router: Router,
    tls: Option<Arc<Tls>>,
    limits: Limits,
) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(limits.connections));
    loop {
        let place = free.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("accepting an HTTP connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            // A peer that breaks off, or is too slow, is no fault of the server.
            if let Err(error) = answer(stream, Peer(peer.ip()), router, tls, limits).await {
                log::debug!("HTTP with {peer}: {error}");
            }
            drop(place);
        });
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn answer(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    tls: Option<Arc<Tls>>,
    limits: Limits,
) -> Result<(), Failed> {
    let unread = u32::try_from(limits.unread.as_millis())?;
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::TcpUserTimeout, &unread)?;
    let Some(tls) = tls else { return talk(stream, peer, false, router, limits).await };
    let stream = tokio::time::timeout(limits.head, handshake(stream, &tls)).await??;
    talk(stream, peer, true, router, limits).await
}

/// The handshake of TLS. A browser that was given an address with `http://` is told so.
async fn handshake(stream: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0].is_ascii_alphabetic() {
        // What is not read would make the system break the connection off before the answer is there.
        let _ = stream.try_read(&mut [0; 8192]);
        // It fits into the buffer of a new connection.
        stream.try_write(SAY_HTTPS)?;
        return Err(io::Error::other("a request in the clear"));
    }
    TlsAcceptor::from(tls.config()).accept(stream).await
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    encrypted: bool,
    router: Router,
    limits: Limits,
) -> Result<(), Failed> {
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if encrypted {
            // As a reverse proxy with TLS would say it: cookies are for encrypted connections only.
            request.headers_mut().insert("x-forwarded-proto", HeaderValue::from_static("https"));
        }
        service.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MAX_HEAD);
    Ok(builder.serve_connection(TokioIo::new(stream), service).await?)
}
