//! How many requests of an application are with its programs at once, and how many wait for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of an application.
pub(crate) struct Slots {
    places: Places,
    waiting: AtomicUsize,
    queue: usize,
    queue_timeout: Duration,
}

impl Slots {
    /// So many at once, and so many that wait for so long.
    pub(crate) fn new(places: usize, queue: usize, queue_timeout: Duration) -> Self {
        let all = u32::try_from(places.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let places = Places { free: Arc::new(Semaphore::new(all as usize)), all };
        Self { places, waiting: AtomicUsize::new(0), queue, queue_timeout }
    }

    /// Waits for a place. `None` where too many wait, or for too long, or the application stops.
    pub(crate) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.places.free.clone().try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.waiting, self.queue)?;
        tokio::time::timeout(self.queue_timeout, self.places.free.clone().acquire_owned()).await.ok()?.ok()
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        self.places.free.close();
    }

    /// The places by themselves.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }
}

/// Places, some of them taken.
#[derive(Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    all: u32,
}

impl Places {
    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        (self.all as usize).saturating_sub(self.free.available_permits())
    }

    /// Takes all of them, where none is taken now: until what is returned is dropped, requests wait.
    pub(crate) fn take_all(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(self.all).ok()
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
