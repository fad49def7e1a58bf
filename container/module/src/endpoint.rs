//! The bridge: a request goes across the border, a future comes back, and the response's body holds the lease.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame as HttpFrame, SizeHint};
use hyper::upgrade::OnUpgrade;
use wharf_abi::{
    Begun, FfiBody, FfiBytes, FfiFuture, FfiRequest, FfiResponse, FfiResponseBody, Frame, ModuleRef, Outcome,
    PollFrame, Trailer,
};
use wharf_kernel::per_thread::{Alone, Count, PerThread};
use wharf_kernel::resource::BoundResources;
use wharf_kernel::session::SessionFuture;
use wharf_kernel::{Body, BoxError, Endpoint, Exchange, Hold, Lease, RequestId, ResponseFuture, Version};

use crate::loaded::InstancePtr;
use crate::outside::{Held, cross};
use crate::session::Sessions;
use crate::upgrade;

/// Bodies up to this size are copied at the border: that costs less than keeping them there.
const COPY_UP_TO: usize = 1024;

/// So many fields, the server's own included, few responses exceed. hyper uses the table again for the next request's.
const USUAL_FIELDS: usize = 8;

/// What the container has given to a module and not got back, so that a report can name it.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    pub(crate) requests: Count,
    pub(crate) bodies: Count,
    pub(crate) sessions: Count,
}

/// What the requests of a generation share, as far as one thread answers them.
pub(crate) struct Common {
    pub(crate) handles: Handles,
    /// Its sessions; none in a trial.
    pub(crate) sessions: Option<Sessions>,
}

/// A handle is taken on one thread and given back on another.
pub(crate) trait Handed {
    fn given(&self, which: impl FnOnce(&Handles) -> &Count);
    fn back(&self, which: impl FnOnce(&Handles) -> &Count);
}

impl Handed for Alone<Common> {
    fn given(&self, which: impl FnOnce(&Handles) -> &Count) {
        self.add(|common| which(&common.handles), 1);
    }

    fn back(&self, which: impl FnOnce(&Handles) -> &Count) {
        self.add(|common| which(&common.handles), 1_u64.wrapping_neg());
    }
}

/// Answers the requests of one generation.
pub(crate) struct ModuleEndpoint {
    pub(crate) module: ModuleRef,
    pub(crate) instance: InstancePtr,
    pub(crate) common: PerThread<Common>,
    /// What it may use; none where it uses nothing.
    pub(crate) resources: Option<Arc<dyn BoundResources>>,
}

impl Endpoint for ModuleEndpoint {
    fn call(&self, mut exchange: Box<Exchange>, lease: Lease) -> ResponseFuture {
        // There is one where the request asks for an upgrade.
        let on_upgrade = match exchange.request.extensions().is_empty() {
            true => None,
            false => exchange.request.extensions_mut().remove::<OnUpgrade>(),
        };
        let end = self.resources.as_ref().map(|resources| {
            let (resources, id) = (resources.clone(), exchange.id.clone());
            if let Some(trace) = exchange.request.headers().get("traceparent").and_then(|t| t.to_str().ok()) {
                resources.request_traced(&id, trace);
            }
            Arc::new(RequestEnd { resources, id })
        });
        // Made after the box, it needs not be moved there.
        let place = Box::<InModule>::new_uninit();
        let (request, outside) = cross(exchange, self.common.local());
        let asked = Box::write(
            place,
            InModule {
                asked: Asked::New(self.module, self.instance, request),
                on_upgrade,
                outside: Some(outside),
                end,
                lease: Some(lease),
                saving: None,
            },
        );
        Box::into_pin(asked)
    }

    fn session_version(&self, request: &http::Request<Body>) -> Option<Version> {
        let sessions = self.common.local().sessions.as_ref()?;
        let settings = sessions.manager.settings();
        let (ids, _) = wharf_kernel::session::requested(request.headers(), request.uri().path(), &settings);
        ids.into_iter().find_map(|id| sessions.manager.version_of(id)).map(|v| Version::new(&v))
    }
}

/// A waker that can be taken back: what hyper keeps of it is the container's own, and the module's goes when its body goes.
#[derive(Default)]
pub(crate) struct Revocable(Mutex<Option<Waker>>);

impl Revocable {
    pub(crate) fn set(&self, waker: Option<&Waker>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *slot, waker) {
            (Some(old), Some(new)) if old.will_wake(new) => {}
            (slot, new) => *slot = new.cloned(),
        }
    }
}

