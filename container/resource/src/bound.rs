//! What one generation of an application has of the container's resources, and what it has left open.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use wharf_kernel::resource::{BoundResources, Cache, DataSource, HttpClient};

use crate::registry::Managed;

/// Something that an application has begun and should end.
pub(crate) trait Open: Send + Sync {
    /// Id of the request that it belongs to; empty where there is none.
    fn request(&self) -> &str;

    /// Whether it has not ended.
    fn is_open(&self) -> bool;

    /// Undoes it and says so. Returns what was said, where there was something to undo.
    fn abandon(self: Arc<Self>, why: &str) -> Option<String>;

    /// What there is to say of it, once, when it is open for too long.
    fn leak(&self) -> Option<String>;
}

/// A generation of an application.
pub(crate) struct Who {
    pub(crate) app: String,
    pub(crate) generation: u64,
    /// How many are open, so that a request that has nothing to do with it pays for one look.
    count: AtomicUsize,
    open: Mutex<Vec<Weak<dyn Open>>>,
}

impl Who {
    pub(crate) fn new(app: String, generation: u64) -> Arc<Self> {
        Arc::new(Self { app, generation, count: AtomicUsize::new(0), open: Mutex::default() })
    }

    pub(crate) fn opened(&self, it: Weak<dyn Open>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|it| it.upgrade().is_some_and(|it| it.is_open()));
        open.push(it);
    }

    pub(crate) fn closed(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    fn all(&self) -> Vec<Arc<dyn Open>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter_map(Weak::upgrade).filter(|it| it.is_open()).collect()
    }

    /// Says what is open for too long.
    pub(crate) fn report_leaks(&self) {
        for it in self.all() {
            if let Some(what) = it.leak() {
                let request = Some(it.request()).filter(|id| !id.is_empty());
                tracing::warn!(app = %self.app, generation = self.generation, request, "{what}");
            }
        }
    }
}

/// What a generation may use.
pub(crate) struct Bound {
    pub(crate) who: Arc<Who>,
    pub(crate) sources: BTreeMap<String, Arc<Managed>>,
    /// Traces of the requests that are under way, by their ids.
    traces: Mutex<HashMap<String, String>>,
    /// Set with the first of them, so that nobody pays for what is never used.
    traced: AtomicBool,
}

impl Bound {
    pub(crate) fn new(who: Arc<Who>, sources: BTreeMap<String, Arc<Managed>>) -> Self {
        Self { who, sources, traces: Mutex::default(), traced: AtomicBool::new(false) }
    }

    fn traces(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<&Arc<Managed>, String> {
        self.sources.get(name).ok_or_else(|| {
            format!("resource '{name}' is not in the application's descriptor: add it to resources = [...] of export!")
        })
    }
}

impl BoundResources for Bound {
    fn data_source(&self, name: &str) -> Result<Arc<dyn DataSource>, String> {
        let managed = self.find(name)?;
        let source = managed.resource.clone().data_source(self.who.clone());
        source.ok_or_else(|| managed.not("a database: it is of kind"))
    }

    fn cache(&self, name: &str) -> Result<Arc<dyn Cache>, String> {
        let managed = self.find(name)?;
        managed.resource.clone().cache().ok_or_else(|| managed.not("a cache: it is of kind"))
    }

    fn http_client(&self, name: &str) -> Result<Arc<dyn HttpClient>, String> {
        let managed = self.find(name)?;
        managed.resource.clone().http_client().ok_or_else(|| managed.not("a server to ask: it is of kind"))
    }

    fn request_traced(&self, request: &str, trace: &str) {
        self.traced.store(true, Ordering::Relaxed);
        self.traces().insert(request.to_owned(), trace.to_owned());
    }

    fn trace(&self, request: &str) -> Option<String> {
        self.traces().get(request).cloned()
    }

    fn settings(&self, name: &str) -> Result<String, String> {
        self.find(name)?.shared_settings()
    }

    fn request_ended(&self, request: &str) {
        if self.traced.load(Ordering::Relaxed) {
            self.traces().remove(request);
        }
        if self.who.count.load(Ordering::Relaxed) == 0 || request.is_empty() {
            return;
        }
        for it in self.who.all() {
            if it.request() == request {
                it.abandon("left open at the end of its request");
            }
        }
    }

    fn retire(&self) -> Vec<String> {
        let all = self.who.all().into_iter();
        all.filter_map(|it| it.abandon("left open when the application was retired")).collect()
    }
}
