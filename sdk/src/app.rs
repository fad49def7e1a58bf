//! The builder of an application from servlets, filters and listeners.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tower_layer::Layer;
use tower_service::Service;

use crate::application::ServletInfo;
use crate::async_listener::AnyAsyncListener;
use crate::blocking::Blocking;
use crate::error_pages::{ErrorPage, ErrorType, For};
use crate::filter::AnyFilter;
use crate::layer::{NextService, layer};
use crate::listener::AnyListener;
use crate::mount::Mounted;
use crate::pattern::IntoPatterns;
use crate::running::Init;
use crate::servlet::AnyServlet;
use crate::session_listener::SessionListener;
use crate::sql::{Migration, Migrations};
use crate::{
    AsyncListener, BlockingServlet, Body, BoxError, Constraint, ContextAttributeListener, ContextListener, Filter,
    FilterMapping, IntoErrorPage, IntoFilterMapping, RequestAttributeListener, RequestListener, Servlet, StatusCode,
};

/// An application made of servlets, filters and listeners.
///
/// ```
/// use wharf_sdk::{App, TestClient, get};
///
/// let app = App::new()
///     .servlet("home", "", get(|_| async { "home" }))
///     .servlet("items", ["/items", "/items/*"], get(|request: wharf_sdk::Request| async move {
///         format!("item {}", request.path_info().unwrap_or("?"))
///     }));
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(app).context_path("/shop").start().await.unwrap();
/// assert_eq!(client.get("/").send().await.text().await, "home");
/// assert_eq!(client.get("/items/7").send().await.text().await, "item /7");
/// assert_eq!(client.get("/nothing").send().await.status(), 404);
/// # });
/// ```
///
/// # URL patterns
/// As in Servlet 6.1, chapter 12, the first of these that fits wins:
///
/// | pattern | fits |
/// |---|---|
/// | `/a/b` | that path alone |
/// | `/a/*` | `/a` and everything under it; the longest such pattern wins |
/// | `*.html` | last segments that end so |
/// | `""` | the context root alone |
/// | `/` | everything else |
///
/// # Configuration
/// The TOML file of an application can say most of what is said here, and wins over it.
#[derive(Default)]
#[must_use]
pub struct App {
    pub(crate) parts: Parts,
}

/// What a builder has been told.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) servlets: Vec<ServletPart>,
    pub(crate) filters: Vec<FilterPart>,
    /// In the order of declaration, by name of the filter.
    pub(crate) mappings: Vec<(String, FilterMapping)>,
    pub(crate) servlet_init: Vec<(String, String, String)>,
    pub(crate) filter_init: Vec<(String, String, String)>,
    pub(crate) servlet_timeouts: Vec<(String, Duration)>,
    pub(crate) async_timeout: Option<Duration>,
    pub(crate) listeners: Vec<Arc<dyn AnyListener>>,
    pub(crate) request_listeners: Vec<Arc<dyn RequestListener>>,
    pub(crate) context_attribute_listeners: Vec<Arc<dyn ContextAttributeListener>>,
    pub(crate) request_attribute_listeners: Vec<Arc<dyn RequestAttributeListener>>,
    pub(crate) async_listeners: Vec<Arc<dyn AnyAsyncListener>>,
    pub(crate) session_listeners: Vec<Arc<dyn SessionListener>>,
    pub(crate) attributes: Vec<Arc<dyn Any + Send + Sync>>,
    pub(crate) migrations: Vec<(String, Migrations)>,
    pub(crate) error_pages: Vec<ErrorPage>,
    pub(crate) error_types: Vec<ErrorType>,
    pub(crate) welcome_files: Vec<String>,
    pub(crate) display_name: Option<String>,
    pub(crate) constraints: Vec<Constraint>,
}

