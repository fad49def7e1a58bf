//! Who hears what becomes of asynchronous requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cancel::ClientGone;
use crate::listener::RequestEvent;
use crate::{Error, Response};

/// No answer came in time: the source of the error of such a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncTimeout(pub Duration);

impl fmt::Display for AsyncTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for AsyncTimeout {}

/// Every [`AsyncContext`](crate::AsyncContext) of a request was dropped, and none had answered: the source of its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncDropped;

impl fmt::Display for AsyncDropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the asynchronous context was dropped without an answer")
    }
}

impl std::error::Error for AsyncDropped {}

/// What became of an asynchronous request, as its listeners are told.
#[derive(Debug, Clone, Copy)]
pub struct AsyncEvent<'a> {
    request: &'a RequestEvent,
    error: Option<&'a Error>,
}

impl<'a> AsyncEvent<'a> {
    pub(crate) fn new(request: &'a RequestEvent, error: Option<&'a Error>) -> Self {
        Self { request, error }
    }

    /// The request.
    pub fn request(&self) -> &'a RequestEvent {
        self.request
    }

    /// What went wrong, in `on_error`; its source is [`ClientGone`] when the client went away.
    pub fn error(&self) -> Option<&'a Error> {
        self.error
    }
}

/// Hears what becomes of an asynchronous request (`AsyncListener` of Servlet 6.1, section 2.3.3.3).
///
/// Given to [`AsyncContext::add_listener`](crate::AsyncContext::add_listener) it hears of that one; given to
/// [`App::async_listener`](crate::App::async_listener), of every request: a handler is asynchronous without further ado.
pub trait AsyncListener: Send + Sync + 'static {
    /// [`Request::start_async`](crate::Request::start_async) was called: for a listener of the application the first time,
    /// for one of a request again, after a dispatch.
    fn on_start_async(&self, event: &AsyncEvent<'_>) {
        let _ = event;
    }

    /// The response is ready, whatever went before.
    fn on_complete(&self, event: &AsyncEvent<'_>) {
        let _ = event;
    }

    /// No answer came in time. The first listener that returns a response answers the request with it; when none does, it
    /// fails with 500 and [`AsyncTimeout`].
    fn on_timeout(&self, event: &AsyncEvent<'_>) -> Option<Response> {
        let _ = event;
        None
    }

    /// The request failed, or its client went away ([`ClientGone`]).
    fn on_error(&self, event: &AsyncEvent<'_>) {
        let _ = event;
    }
}

/// An [`AsyncListener`] whose panics stay with it.
pub(crate) trait AnyAsyncListener: Send + Sync + 'static {
    fn started(&self, event: &AsyncEvent<'_>);
    fn completed(&self, event: &AsyncEvent<'_>);
    fn timed_out(&self, event: &AsyncEvent<'_>) -> Option<Response>;
    fn failed(&self, event: &AsyncEvent<'_>);
}

impl<L: AsyncListener> AnyAsyncListener for L {
    fn started(&self, event: &AsyncEvent<'_>) {
        crate::application::contain(|| self.on_start_async(event));
    }

    fn completed(&self, event: &AsyncEvent<'_>) {
        crate::application::contain(|| self.on_complete(event));
    }

    fn timed_out(&self, event: &AsyncEvent<'_>) -> Option<Response> {
        crate::application::contain(|| self.on_timeout(event)).flatten()
    }

    fn failed(&self, event: &AsyncEvent<'_>) {
        crate::application::contain(|| self.on_error(event));
    }
}

/// The listeners of one request. Dropped before [`Watch::done`], it tells them that the client has gone.
pub(crate) struct Watch {
    pub(crate) listeners: Vec<Arc<dyn AnyAsyncListener>>,
    pub(crate) event: RequestEvent,
    over: bool,
}

impl Watch {
    pub(crate) fn new(listeners: Vec<Arc<dyn AnyAsyncListener>>, event: RequestEvent) -> Self {
        Self { listeners, event, over: false }
    }

    /// What no answer in time comes to.
    ///
    /// `before` are asked before its own listeners.
    pub(crate) fn timed_out(&self, before: &[Arc<dyn AnyAsyncListener>], after: Duration) -> Result<Response, Error> {
        let event = AsyncEvent::new(&self.event, None);
        match before.iter().chain(&self.listeners).find_map(|listener| listener.timed_out(&event)) {
            Some(response) => Ok(response),
            None => Err(timeout_error(after)),
        }
    }

    /// Tells the listeners what came of it.
    pub(crate) fn done(mut self, result: &Result<Response, Error>) {
        self.over = true;
        self.tell(result.as_ref().err());
    }

    fn tell(&self, error: Option<&Error>) {
        if let Some(error) = error {
            self.listeners.iter().for_each(|listener| listener.failed(&AsyncEvent::new(&self.event, Some(error))));
        }
        self.listeners.iter().for_each(|listener| listener.completed(&AsyncEvent::new(&self.event, None)));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over {
            self.tell(Some(&Error::from(ClientGone)));
        }
    }
}

pub(crate) fn timeout_error(after: Duration) -> Error {
    Error::from(AsyncTimeout(after))
}
