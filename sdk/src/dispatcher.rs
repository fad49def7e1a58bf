//! Forward, include and named dispatch: handing a request to another servlet of the application.

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::chain::Chain;
use crate::dispatch_error::{DispatchError, MAX_DISPATCH_DEPTH};
use crate::dispatch_state::{DispatchPath, FilterPath};
use crate::running::Running;
use crate::{Body, BoxError, DispatcherType, Error, Request, Response, ServletContext, ServletMapping};

/// A servlet that a path leads to, with the path taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) servlet: usize,
    pub(crate) pattern: usize,
    pub(crate) servlet_path: Box<str>,
    pub(crate) path_info: Option<Box<str>>,
    /// As given, made absolute, context path included, without the query.
    pub(crate) request_uri: String,
    /// Canonical, percent-encoded, within the context.
    pub(crate) encoded: String,
    pub(crate) query: Option<String>,
}

impl Target {
    /// Finds the servlet for `path`, which is relative to `base` (an encoded path within the context) unless it begins with a
    /// slash (Servlet 6.1, section 9.1).
    pub(crate) fn find(app: &Running, context_path: &str, base: &str, path: &str) -> Result<Self, DispatchError> {
        let wrong =
            |why: &dyn fmt::Display| DispatchError::Path(format!("dispatch to '{}': {why}", path.escape_debug()));
        let (path_only, query) = match path.split_once('?') {
            Some((before, query)) => (before, Some(query)),
            None => (path, None),
        };
        let folder = if path_only.starts_with('/') { "" } else { &base[..base.rfind('/').map_or(0, |at| at + 1)] };
        let raw = format!("{folder}{}", encode_illegal(path_only));
        let bare = wharf_mapping::strip_params(&raw);
        let normal = wharf_mapping::normalise(&bare).ok_or_else(|| {
            wrong(&"the path leads above the context root, or has a control character or a backslash")
        })?;
        let canonical = wharf_mapping::canonicalise(&normal).map_err(|error| wrong(&error))?;
        let (found, decoded) = app.find(&canonical.decoded).ok_or_else(|| DispatchError::NotFound(path.to_owned()))?;
        let servlet_path = &decoded[..found.servlet_path_len];
        let path_info = found.has_path_info.then(|| decoded[found.servlet_path_len..].into());
        Ok(Self {
            servlet: found.servlet,
            pattern: found.pattern,
            servlet_path: servlet_path.into(),
            path_info,
            request_uri: format!("{context_path}{}{raw}", if raw.starts_with('/') { "" } else { "/" }),
            encoded: canonical.encoded.into_owned(),
            query: query.map(|query| encode_illegal(query).into_owned()),
        })
    }

    pub(crate) fn path(&self) -> Cow<'_, str> {
        match self.path_info.as_deref() {
            None => Cow::Borrowed(&self.servlet_path),
            Some(info) if self.servlet_path.is_empty() => Cow::Borrowed(info),
            Some(info) => Cow::Owned(format!("{}{info}", self.servlet_path)),
        }
    }

    fn as_path(&self, app: &Running, context_path: &str) -> DispatchPath {
        let servlet = app.servlet_info(self.servlet);
        DispatchPath {
            request_uri: self.request_uri.clone(),
            context_path: context_path.to_owned(),
            servlet_path: self.servlet_path.to_string(),
            path_info: self.path_info.as_deref().map(str::to_owned),
            query: self.query.clone(),
            mapping: servlet
                .map(|info| ServletMapping::new(info, self.pattern, &self.servlet_path, self.path_info.as_deref())),
        }
    }
}

/// Percent-encodes what may not stand in a request target: an application names paths as people write them.
fn encode_illegal(text: &str) -> Cow<'_, str> {
    let illegal =
        |byte: u8| byte >= 0x80 || matches!(byte, b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}');
    if !text.bytes().any(illegal) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if illegal(byte) {
            out.push_str(&format!("%{byte:02X}"));
        } else {
            out.push(char::from(byte));
        }
    }
    Cow::Owned(out)
}

