//! What all resources have in common.

use std::sync::Arc;

use wharf_kernel::resource::{Cache, DataSource, HttpClient, ResourceState, SharedStore, Work};

use crate::bound::Who;

/// A resource of the configuration.
pub(crate) trait AnyResource: Send + Sync + 'static {
    /// Its state.
    fn state(&self) -> ResourceState;

    /// Asks whether it answers, and remembers that.
    fn ask(self: Arc<Self>) -> Work<Result<(), String>>;

    /// As a database, for the applications of this generation.
    fn data_source(self: Arc<Self>, who: Arc<Who>) -> Option<Arc<dyn DataSource>> {
        let _ = who;
        None
    }

    /// As a cache.
    fn cache(self: Arc<Self>) -> Option<Arc<dyn Cache>> {
        None
    }

    /// As a server that is asked by HTTP.
    fn http_client(self: Arc<Self>) -> Option<Arc<dyn HttpClient>> {
        None
    }

    /// As a place for what several containers share.
    fn shared_store(self: Arc<Self>) -> Option<Arc<dyn SharedStore>> {
        None
    }
}
