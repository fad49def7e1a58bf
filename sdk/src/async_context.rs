//! Asynchronous processing: an answer that another task gives, with a timeout and listeners.

use std::fmt;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::application::BoxFuture;
use crate::async_listener::{AnyAsyncListener, AsyncDropped, AsyncEvent, AsyncListener, Watch};
use crate::chain::Chain;
use crate::dispatcher::{RequestDispatcher, Target};
use crate::listener::RequestEvent;
use crate::{DispatchError, DispatcherType, Error, IntoResponse, Request, Response};

/// How long an [`AsyncContext`] may take where nothing else is said, as in the specification (Servlet 6.1, section 2.3.3.3).
pub const DEFAULT_ASYNC_TIMEOUT: Duration = Duration::from_secs(30);

enum Outcome {
    Complete(Result<Response, Error>),
    Dispatch(Box<Request>, RequestDispatcher),
}

/// What the two halves share until the handler waits for the answer.
struct Setup {
    timeout: Option<Duration>,
    listeners: Vec<Arc<dyn AnyAsyncListener>>,
    waiting: bool,
}

/// The half of an asynchronous request that goes to whoever answers it: see [`Request::start_async`].
///
/// Dropped without an answer, the request fails with 500 and [`AsyncDropped`].
pub struct AsyncContext {
    request: Box<Request>,
    sender: oneshot::Sender<Outcome>,
    setup: Arc<Mutex<Setup>>,
}

/// The half of an asynchronous request that the handler awaits: see [`Request::start_async`].
#[must_use = "the handler must wait for it: dropping it gives the request up"]
pub struct AsyncAnswer {
    receiver: oneshot::Receiver<Outcome>,
    setup: Arc<Mutex<Setup>>,
    event: RequestEvent,
}

impl fmt::Debug for AsyncContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncContext").field("request", &self.request).finish_non_exhaustive()
    }
}

impl fmt::Debug for AsyncAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncAnswer").field("request", &self.event).finish_non_exhaustive()
    }
}

fn lock(setup: &Mutex<Setup>) -> std::sync::MutexGuard<'_, Setup> {
    setup.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncContext {
    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The request, to read its content or set attributes.
    pub fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }

    /// Sets how long it may take, from when the handler begins to wait; `None` for as long as it takes. Not called, it is
    /// the servlet's or the application's `async_timeout`, or [`DEFAULT_ASYNC_TIMEOUT`].
    ///
    /// # Errors
    /// When the handler waits already.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), DispatchError> {
        let mut setup = lock(&self.setup);
        if setup.waiting {
            return Err(DispatchError::Over);
        }
        setup.timeout = timeout.filter(|timeout| !timeout.is_zero());
        Ok(())
    }

    /// Adds a listener. Those of one request are called in the order in which they were added, after those of the
    /// application.
    ///
    /// # Errors
    /// When the handler waits already.
    pub fn add_listener(&self, listener: impl AsyncListener) -> Result<(), DispatchError> {
        let mut setup = lock(&self.setup);
        if setup.waiting {
            return Err(DispatchError::Over);
        }
        setup.listeners.push(Arc::new(listener));
        Ok(())
    }

    /// True when the answer would reach nobody any more: the client has gone, or the time is up.
    pub fn is_over(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the answer would reach nobody any more.
    pub async fn over(&mut self) {
        self.sender.closed().await;
    }

    /// Answers the request: with a response, or an error.
    ///
    /// # Errors
    /// When the answer reaches nobody any more.
    pub fn complete(self, response: impl IntoResponse) -> Result<(), DispatchError> {
        self.sender.send(Outcome::Complete(response.into_response())).map_err(|_| DispatchError::Over)
    }

    /// Lets the servlet at `path`, which begins with a slash, answer. Filters for [`DispatcherType::Async`] come before it.
    ///
    /// # Errors
    /// As [`Request::dispatcher`]; [`DispatchError::NotAbsolute`] for a relative path. The request fails with it, too.
    pub fn dispatch(self, path: &str) -> Result<(), DispatchError> {
        let found = match path.starts_with('/') {
            true => self.request.dispatcher(path),
            false => Err(DispatchError::NotAbsolute(path.to_owned())),
        };
        self.send(found)
    }

    /// Dispatches to the path that the client asked for, or that the request was forwarded to, once more.
    ///
    /// # Errors
    /// As [`AsyncContext::dispatch`].
    pub fn dispatch_again(self) -> Result<(), DispatchError> {
        let app = self.request.context().link().app().ok_or(DispatchError::NoApp);
        let path = self.request.uri().to_string();
        let found = app.and_then(|app| {
            let mut target = Target::find(&app, self.request.context_path(), "/", &path)?;
            target.request_uri = self.request.request_uri().to_owned();
            Ok(RequestDispatcher::to_path(app, target))
        });
        self.send(found)
    }

    fn send(self, found: Result<RequestDispatcher, DispatchError>) -> Result<(), DispatchError> {
        match found {
            Ok(to) => self.sender.send(Outcome::Dispatch(self.request, to)).map_err(|_| DispatchError::Over),
            Err(error) => {
                let _ = self.sender.send(Outcome::Complete(Err(error.clone().into())));
                Err(error)
            }
        }
    }
}

