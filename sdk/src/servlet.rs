//! The `Servlet` trait, with what `HttpServlet` gives for nothing: 405 with `Allow`, HEAD from GET, OPTIONS and conditional GET.

use std::any::TypeId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::{Method, StatusCode};

use crate::application::{BoxFuture, answer};
use crate::dispatch::{Allowed, Verb, allow, conditional, not_allowed, not_implemented, without_content};
use crate::running::Init;
use crate::{BoxError, Error, Request, Response, ServletContext};

/// Something that answers requests (Servlet 6.1, chapter 2).
///
/// Write an `async fn` for each method that it answers. All the rest is there: a method that is not written is answered with
/// 405 and an `Allow` header listing those that are, HEAD is answered from [`get`](Servlet::get), OPTIONS lists the methods.
///
/// ```
/// use wharf_sdk::{Error, Request, Response, Servlet};
///
/// struct Hello;
///
/// impl Servlet for Hello {
///     async fn get(&self, request: Request) -> Result<Response, Error> {
///         let name = request.parameter("name").unwrap_or_else(|| "world".into());
///         Ok(Response::text(format!("Hello, {name}!")))
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use wharf_sdk::{App, TestClient};
/// let client = TestClient::new(App::new().servlet("hello", "/hello", Hello)).start().await.unwrap();
/// assert_eq!(client.get("/hello?name=Ada").send().await.text().await, "Hello, Ada!");
/// let refused = client.post("/hello").send().await;
/// assert_eq!(refused.status(), 405);
/// assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
/// # });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a servlet",
    label = "expected a type that implements `Servlet`, or a handler wrapped in `get`, `post` or `any`",
    note = "wrap a function or closure: `get(hello)` where `async fn hello(request: Request) -> Result<Response, Error>`",
    note = "a type that implements `BlockingServlet` goes to `App::blocking_servlet`, an axum `Router` to `App::mount`"
)]
pub trait Servlet: Send + Sync + 'static {
    /// Called once before the first request. An error stops the application from starting.
    fn init(&self, config: &ServletConfig) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = config;
        async { Ok(()) }
    }

    /// Called once after the last request.
    fn destroy(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// When what a GET of this would answer was last changed, if that is known. It is sent as `Last-Modified`, and a client
    /// that has a copy as new as this gets 304 instead of the content (RFC 9110, section 13.1.3).
    fn last_modified(&self, request: &Request) -> Option<SystemTime> {
        let _ = request;
        None
    }

    /// Answers any request. As it is, it calls the function for the request's method; write it only to take all methods.
    fn service(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        dispatch(self, request)
    }

    /// Answers GET.
    fn get(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::GET)
    }

    /// Answers HEAD. Not written, it is what `get` answers without the content.
    fn head(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::HEAD)
    }

    /// Answers POST.
    fn post(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::POST)
    }

    /// Answers PUT.
    fn put(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::PUT)
    }

    /// Answers DELETE.
    fn delete(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::DELETE)
    }

    /// Answers PATCH.
    fn patch(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::PATCH)
    }

    /// Answers OPTIONS. Not written, it lists the methods.
    fn options(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::OPTIONS)
    }

    /// Answers TRACE. Not written, it is refused: an echo of the request shows a script what the browser hides from it.
    fn trace(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send {
        Unwritten(request.method() == Method::TRACE)
    }
}

/// What a servlet's `init` is told.
#[derive(Debug, Clone)]
pub struct ServletConfig {
    name: Arc<str>,
    init: Arc<Init>,
    context: Arc<ServletContext>,
}

impl ServletConfig {
    pub(crate) fn new(name: Arc<str>, init: Arc<Init>, context: Arc<ServletContext>) -> Self {
        Self { name, init, context }
    }

    /// Name of the servlet.
    pub fn servlet_name(&self) -> &str {
        &self.name
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        &self.context
    }

    /// An init parameter of the servlet ([`App::servlet_init`](crate::App::servlet_init)), or else of the application.
    pub fn init_parameter(&self, name: &str) -> Option<&str> {
        self.init.get(name).map(String::as_str).or_else(|| self.context.init_parameter(name))
    }