pub(crate) struct ServletPart {
    pub(crate) info: ServletInfo,
    pub(crate) servlet: Arc<dyn AnyServlet>,
    /// It has no URL pattern, and shall have none.
    pub(crate) by_name_alone: bool,
    pub(crate) init: Init,
    pub(crate) timeout: Option<Duration>,
    /// The TOML file changed it.
    pub(crate) from_file: bool,
    /// The builder did not name it: it answers 404 where nothing else answers.
    pub(crate) implied: bool,
}

pub(crate) struct FilterPart {
    pub(crate) name: String,
    pub(crate) filter: Arc<dyn AnyFilter>,
    pub(crate) init: Init,
    /// The TOML file changed it.
    pub(crate) from_file: bool,
}

impl App {
    /// An application that answers 404 to everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a servlet under one or several URL patterns.
    ///
    /// Names must be unique in the application. Mistakes in names and patterns are reported when the application is made
    /// ready to run.
    pub fn servlet(self, name: impl Into<String>, patterns: impl IntoPatterns, servlet: impl Servlet) -> Self {
        self.any_servlet(name.into(), patterns.into_patterns(), false, Arc::new(servlet))
    }

    /// Adds a servlet that no path leads to, for [`Request::named_dispatcher`](crate::Request::named_dispatcher).
    pub fn named_servlet(self, name: impl Into<String>, servlet: impl Servlet) -> Self {
        self.any_servlet(name.into(), Vec::new(), true, Arc::new(servlet))
    }

    /// Adds a servlet that blocks its thread; it runs on the pool for blocking work.
    pub fn blocking_servlet(
        self,
        name: impl Into<String>,
        patterns: impl IntoPatterns,
        servlet: impl BlockingServlet,
    ) -> Self {
        self.servlet(name, patterns, Blocking::new(servlet))
    }

    /// Adds a tower service, such as an axum `Router`, beside the servlets. It sees paths relative to the context path.
    ///
    /// ```
    /// use wharf_sdk::{App, TestClient, get};
    ///
    /// let router = axum::Router::new().route("/api/items", axum::routing::get(|| async { "items" }));
    /// let app = App::new().servlet("home", "", get(|_| async { "home" })).mount("api", "/api/*", router);
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let client = TestClient::new(app).start().await.unwrap();
    /// assert_eq!(client.get("/api/items").send().await.text().await, "items");
    /// # });
    /// ```
    pub fn mount<S, B>(self, name: impl Into<String>, patterns: impl IntoPatterns, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.servlet(name, patterns, Mounted::new(service))
    }

    /// Gives a servlet an init parameter, for its [`ServletConfig`](crate::ServletConfig).
    pub fn servlet_init(
        mut self,
        servlet: impl Into<String>,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Self {
        self.parts.servlet_init.push((servlet.into(), name.into(), value.into()));
        self
    }

    /// Adds a filter before every request whose path fits one of these URL patterns (`"/*"` for all), or as a
    /// [`FilterMapping`] says.
    ///
    /// Filters by URL pattern run first, in the order in which they were added; then those by servlet name, in theirs
    /// (Servlet 6.1, section 6.2.4). A filter of which two mappings fit runs once.
    pub fn filter(self, name: impl Into<String>, mapping: impl IntoFilterMapping, filter: impl Filter) -> Self {
        self.any_filter(name.into(), mapping.into_filter_mapping(), Arc::new(filter))
    }

    /// Adds a filter before the servlets with these names; `"*"` stands for all.
    pub fn filter_servlets(self, name: impl Into<String>, servlets: impl IntoPatterns, filter: impl Filter) -> Self {
        self.filter(name, FilterMapping::servlets(servlets), filter)
    }

    /// Gives a filter an init parameter, for its [`FilterConfig`](crate::FilterConfig).
    pub fn filter_init(mut self, filter: impl Into<String>, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parts.filter_init.push((filter.into(), name.into(), value.into()));
        self
    }

    /// Adds a tower layer as a filter before every request; its name is `layer-1`, `layer-2` and so on. For some paths
    /// alone, give [`layer`](crate::layer()) to [`App::filter`].
    pub fn layer<L, S, B>(self, tower_layer: L) -> Self
    where
        L: Layer<NextService, Service = S>,
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let number = self.parts.filters.iter().filter(|filter| filter.name.starts_with("layer-")).count() + 1;
        self.filter(format!("layer-{number}"), "/*", layer(tower_layer))
    }

