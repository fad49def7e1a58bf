//! The timers of connections for hyper: numbers in the connection's [`Slot`], which the worker's sweep looks at.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use wharf_worker::Here;

use crate::clock::Slot;

/// The timer of an HTTP/1 connection. It has one limit at a time, which is all that hyper asks for.
#[derive(Debug, Clone)]
pub(crate) struct Coarse(pub(crate) Arc<Slot>);

impl Timer for Coarse {
    /// hyper asks what time it is to know when a head has to be there.
    fn now(&self) -> Instant {
        self.0.roughly_now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until { slot: self.0.clone(), timer: self.0.await_head(deadline) })
    }
}

struct Until {
    slot: Arc<Slot>,
    timer: u64,
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        // The sweep wakes the whole connection, which polls this again.
        if self.slot.is_late_head() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.slot.has_head(self.timer);
    }
}

impl Sleep for Until {}

/// The timer of an HTTP/2 connection, with which hyper times its PINGs. It asks what time it is with every frame.
#[derive(Debug, Clone)]
pub(crate) struct OfFrames(pub(crate) Arc<Slot>);

impl Timer for OfFrames {
    fn now(&self) -> Instant {
        self.0.roughly_now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Here.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Here.sleep_until(deadline)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        Here.reset(sleep, deadline);
    }
}
