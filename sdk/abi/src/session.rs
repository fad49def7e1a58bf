//! Sessions at the border: the container owns them, a module holds handles that it gives back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RString, RVec};

use crate::RawStr;
use crate::future::contain;
use crate::sign::{FfiSignWork, SignOrder};
use crate::waker::{self, WakerHead};

/// Why a session does not do what it was asked.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SessionRefused {
    /// The status that fits.
    pub status: u16,
    /// The reason, for people to read.
    pub message: RString,
}

/// A value of a session.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SessionValue {
    /// Name of the type it was written from.
    pub type_name: RString,
    /// JSON text.
    pub json: RString,
}

/// What is known of a session, at one moment.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SessionFacts {
    /// Its id.
    pub id: RString,
    /// When it began, in milliseconds since 1970.
    pub created_ms: u64,
    /// The last request but the present one, likewise.
    pub last_accessed_ms: u64,
    /// Without a request for so many milliseconds it ends; `u64::MAX`: never.
    pub max_inactive_ms: u64,
    /// Whether the client does not know of it yet.
    pub is_new: bool,
    /// Whether it has not ended.
    pub is_valid: bool,
}

/// The functions behind an [`FfiSession`]. Texts that are handed in are valid for the call. Any thread, also several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSessionVTable {
    /// What is known of it.
    pub facts: unsafe extern "C" fn(*const ()) -> SessionFacts,
    /// Sets [`SessionFacts::max_inactive_ms`].
    pub set_max_inactive: unsafe extern "C" fn(*const (), u64),
    /// Names of its values.
    pub names: unsafe extern "C" fn(*const ()) -> RVec<RString>,
    /// A value.
    pub get: unsafe extern "C" fn(*const (), RawStr) -> ROption<SessionValue>,
    /// Sets a value: name, type, JSON. Gives the one before.
    pub set: unsafe extern "C" fn(*const (), RawStr, RawStr, RawStr) -> RResult<ROption<SessionValue>, SessionRefused>,
    /// Removes a value and gives it.
    pub remove: unsafe extern "C" fn(*const (), RawStr) -> RResult<ROption<SessionValue>, SessionRefused>,
    /// Ends it. False when it had ended before.
    pub invalidate: unsafe extern "C" fn(*const ()) -> bool,
    /// Gives it another id. Gives the one before.
    pub rotate: unsafe extern "C" fn(*const ()) -> RResult<RString, SessionRefused>,
    /// Gives the handle back.
    pub drop: unsafe extern "C" fn(*const ()),
}

/// A handle of an open session, made by the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiSession {
    data: *const (),
    vtable: *const FfiSessionVTable,
}

// SAFETY: the functions may be called on any thread (`FfiSession::new` asks for it).
unsafe impl Send for FfiSession {}
// SAFETY: as above, and several at once.
unsafe impl Sync for FfiSession {}

impl FfiSession {
    /// A handle for the module.
    ///
    /// # Safety
    /// The functions must be good for `data`, on any thread and several at once, until the vtable's `drop` was called.
    pub const unsafe fn new(data: *const (), vtable: *const FfiSessionVTable) -> Self {
        Self { data, vtable }
    }

    fn vtable(&self) -> &FfiSessionVTable {
        // SAFETY: valid until `Drop`, by the contract of `new`.
        unsafe { &*self.vtable }
    }

    /// What is known of it.
    pub fn facts(&self) -> SessionFacts {
        // SAFETY: by the contract of `new`, as in all of these.
        unsafe { (self.vtable().facts)(self.data) }
    }

    /// Sets after how many milliseconds without a request it ends; `u64::MAX`: never.
    pub fn set_max_inactive(&self, ms: u64) {
        // SAFETY: as in `facts`.
        unsafe { (self.vtable().set_max_inactive)(self.data, ms) }
    }

    /// Names of its values.
    pub fn names(&self) -> RVec<RString> {
        // SAFETY: as in `facts`.
        unsafe { (self.vtable().names)(self.data) }
    }

    /// A value.
    pub fn get(&self, name: &str) -> Option<SessionValue> {
        // SAFETY: as in `facts`; the text lives for the call.
        unsafe { (self.vtable().get)(self.data, RawStr::new(name)) }.into()
    }

    /// Sets a value and gives the one before.
    ///
    /// # Errors
    /// When it has ended, or is full.
    pub fn set(&self, name: &str, type_name: &str, json: &str) -> Result<Option<SessionValue>, SessionRefused> {
        let (name, type_name, json) = (RawStr::new(name), RawStr::new(type_name), RawStr::new(json));
        // SAFETY: as in `facts`; the texts live for the call.
        let before = unsafe { (self.vtable().set)(self.data, name, type_name, json) };
        before.into_result().map(Into::into)
    }

