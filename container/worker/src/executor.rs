//! Tasks of the worker that begins them.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use wharf_kernel::workers;

use crate::Timer;

/// Has this worker do something; on a thread that is no worker's, its runtime.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match workers::here() {
        Some(here) => (here.spawn)(Box::pin(future)),
        None => _ = tokio::spawn(future),
    }
}

/// [`spawn`] and [`Timer`] for hyper.
#[derive(Debug, Clone, Copy)]
pub struct Here;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn(future);
    }
}

impl hyper::rt::Timer for Here {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer::after(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer::at(deadline.into()))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Timer>() {
            Some(timer) => timer.get_mut().reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}
