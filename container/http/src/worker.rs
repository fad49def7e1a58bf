//! A worker: one thread with one runtime that serves its share of the connections for as long as the process lives.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use wharf_kernel::Connection;

use crate::Pipeline;
use crate::clock::{self, Coarse, Slot};
use crate::link::{Link, Linked};
use crate::request_id::RequestIds;
use crate::watch::Watch;

/// An accepted socket.
pub(crate) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
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
const OPEN: u8 = 0;
const DRAINING: u8 = 1;
const CUT: u8 = 2;

/// How a connection is reached from outside its task.
struct Seated {
    waker: Waker,
    slot: Arc<Slot>,
    link: Arc<Link>,
}

/// What a worker's connections share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<Pipeline>,
    /// What this worker's thread is doing.
    pub(crate) watch: Arc<Watch>,
    /// Connections that it has not taken yet, each with the permit that goes back when it is gone. Not in the commands, so
    /// that they can go to another worker when this one is stuck.
    pub(crate) inbox: Mutex<VecDeque<(Socket, OwnedSemaphorePermit)>>,
    ids: RequestIds,
    /// Connections handed to this worker that are not gone yet.
    pub(crate) open: AtomicUsize,
    state: AtomicU8,
    /// Wakes each connection when `state` changes or its time is up. Locked when a connection comes or goes.
    wakers: Mutex<HashMap<u64, Seated>>,
    began: Instant,
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

    pub(crate) fn inbox(&self) -> std::sync::MutexGuard<'_, VecDeque<(Socket, OwnedSemaphorePermit)>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Seated>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        for seated in self.wakers().values() {
            seated.waker.wake_by_ref();
        }
    }

    /// Wakes, for ever, the connections whose time is up.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(clock::tick(self.pipeline.limits.header_timeout));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await.into_std();
            for seated in self.wakers().values() {
                if seated.slot.is_due(now) {
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
        let links: Vec<_> = self.wakers().values().map(|seated| seated.link.clone()).collect();
        self.change(CUT);
        links.iter().for_each(|link| link.cut());
        empty.await;
        links.len()
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
                let Some((socket, permit)) = shared.inbox().pop_front() else { continue };
                next += 1;
                let guard = Guard { shared: shared.clone(), key: next, _permit: permit };
                match socket {
                    Socket::Tcp(stream) => {
                        let (remote, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
                        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                        tokio::spawn(serve(stream, Connection::new(remote, local, false), guard));
                    }
                    Socket::Unix(stream) => {
                        let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { continue };
                        tokio::spawn(serve(stream, Connection::new(None, None, false), guard));
                    }
                }
            }
        }
    }
}

/// Counts a connection out, however it ends. It goes with the socket, so that an upgraded connection counts, too.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    key: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.wakers().remove(&self.key);
        self.shared.pipeline.counters.connection_closed();
        if self.shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.idle.notify_waiters();
        }
    }
}

/// Serves one connection to its end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, connection: Connection, guard: Guard) {
    let connection = Arc::new(connection);
    let (shared, key) = (guard.shared.clone(), guard.key);
    let link = Link::new(guard);
    let limits = &shared.pipeline.limits;
    let service = {
        let (shared, connection, link) = (shared.clone(), connection.clone(), link.clone());
        service_fn(move |request| Pipeline::begin(&shared, &connection, Some(&link), shared.ids.next(), request))
    };
    let slot = Slot::new(shared.began);
    let mut builder = http1::Builder::new();
    builder
        .timer(Coarse(slot.clone()))
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes + limits.target_bytes)
        .max_buf_size((limits.header_bytes + limits.target_bytes).max(64 * 1024))
        .half_close(false)
        .keep_alive(true);
    // 100 is hyper's own limit; any other makes it parse each head on the heap.
    if limits.header_count != 100 {
        builder.max_headers(limits.header_count);
    }
    let mut served =
        pin!(builder.serve_connection(TokioIo::new(Linked::new(stream, link.clone())), service).with_upgrades());
    let (mut seen, mut registered) = (OPEN, false);
    let result = poll_fn(|cx| {
        if !registered {
            registered = true;
            let seated = Seated { waker: cx.waker().clone(), slot: slot.clone(), link: link.clone() };
            shared.wakers().insert(key, seated);
        }
        let state = shared.state.load(Ordering::Acquire);
        if state != seen {
            seen = state;
            if state == CUT {
                return Poll::Ready(Ok(()));
            }
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    })
    .await;
    // Not one poll later: whoever has the upgraded socket now is on this thread, too.
    link.http_is_over();
    if let Err(error) = result {
        let remote = &*connection.remote_text;
        if error.is_parse() {
            tracing::info!(remote, "refused what is not a valid HTTP/1 request: {error}");
        } else {
            tracing::debug!(remote, "the connection ended early: {error}");
        }
    }
}