/// Hands requests to another servlet of the same application (Servlet 6.1, chapter 9). Made by [`Request::dispatcher`],
/// [`Request::named_dispatcher`] and their like of [`ServletContext`].
///
/// ```
/// use wharf_sdk::{App, Error, Request, Response, TestClient, get};
///
/// async fn front(mut request: Request) -> Result<Response, Error> {
///     if request.parameter("full").is_some() {
///         return request.dispatcher("/page?style=full")?.forward(request).await;
///     }
///     let menu = request.dispatcher("/menu")?.include(&mut request).await?.text().await?;
///     Ok(Response::text(format!("[{menu}] front")))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let app = App::new()
///     .servlet("front", "/", get(front))
///     .servlet("page", "/page", get(|r: Request| async move { r.parameter("style") }))
///     .servlet("menu", "/menu", get(|_| async { "menu" }));
/// let client = TestClient::new(app).start().await.unwrap();
/// assert_eq!(client.get("/").send().await.text().await, "[menu] front");
/// assert_eq!(client.get("/?full").send().await.text().await, "full");
/// # });
/// ```
///
/// A dispatch stays within the application: other contexts are other modules, and there is no way across.
#[derive(Clone)]
pub struct RequestDispatcher {
    app: Arc<Running>,
    to: To,
}

#[derive(Clone)]
enum To {
    Path(Arc<Target>),
    Servlet(usize),
}

impl fmt::Debug for RequestDispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestDispatcher({})", self.name())
    }
}

impl RequestDispatcher {
    pub(crate) fn to_path(app: Arc<Running>, target: Target) -> Self {
        Self { app, to: To::Path(Arc::new(target)) }
    }

    pub(crate) fn app(&self) -> Arc<Running> {
        Arc::clone(&self.app)
    }

    fn name(&self) -> String {
        match &self.to {
            To::Path(target) => format!("'{}'", target.request_uri),
            To::Servlet(at) => format!("servlet '{}'", self.app.servlet_info(*at).map_or("?", |info| &info.name)),
        }
    }

    /// Lets the other servlet answer in place of this one. Filters for [`DispatcherType::Forward`] come before it.
    ///
    /// The request takes on the path elements of the dispatcher's path (not those of a named dispatch); what they were is
    /// [`Request::forwarded_from`]. Whatever this servlet had in mind to answer is gone: the response is the other's.
    ///
    /// # Errors
    /// What the other servlet or a filter returns; [`DispatchError::TooDeep`].
    pub async fn forward(self, mut request: Request) -> Result<Response, Error> {
        self.enter(&mut request, DispatcherType::Forward)?;
        Chain::new(self.app).run(request).await
    }

    /// Prepares a request for a dispatch of this kind.
    pub(crate) fn enter(&self, request: &mut Request, kind: DispatcherType) -> Result<(), DispatchError> {
        let before = match &self.to {
            To::Path(_) => Some(request.dispatch_path()),
            To::Servlet(_) => None,
        };
        let queries = request.parameter_query().to_owned();
        let state = request.dispatch_state_mut();
        if state.depth >= MAX_DISPATCH_DEPTH {
            return Err(DispatchError::TooDeep(self.name()));
        }
        state.depth += 1;
        state.kind = kind;
        match &self.to {
            To::Servlet(at) => {
                state.servlet = Some(*at);
                state.filters_by = FilterPath::Nothing;
            }
            To::Path(target) => {
                state.servlet = None;
                state.filters_by = FilterPath::Request;
                state.parameters = Some(merged(target.query.as_deref(), &queries));
                let before = before.map(Arc::new);
                match kind {
                    DispatcherType::Forward if state.forwarded.is_none() => state.forwarded = before,
                    DispatcherType::Async if state.from_async.is_none() => state.from_async = before,
                    _ => {}
                }
                request.redirect_to(target)?;
            }
        }
        Ok(())
    }

    /// Runs the other servlet and gives its content, to be put into this servlet's response. Filters for
    /// [`DispatcherType::Include`] come before it.
    ///
    /// The request keeps its path elements; those of the include are [`Request::included_as`]. Status and header fields that
    /// the other sets are dropped (Servlet 6.1, section 9.3). It may read the request's content; what it leaves is still here
    /// afterwards.
    ///
    /// # Errors
    /// What the other servlet or a filter returns; [`DispatchError::TooDeep`]; [`DispatchError::IncludeNotFound`] when only
    /// the default servlet takes the path and it has nothing there.
    pub async fn include(&self, request: &mut Request) -> Result<Included, Error> {
        let body = Arc::new(Mutex::new(request.take_body()));
        let shared = match body.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            true => Body::empty(),
            false => Body::new(Shared(Arc::clone(&body))),
        };
        // Shares its attributes with this one.
        request.dispatch_state_mut();
        let mut inner = request.twin(shared);
        let queries = request.parameter_query().to_owned();
        let context_path = request.context_path();
        let state = inner.dispatch_state_mut();
        state.depth += 1;
        state.kind = DispatcherType::Include;
        let mut by_default = false;
        match &self.to {
            To::Servlet(at) => {
                state.servlet = Some(*at);
                state.filters_by = FilterPath::Nothing;
            }
            To::Path(target) => {
                state.servlet = Some(target.servlet);
                state.filters_by = FilterPath::Target(Arc::clone(target));
                state.included = Some(Arc::new(target.as_path(&self.app, context_path)));
                state.parameters = Some(merged(target.query.as_deref(), &queries));
                by_default = self.app.is_default(target.servlet, target.pattern);
            }
        }
        let result = if state.depth > MAX_DISPATCH_DEPTH {
            Err(DispatchError::TooDeep(self.name()).into())
        } else {
            Chain::new(Arc::clone(&self.app)).run(inner).await
        };
        let left = std::mem::take(&mut *body.lock().unwrap_or_else(PoisonError::into_inner));
        *request.body_mut() = left;
        let response = result?;
        if by_default && response.status_code() == http::StatusCode::NOT_FOUND {
            return Err(DispatchError::IncludeNotFound(self.name()).into());
        }
        Ok(Included(response.into_http().into_body()))
    }
}

