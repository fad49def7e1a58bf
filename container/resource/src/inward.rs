//! Work that is polled, and dropped, inside of the runtime that has its timers and sockets.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use wharf_kernel::resource::Work;

/// See the module.
pub(crate) struct Inward<F> {
    work: Option<Pin<Box<F>>>,
    runtime: Handle,
}

impl<F: Future + Send + 'static> Inward<F> {
    pub(crate) fn boxed(runtime: Handle, work: F) -> Work<F::Output> {
        Box::pin(Self { work: Some(Box::pin(work)), runtime })
    }
}

impl<F: Future> Future for Inward<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _inside = this.runtime.enter();
        match &mut this.work {
            Some(work) => work.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for Inward<F> {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.work = None;
    }
}
