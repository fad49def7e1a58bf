//! The lease: what a request in flight holds on a generation, and the gate that hands leases out.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::LocalKey;

use crate::drain::{Drain, Phase, Reached};
use crate::per_thread::{Alone, InHand, Kept, PerThread, WeakPerThread};

/// What a lease is held for, so that a report can say what keeps a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// A request being answered.
    Request = 0,
    /// A response body, or a chunk of one still on its way to the client.
    Body = 1,
    /// An upgraded connection.
    Upgrade = 2,
}

/// Bits for each kind in a slot's count: leases of three kinds, up to two million of each.
const BITS: u32 = 21;

const fn one(kind: Hold) -> u64 {
    1 << (BITS * kind as u32)
}

const fn of(count: u64, kind: Hold) -> u64 {
    (count >> (BITS * kind as u32)) & ((1 << BITS) - 1)
}

/// Hands out leases until it is closed; then counts down to zero.
///
/// Each thread counts for itself. A lease is given back to the count it was taken from, so that no count goes below zero,
/// and all are zero when no lease is out.
#[derive(Clone)]
pub struct Gate {
    slots: PerThread<Slot>,
    state: Arc<State>,
}

struct Slot {
    /// Live leases of each kind that were taken here.
    held: AtomicU64,
    /// All of them, to be asked whether they are empty. Weak: they would keep each other for ever.
    all: OnceLock<WeakPerThread<Slot>>,
    state: Arc<State>,
}

impl Kept for Slot {
    fn place() -> &'static LocalKey<Cell<Option<Arc<Alone<Self>>>>> {
        thread_local!(static PLACE: Cell<Option<Arc<Alone<Slot>>>> = const { Cell::new(None) });
        &PLACE
    }
}

struct State {
    closed: AtomicBool,
    drain: Arc<Drain>,
    on_idle: Box<dyn Fn() + Send + Sync>,
}

impl State {
    fn is_idle(&self, slots: &PerThread<Slot>) -> bool {
        self.closed.load(Ordering::SeqCst) && slots.iter().all(|s| s.held.load(Ordering::SeqCst) == 0)
    }
}

impl Gate {
    /// An open gate. `on_idle` is called when the last lease of a closed gate is given back, and by [`Gate::close`] where
    /// there is none; it may be called more than once, must be quick and must not panic.
    pub fn new(on_idle: impl Fn() + Send + Sync + 'static) -> Self {
        let state =
            Arc::new(State { closed: AtomicBool::new(false), drain: Arc::default(), on_idle: Box::new(on_idle) });
        let slot = || Slot { held: AtomicU64::new(0), all: OnceLock::new(), state: state.clone() };
        let slots = PerThread::new(slot);
        for slot in slots.iter() {
            let _ = slot.all.set(slots.downgrade());
        }
        Self { slots, state }
    }

    /// A lease, or `None` once the gate is closed: the caller looks at the route table again then.
    pub fn try_lease(&self) -> Option<Lease> {
        let slot = self.slots.local();
        // First counted, then looked: whoever closes the gate sees the count, or this sees the gate closed.
        slot.held.fetch_add(one(Hold::Request), Ordering::SeqCst);
        let lease = Lease { slot: Some(InHand::of(slot)), kind: Hold::Request };
        // Dropped, and so given back, where the gate is closed.
        (!self.state.closed.load(Ordering::SeqCst)).then_some(lease)
    }

    /// Tells what lives long in the generation that it has to end: see [`Lease::reached`]. Leases are still given.
    pub fn drain(&self) {
        self.state.drain.advance(Phase::Draining);
    }

    /// Tells what is left that the drain time is over.
    pub fn cut(&self) {
        self.state.drain.advance(Phase::Cut);
    }

    /// Gives no more leases, and drains.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.drain();
        if self.is_idle() {
            (self.state.on_idle)();
        }
    }

    /// True when it is closed and the last lease is back.
    pub fn is_idle(&self) -> bool {
        self.state.is_idle(&self.slots)
    }

    /// How many leases are out for this.
    pub fn held(&self, kind: Hold) -> u64 {
        self.slots.iter().map(|s| of(s.held.load(Ordering::SeqCst), kind)).sum()
    }

    /// How many leases are out.
    pub fn leases(&self) -> u64 {
        [Hold::Request, Hold::Body, Hold::Upgrade].into_iter().map(|kind| self.held(kind)).sum()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("leases", &self.leases()).field("idle", &self.is_idle()).finish()
    }
}

/// Keeps a generation alive. Given back on drop.
pub struct Lease {
    slot: Option<InHand<Slot>>,
    kind: Hold,
}

impl Lease {
    /// A lease on nothing, for endpoints that never go and for tests.
    pub const fn unbound() -> Self {
        Self { slot: None, kind: Hold::Request }
    }

    /// The same lease, held for something else from now on.
    #[must_use]
    pub fn held_for(mut self, kind: Hold) -> Self {
        if let Some(slot) = &self.slot {
            // One step: the count is never seen without it.
            slot.held.fetch_add(one(kind).wrapping_sub(one(self.kind)), Ordering::SeqCst);
        }
        self.kind = kind;
        self
    }

    /// One more lease beside this one. It is given even when the gate is closed: what is in flight may go on.
    #[must_use]
    pub fn another(&self, kind: Hold) -> Self {
        if let Some(slot) = &self.slot {
            slot.held.fetch_add(one(kind), Ordering::SeqCst);
        }
        Self { slot: self.slot.as_deref().map(InHand::of), kind }
    }
}

impl Lease {
    /// Done when the generation has come to this phase. What holds a lease for long, for an upgraded connection say, ends
    /// in good order at [`Phase::Draining`], and at once at [`Phase::Cut`].
    pub fn reached(&self, phase: Phase) -> Reached {
        match &self.slot {
            Some(slot) => slot.state.drain.reached(phase),
            None => Reached::never(phase),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(slot) = &self.slot else { return };
        let slot = &****slot;
        slot.held.fetch_sub(one(self.kind), Ordering::SeqCst);
        if slot.state.closed.load(Ordering::SeqCst)
            // Without a gate there is nobody to be told.
            && let Some(all) = slot.all.get().and_then(WeakPerThread::upgrade)
            && slot.state.is_idle(&all)
        {
            (slot.state.on_idle)();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("kind", &self.kind).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_gives_nothing_and_tells_when_it_is_idle() {
        let told = Arc::new(AtomicU64::new(0));
        let gate = Gate::new({
            let told = told.clone();
            move || {
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
        let a = gate.try_lease().unwrap();
        let b = a.another(Hold::Body);
        gate.close();
        assert!(gate.try_lease().is_none());
        assert!(!gate.is_idle());
        drop(a);
        assert_eq!((gate.held(Hold::Request), gate.held(Hold::Body)), (0, 1));
        let c = b.another(Hold::Body);
        drop(b);
        assert_eq!(told.load(Ordering::Relaxed), 0);
        drop(c);
        assert!(gate.is_idle());
        assert!(told.load(Ordering::Relaxed) >= 1);
    }
}
