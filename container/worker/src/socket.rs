//! Sockets that change their runtime.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use wharf_kernel::workers::OfWorker;

/// What can change its runtime.
pub trait Movable: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same socket in the runtime whose context this is.
    fn moved(self) -> io::Result<Self>;

    /// Sends, where that can be done at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) where it can't; else those of the system.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl Movable for TcpStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }

    #[inline]
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || Ok(send(self, bytes, SendFlags::NOSIGNAL)?))
    }
}

impl Movable for UnixStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }

    #[inline]
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_io(Interest::WRITABLE, || Ok(send(self, bytes, SendFlags::NOSIGNAL)?))
    }
}

/// So many bytes the system takes at once in most cases: they are sent by the plain system call. The way by the C library has two atomic steps
/// and a budget more.
const LITTLE: usize = 4096;

/// What keeps a socket in the right runtime.
pub trait Home: Unpin {
    /// The socket.
    type Socket: Movable;

    /// It, in the runtime in which it is to be polled now.
    ///
    /// # Errors
    /// When it could not be moved there, now or before.
    fn here(&mut self) -> io::Result<&mut Self::Socket>;
}

/// A socket that is polled in the runtime that its home says.
pub struct Moving<H>(H);

impl<H: Home> Moving<H> {
    /// The socket that this home has.
    pub const fn at(home: H) -> Self {
        Self(home)
    }

    #[inline]
    fn here(&mut self) -> io::Result<Pin<&mut H::Socket>> {
        self.0.here().map(Pin::new)
    }
}

impl<H: Home> AsyncRead for Moving<H> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl<H: Home> AsyncWrite for Moving<H> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.here()?;
        if bytes.len() <= LITTLE {
            match socket.try_send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
        socket.poll_write(cx, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, parts)
    }

    /// Every [`Movable`] is a socket of the system.
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

/// The worker that polls.
pub struct Polling<S>(OfWorker<io::Result<S>>);

impl<S: Movable> Home for Polling<S> {
    type Socket = S;

    fn here(&mut self) -> io::Result<&mut S> {
        let lost = || Err(io::ErrorKind::NotConnected.into());
        let socket = self.0.here(|socket| *socket = std::mem::replace(socket, lost()).and_then(S::moved));
        socket.as_mut().map_err(|error| error.kind().into())
    }
}

/// A socket, in the runtime of the worker that polls it.
pub type Socket<S> = Moving<Polling<S>>;

impl<S: Movable> Socket<S> {
    /// A socket of this thread's runtime.
    pub fn new(socket: S) -> Self {
        Self(Polling(OfWorker::new(Ok(socket))))
    }
}
