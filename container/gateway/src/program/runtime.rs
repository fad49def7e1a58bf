//! The threads on which the requests of a gateway are served.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};
use wharf_kernel::Refusal;
use wharf_kernel::refusal::Code;

/// A runtime that is made when it is first needed.
///
/// To start a program blocks the thread that does it for a millisecond, which a thread with many connections must not be; and
/// a connection that is kept must outlive the request, and the thread, that it was opened for.
#[derive(Debug)]
pub(crate) struct Threads {
    name: &'static str,
    runtime: OnceLock<Owned>,
}

#[derive(Debug)]
struct Owned(Option<Runtime>);

impl Drop for Owned {
    fn drop(&mut self) {
        // Never waits: the programs were ended with their applications.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// None yet; they will have this name.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, runtime: OnceLock::new() }
    }

    /// Their runtime.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn handle(&self) -> Result<Handle, Refusal> {
        let refuse = |what: String| Refusal::new(Code::StartFailed, format!("the threads '{}': {what}", self.name));
        if self.runtime.get().is_none() {
            let threads = std::thread::available_parallelism().map_or(4, usize::from).max(4);
            let made = Builder::new_multi_thread().worker_threads(threads).thread_name(self.name).enable_all().build();
            // Another may have been first; this one ends then.
            let _ = self.runtime.set(Owned(Some(made.map_err(|e| refuse(e.to_string()))?)));
        }
        let made = self.runtime.get().and_then(|r| r.0.as_ref()).map(|r| r.handle().clone());
        made.ok_or_else(|| refuse("they are gone".into()))
    }
}