/// `first` and then `rest` as one query.
fn merged(first: Option<&str>, rest: &str) -> Arc<str> {
    match first {
        None | Some("") => rest.into(),
        Some(first) if rest.is_empty() => first.into(),
        Some(first) => format!("{first}&{rest}").into(),
    }
}

/// The content that an included servlet answered.
#[derive(Debug)]
pub struct Included(Body);

impl Included {
    /// As it comes.
    pub fn into_body(self) -> Body {
        self.0
    }

    /// All of it.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn bytes(mut self) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.0.chunk().await {
            all.extend_from_slice(&chunk.map_err(Error::boxed)?);
        }
        Ok(all.freeze())
    }

    /// All of it as text.
    ///
    /// # Errors
    /// When it breaks off or is not UTF-8.
    pub async fn text(self) -> Result<String, Error> {
        Ok(String::from_utf8(self.bytes().await?.into())?)
    }
}

/// The content of a request in the hands of two: what an included servlet does not read is left to its includer.
struct Shared(Arc<Mutex<Body>>);

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

impl Request {
    /// A dispatcher to a path of this application: within the context when it begins with a slash, else relative to the
    /// path of this request. It may have a query, whose parameters come before those of the request.
    ///
    /// The path is percent-encoded, as in a link; it is canonicalised as a client's would be. Dot segments are resolved.
    ///
    /// # Errors
    /// When the path is not valid, leads above the context root, or no servlet takes it.
    pub fn dispatcher(&self, path: &str) -> Result<RequestDispatcher, DispatchError> {
        let app = self.context().link().app().ok_or(DispatchError::NoApp)?;
        let base = match self.dispatch_state().map(|state| &state.filters_by) {
            Some(FilterPath::Target(target)) => &target.encoded,
            _ => self.uri().path(),
        };
        let target = Target::find(&app, self.context_path(), base, path)?;
        Ok(RequestDispatcher::to_path(app, target))
    }

    /// A dispatcher to the servlet of this name. It leaves the path elements and sets no attributes (Servlet 6.1,
    /// section 9.1).
    ///
    /// # Errors
    /// When there is no servlet of this name.
    pub fn named_dispatcher(&self, name: &str) -> Result<RequestDispatcher, DispatchError> {
        self.context().named_dispatcher(name)
    }
}

impl ServletContext {
    /// As [`Request::dispatcher`], for a path that begins with a slash.
    ///
    /// # Errors
    /// As there; [`DispatchError::NotAbsolute`] for a relative path.
    pub fn dispatcher(&self, path: &str) -> Result<RequestDispatcher, DispatchError> {
        let app = self.link().app().ok_or(DispatchError::NoApp)?;
        if !path.starts_with('/') {
            return Err(DispatchError::NotAbsolute(path.to_owned()));
        }
        let target = Target::find(&app, self.context_path(), "/", path)?;
        Ok(RequestDispatcher::to_path(app, target))
    }

    /// As [`Request::named_dispatcher`].
    ///
    /// # Errors
    /// As there.
    pub fn named_dispatcher(&self, name: &str) -> Result<RequestDispatcher, DispatchError> {
        let app = self.link().app().ok_or(DispatchError::NoApp)?;
        let servlet = app.servlet_named(name).ok_or_else(|| DispatchError::NoServlet(name.to_owned()))?;
        Ok(RequestDispatcher { app, to: To::Servlet(servlet) })
    }
}
