//! Streams as the chunks of the ports.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tokio::runtime::Handle;
use wharf_kernel::resource::Chunks;

/// Chunks as a stream, polled and dropped inside of the runtime.
pub(crate) struct Streamed<S> {
    pub(crate) stream: Option<Pin<Box<S>>>,
    pub(crate) runtime: Option<Handle>,
}

impl<S: Stream<Item = Result<Bytes, String>> + Send> Chunks for Streamed<S> {
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        let this = &mut *self;
        let _inside = this.runtime.as_ref().map(Handle::enter);
        match &mut this.stream {
            Some(stream) => stream.as_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

impl<S> Drop for Streamed<S> {
    fn drop(&mut self) {
        let _inside = self.runtime.as_ref().map(Handle::enter);
        self.stream = None;
    }
}