impl Wake for Revocable {
    fn wake(self: Arc<Self>) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The request's content, read by the module.
pub(crate) struct RequestBody {
    body: Body,
    waker: Arc<Revocable>,
    common: Arc<Alone<Common>>,
}

impl RequestBody {
    pub(crate) fn new(body: Body, common: &Arc<Alone<Common>>) -> Self {
        common.given(|handles| &handles.bodies);
        Self { body, waker: Arc::default(), common: common.clone() }
    }
}

impl PollFrame for RequestBody {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Frame> {
        self.waker.set(Some(cx.waker()));
        let waker = Waker::from(self.waker.clone());
        let frame = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker));
        frame.map(|frame| match frame {
            None => Frame::End,
            Some(Err(e)) => Frame::Error(e.to_string().into()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Frame::Data(FfiBytes::from_owner(data)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let trailers = trailers
                        .iter()
                        .map(|(name, value)| Trailer { name: name.as_str().into(), value: value.as_bytes().into() });
                    Frame::Trailers(trailers.collect())
                }
            },
        })
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.waker.set(None);
        self.common.back(|handles| &handles.bodies);
    }
}

/// A request at the module, polled on the container's thread. What is asked goes before the lease, always: dropping it is a call
/// into the module.
struct InModule {
    asked: Asked,
    on_upgrade: Option<OnUpgrade>,
    /// The request; `None` once there is a response.
    outside: Option<Held>,
    end: Option<Arc<RequestEnd>>,
    lease: Option<Lease>,
    /// The response is there, and its session is being written.
    saving: Option<(Response<Body>, SessionFuture<()>)>,
}

/// How far it is.
enum Asked {
    /// The module has not heard of it yet.
    New(ModuleRef, InstancePtr, FfiRequest),
    /// Its answer was not there at once.
    Running(FfiFuture),
    Done,
}

impl Asked {
    /// What it has come to; `None` where it is to be polled again.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>) -> Option<Begun> {
        let begun = match std::mem::replace(self, Self::Done) {
            // SAFETY: an instance of this module, started and not stopped: the lease says so.
            Self::New(module, instance, request) => unsafe { Begun::of(module, instance.0, request, cx) },
            Self::Running(mut future) => match future.poll(cx) {
                Outcome::Pending => Begun::Later(future),
                Outcome::Ready(response) => Begun::Answered(response),
                Outcome::Panicked => Begun::Panicked,
            },
            // Polled after it was ready, which no caller does.
            Self::Done => return None,
        };
        if let Begun::Later(future) = begun {
            *self = Self::Running(future);
            return None;
        }
        Some(begun)
    }
}

impl Future for InModule {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some((response, mut saving)) = self.saving.take() {
            return match saving.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(response),
                Poll::Pending => {
                    self.saving = Some((response, saving));
                    Poll::Pending
                }
            };
        }
        let Some(begun) = self.asked.poll(cx) else { return Poll::Pending };
        let mut outside = self.outside.take();
        let mut response = Response::new(Body::empty());
        // In most cases the module has let go of the request by now.
        match outside.as_mut().and_then(Held::alone) {
            None => response.headers_mut().reserve(USUAL_FIELDS),
            Some(alone) => {
                alone.recycle(response.headers_mut());
                if alone.is_plain() {
                    outside = None;
                }
            }
        }
        let taken = match begun {
            Begun::Answered(ffi) => match self.lease.take() {
                Some(lease) => back(lease, ffi, &mut response, self.on_upgrade.take(), self.end.take()),
                None => Err("it has no lease".into()),
            },
            _ => Err("the application panicked".into()),
        };
        if let Err(what) = taken {
            tracing::debug!("answered with 500: {what}");
            response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let saving = outside.and_then(|outside| outside.commit(response.headers_mut()));
        match saving {
            None => Poll::Ready(response),
            Some(saving) => {
                self.saving = Some((response, saving));
                self.poll(cx)
            }
        }
    }
}

