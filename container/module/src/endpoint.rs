//! The bridge: a request goes across the border, a future comes back, and the response's body holds the lease.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body as HttpBody, Frame as HttpFrame, SizeHint};
use hyper::upgrade::OnUpgrade;
use wharf_abi::{
    FfiBody, FfiBytes, FfiFuture, FfiRequest, FfiResponse, FfiResponseBody, Frame, Header, ModuleRef, Outcome,
    PollFrame, RawStr, RequestHead, TlsHead, Trailer, UserHead,
};
use wharf_kernel::per_thread::{Alone, PerThread};
use wharf_kernel::resource::BoundResources;
use wharf_kernel::session::SessionFuture;
use wharf_kernel::{
    Authenticated, Body, BoxError, Endpoint, Exchange, Hold, Lease, RequestId, ResponseFuture, TlsFacts, Version,
};

use crate::loaded::InstancePtr;
use crate::session::{self, Sessions};
use crate::upgrade;

/// Bodies up to this size are copied at the border: that costs less than keeping them there.
const COPY_UP_TO: usize = 1024;

/// So many fields, the server's own included, few responses exceed. hyper uses the table again for the next request's.
const USUAL_FIELDS: usize = 8;

/// What the container has given to a module and not got back, so that a report can name it.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    pub(crate) requests: AtomicU64,
    pub(crate) bodies: AtomicU64,
    pub(crate) sessions: AtomicU64,
}

/// What the requests of a generation share, as far as one thread answers them.
pub(crate) struct Common {
    pub(crate) handles: Handles,
    /// Its sessions; none in a trial.
    pub(crate) sessions: Option<Sessions>,
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
        let (request, outside) = cross(exchange, self.common.local());
        // SAFETY: an instance of this module, started and not stopped: the lease says so.
        let future = unsafe { self.module.service()(self.instance.0, request) };
        Box::pin(InModule {
            future: Some(future),
            on_upgrade,
            outside: Some(outside),
            end,
            lease: Some(lease),
            saving: None,
        })
    }

    fn session_version(&self, request: &http::Request<Body>) -> Option<Version> {
        let sessions = self.common.local().sessions.as_ref()?;
        let settings = sessions.manager.settings();
        let (ids, _) = wharf_kernel::session::requested(request.headers(), request.uri().path(), &settings);
        ids.into_iter().find_map(|id| sessions.manager.version_of(id)).map(|v| Version::new(&v))
    }
}

/// A request in the hands of the module: everything its head points to.
pub(crate) struct Outside {
    /// Without the request's content, which crosses by itself.
    pub(crate) exchange: Box<Exchange>,
    head: RequestHead,
    /// What the head points to, beside the exchange.
    _headers: Vec<Header>,
    _tls: Option<Box<TlsHead>>,
    _user: Option<Box<UserHead>>,
    pub(crate) common: Arc<Alone<Common>>,
    /// What sign-ins add to the response.
    pub(crate) sign_headers: OnceLock<Mutex<Vec<(HeaderName, HeaderValue)>>>,
}

// SAFETY: all of it is but the views in `head` and what it points to, which never changes while there is more than one
// reference.
unsafe impl Send for Outside {}
// SAFETY: as above; and the body in `exchange`, which is not `Sync`, is an empty one.
unsafe impl Sync for Outside {}

impl Outside {
    /// The request's header fields, emptied, for the fields of the response; `None` where the module has the request still.
    fn recycle(this: &mut Arc<Self>) -> Option<HeaderMap> {
        let this = Arc::get_mut(this)?;
        (this.head.headers, this.head.header_count) = (std::ptr::null(), 0);
        let mut headers = std::mem::take(this.exchange.request.headers_mut());
        headers.clear();
        Some(headers)
    }
}

/// Hands a request over. The container keeps a reference too: it has the session that the module opens.
fn cross(mut exchange: Box<Exchange>, common: &Arc<Alone<Common>>) -> (FfiRequest, Arc<Outside>) {
    let body = std::mem::take(exchange.request.body_mut());
    let body = (!body.is_end_stream()).then(|| {
        let exact = body.size_hint().exact();
        common.handles.bodies.fetch_add(1, Ordering::Relaxed);
        FfiBody::new(RequestBody { body, waker: Arc::default(), common: common.clone() }, exact)
    });
    common.handles.requests.fetch_add(1, Ordering::Relaxed);
    let vtable = if common.sessions.is_some() { &raw const session::REQUEST } else { std::ptr::null() };
    // All that the head points to has its place already, on the heap.
    let lines = exchange.request.headers().iter();
    let headers: Vec<_> = lines.map(|(name, value)| Header::new(name.as_str(), value.as_bytes())).collect();
    let tls = exchange.connection.tls.as_deref().map(|facts| Box::new(tls_head(facts)));
    let user = exchange.request.extensions().get().map(|user| Box::new(user_head(user)));
    let outside = Arc::new(Outside {
        head: request_head(&exchange, &headers, tls.as_deref(), user.as_deref()),
        exchange,
        _headers: headers,
        _tls: tls,
        _user: user,
        common: common.clone(),
        sign_headers: OnceLock::new(),
    });
    let head = &raw const outside.head;
    let owner = Arc::into_raw(outside.clone());
    // SAFETY: the head and all it points to live in `Outside`, of which `release` drops one reference, on whatever thread: it
    // is `Send` and `Sync`. The functions for sessions take just this owner.
    (unsafe { FfiRequest::new(head, owner.cast(), retain, release, vtable, body) }, outside)
}

