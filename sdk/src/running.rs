//! An application made ready: its life cycle, and the way of a request into its filters and back.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use wharf_mapping::{Match, ServletMap};

use crate::application::{Application, BoxFuture, ServletInfo, answer, contain};
use crate::async_listener::{AnyAsyncListener, Watch, timeout_error};
use crate::chain::{Chain, Step};
use crate::error_pages::{ErrorPages, Panicked, Remains, finish};
use crate::filter::AnyFilter;
use crate::link::Joined;
use crate::listener::{AnyListener, ContextAttributeListener, RequestAttributeListener, RequestEvent, RequestListener};
use crate::servlet::AnyServlet;
use crate::sql::Migrations;
use crate::{BoxError, Error, FilterConfig, Request, Response, ServletConfig, ServletContext};

/// Init parameters of a servlet or a filter.
pub(crate) type Init = BTreeMap<String, String>;

pub(crate) struct ServletEntry {
    pub(crate) info: ServletInfo,
    pub(crate) servlet: Arc<dyn AnyServlet>,
    pub(crate) init: Arc<Init>,
    pub(crate) timeout: Option<Duration>,
}

pub(crate) struct FilterEntry {
    pub(crate) name: Arc<str>,
    pub(crate) init: Arc<Init>,
    pub(crate) filter: Arc<dyn AnyFilter>,
}

/// How far the start has come.
struct Started {
    context: Arc<ServletContext>,
    listeners: usize,
    filters: usize,
    servlets: usize,
}

/// Why a step of the start failed.
enum Failed {
    Error(BoxError),
    Panic(Box<dyn Any + Send>),
}

/// What an [`App`](crate::App) was assembled to.
pub(crate) struct Running {
    pub(crate) servlets: Vec<ServletEntry>,
    pub(crate) map: ServletMap,
    pub(crate) filters: Vec<FilterEntry>,
    pub(crate) steps: Vec<Step>,
    pub(crate) listeners: Vec<Arc<dyn AnyListener>>,
    pub(crate) request_listeners: Vec<Arc<dyn RequestListener>>,
    pub(crate) context_attribute_listeners: Vec<Arc<dyn ContextAttributeListener>>,
    pub(crate) request_attribute_listeners: Vec<Arc<dyn RequestAttributeListener>>,
    pub(crate) async_listeners: Vec<Arc<dyn AnyAsyncListener>>,
    pub(crate) attributes: Vec<Arc<dyn Any + Send + Sync>>,
    pub(crate) migrations: Vec<(String, Migrations)>,
    pub(crate) error_pages: ErrorPages,
    pub(crate) welcome_files: Vec<String>,
    pub(crate) display_name: Option<String>,
    /// Its security constraints: JSON, empty for none.
    pub(crate) constraints: String,
    /// Nothing stands before the servlets: a request goes straight to its own.
    pub(crate) plain: bool,
    /// What the application is made of, for `wharf check`: JSON.
    pub(crate) description: String,
    pub(crate) started: StartedState,
    pub(crate) this: Weak<Self>,
}

/// Set from start to stop.
#[derive(Default)]
pub(crate) struct StartedState(Mutex<Option<Started>>);

impl Running {
    pub(crate) fn servlet_info(&self, at: usize) -> Option<&ServletInfo> {
        self.servlets.get(at).map(|entry| &entry.info)
    }

    pub(crate) fn servlet_named(&self, name: &str) -> Option<usize> {
        self.servlets.iter().position(|entry| entry.info.name == name)
    }

    pub(crate) fn async_timeout(&self, servlet: usize) -> Option<Duration> {
        self.servlets.get(servlet)?.timeout
    }

    /// Whether this pattern of this servlet is the default one.
    pub(crate) fn is_default(&self, servlet: usize, pattern: usize) -> bool {
        self.servlet_info(servlet).and_then(|info| info.patterns.get(pattern)).is_some_and(|pattern| pattern == "/")
    }

