//! Timers of the worker that polls them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use wharf_kernel::workers::OfWorker;

/// A timer of the worker that polls it.
#[derive(Debug)]
pub struct Timer(OfWorker<Pin<Box<Sleep>>>);

impl Timer {
    /// It ends at this time.
    ///
    /// # Panics
    /// On a thread without a runtime, such as one of a module's own.
    pub fn at(deadline: Instant) -> Self {
        Self(OfWorker::new(Box::pin(sleep_until(deadline))))
    }

    /// It ends when so long has gone by.
    ///
    /// # Panics
    /// As [`Timer::at`].
    pub fn after(time: Duration) -> Self {
        Self::at(Instant::now() + time)
    }

    /// It ends at this time instead.
    pub fn reset(&mut self, deadline: Instant) {
        self.0.get_mut().as_mut().reset(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.here(|sleep| *sleep = Box::pin(sleep_until(sleep.deadline())));
        sleep.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Timer {}

/// Waits for the future so long; `None` when it has not ended by then.
pub async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(Instant::now() + time, future).await
}

/// The same, up to a point in time.
pub async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = Timer::at(deadline) => None,
    }
}