/// Takes a module's response over, into one that has no fields yet. Nothing of the module is held after it but the body, with its lease.
///
/// The lease comes first among the parameters, so that it is dropped last: letting the response go is a call into the module.
fn back(
    lease: Lease,
    mut ffi: FfiResponse,
    response: &mut Response<Body>,
    on_upgrade: Option<OnUpgrade>,
    end: Option<Arc<RequestEnd>>,
) -> Result<(), BoxError> {
    *response.status_mut() = StatusCode::from_u16(ffi.status)?;
    let body = ffi.take_body();
    let length = match &body {
        FfiResponseBody::Lent => ffi.lent().len(),
        FfiResponseBody::Full(bytes) => bytes.len(),
        _ => 0,
    };
    let headers = response.headers_mut();
    headers.reserve(ffi.headers().len());
    for (name, value) in ffi.headers() {
        let (name, value) = match name {
            // What most responses have, and many have nothing else.
            b"content-type" => (CONTENT_TYPE, content_type(value)?),
            // The server says it itself.
            b"content-length" if length > 0 && is_number(value, length) => continue,
            _ => (HeaderName::from_bytes(name)?, HeaderValue::from_bytes(value)?),
        };
        headers.append(name, value);
    }
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switching != matches!(body, FfiResponseBody::Upgrade(_)) {
        return Err(
            "the application answered with status 101 and nothing to switch to, or with that and another status".into(),
        );
    }
    *response.body_mut() = match body {
        FfiResponseBody::Upgrade(upgrade) => {
            let on_upgrade = on_upgrade.ok_or("the application upgrades a connection that was not asked for it")?;
            upgrade::spawn(on_upgrade, upgrade, lease.held_for(Hold::Upgrade));
            Body::empty()
        }
        FfiResponseBody::Empty => Body::empty(),
        FfiResponseBody::Lent => Bytes::copy_from_slice(ffi.lent()).into(),
        FfiResponseBody::Full(bytes) if bytes.len() <= COPY_UP_TO => Bytes::copy_from_slice(&bytes).into(),
        FfiResponseBody::Full(bytes) => Bytes::from_owner(Chunk { bytes, _lease: lease.held_for(Hold::Body) }).into(),
        FfiResponseBody::Stream(body) => {
            Body::new(ResponseBody { body, _end: end, lease: lease.held_for(Hold::Body), ended: false })
        }
    };
    Ok(())
}

/// Whether the text is this number in decimal.
fn is_number(text: &[u8], number: usize) -> bool {
    let digits = text.iter().map(|byte| char::from(*byte).to_digit(10));
    let value = digits.reduce(|all, digit| all?.checked_mul(10)?.checked_add(digit?)).flatten();
    value.is_some_and(|value| value as usize == number)
}

/// Content types that need no memory to be remembered, nor a reference count for each response.
const COMMON_TYPES: [&str; 8] = [
    "text/plain; charset=utf-8",
    "text/html; charset=utf-8",
    "application/json",
    "text/html",
    "text/css; charset=utf-8",
    "text/javascript; charset=utf-8",
    "application/octet-stream",
    "text/event-stream",
];

/// A content type. The last one that this thread saw is remembered: most are of a few kinds.
fn content_type(value: &[u8]) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    const LONGEST: usize = 128;
    thread_local! {
        static LAST: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
    }
    LAST.with_borrow_mut(|last| {
        if last.as_bytes() != value {
            let new = match COMMON_TYPES.iter().find(|common| common.as_bytes() == value) {
                Some(common) => HeaderValue::from_static(common),
                None => HeaderValue::from_bytes(value)?,
            };
            if value.len() > LONGEST {
                return Ok(new);
            }
            *last = new;
        }
        Ok(last.clone())
    })
}

/// Bytes of the module on their way to the client. The bytes go before the lease.
struct Chunk {
    bytes: FfiBytes,
    _lease: Lease,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The end of a request, its response's content too: what it left open is undone.
struct RequestEnd {
    resources: Arc<dyn BoundResources>,
    id: RequestId,
}

impl Drop for RequestEnd {
    fn drop(&mut self) {
        self.resources.request_ended(&self.id);
    }
}

/// A response's content, streamed by the module. The stream goes before the lease.
struct ResponseBody {
    body: FfiBody,
    _end: Option<Arc<RequestEnd>>,
    lease: Lease,
    ended: bool,
}

impl HttpBody for ResponseBody {
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
            Frame::Data(bytes) if bytes.len() <= COPY_UP_TO => {
                Some(Ok(HttpFrame::data(Bytes::copy_from_slice(&bytes))))
            }
            Frame::Data(bytes) => {
                let chunk = Chunk { bytes, _lease: self.lease.another(Hold::Body) };
                Some(Ok(HttpFrame::data(Bytes::from_owner(chunk))))
            }
            Frame::Trailers(list) => {
                let mut trailers = http::HeaderMap::with_capacity(list.len());
                for trailer in &list {
                    let name = HeaderName::from_bytes(trailer.name.as_bytes());
                    let value = HeaderValue::from_bytes(&trailer.value);
                    if let (Ok(name), Ok(value)) = (name, value) {
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