    /// The servlet for a canonical, decoded path within the context, and that path: with the name of a welcome file where
    /// a servlet takes that one (Servlet 6.1, section 10.10).
    pub(crate) fn find(&self, path: &str) -> Option<(Match, String)> {
        let found = self.map.find(path);
        if found.is_none_or(|found| self.is_default(found.servlet, found.pattern))
            && let Some(welcome) = self.welcome(path)
        {
            return Some(welcome);
        }
        found.map(|found| (found, path.to_owned()))
    }

    fn welcome(&self, path: &str) -> Option<(Match, String)> {
        if !path.ends_with('/') {
            return None;
        }
        self.welcome_files.iter().find_map(|file| {
            let path = format!("{path}{file}");
            let found = self.map.find(&path)?;
            (!self.is_default(found.servlet, found.pattern)).then_some((found, path))
        })
    }

    /// Gives a request for a folder the path elements of its welcome file.
    fn welcome_request(&self, request: &mut Request) {
        if !self.welcome_files.is_empty()
            && self.is_default(request.servlet_index(), request.pattern_index())
            && let Some((found, path)) = self.welcome(&request.path())
        {
            request.set_mapping(found, &path);
        }
    }

    async fn start_parts(&self, started: &mut Started) -> Result<(), Failed> {
        let context = Arc::clone(&started.context);
        for attribute in &self.attributes {
            context.set_shared(Arc::clone(attribute));
        }
        context.link().join(Joined {
            app: self.this.clone(),
            display_name: self.display_name.clone(),
            welcome_files: self.welcome_files.clone(),
            context_attribute_listeners: self.context_attribute_listeners.clone(),
            request_attribute_listeners: self.request_attribute_listeners.clone(),
        });
        for (resource, migrations) in &self.migrations {
            step(&format!("migrations of '{resource}'"), || migrations.apply(&context, resource)).await?;
        }
        for (at, listener) in self.listeners.iter().enumerate() {
            step(&format!("context listener {}", at + 1), || listener.initialized(&context)).await?;
            started.listeners += 1;
        }
        for FilterEntry { name, init, filter } in &self.filters {
            let config = FilterConfig::new(Arc::clone(name), Arc::clone(init), Arc::clone(&context));
            step(&format!("filter '{name}'"), || filter.init(&config)).await?;
            started.filters += 1;
        }
        for ServletEntry { info, servlet, init, .. } in &self.servlets {
            let config = ServletConfig::new(info.name.as_str().into(), Arc::clone(init), Arc::clone(&context));
            step(&format!("servlet '{}'", info.name), || servlet.init(&config)).await?;
            started.servlets += 1;
        }
        Ok(())
    }

    /// Stops what was started, the last first. Goes on after errors and panics; returns the first.
    async fn stop_parts(&self, started: Started) -> Result<(), BoxError> {
        let mut first = None;
        let mut keep = |what: String, result: Result<Result<(), BoxError>, Box<dyn Any + Send>>| {
            let error = match result {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!("{what} did not stop cleanly: {}", chain(&*error)),
                Err(payload) => {
                    // Dropping a payload may panic in turn.
                    contain(move || drop(payload));
                    format!("{what} panicked when it was stopped")
                }
            };
            tracing::error!(target: "wharf_sdk", "{error}");
            first.get_or_insert(error);
        };
        for ServletEntry { info, servlet, .. } in self.servlets[..started.servlets].iter().rev() {
            keep(format!("servlet '{}'", info.name), caught(|| servlet.destroy()).await.map(Ok));
        }
        for FilterEntry { name, filter, .. } in self.filters[..started.filters].iter().rev() {
            keep(format!("filter '{name}'"), caught(|| filter.destroy()).await.map(Ok));
        }
        for (at, listener) in self.listeners[..started.listeners].iter().enumerate().rev() {
            keep(format!("context listener {}", at + 1), caught(|| listener.destroyed(&started.context)).await);
        }
        started.context.clear_attributes();
        first.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Filters, listeners, a timeout, error pages: the way of a request where there is any of these.
    async fn serve(self: Arc<Self>, mut request: Request) -> Response {
        self.welcome_request(&mut request);
        let remains = (!self.error_pages.0.is_empty()).then(|| Remains::of(&mut request));
        let mut scope = Scope { app: &self, event: None, initialized: 0 };
        if !self.request_listeners.is_empty() {
            scope.event = Some(RequestEvent::of(&mut request));
        }
        let result = match scope.begin() {
            Ok(()) => self.run(request).await,
            Err(error) => Err(error),
        };
        match remains {
            None => result.unwrap_or_else(Error::into_response),
            Some(remains) => finish(&self, result, remains).await,
        }
    }

    /// Runs the chain, in time, with its panics as errors, and tells the asynchronous listeners.
    async fn run(self: &Arc<Self>, mut request: Request) -> Result<Response, Error> {
        let timeout = self.async_timeout(request.servlet_index());
        let watch = (!self.async_listeners.is_empty())
            .then(|| Watch::new(self.async_listeners.clone(), RequestEvent::of(&mut request)));
        let chain = caught(|| Chain::new(Arc::clone(self)).run(request));
        let result = match timeout {
            None => chain.await,
            Some(timeout) => match tokio::time::timeout(timeout, chain).await {
                Ok(result) => result,
                Err(_) => Ok(watch.as_ref().map_or_else(|| Err(timeout_error(timeout)), |w| w.timed_out(&[], timeout))),
            },
        };
        let result = result.unwrap_or_else(|payload| {
            // The panic hook has reported it. Dropping a payload may panic in turn.
            contain(move || drop(payload));
            Err(Panicked.into())
        });
        if let Some(watch) = watch {
            watch.done(&result);
        }
        result
    }
}

/// A request within the application, for its listeners: however it ends, those that heard of its begin hear of its end.
struct Scope<'a> {
    app: &'a Running,
    /// `None` without listeners.
    event: Option<RequestEvent>,
    initialized: usize,
}

