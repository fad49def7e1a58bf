//! A worker: one thread with one runtime that serves its share of the connections for as long as the process lives.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, timeout};
use wharf_kernel::Connection;

use crate::acceptor::Pass;
use crate::clock::{self, Slot};
use crate::link::{Link, Linked};
use crate::paced::Paced;
use crate::proxy_protocol::introduced;
use crate::request_id::RequestIds;
use crate::timer::Coarse;
use crate::tls::{self, Tls};
use crate::watch::Watch;
use crate::{Pipeline, http2, pipeline};

/// An accepted socket.
pub(crate) enum Socket {
    Tcp {
        stream: std::net::TcpStream,
        /// Whether it begins with a PROXY protocol header.
        proxy_protocol: bool,
        tls: Option<Arc<Tls>>,
    },
    Unix(std::os::unix::net::UnixStream),
    /// One that was open on another worker, between two requests.
    Resumed {
        stream: std::net::TcpStream,
        connection: Connection,
    },
}

/// A connection on plain TCP, which another worker could go on with.
#[derive(Clone, Copy)]
struct Plain {
    descriptor: RawFd,
    /// Whether another worker had it before.
    resumed: bool,
}

impl Plain {
    fn of(stream: &TcpStream) -> Self {
        Self { descriptor: stream.as_raw_fd(), resumed: false }
    }
}

/// What a worker is told.
pub(crate) enum Command {
    /// Serve the next connection of the inbox, if another worker has not taken it.
    Serve,
    /// Run this between two polls.
    Run(Box<dyn FnOnce() + Send>),
    /// End every connection after the request it is at, cut what is left after the time, and say how many were cut.
    Drain(Duration, oneshot::Sender<usize>),
}

/// How the connections are to behave.
pub(crate) const OPEN: u8 = 0;
const DRAINING: u8 = 1;
pub(crate) const CUT: u8 = 2;

/// How a connection is reached from outside its task.
struct Seated {
    waker: Waker,
    slot: Arc<Slot>,
    /// Of HTTP/1, after the handshake.
    http1: Option<Http1>,
}

/// What is known of a connection that may be upgraded.
struct Http1 {
    link: Arc<Link>,
    /// Of a connection that could be moved. The descriptor is open as long as this is here: it is taken out before the socket
    /// is closed.
    plain: Option<(RawFd, Arc<Connection>)>,
}

/// What a worker's connections share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What this worker's thread is doing.
    pub(crate) watch: Arc<Watch>,
    /// Connections that it has not taken yet, each with the pass that goes back when it is gone. Not in the commands, so
    /// that they can go to another worker when this one is stuck.
    pub(crate) inbox: Mutex<VecDeque<(Socket, Pass)>>,
    ids: RequestIds,
    /// Connections handed to this worker that are not gone yet.
    pub(crate) open: AtomicUsize,
    state: AtomicU8,
    /// Wakes each connection when `state` changes or its time is up. Locked when a connection comes or goes.
    wakers: Mutex<HashMap<u64, Seated>>,
    pub(crate) began: Instant,
    /// Told when the last connection is gone.
    idle: Notify,
}

impl Shared {
    pub(crate) fn new(index: usize, pipeline: Arc<Pipeline>, watch: Arc<Watch>) -> Self {
        Self {
            pipeline,
            watch,
            inbox: Mutex::default(),
            ids: RequestIds::new(index),
            open: AtomicUsize::new(0),
            state: AtomicU8::new(OPEN),
            wakers: Mutex::default(),
            began: Instant::now(),
            idle: Notify::new(),
        }
    }

    pub(crate) fn inbox(&self) -> std::sync::MutexGuard<'_, VecDeque<(Socket, Pass)>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Seated>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection woken when the state changes or its time is up.
    pub(crate) fn seat(&self, key: u64, waker: &Waker, slot: &Arc<Slot>) {
        self.seat_as(key, waker, slot, None);
    }

    fn seat_as(&self, key: u64, waker: &Waker, slot: &Arc<Slot>, http1: Option<Http1>) {
        self.wakers().insert(key, Seated { waker: waker.clone(), slot: slot.clone(), http1 });
    }

