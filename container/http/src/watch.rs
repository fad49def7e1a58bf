//! What a thread is polling, for whoever watches it from outside: a thread that does not come back can't say so itself.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wharf_kernel::counters::LocalCounts;

use crate::task;

/// Words of eight bytes of a request id, and of a target, that are kept.
const ID: usize = 6;
const TARGET: usize = 16;

/// Text in place, written by one thread and read by others: noting a poll must neither allocate nor lock. Which text it is, if not a
/// mixture of two, [`Watch::turn`] tells.
struct Text<const WORDS: usize> {
    words: [AtomicU64; WORDS],
    len: AtomicUsize,
}

impl<const WORDS: usize> Text<WORDS> {
    const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS], len: AtomicUsize::new(0) }
    }

    #[inline]
    fn set(&self, text: &str) {
        let bytes = &text.as_bytes()[..text.len().min(8 * WORDS)];
        self.len.store(bytes.len(), Ordering::Relaxed);
        let (whole, rest) = bytes.as_chunks::<8>();
        for (word, bytes) in self.words.iter().zip(whole) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        if let (Some(word), false) = (self.words.get(whole.len()), rest.is_empty()) {
            let last = rest.iter().rev().fold(0, |last, byte| last << 8 | u64::from(*byte));
            word.store(last, Ordering::Relaxed);
        }
    }

    fn get(&self) -> String {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
        bytes.truncate(self.len.load(Ordering::Relaxed));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// One watched thread.
pub(crate) struct Watch {
    pub(crate) thread: String,
    /// Odd while the thread is in a poll of an application. Written by that thread alone.
    turn: AtomicU64,
    /// Nanoseconds of the poll that goes on that are counted already.
    counted_ns: AtomicU64,
    /// What is polled, or was last. Changed between two polls alone.
    app: Mutex<Option<LocalCounts>>,
    /// Where the counts of `app` are, to be compared.
    app_at: AtomicUsize,
    id: Text<ID>,
    target: Text<TARGET>,
    /// Whether it is in one poll for so long that nothing new should be given to it.
    pub(crate) stuck: AtomicBool,
}

/// Polls an application, on the thread of a worker: that which polls it now, wherever its request began.
pub(crate) fn during<T>(app: &LocalCounts, id: &str, target: &str, poll: impl FnOnce() -> T) -> T {
    timed(app, id, target, Instant::now(), poll).0
}

/// The same, where the time is known already; tells how long it took.
#[inline]
pub(crate) fn timed<T>(
    app: &LocalCounts,
    id: &str,
    target: &str,
    began: Instant,
    poll: impl FnOnce() -> T,
) -> (T, Duration) {
    task::here(|worker| match worker {
        Some(worker) => worker.watch.timed(app, id, target, began, poll),
        None => (poll(), began.elapsed()),
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
        Self {
            thread,
            turn: AtomicU64::new(0),
            counted_ns: AtomicU64::new(0),
            app: Mutex::new(None),
            app_at: AtomicUsize::new(0),
            id: Text::new(),
            target: Text::new(),
            stuck: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<LocalCounts>> {
        self.app.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls an application, on the watched thread.
    pub(crate) fn during<T>(&self, app: &LocalCounts, id: &str, target: &str, poll: impl FnOnce() -> T) -> T {
        self.timed(app, id, target, Instant::now(), poll).0
    }

    /// The same, where the time is known already; tells how long it took.
    #[inline]
    pub(crate) fn timed<T>(
        &self,
        app: &LocalCounts,
        id: &str,
        target: &str,
        began: Instant,
        poll: impl FnOnce() -> T,
    ) -> (T, Duration) {
        // Whoever sees what follows sees that the poll before is over.
        fence(Ordering::Release);
        let at = Arc::as_ptr(app).addr();
        if self.app_at.load(Ordering::Relaxed) != at {
            *self.lock() = Some(app.clone());
            self.app_at.store(at, Ordering::Relaxed);
        }
        self.id.set(id);
        self.target.set(target);
        self.step();
        // Ends also after a panic.
        let turn = Turn { watch: self, app, began, took: None };
        let polled = poll();
        (polled, turn.end())
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
        let app = self.lock().clone()?;
        let seen = Seen { app, id: self.id.get(), target: self.target.get() };
        // What was read is of this turn if it goes on still.
        fence(Ordering::Acquire);
        (turn % 2 == 1 && self.turn() == turn).then_some(seen)
    }
}

/// The time in which a thread is in a poll.
struct Turn<'a> {
    watch: &'a Watch,
    app: &'a LocalCounts,
    began: Instant,
    took: Option<Duration>,
}

impl Turn<'_> {
    fn end(mut self) -> Duration {
        *self.took.insert(self.began.elapsed())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.watch.step();
        let mut took = self.took.unwrap_or_else(|| self.began.elapsed());
        if self.watch.counted_ns.load(Ordering::Relaxed) > 0 {
            took = took.saturating_sub(Duration::from_nanos(self.watch.counted_ns.swap(0, Ordering::Relaxed)));
        }
        self.app.polled(took);
    }
}

/// How long a poll must go on until its thread counts as stuck.
pub(crate) const STUCK: Duration = Duration::from_millis(400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_as_far_as_there_is_room() {
        let (text, long) = (Text::<2>::new(), "/a/path/of/some/length");
        for len in [22, 0, 1, 7, 8, 9, 15, 16, 17, 3] {
            text.set(&long[..len]);
            assert_eq!(text.get(), long[..len.min(16)], "{len}");
        }
        text.set("aaaaaaaaaaaaaa\u{e9}\u{e9}");
        assert_eq!(text.get(), "aaaaaaaaaaaaaa\u{e9}");
    }

    #[test]
    fn what_is_polled_is_seen_in_its_turn_alone() {
        let id = wharf_kernel::AppId {
            host: "default".into(),
            path: wharf_kernel::ContextPath::root(),
            version: wharf_kernel::Version::default(),
        };
        let counters = wharf_kernel::counters::AppCounters::new(id);
        let watch = Watch::new("worker".to_owned());
        assert!(watch.seen(watch.turn()).is_none());
        for path in ["/one", "/two", "/a/longer/one"] {
            let turn = watch.during(counters.local(), "id-1", path, || {
                let seen = watch.seen(watch.turn()).expect("the poll goes on");
                assert_eq!((&*seen.id, &*seen.target), ("id-1", path));
                watch.turn()
            });
            assert!(watch.seen(turn).is_none() && watch.seen(watch.turn()).is_none());
        }
    }
}
