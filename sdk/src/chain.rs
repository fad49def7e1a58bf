//! The filters before a servlet, in the order of the specification.

use std::sync::Arc;

use http::StatusCode;

use crate::dispatcher_type::DispatcherTypes;
use crate::filter::AnyFilter;
use crate::running::Running;
use crate::{Error, Next, Request, Response, pattern};

/// What a mapping of a filter stands before.
pub(crate) enum Reach {
    /// Every path.
    Everything,
    /// Paths that fit one of these patterns.
    Paths(Vec<String>),
    /// These servlets.
    Servlets(Vec<usize>),
    /// Every servlet: the name `*`.
    EveryServlet,
}

/// One mapping of one filter. All mappings of an application are in the order of Servlet 6.1, section 6.2.4: those by URL
/// pattern as they were declared, then those by servlet name as they were declared.
pub(crate) struct Step {
    pub(crate) filter: usize,
    pub(crate) reach: Reach,
    pub(crate) on: DispatcherTypes,
    /// A mapping of the same filter stands before this one.
    pub(crate) again: bool,
}

impl Step {
    fn fits(&self, request: &Request) -> bool {
        self.on.has(request.dispatcher_type())
            && match &self.reach {
                Reach::EveryServlet => true,
                Reach::Servlets(servlets) => servlets.contains(&request.running_servlet()),
                Reach::Everything => request.filter_path().is_some(),
                Reach::Paths(patterns) => {
                    request.filter_path().is_some_and(|path| patterns.iter().any(|p| pattern::fits(p, &path)))
                }
            }
    }
}

/// The filters from one on, and the servlet behind them.
pub(crate) struct Chain {
    app: Arc<Running>,
    at: usize,
}

impl Chain {
    pub(crate) fn new(app: Arc<Running>) -> Self {
        Self { app, at: 0 }
    }

    pub(crate) async fn run(self, request: Request) -> Result<Response, Error> {
        let steps = &self.app.steps;
        // A filter with two mappings that fit runs once.
        let ran =
            |at: usize| steps[at].again && steps[..at].iter().any(|s| s.filter == steps[at].filter && s.fits(&request));
        match (self.at..steps.len()).find(|at| steps[*at].fits(&request) && !ran(*at)) {
            None => match self.app.servlets.get(request.running_servlet()) {
                Some(entry) => entry.servlet.service(request).await,
                None => Ok(Response::status(StatusCode::NOT_FOUND)),
            },
            Some(at) => {
                let filter: &Arc<dyn AnyFilter> = &self.app.filters[steps[at].filter].filter;
                let next = Next(Self { app: Arc::clone(&self.app), at: at + 1 });
                filter.filter(request, next).await
            }
        }
    }
}
