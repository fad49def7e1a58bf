//! A connection's stream, watched: what a client does not take is timed, and bytes that are no request get the container's
//! own page instead of hyper's bare answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Slot;
use crate::{error_page, request_id};

/// How long, and how many bytes, a client that was refused may still send. Closing the socket while bytes come in would
/// reset the connection, and the client would never see why it was refused (RFC 9112, section 9.6).
const LINGER: (Duration, usize) = (Duration::from_secs(2), 256 * 1024);

/// The same for a client that has its answer before it has sent all of its request's content, as with a 413.
const LINGER_UNREAD: (Duration, usize) = (Duration::from_secs(5), 64 * 1024 * 1024);

/// Answers of up to so many bytes, header included, go out from one place.
const SMALL: usize = 512;

/// A watched stream.
pub(crate) struct Paced<S> {
    inner: S,
    slot: Arc<Slot>,
    /// Since when the client has kept the container waiting, and what it has taken since.
    blocked: Option<(u64, u64)>,
    /// What is sent in place of hyper's answer, and how much of it is sent.
    page: Option<(Vec<u8>, usize)>,
    /// How much was read after the end, and may be.
    lingered: usize,
    linger: usize,
}

impl<S> Paced<S> {
    pub(crate) fn new(inner: S, slot: Arc<Slot>) -> Self {
        Self { inner, slot, blocked: None, page: None, lingered: 0, linger: 0 }
    }

    fn block(&mut self) {
        if self.blocked.is_none() {
            let now = self.slot.now();
            self.blocked = Some((now, 0));
            self.slot.blocked(now, 0);
        }
    }

    fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            self.slot.unblocked();
        }
    }

    fn wrote(&mut self, polled: &Poll<io::Result<usize>>, wanted: usize) {
        match (polled, &mut self.blocked) {
            (Poll::Pending, _) => self.block(),
            (Poll::Ready(Ok(sent)), Some(_)) if *sent >= wanted => self.unblock(),
            (Poll::Ready(Ok(sent)), Some((since, all))) => {
                *all += *sent as u64;
                self.slot.blocked(*since, *all);
            }
            _ => {}
        }
    }

    /// The page for an answer that hyper made by itself.
    fn page_for(&self, bare: &[u8]) -> Option<Vec<u8>> {
        let head = std::str::from_utf8(bare).ok()?.strip_suffix("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = StatusCode::from_bytes(lines.next()?.as_bytes().get(9..12)?).ok()?;
        let mut date = "";
        for line in lines {
            match line.split_once(": ")? {
                ("connection", "close") | ("content-length", "0") => {}
                ("date", value) => date = value,
                _ => return None,
            }
        }
        let id = request_id::next();
        let (content_type, text) = error_page::page(status, "", &id, false);
        let reason = status.canonical_reason().unwrap_or_default();
        let page = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: {content_type}\r\nx-content-type-options: nosniff\r\n\
             cache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\ndate: {date}\r\n\r\n{text}",
            status.as_u16(),
            text.len()
        );
        let _ = self.slot.refused.set((status, id));
        Some(page.into_bytes())
    }
}

/// Whether these bytes may be hyper's own answer.
fn is_bare(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 4") && bytes.len() < 160
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.remaining() < before {
            self.slot.received();
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if is_bare(buf) && this.page.is_none() && !this.slot.http2 && !this.slot.is_busy() {
            this.page = this.page_for(buf).map(|page| (page, 0));
        }
        if let Some((page, sent)) = &mut this.page {
            while *sent < page.len() {
                match ready!(Pin::new(&mut this.inner).poll_write(cx, &page[*sent..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => *sent += n,
                }
            }
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.wrote(&polled, buf.len());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs {
            return self.poll_write(cx, only);
        }
        // A small answer is sent from one place: that copy costs less than a system call with a list of places.
        if bufs.iter().map(|b| b.len()).sum::<usize>() <= SMALL {
            let mut flat = SmallVec::<[u8; SMALL]>::new();
            bufs.iter().for_each(|buf| flat.extend_from_slice(buf));
            return self.poll_write(cx, &flat);
        }
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        if self.blocked.is_some() || polled.is_pending() {
            let wanted = bufs.iter().map(|b| b.len()).sum();
            self.wrote(&polled, wanted);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP stream has nothing to flush; TLS has what the socket did not take yet.
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        match polled {
            Poll::Pending => self.block(),
            Poll::Ready(_) => {
                self.unblock();
                self.slot.flushed();
            }
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingered == 0 {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            let (time, bytes) = match (this.slot.is_unread(), this.slot.refused.get()) {
                (true, _) => LINGER_UNREAD,
                (false, Some(_)) => LINGER,
                (false, None) => return Poll::Ready(Ok(())),
            };
            this.lingered = 1;
            this.linger = bytes;
            this.slot.linger(time);
        }
        let mut bytes = [0; 4096];
        while this.lingered < this.linger {
            let mut buf = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => this.lingered += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
