//! Listeners: code that runs when an application starts and stops, when requests come and go, and when attributes change.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use http::Method;

use crate::application::BoxFuture;
use crate::attributes::{Attributes, Value};
use crate::{BoxError, Request, ServletContext};

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

/// What a [`RequestListener`] and an [`AsyncListener`](crate::AsyncListener) are told of a request.
#[derive(Clone)]
pub struct RequestEvent {
    pub(crate) context: Arc<ServletContext>,
    pub(crate) id: Arc<str>,
    pub(crate) method: Method,
    pub(crate) request_uri: Box<str>,
    pub(crate) attributes: Attributes,
}

impl RequestEvent {
    pub(crate) fn of(request: &mut Request) -> Self {
        Self {
            context: Arc::clone(request.context()),
            id: request.shared_id(),
            method: request.method().clone(),
            request_uri: request.request_uri().into(),
            attributes: request.dispatch_state_mut().attributes.clone(),
        }
    }

    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        &self.context
    }

    /// Request id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path as the client sent it, encoded, context path included, without the query.
    pub fn request_uri(&self) -> &str {
        &self.request_uri
    }

    /// An attribute of the request, as [`Request::attribute`].
    pub fn attribute<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        self.attributes.get(name)?.downcast().ok()
    }

    /// Sets an attribute of the request, as [`Request::set_attribute`].
    pub fn set_attribute<T: Any + Send + Sync>(&self, name: impl Into<String>, value: T) -> bool {
        self.attributes.set(&self.context, &self.id, name.into(), Arc::new(value)).is_some()
    }
}

impl std::fmt::Debug for RequestEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestEvent")
            .field("id", &self.id)
            .field("request_uri", &self.request_uri)
            .finish_non_exhaustive()
    }
}

/// Hears when a request comes into the application and leaves it (`ServletRequestListener` of Servlet 6.1, chapter 11).
///
/// Once for a request, whatever it is forwarded to or includes.
pub trait RequestListener: Send + Sync + 'static {
    /// Called before the first filter, in the order of [`App::request_listener`](crate::App::request_listener). After an
    /// error, or a panic, no filter and no servlet sees the request: it is answered as if a servlet had failed with it.
    ///
    /// # Errors
    /// Those of its author.
    fn request_initialized(&self, event: &RequestEvent) -> Result<(), BoxError> {
        let _ = event;
        Ok(())
    }

    /// Called when the response is ready to be sent (its content may still be under way) or the client has gone, in reverse
    /// order, for each listener whose `request_initialized` went well. A panic is reported, and the others are still
    /// called.
    fn request_destroyed(&self, event: &RequestEvent) {
        let _ = event;
    }
}

/// A change of an attribute of the application: see [`ContextAttributeListener`].
pub struct ContextAttributeEvent<'a> {
    pub(crate) context: &'a ServletContext,
    pub(crate) value: &'a Value,
}

impl ContextAttributeEvent<'_> {
    /// The application's surroundings.
    pub fn context(&self) -> &ServletContext {
        self.context
    }

    /// The value, when the attribute is of this type: the new one when it was added, the old one when it was replaced or
    /// removed.
    pub fn value<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }
}

impl std::fmt::Debug for ContextAttributeEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContextAttributeEvent")
    }
}

/// Hears when an attribute of the application changes (`ServletContextAttributeListener`): from the first context listener's
/// start to the last one's stop. Those given to [`App::attribute`](crate::App::attribute) are there before.
pub trait ContextAttributeListener: Send + Sync + 'static {
    /// There was none of its type.
    fn attribute_added(&self, event: &ContextAttributeEvent<'_>) {
        let _ = event;
    }

    /// It is gone.
    fn attribute_removed(&self, event: &ContextAttributeEvent<'_>) {
        let _ = event;
    }

    /// Another took its place.
    fn attribute_replaced(&self, event: &ContextAttributeEvent<'_>) {
        let _ = event;
    }
}

/// A change of an attribute of a request: see [`RequestAttributeListener`].
pub struct RequestAttributeEvent<'a> {
    pub(crate) context: &'a Arc<ServletContext>,
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) value: &'a Value,
}

impl RequestAttributeEvent<'_> {
    /// The application's surroundings.
    pub fn context(&self) -> &Arc<ServletContext> {
        self.context
    }

    /// Request id.
    pub fn id(&self) -> &str {
        self.id
    }

    /// Name of the attribute.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The value, when it is of this type: the new one when it was added, the old one when it was replaced or removed.
    pub fn value<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.value.downcast_ref()
    }
}

impl std::fmt::Debug for RequestAttributeEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestAttributeEvent({})", self.name)
    }
}

/// Hears when an attribute of a request changes (`ServletRequestAttributeListener`).
pub trait RequestAttributeListener: Send + Sync + 'static {
    /// There was none of its name.
    fn attribute_added(&self, event: &RequestAttributeEvent<'_>) {
        let _ = event;
    }

    /// It is gone.
    fn attribute_removed(&self, event: &RequestAttributeEvent<'_>) {
        let _ = event;
    }

    /// Another took its place.
    fn attribute_replaced(&self, event: &RequestAttributeEvent<'_>) {
        let _ = event;
    }
}
