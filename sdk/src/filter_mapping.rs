//! What a filter stands before: URL patterns, servlet names, dispatcher types.

use crate::dispatcher_type::DispatcherTypes;
use crate::pattern::IntoPatterns;
use crate::{App, DispatcherType};

/// What a filter stands before (Servlet 6.1, sections 6.2.4 and 6.2.5).
///
/// ```
/// use wharf_sdk::{App, DispatcherType, FilterMapping, Next, Request, filter_fn};
///
/// let log = filter_fn(|request: Request, next: Next| async move { next.run(request).await });
/// let app = App::new().filter(
///     "log",
///     FilterMapping::paths("/shop/*").on([DispatcherType::Request, DispatcherType::Error]),
///     log,
/// );
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct FilterMapping {
    pub(crate) paths: Vec<String>,
    pub(crate) servlets: Vec<String>,
    pub(crate) on: DispatcherTypes,
}

impl FilterMapping {
    /// Requests whose path fits one of these URL patterns (`"/*"` for all).
    pub fn paths(patterns: impl IntoPatterns) -> Self {
        Self { paths: patterns.into_patterns(), ..Self::default() }
    }

    /// Requests for the servlets with these names (`"*"` for all).
    pub fn servlets(names: impl IntoPatterns) -> Self {
        Self { servlets: names.into_patterns(), ..Self::default() }
    }

    /// The same for the servlets with these names, too.
    pub fn and_servlets(mut self, names: impl IntoPatterns) -> Self {
        self.servlets.extend(names.into_patterns());
        self
    }

    /// The same for requests that come in these ways. Not called, it is [`DispatcherType::Request`] alone.
    pub fn on(mut self, kinds: impl IntoIterator<Item = DispatcherType>) -> Self {
        self.on = kinds.into_iter().collect();
        self
    }
}

/// What [`App::filter`] takes for a filter to stand before: URL patterns, or a [`FilterMapping`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what a filter stands before",
    note = "write one URL pattern, \"/items/*\", an array of them, or a `FilterMapping`"
)]
pub trait IntoFilterMapping {
    /// The mapping.
    fn into_filter_mapping(self) -> FilterMapping;
}

impl<T: IntoPatterns> IntoFilterMapping for T {
    fn into_filter_mapping(self) -> FilterMapping {
        FilterMapping::paths(self)
    }
}

impl IntoFilterMapping for FilterMapping {
    fn into_filter_mapping(self) -> FilterMapping {
        self
    }
}

impl App {
    /// Gives a filter that was added one mapping more, after all those that were added before.
    pub fn filter_mapping(mut self, filter: impl Into<String>, mapping: impl IntoFilterMapping) -> Self {
        self.parts.mappings.push((filter.into(), mapping.into_filter_mapping()));
        self
    }
}
