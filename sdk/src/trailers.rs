//! Trailers: header fields that come after the content (RFC 9110, section 6.5).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::{Body, BoxError};

impl Body {
    /// The same content with trailers after it, which `make` gives when the content has been sent. They reach clients of
    /// HTTP/1.1 that say `TE: trailers`. [`Response::with_trailers`](crate::Response::with_trailers) announces them too.
    #[must_use]
    pub fn with_trailers(self, make: impl FnOnce() -> HeaderMap + Send + 'static) -> Self {
        Self::new(Trailing { body: self, make: Some(Box::new(make)) })
    }
}

/// A body with trailers after it.
struct Trailing {
    body: Body,
    make: Option<Box<dyn FnOnce() -> HeaderMap + Send>>,
}

impl HttpBody for Trailing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => self.make.take().map(|make| Ok(Frame::trailers(make()))),
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.make.is_none()
    }

    // Not that of the content: with a `Content-Length`, HTTP/1.1 has no place for trailers.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
