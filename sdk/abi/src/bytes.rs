//! Text and bytes: borrowed for a call, or refcounted with their own release function.

use std::ops::Deref;

use abi_stable::StableAbi;

/// Borrowed bytes or UTF-8 text: a pointer and a length, valid for as long as the structure that holds it says.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RawStr {
    /// First byte; never null, dangling when `len` is 0.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: usize,
}

// SAFETY: plain data; whoever reads through the pointer answers for it (see `as_bytes`).
unsafe impl Send for RawStr {}
// SAFETY: as above.
unsafe impl Sync for RawStr {}

impl RawStr {
    /// Nothing.
    pub const EMPTY: Self = Self::new("");

    /// A view of `text`.
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr(), len: text.len() }
    }

    /// A view of `bytes`.
    pub const fn from_bytes(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }

    /// The bytes.
    ///
    /// # Safety
    /// What it was made from must be alive and unchanged for `'a`.
    pub const unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        // SAFETY: made from a slice, which the caller says is still there.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    /// The text.
    ///
    /// # Safety
    /// As [`RawStr::as_bytes`], and it must have been made from UTF-8 text.
    pub const unsafe fn as_str<'a>(self) -> &'a str {
        // SAFETY: the caller's promise, passed on.
        unsafe { std::str::from_utf8_unchecked(self.as_bytes()) }
    }
}

/// Refcounted bytes that carry their own release function, so that they cross without being copied.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiBytes {
    data: RawStr,
    owner: *const (),
    release: unsafe extern "C" fn(*const ()),
}

// SAFETY: the owner was `Send + Sync` when it went in (`from_owner`), and the bytes are only read.
unsafe impl Send for FfiBytes {}
// SAFETY: as above.
unsafe impl Sync for FfiBytes {}

impl FfiBytes {
    /// Bytes that live for ever: as long as the library they are in.
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        unsafe extern "C" fn nothing(_: *const ()) {}
        Self { data: RawStr::from_bytes(bytes), owner: std::ptr::null(), release: nothing }
    }

    /// The bytes of `owner`, which is dropped when they are let go.
    ///
    /// The bytes must stay where they are when the owner is moved, as those of `Vec<u8>`, `Bytes` and `Arc<[u8]>` do; they
    /// are taken after the owner has been boxed, so any `AsRef` that answers the same each time is sound.
    pub fn from_owner<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        unsafe extern "C" fn release<T>(owner: *const ()) {
            // SAFETY: `owner` came from `Box::into_raw` of a `Box<T>` below, and release is called once, by `Drop`.
            let owner = unsafe { Box::from_raw(owner.cast::<T>().cast_mut()) };
            crate::future::contain(|| drop(owner));
        }
        let owner = Box::into_raw(Box::new(owner));
        // SAFETY: just made, not yet shared.
        let data = RawStr::from_bytes(unsafe { &*owner }.as_ref());
        Self { data, owner: owner.cast_const().cast(), release: release::<T> }
    }
}

impl Deref for FfiBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the owner lives until `Drop`, and the borrow ends before.
        unsafe { self.data.as_bytes() }
    }
}

impl AsRef<[u8]> for FfiBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for FfiBytes {
    fn drop(&mut self) {
        // SAFETY: the pair was made together, and this is the only call.
        unsafe { (self.release)(self.owner) }
    }
}
