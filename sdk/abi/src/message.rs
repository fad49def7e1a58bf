//! A request on its way in and a response on its way out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString};

use crate::{
    FfiBody, FfiBytes, FfiOpening, FfiSignWork, FfiUpgrade, RawStr, RequestSessionsVTable, RequestedSession, SignOrder,
    TlsHead, TlsView, UserHead, UserView,
};

/// One header field line, borrowed.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Header {
    /// Field name, lower case.
    pub name: RawStr,
    /// Field value. Of a request, the container has seen to it that it has no other bytes than HTTP allows (RFC 9110, section 5.5): the
    /// module takes that for granted. Of a response, the container looks itself.
    pub value: RawStr,
}

impl Header {
    /// A view of a line.
    pub const fn new(name: &str, value: &[u8]) -> Self {
        Self { name: RawStr::new(name), value: RawStr::from_bytes(value) }
    }
}

/// An IP address and port, or nothing.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, Default)]
pub struct Address {
    /// The address in network order; an IPv4 address is in the first four.
    pub ip: [u8; 16],
    /// 4, 6, or 0 for no address at all (a Unix socket).
    pub family: u8,
    /// Port.
    pub port: u16,
}

impl From<Option<SocketAddr>> for Address {
    fn from(address: Option<SocketAddr>) -> Self {
        let mut this = Self::default();
        match address {
            None => {}
            Some(SocketAddr::V4(v4)) => {
                this.ip[..4].copy_from_slice(&v4.ip().octets());
                (this.family, this.port) = (4, v4.port());
            }
            Some(SocketAddr::V6(v6)) => {
                this.ip = v6.ip().octets();
                (this.family, this.port) = (6, v6.port());
            }
        }
        this
    }
}

impl Address {
    /// The address, if there is one. The flow label and scope of IPv6 are not carried.
    pub fn get(&self) -> Option<SocketAddr> {
        match self.family {
            4 => Some((Ipv4Addr::new(self.ip[0], self.ip[1], self.ip[2], self.ip[3]), self.port).into()),
            6 => Some((Ipv6Addr::from(self.ip), self.port).into()),
            _ => None,
        }
    }
}

/// Everything about a request but its body, borrowed from the [`FfiRequest`] that points to it. Text is UTF-8.
#[repr(C)]
#[derive(StableAbi)]
pub struct RequestHead {
    /// Method, as sent.
    pub method: RawStr,
    /// The path of the request target as sent, without the query: `HttpServletRequest.getRequestURI`.
    pub request_uri: RawStr,
    /// The query without its `?`; see `has_query`.
    pub query: RawStr,
    /// Whether there is a query, maybe an empty one.
    pub has_query: bool,
    /// Whether there is a path info.
    pub has_path_info: bool,
    /// Whether the connection is secure.
    pub secure: bool,
    /// HTTP version: 9, 10, 11, 20 or 30.
    pub version: u8,
    /// Index of the chosen servlet in what `create` declared.
    pub servlet: u32,
    /// Index of the pattern that matched, among that servlet's.
    pub pattern: u32,
    /// Canonical path, percent-encoded, context path included.
    pub path: RawStr,
    /// Context path, `""` for the root.
    pub context_path: RawStr,
    /// Servlet path, decoded.
    pub servlet_path: RawStr,
    /// Path info, decoded; see `has_path_info`.
    pub path_info: RawStr,
    /// Host and port the client asked for.
    pub authority: RawStr,
    /// Address of the peer.
    pub remote: Address,
    /// Address the connection came in on.
    pub local: Address,
    /// Request id.
    pub id: RawStr,
    /// What TLS agreed on; null where the connection itself is not encrypted.
    pub tls: *const TlsHead,
    /// Who the client is; null where nobody was asked for.
    pub user: *const UserHead,
    /// The header field lines.
    pub headers: *const Header,
    /// How many there are.
    pub header_count: usize,
}

/// A request, owned by the module from the call on.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiRequest {
    head: *const RequestHead,
    owner: *const (),
    retain: unsafe extern "C" fn(*const ()),
    release: unsafe extern "C" fn(*const ()),
    /// For the owner; null where there are no sessions.
    sessions: *const RequestSessionsVTable,
    /// The content, if there may be any. Taken by whoever reads it.
    pub body: ROption<FfiBody>,
}

// SAFETY: the head is only read, and its owner may be released on any thread (`FfiRequest::new` asks for it).
unsafe impl Send for FfiRequest {}
// SAFETY: by a shared reference the head is reached, which is only read, and the functions for its session, which several
// threads may call.
unsafe impl Sync for FfiRequest {}

impl FfiRequest {
    /// A request for the module.
    ///
    /// # Safety
    /// `head`, and all it points to, must be valid until `release(owner)` has been called once more than `retain(owner)`, both
    /// of them on any thread; so must the functions of `sessions` be for `owner`, on any thread and several at once.
    /// `sessions` is null or static.
    pub unsafe fn new(
        head: *const RequestHead,
        owner: *const (),
        retain: unsafe extern "C" fn(*const ()),
        release: unsafe extern "C" fn(*const ()),
        sessions: *const RequestSessionsVTable,
        body: Option<FfiBody>,
    ) -> Self {
        Self { head, owner, retain, release, sessions, body: body.into() }
    }

    /// The same request once more, without its content.
    pub fn share(&self) -> Self {
        let Self { head, owner, retain, release, sessions, .. } = *self;
        // SAFETY: not released yet, and released once more for this, by the `Drop` of what is returned.
        unsafe { retain(owner) };
        Self { head, owner, retain, release, sessions, body: ROption::RNone }
    }

