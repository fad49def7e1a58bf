//! A waker that crosses the border.
//!
//! The side that polls lends a pointer to a [`WakerHead`]. The other side makes a `Waker` of its own whose data is that
//! pointer; cloning goes back across and costs one allocation, lending costs none.

use std::mem::ManuallyDrop;
use std::task::{RawWaker, RawWakerVTable, Waker};

use abi_stable::StableAbi;

/// What both sides see of a waker: the functions of the side it belongs to. The rest lies behind it.
#[repr(C)]
#[derive(StableAbi)]
pub struct WakerHead {
    clone: unsafe extern "C" fn(*const WakerHead) -> *const WakerHead,
    wake_by_ref: unsafe extern "C" fn(*const WakerHead),
    drop: unsafe extern "C" fn(*const WakerHead),
}

/// A waker of this side, with its head first so that a pointer to one is a pointer to the other.
#[repr(C)]
struct Owned {
    head: WakerHead,
    waker: ManuallyDrop<Waker>,
}

const HEAD: WakerHead = WakerHead { clone, wake_by_ref, drop: drop_owned };

unsafe extern "C" fn clone(head: *const WakerHead) -> *const WakerHead {
    // SAFETY: `head` is the first field of an `Owned` that is lent or boxed by this side.
    let waker = unsafe { &(*head.cast::<Owned>()).waker };
    Box::into_raw(Box::new(Owned { head: HEAD, waker: waker.clone() })).cast_const().cast()
}

unsafe extern "C" fn wake_by_ref(head: *const WakerHead) {
    // SAFETY: as in `clone`.
    unsafe { &(*head.cast::<Owned>()).waker }.wake_by_ref();
}

unsafe extern "C" fn drop_owned(head: *const WakerHead) {
    // SAFETY: only called for what `clone` boxed, once, by the other side's `drop_foreign` or `wake_foreign`.
    let owned = unsafe { Box::from_raw(head.cast::<Owned>().cast_mut()) };
    drop(ManuallyDrop::into_inner(owned.waker));
}

/// Lends `waker` to the other side for the time of `call`.
pub(crate) fn lend<R>(waker: &Waker, call: impl FnOnce(*const WakerHead) -> R) -> R {
    // SAFETY: a bitwise copy that is never dropped and does not outlive the original.
    let copy = unsafe { std::ptr::read(waker) };
    let lent = Owned { head: HEAD, waker: ManuallyDrop::new(copy) };
    call((&raw const lent).cast())
}

/// Makes a `Waker` of a lent one, for the time of `call`.
///
/// # Safety
/// `head` must come from [`lend`] of the other side and be valid during `call`.
pub(crate) unsafe fn borrow<R>(head: *const WakerHead, call: impl FnOnce(&Waker) -> R) -> R {
    // SAFETY: the functions of `VTABLE` do what `RawWaker` asks, on a valid head; it is not dropped, for it is only lent.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(head.cast(), &VTABLE)) });
    call(&waker)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone_foreign, wake_foreign, wake_foreign_by_ref, drop_foreign);

unsafe fn clone_foreign(head: *const ()) -> RawWaker {
    let head = head.cast::<WakerHead>();
    // SAFETY: `head` is valid, as `RawWaker` promises to its vtable.
    let owned = unsafe { ((*head).clone)(head) };
    RawWaker::new(owned.cast(), &VTABLE)
}

unsafe fn wake_foreign(head: *const ()) {
    // SAFETY: an owned head: woken, then let go.
    unsafe {
        wake_foreign_by_ref(head);
        drop_foreign(head);
    }
}

unsafe fn wake_foreign_by_ref(head: *const ()) {
    let head = head.cast::<WakerHead>();
    // SAFETY: `head` is valid.
    unsafe { ((*head).wake_by_ref)(head) }
}

unsafe fn drop_foreign(head: *const ()) {
    let head = head.cast::<WakerHead>();
    // SAFETY: `head` is owned: lent ones are wrapped in `ManuallyDrop`.
    unsafe { ((*head).drop)(head) }
}
