//! Request attributes: values by name that travel with a request through forwards, includes and error pages.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::listener::RequestAttributeEvent;
use crate::{Request, ServletContext};

/// The value of an attribute.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// The attributes of one request. Clones are the same attributes: an included servlet sets those of its includer.
#[derive(Clone, Default)]
pub(crate) struct Attributes(Arc<Mutex<BTreeMap<String, Value>>>);

impl Attributes {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        self.map().get(name).cloned()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.map().keys().cloned().collect()
    }

    pub(crate) fn set(&self, context: &Arc<ServletContext>, id: &str, name: String, value: Value) -> Option<Value> {
        let old = self.map().insert(name.clone(), Arc::clone(&value));
        // The lock is gone: a listener may look at the attributes.
        for listener in context.link().request_attribute_listeners() {
            let event = RequestAttributeEvent { context, id, name: &name, value: old.as_ref().unwrap_or(&value) };
            match old {
                None => listener.attribute_added(&event),
                Some(_) => listener.attribute_replaced(&event),
            }
        }
        old
    }

    pub(crate) fn remove(&self, context: &Arc<ServletContext>, id: &str, name: &str) -> Option<Value> {
        let old = self.map().remove(name)?;
        for listener in context.link().request_attribute_listeners() {
            listener.attribute_removed(&RequestAttributeEvent { context, id, name, value: &old });
        }
        Some(old)
    }
}

impl std::fmt::Debug for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Request {
    /// The attribute of this name, when it is there and of this type (Servlet 6.1, section 3.7).
    ///
    /// Beside what was set by [`Request::set_attribute`] there are those of the specification, all of type `String` but
    /// where another is named: after a forward `jakarta.servlet.forward.request_uri`, `context_path`, `servlet_path`,
    /// `path_info`, `query_string` and `mapping` (a [`ServletMapping`](crate::ServletMapping)); the same under
    /// `jakarta.servlet.include.` in an included servlet, and under `jakarta.servlet.async.` after an asynchronous dispatch;
    /// in an error page `jakarta.servlet.error.status_code` (`u16`), `message`, `exception`
    /// (an [`Error`](crate::Error)), `exception_type`, `request_uri`, `servlet_name`, `method` and `query_string`.
    /// [`Request::forwarded_from`], [`Request::included_as`], [`Request::async_from`] and [`Request::error`] say the same
    /// with types.
    pub fn attribute<T: Any + Send + Sync>(&self, name: &str) -> Option<Arc<T>> {
        let set = self.dispatch_state().and_then(|state| state.attributes.get(name));
        set.or_else(|| self.dispatch_attribute(name))?.downcast().ok()
    }

    /// Sets an attribute, for filters and servlets that come later, and says whether it took the place of another.
    pub fn set_attribute<T: Any + Send + Sync>(&mut self, name: impl Into<String>, value: T) -> bool {
        let attributes = self.dispatch_state_mut().attributes.clone();
        attributes.set(self.context(), self.id(), name.into(), Arc::new(value)).is_some()
    }

    /// Removes an attribute that was set, and says whether there was one.
    pub fn remove_attribute(&mut self, name: &str) -> bool {
        let Some(attributes) = self.dispatch_state().map(|state| state.attributes.clone()) else { return false };
        attributes.remove(self.context(), self.id(), name).is_some()
    }

    /// The names of all attributes, those of the specification too.
    pub fn attribute_names(&self) -> Vec<String> {
        let mut names = self.dispatch_state().map(|state| state.attributes.names()).unwrap_or_default();
        for name in self.dispatch_attribute_names() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