    /// Opens its session; with `true`, begins one where there is none. `None` where there are no sessions at all.
    pub fn open_session(&self, create: bool) -> Option<FfiOpening> {
        // SAFETY: null or valid, by the contract of `new`.
        let vtable = unsafe { self.sessions.as_ref() }?;
        // SAFETY: the owner is released by `Drop` alone.
        Some(unsafe { (vtable.open)(self.owner, create) })
    }

    /// The session that the client asked for. `None` where there are no sessions at all.
    pub fn requested_session(&self) -> Option<RequestedSession> {
        // SAFETY: null or valid, by the contract of `new`.
        let vtable = unsafe { self.sessions.as_ref() }?;
        // SAFETY: the owner is released by `Drop` alone.
        Some(unsafe { (vtable.requested)(self.owner) })
    }

    /// What links must carry, `NAME=ID`, for the open session to go on without a cookie; `None` where nothing need be.
    pub fn session_in_links(&self) -> Option<RString> {
        // SAFETY: null or valid, by the contract of `new`.
        let vtable = unsafe { self.sessions.as_ref() }?;
        // SAFETY: the owner is released by `Drop` alone.
        unsafe { (vtable.in_links)(self.owner) }.into()
    }

    /// Begins a sign-in. `None` where there are no users at all.
    pub fn sign(&self, order: SignOrder) -> Option<FfiSignWork> {
        // SAFETY: null or valid, by the contract of `new`.
        let vtable = unsafe { self.sessions.as_ref() }?;
        // SAFETY: the owner is released by `Drop` alone.
        Some(unsafe { (vtable.sign)(self.owner, order) })
    }

    /// Its head.
    pub fn head(&self) -> &RequestHead {
        // SAFETY: valid until `Drop`, by the contract of `new`.
        unsafe { &*self.head }
    }

    /// What TLS agreed on for its connection.
    pub fn tls(&self) -> Option<TlsView<'_>> {
        // SAFETY: null or valid until `Drop`, with all it points to, by the contract of `new`.
        unsafe { self.head().tls.as_ref().map(|tls| tls.view()) }
    }

    /// Who the client is, where the container knows.
    pub fn user(&self) -> Option<UserView<'_>> {
        // SAFETY: null or valid until `Drop`, with all it points to, by the contract of `new`.
        unsafe { self.head().user.as_ref().map(|user| user.view()) }
    }

    /// The header lines: name (lower case) and value.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
        let head = self.head();
        let headers = if head.header_count == 0 {
            &[][..]
        } else {
            // SAFETY: pointer and count were taken from one slice, valid until `Drop`.
            unsafe { std::slice::from_raw_parts(head.headers, head.header_count) }
        };
        // SAFETY: names are UTF-8 (tokens), and both live as long as `self`.
        headers.iter().map(|h| unsafe { (h.name.as_str(), h.value.as_bytes()) })
    }

    /// A text field of the head.
    pub fn text(&self, field: impl FnOnce(&RequestHead) -> RawStr) -> &str {
        // SAFETY: every text of the head is UTF-8 and lives as long as `self`.
        unsafe { field(self.head()).as_str() }
    }
}

impl Drop for FfiRequest {
    fn drop(&mut self) {
        // SAFETY: made together, called once.
        unsafe { (self.release)(self.owner) }
    }
}

/// The content of a response.
#[repr(u8)]
#[derive(StableAbi)]
pub enum FfiResponseBody {
    /// None.
    Empty,
    /// What [`FfiResponse::lent`] says: a little, that is copied rather than kept.
    Lent,
    /// All of it.
    Full(FfiBytes),
    /// A stream of frames.
    Stream(FfiBody),
    /// None, but the connection after it: only with status 101.
    Upgrade(FfiUpgrade),
}

/// A response, owned by the container from the call on.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiResponse {
    /// Status code.
    pub status: u16,
    headers: *const Header,
    header_count: usize,
    lent: RawStr,
    owner: *const (),
    release: unsafe extern "C" fn(*const ()),
    /// The content.
    pub body: ROption<FfiResponseBody>,
}

// SAFETY: headers and content are only read, and their owner may be released on any thread (`FfiResponse::new` asks for it).
unsafe impl Send for FfiResponse {}

impl FfiResponse {
    /// A response for the container.
    ///
    /// # Safety
    /// The headers, all they point to, and `lent` must be valid until `release(owner)` is called, which may be on any thread.
    pub unsafe fn new(
        status: u16,
        headers: &[Header],
        lent: RawStr,
        owner: *const (),
        release: unsafe extern "C" fn(*const ()),
        body: FfiResponseBody,
    ) -> Self {
        Self {
            status,
            headers: headers.as_ptr(),
            header_count: headers.len(),
            lent,
            owner,
            release,
            body: ROption::RSome(body),
        }
    }

    /// The header lines: name and value, as the module made them; the container checks them again.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let headers = if self.header_count == 0 {
            &[][..]
        } else {
            // SAFETY: pointer and count were taken from one slice, valid until `Drop`.
            unsafe { std::slice::from_raw_parts(self.headers, self.header_count) }
        };
        // SAFETY: both live as long as `self`.
        headers.iter().map(|h| unsafe { (h.name.as_bytes(), h.value.as_bytes()) })
    }

    /// The content, where it is [`FfiResponseBody::Lent`].
    pub fn lent(&self) -> &[u8] {
        // SAFETY: valid until `Drop`, by the contract of `new`.
        unsafe { self.lent.as_bytes() }
    }

    /// Takes the content out.
    pub fn take_body(&mut self) -> FfiResponseBody {
        self.body.take().unwrap_or(FfiResponseBody::Empty)
    }
}

impl Drop for FfiResponse {
    fn drop(&mut self) {
        // SAFETY: made together, called once.
        unsafe { (self.release)(self.owner) }
    }
}
