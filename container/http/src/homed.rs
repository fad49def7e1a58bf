//! What hangs on the runtime of the worker at which a connection is: its socket moves along with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use wharf_kernel::workers;
use wharf_worker::{Movable, Timer};

use crate::berth::Berth;
use crate::worker::Shared;

/// The socket of a connection, in the runtime of the worker at which the connection is.
pub(crate) struct Homed<S> {
    /// `None` once it could not be moved.
    socket: Option<S>,
    berth: Arc<Berth>,
    home: usize,
}

impl<S: Movable> Homed<S> {
    /// A socket of the runtime of that worker.
    pub(crate) fn new(socket: S, berth: Arc<Berth>) -> Self {
        Self { socket: Some(socket), home: berth.number(), berth }
    }

    #[inline]
    fn here(&mut self) -> io::Result<Pin<&mut S>> {
        if self.berth.number() != self.home {
            self.follow()?;
        }
        self.socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    #[cold]
    fn follow(&mut self) -> io::Result<()> {
        // Before the look at the runtime: if it moves on in between, the next poll sees that.
        self.home = self.berth.number();
        let runtime = self.berth.runtime().ok_or(io::ErrorKind::NotConnected)?;
        let _inside = runtime.enter();
        self.socket = self.socket.take().map(S::moved).transpose()?;
        Ok(())
    }
}

impl<S: Movable> AsyncRead for Homed<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl<S: Movable> AsyncWrite for Homed<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

/// A timer of the worker that polls it; on a thread that is no worker's, it is that worker's.
pub(crate) fn timer(worker: &Shared, deadline: Instant) -> Timer {
    let _inside = (workers::number() == 0).then(|| worker.runtime.enter());
    Timer::at(deadline)
}
