//! The processor time that an application takes, and whether that is more than it may.
//!
//! Two kinds are added up: the time that threads of the container are in its polls, by the clock, so that a poll that sleeps counts as
//! well; and the processor time of the threads and processes that it started itself.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::counters::AppCounters;

/// What may be saved up while less is taken than the limit: so many nanoseconds of it.
const SAVED: i64 = 1_000_000_000;

/// What an application takes of the processors, beside its polls.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    /// Nanoseconds that its own threads and processes took.
    own: AtomicU64,
    over: AtomicBool,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// All that it had taken when this was settled last.
    settled: u64,
    /// What it has taken above its limit; below zero what it may take more, once.
    debt: i64,
}

impl Cpu {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// A new generation has no debts.
    pub(crate) fn begin(&self) {
        self.over.store(false, Relaxed);
        self.account.lock().unwrap_or_else(PoisonError::into_inner).debt = 0;
    }
}

impl AppCounters {
    /// The processor time that it has taken since the start of the container.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.polled_ns() + self.fairness.cpu.own.load(Relaxed))
    }

    /// Compares what it has taken with its limit. `own` is what its own threads and processes took since the last time, which is `passed` ago. Returns
    /// whether it is above its limit now and was not before, or the other way round.
    pub fn settle_cpu(&self, own: Duration, passed: Duration) -> bool {
        let cpu = &self.fairness.cpu;
        cpu.own.fetch_add(nanos(own), Relaxed);
        let limit = i64::from(self.fairness.share().cpu_limit);
        let mut account = cpu.account.lock().unwrap_or_else(PoisonError::into_inner);
        let total = nanos(self.cpu());
        let taken = total.saturating_sub(std::mem::replace(&mut account.settled, total));
        let part = |nanos: i64| nanos / 1000 * limit;
        let debt = account.debt.saturating_add_unsigned(taken) - part(i64::try_from(nanos(passed)).unwrap_or(SAVED));
        account.debt = debt.max(-part(SAVED));
        let over = limit > 0 && account.debt > 0;
        cpu.over.swap(over, Relaxed) != over
    }
}

/// Nanoseconds, at most as many as there is room for.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::Share;
    use crate::{AppId, ContextPath, Version};

    #[test]
    fn what_is_above_the_limit_has_to_be_waited_for() {
        let id = AppId { host: "default".into(), path: ContextPath::root(), version: Version::default() };
        let app = AppCounters::new(id);
        let tick = Duration::from_millis(200);
        let settle = |threads: u64, polls: u64| {
            app.local().polled(Duration::from_millis(polls));
            app.settle_cpu(Duration::from_millis(threads), tick);
            app.fairness.is_over_cpu()
        };
        assert!(!settle(10_000, 10_000), "there is no limit");
        // Half a processor.
        app.fairness.begin(Share { cpu_limit: 500, ..Share::default() });
        assert!(!settle(60, 40), "as much as it may");
        assert!(settle(60, 41), "a millisecond more");
        assert!(!settle(0, 99));
        for _ in 0..100 {
            assert!(!settle(0, 0));
        }
        assert!(!settle(500, 100), "a second's share is saved");
        assert!(settle(1000, 101));
        assert_eq!((0..20).filter(|_| settle(0, 0)).count(), 10, "1,001 ms above it: as long as these take");
        app.fairness.begin(Share::default());
        assert!(!app.fairness.is_over_cpu());
        assert_eq!(app.cpu(), Duration::from_millis(22_001));
    }
}
