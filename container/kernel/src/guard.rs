//! The port between dispatch and access control: who may reach a path of an application (Servlet 6.1, chapter 13).

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};

use crate::options::SecurityOptions;
use crate::{Authenticated, Connection};

/// A request, as far as access control looks at it.
#[derive(Debug)]
pub struct Asking<'a> {
    /// Method.
    pub method: &'a Method,
    /// The canonical, decoded path within the context: the very one that chooses the servlet. Begins with a slash.
    pub path: &'a str,
    /// The target as sent.
    pub uri: &'a Uri,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Host and port that the client asked for.
    pub authority: &'a str,
    /// The connection.
    pub connection: &'a Connection,
}

/// What becomes of a request.
pub enum Verdict {
    /// It goes on; with somebody, where the client had to say who it is.
    Pass(Option<Authenticated>),
    /// It does not.
    Refuse(Denied),
    /// It can't be said at once. Whoever waits does not block.
    Later(Pin<Box<dyn Future<Output = Result<Authenticated, Denied>> + Send>>),
}

/// An answer in place of the application's. A redirect is one too: its `Location` is a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Status.
    pub status: StatusCode,
    /// For people; empty for nothing but the status.
    pub detail: Cow<'static, str>,
    /// Header fields, such as the challenge.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Denied {
    /// With this status alone.
    pub fn new(status: StatusCode) -> Self {
        Self { status, detail: Cow::Borrowed(""), headers: Vec::new() }
    }

    /// With one header field more.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Guards one application. What it can't decide it refuses.
pub trait Guard: Send + Sync + 'static {
    /// Decides about one request. Called on a worker: it must not block.
    fn check(&self, asking: &Asking<'_>) -> Verdict;
}

/// Makes guards.
pub trait Guards: Send + Sync + 'static {
    /// The guard for an application that says this of its security.
    ///
    /// # Errors
    /// What is wrong: the application does not start then.
    fn guard(&self, options: &SecurityOptions) -> Result<Arc<dyn Guard>, String>;
}
