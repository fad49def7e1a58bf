//! Filters: code around servlets, in a chain.

use std::future::Future;
use std::sync::Arc;

use crate::application::BoxFuture;
use crate::chain::Chain;
use crate::running::Init;
use crate::{BoxError, Error, Request, Response, ServletContext};

/// Something that stands before servlets: it may look at the request and change it, answer itself, or call
/// [`Next::run`] and change the response (Servlet 6.1, chapter 6).
///
/// ```
/// use wharf_sdk::{App, Error, Filter, Next, Request, Response, TestClient, get};
///
/// struct Stamp;
///
/// impl Filter for Stamp {
///     async fn filter(&self, request: Request, next: Next) -> Result<Response, Error> {
///         next.run(request).await?.header("X-Served-By", "wharf")
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let app = App::new().filter("stamp", "/*", Stamp).servlet("hello", "/hello", get(|_| async { "hello" }));
/// let client = TestClient::new(app).start().await.unwrap();
/// assert_eq!(client.get("/hello").send().await.header("x-served-by"), Some("wharf"));
/// # });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a filter",
    label = "expected a type that implements `Filter`, or a function wrapped in `filter_fn`",
    note = "wrap a function or closure: `filter_fn(check)` where `async fn check(request: Request, next: Next) -> Result<Response, Error>`"
)]
pub trait Filter: Send + Sync + 'static {
    /// Called once before the first request, and before any servlet's. An error stops the application from starting.
    fn init(&self, config: &FilterConfig) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = config;
        async { Ok(()) }
    }

    /// Called once after the last request.
    fn destroy(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Answers a request, most often by way of `next`. An error of what comes after arrives here as `Err`, so that a filter
    /// may turn it into a response of its own.
    fn filter(&self, request: Request, next: Next) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// What a filter's `init` is told.
#[derive(Debug, Clone)]
pub struct FilterConfig {
    name: Arc<str>,
    init: Arc<Init>,
    context: Arc<ServletContext>,
}

impl FilterConfig {
    pub(crate) fn new(name: Arc<str>, init: Arc<Init>, context: Arc<ServletContext>) -> Self {
        Self { name, init, context }
    }

    /// Name of the filter.
    pub fn filter_name(&self) -> &str {
        &self.name
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        &self.context
    }

    /// An init parameter of the filter ([`App::filter_init`](crate::App::filter_init)), or else of the application.
    pub fn init_parameter(&self, name: &str) -> Option<&str> {
        self.init.get(name).map(String::as_str).or_else(|| self.context.init_parameter(name))
    }

    /// Name and value of every init parameter of the filter itself, sorted by name.
    pub fn init_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.init.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// The rest of the chain: the filters after this one, and the servlet.
pub struct Next(pub(crate) Chain);

impl Next {
    /// Hands the request on.
    ///
    /// # Errors
    /// What a later filter or the servlet returns.
    pub async fn run(self, request: Request) -> Result<Response, Error> {
        self.0.run(request).await
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

/// A function or closure as a filter.
pub fn filter_fn<F, R>(function: F) -> impl Filter
where
    F: Fn(Request, Next) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Response, Error>> + Send + 'static,
{
    struct Function<F>(F);

    impl<F, R> Filter for Function<F>
    where
        F: Fn(Request, Next) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response, Error>> + Send + 'static,
    {
        fn filter(&self, request: Request, next: Next) -> impl Future<Output = Result<Response, Error>> + Send {
            (self.0)(request, next)
        }
    }

    Function(function)
}

/// A [`Filter`] of any type.
pub(crate) trait AnyFilter: Send + Sync + 'static {
    fn init<'a>(&'a self, config: &'a FilterConfig) -> BoxFuture<'a, Result<(), BoxError>>;
    fn destroy(&self) -> BoxFuture<'_, ()>;
    fn filter(&self, request: Request, next: Next) -> BoxFuture<'_, Result<Response, Error>>;
}

impl<F: Filter> AnyFilter for F {
    fn init<'a>(&'a self, config: &'a FilterConfig) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(Filter::init(self, config))
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        Box::pin(Filter::destroy(self))
    }

    fn filter(&self, request: Request, next: Next) -> BoxFuture<'_, Result<Response, Error>> {
        Box::pin(Filter::filter(self, request, next))
    }
}
