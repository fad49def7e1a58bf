//! What is counted of a data source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wharf_kernel::resource::{SqlError, SqlErrorKind};

/// Counters of a data source, since the container started.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) waiting: AtomicU64,
    pub(super) acquired: AtomicU64,
    wait_nanos: AtomicU64,
    pub(super) statements: AtomicU64,
    statement_nanos: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) left_open: AtomicU64,
    errors: [AtomicU64; SqlErrorKind::ALL.len()],
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(nanos: &AtomicU64) -> f64 {
    Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64()
}

impl Stats {
    /// A caller waits for a connection, until this is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { stats: self, since: std::time::Instant::now() }
    }

    pub(super) fn statement(&self, time: Duration) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.statement_nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }

    pub(super) fn failed(&self, error: &SqlError) {
        self.errors[error.kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn wait_seconds(&self) -> f64 {
        seconds(&self.wait_nanos)
    }

    pub(super) fn statement_seconds(&self) -> f64 {
        seconds(&self.statement_nanos)
    }

    /// The kinds of errors that there were, with their numbers.
    pub(super) fn errors(&self) -> impl Iterator<Item = (SqlErrorKind, u64)> {
        let counts = SqlErrorKind::ALL.into_iter().zip(&self.errors);
        counts.map(|(kind, count)| (kind, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }
}

/// See [`Stats::wait`].
pub(super) struct Waiting<'a> {
    stats: &'a Stats,
    since: std::time::Instant,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stats.waiting.fetch_sub(1, Ordering::Relaxed);
        self.stats.wait_nanos.fetch_add(nanos(self.since.elapsed()), Ordering::Relaxed);
    }
}
