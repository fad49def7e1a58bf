//! A request, as a servlet sees it.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Extensions, Method, Uri, Version, request};
use once_cell::sync::OnceCell;
use serde::de::DeserializeOwned;

use crate::dispatch_state::DispatchState;
use crate::dispatcher::Target;
use crate::facts::{Chosen, RequestFacts, target_in_context};
use crate::{Body, ContainerInfo, DispatchError, Error, Parameters, Principal, ServletContext, Session, Tls, ffi};

/// A request (`HttpServletRequest` of Servlet 6.1, chapter 3).
///
/// For `GET http://example.com/shop/items/7%2B?all=1` to an application at `/shop` with a servlet at `/items/*`:
///
/// | method | value |
/// |---|---|
/// | [`context_path`](Self::context_path) | `/shop` |
/// | [`servlet_path`](Self::servlet_path) | `/items` |
/// | [`path_info`](Self::path_info) | `Some("/7+")` |
/// | [`path`](Self::path) | `/items/7+` |
/// | [`query`](Self::query) | `Some("all=1")` |
/// | [`request_uri`](Self::request_uri) | `/shop/items/7%2B` |
/// | [`authority`](Self::authority) | `example.com` |
pub struct Request(Box<Inner>);

/// Boxed, so that the futures a request is handed through stay small.
struct Inner {
    method: Method,
    version: Version,
    /// Made when it is asked for; a request that was made here has it from the start.
    uri: OnceCell<Uri>,
    /// Made when they are asked for.
    headers: OnceCell<HeaderMap>,
    extensions: Extensions,
    body: Body,
    facts: RequestFacts,
}

impl Inner {
    fn uri(&self) -> &Uri {
        self.uri.get_or_init(|| uri_of(&self.facts))
    }

    fn query(&self) -> Option<&str> {
        match self.uri.get() {
            Some(uri) => uri.query(),
            None => lent_query(&self.facts),
        }
    }

    fn headers(&self) -> &HeaderMap {
        self.headers.get_or_init(|| headers_of(&self.facts))
    }
}

fn uri_of(facts: &RequestFacts) -> Uri {
    let (path, query) = facts.lent().map_or(("/", None), ffi::target);
    target_in_context(path, facts.context().context_path(), query)
        .expect("the container sends targets that it has read as such")
}

/// A value as text, where it is visible ASCII.
pub(crate) fn visible(value: &[u8]) -> Option<&str> {
    let visible = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if visible { std::str::from_utf8(value).ok() } else { None }
}

fn lent_query(facts: &RequestFacts) -> Option<&str> {
    facts.lent().and_then(|ffi| ffi::target(ffi).1)
}

/// Extensions without any, and room for some: frameworks put in more than the three that the first table has room for.
fn room() -> Extensions {
    static ROOM: LazyLock<Extensions> = LazyLock::new(|| {
        let mut room = Extensions::new();
        room.insert(0u8);
        room.insert(0u16);
        room.insert(0u32);
        room.insert(0u64);
        room.clear();
        room
    });
    ROOM.clone()
}

fn headers_of(facts: &RequestFacts) -> HeaderMap {
    facts.lent().map(ffi::headers).unwrap_or_default()
}

/// A request from the container, of which nothing has been read yet.
#[doc(hidden)]
pub struct Crossed {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) body: Body,
    pub(crate) facts: RequestFacts,
}

impl Crossed {
    /// As [`Request::into_http`]; it needs not become a [`Request`] first.
    #[inline]
    pub(crate) fn into_http(self) -> http::Request<Body> {
        self.with_all(Extensions::new())
    }

    #[inline]
    fn with_all(self, extensions: Extensions) -> http::Request<Body> {
        let (uri, headers) = match self.facts.lent() {
            Some(ffi) => ffi::target_and_headers(ffi, self.facts.context().context_path()),
            None => (uri_of(&self.facts), HeaderMap::new()),
        };
        self.with(uri, headers, extensions)
    }

