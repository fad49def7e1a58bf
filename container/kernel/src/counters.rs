//! What is counted for each application. The counters outlive a generation: a redeploy goes on with the same ones.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread::LocalKey;
use std::time::Duration;

use crate::AppId;
use crate::cpu::nanos;
use crate::fairness::Fairness;
use crate::per_thread::{Alone, Count, Kept, PerThread};

/// Upper bounds of the duration histogram, in seconds.
pub const DURATION_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Upper bounds of the duration histogram, in microseconds: [`DURATION_BUCKETS`] as integers.
const BOUNDS_US: [u64; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000];

/// The counters of one application: a set for each thread, added up when they are read.
#[derive(Debug)]
pub struct AppCounters {
    /// Whose they are.
    pub app: AppId,
    /// What it may take, and what it takes.
    pub fairness: Arc<Fairness>,
    sets: PerThread<Counts>,
}

/// The counters of one application that one thread uses, and, with an atomic step, others. All methods are lock-free.
#[derive(Debug)]
pub struct Counts {
    /// Whose they are.
    pub app: Arc<AppId>,
    /// What it may take, and what it takes.
    pub fairness: Arc<Fairness>,
    /// Permits that lie with this thread.
    pub(crate) free: AtomicI64,
    classes: [Count; 5],
    bytes_in: Count,
    bytes_out: Count,
    begun: Count,
    sum_us: Count,
    polled_ns: Count,
    upgrades: Count,
    upgraded: Count,
    /// One for each bound, and one for what is above the last.
    buckets: [Count; 13],
}

impl Kept for Counts {
    fn place() -> &'static LocalKey<Cell<Option<LocalCounts>>> {
        thread_local!(static PLACE: Cell<Option<LocalCounts>> = const { Cell::new(None) });
        &PLACE
    }
}

/// One thread's [`Counts`].
pub type LocalCounts = Arc<Alone<Counts>>;

impl Counts {
    fn new(app: Arc<AppId>, fairness: Arc<Fairness>) -> Self {
        Self {
            app,
            fairness,
            free: AtomicI64::new(0),
            classes: Default::default(),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            begun: Count::default(),
            sum_us: Count::default(),
            polled_ns: Count::default(),
            upgrades: Count::default(),
            upgraded: Count::default(),
            buckets: Default::default(),
        }
    }
}

impl Alone<Counts> {
    /// A request has begun.
    pub fn begin(&self) {
        self.add(|counts| &counts.begun, 1);
    }

    /// A thread was in a poll of it for so long.
    pub fn polled(&self, time: Duration) {
        self.add(|counts| &counts.polled_ns, nanos(time));
    }

    /// A connection has been upgraded. Its request has ended with status 101.
    pub fn upgrade_begun(&self) {
        self.add(|counts| &counts.upgrades, 1);
        self.add(|counts| &counts.upgraded, 1);
    }

    /// An upgraded connection is gone.
    pub fn upgrade_ended(&self, bytes_in: u64, bytes_out: u64) {
        self.add(|counts| &counts.upgrades, 1_u64.wrapping_neg());
        self.add(|counts| &counts.bytes_in, bytes_in);
        self.add(|counts| &counts.bytes_out, bytes_out);
    }

    /// A request that had begun is over: its last body byte is sent, or it broke off.
    pub fn end(&self, status: u16, bytes_in: u64, bytes_out: u64, duration: Duration) {
        let class = usize::from((status / 100).clamp(1, 5)) - 1;
        self.add(|counts| &counts.classes[class], 1);
        self.add(|counts| &counts.bytes_in, bytes_in);
        self.add(|counts| &counts.bytes_out, bytes_out);
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.add(|counts| &counts.sum_us, us);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.add(|counts| &counts.buckets[bucket], 1);
    }
}

impl AppCounters {
    /// Counters at zero.
    pub fn new(app: AppId) -> Self {
        let shared = Arc::new(app.clone());
        let fairness = Arc::new(Fairness::default());
        Self { app, sets: PerThread::new(|| Counts::new(shared.clone(), fairness.clone())), fairness }
    }

