//! Servlets that block their thread: they run on a bounded pool of their own.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::SystemTime;

use http::{Method, StatusCode};
use tokio::task::{JoinError, JoinHandle};

use crate::application::contain;
use crate::dispatch::{Allowed, Verb, allow, conditional, not_allowed, not_implemented, without_content};
use crate::{BoxError, Error, IntoResponse, Request, Response, Servlet, ServletConfig};

/// A servlet whose work blocks: files, old database drivers, long computations.
///
/// It runs on the application's pool for blocking work, at most as many at a time as the container's configuration
/// says; the others wait their turn, up to 32 for each thread of the pool, beyond which the answer is 503 with `Retry-After`, as it
/// is where the system gives the pool no thread at all.
/// Read the content with [`Body::into_reader`](crate::Body::into_reader).
///
/// ```
/// use std::io::Read;
/// use wharf_sdk::{App, BlockingServlet, Error, Method, Request, Response, TestClient};
///
/// struct Count;
///
/// impl BlockingServlet for Count {
///     const METHODS: &'static [Method] = &[Method::POST];
///
///     fn service(&self, mut request: Request) -> Result<Response, Error> {
///         let mut text = String::new();
///         request.take_body().into_reader().take(1 << 20).read_to_string(&mut text)?;
///         Ok(Response::text(format!("{} words", text.split_whitespace().count())))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(App::new().blocking_servlet("count", "/count", Count)).start().await.unwrap();
/// assert_eq!(client.post("/count").body("one two three").send().await.text().await, "3 words");
/// assert_eq!(client.get("/count").send().await.header("allow"), Some("POST, OPTIONS"));
/// # });
/// ```
pub trait BlockingServlet: Send + Sync + 'static {
    /// The methods `service` answers. HEAD comes with GET, OPTIONS is answered always, all others get 405: a method that is
    /// not listed never arrives.
    const METHODS: &'static [Method] = &[Method::GET];

    /// Called once before the first request. An error stops the application from starting.
    ///
    /// # Errors
    /// Whatever stops it from starting.
    fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        let _ = config;
        Ok(())
    }

    /// Called once after the last request.
    fn destroy(&self) {}

    /// As [`Servlet::last_modified`]. This one must not block.
    fn last_modified(&self, request: &Request) -> Option<SystemTime> {
        let _ = request;
        None
    }

    /// Answers a request whose method is one of [`METHODS`](BlockingServlet::METHODS), or HEAD for GET.
    ///
    /// # Errors
    /// Why it can't be answered.
    fn service(&self, request: Request) -> Result<Response, Error>;
}

/// A blocking servlet as an async one.
pub(crate) struct Blocking<S>(Arc<S>);

impl<S: BlockingServlet> Blocking<S> {
    pub(crate) fn new(servlet: S) -> Self {
        Self(Arc::new(servlet))
    }

    async fn run(&self, request: Request) -> Result<Response, Error> {
        let servlet = Arc::clone(&self.0);
        spawn_for(request, move |request| servlet.service(request)).await
    }

    async fn get(&self, request: Request) -> Result<Response, Error> {
        match self.0.last_modified(&request) {
            None => self.run(request).await,
            Some(when) => conditional(when, request, |request| self.run(request)).await,
        }
    }
}

impl<S: BlockingServlet> Servlet for Blocking<S> {
    async fn init(&self, config: &ServletConfig) -> Result<(), BoxError> {
        let (servlet, config) = (Arc::clone(&self.0), config.clone());
        let task = spawn(move || servlet.init(&config)).ok_or("no thread can be started")?;
        outcome(task.await).map_err(|error| error.to_string())?
    }

    async fn destroy(&self) {
        let servlet = Arc::clone(&self.0);
        if let Some(task) = spawn(move || servlet.destroy())
            && let Err(error) = outcome(task.await)
        {
            tracing::error!(target: "wharf_sdk", "a servlet's destroy failed: {error}");
        }
    }