    #[inline]
    fn with(self, uri: Uri, headers: HeaderMap, mut extensions: Extensions) -> http::Request<Body> {
        let Self { method, version, body, facts } = self;
        if extensions.is_empty() {
            extensions = room();
        }
        extensions.insert(ContainerInfo::new(facts));
        let mut request = http::Request::new(body);
        *request.method_mut() = method;
        *request.version_mut() = version;
        // What was there holds nothing: it needs not be looked through.
        std::mem::forget(std::mem::replace(request.uri_mut(), uri));
        std::mem::forget(std::mem::replace(request.headers_mut(), headers));
        std::mem::forget(std::mem::replace(request.extensions_mut(), extensions));
        request
    }
}

impl From<Crossed> for Request {
    /// Its target and header fields are read when they are asked for.
    fn from(crossed: Crossed) -> Self {
        let Crossed { method, version, body, facts } = crossed;
        let (uri, headers) = (OnceCell::new(), OnceCell::new());
        Self(Box::new(Inner { method, version, uri, headers, extensions: Extensions::new(), body, facts }))
    }
}

impl Request {
    /// A request whose URI is already relative to the context (see `target_in_context`).
    pub(crate) fn from_parts(parts: request::Parts, body: Body, facts: RequestFacts) -> Self {
        let request::Parts { method, uri, version, headers, extensions, .. } = parts;
        let (uri, headers) = (OnceCell::with_value(uri), OnceCell::with_value(headers));
        Self(Box::new(Inner { method, version, uri, headers, extensions, body, facts }))
    }

    /// The request as any `http` library knows it: its URI is the canonical path without the context path, and the
    /// container's gifts are in its extensions as a [`ContainerInfo`].
    pub fn into_http(self) -> http::Request<Body> {
        let Inner { method, version, uri, headers, extensions, body, facts } = *self.0;
        let crossed = Crossed { method, version, body, facts };
        match (uri.into_inner(), headers.into_inner()) {
            (None, None) => crossed.with_all(extensions),
            (uri, headers) => {
                let facts = &crossed.facts;
                let uri = uri.unwrap_or_else(|| uri_of(facts));
                let headers = headers.unwrap_or_else(|| headers_of(facts));
                crossed.with(uri, headers, extensions)
            }
        }
    }

    /// The request of an `http` library again, as [`Request::into_http`] gave it away; `None` when somebody has taken its
    /// [`ContainerInfo`] out.
    pub(crate) fn from_http(request: http::Request<Body>) -> Option<Self> {
        let (mut parts, body) = request.into_parts();
        let facts = parts.extensions.remove::<ContainerInfo>()?.into_facts();
        Some(Self::from_parts(parts, body, facts))
    }

    /// The values of the header fields of this name, in whatever case. Makes no table of all of them.
    pub(crate) fn field_values(&self, name: impl AsRef<str>) -> impl Iterator<Item = &[u8]> {
        let made = self.0.headers.get();
        let lent = if made.is_none() { self.0.facts.lent() } else { None };
        let made = made.map(|made| made.get_all(name.as_ref()).into_iter().map(HeaderValue::as_bytes));
        let lent = lent.map(|ffi| ffi.headers().filter(move |(there, _)| there.eq_ignore_ascii_case(name.as_ref())));
        made.into_iter().flatten().chain(lent.into_iter().flatten().map(|(_, value)| value))
    }

    pub(crate) fn facts_mut(&mut self) -> &mut RequestFacts {
        &mut self.0.facts
    }

    pub(crate) fn facts(&self) -> &RequestFacts {
        &self.0.facts
    }

    pub(crate) fn dispatch_state(&self) -> Option<&DispatchState> {
        self.0.facts.dispatch.as_deref()
    }

    pub(crate) fn dispatch_state_mut(&mut self) -> &mut DispatchState {
        self.0.facts.dispatch.get_or_insert_default()
    }

    /// Gives it the path elements of another path of the application.
    pub(crate) fn redirect_to(&mut self, target: &Target) -> Result<(), DispatchError> {
        let wrong = |error: http::Error| DispatchError::Path(format!("dispatch to '{}': {error}", target.request_uri));
        let uri = target_in_context(&target.encoded, "", target.query.as_deref()).map_err(wrong)?;
        self.0.uri = uri.into();
        self.0.facts.retarget(Chosen {
            request_uri: Some(target.request_uri.as_str().into()),
            servlet_path: target.servlet_path.clone(),
            path_info: target.path_info.clone(),
            servlet: target.servlet,
            pattern: target.pattern,
        });
        Ok(())
    }