fn tls_head(facts: &TlsFacts) -> TlsHead {
    TlsHead {
        version: RawStr::new(facts.version),
        cipher: RawStr::new(&facts.cipher),
        server_name: RawStr::new(facts.server_name.as_deref().unwrap_or_default()),
        client_certificate: RawStr::from_bytes(facts.client_certificate_der.as_deref().unwrap_or_default()),
    }
}

/// Its texts are behind reference counts of their own, of which the extensions keep one.
fn user_head(user: &Authenticated) -> UserHead {
    UserHead { name: RawStr::new(&user.user), auth_type: RawStr::new(&user.scheme), roles: RawStr::new(&user.roles) }
}

fn request_head(
    exchange: &Exchange,
    headers: &[Header],
    tls: Option<&TlsHead>,
    user: Option<&UserHead>,
) -> RequestHead {
    let Exchange { request, path, connection, .. } = exchange;
    let (uri, path_info) = (request.uri(), path.path_info());
    RequestHead {
        method: RawStr::new(request.method().as_str()),
        request_uri: RawStr::new(uri.path()),
        query: RawStr::new(uri.query().unwrap_or_default()),
        has_query: uri.query().is_some(),
        has_path_info: path_info.is_some(),
        secure: connection.secure,
        version: match request.version() {
            http::Version::HTTP_09 => 9,
            http::Version::HTTP_10 => 10,
            http::Version::HTTP_2 => 20,
            http::Version::HTTP_3 => 30,
            _ => 11,
        },
        servlet: path.servlet() as u32,
        pattern: path.pattern() as u32,
        path: RawStr::new(path.encoded()),
        context_path: RawStr::new(path.context()),
        servlet_path: RawStr::new(path.servlet_path()),
        path_info: RawStr::new(path_info.unwrap_or_default()),
        authority: RawStr::new(&exchange.authority),
        remote: connection.remote.into(),
        local: connection.local.into(),
        id: RawStr::new(&exchange.id),
        tls: tls.map_or(std::ptr::null(), std::ptr::from_ref),
        user: user.map_or(std::ptr::null(), std::ptr::from_ref),
        headers: headers.as_ptr(),
        header_count: headers.len(),
    }
}

unsafe extern "C" fn retain(owner: *const ()) {
    // SAFETY: a reference that `release` has not dropped yet; the new one is dropped by one more `release`.
    let outside = unsafe {
        Arc::increment_strong_count(owner.cast::<Outside>());
        &*owner.cast::<Outside>()
    };
    outside.common.handles.requests.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn release(owner: *const ()) {
    // SAFETY: the reference made in `cross` or by `retain`, released once.
    let outside = unsafe { Arc::from_raw(owner.cast::<Outside>()) };
    outside.common.handles.requests.fetch_sub(1, Ordering::Relaxed);
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
struct RequestBody {
    body: Body,
    waker: Arc<Revocable>,
    common: Arc<Alone<Common>>,
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
        self.common.handles.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The module's future, polled on the container's thread. The future goes before the lease, always: dropping it is a call
/// into the module.
struct InModule {
    future: Option<FfiFuture>,
    on_upgrade: Option<OnUpgrade>,
    /// The request; `None` once there is a response.
    outside: Option<Arc<Outside>>,
    end: Option<Arc<RequestEnd>>,
    lease: Option<Lease>,
    /// The response is there, and its session is being written.
    saving: Option<(Response<Body>, SessionFuture<()>)>,
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
        let outcome = match &mut self.future {
            Some(future) => future.poll(cx),
            // Polled after it was ready, which no caller does.
            None => return Poll::Pending,
        };
        if let Outcome::Pending = outcome {
            return Poll::Pending;
        }
        self.future = None;
        let mut outside = self.outside.take();
        // In most cases the module has let go of the request by now.
        let headers =
            outside.as_mut().and_then(Outside::recycle).unwrap_or_else(|| HeaderMap::with_capacity(USUAL_FIELDS));
        let response = match (outcome, self.lease.take()) {
            (Outcome::Ready(response), Some(lease)) => {
                back(lease, response, headers, self.on_upgrade.take(), self.end.take())
            }
            _ => Err("the application panicked".into()),
        };
        let mut response = response.unwrap_or_else(|what: BoxError| {
            tracing::debug!("answered with 500: {what}");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        });
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

/// Takes a module's response over. Nothing of the module is held after it but the body, with its lease.
///
/// The lease comes first among the parameters, so that it is dropped last: letting the response go is a call into the module.
fn back(
    lease: Lease,
    mut ffi: FfiResponse,
    mut headers: HeaderMap,
    on_upgrade: Option<OnUpgrade>,
    end: Option<Arc<RequestEnd>>,
) -> Result<Response<Body>, BoxError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(ffi.status)?;
    let body = ffi.take_body();
    let length = match &body {
        FfiResponseBody::Lent => ffi.lent().len(),
        FfiResponseBody::Full(bytes) => bytes.len(),
        _ => 0,
    };
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
    *response.headers_mut() = headers;
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
    Ok(response)
}

/// Whether the text is this number in decimal.
fn is_number(text: &[u8], number: usize) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse() == Ok(number))
}

/// A content type. The last one that this thread saw is remembered: most are of a few kinds.
fn content_type(value: &[u8]) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    const LONGEST: usize = 128;
    thread_local! {
        static LAST: RefCell<HeaderValue> = const { RefCell::new(HeaderValue::from_static("")) };
    }
    LAST.with_borrow_mut(|last| {
        if last.as_bytes() != value {
            let new = HeaderValue::from_bytes(value)?;
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
