//! An upgraded connection as it crosses the border.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use wharf_abi::{FfiStream, Upgrade};

use crate::log::for_request;
use crate::upgrade::{Handler, Living};

/// The module's part in an upgraded connection, polled and dropped inside the module's runtime.
pub(crate) struct Tunnel {
    /// Until it starts.
    handler: Option<Handler>,
    living: Option<Living>,
    runtime: Handle,
    id: Arc<str>,
}

impl Tunnel {
    pub(crate) fn new(handler: Handler, runtime: Handle, id: Arc<str>) -> Self {
        Self { handler: Some(handler), living: None, runtime, id }
    }
}

impl Upgrade for Tunnel {
    fn start(mut self: Pin<&mut Self>, stream: FfiStream) {
        let this = &mut *self;
        let _inside = this.runtime.enter();
        if let Some(handler) = this.handler.take() {
            for_request(&this.id, || this.living = Some(Living::new(handler, Raw(stream))));
        }
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let _inside = this.runtime.enter();
        let Some(living) = &mut this.living else { return Poll::Ready(()) };
        let polled = for_request(&this.id, || std::future::Future::poll(Pin::new(living), cx));
        if polled.is_ready() {
            this.living = None;
        }
        polled
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        let (handler, living) = (self.handler.take(), self.living.take());
        for_request(&self.id, || drop((handler, living)));
    }
}

/// The container's stream as tokio knows streams.
struct Raw(FfiStream);

impl AsyncRead for Raw {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(self.0.poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}
