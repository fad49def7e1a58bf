//! What hangs on the runtime of one worker: sockets and timers. They move along with the connection that they are of.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};

use wharf_kernel::workers::{self, OfWorker};

use crate::berth::Berth;
use crate::worker::Shared;

/// A socket that can change its runtime.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same socket in the runtime whose context this is.
    fn moved(self) -> io::Result<Self>;
}

impl Socket for TcpStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

impl Socket for UnixStream {
    fn moved(self) -> io::Result<Self> {
        Self::from_std(self.into_std()?)
    }
}

/// The socket of a connection, in the runtime of the worker at which the connection is.
pub(crate) struct Homed<S> {
    /// `None` once it could not be moved.
    socket: Option<S>,
    berth: Arc<Berth>,
    home: usize,
}

impl<S: Socket> Homed<S> {
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

impl<S: Socket> AsyncRead for Homed<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buffer)
    }
}

impl<S: Socket> AsyncWrite for Homed<S> {
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

/// A timer of the worker that polls it; on other threads it stays where it is.
#[derive(Debug)]
pub(crate) struct Timer(OfWorker<Pin<Box<Sleep>>>);

impl Timer {
    /// It ends at this time.
    ///
    /// # Panics
    /// On a thread without a runtime: use [`Self::of`] where one may be polled by a module's own threads.
    pub(crate) fn at(deadline: Instant) -> Self {
        Self(OfWorker::new(Box::pin(sleep_until(deadline))))
    }

    /// The same; on a thread that is no worker's, it is that worker's.
    pub(crate) fn of(worker: &Shared, deadline: Instant) -> Self {
        let _inside = (workers::number() == 0).then(|| worker.runtime.enter());
        Self::at(deadline)
    }

    /// It ends at this time instead.
    pub(crate) fn reset(&mut self, deadline: Instant) {
        self.0.get_mut().as_mut().reset(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.here(|sleep| *sleep = Box::pin(sleep_until(sleep.deadline())));
        sleep.as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Timer {}

/// Waits for the future so long; `None` when it has not ended by then.
pub(crate) async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut timer = Timer::at(Instant::now() + time);
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        ready!(Pin::new(&mut timer).poll(cx));
        Poll::Ready(None)
    })
    .await
}
