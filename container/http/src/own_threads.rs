//! Threads of an application's own: what polls its requests where its polls run long, so that only they wait for each other.
//!
//! They belong to one generation and end before it is unloaded, so that nothing of it is left on them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wharf_kernel::counters::LocalCounts;
use wharf_kernel::launch::{Description, Launched, Launcher, Plan, Retirement, Servlet};
use wharf_kernel::options::Constraint;
use wharf_kernel::{AppId, Body, BoxError, Endpoint, Exchange, Gate, Lease, Refusal, Rejection, ResponseFuture};

use crate::admission;
use crate::watch::Watch;
use crate::watchdog::Watches;

/// The most threads one generation gets. As long as none is stuck it has [`USUAL`].
const MOST: usize = 8;
const USUAL: usize = 2;

/// Put into a request's extensions where it is to be polled on a thread of the application's own.
#[derive(Clone)]
pub(crate) struct Elsewhere(pub(crate) LocalCounts);

/// A launcher whose generations can be polled on threads of their own.
pub struct WithOwnThreads {
    inner: Arc<dyn Launcher>,
    watches: Watches,
}

impl WithOwnThreads {
    pub(crate) fn new(inner: Arc<dyn Launcher>, watches: Watches) -> Self {
        Self { inner, watches }
    }
}

impl Launcher for WithOwnThreads {
    fn verify(&self, plan: &Plan) -> Result<Description, Refusal> {
        self.inner.verify(plan)
    }

    fn undeployed(&self, id: &AppId) {
        self.inner.undeployed(id);
    }

    fn launch(&self, plan: &Plan) -> Result<Arc<dyn Launched>, Refusal> {
        let inner = self.inner.launch(plan)?;
        let threads = OwnThreads {
            generation: plan.generation,
            watches: self.watches.clone(),
            all: Mutex::default(),
            sealed: AtomicBool::new(false),
        };
        let endpoint = Switch { inner: inner.endpoint(), launched: Arc::downgrade(&inner), threads: Arc::new(threads) };
        Ok(Arc::new(Generation {
            inner,
            endpoint: Arc::new(endpoint),
            stop_timeout: plan.stop_timeout,
            retired: AtomicBool::new(false),
        }))
    }
}

struct Generation {
    inner: Arc<dyn Launched>,
    endpoint: Arc<Switch>,
    stop_timeout: Duration,
    /// Whether the retirement of the inner one has begun.
    retired: AtomicBool,
}

impl Launched for Generation {
    fn description(&self) -> &Description {
        self.inner.description()
    }

    fn endpoint(&self) -> Arc<dyn Endpoint> {
        self.endpoint.clone()
    }

    fn servlets(&self) -> &[Servlet] {
        self.inner.servlets()
    }

    fn constraints(&self) -> &[Constraint] {
        self.inner.constraints()
    }

    fn gate(&self) -> &Gate {
        self.inner.gate()
    }

    fn live_bytes(&self) -> Option<u64> {
        self.inner.live_bytes()
    }

    fn take_own_time(&self) -> Duration {
        self.inner.take_own_time()
    }

    fn panics(&self) -> u64 {
        self.inner.panics()
    }

    fn drain(&self) {
        self.inner.drain();
    }

    fn retire(&self, drain_timeout: Duration) -> Retirement {
        let gate = self.inner.gate();
        gate.close();
        self.endpoint.threads.seal();
        let end = Instant::now() + drain_timeout;
        self.wait_idle(end);
        if self.endpoint.threads.is_used() && !gate.is_idle() {
            gate.cut();
            self.wait_idle(Instant::now() + self.stop_timeout);
        }
        self.let_go(self.stop_timeout, end.saturating_duration_since(Instant::now()))
    }

    fn retry_retire(&self) -> Retirement {
        self.let_go(Duration::ZERO, Duration::ZERO)
    }
}

impl Generation {
    /// Waits for the last lease, where there are threads, which only then can end.
    fn wait_idle(&self, end: Instant) {
        while self.endpoint.threads.is_used() && !self.inner.gate().is_idle() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The threads first, so that nothing of the application is left on them when it is unloaded.
    fn let_go(&self, end_timeout: Duration, drain_timeout: Duration) -> Retirement {
        let threads = &self.endpoint.threads;
        if threads.is_used() {
            let gate = self.inner.gate();
            let held_by = if gate.is_idle() {
                threads.end(end_timeout)
            } else {
                vec![format!("{} of its requests, bodies and upgraded connections", gate.leases())]
            };
            if !held_by.is_empty() {
                return Retirement { held_by, ..Retirement::default() };
            }
        }
        if self.retired.swap(true, Ordering::AcqRel) {
            self.inner.retry_retire()
        } else {
            self.inner.retire(drain_timeout)
        }
    }
}

/// Sends a request to the threads where it shall go there.
struct Switch {
    inner: Arc<dyn Endpoint>,
    launched: Weak<dyn Launched>,
    threads: Arc<OwnThreads>,
}

impl Endpoint for Switch {
    fn call(&self, mut exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        if exchange.request.extensions().is_empty() {
            return self.inner.call(exchange, lease);
        }
        match exchange.request.extensions_mut().remove::<Elsewhere>() {
            Some(Elsewhere(app)) if self.threads.is_open() => {
                self.threads.call(self.inner.clone(), app, exchange, lease)
            }
            _ => self.inner.call(exchange, lease),
        }
    }

    fn live_bytes(&self) -> Option<u64> {
        self.launched.upgrade()?.live_bytes()
    }

