//! One backend of one generation: its connections, and how many requests it may have.
//!
//! hyper-util's pooled client was not taken: it has no limit on connections, hands a connection to whatever thread asks, and
//! keeps the request when a connection is refused, so that it could not be offered to another backend.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wharf_kernel::Body;
use wharf_kernel::backends::BackendStatus;
use wharf_kernel::options::ProxyOptions;
use wharf_kernel::per_thread::PerThread;
use wharf_worker::{Timer, timeout};

use super::connect::{Connector, Opened};
use super::state::State;

/// See the module.
pub(crate) struct Member {
    pub(crate) connector: Connector,
    pub(crate) state: Arc<State>,
    pub(crate) weight: u32,
    pub(crate) id: u64,
    permits: Arc<Semaphore>,
    /// The connections that each worker keeps: they stay on its thread.
    pools: PerThread<Mutex<Pool>>,
    max_idle: usize,
    keep_alive: Duration,
    connect_timeout: Duration,
    queue_timeout: Duration,
}

#[derive(Default)]
struct Pool {
    idle: Vec<(http1::SendRequest<Body>, Option<Timer>, Instant)>,
    shared: Option<http2::SendRequest<Body>>,
}

/// A connection that a request has.
pub(crate) enum Conn {
    H1 {
        sender: http1::SendRequest<Body>,
        used: bool,
        /// For the head of a response. It stays with its connection, since setting one later costs next to nothing, and making one for
        /// each request does not.
        timer: Option<Timer>,
    },
    H2(http2::SendRequest<Body>),
}

/// What a request did not survive.
pub(crate) enum Lost {
    /// Nothing of it was sent; here it is again. The connection had gone before.
    Unsent(Box<Request<Body>>),
    /// Some of it may have been.
    Sent(hyper::Error),
}

impl Conn {
    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Lost> {
        let lost = |mut error: hyper::client::conn::TrySendError<Request<Body>>| match error.take_message() {
            Some(request) => Lost::Unsent(Box::new(request)),
            None => Lost::Sent(error.into_error()),
        };
        match self {
            Self::H1 { sender, .. } => sender.try_send_request(request).await.map_err(lost),
            Self::H2(sender) => sender.try_send_request(request).await.map_err(lost),
        }
    }

    /// Its timer, set to go off after `limit`.
    pub(crate) fn take_timer(&mut self, limit: Duration) -> Timer {
        match self {
            Self::H1 { timer, .. } => match timer.take() {
                Some(mut timer) => {
                    timer.reset(tokio::time::Instant::now() + limit);
                    timer
                }
                None => Timer::after(limit),
            },
            Self::H2(_) => Timer::after(limit),
        }
    }

    /// Gives it back for the next request.
    pub(crate) fn put_timer(&mut self, unused: Timer) {
        if let Self::H1 { timer, .. } = self {
            *timer = Some(unused);
        }
    }

    /// Whether requests were sent on it before: then it may have been closed in between.
    pub(crate) fn is_used(&self) -> bool {
        !matches!(self, Self::H1 { used: false, .. })
    }
}

/// A request in flight, counted; given back on drop.
pub(crate) struct Turn {
    state: Arc<State>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.state.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Member {
    pub(crate) fn new(connector: Connector, state: Arc<State>, weight: u32, id: u64, options: &ProxyOptions) -> Self {
        Self {
            connector,
            state,
            weight,
            id,
            permits: Arc::new(Semaphore::new(options.max_requests)),
            pools: PerThread::new(Mutex::default),
            max_idle: options.max_idle_connections,
            keep_alive: options.keep_alive,
            connect_timeout: options.connect_timeout,
            queue_timeout: options.queue_timeout,
        }
    }

    /// Waits for the turn of a request. `None` when the backend stays full.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let permit = match self.permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => timeout(self.queue_timeout, self.permits.clone().acquire_owned()).await?.ok()?,
        };
        self.state.begin();
        Some(Turn { state: self.state.clone(), _permit: permit })
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pools.local().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection: an idle one, or, where `fresh` or there is none, a new one.
    pub(crate) async fn connect(&self, fresh: bool) -> io::Result<Conn> {
        if !fresh {
            let mut pool = self.pool();
            if let Some(shared) = &pool.shared
                && !shared.is_closed()
            {
                return Ok(Conn::H2(shared.clone()));
            }
            while let Some((sender, timer, since)) = pool.idle.pop() {
                // One that is not ready yet is on its way to be closed: what was read of it was complete.
                if sender.is_ready() && since.elapsed() < self.keep_alive {
                    return Ok(Conn::H1 { sender, used: true, timer });
                }
            }
        }
        match timeout(self.connect_timeout, self.connector.open()).await {
            Some(Ok(Opened::H1(sender))) => Ok(Conn::H1 { sender, used: false, timer: None }),
            Some(Ok(Opened::H2(sender))) => {
                self.pool().shared = Some(sender.clone());
                Ok(Conn::H2(sender))
            }
            Some(Err(error)) => Err(error),
            None => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {:?}", self.connect_timeout)))
            }
        }
    }

    /// Keeps a connection whose response was read to its end.
    pub(crate) fn give_back(&self, conn: Conn) {
        if let Conn::H1 { sender, timer, .. } = conn
            && !sender.is_closed()
        {
            let mut pool = self.pool();
            if pool.idle.len() < self.max_idle {
                pool.idle.push((sender, timer, Instant::now()));
            }
        }
    }

    /// Closes what has been idle for long, or everything.
    pub(crate) fn sweep(&self, all: bool) {
        for pool in self.pools.iter() {
            let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.idle.retain(|(sender, _, since)| !all && !sender.is_closed() && since.elapsed() < self.keep_alive);
            if all {
                pool.shared = None;
            }
        }
    }

    /// For people.
    pub(crate) fn status(&self) -> BackendStatus {
        BackendStatus {
            url: self.connector.target.url.to_string(),
            weight: self.weight,
            state: self.state.shown(),
            in_flight: self.state.in_flight.load(Relaxed),
            requests: self.state.requests.load(Relaxed),
            failures: self.state.failures.load(Relaxed),
            latency_ms: (self.state.latency() * 1000.0).round() / 1000.0,
        }
    }
}
