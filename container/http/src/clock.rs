//! The time limits of connections, kept coarsely: one look a tick at all connections of a worker instead of a timer for
//! each request.
//!
//! hyper makes and drops a timer for every request head. On a busy connection none of them ever fires, and each costs an
//! aligned allocation and two changes of the timer wheel. Here a timer is a number in the connection's slot; the worker's
//! sweep wakes the connections whose number has passed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

const NEVER: u64 = u64::MAX;

/// When a connection wants to be woken, in milliseconds since its worker's start.
#[derive(Debug)]
pub(crate) struct Slot {
    epoch: Instant,
    deadline: AtomicU64,
}

impl Slot {
    pub(crate) fn new(epoch: Instant) -> Arc<Self> {
        Arc::new(Self { epoch, deadline: AtomicU64::new(NEVER) })
    }

    /// Whether its time has passed.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadline.load(Ordering::Relaxed) <= millis(now.saturating_duration_since(self.epoch))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER - 1)
}

/// How often the sweep looks, for a limit: often enough that it is kept to a tenth.
pub(crate) fn tick(limit: Duration) -> Duration {
    (limit / 10).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

/// The timer of one connection. It has one limit at a time, which is all that hyper's HTTP/1 asks for.
#[derive(Debug, Clone)]
pub(crate) struct Coarse(pub(crate) Arc<Slot>);

impl Timer for Coarse {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        // Rounded up: when the sweep finds it due, it is.
        let at = millis(deadline.saturating_duration_since(self.0.epoch)).saturating_add(1);
        self.0.deadline.store(at, Ordering::Relaxed);
        Box::pin(Until { slot: self.0.clone(), deadline, at })
    }
}

struct Until {
    slot: Arc<Slot>,
    deadline: Instant,
    at: u64,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        // The sweep wakes the whole connection, which polls this again.
        if Instant::now() >= self.deadline { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        // A later timer has the slot already where this one was replaced.
        let _ = self.slot.deadline.compare_exchange(self.at, NEVER, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Sleep for Until {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_due_once_its_time_has_passed_and_not_when_the_timer_is_gone() {
        let epoch = Instant::now();
        let slot = Slot::new(epoch);
        let second = Duration::from_secs(1);
        assert!(!slot.is_due(epoch + second * 1000));
        let timer = Coarse(slot.clone()).sleep_until(epoch + second);
        assert!(!slot.is_due(epoch + second / 2));
        assert!(slot.is_due(epoch + second * 2));
        let mut timer = timer;
        Coarse(slot.clone()).reset(&mut timer, epoch + second * 3);
        assert!(!slot.is_due(epoch + second * 2));
        assert!(slot.is_due(epoch + second * 4));
        drop(timer);
        assert!(!slot.is_due(epoch + second * 5));
    }
}
