//! The body of a response on its way out: when it ends, so does the request, and what happened is written down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use wharf_kernel::counters::LocalCounts;
use wharf_kernel::{AccessRecord, Body, BoxError, RequestId};

use crate::clock::Stream;
use crate::dispatch::Mapped;
use crate::pipeline::Common;
use crate::request_body::Progress;
use crate::response::Asked;
use crate::watch;

/// A request from its begin to the last byte of its answer. Ends it when it is dropped: counts it and hands its record to the
/// access log.
pub(crate) struct Tail {
    /// The connection's, not the pipeline's: a count that all workers share would be passed between processors all the time.
    pub(crate) common: Arc<Common>,
    pub(crate) began: Instant,
    /// What must be known of the request once the endpoint owns it.
    pub(crate) asked: Asked,
    /// The request's id.
    pub(crate) id: RequestId,
    /// Whether the connection has had as many requests as it may.
    pub(crate) last: bool,
    /// Whether the connection is secure.
    pub(crate) secure: bool,
    pub(crate) mapped: Option<Mapped>,
    pub(crate) status: u16,
    pub(crate) sent: u64,
    /// Whether the endpoint has been polled.
    pub(crate) polled: bool,
    /// How long it took, where the answer was there at once and in one piece.
    pub(crate) answered: Option<Duration>,
    pub(crate) received: Option<Arc<Progress>>,
    pub(crate) ended: bool,
    /// The record, made at the beginning where the access log wants one.
    pub(crate) record: Option<Box<AccessRecord>>,
    /// What is waited for, on an HTTP/2 connection.
    pub(crate) stream: Option<Stream>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if !self.common.slot.http2 && self.status != StatusCode::SWITCHING_PROTOCOLS {
            self.common.slot.replied();
        }
        let duration = self.answered.unwrap_or_else(|| self.began.elapsed());
        match &self.mapped {
            Some(Mapped { app, .. }) => {
                let received = self.received.as_ref().map_or(0, |p| p.bytes.load(Ordering::Relaxed));
                app.end(self.status, received, self.sent, duration);
            }
            None => self.common.worker.pipeline.counters.answered_unmapped(self.status),
        }
        if let Some(mut record) = self.record.take() {
            record.time = SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH);
            record.status = self.status;
            record.bytes = self.sent;
            record.duration = duration;
            record.app = self.mapped.as_ref().map(|mapped| LocalCounts::clone(&mapped.app));
            record.aborted = !self.ended;
            self.common.worker.pipeline.access.record(*record);
        }
    }
}

/// A response body with its [`Tail`].
pub(crate) struct ResponseBody {
    pub(crate) body: Body,
    pub(crate) tail: Box<Tail>,
}

impl ResponseBody {
    /// `sends` is false where the body is announced but not sent (HEAD): then it counts as ended from the start.
    pub(crate) fn new(body: Body, mut tail: Box<Tail>, sends: bool) -> Self {
        tail.ended = !sends || body.is_end_stream();
        if let Some(stream) = &mut tail.stream {
            stream.wait();
        }
        Self { body, tail }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(stream) = &mut this.tail.stream {
            stream.pulled();
        }
        let polled = catch_unwind(AssertUnwindSafe(|| {
            let Self { body, tail } = &mut *this;
            match &tail.mapped {
                Some(Mapped { app, path }) if body.is_stream() => {
                    watch::during(app, &tail.id, path, || Pin::new(body).poll_frame(cx))
                }
                _ => Pin::new(body).poll_frame(cx),
            }
        }))
        .unwrap_or_else(|_| {
            this.tail.common.worker.pipeline.counters.panicked();
            this.body = Body::empty();
            Poll::Ready(Some(Err("the response body panicked".into())))
        });
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.tail.sent += data.len() as u64;
                }
                this.tail.ended = this.body.is_end_stream();
                if let Some(stream) = &mut this.tail.stream {
                    stream.wait();
                }
            }
            Poll::Ready(None) => this.tail.ended = true,
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(request = &*this.tail.id, "the response broke off: {error}");
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
