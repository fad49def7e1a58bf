//! Work of the container that a module waits for: one answer, or answers until the last.

use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;

use crate::future::contain;
use crate::waker::{self, WakerHead};

/// What a poll of [`FfiWork`] comes to.
pub trait Answer: Sized + 'static {
    /// Not yet; the waker will be called. For the shim alone.
    const PENDING: Self;

    /// The container's work panicked.
    fn panicked() -> Self;

    /// Whether it is [`Answer::PENDING`].
    fn is_pending(&self) -> bool;
}

/// What [`FfiWork`] is made from.
pub trait PollAnswer<A>: Send + 'static {
    /// Looks for the next answer. [`Answer::PENDING`] is for the shim alone: say `Poll::Pending`.
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A>;
}

/// The functions behind [`FfiWork`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiWorkVTable<A> {
    poll: unsafe extern "C" fn(*mut (), *const WakerHead) -> A,
    drop: unsafe extern "C" fn(*mut ()),
}

/// Work of the container. Dropped before its end it is cancelled.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiWork<A> {
    data: *mut (),
    vtable: *const FfiWorkVTable<A>,
}

// SAFETY: `PollAnswer` is `Send`.
unsafe impl<A> Send for FfiWork<A> {}

impl<A: Answer> FfiWork<A> {
    /// Boxes work for the other side. It is dropped by the module, and must not keep the module's waker after that.
    pub fn new<W: PollAnswer<A>>(work: W) -> Self {
        struct VTable<A, W>(A, W);
        impl<A: Answer, W: PollAnswer<A>> VTable<A, W> {
            const IT: FfiWorkVTable<A> = FfiWorkVTable { poll: poll::<A, W>, drop: drop_it::<W> };
        }
        unsafe extern "C" fn poll<A: Answer, W: PollAnswer<A>>(data: *mut (), head: *const WakerHead) -> A {
            contain(|| {
                // SAFETY: the box made below, polled by one thread at a time, never moved out of.
                let work = unsafe { Pin::new_unchecked(&mut *data.cast::<W>()) };
                // SAFETY: the other side lends the waker for this call.
                unsafe { waker::borrow(head, |waker| work.poll_answer(&mut Context::from_waker(waker))) }
            })
            .map_or_else(A::panicked, |poll| match poll {
                Poll::Pending => A::PENDING,
                Poll::Ready(answer) => answer,
            })
        }
        unsafe extern "C" fn drop_it<W>(data: *mut ()) {
            // SAFETY: the box made below, dropped once.
            let work = unsafe { Box::from_raw(data.cast::<W>()) };
            contain(|| drop(work));
        }
        Self { data: Box::into_raw(Box::new(work)).cast(), vtable: &VTable::<A, W>::IT }
    }

    /// Looks for the next answer.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<A> {
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one poll at a time.
        let answer = waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).poll)(self.data, head) });
        if answer.is_pending() { Poll::Pending } else { Poll::Ready(answer) }
    }
}

impl<A> Drop for FfiWork<A> {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
