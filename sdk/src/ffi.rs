//! Requests and responses as they cross the border.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri, Version};
use http_body::{Body as HttpBody, Frame as HttpFrame, SizeHint};
use tokio::runtime::Handle;
use wharf_abi::{
    FfiBody, FfiBytes, FfiRequest, FfiResponse, FfiResponseBody, FfiUpgrade, Frame, Header, PollFrame, RawStr, Trailer,
    contain,
};

use crate::body::BodyKind;
use crate::facts::{LocalContext, RequestFacts, write_target};
use crate::log::for_request;
use crate::request::Crossed;
use crate::response::ResponseParts;
use crate::tunnel::Tunnel;
use crate::upgrade::Switch;
use crate::{Body, BoxError, Response, field_set};

/// Makes a request of what the container handed over.
pub(crate) fn request(mut ffi: FfiRequest, context: &LocalContext) -> Result<Crossed, http::Error> {
    let body = ffi.body.take().map_or_else(Body::empty, |body| Body::new(Incoming { body, ended: false }));
    let method = Method::from_bytes(ffi.text(|h| h.method).as_bytes())?;
    let version = version(ffi.head().version);
    Ok(Crossed { method, version, body, facts: RequestFacts::crossed(ffi, context.clone()) })
}

fn version(number: u8) -> Version {
    match number {
        9 => Version::HTTP_09,
        10 => Version::HTTP_10,
        20 => Version::HTTP_2,
        30 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

/// The path of the target in the context, and the query.
pub(crate) fn target(ffi: &FfiRequest) -> (&str, Option<&str>) {
    (ffi.text(|h| h.path), ffi.head().has_query.then(|| ffi.text(|h| h.query)))
}

/// The target in the context, and the header fields. The target and all values share one buffer: one copy, however many there are.
pub(crate) fn target_and_headers(ffi: &FfiRequest, context_path: &str) -> (Uri, HeaderMap) {
    let (path, query) = target(ffi);
    let values: usize = ffi.headers().map(|(_, value)| value.len()).sum();
    // For '/', '?', and a byte more than is ever filled: `Bytes` of a full buffer must be made shareable at its first clone.
    let mut buffer = Vec::with_capacity(path.len() + query.map_or(0, str::len) + values + 3);
    write_target(&mut buffer, path, context_path, query);
    let target = buffer.len();
    ffi.headers().for_each(|(_, value)| buffer.extend_from_slice(value));
    let mut buffer = Bytes::from(buffer);
    let uri = Uri::from_maybe_shared(buffer.split_to(target));
    (uri.expect("the container sends targets that it has read as such"), table(ffi, buffer))
}

/// The header fields, whose values share one buffer.
pub(crate) fn headers(ffi: &FfiRequest) -> HeaderMap {
    let mut buffer = Vec::with_capacity(ffi.headers().map(|(_, value)| value.len()).sum());
    ffi.headers().for_each(|(_, value)| buffer.extend_from_slice(value));
    table(ffi, buffer.into())
}

/// A table of the header fields, of which `buffer` has the values.
fn table(ffi: &FfiRequest, mut buffer: Bytes) -> HeaderMap {
    let values = ffi.headers().map(|(_, value)| {
        // SAFETY: what the container sends is what it has read as a field value (`Header::value`).
        unsafe { HeaderValue::from_maybe_shared_unchecked(buffer.split_to(value.len())) }
    });
    field_set::table(ffi.headers().map(|(name, _)| name), values)
}

/// Content that the container gives.
pub(crate) fn body(body: FfiBody) -> Body {
    Body::new(Incoming { body, ended: false })
}

/// The request's content, read from the container.
struct Incoming {
    body: FfiBody,
    ended: bool,
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<HttpFrame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = self.body.poll_frame(cx) else { return Poll::Pending };
        Poll::Ready(match frame {
            Frame::Pending | Frame::End => {
                self.ended = true;
                None
            }
            Frame::Data(bytes) => Some(Ok(HttpFrame::data(Bytes::from_owner(bytes)))),
            Frame::Trailers(list) => {
                let mut trailers = HeaderMap::with_capacity(list.len());
                for trailer in &list {
                    let name = HeaderName::from_bytes(trailer.name.as_bytes());
                    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&trailer.value)) {
                        trailers.append(name, value);
                    }
                }
                Some(Ok(HttpFrame::trailers(trailers)))
            }
            Frame::Error(message) => {
                self.ended = true;
                Some(Err(message.into_string().into()))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.body.exact_len().map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// Content up to this size is lent with the head: the container copies it in any case.
const LEND_UP_TO: usize = 1024;
/// Header lines that cost no allocation of their own.
const FEW: usize = 4;

/// Room in a response for the views of its header lines, of which the container reads: in place while they are few.
pub(crate) struct Lines {
    few: [MaybeUninit<Header>; FEW],
    many: Vec<Header>,
}

// SAFETY: the views are made by `response` below, which has the response to itself, and read by the container alone.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

impl Lines {
    pub(crate) const EMPTY: Self = Self { few: [MaybeUninit::uninit(); FEW], many: Vec::new() };

    fn fill(&mut self, headers: &HeaderMap) -> *const [Header] {
        let lines = headers.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes()));
        if headers.len() > FEW {
            self.many.extend(lines);
            return &raw const self.many[..];
        }
        let filled = self.few.iter_mut().zip(lines).map(|(place, line)| place.write(line)).count();
        self.filled(filled)
    }

    fn only(&mut self, name: &'static HeaderName, value: &HeaderValue) -> *const [Header] {
        self.few[0].write(Header::new(name.as_str(), value.as_bytes()));
        self.filled(1)
    }

    /// The first `count` lines, which have been filled.
    fn filled(&self, count: usize) -> *const [Header] {
        std::ptr::slice_from_raw_parts(self.few.as_ptr().cast(), count)
    }
}

/// Hands a response over, as it stands. A streamed body is polled inside `runtime`, for the request with this `id`.
pub(crate) fn response(mut response: Response, runtime: &Handle, id: &str) -> FfiResponse {
    let status = response.status_code();
    let body = match Switch::of(status, response.extensions_mut()) {
        Some(handler) => FfiResponseBody::Upgrade(FfiUpgrade::new(Tunnel::new(handler, runtime.clone(), id.into()))),
        None => content(response.body_mut(), runtime, id),
    };
    let mut outside = response.into_inner();
    let ResponseParts { content_type, headers, body: lent, lines, .. } = &mut *outside;
    // Names and values do not move before `release`: nor does the box, and standard names are static.
    let list: *const [Header] = match (headers.get(), content_type) {
        (Some(headers), _) => lines.fill(headers),
        (None, Some(value)) => lines.only(&CONTENT_TYPE, value),
        (None, None) => lines.filled(0),
    };
    let lent = RawStr::from_bytes(match lent.kind() {
        BodyKind::Full(bytes) => bytes,
        _ => &[],
    });
    let owner = Box::into_raw(outside);
    unsafe extern "C" fn release(owner: *const ()) {
        // SAFETY: the box made above, released once.
        let outside = unsafe { Box::from_raw(owner.cast::<ResponseParts>().cast_mut()) };
        contain(|| drop(outside));
    }
    // SAFETY: the list, all it points to and the content live until `release`, on whatever thread: a response is `Send`.
    unsafe { FfiResponse::new(status.as_u16(), &*list, lent, owner.cast_const().cast(), release, body) }
}

/// Takes the content out, but for what is lent.
fn content(body: &mut Body, runtime: &Handle, id: &str) -> FfiResponseBody {
    match body.kind() {
        BodyKind::Full(bytes) if bytes.len() <= LEND_UP_TO => return FfiResponseBody::Lent,
        _ => {}
    }
    match std::mem::take(body).into_kind() {
        BodyKind::Empty => FfiResponseBody::Empty,
        BodyKind::Full(bytes) => FfiResponseBody::Full(FfiBytes::from_owner(bytes)),
        BodyKind::Stream(stream) => {
            let stream = stream.into_inner().unwrap_or_else(PoisonError::into_inner);
            let exact = stream.size_hint().exact();
            let outgoing = Outgoing { stream: Some(stream), runtime: runtime.clone(), id: id.into() };
            FfiResponseBody::Stream(FfiBody::new(outgoing, exact))
        }
    }
}

/// A streamed response body, polled and dropped inside the module's runtime.
struct Outgoing {
    /// `Some` until it is dropped.
    stream: Option<Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError> + Send>>>,
    runtime: Handle,
    id: Arc<str>,
}

impl Outgoing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Frame> {
        let Self { stream, runtime, id } = self;
        let Some(stream) = stream else { return Poll::Ready(Frame::End) };
        let _inside = runtime.enter();
        for_request(id, || stream.as_mut().poll_frame(cx)).map(|frame| match frame {
            None => Frame::End,
            Some(Err(error)) => Frame::Error(error.to_string().into()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Frame::Data(FfiBytes::from_owner(data)),
                Err(frame) => Frame::Trailers(
                    frame
                        .into_trailers()
                        .unwrap_or_default()
                        .iter()
                        .map(|(name, value)| Trailer { name: name.as_str().into(), value: value.as_bytes().into() })
                        .collect(),
                ),
            },
        })
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        for_request(&self.id, || self.stream = None);
    }
}

impl PollFrame for Outgoing {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Frame> {
        self.poll(cx)
    }
}
