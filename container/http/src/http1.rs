//! HTTP/1 connections.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use wharf_kernel::Connection;

use crate::berth::Guard;
use crate::clock::Slot;
use crate::link::{Link, Linked};
use crate::paced::Paced;
use crate::pipeline::{self, Common, Pipeline};
use crate::request_id;
use crate::worker::{CUT, OPEN, state};

/// So many bytes of an answer are collected for one system call, and of a request's content are read with one, where there are so many. With 64 KiB
/// a large download took 1.19 times the processor time, with 400 KiB 0.97 times.
const BUFFERED: usize = 256 * 1024;

/// Serves one HTTP/1 connection to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    connection: Connection,
    guard: Guard,
) {
    let connection = Arc::new(connection);
    let (shared, berth) = (guard.worker.clone(), guard.berth.clone());
    let link = Link::new(guard);
    let limits = &shared.pipeline.limits;
    let slot = Slot::new(shared.began, limits, false);
    let common =
        Common { worker: shared.clone(), connection: connection.clone(), slot: slot.clone(), link: Some(link.clone()) };
    let common = Arc::new(common);
    let service = service_fn(move |request| Pipeline::begin(&common, request));
    let mut builder = http1::Builder::new();
    builder
        // The slot times heads: hyper would look for the next one at the end of each request, to start a timer.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes + limits.target_bytes)
        .max_buf_size((limits.header_bytes + limits.target_bytes).max(BUFFERED))
        .half_close(false)
        .keep_alive(true);
    // 100 is hyper's own limit; any other makes it parse each head on the heap.
    if limits.header_count != 100 {
        builder.max_headers(limits.header_count);
    }
    let paced = Paced::new(stream, slot.clone());
    let stream = TokioIo::new(Linked::new(paced, link.clone()));
    let mut served = pin!(builder.serve_connection(stream, service).with_upgrades());
    let (mut seen, mut registered) = (OPEN, false);
    let result = poll_fn(|cx| {
        if !registered {
            registered = true;
            berth.register(cx.waker(), &slot, Some(&link));
        }
        let state = state();
        if slot.is_cut() || state == CUT {
            return Poll::Ready(Ok(()));
        }
        if state != seen {
            seen = state;
            served.as_mut().graceful_shutdown();
        }
        match served.as_mut().poll(cx) {
            // The next head, or the rest of one, did not come in time.
            Poll::Pending if slot.is_late_head() => Poll::Ready(Ok(())),
            polled => polled,
        }
    })
    .await;
    // Not one poll later: whoever has the upgraded socket now is on this thread, too.
    link.http_is_over();
    let remote = &*connection.remote_text;
    if slot.is_cut() && slot.refused.get().is_none() {
        tracing::info!(remote, "the client does not take what is sent: the connection is cut");
    }
    if let Err(error) = result {
        if error.is_parse() {
            let status = if error.is_parse_too_large() { 431 } else { 400 };
            let (status, id) = match slot.refused.get() {
                Some((status, id)) => (status.as_u16(), id.clone()),
                // hyper answered by itself: behind another answer, or with none.
                None => (status, request_id::next()),
            };
            pipeline::write_refused(&shared.pipeline, &connection, status, &id);
            tracing::info!(remote, "refused what is not a valid HTTP/1 request: {error}");
        } else {
            tracing::debug!(remote, "the connection ended early: {error}");
        }
    }
}
