//! A worker: one thread with one runtime that serves its share of the connections for as long as the process lives.

use std::collections::HashMap;
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
use crate::proxy_protocol::introduced;
use crate::request_id::RequestIds;

/// An accepted socket.
pub(crate) enum Socket {
    /// With true where it begins with a PROXY protocol header.
    Tcp(std::net::TcpStream, bool),
    Unix(std::os::unix::net::UnixStream),
}

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a connection; the permit goes back when it is gone.
    Serve(Socket, OwnedSemaphorePermit),
    /// Run this between two polls.
    Run(Box<dyn FnOnce() + Send>),
    /// End every connection after the request it is at, cut what is left after the time, and say how many were cut.
    Drain(Duration, oneshot::Sender<usize>),
}

/// How the connections are to behave.
const OPEN: u8 = 0;
const DRAINING: u8 = 1;
const CUT: u8 = 2;

/// What a worker's connections share.
pub(crate) struct Shared {
    pub(crate) pipeline: Arc<Pipeline>,
    ids: RequestIds,
    /// Connections handed to this worker that are not gone yet.
    pub(crate) open: AtomicUsize,
    state: AtomicU8,
    /// Wakes each connection when `state` changes or its time is up. Locked when a connection comes or goes.
    wakers: Mutex<HashMap<u64, (Waker, Arc<Slot>)>>,
    began: Instant,
    /// Told when the last connection is gone.
    idle: Notify,
}

impl Shared {
    pub(crate) fn new(index: usize, pipeline: Arc<Pipeline>) -> Self {
        Self {
            pipeline,
            ids: RequestIds::new(index),
            open: AtomicUsize::new(0),
            state: AtomicU8::new(OPEN),
            wakers: Mutex::default(),
            began: Instant::now(),
            idle: Notify::new(),
        }
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (Waker, Arc<Slot>)>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        for (waker, _) in self.wakers().values() {
            waker.wake_by_ref();
        }
    }

    /// Wakes, for ever, the connections whose time is up.
    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(clock::tick(self.pipeline.limits.header_timeout));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await.into_std();
            for (waker, slot) in self.wakers().values() {
                if slot.is_due(now) {
                    waker.wake_by_ref();
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
        let cut = self.wakers().len();
        self.change(CUT);
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
            Command::Serve(socket, permit) => {
                next += 1;
                let guard = Guard { shared: shared.clone(), key: next, _permit: permit };
                match socket {
                    Socket::Tcp(stream, proxy_protocol) => {
                        let (remote, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
                        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { continue };
                        let connection = Connection::new(remote, local, false);
                        if proxy_protocol {
                            tokio::spawn(async move {
                                let trusted = &guard.shared.pipeline.limits.trusted_proxies;
                                if let Some((stream, connection)) = introduced(stream, connection, trusted).await {
                                    serve(stream, connection, guard).await;
                                }
                            });
                        } else {
                            tokio::spawn(serve(stream, connection, guard));
                        }
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

/// Counts a connection out, however its task ends.
struct Guard {
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
    let shared = &guard.shared;
    let limits = &shared.pipeline.limits;
    let service = {
        let (shared, connection) = (shared.clone(), connection.clone());
        service_fn(move |request| Pipeline::begin(&shared, &connection, shared.ids.next(), request))
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
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let (mut seen, mut registered) = (OPEN, false);
    let result = poll_fn(|cx| {
        if !registered {
            registered = true;
            shared.wakers().insert(guard.key, (cx.waker().clone(), slot.clone()));
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
    if let Err(error) = result {
        let remote = &*connection.remote_text;
        if error.is_parse() {
            tracing::info!(remote, "refused what is not a valid HTTP/1 request: {error}");
        } else {
            tracing::debug!(remote, "the connection ended early: {error}");
        }
    }
}
