//! Listeners of sessions and of their values.

use std::sync::Arc;

use crate::Session;

/// Hears of sessions and their values (`HttpSessionListener`, `HttpSessionIdListener` and `HttpSessionAttributeListener` of
/// Servlet 6.1, chapter 11). Called on the thread that does it, in the order of
/// [`App::session_listener`](crate::App::session_listener); `session_destroyed` in reverse. A panic is logged, and the others
/// are still called.
///
/// ```
/// use wharf_sdk::{App, Session, SessionListener};
///
/// struct Carts;
///
/// impl SessionListener for Carts {
///     fn session_destroyed(&self, session: &Session) {
///         tracing::info!("a cart was left: {:?}", session.get::<Vec<u32>>("cart"));
///     }
/// }
///
/// let app = App::new().session_listener(Carts);
/// ```
pub trait SessionListener: Send + Sync + 'static {
    /// A session has begun.
    fn session_created(&self, session: &Session) {
        let _ = session;
    }

    /// A session is about to end, invalidated or expired. Its values can still be read. When it expires, the newest
    /// generation of the application hears of it, within a second or two.
    fn session_destroyed(&self, session: &Session) {
        let _ = session;
    }

    /// A session has another id; `before` was the last one.
    fn session_id_changed(&self, session: &Session, before: &str) {
        let _ = (session, before);
    }

    /// A value was set where there was none.
    fn attribute_added(&self, session: &Session, name: &str) {
        let _ = (session, name);
    }

    /// A value took the place of another.
    fn attribute_replaced(&self, session: &Session, name: &str) {
        let _ = (session, name);
    }

    /// A value was removed.
    fn attribute_removed(&self, session: &Session, name: &str) {
        let _ = (session, name);
    }
}

/// An application's listeners, an attribute of its context.
pub(crate) struct SessionListeners(pub(crate) Vec<Arc<dyn SessionListener>>);

/// Calls a listener; the hook has reported its panic, which ends here.
pub(crate) fn told(tell: impl FnOnce()) {
    crate::application::contain(tell);
}
