//! A worker: one thread with one runtime that serves its share of the connections for as long as the process lives.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slab::Slab;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use wharf_kernel::Connection;

use crate::acceptor::Pass;
use crate::clock::{self, Slot};
use crate::homed::{Homed, timeout};
use crate::link::{Link, Linked};
use crate::paced::Paced;
use crate::proxy_protocol::introduced;
use crate::request_id::RequestIds;
use crate::task::{self, Boxed, Task, Work};
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
}

/// What waits to be taken by a worker.
pub(crate) enum Waiting {
    /// A new connection, with the pass that goes back when it is gone.
    New(Socket, Pass),
    /// What another worker was at.
    Moved(Work),
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
    /// Of HTTP/1, which may be upgraded.
    link: Option<Arc<Link>>,
}

/// What a worker's connections share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What this worker's thread is doing.
    pub(crate) watch: Arc<Watch>,
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Where its sockets and timers are.
    pub(crate) runtime: Handle,
    /// What it has not taken yet. Not in the commands, so that it can go to another worker when this one is stuck.
    pub(crate) inbox: Mutex<VecDeque<Waiting>>,
    /// What it is at.
    tasks: Mutex<Slab<Weak<Task>>>,
    ids: RequestIds,
    /// The next connection's key.
    keys: AtomicU64,
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
    pub(crate) fn new(index: usize, pipeline: Arc<Pipeline>, watch: Arc<Watch>, runtime: Handle) -> Self {
        Self {
            pipeline,
            watch,
            number: index + 1,
            runtime,
            inbox: Mutex::default(),
            tasks: Mutex::default(),
            ids: RequestIds::new(index),
            keys: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            state: AtomicU8::new(OPEN),
            wakers: Mutex::default(),
            began: Instant::now(),
            idle: Notify::new(),
        }
    }

    pub(crate) fn inbox(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Seated>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tasks(&self) -> std::sync::MutexGuard<'_, Slab<Weak<Task>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that speak something else than HTTP by now.
    pub(crate) fn upgraded(&self) -> Vec<Arc<Link>> {
        self.wakers().values().filter_map(|seated| seated.link.clone()).filter(|link| link.is_upgraded()).collect()
    }

    /// One connection less.
    fn left(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
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
            (all.len(), all.values().filter_map(|seated| seated.link.clone()).collect())
        };
        self.change(CUT);
        links.iter().for_each(|link| link.cut());
        empty.await;
        cut
    }
}

/// The body of a worker's thread: serves until the commands end.
pub(crate) async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    task::begin(&shared);
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
                // It stays in the inbox until this worker really gets to it.
                let shared = shared.clone();
                tokio::spawn(async move { take(&shared) });
            }
        }
    }
}

/// Begins to serve what is next in the inbox, if no other worker has taken it.
fn take(worker: &Arc<Shared>) {
    let next = worker.inbox().pop_front();
    match next {
        None => {}
        Some(Waiting::Moved(work)) => Task::start(worker, work),
        Some(Waiting::New(socket, pass)) => {
            let berth = Berth::new(worker);
            let guard = Guard { worker: worker.clone(), berth: berth.clone(), _pass: pass };
            if let Some(future) = connection(worker, socket, guard) {
                Task::start(worker, Work { future, berth: Some(berth) });
            }
        }
    }
}

/// A connection from its begin to its end. `None` where it has ended already.
fn connection(worker: &Shared, socket: Socket, guard: Guard) -> Option<Boxed> {
    Some(match socket {
        Socket::Tcp { stream, proxy_protocol, tls } => {
            let connection = Connection::new(stream.peer_addr().ok(), stream.local_addr().ok(), false);
            let stream = Homed::new(TcpStream::from_std(stream).ok()?, guard.berth.clone());
            if tls.is_none() && !proxy_protocol && !worker.pipeline.limits.http2.cleartext {
                Box::pin(serve(stream, connection, guard))
            } else {
                Box::pin(serve_tcp(stream, connection, proxy_protocol, tls, guard))
            }
        }
        Socket::Unix(stream) => {
            let stream = Homed::new(UnixStream::from_std(stream).ok()?, guard.berth.clone());
            Box::pin(serve(stream, Connection::new(None, None, false), guard))
        }
    })
}

/// Where a connection is served: it may change.
pub(crate) struct Berth {
    place: Mutex<Option<Place>>,
    /// The worker's number.
    number: AtomicUsize,
}

/// A worker, and the connection's key there.
struct Place {
    worker: Arc<Shared>,
    key: u64,
}