    /// Takes the connections away on which nothing is under way: this worker is stuck.
    pub(crate) fn rescue(&self) -> Vec<(Socket, Pass)> {
        let mut saved = Vec::new();
        let mut left = Vec::new();
        {
            let all = self.wakers();
            let movable = || {
                all.values().filter_map(|seated| {
                    let Http1 { link, plain } = seated.http1.as_ref()?;
                    Some((seated, link, plain.as_ref()?))
                })
            };
            if movable().next().is_none() {
                return saved;
            }
            // A descriptor of this process, asked for by its number: whoever has the socket can't be asked.
            let Ok(own) = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) else { return saved };
            for (seated, link, (descriptor, connection)) in movable() {
                if !seated.slot.claim() {
                    continue;
                }
                let stream = pidfd_getfd(&own, *descriptor, PidfdGetfdFlags::empty()).ok();
                let Some((stream, mut guard)) = stream.and_then(|stream| Some((stream, link.take_guard()?))) else {
                    seated.slot.give_back();
                    continue;
                };
                seated.slot.leave_worker();
                if let Some(pass) = guard.pass.take() {
                    let connection = Connection::clone(connection);
                    saved.push((Socket::Resumed { stream: stream.into(), connection }, pass));
                }
                left.push((guard, seated.waker.clone()));
            }
        }
        // What is left of them ends when the worker comes back.
        for (guard, waker) in left {
            drop(guard);
            waker.wake();
        }
        saved
    }

    /// How the connections are to behave.
    pub(crate) fn state(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }

    /// A new request id.
    pub(crate) fn next_id(&self) -> Arc<str> {
        self.ids.next()
    }

    /// The connections that are idle between two requests or have said nothing yet, each with a number that is smaller the longer it is so.
    pub(crate) fn idle(&self) -> Vec<(u64, Arc<Slot>, Waker)> {
        let all = self.wakers();
        all.values().filter_map(|s| Some((s.slot.idle()?, s.slot.clone(), s.waker.clone()))).collect()
    }

    fn change(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        for seated in self.wakers().values() {
            seated.waker.wake_by_ref();
        }
    }

    /// Wakes, for ever, the connections whose time is up.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(clock::tick(&self.pipeline.limits));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await.into_std();
            for seated in self.wakers().values() {
                if seated.slot.sweep(now) {
                    seated.waker.wake_by_ref();
                }
            }
        }
    }

    async fn drain(&self, time: Duration) -> usize {
        self.change(DRAINING);
        let empty = async {
            loop {
                let notified = self.idle.notified();
                if self.open.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        let mut empty = pin!(empty);
        if tokio::time::timeout(time, empty.as_mut()).await.is_ok() {
            return 0;
        }
        // Upgraded connections have no task of this worker that could end them.
        let (cut, links): (usize, Vec<_>) = {
            let all = self.wakers();
            (all.len(), all.values().filter_map(|seated| Some(seated.http1.as_ref()?.link.clone())).collect())
        };
        self.change(CUT);
        links.iter().for_each(|link| link.cut());
        empty.await;
        cut
    }
}

/// The body of a worker's thread: serves until the commands end.
pub(crate) async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut next = 0;
    tokio::spawn({
        let shared = shared.clone();
        async move { shared.sweep().await }
    });
    while let Some(command) = commands.recv().await {
        match command {
            Command::Run(task) => {
                // The panic hook has reported it; the worker lives on.
                let _ = catch_unwind(AssertUnwindSafe(task));
            }
            Command::Drain(time, done) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _ = done.send(shared.drain(time).await);
                });
            }
            Command::Serve => {
                next += 1;
                // The connection stays in the inbox until this worker really gets to it.
                let (shared, key) = (shared.clone(), next);
                tokio::spawn(async move { take(&shared, key) });
            }
        }
    }
}

/// Begins to serve the next connection of the inbox, if no other worker has taken it.
fn take(shared: &Arc<Shared>, key: u64) {
    let Some((socket, pass)) = shared.inbox().pop_front() else { return };
    let guard = Guard { shared: shared.clone(), key, pass: Some(pass) };
    match socket {
        Socket::Tcp { stream, proxy_protocol, tls } => {
            let connection = Connection::new(stream.peer_addr().ok(), stream.local_addr().ok(), false);
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            match tls {
                None if !proxy_protocol && !shared.pipeline.limits.http2.cleartext => {
                    let plain = Plain::of(&stream);
                    tokio::spawn(serve(stream, connection, guard, Some(plain)));
                }
                tls => _ = tokio::spawn(serve_tcp(stream, connection, proxy_protocol, tls, guard)),
            }
        }
        Socket::Unix(stream) => {
            let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { return };
            tokio::spawn(serve(stream, Connection::new(None, None, false), guard, None));
        }
        Socket::Resumed { stream, connection } => {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let plain = Plain { resumed: true, ..Plain::of(&stream) };
            tokio::spawn(serve(stream, connection, guard, Some(plain)));
        }
    }
}

/// Counts a connection out, however it ends. It goes with the socket, so that an upgraded connection counts, too.
pub(crate) struct Guard {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: u64,
    /// `None` where the connection goes on on another worker.
    pass: Option<Pass>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.wakers().remove(&self.key);
        if self.pass.is_some() {
            self.shared.pipeline.counters.connection_closed();
        }
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

impl Guard {
    /// Waits for something before the first request; `None` when the server begins to drain, or the connection has to make room.
    async fn unless_drained<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let slot = Slot::opening(self.shared.began, &self.shared.pipeline.limits);
        let mut future = pin!(future);
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                registered = true;
                self.shared.seat(self.key, cx.waker(), &slot);
            }
            let goes_on = self.shared.state() == OPEN && !slot.is_unwanted();
            if goes_on { future.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }
        })
        .await
    }
}