impl AsyncAnswer {
    async fn wait(self) -> Result<Response, Error> {
        let Self { mut receiver, setup, event } = self;
        let (timeout, listeners) = {
            let mut setup = lock(&setup);
            setup.waiting = true;
            (setup.timeout, setup.listeners.clone())
        };
        let watch = Watch::new(listeners, event);
        let outcome = match timeout {
            None => (&mut receiver).await,
            Some(timeout) => match tokio::time::timeout(timeout, &mut receiver).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    receiver.close();
                    let app = watch.event.context.link().app();
                    let of_app = app.as_ref().map(|app| &app.async_listeners[..]).unwrap_or_default();
                    let result = watch.timed_out(of_app, timeout);
                    watch.done(&result);
                    return result;
                }
            },
        };
        let result = match outcome {
            Ok(Outcome::Complete(result)) => result,
            Ok(Outcome::Dispatch(request, to)) => dispatch(*request, &to, watch.listeners.clone()).await,
            Err(_) => Err(AsyncDropped.into()),
        };
        watch.done(&result);
        result
    }
}

async fn dispatch(
    mut request: Request,
    to: &RequestDispatcher,
    listeners: Vec<Arc<dyn AnyAsyncListener>>,
) -> Result<Response, Error> {
    to.enter(&mut request, DispatcherType::Async)?;
    request.dispatch_state_mut().async_listeners = listeners;
    Chain::new(to.app()).run(request).await
}

impl IntoFuture for AsyncAnswer {
    type Output = Result<Response, Error>;
    type IntoFuture = BoxFuture<'static, Result<Response, Error>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

impl Request {
    /// Lets something other than this handler answer: a task, a queue, a servlet that is dispatched to later.
    ///
    /// A handler that only has to wait needs none of this: it is asynchronous by itself.
    ///
    /// ```
    /// use wharf_sdk::{App, Error, Request, Response, TestClient, get};
    ///
    /// async fn price(request: Request) -> Result<Response, Error> {
    ///     let (context, answer) = request.start_async();
    ///     tokio::spawn(async move {
    ///         // Later, somewhere else:
    ///         let _ = context.complete("42");
    ///     });
    ///     answer.await
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let client = TestClient::new(App::new().servlet("price", "/price", get(price))).start().await.unwrap();
    /// assert_eq!(client.get("/price").send().await.text().await, "42");
    /// # });
    /// ```
    pub fn start_async(mut self) -> (AsyncContext, AsyncAnswer) {
        let event = RequestEvent::of(&mut self);
        let before = std::mem::take(&mut self.dispatch_state_mut().async_listeners);
        let app = self.context().link().app();
        let of_app = app.as_ref().map(|app| &app.async_listeners[..]).unwrap_or_default();
        let started = AsyncEvent::new(&event, None);
        let again = self.dispatch_state().is_some_and(|state| state.from_async.is_some());
        let told = if again { &before[..] } else { of_app };
        told.iter().for_each(|listener| listener.started(&started));
        let timeout =
            app.as_ref().and_then(|app| app.async_timeout(self.servlet_index())).unwrap_or(DEFAULT_ASYNC_TIMEOUT);
        let setup = Setup { timeout: Some(timeout), listeners: Vec::new(), waiting: false };
        let setup = Arc::new(Mutex::new(setup));
        let (sender, receiver) = oneshot::channel();
        let context = AsyncContext { request: Box::new(self), sender, setup: Arc::clone(&setup) };
        (context, AsyncAnswer { receiver, setup, event })
    }
}
