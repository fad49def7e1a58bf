//! The content of a request or a response.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::BoxError;

type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>;

/// The content of a request or a response: nothing, one chunk, or a stream of chunks.
///
/// It is an [`http_body::Body`], so everything made for those works with it. No variant copies what it is given.
///
/// ```
/// use wharf_sdk::Body;
///
/// assert!(Body::empty().is_empty());
/// let text = Body::from("hello");
/// assert!(!text.is_empty());
/// ```
#[derive(Default)]
pub struct Body(BodyKind, Option<Box<HeaderMap>>);

/// What a [`Body`] is inside.
#[derive(Default)]
#[doc(hidden)]
pub enum BodyKind {
    /// Nothing.
    #[default]
    Empty,
    /// All of it.
    Full(Bytes),
    /// A stream. The mutex is never locked across a call; it makes the body `Sync`, so that a `&Request` may be held
    /// across an await.
    Stream(Mutex<BoxBody>),
}

impl Body {
    /// A body without content.
    pub const fn empty() -> Self {
        Self::of(BodyKind::Empty)
    }

    const fn of(kind: BodyKind) -> Self {
        Self(kind, None)
    }

    /// Any other body. One that has ended already becomes [`Body::empty`], a `Body` stays what it is.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(same) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return same.take().unwrap_or_default();
        }
        match body {
            Some(body) if !body.is_end_stream() => {
                Self::of(BodyKind::Stream(Mutex::new(Box::pin(http_body_util::BodyExt::map_err(body, Into::into)))))
            }
            _ => Self::empty(),
        }
    }

    /// A body from a stream of chunks. Its length is not known ahead, so HTTP/1.1 sends it chunked.
    ///
    /// An error ends the response in the middle: the connection is cut, for that is all HTTP can do once a response has
    /// begun.
    pub fn from_stream<S, C, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: Into<Bytes>,
        E: Into<BoxError>,
    {
        Self::of(BodyKind::Stream(Mutex::new(Box::pin(StreamBody { stream, left: None }))))
    }

    /// A body from a stream of chunks that are so many bytes together: it is sent with a `Content-Length`.
    ///
    /// A stream that turns out shorter or longer is an error, and the connection is cut.
    pub fn from_stream_of<S, C, E>(len: u64, stream: S) -> Self
    where
        S: Stream<Item = Result<C, E>> + Send + 'static,
        C: Into<Bytes>,
        E: Into<BoxError>,
    {
        Self::of(BodyKind::Stream(Mutex::new(Box::pin(StreamBody { stream, left: Some(len) }))))
    }

    /// True when there is no content at all.
    pub fn is_empty(&self) -> bool {
        self.is_end_stream()
    }

    /// The next chunk; `None` at the end. [`Body::trailers`] has what came after the last one.
    ///
    /// # Errors
    /// What broke the stream, such as a client that went away.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.1.get_or_insert_default().extend(trailers);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The trailers (RFC 9110, section 6.5), once [`Body::chunk`] has come to the end; `None` before, and when there were none.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.1.as_deref()
    }

    /// What is left of a body that has been read to its end: the trailers.
    pub(crate) fn ended(self) -> Self {
        Self(BodyKind::Empty, self.1)
    }

    /// The content as a blocking reader, for a [`BlockingServlet`](crate::BlockingServlet).
    ///
    /// Reading waits on the thread: never do it in an `async fn`.
    pub fn into_reader(self) -> impl io::Read + Send {
        BodyReader { body: self, chunk: Bytes::new() }
    }

    pub(crate) fn kind(&self) -> &BodyKind {
        &self.0
    }

    /// Takes it apart.
    #[doc(hidden)]
    pub fn into_kind(self) -> BodyKind {
        self.0
    }

    /// [`Body::new`], and in one piece where it is there in one piece already: frameworks wrap even short texts in a stream,
    /// and a stream costs several calls across the border.
    pub(crate) fn settled<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        #[cfg(feature = "axum")]
        let body = {
            let mut body = Some(body);
            if let Some(body) = (&mut body as &mut dyn Any).downcast_mut::<Option<axum_core::body::Body>>() {
                // It can be looked at before it is boxed once more.
                return body.take().map_or_else(Self::empty, Self::looked_at);
            }
            let Some(body) = body else { return Self::empty() };
            body
        };
        match Self::new(body) {
            Self(BodyKind::Stream(stream), _) => {
                Self::looked_at(stream.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
            }
            other => other,
        }
    }

    fn looked_at<B>(mut body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
        B::Error: Into<BoxError>,
    {
        const MOST: u64 = 1 << 20;
        let boxed = |body: B| http_body_util::BodyExt::map_err(body, Into::into);
        let stream = |body| Self::of(BodyKind::Stream(Mutex::new(body)));
        let Some(len) = body.size_hint().exact().filter(|len| *len <= MOST) else {
            return stream(Box::pin(boxed(body)));
        };
        // A body that isn't ready is asked again later, with the waker that counts then.
        match Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Some(Ok(frame)))
                if body.is_end_stream() && frame.data_ref().is_some_and(|d| d.len() as u64 == len) =>
            {
                frame.into_data().map_or_else(|_| Self::empty(), Self::from)
            }
            Poll::Ready(None) => Self::empty(),
            Poll::Ready(Some(first)) => {
                let first = Some(first.map_err(Into::into));
                stream(Box::pin(Begun { first, rest: Box::pin(boxed(body)), len }))
            }
            Poll::Pending => stream(Box::pin(boxed(body))),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            BodyKind::Empty => Poll::Ready(None),
            BodyKind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = BodyKind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            BodyKind::Stream(body) => {
                body.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).as_mut().poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Empty => true,
            BodyKind::Full(bytes) => bytes.is_empty(),
            BodyKind::Stream(body) => body.lock().is_ok_and(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Empty => SizeHint::with_exact(0),
            BodyKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Stream(body) => body.lock().map(|body| body.size_hint()).unwrap_or_default(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            BodyKind::Empty => f.write_str("Body::Empty"),
            BodyKind::Full(bytes) => write!(f, "Body::Full({} bytes)", bytes.len()),
            BodyKind::Stream(_) => f.write_str("Body::Stream"),
        }
    }
}

