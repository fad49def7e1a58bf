//! A message body that crosses the border, in either direction, frame by frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;
use abi_stable::std_types::{RString, RVec};

use crate::FfiBytes;
use crate::future::contain;
use crate::waker::{self, WakerHead};

/// One trailer field line.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Trailer {
    /// Field name.
    pub name: RString,
    /// Field value.
    pub value: RVec<u8>,
}

/// What a poll of a body came to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Frame {
    /// Nothing yet; the waker will be called.
    Pending,
    /// A chunk of content.
    Data(FfiBytes),
    /// The trailer fields (RFC 9110, section 6.5).
    Trailers(RVec<Trailer>),
    /// It is complete.
    End,
    /// It broke off, and why.
    Error(RString),
}

/// What an [`FfiBody`] is made from.
pub trait PollFrame: Send + 'static {
    /// Looks for the next frame. `Frame::Pending` is for the shim alone: say `Poll::Pending`.
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Frame>;
}

/// The functions behind an [`FfiBody`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiBodyVTable {
    poll: unsafe extern "C" fn(*mut (), *const WakerHead) -> Frame,
    drop: unsafe extern "C" fn(*mut ()),
}

/// A boxed body of the other side.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiBody {
    data: *mut (),
    vtable: *const FfiBodyVTable,
    /// Its exact length in bytes, `u64::MAX` when that is not known.
    pub exact_len: u64,
}

// SAFETY: `PollFrame` is `Send`.
unsafe impl Send for FfiBody {}

impl FfiBody {
    /// Boxes a body for the other side.
    pub fn new<B: PollFrame>(body: B, exact_len: Option<u64>) -> Self {
        struct VTable<B>(B);
        impl<B: PollFrame> VTable<B> {
            const IT: FfiBodyVTable = FfiBodyVTable { poll: poll::<B>, drop: drop_it::<B> };
        }
        unsafe extern "C" fn poll<B: PollFrame>(data: *mut (), head: *const WakerHead) -> Frame {
            contain(|| {
                // SAFETY: the box made below, polled by one thread at a time, never moved out of.
                let body = unsafe { Pin::new_unchecked(&mut *data.cast::<B>()) };
                // SAFETY: the other side lends the waker for this call.
                unsafe { waker::borrow(head, |waker| body.poll_frame(&mut Context::from_waker(waker))) }
            })
            .map_or_else(
                || Frame::Error(RString::from("the body's stream panicked")),
                |poll| match poll {
                    Poll::Pending => Frame::Pending,
                    Poll::Ready(frame) => frame,
                },
            )
        }
        unsafe extern "C" fn drop_it<B>(data: *mut ()) {
            // SAFETY: the box made below, dropped once.
            let body = unsafe { Box::from_raw(data.cast::<B>()) };
            contain(|| drop(body));
        }
        Self {
            data: Box::into_raw(Box::new(body)).cast(),
            vtable: &VTable::<B>::IT,
            exact_len: exact_len.unwrap_or(u64::MAX),
        }
    }

    /// The next frame, never `Frame::Pending`.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Frame> {
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one poll at a time.
        match waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).poll)(self.data, head) }) {
            Frame::Pending => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }

    /// Its exact length, if known.
    pub fn exact_len(&self) -> Option<u64> {
        (self.exact_len != u64::MAX).then_some(self.exact_len)
    }
}

impl Drop for FfiBody {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
