//! What joins a context to the application that runs in it.

use std::sync::{Arc, OnceLock, Weak};

use crate::cancel::Cancellations;
use crate::listener::{ContextAttributeListener, RequestAttributeListener};
use crate::running::Running;
use crate::web::Web;

/// See the module. All but `web` is filled in when an [`App`](crate::App) starts.
#[derive(Default)]
pub(crate) struct Link {
    /// What a configuration file adds to the builder.
    pub(crate) web: Web,
    pub(crate) cancellations: Cancellations,
    joined: OnceLock<Joined>,
}

pub(crate) struct Joined {
    pub(crate) app: Weak<Running>,
    pub(crate) display_name: Option<String>,
    pub(crate) welcome_files: Vec<String>,
    pub(crate) context_attribute_listeners: Vec<Arc<dyn ContextAttributeListener>>,
    pub(crate) request_attribute_listeners: Vec<Arc<dyn RequestAttributeListener>>,
}

impl Link {
    /// Joins it; the first one counts: a context has one application.
    pub(crate) fn join(&self, joined: Joined) {
        let _ = self.joined.set(joined);
    }

    pub(crate) fn app(&self) -> Option<Arc<Running>> {
        self.joined.get()?.app.upgrade()
    }

    pub(crate) fn display_name(&self) -> Option<&str> {
        self.joined.get()?.display_name.as_deref()
    }

    pub(crate) fn welcome_files(&self) -> &[String] {
        self.joined.get().map_or(&[], |joined| &joined.welcome_files)
    }

    pub(crate) fn context_attribute_listeners(&self) -> &[Arc<dyn ContextAttributeListener>] {
        self.joined.get().map_or(&[], |joined| &joined.context_attribute_listeners)
    }

    pub(crate) fn request_attribute_listeners(&self) -> &[Arc<dyn RequestAttributeListener>] {
        self.joined.get().map_or(&[], |joined| &joined.request_attribute_listeners)
    }
}
