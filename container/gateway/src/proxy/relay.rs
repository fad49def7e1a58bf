//! The body of a backend's response on its way to the client. When it was read to its end, the connection is kept.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use wharf_kernel::{Body, BoxError, Lease};
use wharf_worker::Timer;

use super::member::{Conn, Member, Turn};

/// What is held for a response until its end.
type Held = (Arc<Member>, Conn, Turn);

/// The body of a response. What came together with the head is most often all of it: then nothing is held any more.
pub(crate) async fn body(
    mut incoming: Incoming,
    held: Held,
    idle: Duration,
    deadline: Option<Instant>,
    lease: Lease,
) -> Body {
    let mut first = None;
    if !incoming.is_end_stream() {
        // Once, without waiting.
        let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut incoming).poll_frame(cx))).await;
        match polled {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if incoming.is_end_stream() => {
                    let (member, conn, _turn) = held;
                    member.give_back(conn);
                    return Body::from(data);
                }
                Ok(data) => first = Some(Ok(Frame::data(data))),
                Err(trailers) => first = Some(Ok(trailers)),
            },
            Poll::Ready(Some(Err(error))) => first = Some(Err(error.into())),
            // Ended, or there is nothing yet: both are seen again.
            Poll::Ready(None) | Poll::Pending => {}
        }
    }
    Body::new(Relayed::new(incoming, first, held, idle, deadline, lease))
}

/// See the module.
struct Relayed {
    incoming: Incoming,
    /// What was read before the body was asked for.
    first: Option<Result<Frame<Bytes>, BoxError>>,
    /// Until the end.
    held: Option<Held>,
    idle: Duration,
    timer: Option<Timer>,
    deadline: Option<Timer>,
    _lease: Lease,
}

impl Relayed {
    fn new(
        incoming: Incoming,
        first: Option<Result<Frame<Bytes>, BoxError>>,
        held: Held,
        idle: Duration,
        deadline: Option<Instant>,
        lease: Lease,
    ) -> Self {
        let deadline = deadline.map(Timer::at);
        let mut this = Self { incoming, first, held: Some(held), idle, timer: None, deadline, _lease: lease };
        this.end_if_done();
        this
    }

    fn end_if_done(&mut self) {
        if self.incoming.is_end_stream()
            && let Some((member, conn, _turn)) = self.held.take()
        {
            member.give_back(conn);
        }
    }
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            if first.is_err() {
                this.held = None;
            }
            return Poll::Ready(Some(first));
        }
        if this.deadline.as_mut().is_some_and(|d| Pin::new(d).poll(cx).is_ready()) {
            return Poll::Ready(Some(Err("the response took longer than proxy.total_timeout".into())));
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => {
                // The timer runs only while the backend is waited for.
                let idle = this.idle;
                let timer = this.timer.get_or_insert_with(|| Timer::after(idle));
                if Pin::new(timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err("the backend sent nothing for proxy.idle_timeout".into())))
            }
            Poll::Ready(frame) => {
                this.timer = None;
                match &frame {
                    Some(Ok(_)) => this.end_if_done(),
                    Some(Err(_)) => this.held = None,
                    None => {
                        if let Some((member, conn, _turn)) = this.held.take() {
                            member.give_back(conn);
                        }
                    }
                }
                Poll::Ready(frame.map(|f| f.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len) as u64,
            _ => 0,
        };
        let mut all = SizeHint::new();
        all.set_lower(rest.lower() + first);
        rest.upper().into_iter().for_each(|upper| all.set_upper(upper + first));
        all
    }
}
