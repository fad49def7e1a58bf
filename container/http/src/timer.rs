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
    /// hyper asks what time it is to know when a head has to be there, which the slot knows itself.
    fn now(&self) -> Instant {
        self.0.epoch
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.0.epoch + duration)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.await_head();
        Box::pin(Never)
    }
}

/// Whoever polls the connection ends it when its time is up, so this never does. Without content, its box needs no memory.
struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for Never {}

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
