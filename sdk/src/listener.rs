//! Listeners: code that runs when an application starts and stops.

use std::future::Future;
use std::sync::Arc;

use crate::application::BoxFuture;
use crate::{BoxError, ServletContext};

/// Hears when the application starts and stops (`ServletContextListener` of Servlet 6.1, chapter 11).
///
/// ```
/// use std::sync::Arc;
/// use wharf_sdk::{App, BoxError, ContextListener, ServletContext};
///
/// struct Prices(Vec<u32>);
/// struct LoadPrices;
///
/// impl ContextListener for LoadPrices {
///     async fn context_initialized(&self, context: &Arc<ServletContext>) -> Result<(), BoxError> {
///         context.set_attribute(Prices(vec![3, 5, 8]));
///         Ok(())
///     }
/// }
///
/// let app = App::new().listener(LoadPrices);
/// ```
pub trait ContextListener: Send + Sync + 'static {
    /// Called before any filter's or servlet's `init`, in the order of [`App::listener`](crate::App::listener). An error stops
    /// the application from starting.
    fn context_initialized(&self, context: &Arc<ServletContext>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }

    /// Called after every servlet's and filter's `destroy`, in reverse order. An error is reported, and the others are
    /// still called.
    fn context_destroyed(&self, context: &Arc<ServletContext>) -> impl Future<Output = Result<(), BoxError>> + Send {
        let _ = context;
        async { Ok(()) }
    }
}

/// A [`ContextListener`] of any type.
pub(crate) trait AnyListener: Send + Sync + 'static {
    fn initialized<'a>(&'a self, context: &'a Arc<ServletContext>) -> BoxFuture<'a, Result<(), BoxError>>;
    fn destroyed<'a>(&'a self, context: &'a Arc<ServletContext>) -> BoxFuture<'a, Result<(), BoxError>>;
}

impl<L: ContextListener> AnyListener for L {
    fn initialized<'a>(&'a self, context: &'a Arc<ServletContext>) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.context_initialized(context))
    }

    fn destroyed<'a>(&'a self, context: &'a Arc<ServletContext>) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.context_destroyed(context))
    }
}
