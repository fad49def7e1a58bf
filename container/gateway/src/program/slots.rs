//! How many requests of an application are with its programs at once, and how many wait for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of an application.
pub(crate) struct Slots {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    queue_timeout: Duration,
}

impl Slots {
    /// So many at once, and so many that wait for so long.
    pub(crate) fn new(places: usize, queue: usize, queue_timeout: Duration) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, waiting: AtomicUsize::new(0), queue, queue_timeout }
    }

    /// Waits for a place. `None` where too many wait, or for too long, or the application stops.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.places.clone().try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.waiting, self.queue)?;
        tokio::time::timeout(self.queue_timeout, self.places.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.places.close();
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        // Counted first: the guard takes it back where there were too many.
        let before = count.fetch_add(1, Ordering::Relaxed);
        let guard = Self(count);
        (before < most).then_some(guard)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
