//! HTTP clients at the border: the container owns their connections, a module holds handles that it gives back.

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};

use crate::work::{Answer, FfiWork};
use crate::{FfiBody, Trailer};

/// A request to a server of the configuration. Belongs to whoever gets it.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct FfiClientRequest {
    /// Method.
    pub method: RString,
    /// Path, from `/`, and query.
    pub target: RString,
    /// Header field lines.
    pub headers: RVec<Trailer>,
    /// Content.
    pub body: RVec<u8>,
    /// How long it may take until the head of the response is there, in milliseconds; 0 is the configured time.
    pub timeout_ms: u64,
    /// Id of the request that it is made for, empty where there is none.
    pub request: RString,
}

/// The response.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiClientResponse {
    /// Status.
    pub status: u16,
    /// Header field lines.
    pub headers: RVec<Trailer>,
    /// Content.
    pub body: FfiBody,
}

/// What a poll of [`FfiClientWork`] comes to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum ClientAnswer {
    /// Not yet; the waker will be called.
    Pending,
    /// The response.
    Response(FfiClientResponse),
    /// There is none: the kind (0 connection, 1 timeout, 2 left alone, 3 invalid), and why.
    Failed(u8, RString),
}

impl Answer for ClientAnswer {
    const PENDING: Self = Self::Pending;

    fn panicked() -> Self {
        Self::Failed(0, "the container's work on the request panicked".into())
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

/// Work of the container on a request: one answer.
pub type FfiClientWork = FfiWork<ClientAnswer>;

/// The functions behind an [`FfiHttpClient`]. Any thread, also several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiHttpClientVTable {
    /// Sends a request.
    pub send: unsafe extern "C" fn(*const (), FfiClientRequest) -> FfiClientWork,
    /// Gives the handle back.
    pub drop: unsafe extern "C" fn(*const ()),
}

/// A handle of an HTTP client, made by the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiHttpClient {
    data: *const (),
    vtable: *const FfiHttpClientVTable,
}

// SAFETY: the functions may be called on any thread (`FfiHttpClient::new` asks for it).
unsafe impl Send for FfiHttpClient {}
// SAFETY: as above, and several at once.
unsafe impl Sync for FfiHttpClient {}

impl FfiHttpClient {
    /// A handle for the module.
    ///
    /// # Safety
    /// The functions must be good for `data`, on any thread and several at once, until the vtable's `drop` was called.
    pub const unsafe fn new(data: *const (), vtable: *const FfiHttpClientVTable) -> Self {
        Self { data, vtable }
    }

    /// Sends a request.
    pub fn send(&self, request: FfiClientRequest) -> FfiClientWork {
        // SAFETY: the vtable is valid until `Drop`, by the contract of `new`.
        unsafe { ((*self.vtable).send)(self.data, request) }
    }
}

impl Drop for FfiHttpClient {
    fn drop(&mut self) {
        // SAFETY: as in `send`, called once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
