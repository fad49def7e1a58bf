//! HTTP/2 connections: the protocol's limits, and its requests in the shape that HTTP/1.1 gives them.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{COOKIE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use wharf_kernel::Connection;

use crate::berth::Guard;
use crate::check;
use crate::clock::Slot;
use crate::frames::Counted;
use crate::paced::Paced;
use crate::pipeline::{Common, Pipeline};
use crate::task::Here;
use crate::timer::OfFrames;
use crate::worker::{self, CUT, OPEN};

/// What a client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Cancelled requests that the library has not begun to answer, and errors it answers by itself; beyond these it ends the
/// connection with ENHANCE_YOUR_CALM.
const PENDING_RESETS: usize = 20;
const LOCAL_RESETS: usize = 128;
/// Bytes of one answer that are kept for a client that opens no window.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(stream: S, connection: Connection, guard: Guard)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = Arc::new(connection);
    let shared = guard.worker.clone();
    let (limits, settings) = (&shared.pipeline.limits, &shared.pipeline.limits.http2);
    let slot = Slot::new(shared.began, limits, true);
    let common = Common { worker: shared.clone(), connection: connection.clone(), slot: slot.clone(), link: None };
    let common = Arc::new(common);
    let service = service_fn(move |mut request| {
        as_http1(&mut request);
        Pipeline::begin(&common, request)
    });
    let mut builder = http2::Builder::new(Here);
    builder
        .timer(OfFrames(slot.clone()))
        .max_concurrent_streams(settings.max_streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval((!settings.ping_interval.is_zero()).then_some(settings.ping_interval))
        .keep_alive_timeout(settings.ping_timeout);
    let stream = Counted::new(Paced::new(stream, slot.clone()), slot.clone(), settings);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let (mut seen, mut registered) = (OPEN, false);
    let result = poll_fn(|cx| {
        if !registered {
            registered = true;
            guard.berth.register(cx.waker(), &slot, None);
        }
        let state = worker::state();
        if state == CUT || slot.is_cut() {
            return Poll::Ready(Ok(()));
        }
        if state != seen || slot.is_idle() {
            seen = state;
            slot.leave();
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = result {
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
        tracing::info!(remote = &*connection.remote_text, "an HTTP/2 connection ended with an error: {error}{cause}");
    }
}

/// Gives a request the shape that it has in HTTP/1.1: target in origin form, the authority as Host, one Cookie header (RFC
/// 9113, sections 8.3.1 and 8.2.3). One whose Host and `:authority` differ, or with another scheme, is left as
/// it is, and refused by `check.rs`.
fn as_http1<B>(request: &mut Request<B>) {
    if request.method() == Method::CONNECT {
        return;
    }
    // One walk over the names costs less than a look-up for each of these.
    let (mut has_host, mut has_cookies) = (false, false);
    for name in request.headers().keys() {
        has_host |= *name == HOST;
        has_cookies |= *name == COOKIE;
    }
    if let (Some("http" | "https"), Some(authority)) = (request.uri().scheme_str(), request.uri().authority()) {
        if !has_host {
            let Some(value) = check::host_value(authority.as_str()) else { return };
            request.headers_mut().insert(HOST, value);
        } else {
            let mut hosts = request.headers().get_all(HOST).iter();
            let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
            if !(hosts.next().is_some_and(same) && hosts.next().is_none()) {
                return;
            }
        }
        if let Some(path) = request.uri().path_and_query().cloned() {
            *request.uri_mut() = Uri::from(path);
        }
    }
    if has_cookies && request.headers().get_all(COOKIE).iter().nth(1).is_some() {
        let all: Vec<&[u8]> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            request.headers_mut().insert(COOKIE, joined);
        }
    }
}

/// Reads as much as it takes to know whether the client speaks HTTP/2, and gives a stream that begins with it.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(bool, Replayed<S>)> {
    let mut first = [0; PREFACE.len()];
    let mut have = 0;
    while have < first.len() && first[..have] == PREFACE[..have] {
        match stream.read(&mut first[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    Ok((first == *PREFACE, Replayed { first, at: 0, have, inner: stream }))
}

/// A stream of which the first bytes were read already.
pub(crate) struct Replayed<S> {
    first: [u8; PREFACE.len()],
    at: usize,
    have: usize,
    inner: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Replayed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at == this.have {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let len = buf.remaining().min(this.have - this.at);
        buf.put_slice(&this.first[this.at..this.at + len]);
        this.at += len;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replayed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
    fn requests_get_the_shape_of_http1() {
        let request = |uri: &str, headers: &[(&'static str, &str)]| {
            let mut request = Request::new(());
            *request.uri_mut() = uri.parse().unwrap();
            for (name, value) in headers {
                request.headers_mut().append(*name, value.parse().unwrap());
            }
            as_http1(&mut request);
            let host = request.headers().get(HOST).map(|h| h.to_str().unwrap().to_owned());
            let cookies: Vec<_> =
                request.headers().get_all(COOKIE).iter().map(|c| c.to_str().unwrap().to_owned()).collect();
            (request.uri().to_string(), host, cookies)
        };
        let host = |name: &str| Some(name.to_owned());
        assert_eq!(request("https://a.b:1/c?d", &[]), ("/c?d".into(), host("a.b:1"), vec![]));
        assert_eq!(request("https://a/", &[("host", "A")]), ("/".into(), host("A"), vec![]));
        assert_eq!(request("https://a/", &[("host", "b")]).0, "https://a/");
        assert_eq!(request("https://a/", &[("host", "a"), ("host", "a")]).0, "https://a/");
        let crumbs = [("cookie", "a=1"), ("cookie", "b=2; c=3")];
        assert_eq!(request("/x", &crumbs), ("/x".into(), None, vec!["a=1; b=2; c=3".into()]));
    }

    #[test]
    fn the_preface_is_known_and_nothing_is_lost() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (bytes, http2) in [
            (&PREFACE[..], true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", true),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"PRI * HTTP/1.1\r\n\r\n", false),
            (b"P", false),
            (b"", false),
        ] {
            let mut all = Vec::new();
            let is = runtime.block_on(async {
                let (is, mut rest) = sniff(bytes).await.unwrap();
                rest.read_to_end(&mut all).await.unwrap();
                is
            });
            assert_eq!((is, &*all), (http2, bytes));
        }
    }
}
