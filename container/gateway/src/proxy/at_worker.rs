//! What hangs on the runtime of a worker: the tasks, sockets and timers of requests to a backend. Where the worker is stuck in a poll
//! of an application, another one goes on with them.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant as At};

use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep_until};
use wharf_kernel::workers::{self, OfWorker};

/// Has this worker do something; on a thread that is no worker's, its runtime.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match workers::here() {
        Some(here) => (here.spawn)(Box::pin(future)),
        None => _ = tokio::spawn(future),
    }
}

/// [`spawn`] and [`Timer`] for hyper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        spawn(future);
    }
}

impl hyper::rt::Timer for Here {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer::after(duration))
    }

    fn sleep_until(&self, deadline: At) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Timer::at(deadline.into()))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: At) {
        match sleep.as_mut().downcast_mut_pin::<Timer>() {
            Some(timer) => timer.get_mut().reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

/// A timer of the worker that polls it.
#[derive(Debug)]
pub(crate) struct Timer(OfWorker<Pin<Box<Sleep>>>);

impl Timer {
    /// It ends at this time.
    pub(crate) fn at(deadline: Instant) -> Self {
        Self(OfWorker::new(Box::pin(sleep_until(deadline))))
    }

    /// It ends when so long has gone by.
    pub(crate) fn after(time: Duration) -> Self {
        Self::at(Instant::now() + time)
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
    timeout_at(Instant::now() + time, future).await
}

/// The same, up to a point in time.
pub(crate) async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = Timer::at(deadline) => None,
    }
}

/// Waits for what is begun again where another worker goes on with it.
pub(crate) async fn begun_again<T, F: Future<Output = T>>(begin: impl Fn() -> F) -> T {
    let mut begun = OfWorker::new(Box::pin(begin()));
    poll_fn(|cx| begun.here(|begun| *begun = Box::pin(begin())).as_mut().poll(cx)).await
}

/// What can change its runtime.
pub(crate) trait Movable: AsyncRead + AsyncWrite + Unpin + Sized {
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
pub(crate) struct Socket<S>(OfWorker<io::Result<S>>);

impl<S: Movable> Socket<S> {
    /// A socket of this thread's runtime.
    pub(crate) fn new(socket: S) -> Self {
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// Two runtimes, of which the first stands still from now on.
    fn two() -> (Runtime, Runtime) {
        let one = || Builder::new_current_thread().enable_all().build().unwrap();
        (one(), one())
    }

    /// This thread is worker `number` now.
    fn is_worker(number: usize) {
        let spawn = |future| _ = tokio::spawn(future);
        workers::begin(workers::Here { number, spawn, spawn_watched: spawn });
    }

    /// What the future has come to after one poll.
    fn poll_once<F: Future + Unpin>(runtime: &Runtime, future: &mut F) -> Poll<F::Output> {
        runtime.block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))))
    }

    #[test]
    fn a_timer_ends_at_another_worker() {
        let (first, second) = two();
        is_worker(1);
        let mut timer = {
            let _inside = first.enter();
            Timer::after(Duration::from_millis(30))
        };
        assert!(poll_once(&first, &mut timer).is_pending());
        is_worker(2);
        second.block_on(timer);
    }

    #[test]
    fn a_socket_is_read_at_another_worker() {
        let (first, second) = two();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        is_worker(1);
        let socket = first.block_on(begun_again(|| TcpStream::connect(address))).map(Socket::new);
        let (mut peer, mut text) = (listener.accept().unwrap().0, String::new());
        let mut reading = Box::pin(async {
            socket.unwrap().read_to_string(&mut text).await.unwrap();
        });
        assert!(poll_once(&first, &mut reading).is_pending());
        is_worker(2);
        std::io::Write::write_all(&mut peer, b"hello").unwrap();
        drop(peer);
        second.block_on(reading);
        assert_eq!(text, "hello");
    }

    #[test]
    fn what_cannot_move_is_begun_again_once() {
        let (first, second) = two();
        let begun = AtomicUsize::new(0);
        is_worker(1);
        let mut waiting = Box::pin(begun_again(|| {
            begun.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(30))
        }));
        assert!(poll_once(&first, &mut waiting).is_pending());
        is_worker(2);
        second.block_on(waiting);
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
