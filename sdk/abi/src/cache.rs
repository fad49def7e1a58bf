//! Caches at the border: the container owns them, a module holds handles that it gives back.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString, RVec};

use crate::work::{Answer, FfiWork};

/// What is to be done. Times are in milliseconds; 0 is none.
#[repr(u8)]
#[derive(StableAbi, Clone, Debug)]
pub enum CacheOrder {
    /// The value of a key.
    Get(RString),
    /// Sets a value: key, value, time to live.
    Set(RString, RVec<u8>, u64),
    /// Sets a value where there is none: key, value, time to live.
    Add(RString, RVec<u8>, u64),
    /// Sets a value where the one before is this (none: there is none): key, before, value, time to live.
    CompareAndSet(RString, ROption<RVec<u8>>, RVec<u8>, u64),
    /// Adds to a number, which is 0 where there is none: key, how much, time to live of a new one.
    Increment(RString, i64, u64),
    /// Removes a value.
    Remove(RString),
    /// Sends a message: channel, message.
    Publish(RString, RVec<u8>),
    /// Messages of a channel, from now on.
    Subscribe(RString),
}

/// What a poll of [`FfiCacheWork`] comes to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum CacheAnswer {
    /// Not yet; the waker will be called.
    Pending,
    /// A value, or that there is none.
    Value(ROption<RVec<u8>>),
    /// Whether it was done.
    Done(bool),
    /// The number after an increment, or how many heard a message.
    Number(i64),
    /// A message; there may be more.
    Message(RVec<u8>),
    /// It could not be done, for people to read.
    Failed(RString),
}

impl Answer for CacheAnswer {
    const PENDING: Self = Self::Pending;

    fn panicked() -> Self {
        Self::Failed("the container's work on the cache panicked".into())
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

/// Work of the container on a cache: one answer, or messages without an end.
pub type FfiCacheWork = FfiWork<CacheAnswer>;

/// The functions behind an [`FfiCache`]. Any thread, also several at once.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiCacheVTable {
    /// Has it done.
    pub order: unsafe extern "C" fn(*const (), CacheOrder) -> FfiCacheWork,
    /// Gives the handle back.
    pub drop: unsafe extern "C" fn(*const ()),
}

/// A handle of a cache, made by the container.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiCache {
    data: *const (),
    vtable: *const FfiCacheVTable,
}

// SAFETY: the functions may be called on any thread (`FfiCache::new` asks for it).
unsafe impl Send for FfiCache {}
// SAFETY: as above, and several at once.
unsafe impl Sync for FfiCache {}

impl FfiCache {
    /// A handle for the module.
    ///
    /// # Safety
    /// The functions must be good for `data`, on any thread and several at once, until the vtable's `drop` was called.
    pub const unsafe fn new(data: *const (), vtable: *const FfiCacheVTable) -> Self {
        Self { data, vtable }
    }

    /// Has it done.
    pub fn order(&self, order: CacheOrder) -> FfiCacheWork {
        // SAFETY: the vtable is valid until `Drop`, by the contract of `new`.
        unsafe { ((*self.vtable).order)(self.data, order) }
    }
}

impl Drop for FfiCache {
    fn drop(&mut self) {
        // SAFETY: as in `order`, called once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
