//! Sockets that change their runtime.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use wharf_kernel::workers::OfWorker;

/// What can change its runtime.
pub trait Movable: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same socket in the runtime whose context this is.
    fn moved(self) -> io::Result<Self>;
}

impl Movable for TcpStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl Movable for UnixStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

/// A socket, in the runtime of the worker that polls it.
pub struct Socket<S>(OfWorker<io::Result<S>>);

impl<S: Movable> Socket<S> {
    /// A socket of this thread's runtime.
    pub fn new(socket: S) -> Self {
        Self(OfWorker::new(Ok(socket)))
    }

    fn here(&mut self) -> io::Result<Pin<&mut S>> {
        let lost = || Err(io::ErrorKind::NotConnected.into());
        let socket = self.0.here(|socket| *socket = std::mem::replace(socket, lost()).and_then(S::moved));
        socket.as_mut().map(Pin::new).map_err(|error| error.kind().into())
    }
}

impl<S: Movable> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl<S: Movable> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}
