//! How a generation tells what lives long in it, upgraded connections above all, that it has to end.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a generation asks of what is in flight. It only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Nothing.
    Serving = 0,
    /// To end in good order, within the drain time.
    Draining = 1,
    /// To end now. The drain time is over.
    Cut = 2,
}

/// The phase of a generation, and who waits for it to change.
#[derive(Debug, Default)]
pub struct Drain {
    phase: AtomicU8,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl Drain {
    /// Moves on to a phase, and wakes whoever waits. An earlier phase changes nothing.
    pub fn advance(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::SeqCst) < phase as u8 {
            // Woken outside the lock: a waker may drop what waits here.
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_values().for_each(Waker::wake);
        }
    }

    /// Whether it has come to this phase.
    pub fn has_reached(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::SeqCst) >= phase as u8
    }

    /// Done when it has come to this phase.
    pub fn reached(self: &Arc<Self>, phase: Phase) -> Reached {
        Reached { drain: Some(self.clone()), phase, key: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// A future that is done when a generation has come to a phase.
#[derive(Debug)]
pub struct Reached {
    drain: Option<Arc<Drain>>,
    phase: Phase,
    key: u64,
}

impl Reached {
    /// Of no generation: never done.
    pub(crate) const fn never(phase: Phase) -> Self {
        Self { drain: None, phase, key: 0 }
    }
}

impl Future for Reached {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(drain) = &self.drain else { return Poll::Pending };
        if drain.has_reached(self.phase) {
            return Poll::Ready(());
        }
        let mut waiting = drain.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get(&self.key) {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => _ = waiting.insert(self.key, cx.waker().clone()),
        }
        drop(waiting);
        // It may have come in between, and then it did not see this waker.
        if drain.has_reached(self.phase) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(drain) = &self.drain {
            let waker = drain.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_waits_is_woken_once_and_a_phase_is_never_taken_back() {
        let (drain, count) = (Arc::new(Drain::default()), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(count.clone());
        let cx = &mut Context::from_waker(&waker);
        let mut cut = pin!(drain.reached(Phase::Cut));
        assert!(cut.as_mut().poll(cx).is_pending());
        drop(drain.reached(Phase::Cut));
        drain.advance(Phase::Draining);
        drain.advance(Phase::Draining);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(cut.as_mut().poll(cx).is_pending());
        drain.advance(Phase::Cut);
        drain.advance(Phase::Draining);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert!(cut.as_mut().poll(cx).is_ready());
        assert!(drain.has_reached(Phase::Cut));
    }
}