    /// Removes a value and gives it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn remove(&self, name: &str) -> Result<Option<SessionValue>, SessionRefused> {
        // SAFETY: as in `facts`; the text lives for the call.
        unsafe { (self.vtable().remove)(self.data, RawStr::new(name)) }.into_result().map(Into::into)
    }

    /// Ends it. False when it had ended before.
    pub fn invalidate(&self) -> bool {
        // SAFETY: as in `facts`.
        unsafe { (self.vtable().invalidate)(self.data) }
    }

    /// Gives it another id, and gives the one before.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rotate(&self) -> Result<RString, SessionRefused> {
        // SAFETY: as in `facts`.
        unsafe { (self.vtable().rotate)(self.data) }.into_result()
    }
}

impl Drop for FfiSession {
    fn drop(&mut self) {
        // SAFETY: as in `facts`, called once.
        unsafe { (self.vtable().drop)(self.data) }
    }
}

/// What a poll of an [`FfiOpening`] came to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Opened {
    /// Not yet; the waker will be called.
    Pending,
    /// There is none.
    Missing,
    /// Here it is.
    Session(FfiSession),
    /// It could not be opened.
    Refused(SessionRefused),
}

/// The functions behind an [`FfiOpening`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiOpeningVTable {
    poll: unsafe extern "C" fn(*mut (), *const WakerHead) -> Opened,
    drop: unsafe extern "C" fn(*mut ()),
}

/// A session being opened: a future of the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiOpening {
    data: *mut (),
    vtable: *const FfiOpeningVTable,
}

// SAFETY: only made from futures that are `Send` (`FfiOpening::new`).
unsafe impl Send for FfiOpening {}

impl FfiOpening {
    /// Boxes a future for the other side. It is dropped by the module, and must not keep the module's waker after that.
    pub fn new<F: Future<Output = Opened> + Send + 'static>(future: F) -> Self {
        struct VTable<F>(F);
        impl<F: Future<Output = Opened> + Send + 'static> VTable<F> {
            const IT: FfiOpeningVTable = FfiOpeningVTable { poll: poll::<F>, drop: drop_it::<F> };
        }
        unsafe extern "C" fn poll<F: Future<Output = Opened>>(data: *mut (), head: *const WakerHead) -> Opened {
            contain(|| {
                // SAFETY: the box made below, polled by one thread at a time, never moved out of.
                let future = unsafe { Pin::new_unchecked(&mut *data.cast::<F>()) };
                // SAFETY: the other side lends the waker for this call.
                unsafe { waker::borrow(head, |waker| future.poll(&mut Context::from_waker(waker))) }
            })
            .map_or_else(
                || {
                    let message = RString::from("the session's store panicked");
                    Opened::Refused(SessionRefused { status: 500, message })
                },
                |poll| match poll {
                    Poll::Pending => Opened::Pending,
                    Poll::Ready(opened) => opened,
                },
            )
        }
        unsafe extern "C" fn drop_it<F>(data: *mut ()) {
            // SAFETY: the box made below, dropped once.
            let future = unsafe { Box::from_raw(data.cast::<F>()) };
            contain(|| drop(future));
        }
        Self { data: Box::into_raw(Box::new(future)).cast(), vtable: &VTable::<F>::IT }
    }
}

impl Future for FfiOpening {
    type Output = Result<Option<FfiSession>, SessionRefused>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one poll at a time.
        match waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).poll)(self.data, head) }) {
            Opened::Pending => Poll::Pending,
            Opened::Missing => Poll::Ready(Ok(None)),
            Opened::Session(session) => Poll::Ready(Ok(Some(session))),
            Opened::Refused(refused) => Poll::Ready(Err(refused)),
        }
    }
}

impl Drop for FfiOpening {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}

/// What the client asked for.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RequestedSession {
    /// The id, if it sent any.
    pub id: ROption<RString>,
    /// Whether a session of this application has it.
    pub is_valid: bool,
    /// Whether it came in the path, not in a cookie.
    pub from_url: bool,
}

/// The container's functions for the session of a request, called with the request's owner while it is not released.
#[repr(C)]
#[derive(StableAbi)]
pub struct RequestSessionsVTable {
    /// Opens the session that the request belongs to; with `true`, begins one where there is none.
    pub open: unsafe extern "C" fn(owner: *const (), create: bool) -> FfiOpening,
    /// What the client asked for.
    pub requested: unsafe extern "C" fn(owner: *const ()) -> RequestedSession,
    /// What links must carry, `NAME=ID`, where the open session is not kept by a cookie.
    pub in_links: unsafe extern "C" fn(owner: *const ()) -> ROption<RString>,
    /// Does what a sign-in asks for. The request is kept until the work has been dropped.
    pub sign: unsafe extern "C" fn(owner: *const (), order: SignOrder) -> FfiSignWork,
}
