//! A few equal things, of which each thread uses one: what all threads touch is passed between processors with every request.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are. More threads than this share.
const SLOTS: usize = 16;

/// Keeps its content on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Alone<T>(T);

/// One for each thread.
#[derive(Debug)]
pub(crate) struct Slots<T>([Alone<T>; SLOTS]);

impl<T> Slots<T> {
    /// Makes each of them.
    pub(crate) fn new(mut make: impl FnMut() -> T) -> Self {
        Self(std::array::from_fn(|_| Alone(make())))
    }

    /// This thread's.
    pub(crate) fn local(&self) -> &T {
        thread_local! {
            static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        if SLOT.get() == usize::MAX {
            SLOT.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        &self.0[SLOT.get() % SLOTS].0
    }
}