    /// This thread's set.
    pub fn local(&self) -> &LocalCounts {
        self.sets.local()
    }

    /// All sets.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Counts> {
        self.sets.iter()
    }

    fn sum(&self, of: impl Fn(&Counts) -> &Count) -> u64 {
        self.sets.sum(of)
    }

    /// Requests that ended, by status class: 1xx to 5xx.
    pub fn by_class(&self) -> [u64; 5] {
        std::array::from_fn(|i| self.sum(|set| &set.classes[i]))
    }

    /// Requests that ended.
    pub fn requests(&self) -> u64 {
        self.by_class().iter().sum()
    }

    /// Requests that have begun and not ended.
    pub fn in_flight(&self) -> u64 {
        // What ends while this adds up must not be missing from what has begun.
        let ended = self.requests();
        self.sum(|set| &set.begun).saturating_sub(ended)
    }

    /// Upgraded connections that are open.
    pub fn open_upgrades(&self) -> u64 {
        self.sum(|set| &set.upgrades)
    }

    /// Connections upgraded since the start.
    pub fn upgraded(&self) -> u64 {
        self.sum(|set| &set.upgraded)
    }

    /// Content bytes received.
    pub fn bytes_in(&self) -> u64 {
        self.sum(|set| &set.bytes_in)
    }

    /// Content bytes sent.
    pub fn bytes_out(&self) -> u64 {
        self.sum(|set| &set.bytes_out)
    }

    /// How long all requests took together.
    pub fn total_duration(&self) -> Duration {
        Duration::from_micros(self.sum(|set| &set.sum_us))
    }

    /// Nanoseconds that threads were in its polls.
    pub(crate) fn polled_ns(&self) -> u64 {
        self.sum(|set| &set.polled_ns)
    }

    /// Requests that ended by duration: one number for each of [`DURATION_BUCKETS`] (not cumulative), the last for what
    /// took longer.
    pub fn durations(&self) -> [u64; 13] {
        std::array::from_fn(|i| self.sum(|set| &set.buckets[i]))
    }
}

/// The counters of the whole server. All methods are lock-free.
#[derive(Debug, Default)]
pub struct ServerCounters {
    open: AtomicU64,
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    unmapped: [AtomicU64; 5],
    panics: AtomicU64,
}

impl ServerCounters {
    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is gone.
    pub fn connection_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that no application saw was answered.
    pub fn answered_unmapped(&self, status: u16) {
        self.unmapped[usize::from((status / 100).clamp(1, 5)) - 1].fetch_add(1, Ordering::Relaxed);
    }

    /// An endpoint panicked.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start.
    pub fn accepted_connections(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Failures to accept a connection since the start.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Requests that no application saw, by status class: 1xx to 5xx.
    pub fn unmapped_by_class(&self) -> [u64; 5] {
        std::array::from_fn(|i| self.unmapped[i].load(Ordering::Relaxed))
    }

    /// Panics of endpoints caught by the pipeline.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextPath, Version};

    #[test]
    fn requests_are_counted_by_class_and_duration() {
        let app = AppId { host: "default".into(), path: ContextPath::root(), version: Version::default() };
        let counters = AppCounters::new(app);
        for (status, us) in [(200, 400), (204, 500), (404, 501), (599, 31_000_000), (101, 0)] {
            counters.local().begin();
            assert_eq!(counters.in_flight(), 1);
            counters.local().end(status, 1, 10, Duration::from_micros(us));
        }
        assert_eq!(counters.by_class(), [1, 2, 0, 1, 1]);
        assert_eq!(
            (counters.requests(), counters.in_flight(), counters.bytes_in(), counters.bytes_out()),
            (5, 0, 5, 50)
        );
        assert_eq!(counters.durations(), [3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counters.total_duration(), Duration::from_micros(31_001_401));
    }

    #[test]
    fn both_tables_of_bounds_are_the_same() {
        for (seconds, us) in DURATION_BUCKETS.iter().zip(BOUNDS_US) {
            assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_micros(us));
        }
    }
}