    /// Gives it the mapping that was found for `path`, and leaves the rest.
    pub(crate) fn set_mapping(&mut self, found: wharf_mapping::Match, path: &str) {
        self.0.facts.retarget(Chosen {
            request_uri: None,
            servlet_path: path[..found.servlet_path_len].into(),
            path_info: found.has_path_info.then(|| path[found.servlet_path_len..].into()),
            servlet: found.servlet,
            pattern: found.pattern,
        });
    }

    /// A second request with the same head, and this content.
    pub(crate) fn twin(&self, body: Body) -> Self {
        let inner = &self.0;
        Self(Box::new(Inner {
            method: inner.method.clone(),
            version: inner.version,
            uri: inner.uri().clone().into(),
            headers: inner.headers().clone().into(),
            extensions: inner.extensions.clone(),
            body,
            facts: inner.facts.copied(),
        }))
    }

    /// Method.
    pub fn method(&self) -> &Method {
        &self.0.method
    }

    /// Canonical target within the context: the percent-encoded path without the context path, and the query.
    pub fn uri(&self) -> &Uri {
        self.0.uri()
    }

    /// HTTP version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Context path: empty for the root context, else it starts with `/` and does not end with one.
    pub fn context_path(&self) -> &str {
        self.0.facts.context().context_path()
    }

    /// The part of the path that chose the servlet, decoded (Servlet 6.1, section 3.5).
    pub fn servlet_path(&self) -> &str {
        self.0.facts.servlet_path()
    }

    /// What follows the servlet path, decoded, for a servlet at `/x/*`; `None` when nothing does.
    pub fn path_info(&self) -> Option<&str> {
        self.0.facts.path_info()
    }

