//! A socket with its count: a connection is open as long as its socket is, be it spoken HTTP on or something it was upgraded to.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wharf_kernel::counters::LocalCounts;
use wharf_kernel::{AccessRecord, AccessSink};

use crate::berth::Guard;
use crate::worker::Shared;

/// What is known of a connection beside its socket.
pub(crate) struct Link {
    state: Mutex<State>,
    /// HTTP has ended on it, and the socket lives on.
    upgraded: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Counts the connection. `None` once it is gone, or cut.
    guard: Option<Guard>,
    /// Whoever waits to read and to write.
    wakers: [Option<Waker>; 2],
    switched: Option<Switched>,
}

/// What is written down when an upgraded connection ends.
pub(crate) struct Switched {
    pub(crate) began: Instant,
    pub(crate) app: Option<LocalCounts>,
    pub(crate) record: Option<Box<AccessRecord>>,
    pub(crate) access: Arc<dyn AccessSink>,
}

impl Link {
    pub(crate) fn new(guard: Guard) -> Arc<Self> {
        let state = Mutex::new(State { guard: Some(guard), ..State::default() });
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { state, upgraded: AtomicBool::new(false), received, sent })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer is 101: from its end on the socket speaks something else.
    pub(crate) fn switch(&self, switched: Switched) {
        if let Some(app) = &switched.app {
            app.upgrade_begun();
        }
        self.state().switched = Some(switched);
    }

    /// What is read and written from now on belongs to what it was upgraded to.
    pub(crate) fn http_is_over(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    /// Whether it speaks something else than HTTP by now.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// An upgraded connection is that worker's from now on.
    pub(crate) fn move_to(&self, worker: &Arc<Shared>) {
        let (berth, wakers) = {
            let mut state = self.state();
            let Some(guard) = &state.guard else { return };
            (guard.berth.clone(), std::mem::take(&mut state.wakers))
        };
        berth.move_to(worker);
        // The socket moves when it is polled.
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Takes an upgraded connection out of the count; nothing is read or written on it any more.
    pub(crate) fn cut(&self) {
        if !self.is_upgraded() {
            // Its own task ends it.
            return;
        }
        let mut state = self.state();
        let (guard, wakers) = (state.guard.take(), std::mem::take(&mut state.wakers));
        drop(state);
        drop(guard);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// The socket is gone.
    fn end(&self) {
        let State { guard, wakers, switched } = std::mem::take(&mut *self.state());
        drop((guard, wakers));
        let Some(Switched { began, app, record, access }) = switched else { return };
        let (received, sent) = (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed));
        if let Some(app) = &app {
            app.upgrade_ended(received, sent);
        }
        if let Some(mut record) = record {
            record.duration = began.elapsed();
            record.time = SystemTime::now().checked_sub(record.duration).unwrap_or(SystemTime::UNIX_EPOCH);
            record.bytes = sent;
            record.app = app;
            access.record(*record);
        }
    }

    /// Before a poll of an upgraded socket: remembers whom to wake, and fails once it is cut.
    fn wait(&self, at: usize, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.state();
        if state.guard.is_none() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the container is stopping"));
        }
        match &mut state.wakers[at] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            slot => *slot = Some(cx.waker().clone()),
        }
        Ok(())
    }
}

/// A socket with its [`Link`].
pub(crate) struct Linked<S> {
    stream: S,
    link: Arc<Link>,
}

impl<S> Linked<S> {
    pub(crate) fn new(stream: S, link: Arc<Link>) -> Self {
        Self { stream, link }
    }

    #[inline]
    fn is_upgraded(&self) -> bool {
        self.link.is_upgraded()
    }
}

impl<S> Drop for Linked<S> {
    fn drop(&mut self) {
        self.link.end();
    }
}

const READ: usize = 0;
const WRITE: usize = 1;

impl<S: AsyncRead + Unpin> AsyncRead for Linked<S> {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_upgraded() {
            return self.read_upgraded(cx, buffer);
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + Unpin> Linked<S> {
    #[cold]
    fn read_upgraded(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.link.wait(READ, cx)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.link.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> Linked<S> {
    #[cold]
    fn write_upgraded(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.link.wait(WRITE, cx)?;
        let polled = write(Pin::new(&mut self.stream), cx);
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.link.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Linked<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_upgraded() {
            return self.write_upgraded(cx, |stream, cx| stream.poll_write(cx, bytes));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_upgraded() {
            return self.write_upgraded(cx, |stream, cx| stream.poll_write_vectored(cx, parts));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
