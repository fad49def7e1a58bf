//! How a backend is doing. It outlives generations: a backend that stays in the file keeps its state when the file changes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wharf_kernel::backends::BackendState;
use wharf_kernel::options::Eject;

/// Milliseconds since the first call, from 1.
pub(crate) fn now() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How long, in milliseconds, the request that tries an ejected backend is waited for before another one may.
const PROBE: u64 = 5000;

/// How long a peak of the latency is remembered: it falls to a third in this time.
const DECAY: f64 = 10_000.0;

/// See the module. Times are those of [`now`].
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Requests in flight.
    pub(crate) in_flight: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) drained: AtomicBool,
    /// True while active checks fail, or the process is not there.
    down: AtomicBool,
    /// Checks in a row that contradict `down`.
    contrary: AtomicU32,
    /// Failures in a row.
    failed: AtomicU32,
    /// Ejections since the last success.
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    /// When a request was last given to it although it is ejected.
    probed_at: AtomicU64,
    /// When it came back; 0 for one that was never away.
    back_at: AtomicU64,
    latency: Mutex<(f64, u64)>,
}

impl State {
    /// Whether it may be given a request.
    pub(crate) fn is_fit(&self, now: u64) -> bool {
        if self.down.load(Relaxed) || self.is_drained() {
            return false;
        }
        if self.ejections.load(Relaxed) == 0 {
            return true;
        }
        // After an ejection one request at a time, until one succeeds.
        let (until, probed) = (self.ejected_until.load(Relaxed), self.probed_at.load(Relaxed));
        now >= until && (probed < until || now > probed.saturating_add(PROBE))
    }

    /// It is given a request.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        if self.ejections.load(Relaxed) != 0 {
            self.probed_at.store(now(), Relaxed);
        }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// The share of its weight that it gets: grows from a tenth to the whole.
    pub(crate) fn warmth(&self, now: u64, slow_start: Duration) -> f64 {
        let back = self.back_at.load(Relaxed);
        let whole = millis(slow_start);
        if back == 0 || whole == 0 {
            return 1.0;
        }
        let part = now.saturating_sub(back) as f64 / whole as f64;
        if part >= 1.0 {
            self.back_at.store(0, Relaxed);
        }
        part.clamp(0.1, 1.0)
    }

    /// A request ended well.
    pub(crate) fn succeeded(&self) {
        if self.failed.load(Relaxed) != 0 {
            self.failed.store(0, Relaxed);
        }
        if self.ejections.load(Relaxed) != 0 {
            self.ejections.store(0, Relaxed);
            self.back_at.store(now(), Relaxed);
        }
    }

    /// A request failed. True when this ejects it.
    pub(crate) fn failed(&self, rules: &Eject, may_eject: bool) -> bool {
        self.failures.fetch_add(1, Relaxed);
        let failed = self.failed.fetch_add(1, Relaxed) + 1;
        let before = self.ejections.load(Relaxed);
        let now = now();
        // What fails on its first request after an ejection is out again at once; what was in flight then counts no more.
        let due = if before > 0 { now >= self.ejected_until.load(Relaxed) } else { failed >= rules.failures };
        if rules.failures == 0 || !due || !may_eject {
            return false;
        }
        let time = millis(rules.time).saturating_mul(1 << before.min(16)).min(millis(rules.max_time));
        self.ejected_until.store(now + time, Relaxed);
        self.ejections.store(before + 1, Relaxed);
        self.failed.store(0, Relaxed);
        true
    }

    /// The result of an active check. Says so when it changes something.
    pub(crate) fn checked(&self, good: bool, needed: u32) -> bool {
        let down = self.down.load(Relaxed);
        if down != good {
            self.contrary.store(0, Relaxed);
            return false;
        }
        if self.contrary.fetch_add(1, Relaxed) + 1 < needed {
            return false;
        }
        self.set_down(!good);
        true
    }

    /// It can't be given requests, or can again.
    pub(crate) fn set_down(&self, down: bool) {
        self.contrary.store(0, Relaxed);
        if self.down.swap(down, Relaxed) && !down {
            self.failed.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.back_at.store(now(), Relaxed);
        }
    }

    /// Takes a latency over: at once when it is higher, slowly when it is lower.
    pub(crate) fn observe(&self, latency: Duration) {
        let ms = latency.as_secs_f64() * 1000.0;
        let now = now();
        let mut held = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = *held;
        let keep = (-(now.saturating_sub(at) as f64).max(1.0) / DECAY).exp();
        *held = (if ms >= before { ms } else { before * keep + ms * (1.0 - keep) }, now);
    }

    /// Milliseconds.
    pub(crate) fn latency(&self) -> f64 {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// For people.
    pub(crate) fn shown(&self) -> BackendState {
        if self.is_drained() {
            BackendState::Drained
        } else if self.down.load(Relaxed) {
            BackendState::Unhealthy
        } else if self.ejections.load(Relaxed) > 0 {
            BackendState::Ejected
        } else {
            BackendState::Healthy
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_one_success_brings_it_back() {
        let rules = Eject { failures: 2, time: Duration::from_millis(1), ..Eject::default() };
        let state = State::default();
        assert!(!state.failed(&rules, true));
        state.succeeded();
        assert!(!state.failed(&rules, true), "not in a row");
        assert!(state.failed(&rules, true));
        let at = state.ejected_until.load(Relaxed);
        assert!(!state.is_fit(at - 1));
        assert!(state.is_fit(at));
        std::thread::sleep(Duration::from_millis(2));
        state.begin();
        assert!(!state.is_fit(now()), "one request at a time");
        state.succeeded();
        assert!(state.is_fit(at));
        assert!(state.warmth(now(), Duration::from_secs(100)) < 0.2, "slow start");
    }

    #[test]
    fn checks_must_agree() {
        let state = State::default();
        assert!(!state.checked(false, 2));
        assert!(!state.checked(true, 2));
        assert!(!state.checked(false, 2));
        assert!(state.checked(false, 2));
        assert_eq!(state.shown(), BackendState::Unhealthy);
        assert!(state.checked(true, 1));
        assert_eq!(state.shown(), BackendState::Healthy);
    }

    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let state = State::default();
        state.observe(Duration::from_millis(10));
        state.observe(Duration::from_millis(900));
        assert!((state.latency() - 900.0).abs() < 1.0);
        state.observe(Duration::from_millis(10));
        assert!(state.latency() > 800.0);
    }
}
