//! What hangs on the runtime of a worker: its tasks, timers and sockets. Where the worker is stuck in a poll of an application, another
//! one goes on with them.
//!
//! Each of them sees by [`OfWorker`] that another worker polls it, and registers with the runtime there.
#![forbid(unsafe_code)]

mod executor;
mod socket;
mod timer;

use std::future::{Future, poll_fn};

use wharf_kernel::workers::OfWorker;

pub use executor::{Here, spawn};
pub use socket::{Home, Movable, Moving, Polling, Socket};
pub use timer::{Timer, timeout, timeout_at};

/// Waits for what is begun again where another worker goes on with it.
pub async fn begun_again<T, F: Future<Output = T>>(begin: impl Fn() -> F) -> T {
    let mut begun = OfWorker::new(Box::pin(begin()));
    poll_fn(|cx| begun.here(|begun| *begun = Box::pin(begin())).as_mut().poll(cx)).await
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
