//! The waist of the SDK: whatever an author writes becomes an [`Application`], and whatever runs applications runs that.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use tower_service::Service;
pub(crate) use wharf_abi::contain;

use crate::mount::Mounted;
use crate::request::Crossed;
use crate::web::Web;
use crate::{App, Body, BoxError, Error, IntoResponse, Request, Response, ServletContext};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A servlet as the container's mapper needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct ServletInfo {
    /// Servlet name.
    pub name: String,
    /// URL patterns (Servlet 6.1, section 12.2).
    pub patterns: Vec<String>,
}

/// An application, ready to be started.
#[doc(hidden)]
pub trait Application: Send + Sync + 'static {
    /// Its servlets; empty when it takes the whole context.
    fn servlets(&self) -> Vec<ServletInfo>;

    /// What it is made of, as JSON, for people who look at it; empty when it takes the whole context.
    fn description(&self) -> &str {
        ""
    }

    /// Its security constraints as JSON, in the words of `[[constraints]]`; empty for none.
    fn constraints(&self) -> &str {
        ""
    }

    /// Starts it: context listeners in order, then filters, then servlets. When it fails, what was started has been stopped
    /// again.
    fn start(&self, context: Arc<ServletContext>) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Answers a request. A panic inside becomes a 500.
    ///
    /// It borrows the application, so that requests on several processors do not share a reference count.
    fn call(&self, request: Request) -> BoxFuture<'_, Response>;

    /// Answers a request that came from the container, as [`Self::call`].
    fn crossed(&self, request: Crossed) -> BoxFuture<'_, Response> {
        self.call(request.into())
    }

    /// Stops it: servlets, then filters, then context listeners, in reverse order. All are stopped even when one fails;
    /// the first error is returned.
    fn stop(&self) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// Why something is not a valid application.
#[derive(Debug)]
pub enum MappingError {
    /// A servlet name or URL pattern is wrong or used twice; the text says which.
    Pattern(String),
    /// The function that makes the application returned this error.
    Build(BoxError),
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(text) => f.write_str(text),
            Self::Build(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MappingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pattern(_) => None,
            Self::Build(error) => error.source(),
        }
    }
}

/// What can be deployed: an [`App`], an axum `Router`, any tower service of HTTP requests, or a `Result` of these.
///
/// `Marker` only keeps the implementations apart; it is never named.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an application",
    label = "expected an `App`, an axum `Router` or a tower service, found `{Self}`",
    note = "an axum `Router` must have its state: call `.with_state(state)` last, so that its type is `Router<()>`",
    note = "a tower service must be `Service<http::Request<wharf_sdk::Body>>`, answer with an `http::Response`, and be `Clone + Send + 'static`, with futures that are `Send + 'static`",
    note = "an application that can't always be made is a `Result` of one of these, whose error turns into `wharf_sdk::BoxError`"
)]
pub trait IntoApplication<Marker = ()> {
    /// The application.
    ///
    /// # Errors
    /// When a name or URL pattern is not valid, or it could not be made.
    fn into_application(self) -> Result<Arc<dyn Application>, MappingError>
    where
        Self: Sized,
    {
        self.configured(&Web::default())
    }

    /// The application, with what a configuration file says of it.
    #[doc(hidden)]
    fn configured(self, web: &Web) -> Result<Arc<dyn Application>, MappingError>;
}

impl IntoApplication<App> for App {
    fn configured(self, web: &Web) -> Result<Arc<dyn Application>, MappingError> {
        self.build(web)
    }
}

/// Marks tower services.
#[doc(hidden)]
#[derive(Debug)]
pub struct ViaService;

impl<S, B> IntoApplication<ViaService> for S
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn configured(self, web: &Web) -> Result<Arc<dyn Application>, MappingError> {
        if web.needs_servlets() {
            // Filters, error pages and the like stand around servlets: it becomes the only one.
            return App::new().mount("router", "/*", self).build(web);
        }
        Ok(Arc::new(Mounted::new(self)))
    }
}

impl<T, E, M> IntoApplication<(M,)> for Result<T, E>
where
    T: IntoApplication<M>,
    E: Into<BoxError>,
{
    fn configured(self, web: &Web) -> Result<Arc<dyn Application>, MappingError> {
        self.map_err(|error| MappingError::Build(error.into()))?.configured(web)
    }
}

/// What makes an application: a function without arguments, or one of the context.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be exported",
    label = "expected a function that returns an `App`, an axum `Router`, a tower service, or a `Result` of one of these",
    note = "export the function itself, not what it returns: `fn app() -> App`, or `fn app(context: &ServletContext) -> App`",
    note = "an axum `Router` must have its state: call `.with_state(state)` last, so that its type is `Router<()>`",
    note = "the error of a `Result` must turn into `wharf_sdk::BoxError`"
)]
pub trait Factory<Marker> {
    /// Makes it.
    fn make(self, context: &ServletContext) -> Result<Arc<dyn Application>, MappingError>;
}

/// Marks functions without arguments.
#[doc(hidden)]
#[derive(Debug)]
pub struct ViaNothing;

/// Marks functions of the context.
#[doc(hidden)]
#[derive(Debug)]
pub struct ViaContext;

impl<F, T, M> Factory<(ViaNothing, T, M)> for F
where
    F: FnOnce() -> T,
    T: IntoApplication<M>,
{
    fn make(self, context: &ServletContext) -> Result<Arc<dyn Application>, MappingError> {
        self().configured(&context.link().web)
    }
}

impl<F, T, M> Factory<(ViaContext, T, M)> for F
where
    F: FnOnce(&ServletContext) -> T,
    T: IntoApplication<M>,
{
    fn make(self, context: &ServletContext) -> Result<Arc<dyn Application>, MappingError> {
        self(context).configured(&context.link().web)
    }
}

pin_project_lite::pin_project! {
    /// A future whose panic becomes a 500 without content. The panic hook has reported it.
    struct Contained<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future<Output: IntoResponse>> Future for Contained<F> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let future = self.project().future;
        contain(|| future.poll(cx).map(|answer| answer.into_response().unwrap_or_else(Error::into_response)))
            .unwrap_or_else(|| Poll::Ready(Response::status(StatusCode::INTERNAL_SERVER_ERROR)))
    }
}

/// Boxes the answer that `make` makes, whose panics become responses. Made after the box, it needs not be moved there.
pub(crate) fn answer<'a, F>(make: impl FnOnce() -> F) -> BoxFuture<'a, Response>
where
    F: Future<Output: IntoResponse> + Send + 'a,
{
    let place = Box::<Contained<F>>::new_uninit();
    let boxed = Box::write(place, Contained { future: make() });
    Box::into_pin(boxed)
}
