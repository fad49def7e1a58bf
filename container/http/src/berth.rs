//! The place of a connection at a worker, which may change, and what counts it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use tokio::runtime::Handle;

use crate::acceptor::Pass;
use crate::clock::Slot;
use crate::link::Link;
use crate::worker::{OPEN, Seated, Shared, state};

/// Where a connection is served: it may change.
pub(crate) struct Berth {
    place: Mutex<Option<Place>>,
    /// The worker's number.
    number: AtomicUsize,
}

/// A worker, and the connection's key there.
struct Place {
    worker: Arc<Shared>,
    key: u64,
}

impl Place {
    fn of(worker: &Arc<Shared>) -> Self {
        Self { worker: worker.clone(), key: worker.keys.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Berth {
    /// A place at this worker, which has counted the connection already.
    pub(crate) fn new(worker: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { place: Mutex::new(Some(Place::of(worker))), number: AtomicUsize::new(worker.number) })
    }

    /// The number of the worker.
    #[inline]
    pub(crate) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    /// The runtime of the worker. `None` once the connection is gone.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.place().as_ref().map(|place| place.worker.runtime.clone())
    }

    fn place(&self) -> std::sync::MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection woken when the worker's state changes or its time is up.
    pub(crate) fn register(&self, waker: &Waker, slot: &Arc<Slot>, link: Option<&Arc<Link>>) {
        if let Some(Place { worker, key }) = &*self.place() {
            let seated = Seated { waker: waker.clone(), slot: slot.clone(), link: link.cloned() };
            worker.wakers().insert(*key, seated);
        }
    }

    /// This is what wakes it now.
    pub(crate) fn wakes(&self, waker: &Waker) {
        if let Some(Place { worker, key }) = &*self.place()
            && let Some(seated) = worker.wakers().get_mut(key)
        {
            seated.waker.clone_from(waker);
        }
    }

    /// The connection is that worker's from now on. Nothing where it is gone already.
    pub(crate) fn move_to(&self, worker: &Arc<Shared>) {
        let mut place = self.place();
        let Some(place) = &mut *place else { return };
        let old = std::mem::replace(place, Place::of(worker));
        worker.open.fetch_add(1, Ordering::AcqRel);
        let seated = old.worker.wakers().remove(&old.key);
        if let Some(seated) = seated {
            worker.wakers().insert(place.key, seated);
        }
        old.worker.left();
        self.number.store(worker.number, Ordering::Release);
    }

    /// The connection is gone.
    fn leave(&self) {
        let Some(Place { worker, key }) = self.place().take() else { return };
        worker.wakers().remove(&key);
        worker.pipeline.counters.connection_closed();
        worker.left();
    }
}

/// Counts a connection out, however it ends. It goes with the socket, so that an upgraded connection counts, too.
pub(crate) struct Guard {
    /// The worker it began at.
    pub(crate) worker: Arc<Shared>,
    pub(crate) berth: Arc<Berth>,
    _pass: Pass,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.berth.leave();
    }
}

impl Guard {
    /// Counts a connection that begins at this worker.
    pub(crate) fn new(worker: Arc<Shared>, berth: Arc<Berth>, pass: Pass) -> Self {
        Self { worker, berth, _pass: pass }
    }

    /// Waits for something before the first request; `None` when the server begins to drain, or the connection has to make room.
    pub(crate) async fn unless_drained<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let worker = &self.worker;
        let slot = Slot::opening(worker.began, &worker.pipeline.limits);
        let mut future = pin!(future);
        let mut registered = false;
        poll_fn(|cx| {
            if !registered {
                registered = true;
                self.berth.register(cx.waker(), &slot, None);
            }
            let goes_on = state() == OPEN && !slot.is_unwanted();
            if goes_on { future.as_mut().poll(cx).map(Some) } else { Poll::Ready(None) }
        })
        .await
    }
}
