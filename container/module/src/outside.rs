//! A request in the hands of a module: all that the head points to which the module reads, and who keeps it.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as HttpBody;
use smallvec::SmallVec;
use wharf_abi::{FfiBody, FfiRequest, Header, RawStr, RequestHead, TlsHead, UserHead};
use wharf_kernel::per_thread::Alone;
use wharf_kernel::{Authenticated, Exchange, TlsFacts};

use crate::endpoint::{Common, Handed, RequestBody};
use crate::session;

/// So many fields most requests have: their views need no allocation of their own.
const USUAL_FIELDS: usize = 8;

/// A request in the hands of the module: everything its head points to.
pub(crate) struct Outside {
    /// How many [`Held`] there are, those that the module has included.
    held: AtomicUsize,
    head: RequestHead,
    /// Without the request's content, which crosses by itself.
    pub(crate) exchange: Box<Exchange>,
    /// What the head points to, beside the exchange.
    headers: SmallVec<[Header; USUAL_FIELDS]>,
    _tls: Option<Box<TlsHead>>,
    _user: Option<Box<UserHead>>,
    pub(crate) common: Arc<Alone<Common>>,
    /// What sign-ins add to the response.
    pub(crate) sign_headers: OnceLock<Mutex<Vec<(HeaderName, HeaderValue)>>>,
}

// SAFETY: all of it is but the views in `head` and `headers` and what they point to, which never changes while there is more
// than one `Held`.
unsafe impl Send for Outside {}
// SAFETY: as above; and the body in `exchange`, which is not `Sync`, is an empty one.
unsafe impl Sync for Outside {}

impl Outside {
    /// Gives the place of the request's header fields to those of the response, which has none yet.
    pub(crate) fn recycle(&mut self, response: &mut HeaderMap) {
        (self.head.headers, self.head.header_count) = (std::ptr::null(), 0);
        let headers = self.exchange.request.headers_mut();
        headers.clear();
        *response = std::mem::take(headers);
    }

    /// Whether neither a session was opened for it nor somebody signed in or out.
    pub(crate) fn is_plain(&mut self) -> bool {
        self.sign_headers.get_mut().is_none() && !self.exchange.session.is_used_mut()
    }
}

/// Keeps an [`Outside`]. An `Arc` would take four atomic steps more for each request: the first two are there from the start, and whoever
/// has the last one takes none.
pub(crate) struct Held(NonNull<Outside>);

// SAFETY: an `Outside` may be used and dropped on any thread.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// That of a pointer that the module has.
    ///
    /// # Safety
    /// `owner` must come from [`cross`] or [`retain`], and `release` must not be called for it any more.
    unsafe fn from_raw(owner: *const ()) -> Self {
        // SAFETY: not null, for it came from a box.
        Self(unsafe { NonNull::new_unchecked(owner.cast::<Outside>().cast_mut()) })
    }

    /// One more beside the one that the module has.
    ///
    /// # Safety
    /// `owner` must come from [`cross`] or [`retain`], and `release` not have been called for it.
    pub(crate) unsafe fn beside(owner: *const ()) -> Self {
        // SAFETY: alive, by the contract.
        unsafe { (*owner.cast::<Outside>()).held.fetch_add(1, Ordering::Relaxed) };
        // SAFETY: the one that was just counted.
        unsafe { Self::from_raw(owner) }
    }

    /// What is held, where nobody else does.
    pub(crate) fn alone(&mut self) -> Option<&mut Outside> {
        // The others' last use of it comes before this.
        if self.held.load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: only whoever has one can make another, and this is borrowed.
        Some(unsafe { self.0.as_mut() })
    }
}

impl Deref for Held {
    type Target = Outside;

    #[inline]
    fn deref(&self) -> &Outside {
        // SAFETY: alive as long as one is counted, and changed only where there is no other.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if self.held.load(Ordering::Acquire) != 1 {
            if self.held.fetch_sub(1, Ordering::Release) != 1 {
                return;
            }
            fence(Ordering::Acquire);
        }
        // SAFETY: the box made in `cross`, whose last one this is.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Hands a request over. The container keeps it, too: it has the session that the module opens.
pub(crate) fn cross(mut exchange: Box<Exchange>, common: &Arc<Alone<Common>>) -> (FfiRequest, Held) {
    let body = std::mem::take(exchange.request.body_mut());
    let body = (!body.is_end_stream()).then(|| {
        let exact = body.size_hint().exact();
        FfiBody::new(RequestBody::new(body, common), exact)
    });
    common.given(|handles| &handles.requests);
    let vtable = if common.sessions.is_some() { &raw const session::REQUEST } else { std::ptr::null() };
    let tls = exchange.connection.tls.as_deref().map(|facts| Box::new(tls_head(facts)));
    let user = exchange.request.extensions().get().map(|user| Box::new(user_head(user)));
    // Made after the box, it needs not be moved there.
    let place = Box::new_uninit();
    let mut outside = Box::write(
        place,
        Outside {
            // The container's and the module's.
            held: AtomicUsize::new(2),
            // All that the head points to has its place already, on the heap.
            head: request_head(&exchange, tls.as_deref(), user.as_deref()),
            exchange,
            headers: SmallVec::new(),
            _tls: tls,
            _user: user,
            common: common.clone(),
            sign_headers: OnceLock::new(),
        },
    );
    let Outside { exchange, head, headers, .. } = &mut *outside;
    let lines = exchange.request.headers().iter();
    headers.extend(lines.map(|(name, value)| Header::new(name.as_str(), value.as_bytes())));
    (head.headers, head.header_count) = (headers.as_ptr(), headers.len());
    let owner = NonNull::from(Box::leak(outside));
    // SAFETY: alive until both of those counted above are gone.
    let head = unsafe { &raw const owner.as_ref().head };
    // SAFETY: the head and all it points to live in `Outside`, of which `release` drops one reference, on whatever thread: it
    // is `Send` and `Sync`. The functions for sessions take just this owner.
    let request = unsafe { FfiRequest::new(head, owner.as_ptr().cast_const().cast(), retain, release, vtable, body) };
    (request, Held(owner))
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

/// Without the header lines.
fn request_head(exchange: &Exchange, tls: Option<&TlsHead>, user: Option<&UserHead>) -> RequestHead {
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
        headers: std::ptr::null(),
        header_count: 0,
    }
}

unsafe extern "C" fn retain(owner: *const ()) {
    // SAFETY: a reference that `release` has not dropped yet; the new one is dropped by one more `release`.
    let outside = unsafe { Held::beside(owner) };
    outside.common.given(|handles| &handles.requests);
    std::mem::forget(outside);
}

unsafe extern "C" fn release(owner: *const ()) {
    // SAFETY: the reference made in `cross` or by `retain`, released once.
    let outside = unsafe { Held::from_raw(owner) };
    outside.common.back(|handles| &handles.requests);
}
