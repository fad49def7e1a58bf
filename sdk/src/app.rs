//! The builder of an application from servlets, filters and listeners.

use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tower_service::Service;

use crate::application::{Application, MappingError, ServletInfo};
use crate::blocking::Blocking;
use crate::filter::AnyFilter;
use crate::listener::AnyListener;
use crate::mount::Mounted;
use crate::pattern::{self, IntoPatterns};
use crate::running::{FilterEntry, Reach, Running, ServletEntry};
use crate::servlet::AnyServlet;
use crate::session_listener::{SessionListener, SessionListeners};
use crate::{BlockingServlet, Body, BoxError, ContextListener, Filter, Servlet};

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
#[derive(Default)]
#[must_use]
pub struct App {
    servlets: Vec<ServletEntry>,
    filters: Vec<FilterEntry>,
    listeners: Vec<Arc<dyn AnyListener>>,
    session_listeners: Vec<Arc<dyn SessionListener>>,
    attributes: Vec<Arc<dyn Any + Send + Sync>>,
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
        self.any_servlet(name.into(), patterns.into_patterns(), Arc::new(servlet))
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

    /// Adds a filter before every request whose path fits one of these URL patterns (`"/*"` for all).
    ///
    /// Filters run in the order in which they were added, whether they were added by pattern or by servlet.
    pub fn filter(self, name: impl Into<String>, patterns: impl IntoPatterns, filter: impl Filter) -> Self {
        self.any_filter(name.into(), Reach::Paths(patterns.into_patterns()), Arc::new(filter))
    }

    /// Adds a filter before the servlets with these names.
    pub fn filter_servlets(self, name: impl Into<String>, servlets: impl IntoPatterns, filter: impl Filter) -> Self {
        self.any_filter(name.into(), Reach::Servlets(servlets.into_patterns()), Arc::new(filter))
    }

    /// Adds a listener for sessions and their values.
    pub fn session_listener(mut self, listener: impl SessionListener) -> Self {
        self.session_listeners.push(Arc::new(listener));
        self
    }

    /// Adds a listener for the start and the stop of the application.
    pub fn listener(mut self, listener: impl ContextListener) -> Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Adds something that all parts share, found by its type with
    /// [`ServletContext::attribute`](crate::ServletContext::attribute). It is there before the first listener is called.
    pub fn attribute<T: Any + Send + Sync>(mut self, value: T) -> Self {
        self.attributes.push(Arc::new(value));
        self
    }

    fn any_servlet(mut self, name: String, patterns: Vec<String>, servlet: Arc<dyn AnyServlet>) -> Self {
        self.servlets.push(ServletEntry { info: ServletInfo { name, patterns }, servlet });
        self
    }

    fn any_filter(mut self, name: String, reach: Reach, filter: Arc<dyn AnyFilter>) -> Self {
        self.filters.push(FilterEntry { name: name.into(), reach, filter });
        self
    }

    /// Checks names and patterns and makes it ready to run.
    pub(crate) fn build(mut self) -> Result<Arc<dyn Application>, MappingError> {
        let mut names = HashSet::new();
        for ServletEntry { info, .. } in &self.servlets {
            if info.name.is_empty() {
                return Err(MappingError::Pattern("a servlet has an empty name: give it one".into()));
            }
            if !names.insert(info.name.as_str()) {
                return Err(MappingError::Pattern(format!(
                    "two servlets have the name '{}': give each its own",
                    info.name
                )));
            }
            if info.patterns.is_empty() {
                return Err(MappingError::Pattern(format!("servlet '{}' has no URL pattern", info.name)));
            }
        }
        let mut filter_names = HashSet::new();
        for filter in &self.filters {
            if filter.name.is_empty() || !filter_names.insert(&filter.name) {
                return Err(MappingError::Pattern(format!(
                    "filter name '{}' is empty or used twice: give each filter its own",
                    filter.name
                )));
            }
            match &filter.reach {
                Reach::Paths(patterns) => {
                    for text in patterns {
                        pattern::check(text).map_err(|why| {
                            MappingError::Pattern(format!("filter '{}' has the pattern '{text}': {why}", filter.name))
                        })?;
                    }
                }
                Reach::Servlets(servlets) => {
                    if let Some(unknown) = servlets.iter().find(|name| !names.contains(name.as_str())) {
                        return Err(MappingError::Pattern(format!(
                            "filter '{}' is for servlet '{unknown}', but there is none of that name",
                            filter.name
                        )));
                    }
                }
            }
        }
        pattern::check_servlets(&self.servlets.iter().map(|entry| &entry.info).collect::<Vec<_>>())?;

        // Filters by path stand before whatever a path leads to, even where that is nothing: so nothing needs a servlet.
        let everything = |info: &ServletInfo| info.patterns.iter().any(|p| p == "/" || p == "/*");
        let by_path = self.filters.iter().any(|filter| matches!(filter.reach, Reach::Paths(_)));
        if (by_path || self.servlets.is_empty()) && !self.servlets.iter().any(|entry| everything(&entry.info)) {
            let name = if names.contains("default") { "wharf-default" } else { "default" };
            let nothing = crate::any(|_| async { http::StatusCode::NOT_FOUND });
            self = self.servlet(name, "/", nothing);
        }
        if !self.session_listeners.is_empty() {
            self.attributes.push(Arc::new(SessionListeners(self.session_listeners)));
        }
        Ok(Running::new(self.servlets, self.filters, self.listeners, self.attributes))
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("servlets", &self.servlets.iter().map(|entry| &entry.info).collect::<Vec<_>>())
            .field("filters", &self.filters.iter().map(|filter| &*filter.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntoApplication, filter_fn, get};

    #[test]
    fn mistakes_in_names_and_patterns_are_told() {
        let page = || get(|_| async { "x" });
        let pass = || filter_fn(|request, next: crate::Next| async move { next.run(request).await });
        for (app, want) in [
            (App::new().servlet("a", "/a", page()).servlet("a", "/b", page()), "two servlets have the name 'a'"),
            (App::new().servlet("", "/a", page()), "empty name"),
            (App::new().servlet("a", Vec::<String>::new(), page()), "no URL pattern"),
            (App::new().servlet("a", "a", page()), "'a'"),
            (App::new().servlet("a", "/a", page()).servlet("b", "/a", page()), "'/a'"),
            (App::new().filter_servlets("f", "b", pass()), "servlet 'b'"),
            (App::new().filter("f", "a", pass()), "'a'"),
            (App::new().filter("f", "/*", pass()).filter("f", "/*", pass()), "'f'"),
        ] {
            match app.into_application() {
                Err(MappingError::Pattern(text)) => assert!(text.contains(want), "{text} should name {want}"),
                other => panic!("{want}: {:?}", other.map(|app| app.servlets())),
            }
        }
    }
}