impl Place {
    fn of(worker: &Arc<Shared>) -> Self {
        Self { worker: worker.clone(), key: worker.keys.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Berth {
    /// A place at this worker, which has counted the connection already.
    fn new(worker: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { place: Mutex::new(Some(Place::of(worker))), number: AtomicUsize::new(worker.number) })
    }

    /// The number of the worker.
    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    /// The runtime of the worker. `None` once the connection is gone.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.place().as_ref().map(|place| place.worker.runtime.clone())
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection woken when the worker's state changes or its time is up.
    pub(crate) fn register(&self, waker: &Waker, slot: &Arc<Slot>, link: Option<&Arc<Link>>) {
        if let Some(Place { worker, key }) = &*self.place() {
            let seated = Seated { waker: waker.clone(), slot: slot.clone(), link: link.cloned() };
            worker.wakers().insert(*key, seated);
        }
    }

    /// This is what wakes it now.
    pub(crate) fn wakes(&self, waker: &Waker) {
        if let Some(Place { worker, key }) = &*self.place()
            && let Some(seated) = worker.wakers().get_mut(key)
        {
            seated.waker.clone_from(waker);
        }
    }

    /// The connection is that worker's from now on. Nothing where it is gone already.
    pub(crate) fn move_to(&self, worker: &Arc<Shared>) {
        let mut place = self.place();
        let Some(place) = &mut *place else { return };
        let old = std::mem::replace(place, Place::of(worker));
        worker.open.fetch_add(1, Ordering::AcqRel);
        let seated = old.worker.wakers().remove(&old.key);
        if let Some(seated) = seated {
            worker.wakers().insert(place.key, seated);
        }
        old.worker.left();
        self.number.store(worker.number, Ordering::Release);
    }

    /// The connection is gone.
    fn leave(&self) {
        let Some(Place { worker, key }) = self.place().take() else { return };
        worker.wakers().remove(&key);
        worker.pipeline.counters.connection_closed();
        worker.left();
    }
}

/// Counts a connection out, however it ends. It goes with the socket, so that an upgraded connection counts, too.
pub(crate) struct Guard {
    /// The worker it began at.
    pub(crate) worker: Arc<Shared>,
    pub(crate) berth: Arc<Berth>,
    _pass: Pass,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.berth.leave();
    }
}

/// How the connections of this thread's worker are to behave.
pub(crate) fn state() -> u8 {
    task::here(|worker| worker.map_or(OPEN, |worker| worker.state.load(Ordering::Acquire)))
}

impl Guard {
    /// Waits for something before the first request; `None` when the server begins to drain, or the connection has to make room.
    async fn unless_drained<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let worker = &self.worker;
        let slot = Slot::opening(worker.began, &worker.pipeline.limits);
        let mut future = pin!(future);
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                registered = true;
                self.berth.register(cx.waker(), &slot, None);
            }
            let goes_on = state() == OPEN && !slot.is_unwanted();
            if goes_on { future.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }
        })
        .await
    }
}

/// Serves a connection that does not simply begin with a request of HTTP/1.
async fn serve_tcp(
    stream: Homed<TcpStream>,
    connection: Connection,
    proxy_protocol: bool,
    tls: Option<Arc<Tls>>,
    guard: Guard,
) {
    let (mut stream, mut connection) = (stream, connection);
    if proxy_protocol {
        let trusted = guard.worker.pipeline.limits.trusted_proxies.clone();
        match guard.unless_drained(introduced(stream, connection, &trusted)).await {
            Some(Some(introduced)) => (stream, connection) = introduced,
            _ => return,
        }
    }
    match tls {
        Some(tls) => serve_tls(stream, connection, tls, guard).await,
        None if guard.worker.pipeline.limits.http2.cleartext => serve_either(stream, connection, guard).await,
        None => serve(stream, connection, guard).await,
    }
}

/// Makes the handshake, then serves the protocol that was agreed on (ALPN, RFC 7301).
async fn serve_tls(stream: Homed<TcpStream>, connection: Connection, tls: Arc<Tls>, guard: Guard) {
    let remote = connection.remote;
    let handshake = timeout(tls.handshake_timeout(), tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream));
    let Some(result) = guard.unless_drained(handshake).await else { return };
    let stream = match result {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake failed: {error}");
            return;
        }
        None => {
            tracing::info!(remote = remote.map(tracing::field::display), "a TLS handshake took too long");
            return;
        }
    };
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    let connection = connection.encrypted(tls::facts(session));
    if http2 { http2::serve(stream, connection, guard).await } else { serve(stream, connection, guard).await }
}

/// Serves the protocol that the client begins with, where HTTP/2 may be spoken without TLS.
async fn serve_either(stream: Homed<TcpStream>, connection: Connection, guard: Guard) {
    let limit = guard.worker.pipeline.limits.header_timeout;
    match guard.unless_drained(timeout(limit, http2::sniff(stream))).await {
        Some(Some(Ok((true, stream)))) => http2::serve(stream, connection, guard).await,
        Some(Some(Ok((false, stream)))) => serve(stream, connection, guard).await,
        _ => {}
    }
}

/// Serves one HTTP/1 connection to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, connection: Connection, guard: Guard) {
    let connection = Arc::new(connection);
    let (shared, berth) = (guard.worker.clone(), guard.berth.clone());
    let link = Link::new(guard);
    let limits = &shared.pipeline.limits;
    let slot = Slot::new(shared.began, limits, false);
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
        if !registered {
            registered = true;
            berth.register(cx.waker(), &slot, Some(&link));
        }
        let state = state();
        if slot.is_cut() || state == CUT {
            return Poll::Ready(Ok(()));
        }
        if state != seen {
            seen = state;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
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
