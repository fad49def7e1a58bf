//! What a thread is polling, for whoever watches it from outside: a thread that does not come back can't say so itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_kernel::counters::LocalCounts;

use crate::task;

/// Bytes of a request id, and of a target, that are kept.
const ID: usize = 48;
const TARGET: usize = 128;

/// Text in place: noting a poll must not allocate.
#[derive(Clone, Copy)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    fn set(&mut self, text: &str) {
        self.len = text.len().min(N);
        self.bytes[..self.len].copy_from_slice(&text.as_bytes()[..self.len]);
    }

    fn get(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.len]).into_owned()
    }
}

struct Current {
    app: Option<LocalCounts>,
    id: Text<ID>,
    target: Text<TARGET>,
}

/// One watched thread.
pub(crate) struct Watch {
    pub(crate) thread: String,
    /// Odd while the thread is in a poll of an application. Written by that thread alone.
    turn: AtomicU64,
    /// Nanoseconds of the poll that goes on that are counted already.
    counted_ns: AtomicU64,
    current: Mutex<Current>,
    /// Whether it is in one poll for so long that nothing new should be given to it.
    pub(crate) stuck: AtomicBool,
}

/// Polls an application, on the thread of a worker: that which polls it now, wherever its request began.
#[inline]
pub(crate) fn during<T>(app: &LocalCounts, id: &str, target: &str, poll: impl FnOnce() -> T) -> T {
    task::here(|worker| match worker {
        Some(worker) => worker.watch.during(app, id, target, poll),
        None => poll(),
    })
}

/// What was seen of a poll that goes on.
pub(crate) struct Seen {
    pub(crate) app: LocalCounts,
    pub(crate) id: String,
    pub(crate) target: String,
}

impl Watch {
    pub(crate) fn new(thread: String) -> Self {
        let current = Mutex::new(Current { app: None, id: Text::EMPTY, target: Text::EMPTY });
        Self { thread, turn: AtomicU64::new(0), counted_ns: AtomicU64::new(0), current, stuck: AtomicBool::new(false) }
    }

    /// Polls an application, on the watched thread.
    #[inline]
    pub(crate) fn during<T>(&self, app: &LocalCounts, id: &str, target: &str, poll: impl FnOnce() -> T) -> T {
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if !current.app.as_ref().is_some_and(|a| std::sync::Arc::ptr_eq(a, app)) {
                current.app = Some(app.clone());
            }
            current.id.set(id);
            current.target.set(target);
        }
        // Also after a panic.
        let _end = Turn::begin(self, app);
        poll()
    }

    fn step(&self) {
        self.turn.store(self.turn.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Counts so much of a poll that goes on: it may never end.
    pub(crate) fn count(&self, app: &LocalCounts, time: Duration) {
        self.counted_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        app.polled(time);
    }

    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// What is polled in this turn; `None` when it is over.
    pub(crate) fn seen(&self, turn: u64) -> Option<Seen> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = Seen { app: current.app.clone()?, id: current.id.get(), target: current.target.get() };
        (turn % 2 == 1 && self.turn() == turn).then_some(seen)
    }
}

/// The time in which a thread is in a poll.
struct Turn<'a> {
    watch: &'a Watch,
    app: &'a LocalCounts,
    began: Instant,
}

impl<'a> Turn<'a> {
    fn begin(watch: &'a Watch, app: &'a LocalCounts) -> Self {
        watch.step();
        Self { watch, app, began: Instant::now() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.watch.step();
        let mut took = self.began.elapsed();
        if self.watch.counted_ns.load(Ordering::Relaxed) > 0 {
            took = took.saturating_sub(Duration::from_nanos(self.watch.counted_ns.swap(0, Ordering::Relaxed)));
        }
        self.app.polled(took);
    }
}

/// How long a poll must go on until its thread counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_millis(400);