    /// Adds a page that answers in place of a response with this status that has no content, or of an error with it
    /// (Servlet 6.1, section 10.9). The page is a path of the application, or a servlet.
    ///
    /// The status stays, unless the page answers with another than a 2xx. [`Request::error`](crate::Request::error) tells the
    /// page what happened. A page that fails is replaced by the container's own.
    ///
    /// ```
    /// use wharf_sdk::{App, Request, StatusCode, TestClient, any, get};
    ///
    /// let app = App::new()
    ///     .servlet("home", "", get(|_| async { "home" }))
    ///     .error_page(StatusCode::NOT_FOUND, any(|request: Request| async move {
    ///         format!("no {}", request.error().map_or("", |error| error.request_uri()))
    ///     }));
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let client = TestClient::new(app).start().await.unwrap();
    /// let response = client.get("/cart").send().await;
    /// assert_eq!(response.status(), 404);
    /// assert_eq!(response.text().await, "no /cart");
    /// # });
    /// ```
    pub fn error_page(self, status: StatusCode, page: impl IntoErrorPage) -> Self {
        self.any_error_page(For::Status(status), page)
    }

    /// Adds a page for errors of this type: the source of an [`Error`](crate::Error), or one of its causes. It comes before
    /// one for the status.
    pub fn error_page_for<E: std::error::Error + 'static>(mut self, page: impl IntoErrorPage) -> Self {
        self.parts.error_types.push(ErrorType::of::<E>());
        self.any_error_page(For::Type(ErrorType::of::<E>()), page)
    }

    /// Adds a page for every error that has none of its own.
    pub fn default_error_page(self, page: impl IntoErrorPage) -> Self {
        self.any_error_page(For::Everything, page)
    }

    /// Makes a type of errors known by its name, without the module, to the `[[error_pages]]` of the TOML file.
    pub fn error_type<E: std::error::Error + 'static>(mut self) -> Self {
        self.parts.error_types.push(ErrorType::of::<E>());
        self
    }

    /// Names of servlets' paths that answer for their folder: with `["index.html"]`, a request to `/docs/` that nothing but
    /// the default servlet takes goes to the servlet of `/docs/index.html`, if there is one (Servlet 6.1, section 10.10).
    pub fn welcome_files(mut self, files: impl IntoPatterns) -> Self {
        self.parts.welcome_files = files.into_patterns();
        self
    }

    /// Adds a security constraint (Servlet 6.1, chapter 13). In tests and with `serve`, where there is no container, nobody holds it.
    pub fn constraint(mut self, constraint: Constraint) -> Self {
        self.parts.constraints.push(constraint);
        self
    }

    /// Name of the application for people.
    pub fn display_name(mut self, name: impl Into<String>) -> Self {
        self.parts.display_name = Some(name.into());
        self
    }

    /// How long a request may take until its response is ready. Then its future is dropped, and it fails with 500 and
    /// [`AsyncTimeout`](crate::AsyncTimeout), unless an [`AsyncListener`] answers. Not called, there is no such limit but for
    /// [`Request::start_async`](crate::Request::start_async), which has 30 seconds. Zero is no limit, too.
    pub fn async_timeout(mut self, timeout: Duration) -> Self {
        self.parts.async_timeout = Some(timeout);
        self
    }

    /// As [`App::async_timeout`], for requests to one servlet. Zero is no limit.
    pub fn servlet_timeout(mut self, servlet: impl Into<String>, timeout: Duration) -> Self {
        self.parts.servlet_timeouts.push((servlet.into(), timeout));
        self
    }

    /// Adds a listener for sessions and their values.
    pub fn session_listener(mut self, listener: impl SessionListener) -> Self {
        self.parts.session_listeners.push(Arc::new(listener));
        self
    }

    /// Adds a listener for the start and the stop of the application.
    pub fn listener(mut self, listener: impl ContextListener) -> Self {
        self.parts.listeners.push(Arc::new(listener));
        self
    }

    /// Brings the schema of a database up to date at the start, before listeners and servlets are, and before traffic comes.
    /// The name must be in the descriptor, see [`sql`](crate::sql).
    ///
    /// ```
    /// # use wharf_sdk::{App, sql::Migration};
    /// let app = App::new().migrations(
    ///     "db",
    ///     [
    ///         Migration::new(1, "products", "create table product (id integer primary key, name text not null)"),
    ///         // From a file beside the source: Migration::new(2, "prices", include_str!("../migrations/2_prices.sql")),
    ///     ],
    /// );
    /// ```
    pub fn migrations(mut self, resource: impl Into<String>, migrations: impl IntoIterator<Item = Migration>) -> Self {
        let migrations = Migrations::Embedded(migrations.into_iter().collect());
        self.parts.migrations.push((resource.into(), migrations));
        self
    }

    /// The same from files `VERSION_DESCRIPTION.sql` in a folder of the application's own, relative to its folder.
    pub fn migrations_in(mut self, resource: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.parts.migrations.push((resource.into(), Migrations::Folder(folder.into())));
        self
    }

    /// Adds a listener for requests that come and go.
    pub fn request_listener(mut self, listener: impl RequestListener) -> Self {
        self.parts.request_listeners.push(Arc::new(listener));
        self
    }

    /// Adds a listener for changes of the application's attributes.
    pub fn context_attribute_listener(mut self, listener: impl ContextAttributeListener) -> Self {
        self.parts.context_attribute_listeners.push(Arc::new(listener));
        self
    }

    /// Adds a listener for changes of requests' attributes.
    pub fn request_attribute_listener(mut self, listener: impl RequestAttributeListener) -> Self {
        self.parts.request_attribute_listeners.push(Arc::new(listener));
        self
    }

    /// Adds a listener for what becomes of requests: timeouts, errors, clients that go away.
    pub fn async_listener(mut self, listener: impl AsyncListener) -> Self {
        self.parts.async_listeners.push(Arc::new(listener));
        self
    }

    /// Adds something that all parts share, found by its type with
    /// [`ServletContext::attribute`](crate::ServletContext::attribute). It is there before the first listener is called.
    pub fn attribute<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.parts.attributes.push(Arc::new(value));
        self
    }

    fn any_servlet(
        mut self,
        name: String,
        patterns: Vec<String>,
        by_name_alone: bool,
        servlet: Arc<dyn AnyServlet>,
    ) -> Self {
        self.parts.servlets.push(ServletPart {
            info: ServletInfo { name, patterns },
            servlet,
            by_name_alone,
            init: Init::new(),
            timeout: None,
            from_file: false,
            implied: false,
        });
        self
    }

    fn any_filter(mut self, name: String, mapping: FilterMapping, filter: Arc<dyn AnyFilter>) -> Self {
        self.parts.mappings.push((name.clone(), mapping));
        self.parts.filters.push(FilterPart { name, filter, init: Init::new(), from_file: false });
        self
    }

    fn any_error_page(mut self, of: For, page: impl IntoErrorPage) -> Self {
        self.parts.error_pages.push(ErrorPage { of, to: page.into_error_page().0, from_file: false });
        self
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("servlets", &self.parts.servlets.iter().map(|part| &part.info).collect::<Vec<_>>())
            .field("filters", &self.parts.filters.iter().map(|filter| &*filter.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