    /// Name and value of every init parameter of the servlet itself, sorted by name.
    pub fn init_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.init.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What the functions that a servlet did not write return. Its type tells them from those that were written.
struct Unwritten(#[expect(dead_code, reason = "a field of some kind keeps the request's borrow out of the type")] bool);

impl Future for Unwritten {
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Error::new(StatusCode::METHOD_NOT_ALLOWED, "this servlet does not answer the method")))
    }
}

/// Whether this function of a servlet was written by its author: its future is another type then.
fn written<S: Servlet + ?Sized, F: 'static>(_: fn(&'static S, Request) -> F) -> bool {
    TypeId::of::<F>() != TypeId::of::<Unwritten>()
}

fn allowed<S: Servlet + ?Sized>() -> Allowed {
    let mut allowed = Allowed::default();
    for (verb, written) in [
        (Verb::Get, written::<S, _>(S::get)),
        (Verb::Head, written::<S, _>(S::head)),
        (Verb::Post, written::<S, _>(S::post)),
        (Verb::Put, written::<S, _>(S::put)),
        (Verb::Delete, written::<S, _>(S::delete)),
        (Verb::Patch, written::<S, _>(S::patch)),
        (Verb::Options, written::<S, _>(S::options)),
        (Verb::Trace, written::<S, _>(S::trace)),
    ] {
        if written {
            allowed.insert(verb);
        }
    }
    allowed
}

async fn dispatch<S: Servlet + ?Sized>(servlet: &S, request: Request) -> Result<Response, Error> {
    let allowed = allowed::<S>();
    let Some(verb) = Verb::of(request.method()) else { return Ok(not_implemented()) };
    match verb {
        Verb::Head if !allowed.has(Verb::Head) && allowed.has(Verb::Get) => {
            Ok(without_content(get(servlet, request).await?))
        }
        Verb::Options if !allowed.has(Verb::Options) => Ok(allow(allowed)),
        verb if !allowed.has(verb) => Ok(not_allowed(allowed)),
        Verb::Get => get(servlet, request).await,
        Verb::Head => servlet.head(request).await,
        Verb::Post => servlet.post(request).await,
        Verb::Put => servlet.put(request).await,
        Verb::Delete => servlet.delete(request).await,
        Verb::Patch => servlet.patch(request).await,
        Verb::Options => servlet.options(request).await,
        Verb::Trace => servlet.trace(request).await,
    }
}

async fn get<S: Servlet + ?Sized>(servlet: &S, request: Request) -> Result<Response, Error> {
    match servlet.last_modified(&request) {
        None => servlet.get(request).await,
        Some(when) => conditional(when, request, |request| servlet.get(request)).await,
    }
}

/// A [`Servlet`] of any type.
pub(crate) trait AnyServlet: Send + Sync + 'static {
    fn init<'a>(&'a self, config: &'a ServletConfig) -> BoxFuture<'a, Result<(), BoxError>>;
    fn destroy(&self) -> BoxFuture<'_, ()>;
    /// With errors and panics turned into responses.
    fn answer(&self, request: Request) -> BoxFuture<'_, Response>;
    /// With errors left for filters to see.
    fn service(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>>;
}

impl<S: Servlet> AnyServlet for S {
    fn init<'a>(&'a self, config: &'a ServletConfig) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(Servlet::init(self, config))
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        Box::pin(Servlet::destroy(self))
    }

    fn answer(&self, request: Request) -> BoxFuture<'_, Response> {
        answer(|| Servlet::service(self, request))
    }

    fn service(&self, request: Request) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(Servlet::service(self, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Some3;
    impl Servlet for Some3 {
        async fn get(&self, _: Request) -> Result<Response, Error> {
            Ok(Response::text("x"))
        }
        async fn delete(&self, _: Request) -> Result<Response, Error> {
            Ok(Response::text("x"))
        }
        fn trace(&self, _: Request) -> impl Future<Output = Result<Response, Error>> + Send {
            std::future::ready(Ok(Response::text("x")))
        }
    }

    struct Nothing;
    impl Servlet for Nothing {}

    #[test]
    fn what_is_written_is_known_from_the_types() {
        assert_eq!(allowed::<Some3>().to_string(), "GET, HEAD, DELETE, OPTIONS, TRACE");
        assert_eq!(allowed::<Nothing>().to_string(), "OPTIONS");
    }
}
