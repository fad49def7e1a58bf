//! The body of a request on its way in: capped, not left idle, and read to its end when the application does not.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use wharf_kernel::BoxError;
use wharf_worker::{Timer, timeout};

use crate::Limits;
use crate::clock::{Content, Slot};
use crate::homed;
use crate::task;
use crate::worker::Shared;

/// What the pipeline learns of a body that the endpoint owns.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Content bytes received.
    pub(crate) bytes: AtomicU64,
    /// Whether there were more than allowed.
    pub(crate) too_large: AtomicBool,
    /// Whether the client stopped sending.
    pub(crate) stalled: AtomicBool,
}

/// Waiting that a client is given before its rate counts.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// A request body with a cap.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    left: u64,
    idle: Duration,
    min_rate: u32,
    /// How long the client was waited for so far, and since when it is now.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Option<Timer>,
    /// `None` once the client has sent all of it.
    rest: Option<Rest>,
    progress: Arc<Progress>,
    worker: Arc<Shared>,
    done: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, worker: &Arc<Shared>, progress: Arc<Progress>, slot: &Arc<Slot>) -> Self {
        let limits = &worker.pipeline.limits;
        Self {
            incoming: Some(incoming),
            left: limits.body_bytes,
            idle: limits.body_idle,
            min_rate: limits.body_min_rate,
            waited: Duration::ZERO,
            waiting: None,
            timer: None,
            rest: Some(Rest::new(limits, slot)),
            progress,
            worker: worker.clone(),
            done: false,
        }
    }

    /// How long the client may keep the application waiting from now on: the idle limit, or until it is slower than the
    /// lowest rate.
    fn patience(&self) -> Duration {
        let bytes = self.progress.bytes.load(Ordering::Relaxed).saturating_mul(1000);
        let Some(earned) = bytes.checked_div(self.min_rate.into()) else { return self.idle };
        let credit = RATE_GRACE.saturating_add(Duration::from_millis(earned)).saturating_sub(self.waited);
        self.idle.min(credit)
    }

    /// Ends it with an error. What the client still sends is drained when this is dropped.
    fn fail(&mut self, why: &'static str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.done = true;
        Poll::Ready(Some(Err(why.into())))
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            // The timer runs only while the client is waited for.
            if this.waiting.is_none() {
                let now = Instant::now();
                this.waiting = Some(now);
                let at = now + this.patience();
                match &mut this.timer {
                    Some(timer) => timer.reset(at),
                    None => this.timer = Some(homed::timer(&this.worker, at)),
                }
            }
            let Some(timer) = &mut this.timer else { return Poll::Pending };
            ready!(Pin::new(timer).poll(cx));
            this.progress.stalled.store(true, Ordering::Relaxed);
            this.incoming = None;
            return this.fail("the client sends the request body too slowly, or no more");
        };
        if let Some(since) = this.waiting.take() {
            this.waited += since.elapsed();
        }
        if !matches!(frame, Some(Ok(_))) || this.incoming.as_ref().is_none_or(HttpBody::is_end_stream) {
            this.rest = None;
        }
        match frame {
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.progress.bytes.fetch_add(len, Ordering::Relaxed);
                match this.left.checked_sub(len) {
                    Some(left) => this.left = left,
                    None => {
                        this.progress.too_large.store(true, Ordering::Relaxed);
                        return this.fail("the request body is larger than allowed");
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.done = true;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.done = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(incoming), Some(rest)) = (self.incoming.take(), self.rest.take())
            && !incoming.is_end_stream()
        {
            rest.drain(incoming);
        }
    }
}

/// What the client still sends of a body that nobody reads any more.
pub(crate) struct Rest {
    left: u64,
    time: Duration,
    content: Content,
}

impl Rest {
    pub(crate) fn new(limits: &Limits, slot: &Arc<Slot>) -> Self {
        Self { left: limits.drain_bytes, time: limits.drain_time, content: Content::begin(slot) }
    }

    /// Reads it within the limits, so that the connection can be used again. If there is more, the connection is closed in
    /// stages.
    pub(crate) fn drain(self, mut incoming: Incoming) {
        let Self { mut left, time, content } = self;
        let slot = content.slot.clone();
        let begun = task::spawn(async move {
            let whole = async {
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                    match left.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
                true
            };
            if timeout(time, whole).await != Some(true) {
                content.slot.leave_unread();
            }
        });
        if !begun {
            // A thread of the application let go of it.
            slot.leave_unread();
        }
    }
}
