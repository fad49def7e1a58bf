//! Handles and work of the container in the hands of a module.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use wharf_abi::{Answer, FfiWork, PollAnswer};

use crate::endpoint::Revocable;

/// What a handle of the module's stands for.
pub(crate) struct Held<T: ?Sized> {
    pub(crate) it: Arc<T>,
    /// How much work the module has in its hands.
    pub(crate) works: Arc<AtomicU64>,
}

/// Work for the module. The module's waker goes with it, whatever the container has kept of it.
pub(crate) struct Lent<W> {
    pub(crate) work: W,
    waker: Arc<Revocable>,
    works: Arc<AtomicU64>,
}

impl<W> Lent<W> {
    pub(crate) fn boxed<A: Answer>(work: W, works: &Arc<AtomicU64>) -> FfiWork<A>
    where
        Self: PollAnswer<A>,
    {
        FfiWork::new(Self::new(work, works))
    }

    pub(crate) fn new(work: W, works: &Arc<AtomicU64>) -> Self {
        works.fetch_add(1, Ordering::Relaxed);
        Self { work, waker: Arc::default(), works: works.clone() }
    }

    /// Where it is counted.
    pub(crate) fn works(&self) -> &Arc<AtomicU64> {
        &self.works
    }

    /// A waker that may be kept: it wakes the module's as long as this is there.
    pub(crate) fn waker(&self, cx: &Context<'_>) -> Waker {
        self.waker.set(Some(cx.waker()));
        Waker::from(self.waker.clone())
    }
}

impl<W> Drop for Lent<W> {
    fn drop(&mut self) {
        self.waker.set(None);
        self.works.fetch_sub(1, Ordering::Release);
    }
}
