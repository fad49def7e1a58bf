//! Where a request stands on its way through forwards, includes, error pages and asynchronous dispatches.
//!
//! Most requests are dispatched once and have no such state: then it costs a null pointer.

use std::borrow::Cow;
use std::sync::Arc;

use crate::async_listener::AnyAsyncListener;
use crate::attributes::{Attributes, Value};
use crate::dispatcher::Target;
use crate::{DispatcherType, ErrorInfo, Request, ServletMapping};

/// See the module.
#[derive(Clone)]
#[doc(hidden)]
pub struct DispatchState {
    pub(crate) attributes: Attributes,
    pub(crate) kind: DispatcherType,
    /// The servlet that runs, where it is not the one that the path elements name: after an include or a named dispatch.
    pub(crate) servlet: Option<usize>,
    pub(crate) filters_by: FilterPath,
    /// Dispatches on top of each other.
    pub(crate) depth: usize,
    /// Queries for parameters, the newest first, where it is not the query of the request.
    pub(crate) parameters: Option<Arc<str>>,
    pub(crate) forwarded: Option<Arc<DispatchPath>>,
    pub(crate) included: Option<Arc<DispatchPath>>,
    pub(crate) from_async: Option<Arc<DispatchPath>>,
    pub(crate) error: Option<Arc<ErrorInfo>>,
    /// Listeners of the asynchronous cycle before this one.
    pub(crate) async_listeners: Vec<Arc<dyn AnyAsyncListener>>,
}

/// What URL patterns of filters are compared with.
#[derive(Clone)]
pub(crate) enum FilterPath {
    /// The path of the request.
    Request,
    /// The path of an include.
    Target(Arc<Target>),
    /// Nothing: a named dispatch has no path.
    Nothing,
}

impl Default for DispatchState {
    fn default() -> Self {
        Self {
            attributes: Attributes::default(),
            kind: DispatcherType::Request,
            servlet: None,
            filters_by: FilterPath::Request,
            depth: 0,
            parameters: None,
            forwarded: None,
            included: None,
            from_async: None,
            error: None,
            async_listeners: Vec::new(),
        }
    }
}

impl std::fmt::Debug for DispatchState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DispatchState").field("kind", &self.kind).field("depth", &self.depth).finish_non_exhaustive()
    }
}

/// The path elements of a dispatch, as the attributes `jakarta.servlet.forward.*` and their like name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchPath {
    pub(crate) request_uri: String,
    pub(crate) context_path: String,
    pub(crate) servlet_path: String,
    pub(crate) path_info: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) mapping: Option<ServletMapping>,
}

impl DispatchPath {
    /// The path as it was given, encoded, context path included, without the query.
    pub fn request_uri(&self) -> &str {
        &self.request_uri
    }

    /// Context path.
    pub fn context_path(&self) -> &str {
        &self.context_path
    }

    /// Servlet path, decoded.
    pub fn servlet_path(&self) -> &str {
        &self.servlet_path
    }

    /// Path info, decoded.
    pub fn path_info(&self) -> Option<&str> {
        self.path_info.as_deref()
    }

    /// The query, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// How the path came to its servlet.
    pub fn mapping(&self) -> Option<&ServletMapping> {
        self.mapping.as_ref()
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        let text = |text: &str| Some(Arc::new(text.to_owned()) as Value);
        match name {
            "request_uri" => text(&self.request_uri),
            "context_path" => text(&self.context_path),
            "servlet_path" => text(&self.servlet_path),
            "path_info" => text(self.path_info.as_deref()?),
            "query_string" => text(self.query.as_deref()?),
            "mapping" => Some(Arc::new(self.mapping.clone()?)),
            _ => None,
        }
    }
}

const PATH_ATTRIBUTES: [&str; 6] =
    ["request_uri", "context_path", "servlet_path", "path_info", "query_string", "mapping"];

impl Request {
    /// How the request came to this servlet.
    pub fn dispatcher_type(&self) -> DispatcherType {
        self.dispatch_state().map_or(DispatcherType::Request, |state| state.kind)
    }

