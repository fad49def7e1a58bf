//! Connections to a FastCGI application, and those that are kept for the next request.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use wharf_kernel::options::FastCgiAddress;

/// A connection of either kind.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn open(to: &FastCgiAddress, within: Duration) -> io::Result<Self> {
        let opening = async {
            match to {
                FastCgiAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address.as_str()).await?;
                    stream.set_nodelay(true)?;
                    Ok(Self::Tcp(stream))
                }
                FastCgiAddress::Unix(path) => loop {
                    match UnixStream::connect(path).await {
                        // Its queue is full for the moment.
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        other => return other.map(Self::Unix),
                    }
                },
            }
        };
        timeout(within, opening).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether nothing has come on it, not even its end.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut buffer).is_pending()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The connections to one address.
pub(super) struct Pool {
    address: FastCgiAddress,
    connect_timeout: Duration,
    /// How many are kept, those in use included: a process that waits on a connection accepts no other, so that keeping more
    /// than there are processes would leave requests waiting for ever.
    keep: AtomicUsize,
    keep_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the time since when they are unused; the newest last.
    idle: VecDeque<(Stream, Instant)>,
    in_use: usize,
    /// Whether a task closes those that are unused for too long.
    watched: bool,
    closed: bool,
}

/// A connection in use.
pub(super) struct Used {
    pub(super) stream: Option<Stream>,
    /// Whether it was used before, so that its end may not have been seen.
    pub(super) is_old: bool,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(
        address: FastCgiAddress,
        connect_timeout: Duration,
        keep: usize,
        keep_timeout: Duration,
    ) -> Arc<Self> {
        Arc::new(Self { address, connect_timeout, keep: AtomicUsize::new(keep), keep_timeout, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether connections are kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.keep.load(Ordering::Relaxed) > 0
    }

    /// A connection; one that was kept where `may_be_old`.
    pub(super) async fn take(self: &Arc<Self>, may_be_old: bool) -> io::Result<Used> {
        let kept = {
            let mut state = self.lock();
            state.in_use += 1;
            let mut kept = None;
            while let Some((mut stream, _)) = state.idle.pop_back() {
                if stream.is_quiet() {
                    kept = Some(stream);
                    break;
                }
            }
            kept
        };
        let mut used = Used { stream: None, is_old: false, pool: self.clone() };
        match kept {
            Some(stream) if may_be_old => (used.stream, used.is_old) = (Some(stream), true),
            // One that was kept is closed for it, so that a process is free for the new one.
            _ => used.stream = Some(Stream::open(&self.address, self.connect_timeout).await?),
        }
        Ok(used)
    }

    /// Keeps no more than so many from now on; with none in use, all that are kept are closed.
    pub(super) fn keep_at_most(&self, count: usize) {
        let mut state = self.lock();
        self.keep.store(count, Ordering::Relaxed);
        if state.in_use == 0 {
            state.idle.clear();
        }
    }

    /// Closes what is kept; nothing is kept after this.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.idle.clear();
    }

    /// Closes what has been unused for too long. Says when to look again; where nothing is left, the watch is over.
    fn expire(&self) -> Option<Instant> {
        let mut state = self.lock();
        while state.idle.front().is_some_and(|(_, since)| since.elapsed() >= self.keep_timeout) {
            state.idle.pop_front();
        }
        let next = state.idle.front().map(|(_, since)| *since + self.keep_timeout);
        state.watched = next.is_some();
        next
    }
}

impl Used {
    /// Gives it back for the next request.
    pub(super) fn keep(mut self, stream: Stream) {
        let pool = self.pool.clone();
        let mut state = pool.lock();
        // This one still counts among those in use.
        if state.closed || state.in_use + state.idle.len() > pool.keep.load(Ordering::Relaxed) {
            return drop(state);
        }
        state.idle.push_back((stream, Instant::now()));
        let watched = std::mem::replace(&mut state.watched, true);
        drop(state);
        self.stream = None;
        if !watched {
            let (weak, mut look) = (Arc::downgrade(&pool), Instant::now() + pool.keep_timeout);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep_until(look).await;
                    let Some(next) = weak.upgrade().and_then(|pool| pool.expire()) else { return };
                    look = next;
                }
            });
        }
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.pool.lock().in_use -= 1;
    }
}