    async fn service(&self, request: Request) -> Result<Response, Error> {
        let mut allowed = Allowed::default();
        S::METHODS.iter().filter_map(Verb::of).for_each(|verb| allowed.insert(verb));
        match Verb::of(request.method()) {
            None if S::METHODS.contains(request.method()) => self.run(request).await,
            None => Ok(not_implemented()),
            Some(Verb::Head) if !allowed.has(Verb::Head) && allowed.has(Verb::Get) => {
                Ok(without_content(self.get(request).await?))
            }
            Some(Verb::Options) if !allowed.has(Verb::Options) => Ok(allow(allowed)),
            Some(verb) if !allowed.has(verb) => Ok(not_allowed(allowed)),
            Some(Verb::Get) => self.get(request).await,
            Some(_) => self.run(request).await,
        }
    }
}

/// A blocking function as a handler: `get(blocking(report))` where `fn report(request: Request) -> Result<Response, Error>`.
pub fn blocking<F, R>(
    function: F,
) -> impl Fn(Request) -> crate::application::BoxFuture<'static, Result<Response, Error>> + Send + Sync + 'static
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: IntoResponse + 'static,
{
    let function = Arc::new(function);
    move |request| {
        let function = Arc::clone(&function);
        Box::pin(spawn_for(request, move |request| function(request).into_response()))
    }
}

/// Answers a request on the pool for blocking work; what it logs carries the request's id. Where too many wait for the pool
/// already the answer is 503.
async fn spawn_for(
    request: Request,
    f: impl FnOnce(Request) -> Result<Response, Error> + Send + 'static,
) -> Result<Response, Error> {
    let Some(place) = Place::take(&POOL) else {
        tracing::debug!(target: "wharf_sdk", "the pool for blocking work is full, and so is its queue");
        return busy();
    };
    let id = request.shared_id();
    let spawned = spawn(move || {
        let _place = place;
        crate::log::for_request(&id, || f(request))
    });
    match spawned {
        Some(task) => outcome(task.await)?,
        None => busy(),
    }
}

fn busy() -> Result<Response, Error> {
    Response::status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "1")
}

/// Requests that may wait for each thread of the pool.
const WAITING: usize = 32;

/// How much of the pool for blocking work is taken. A module has one application, and so one pool.
struct Pool {
    /// Places on its threads and in its queue; 0 where no container has set a limit.
    places: AtomicUsize,
    taken: AtomicUsize,
}

static POOL: Pool = Pool { places: AtomicUsize::new(0), taken: AtomicUsize::new(0) };

/// The pool has so many threads.
pub(crate) fn limit(threads: usize) {
    POOL.places.store(threads.saturating_mul(1 + WAITING), Ordering::Relaxed);
}

/// A place in the pool or its queue, given back on drop.
struct Place(&'static Pool);

impl Place {
    fn take(pool: &'static Pool) -> Option<Self> {
        let before = pool.taken.fetch_add(1, Ordering::Relaxed);
        let place = Self(pool);
        let places = pool.places.load(Ordering::Relaxed);
        // Given back where it is one too many.
        (places == 0 || before < places).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `f` on the pool for blocking work. `None` where it has no thread and gets none; `f` is not run then.
fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<Option<T>>> {
    let work = Arc::new(Mutex::new(Some(f)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&work);
    // tokio panics where there is no thread, and keeps the work for the next one that it gets.
    let task = contain(|| tokio::task::spawn_blocking(move || take(&theirs).map(|f| f())));
    if task.is_none() {
        drop(take(&work));
        tracing::error!(target: "wharf_sdk", "no thread can be started for blocking work");
    }
    task
}

/// What came of it. A panic is an error here; the panic hook has reported it.
fn outcome<T>(joined: Result<Option<T>, JoinError>) -> Result<T, Error> {
    let what = match joined {
        Ok(Some(value)) => return Ok(value),
        Err(error) if error.is_panic() => "a blocking servlet panicked",
        _ => "the application is stopping",
    };
    Err(Error::internal(what))
}

/// Waits for a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
