//! The lease: what a request in flight holds on a generation, and the gate that hands leases out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

const CLOSED: u64 = 1 << 63;
const KINDS: usize = 3;

/// Hands out leases until it is closed; then counts down to zero.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    /// Live leases; the top bit says that no more are given.
    leases: AtomicU64,
    held: [AtomicU64; KINDS],
    on_idle: Box<dyn Fn() + Send + Sync>,
}

impl Gate {
    /// An open gate. `on_idle` is called each time that the last lease of a closed gate is given back (and by
    /// [`Gate::close`] where there is none); it must be quick and must not panic.
    pub fn new(on_idle: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { leases: AtomicU64::new(0), held: Default::default(), on_idle: Box::new(on_idle) }))
    }

    /// A lease, or `None` once the gate is closed: the caller looks at the route table again then.
    pub fn try_lease(&self) -> Option<Lease> {
        let before = self.0.leases.fetch_add(1, Ordering::Acquire);
        if before & CLOSED != 0 {
            self.0.give_back();
            return None;
        }
        self.0.held[Hold::Request as usize].fetch_add(1, Ordering::Relaxed);
        Some(Lease { gate: Some(self.0.clone()), kind: Hold::Request })
    }

    /// Gives no more leases.
    pub fn close(&self) {
        if self.0.leases.fetch_or(CLOSED, Ordering::AcqRel) == 0 {
            (self.0.on_idle)();
        }
    }

    /// True when it is closed and the last lease is back.
    pub fn is_idle(&self) -> bool {
        self.0.leases.load(Ordering::Acquire) == CLOSED
    }

    /// How many leases are out for this.
    pub fn held(&self, kind: Hold) -> u64 {
        self.0.held[kind as usize].load(Ordering::Relaxed)
    }

    /// How many leases are out.
    pub fn leases(&self) -> u64 {
        self.0.leases.load(Ordering::Acquire) & !CLOSED
    }
}

impl Inner {
    fn give_back(&self) {
        if self.leases.fetch_sub(1, Ordering::Release) == CLOSED + 1 {
            (self.on_idle)();
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("leases", &self.leases()).field("idle", &self.is_idle()).finish()
    }
}

/// Keeps a generation alive. Given back on drop.
pub struct Lease {
    gate: Option<Arc<Inner>>,
    kind: Hold,
}

impl Lease {
    /// A lease on nothing, for endpoints that never go and for tests.
    pub const fn unbound() -> Self {
        Self { gate: None, kind: Hold::Request }
    }

    /// The same lease, held for something else from now on.
    #[must_use]
    pub fn held_for(mut self, kind: Hold) -> Self {
        if let Some(gate) = &self.gate {
            gate.held[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
            gate.held[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        self.kind = kind;
        self
    }

    /// One more lease beside this one. It is given even when the gate is closed: what is in flight may go on.
    #[must_use]
    pub fn another(&self, kind: Hold) -> Self {
        if let Some(gate) = &self.gate {
            gate.leases.fetch_add(1, Ordering::Relaxed);
            gate.held[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        Self { gate: self.gate.clone(), kind }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.held[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
            gate.give_back();
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
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}