    fn take_own_time(&self) -> Duration {
        self.launched.upgrade().map_or(Duration::ZERO, |launched| launched.take_own_time())
    }

    fn session_version(&self, request: &http::Request<Body>) -> Option<wharf_kernel::Version> {
        self.inner.session_version(request)
    }
}

/// The threads of one generation. There is none until the first request needs one.
struct OwnThreads {
    generation: u64,
    watches: Watches,
    all: Mutex<Vec<Own>>,
    /// Set when the generation goes: where there is no thread now, there shall be none.
    sealed: AtomicBool,
}

struct Own {
    watch: Arc<Watch>,
    handle: Handle,
    /// Requests that it polls.
    load: Arc<AtomicUsize>,
    /// Dropped to end it.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl OwnThreads {
    fn all(&self) -> MutexGuard<'_, Vec<Own>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seal(&self) {
        let all = self.all();
        self.sealed.store(true, Ordering::Release);
        drop(all);
    }

    /// Whether requests may come to its threads.
    fn is_open(&self) -> bool {
        let all = self.all();
        !all.is_empty() || !self.sealed.load(Ordering::Acquire)
    }

    fn is_used(&self) -> bool {
        !self.all().is_empty()
    }

    /// The thread with the fewest requests of those that come back. `None` where none does and no more can be had.
    fn choose(&self) -> Option<(Handle, Arc<Watch>, Load)> {
        let mut all = self.all();
        let sealed = self.sealed.load(Ordering::Acquire);
        let free = all.iter().filter(|own| !own.watch.stuck.load(Ordering::Acquire)).count();
        if free < USUAL && all.len() < MOST && !sealed {
            match self.start(all.len()) {
                Ok(own) => all.push(own),
                Err(error) => tracing::error!(%error, "no thread for an application could be started"),
            }
        }
        let free = all.iter().filter(|own| !own.watch.stuck.load(Ordering::Acquire));
        let own = free.min_by_key(|own| own.load.load(Ordering::Relaxed))?;
        own.load.fetch_add(1, Ordering::Relaxed);
        Some((own.handle.clone(), own.watch.clone(), Load(own.load.clone())))
    }

    fn start(&self, index: usize) -> io::Result<Own> {
        let name = format!("own-{}-{index}", self.generation);
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let body = move || {
            let _ = runtime.block_on(ended);
        };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(body)?;
        Ok(Own { watch: self.watches.add(name), handle, load: Arc::default(), end: Some(end), thread: Some(thread) })
    }

    fn call(
        &self,
        inner: Arc<dyn Endpoint>,
        app: LocalCounts,
        exchange: Box<Exchange>,
        lease: Lease,
    ) -> ResponseFuture {
        let Some((handle, watch, load)) = self.choose() else {
            return admission::refused(&app, Rejection::Stuck, &exchange);
        };
        let (sender, answer) = oneshot::channel();
        let id = exchange.id.clone();
        let target = exchange.request.uri().clone();
        let task = handle.spawn(async move {
            let _load = load;
            let mut future = inner.call(exchange, lease);
            let polled = poll_fn(|cx| watch.during(&app, &id, target.path(), || future.as_mut().poll(cx)));
            let (head, body) = polled.await.into_parts();
            let (body, stream) = relay(body);
            if sender.send(Response::from_parts(head, body)).is_ok()
                && let Some((body, frames)) = stream
            {
                pump(body, frames, |body, cx| watch.during(&app, &id, target.path(), || Pin::new(body).poll_frame(cx)))
                    .await;
            }
        });
        let mut abort = Abort(Some(task.abort_handle()));
        Box::pin(async move {
            let answered = answer.await;
            // A body that is still being sent ends when its receiver goes.
            abort.answered();
            answered.unwrap_or_else(|_| {
                // Its poll panicked, or its thread is ending.
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            })
        })
    }

    /// Ends the threads and waits so long. Returns what does not come back.
    fn end(&self, timeout: Duration) -> Vec<String> {
        let mut all = self.all();
        for own in &mut *all {
            own.end = None;
        }
        let end = Instant::now() + timeout;
        let done = |own: &Own| own.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while !all.iter().all(done) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        all.retain_mut(|own| {
            if !done(own) {
                return true;
            }
            if let Some(thread) = own.thread.take() {
                let _ = thread.join();
            }
            false
        });
        all.iter().map(|own| format!("thread '{}', which does not come back from a poll", own.watch.thread)).collect()
    }
}

/// Counts a request of a thread out.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends the work for a client that is gone.
struct Abort(Option<AbortHandle>);

impl Abort {
    fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, BoxError>>;

/// Makes of a body one that another thread can send without polling the application. What it already has goes as it is.
fn relay(body: Body) -> (Body, Option<(Body, Frames)>) {
    if !body.is_stream() {
        return (body, None);
    }
    let (sender, frames) = mpsc::channel(2);
    let size = body.size_hint();
    (Body::new(Relayed { frames, size }), Some((body, sender)))
}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

async fn pump(mut body: Body, frames: Frames, mut poll: impl FnMut(&mut Body, &mut Context<'_>) -> Polled) {
    loop {
        let frame = poll_fn(|cx| poll(&mut body, cx));
        tokio::select! {
            frame = frame => {
                let Some(frame) = frame else { return };
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
            () = frames.closed() => return,
        }
    }
}

struct Relayed {
    frames: mpsc::Receiver<Result<Frame<Bytes>, BoxError>>,
    size: SizeHint,
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}
