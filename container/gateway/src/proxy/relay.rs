//! The body of a backend's response on its way to the client. When it was read to its end, the connection is kept.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wharf_kernel::{BoxError, Lease};

use super::member::{Conn, Member, Turn};

/// See the module.
pub(crate) struct Relayed {
    incoming: Incoming,
    /// Until the end.
    held: Option<(Arc<Member>, Conn, Turn)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    deadline: Option<Pin<Box<Sleep>>>,
    _lease: Lease,
}

impl Relayed {
    pub(crate) fn new(
        incoming: Incoming,
        held: (Arc<Member>, Conn, Turn),
        idle: Duration,
        deadline: Option<Instant>,
        lease: Lease,
    ) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut this = Self { incoming, held: Some(held), idle, timer: None, deadline, _lease: lease };
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
        if this.deadline.as_mut().is_some_and(|d| d.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err("the response took longer than proxy.total_timeout".into())));
        }
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => {
                // The timer runs only while the backend is waited for.
                let idle = this.idle;
                let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                if timer.as_mut().poll(cx).is_pending() {
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
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