/// Serves a connection that does not simply begin with a request of HTTP/1.
async fn serve_tcp(
    stream: TcpStream,
    connection: Connection,
    proxy_protocol: bool,
    tls: Option<Arc<Tls>>,
    guard: Guard,
) {
    let (mut stream, mut connection) = (stream, connection);
    if proxy_protocol {
        let trusted = guard.shared.pipeline.limits.trusted_proxies.clone();
        match guard.unless_drained(introduced(stream, connection, &trusted)).await {
            Some(Some(introduced)) => (stream, connection) = introduced,
            _ => return,
        }
    }
    match tls {
        Some(tls) => serve_tls(stream, connection, tls, guard).await,
        None if guard.shared.pipeline.limits.http2.cleartext => serve_either(stream, connection, guard).await,
        None => {
            let plain = Plain::of(&stream);
            serve(stream, connection, guard, Some(plain)).await;
        }
    }
}

/// Makes the handshake, then serves the protocol that was agreed on (ALPN, RFC 7301).
async fn serve_tls(stream: TcpStream, connection: Connection, tls: Arc<Tls>, guard: Guard) {
    let remote = connection.remote;
    let handshake = timeout(tls.handshake_timeout(), tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream));
    let Some(result) = guard.unless_drained(handshake).await else { return };
    let stream = match result {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake failed: {error}");
            return;
        }
        Err(_) => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake took too long");
            return;
        }
    };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let connection = connection.encrypted(tls::facts(session));
    if http2 { http2::serve(stream, connection, guard).await } else { serve(stream, connection, guard, None).await }
}

/// Serves the protocol that the client begins with, where HTTP/2 may be spoken without TLS.
async fn serve_either(stream: TcpStream, connection: Connection, guard: Guard) {
    let limit = guard.shared.pipeline.limits.header_timeout;
    match guard.unless_drained(timeout(limit, http2::sniff(stream))).await {
        Some(Ok(Ok((true, stream)))) => http2::serve(stream, connection, guard).await,
        Some(Ok(Ok((false, stream)))) => serve(stream, connection, guard, None).await,
        _ => {}
    }
}

/// Serves one HTTP/1 connection to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    connection: Connection,
    guard: Guard,
    plain: Option<Plain>,
) {
    let connection = Arc::new(connection);
    let (shared, key) = (guard.shared.clone(), guard.key);
    let link = Link::new(guard);
    let limits = &shared.pipeline.limits;
    let slot = Slot::new(shared.began, limits, false);
    if plain.is_some_and(|plain| plain.resumed) {
        slot.resume();
    }
    let service = {
        let (shared, connection, slot, link) = (shared.clone(), connection.clone(), slot.clone(), link.clone());
        service_fn(move |request| Pipeline::begin(&shared, &connection, Some(&link), &slot, shared.ids.next(), request))
    };
    let mut builder = http1::Builder::new();
    builder
        .timer(Coarse(slot.clone()))
        .header_read_timeout(limits.keep_alive)
        .max_header_size(limits.header_bytes + limits.target_bytes)
        .max_buf_size((limits.header_bytes + limits.target_bytes).max(64 * 1024))
        .half_close(false)
        .keep_alive(true);
    // 100 is hyper's own limit; any other makes it parse each head on the heap.
    if limits.header_count != 100 {
        builder.max_headers(limits.header_count);
    }
    let paced = Paced::new(stream, slot.clone(), shared.clone());
    let stream = TokioIo::new(Linked::new(paced, link.clone()));
    let mut served = pin!(builder.serve_connection(stream, service).with_upgrades());
    let (mut seen, mut registered) = (OPEN, false);
    let result = poll_fn(|cx| {
        if !slot.enter() {
            return Poll::Ready(Ok(()));
        }
        if !registered {
            registered = true;
            let plain = plain.map(|plain| (plain.descriptor, connection.clone()));
            shared.seat_as(key, cx.waker(), &slot, Some(Http1 { link: link.clone(), plain }));
        }
        let state = shared.state();
        let polled = if slot.is_cut() || state == CUT {
            Poll::Ready(Ok(()))
        } else {
            if state != seen {
                seen = state;
                served.as_mut().graceful_shutdown();
            }
            served.as_mut().poll(cx)
        };
        slot.exit();
        polled
    })
    .await;
    // Not one poll later: whoever has the upgraded socket now is on this thread, too.
    link.http_is_over();
    let remote = &*connection.remote_text;
    if slot.is_cut() && slot.refused.get().is_none() {
        tracing::info!(remote, "the client does not take what is sent: the connection is cut");
    }
    if let Err(error) = result {
        if error.is_parse() {
            let status = if error.is_parse_too_large() { 431 } else { 400 };
            let (status, id) = match slot.refused.get() {
                Some((status, id)) => (status.as_u16(), id.clone()),
                // hyper answered by itself: behind another answer, or with none.
                None => (status, shared.next_id()),
            };
            pipeline::write_refused(&shared.pipeline, &connection, status, &id);
            tracing::info!(remote, "refused what is not a valid HTTP/1 request: {error}");
        } else {
            tracing::debug!(remote, "the connection ended early: {error}");
        }
    }
}
