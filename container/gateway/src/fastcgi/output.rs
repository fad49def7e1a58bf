//! What an application says on a connection, taken apart: the response, lines for the log, and the end.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::codec::{self, kind};
use crate::program::errors::Lines;

/// Room for each read.
const READ: usize = 16 << 10;
/// The one request of a connection.
pub(super) const ID: u16 = 1;

/// How far an application has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Whether any byte came from it.
    pub(super) began: bool,
    /// Its own status and that of the protocol, at the end of the request.
    pub(super) end: Option<(u32, u8)>,
    /// Whether the connection can be used again: nothing came after the end.
    pub(super) clean: bool,
}

/// The response as a stream of bytes. It ends with the request; a connection that ends before is an error.
pub(super) struct Output<R> {
    from: R,
    read: BytesMut,
    content: Bytes,
    /// The response is whole; only the end of the request may follow.
    closed: bool,
    lines: Lines,
    progress: Arc<Mutex<Progress>>,
}

impl<R: AsyncRead + Unpin> Output<R> {
    pub(super) fn new(from: R, lines: Lines) -> (Self, Arc<Mutex<Progress>>) {
        let progress = Arc::<Mutex<Progress>>::default();
        let this = Self {
            from,
            read: BytesMut::new(),
            content: Bytes::new(),
            closed: false,
            lines,
            progress: progress.clone(),
        };
        (this, progress)
    }

    /// The connection.
    pub(super) fn into_reader(self) -> R {
        self.from
    }

    /// Deals with the records that are there. True at the end of the request.
    fn records(&mut self) -> io::Result<bool> {
        while self.content.is_empty() {
            let record =
                codec::take(&mut self.read).map_err(|v| wrong(format!("a record of version {v}, not of 1")))?;
            let Some(record) = record else { return Ok(false) };
            if record.id == 0 && matches!(record.kind, kind::GET_VALUES_RESULT | kind::UNKNOWN_TYPE) {
                continue;
            }
            if record.id != ID {
                return Err(wrong(format!("a record for a request {}, which there is not", record.id)));
            }
            match record.kind {
                kind::STDOUT if record.content.is_empty() => self.closed = true,
                kind::STDOUT if self.closed => return Err(wrong("a response after its end".into())),
                kind::STDOUT => self.content = record.content,
                kind::STDERR => self.lines.take(&record.content),
                kind::END_REQUEST => {
                    let end = codec::end_request(&record.content);
                    let end = end.ok_or_else(|| wrong("an END_REQUEST of a wrong length".into()))?;
                    let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
                    (progress.end, progress.clean) = (Some(end), self.read.is_empty());
                    return Ok(true);
                }
                other => return Err(wrong(format!("a record of type {other}, which is not an application's to send"))),
            }
        }
        Ok(false)
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Output<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.content.is_empty() {
                let length = this.content.len().min(buf.remaining());
                buf.put_slice(&this.content[..length]);
                this.content.advance(length);
                return Poll::Ready(Ok(()));
            }
            if this.progress.lock().unwrap_or_else(PoisonError::into_inner).end.is_some() || this.records()? {
                return Poll::Ready(Ok(()));
            }
            if !this.content.is_empty() {
                continue;
            }
            this.read.reserve(READ);
            let length = ready!(poll_read_buf(&mut this.from, cx, &mut this.read))?;
            if length == 0 {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the connection ended before the request did",
                )));
            }
            this.progress.lock().unwrap_or_else(PoisonError::into_inner).began = true;
        }
    }
}

/// Reads into the spare room of a buffer.
fn poll_read_buf<R: AsyncRead + Unpin>(
    from: &mut R,
    cx: &mut Context<'_>,
    to: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let reading = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(from, to));
    reading.poll(cx)
}

fn wrong(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it sent {what}"))
}
