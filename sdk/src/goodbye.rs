//! Says goodbye on the WebSockets of a mounted application, which knows nothing of Wharf: when the application has to end,
//! each is closed with 1001, as the standard asks of a server that goes away (RFC 6455, section 7.4.1).
//!
//! What the application writes is followed from frame to frame, so that the close frame comes between two of them. What it
//! writes afterwards is thrown away; what the client answers, it reads, and takes for the client's own goodbye.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Upgraded;

/// An unmasked close frame with code 1001.
const CLOSE: [u8; 4] = [0x88, 2, (1001_u16 >> 8) as u8, 1001_u16 as u8];

/// The connection, shared by the application and whoever says goodbye.
#[derive(Clone)]
pub(crate) struct Polite(Arc<Mutex<State>>);

struct State {
    stream: Option<Upgraded>,
    frames: Frames,
    goodbye: Goodbye,
    /// The application, where it waits to write.
    writer: Option<Waker>,
    /// Whoever waits for the goodbye.
    host: Option<Waker>,
}

enum Goodbye {
    /// Not asked for.
    No,
    /// So much of it is to be written, as soon as a frame ends.
    Due(&'static [u8]),
    /// It is written, or the application has said its own.
    Said,
}

impl Polite {
    pub(crate) fn new(stream: Upgraded) -> Self {
        let (frames, goodbye) = (Frames::default(), Goodbye::No);
        Self(Arc::new(Mutex::new(State { stream: Some(stream), frames, goodbye, writer: None, host: None })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says goodbye, as soon as the application has written its frame.
    pub(crate) fn poll_goodbye(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state();
        if let Goodbye::No = state.goodbye {
            state.goodbye = if state.frames.closed { Goodbye::Said } else { Goodbye::Due(&CLOSE) };
        }
        state.host = Some(cx.waker().clone());
        // A connection that broke has no need of it.
        state.poll_say(cx).map(drop)
    }

    /// Closes the connection, whatever the application does.
    pub(crate) fn hang_up(&self) {
        let mut state = self.state();
        let stream = state.stream.take();
        wake(&mut state.host);
        drop(state);
        drop(stream);
    }

    /// Done when the connection is gone.
    pub(crate) fn poll_gone(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.stream.is_none() {
            return Poll::Ready(());
        }
        state.host = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl State {
    fn stream(&mut self) -> io::Result<Pin<&mut Upgraded>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    /// Writes what is due. `Ready` when nothing is.
    fn poll_say(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Goodbye::Due(rest) = self.goodbye {
            if !self.frames.is_between() {
                return Poll::Pending;
            }
            let written = match rest {
                [] => 0,
                rest => match ready!(self.stream()?.poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => written,
                },
            };
            let rest = &rest[written..];
            self.goodbye = Goodbye::Due(rest);
            if rest.is_empty() {
                ready!(self.stream()?.poll_flush(cx))?;
                self.goodbye = Goodbye::Said;
                wake(&mut self.writer);
                wake(&mut self.host);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The application's end.
pub(crate) struct Guest(pub(crate) Polite);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

impl AsyncRead for Guest {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.state().stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.state();
        loop {
            let now = match state.goodbye {
                Goodbye::No => bytes,
                Goodbye::Said if state.frames.closed => bytes,
                // Taken, and thrown away.
                Goodbye::Said => return Poll::Ready(Ok(bytes.len())),
                // To the end of the frame, and no further.
                Goodbye::Due(_) => &bytes[..state.frames.clone().take(bytes, true)],
            };
            if now.is_empty() && !bytes.is_empty() {
                if state.poll_say(cx)?.is_pending() {
                    state.writer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                continue;
            }
            let Poll::Ready(written) = state.stream()?.poll_write(cx, now)? else {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            };
            state.frames.take(&now[..written], false);
            if let Goodbye::Due(_) = state.goodbye {
                if state.frames.closed {
                    state.goodbye = Goodbye::Said;
                }
                wake(&mut state.host);
            }
            return Poll::Ready(Ok(written));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.state().stream()?.poll_shutdown(cx)
    }
}

/// Where in its frames a server is: none is masked (RFC 6455, section 5.1).
#[derive(Clone, Default)]
struct Frames {
    header: [u8; 10],
    have: usize,
    /// Content of the frame still to come.
    left: u64,
    /// A close frame has been written.
    closed: bool,
}

impl Frames {
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Follows `bytes`, all of them or to the end of the frame that has begun. Returns how many it followed.
    fn take(&mut self, bytes: &[u8], one_frame: bool) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if one_frame && self.is_between() {
                break;
            }
            if self.left > 0 {
                let rest = bytes.len() - taken;
                let now = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                (self.left, taken) = (self.left - now as u64, taken + now);
                continue;
            }
            self.header[self.have] = bytes[taken];
            (self.have, taken) = (self.have + 1, taken + 1);
            self.end_of_header();
        }
        taken
    }

    /// Begins the content when the header is whole.
    fn end_of_header(&mut self) {
        let header = &self.header;
        let (len, left) = match header[1] & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes([header[2], header[3]]))),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&header[2..]);
                (10, u64::from_be_bytes(long))
            }
            short => (2, u64::from(short)),
        };
        if self.have >= 2 && self.have == len {
            self.left = left;
            self.closed |= header[0] & 0x0f == 8;
            self.have = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_whatever_the_pieces() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x82, 126, 1, 0];
        bytes.extend([7; 256]);
        bytes.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        bytes.extend([7; 65_536]);
        bytes.extend([0x89, 0]);
        let ends = [4, 8 + 256, 8 + 256 + 10 + 65_536, bytes.len()];
        for size in [1, 3, 7, 1000, bytes.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for piece in bytes.chunks(size) {
                assert_eq!(frames.take(piece, false), piece.len());
                at += piece.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{at} in pieces of {size}");
            }
            assert!(!frames.closed);
            frames.take(&CLOSE, false);
            assert!(frames.closed && frames.is_between());
        }
        // From within a frame, to its end.
        let mut frames = Frames::default();
        frames.take(&bytes[..6], false);
        assert_eq!(frames.take(&bytes[6..], true), 2 + 256);
        assert_eq!(frames.take(&bytes[264..], true), 0);
    }
}