impl Scope<'_> {
    fn begin(&mut self) -> Result<(), Error> {
        let Some(event) = &self.event else { return Ok(()) };
        for listener in &self.app.request_listeners {
            match contain(|| listener.request_initialized(event)) {
                Some(Ok(())) => self.initialized += 1,
                Some(Err(error)) => return Err(Error::boxed(error)),
                None => return Err(Panicked.into()),
            }
        }
        Ok(())
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let Some(event) = &self.event else { return };
        for listener in self.app.request_listeners[..self.initialized].iter().rev() {
            contain(|| listener.request_destroyed(event));
        }
    }
}

impl Application for Running {
    fn servlets(&self) -> Vec<ServletInfo> {
        self.servlets.iter().map(|entry| entry.info.clone()).collect()
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn constraints(&self) -> &str {
        &self.constraints
    }

    fn start(&self, context: Arc<ServletContext>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let mut started = Started { context, listeners: 0, filters: 0, servlets: 0 };
            let failed = match self.start_parts(&mut started).await {
                Ok(()) => {
                    *self.started.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            // What went wrong here is logged there, and the cause is what counts.
            let _ = self.stop_parts(started).await;
            match failed {
                Failed::Error(error) => Err(error),
                Failed::Panic(payload) => resume_unwind(payload),
            }
        })
    }

    fn call(&self, request: Request) -> BoxFuture<'_, Response> {
        if self.plain {
            return match self.servlets.get(request.servlet_index()) {
                Some(entry) => entry.servlet.answer(request),
                None => Box::pin(std::future::ready(Response::status(http::StatusCode::NOT_FOUND))),
            };
        }
        // Filters are handed the rest of the chain to keep: it must own the application.
        let Some(app) = self.this.upgrade() else {
            return Box::pin(std::future::ready(Response::status(http::StatusCode::SERVICE_UNAVAILABLE)));
        };
        answer(|| app.serve(request))
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let started = self.started.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            match started {
                Some(started) => self.stop_parts(started).await,
                None => Ok(()),
            }
        })
    }
}

async fn step<F>(what: &str, make: impl FnOnce() -> F) -> Result<(), Failed>
where
    F: Future<Output = Result<(), BoxError>>,
{
    match caught(make).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failed::Error(format!("{what} did not start: {}", chain(&*error)).into())),
        Err(payload) => Err(Failed::Panic(payload)),
    }
}

/// Runs the future that `make` makes; a panic in either is the error.
pub(crate) async fn caught<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(catch_unwind(AssertUnwindSafe(make))?);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(payload)),
    })
    .await
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
