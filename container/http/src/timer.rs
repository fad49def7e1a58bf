//! The timer of connections for hyper.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use wharf_worker::Here;

use crate::clock::Slot;

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