    /// Servlet path and path info together: the decoded path within the application.
    pub fn path(&self) -> Cow<'_, str> {
        match self.path_info() {
            None => Cow::Borrowed(self.servlet_path()),
            Some(info) if self.servlet_path().is_empty() => Cow::Borrowed(info),
            Some(info) => Cow::Owned(format!("{}{info}", self.servlet_path())),
        }
    }

    /// The path as the client sent it, encoded, context path included, without the query.
    pub fn request_uri(&self) -> &str {
        self.0.facts.request_uri()
    }

    /// The query as sent, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// The query read into a structure.
    ///
    /// # Errors
    /// 400 when a value is missing or can't be read.
    pub fn query_as<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let query = self.query().unwrap_or_default();
        Parameters::parse(query.as_bytes())?;
        serde_urlencoded::from_str(query).map_err(|error| Error::bad_request(format!("query: {error}")))
    }

    /// The first parameter of this name in the query. For those of a form see [`Request::parameters`].
    ///
    /// Text that is not valid percent-encoded UTF-8 counts as absent here and is a 400 in [`Request::parameters`].
    pub fn parameter(&self, name: &str) -> Option<String> {
        Parameters::first_in(self.parameter_query(), name)
    }

    /// All header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// The first header field of this name, in whatever case, when its value is visible ASCII text.
    pub fn header(&self, name: impl AsRef<str>) -> Option<&str> {
        visible(self.field_values(name).next()?)
    }

    /// Length of the content in bytes, where it is known ahead.
    pub fn content_length(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.0.body).exact()
    }

    /// The `Content-Type`, parameters included.
    pub fn content_type(&self) -> Option<&str> {
        self.header(header::CONTENT_TYPE)
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.0.facts.is_secure() { "https" } else { "http" }
    }

    /// True when the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.0.facts.is_secure()
    }

    /// What TLS agreed on for its connection; `None` where the connection to the container is not encrypted, with `serve`
    /// and in tests.
    pub fn tls(&self) -> Option<Tls<'_>> {
        self.0.facts.tls()
    }

    /// Name of the user that the container has authenticated (`getRemoteUser`); `None` where nobody had to log in.
    pub fn remote_user(&self) -> Option<&str> {
        self.0.facts.user().map(|user| user.0)
    }

    /// How the user has shown who it is (`getAuthType`): see [`Principal::auth_type`].
    pub fn auth_type(&self) -> Option<&str> {
        self.0.facts.user().map(|user| user.1)
    }

    /// The user, with its roles (`getUserPrincipal`).
    pub fn user_principal(&self) -> Option<Principal> {
        self.0.facts.user_principal()
    }

    /// Whether there is a user that has this role. Every user has `**`, nobody has `*` (Servlet 6.1, section 13.3).
    pub fn is_user_in_role(&self, role: &str) -> bool {
        self.0.facts.is_user_in_role(role)
    }

    /// Host the client asked for, with the port if it gave one.
    pub fn authority(&self) -> &str {
        self.0.facts.authority()
    }

    /// Address of the peer; none on a Unix socket.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.0.facts.remote()
    }

    /// Address the connection came in on; none on a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.0.facts.local_addr()
    }

    /// Request id: the same in the access log and in every log record written for this request.
    pub fn id(&self) -> &str {
        self.0.facts.id()
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        self.0.facts.shared_id()
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        self.0.facts.context()
    }

    /// The session of this client; begins one where there is none (`getSession()`). The container tells the client of it in a
    /// cookie.
    ///
    /// # Errors
    /// 503 when there are as many sessions as there may be.
    pub fn session(&self) -> impl Future<Output = Result<Session, Error>> + Send + 'static + use<> {
        let opening = self.0.facts.session(true);
        async move { opening.await?.ok_or_else(|| Error::internal("no session was made")) }
    }

    /// The session of this client, if there is one (`getSession(false)`).
    ///
    /// # Errors
    /// 503 when the store of the sessions does not answer.
    pub fn session_if_exists(&self) -> impl Future<Output = Result<Option<Session>, Error>> + Send + 'static + use<> {
        self.0.facts.session(false)
    }

    /// The session id that the client sent, valid or not: of several the first that a session has.
    pub fn requested_session_id(&self) -> Option<String> {
        self.0.facts.requested_session()?.id.into_option().map(Into::into)
    }

    /// Whether a session of this application has the id that the client sent.
    pub fn is_requested_session_id_valid(&self) -> bool {
        self.0.facts.requested_session().is_some_and(|r| r.is_valid)
    }

    /// Whether the client sent a session id in a cookie.
    pub fn is_requested_session_id_from_cookie(&self) -> bool {
        self.0.facts.requested_session().is_some_and(|r| r.id.is_some() && !r.from_url)
    }

    /// Whether the client sent a session id in the path, where the application allows that (`session.url_tracking`).
    pub fn is_requested_session_id_from_url(&self) -> bool {
        self.0.facts.requested_session().is_some_and(|r| r.id.is_some() && r.from_url)
    }

    /// Gives the session of this client another id (`changeSessionId`): at every login. Returns it.
    ///
    /// # Errors
    /// 500 when there is no session.
    pub fn change_session_id(&self) -> impl Future<Output = Result<String, Error>> + Send + 'static + use<> {
        let opening = self.0.facts.session(false);
        async move { opening.await?.ok_or_else(|| Error::internal("there is no session to change the id of"))?.change_id() }
    }

    /// An init parameter of the application.
    pub fn init_parameter(&self, name: &str) -> Option<&str> {
        self.0.facts.context().init_parameter(name)
    }

    /// Index of the chosen servlet.
    #[doc(hidden)]
    pub fn servlet_index(&self) -> usize {
        self.0.facts.servlet()
    }

    /// Index of the pattern that matched.
    #[doc(hidden)]
    pub fn pattern_index(&self) -> usize {
        self.0.facts.pattern()
    }

    /// What filters and servlets tell each other about this request, by type.
    pub fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// As [`Request::extensions`], to add to.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.0.extensions
    }

    /// The header fields, to change: for filters.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.0.headers();
        self.0.headers.get_mut().expect("just made")
    }

    /// The content.
    pub fn body(&self) -> &Body {
        &self.0.body
    }

    /// The content, to read chunk by chunk with [`Body::chunk`].
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.0.body
    }

    /// Takes the content out.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(&mut self.0.body)
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.0.facts.id())
            .field("method", &self.0.method)
            .field("uri", self.0.uri())
            .field("headers", self.0.headers())
            .field("body", &self.0.body)
            .finish_non_exhaustive()
    }
}
