//! The port between dispatch and access control: who may reach a path of an application (Servlet 6.1, chapter 13).

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri};

use bytes::Bytes;

use crate::launch::Plan;
use crate::session::{Session, Tracking};
use crate::{Authenticated, Body, Connection};

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

/// The future of an answer in place of the application's.
pub type Answering = Pin<Box<dyn Future<Output = Denied> + Send>>;

/// What becomes of a request.
pub enum Verdict {
    /// It goes on.
    Pass(Passed),
    /// It does not.
    Refuse(Denied),
    /// It can't be said at once. Whoever waits does not block.
    Later(Pin<Box<dyn Future<Output = Verdict> + Send>>),
    /// The guard answers it, and needs its content: a sign-in.
    Take(Box<dyn FnOnce(Body) -> Answering + Send>),
}

/// A request that goes on.
#[derive(Debug, Default)]
pub struct Passed {
    /// Who asks, where that is known.
    pub user: Option<Authenticated>,
    /// The session that was opened to find out.
    pub session: Option<(Arc<Session>, Tracking)>,
    /// What is asked in truth: the request that a sign-in interrupted.
    pub saved: Option<Box<SavedRequest>>,
}

impl From<Option<Authenticated>> for Passed {
    fn from(user: Option<Authenticated>) -> Self {
        Self { user, ..Self::default() }
    }
}

/// A request that is made again after a sign-in (Servlet 6.1, section 13.6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRequest {
    /// Its method.
    pub method: Method,
    /// Media type of its content.
    pub content_type: Option<HeaderValue>,
    /// Its content.
    pub content: Bytes,
}

impl SavedRequest {
    /// Puts it in the place of a request for the same target.
    pub fn restore(self, request: &mut http::Request<Body>) {
        *request.method_mut() = self.method;
        let headers = request.headers_mut();
        headers.remove(TRANSFER_ENCODING);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.content.len()));
        match self.content_type {
            Some(value) => drop(headers.insert(CONTENT_TYPE, value)),
            None => drop(headers.remove(CONTENT_TYPE)),
        }
        *request.body_mut() = Body::from(self.content);
    }
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

/// What an application asks of its guard while it answers a request (Servlet 6.1, section 13.3).
#[derive(Clone, PartialEq, Eq)]
pub enum Sign {
    /// Signs somebody in.
    In {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Forgets who has signed in.
    Out,
    /// Finds out who the client is, or what to ask of it.
    Ask,
}

/// What became of it.
#[derive(Debug)]
pub struct Signed {
    /// Who the client is from now on, or the answer for it.
    pub outcome: Result<Option<Authenticated>, Denied>,
    /// The session that keeps it.
    pub session: Option<Arc<Session>>,
    /// Header fields for the response, whatever the application answers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl From<Result<Option<Authenticated>, Denied>> for Signed {
    fn from(outcome: Result<Option<Authenticated>, Denied>) -> Self {
        Self { outcome, session: None, headers: Vec::new() }
    }
}

/// The future of [`Signed`].
pub type Signing = Pin<Box<dyn Future<Output = Signed> + Send>>;

/// Guards one application. What it can't decide it refuses.
pub trait Guard: Send + Sync + 'static {
    /// Decides about one request. Called on a worker: it must not block.
    fn check(&self, asking: &Asking<'_>) -> Verdict;

    /// Does what the application asks for during a request, with the session that the request has.
    fn sign(&self, asking: &Asking<'_>, session: Option<Arc<Session>>, sign: Sign) -> Signing;
}

/// The guard that a request has passed, among its extensions.
#[derive(Clone)]
pub struct Passage(pub Arc<dyn Guard>);

/// Makes guards.
pub trait Guards: Send + Sync + 'static {
    /// The guard for an application, by what it says of its security.
    ///
    /// # Errors
    /// What is wrong: the application does not start then.
    fn guard(&self, plan: &Plan) -> Result<Arc<dyn Guard>, String>;
}
