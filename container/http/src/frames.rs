//! Counts the frames of an HTTP/2 connection as they pass (RFC 9113, section 4.1), and ends it when they come in floods.
//!
//! The protocol library answers each frame as the standard asks; it does not see that a client sends nothing else. Frames
//! that cost the client nothing and bring it nothing are counted here: cancelled requests (the "rapid reset" attack), PING,
//! SETTINGS, PRIORITY, empty DATA and CONTINUATION, and unknown ones.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Slot;

/// The time that the limits are for.
const WINDOW: Duration = Duration::from_secs(10);
/// How long a flooding client may still send before the socket is closed, so that it sees the GOAWAY.
const LINGER: Duration = Duration::from_secs(1);
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Finds the frame heads in a stream of bytes.
struct Heads {
    /// Bytes to pass over: a payload, or the client's preface.
    skip: usize,
    head: [u8; 9],
    have: usize,
}

impl Heads {
    const fn new(skip: usize) -> Self {
        Self { skip, head: [0; 9], have: 0 }
    }

    fn is_between_frames(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&Head)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(9 - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == 9 {
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                self.have = 0;
                each(&Head { len: self.skip, kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31) });
            }
        }
    }
}

struct Head {
    len: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// What was counted in the window.
struct Counts {
    since: Instant,
    requests: u32,
    resets: u32,
    control: u32,
}

impl Counts {
    fn count(&mut self, head: &Head) {
        match head.kind {
            // DATA: empty and not the end.
            0 if head.len == 0 && head.flags & 1 == 0 => self.control += 1,
            1 => self.requests += 1,
            3 => self.resets += 1,
            // PRIORITY, SETTINGS, PING; empty CONTINUATION; kinds that the standard does not know.
            2 | 4 | 6 | 10.. => self.control += 1,
            9 if head.len == 0 => self.control += 1,
            _ => {}
        }
    }
}

/// An HTTP/2 connection whose frames are counted.
pub(crate) struct Counted<S> {
    inner: S,
    slot: Arc<Slot>,
    max_resets: u32,
    max_control: u32,
    incoming: Heads,
    outgoing: Heads,
    counts: Counts,
    last_stream: u32,
    /// Whether there was a flood, and how much of the GOAWAY is sent.
    flooded: Option<usize>,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S, slot: Arc<Slot>, settings: &wharf_kernel::settings::Http2) -> Self {
        Self {
            inner,
            slot,
            max_resets: settings.max_resets,
            max_control: settings.max_control_frames,
            incoming: Heads::new(24),
            outgoing: Heads::new(0),
            counts: Counts { since: Instant::now(), requests: 0, resets: 0, control: 0 },
            last_stream: 0,
            flooded: None,
        }
    }

    /// Counts; says what there is too much of.
    fn received(&mut self, bytes: &[u8]) -> Option<&'static str> {
        if self.counts.since.elapsed() > WINDOW {
            self.counts = Counts { since: Instant::now(), requests: 0, resets: 0, control: 0 };
        }
        let (counts, last) = (&mut self.counts, &mut self.last_stream);
        self.incoming.feed(bytes, |head| {
            counts.count(head);
            if head.kind == 1 {
                *last = head.stream.max(*last);
            }
        });
        if counts.resets > self.max_resets {
            return Some("cancelled requests");
        }
        // Browsers send a frame about the priority of each request.
        (counts.control > self.max_control.saturating_add(counts.requests)).then_some("frames without content")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Counted<S> {
    /// Says goodbye and takes nothing more in.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut frame = [0; 17];
        frame[2] = 8;
        frame[3] = 7;
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
        let mut sent = self.flooded.unwrap_or_default();
        while sent < frame.len() && self.outgoing.is_between_frames() {
            sent += ready!(Pin::new(&mut self.inner).poll_write(cx, &frame[sent..]))?.max(1);
            self.flooded = Some(sent);
        }
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        let mut bytes = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
            if buf.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flooded.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let Some(what) = this.received(&buf.filled()[before..]) else { return Poll::Ready(Ok(())) };
            tracing::warn!("an HTTP/2 connection is closed: too many {what}");
            buf.set_filled(before);
            this.flooded = Some(0);
            this.slot.linger(LINGER);
        }
        this.poll_goodbye(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.flooded.is_some() {
            // The slot's limit ends it.
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(sent)) = polled {
            this.outgoing.feed(&buf[..sent], |_| {});
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.flooded.is_some() {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(mut sent)) = polled {
            for buf in bufs {
                let part = sent.min(buf.len());
                this.outgoing.feed(&buf[..part], |_| {});
                sent -= part;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (len, kind, stream) in [(0_u8, 4_u8, 0_u8), (5, 1, 1), (0, 0, 1), (4, 3, 1), (8, 6, 0)] {
            bytes.extend([0, 0, len, kind, 0, 0x80, 0, 0, stream]);
            bytes.extend(vec![0xff; len.into()]);
        }
        for size in [1, 2, 3, 9, 10, 24, 1000] {
            let mut heads = Heads::new(24);
            let mut seen = Vec::new();
            for part in bytes.chunks(size) {
                heads.feed(part, |head| seen.push((head.kind, head.len, head.stream)));
            }
            assert_eq!(seen, [(4, 0, 0), (1, 5, 1), (0, 0, 1), (3, 4, 1), (6, 8, 0)], "in pieces of {size}");
            assert!(heads.is_between_frames());
        }
    }

    #[test]
    fn what_costs_nothing_is_counted() {
        let mut counts = Counts { since: Instant::now(), requests: 0, resets: 0, control: 0 };
        let mut count = |kind, len, flags| counts.count(&Head { len, kind, flags, stream: 1 });
        for (kind, len, flags) in [(0, 0, 1), (0, 9, 0), (1, 0, 4), (8, 4, 0), (9, 1, 0), (5, 4, 0)] {
            count(kind, len, flags);
        }
        for (kind, len, flags) in [(0, 0, 0), (2, 5, 0), (4, 6, 0), (6, 8, 0), (9, 0, 0), (0x10, 3, 0), (0xfe, 3, 0)] {
            count(kind, len, flags);
        }
        count(3, 4, 0);
        assert_eq!((counts.requests, counts.control, counts.resets), (1, 7, 1));
    }
}
