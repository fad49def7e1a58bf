//! A future that crosses the border: made in the module, polled by the container.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;

use crate::waker::{self, WakerHead};
use crate::{FfiRequest, FfiResponse, ModuleRef};

/// What a poll of an [`FfiFuture`] came to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Outcome {
    /// Not yet; the waker will be called.
    Pending,
    /// The response.
    Ready(FfiResponse),
    /// It panicked; the module has reported the panic through the host's functions.
    Panicked,
}

/// What a request came to when its module was asked first.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Begun {
    /// Its response.
    Answered(FfiResponse),
    /// It panicked; the module has reported the panic through the host's functions.
    Panicked,
    /// Its answer comes later. This has been polled once.
    Later(FfiFuture),
}

impl Begun {
    /// Begins, on the module's side: `begin` polls once.
    ///
    /// # Safety
    /// `waker` must be what the container passed to [`Module::service`](crate::Module::service), in that call.
    pub unsafe fn by(waker: *const WakerHead, begin: impl FnOnce(&mut Context<'_>) -> Self) -> Self {
        // SAFETY: the other side lends the waker for the call.
        let begun = contain(|| unsafe { waker::borrow(waker, |waker| begin(&mut Context::from_waker(waker))) });
        begun.unwrap_or(Self::Panicked)
    }

    /// Begins, on the container's side.
    ///
    /// # Safety
    /// `instance` must be one of this module, started and not stopped, and stay so until what this gives is gone.
    pub unsafe fn of(module: ModuleRef, instance: *const (), request: FfiRequest, cx: &mut Context<'_>) -> Self {
        // SAFETY: by the contract; the waker lives during the call.
        waker::lend(cx.waker(), |waker| unsafe { module.service()(instance, request, waker) })
    }
}

/// The functions behind an [`FfiFuture`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiFutureVTable {
    poll: unsafe extern "C" fn(*mut (), *const WakerHead) -> Outcome,
    drop: unsafe extern "C" fn(*mut ()),
}

/// A boxed future of the other side.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiFuture {
    data: *mut (),
    vtable: *const FfiFutureVTable,
}

// SAFETY: only made from futures that are `Send` (`FfiFuture::new`).
unsafe impl Send for FfiFuture {}

/// Runs `f`; a panic ends here. The hook has reported it already; a payload whose drop panics too is leaked.
pub fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
                std::mem::forget(second);
            }
            None
        }
    }
}

impl FfiFuture {
    /// Boxes a future for the other side.
    pub fn new<F: Future<Output = FfiResponse> + Send + 'static>(future: F) -> Self {
        struct VTable<F>(F);
        impl<F: Future<Output = FfiResponse> + Send + 'static> VTable<F> {
            const IT: FfiFutureVTable = FfiFutureVTable { poll: poll::<F>, drop: drop_it::<F> };
        }
        unsafe extern "C" fn poll<F: Future<Output = FfiResponse>>(data: *mut (), head: *const WakerHead) -> Outcome {
            contain(|| {
                // SAFETY: `data` is the box made below, polled by one thread at a time, and never moved out of it.
                let future = unsafe { Pin::new_unchecked(&mut *data.cast::<F>()) };
                // SAFETY: the other side lends the waker for this call.
                unsafe { waker::borrow(head, |waker| future.poll(&mut Context::from_waker(waker))) }
            })
            .map_or(Outcome::Panicked, |poll| match poll {
                Poll::Pending => Outcome::Pending,
                Poll::Ready(response) => Outcome::Ready(response),
            })
        }
        unsafe extern "C" fn drop_it<F>(data: *mut ()) {
            // SAFETY: the box made below, dropped once.
            let future = unsafe { Box::from_raw(data.cast::<F>()) };
            contain(|| drop(future));
        }
        Self { data: Box::into_raw(Box::new(future)).cast(), vtable: &VTable::<F>::IT }
    }

    /// Polls it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Outcome {
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one poll at a time.
        waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).poll)(self.data, head) })
    }
}

impl Drop for FfiFuture {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