    /// How the path came to its servlet (Servlet 6.1, section 12.3). `None` for an application that takes its whole context.
    ///
    /// In an included servlet and after a named dispatch it is still the mapping before.
    pub fn mapping(&self) -> Option<ServletMapping> {
        let app = self.context().link().app()?;
        let servlet = app.servlet_info(self.servlet_index())?;
        Some(ServletMapping::new(servlet, self.pattern_index(), self.servlet_path(), self.path_info()))
    }

    /// Name of the servlet that the request is on its way to, or has reached.
    pub fn servlet_name(&self) -> Option<String> {
        let app = self.context().link().app()?;
        app.servlet_info(self.running_servlet()).map(|servlet| servlet.name.clone())
    }

    /// After a forward: the path elements of the request as the client sent it.
    pub fn forwarded_from(&self) -> Option<&DispatchPath> {
        self.dispatch_state()?.forwarded.as_deref()
    }

    /// In an included servlet: the path elements of the include.
    pub fn included_as(&self) -> Option<&DispatchPath> {
        self.dispatch_state()?.included.as_deref()
    }

    /// After an asynchronous dispatch: the path elements of the request that started it.
    pub fn async_from(&self) -> Option<&DispatchPath> {
        self.dispatch_state()?.from_async.as_deref()
    }

    /// In an error page: what went wrong.
    pub fn error(&self) -> Option<&ErrorInfo> {
        self.dispatch_state()?.error.as_deref()
    }

    /// The queries that parameters come from, the newest first (Servlet 6.1, section 9.1.1).
    pub(crate) fn parameter_query(&self) -> &str {
        let merged = self.dispatch_state().and_then(|state| state.parameters.as_deref());
        merged.or_else(|| self.query()).unwrap_or_default()
    }

    /// Its path elements as they are now.
    pub(crate) fn dispatch_path(&self) -> DispatchPath {
        DispatchPath {
            request_uri: self.request_uri().to_owned(),
            context_path: self.context_path().to_owned(),
            servlet_path: self.servlet_path().to_owned(),
            path_info: self.path_info().map(str::to_owned),
            query: self.query().map(str::to_owned),
            mapping: self.mapping(),
        }
    }

    pub(crate) fn running_servlet(&self) -> usize {
        self.dispatch_state().and_then(|state| state.servlet).unwrap_or_else(|| self.servlet_index())
    }

    /// What URL patterns of filters are compared with.
    pub(crate) fn filter_path(&self) -> Option<Cow<'_, str>> {
        match self.dispatch_state().map(|state| &state.filters_by) {
            None | Some(FilterPath::Request) => Some(self.path()),
            Some(FilterPath::Target(target)) => Some(target.path()),
            Some(FilterPath::Nothing) => None,
        }
    }

    /// An attribute of the specification.
    pub(crate) fn dispatch_attribute(&self, name: &str) -> Option<Value> {
        let state = self.dispatch_state()?;
        let (of, name) = name.strip_prefix("jakarta.servlet.")?.split_once('.')?;
        match of {
            "forward" => state.forwarded.as_ref()?.attribute(name),
            "include" => state.included.as_ref()?.attribute(name),
            "async" => state.from_async.as_ref()?.attribute(name),
            "error" => ErrorInfo::attribute(state.error.as_ref()?, name),
            _ => None,
        }
    }

    pub(crate) fn dispatch_attribute_names(&self) -> Vec<String> {
        if self.dispatch_state().is_none() {
            return Vec::new();
        }
        let mut names = Vec::new();
        for (of, list) in [
            ("forward", &PATH_ATTRIBUTES[..]),
            ("include", &PATH_ATTRIBUTES),
            ("async", &PATH_ATTRIBUTES),
            ("error", &ErrorInfo::ATTRIBUTES),
        ] {
            for name in list {
                let name = format!("jakarta.servlet.{of}.{name}");
                if self.dispatch_attribute(&name).is_some() {
                    names.push(name);
                }
            }
        }
        names
    }
}
