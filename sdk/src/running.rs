//! An application made ready: its life cycle, and the way of a request through its filters to its servlet.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;

use crate::application::{Application, BoxFuture, ServletInfo, answer};
use crate::filter::AnyFilter;
use crate::listener::AnyListener;
use crate::pattern;
use crate::servlet::AnyServlet;
use crate::{BoxError, Error, FilterConfig, Next, Request, Response, ServletConfig, ServletContext};

pub(crate) struct ServletEntry {
    pub(crate) info: ServletInfo,
    pub(crate) servlet: Arc<dyn AnyServlet>,
}

/// What a filter stands before.
pub(crate) enum Reach {
    /// Paths that fit one of these patterns.
    Paths(Vec<String>),
    /// Servlets with these names.
    Servlets(Vec<String>),
}

pub(crate) struct FilterEntry {
    pub(crate) name: Arc<str>,
    pub(crate) reach: Reach,
    pub(crate) filter: Arc<dyn AnyFilter>,
}

impl FilterEntry {
    fn stands_before(&self, request: &Request, servlet: &ServletEntry) -> bool {
        match &self.reach {
            Reach::Servlets(names) => names.contains(&servlet.info.name),
            Reach::Paths(patterns) => {
                patterns.iter().any(|p| p == "/*") || {
                    let path = request.path();
                    patterns.iter().any(|p| pattern::fits(p, &path))
                }
            }
        }
    }
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

pub(crate) struct Running {
    servlets: Vec<ServletEntry>,
    filters: Vec<FilterEntry>,
    listeners: Vec<Arc<dyn AnyListener>>,
    attributes: Vec<Arc<dyn Any + Send + Sync>>,
    started: Mutex<Option<Started>>,
    this: Weak<Self>,
}

impl Running {
    pub(crate) fn new(
        servlets: Vec<ServletEntry>,
        filters: Vec<FilterEntry>,
        listeners: Vec<Arc<dyn AnyListener>>,
        attributes: Vec<Arc<dyn Any + Send + Sync>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            servlets,
            filters,
            listeners,
            attributes,
            started: Mutex::new(None),
            this: this.clone(),
        })
    }

    async fn start_parts(&self, started: &mut Started) -> Result<(), Failed> {
        let context = Arc::clone(&started.context);
        for attribute in &self.attributes {
            context.set_shared(Arc::clone(attribute));
        }
        for (at, listener) in self.listeners.iter().enumerate() {
            step(&format!("context listener {}", at + 1), || listener.initialized(&context)).await?;
            started.listeners += 1;
        }
        for FilterEntry { name, filter, .. } in &self.filters {
            let config = FilterConfig::new(Arc::clone(name), Arc::clone(&context));
            step(&format!("filter '{name}'"), || filter.init(&config)).await?;
            started.filters += 1;
        }
        for ServletEntry { info, servlet } in &self.servlets {
            let config = ServletConfig::new(info.name.as_str().into(), Arc::clone(&context));
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
                    crate::application::contain(move || drop(payload));
                    format!("{what} panicked when it was stopped")
                }
            };
            tracing::error!(target: "wharf_sdk", "{error}");
            first.get_or_insert(error);
        };
        for ServletEntry { info, servlet } in self.servlets[..started.servlets].iter().rev() {
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
}

impl Application for Running {
    fn servlets(&self) -> Vec<ServletInfo> {
        self.servlets.iter().map(|entry| entry.info.clone()).collect()
    }

    fn start(&self, context: Arc<ServletContext>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let mut started = Started { context, listeners: 0, filters: 0, servlets: 0 };
            let failed = match self.start_parts(&mut started).await {
                Ok(()) => {
                    *self.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
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
        let Some(entry) = self.servlets.get(request.servlet_index()) else {
            return Box::pin(std::future::ready(Response::status(http::StatusCode::NOT_FOUND)));
        };
        if self.filters.is_empty() {
            return entry.servlet.answer(request);
        }
        // Filters are handed the rest of the chain to keep: it must own the application.
        let Some(app) = self.this.upgrade() else {
            return Box::pin(std::future::ready(Response::status(http::StatusCode::SERVICE_UNAVAILABLE)));
        };
        let chain = Chain { app, at: 0 };
        Box::pin(answer(move || async move { chain.run(request).await.unwrap_or_else(Error::into_response) }))
    }

    fn stop(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move {
            let started = self.started.lock().unwrap_or_else(PoisonError::into_inner).take();
            match started {
                Some(started) => self.stop_parts(started).await,
                None => Ok(()),
            }
        })
    }
}

/// The filters from one on, and the servlet behind them.
pub(crate) struct Chain {
    app: Arc<Running>,
    at: usize,
}

impl Chain {
    pub(crate) async fn run(self, request: Request) -> Result<Response, Error> {
        let Some(entry) = self.app.servlets.get(request.servlet_index()) else {
            return Ok(Response::status(http::StatusCode::NOT_FOUND));
        };
        let mut rest = self.app.filters.iter().enumerate().skip(self.at);
        match rest.find(|(_, filter)| filter.stands_before(&request, entry)) {
            None => entry.servlet.service(request).await,
            Some((at, FilterEntry { filter, .. })) => {
                let next = Next(Self { app: Arc::clone(&self.app), at: at + 1 });
                filter.filter(request, next).await
            }
        }
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
async fn caught<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, Box<dyn Any + Send>> {
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