macro_rules! full {
    ($($from:ty, $name:ident => $bytes:expr;)*) => {$(
        impl From<$from> for Body {
            fn from($name: $from) -> Self {
                let bytes: Bytes = $bytes;
                if bytes.is_empty() { Self::empty() } else { Self::of(BodyKind::Full(bytes)) }
            }
        }
    )*};
}

full! {
    Bytes, bytes => bytes;
    String, text => text.into();
    &'static str, text => Bytes::from_static(text.as_bytes());
    &'static [u8], bytes => Bytes::from_static(bytes);
    Vec<u8>, bytes => bytes.into();
    std::borrow::Cow<'static, str>, text => match text {
        std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        std::borrow::Cow::Owned(text) => text.into(),
    };
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

pin_project_lite::pin_project! {
    struct StreamBody<S> {
        #[pin]
        stream: S,
        // Bytes still to come, where that is known.
        left: Option<u64>,
    }
}

impl<S, C, E> HttpBody for StreamBody<S>
where
    S: Stream<Item = Result<C, E>>,
    C: Into<Bytes>,
    E: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let chunk = match ready!(this.stream.poll_next(cx)) {
            Some(Ok(chunk)) => chunk.into(),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => {
                let missing = this.left.take().unwrap_or(0);
                let short = || Err(format!("the stream ended {missing} bytes before its stated length").into());
                return Poll::Ready((missing > 0).then(short));
            }
        };
        if let Some(left) = this.left {
            let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                return Poll::Ready(Some(Err("the stream is longer than its stated length".into())));
            };
            *left = rest;
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A stream whose first frame has been taken.
struct Begun {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: BoxBody,
    len: u64,
}

impl HttpBody for Begun {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.first.take() {
            Some(first) => {
                self.len = 0;
                Poll::Ready(Some(first))
            }
            None => self.rest.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() { SizeHint::with_exact(self.len) } else { self.rest.size_hint() }
    }
}

struct BodyReader {
    body: Body,
    chunk: Bytes,
}

impl io::Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match crate::blocking::block_on(self.body.chunk()) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let len = out.len().min(self.chunk.len());
        out[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn stream_of(parts: &'static [&'static str]) -> Body {
        struct Parts(std::slice::Iter<'static, &'static str>, u64);
        impl HttpBody for Parts {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                let next = self.0.next();
                self.1 -= next.map_or(0, |part| part.len() as u64);
                Poll::Ready(next.map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes())))))
            }
            fn is_end_stream(&self) -> bool {
                self.0.len() == 0
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(self.1)
            }
        }
        Body::new(Parts(parts.iter(), parts.iter().map(|p| p.len() as u64).sum()))
    }

    #[tokio::test]
    async fn a_whole_body_settles_and_a_longer_one_loses_nothing() {
        assert!(matches!(Body::settled(stream_of(&["whole"])).into_kind(), BodyKind::Full(b) if b == "whole"));
        #[cfg(feature = "axum")]
        {
            let body = |text: &'static str| Body::settled(axum_core::body::Body::from(text)).into_kind();
            assert!(matches!(body("whole"), BodyKind::Full(bytes) if bytes == "whole"));
            assert!(matches!(body(""), BodyKind::Empty));
            let long = Body::settled(axum_core::body::Body::new(stream_of(&["one ", "two"])));
            assert_eq!(long.collect().await.unwrap().to_bytes(), "one two");
        }
        let long = Body::settled(stream_of(&["one ", "two ", "three"]));
        assert_eq!(long.size_hint().exact(), Some(13));
        assert_eq!(long.collect().await.unwrap().to_bytes(), "one two three");
    }

    #[tokio::test]
    async fn a_stream_keeps_to_its_stated_length() {
        struct Chunks(Vec<&'static str>);
        impl Stream for Chunks {
            type Item = Result<&'static str, BoxError>;
            fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
                Poll::Ready(self.0.pop().map(Ok))
            }
        }
        for (len, good) in [(6, true), (5, false), (7, false)] {
            let body = Body::from_stream_of(len, Chunks(vec!["def", "abc"]));
            assert_eq!(body.size_hint().exact(), Some(len));
            assert_eq!(body.collect().await.is_ok_and(|all| all.to_bytes() == "abcdef"), good, "{len}");
        }
    }

    #[test]
    fn a_body_of_a_body_is_that_body() {
        assert!(matches!(Body::new(Body::from("x")).into_kind(), BodyKind::Full(_)));
        assert!(Body::new(Body::empty()).is_empty());
        assert!(Body::from("").is_empty());
    }

    #[test]
    fn a_reader_reads_every_byte() {
        use std::io::Read;
        let mut text = String::new();
        stream_of(&["a", "", "bc"]).into_reader().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }
}
