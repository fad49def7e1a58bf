//! An upgraded connection: a raw stream that the container gives, and the module's future that lives on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use abi_stable::StableAbi;

use crate::future::contain;
use crate::waker::{self, WakerHead};

/// What a poll of an [`FfiStream`] came to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum PollIo {
    /// Nothing yet; the waker will be called.
    Pending,
    /// So many bytes: 0 is the end for a read, and nothing to count for flush and shutdown.
    Ready(usize),
    /// An error of the operating system, 0 for any other.
    Failed(i32),
}

impl PollIo {
    fn of(polled: Poll<io::Result<usize>>) -> Self {
        match polled {
            Poll::Pending => Self::Pending,
            Poll::Ready(Ok(bytes)) => Self::Ready(bytes),
            Poll::Ready(Err(error)) => Self::Failed(error.raw_os_error().unwrap_or(0)),
        }
    }

    fn get(self) -> Poll<io::Result<usize>> {
        match self {
            Self::Pending => Poll::Pending,
            Self::Ready(bytes) => Poll::Ready(Ok(bytes)),
            Self::Failed(0) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Self::Failed(code) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
        }
    }
}

/// What an [`FfiStream`] is made from: bytes both ways.
pub trait Duplex: Send + 'static {
    /// Reads into `buffer`; 0 bytes at the end.
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Writes some of `bytes`.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;
    /// Sends what was written.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the writing half.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The functions behind an [`FfiStream`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStreamVTable {
    read: unsafe extern "C" fn(*mut (), *const WakerHead, *mut u8, usize) -> PollIo,
    write: unsafe extern "C" fn(*mut (), *const WakerHead, *const u8, usize) -> PollIo,
    flush: unsafe extern "C" fn(*mut (), *const WakerHead) -> PollIo,
    shutdown: unsafe extern "C" fn(*mut (), *const WakerHead) -> PollIo,
    drop: unsafe extern "C" fn(*mut ()),
}

/// A boxed stream of the other side. When it is dropped, nothing of the wakers that it was polled with is kept.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiStream {
    data: *mut (),
    vtable: *const FfiStreamVTable,
}

// SAFETY: `Duplex` is `Send`.
unsafe impl Send for FfiStream {}

/// Calls `poll` on the stream behind `data`; a panic is an error.
///
/// # Safety
/// `data` must be the box of a `D` that [`FfiStream::new`] made, used by one thread at a time, and `head` a lent waker.
unsafe fn polled<D: Duplex>(
    data: *mut (),
    head: *const WakerHead,
    poll: impl FnOnce(Pin<&mut D>, &mut Context<'_>) -> Poll<io::Result<usize>>,
) -> PollIo {
    contain(|| {
        // SAFETY: the caller's promise; it is never moved out of its box.
        let stream = unsafe { Pin::new_unchecked(&mut *data.cast::<D>()) };
        // SAFETY: the caller's promise.
        unsafe { waker::borrow(head, |waker| poll(stream, &mut Context::from_waker(waker))) }
    })
    .map_or(PollIo::Failed(0), PollIo::of)
}

unsafe extern "C" fn read<D: Duplex>(data: *mut (), head: *const WakerHead, buffer: *mut u8, len: usize) -> PollIo {
    // SAFETY: pointer and length are those of a slice that the other side lends for this call.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    // SAFETY: called through the vtable alone.
    unsafe { polled::<D>(data, head, |stream, cx| stream.poll_read(cx, buffer)) }
}

unsafe extern "C" fn write<D: Duplex>(data: *mut (), head: *const WakerHead, bytes: *const u8, len: usize) -> PollIo {
    // SAFETY: pointer and length are those of a slice that the other side lends for this call.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
    // SAFETY: called through the vtable alone.
    unsafe { polled::<D>(data, head, |stream, cx| stream.poll_write(cx, bytes)) }
}

unsafe extern "C" fn flush<D: Duplex>(data: *mut (), head: *const WakerHead) -> PollIo {
    // SAFETY: called through the vtable alone.
    unsafe { polled::<D>(data, head, |stream, cx| stream.poll_flush(cx).map_ok(|()| 0)) }
}

unsafe extern "C" fn shutdown<D: Duplex>(data: *mut (), head: *const WakerHead) -> PollIo {
    // SAFETY: called through the vtable alone.
    unsafe { polled::<D>(data, head, |stream, cx| stream.poll_shutdown(cx).map_ok(|()| 0)) }
}

unsafe extern "C" fn drop_box<T>(data: *mut ()) {
    // SAFETY: the box that `FfiStream::new` or `FfiUpgrade::new` made, dropped once.
    let it = unsafe { Box::from_raw(data.cast::<T>()) };
    contain(|| drop(it));
}

impl FfiStream {
    /// Boxes a stream for the other side.
    pub fn new<D: Duplex>(stream: D) -> Self {
        struct VTable<D>(D);
        impl<D: Duplex> VTable<D> {
            const IT: FfiStreamVTable = FfiStreamVTable {
                read: read::<D>,
                write: write::<D>,
                flush: flush::<D>,
                shutdown: shutdown::<D>,
                drop: drop_box::<D>,
            };
        }
        Self { data: Box::into_raw(Box::new(stream)).cast(), vtable: &VTable::<D>::IT }
    }

    /// Reads into `buffer`; 0 bytes at the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let (at, len) = (buffer.as_mut_ptr(), buffer.len());
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one call at a time.
        let polled = waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).read)(self.data, head, at, len) });
        // Whoever fills buffers by this number must be able to rely on it.
        polled.get().map_ok(|bytes| bytes.min(len))
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (at, len) = (bytes.as_ptr(), bytes.len());
        // SAFETY: as in `poll_read`.
        let polled = waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).write)(self.data, head, at, len) });
        polled.get().map_ok(|bytes| bytes.min(len))
    }

    /// Sends what was written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // SAFETY: as in `poll_read`.
        waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).flush)(self.data, head) }).get().map_ok(drop)
    }

    /// Ends the writing half.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // SAFETY: as in `poll_read`.
        waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).shutdown)(self.data, head) }).get().map_ok(drop)
    }
}

impl Drop for FfiStream {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}

/// What a poll of an [`FfiUpgrade`] came to.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeOutcome {
    /// The connection lives; the waker will be called.
    Pending,
    /// It is over.
    Done,
    /// It panicked; the module has reported the panic through the host's functions.
    Panicked,
}

/// What an [`FfiUpgrade`] is made from.
pub trait Upgrade: Send + 'static {
    /// Takes the stream, once, when the 101 has been sent.
    fn start(self: Pin<&mut Self>, stream: FfiStream);
    /// Lives on it. Not called before [`Upgrade::start`].
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

/// The functions behind an [`FfiUpgrade`].
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiUpgradeVTable {
    start: unsafe extern "C" fn(*mut (), FfiStream) -> bool,
    poll: unsafe extern "C" fn(*mut (), *const WakerHead) -> UpgradeOutcome,
    drop: unsafe extern "C" fn(*mut ()),
}

/// The module's part in an upgraded connection. When it is dropped, the module has no more of the stream either.
#[repr(C)]
#[derive(StableAbi)]
pub struct FfiUpgrade {
    data: *mut (),
    vtable: *const FfiUpgradeVTable,
}

// SAFETY: `Upgrade` is `Send`.
unsafe impl Send for FfiUpgrade {}

impl FfiUpgrade {
    /// Boxes it for the other side.
    pub fn new<U: Upgrade>(upgrade: U) -> Self {
        struct VTable<U>(U);
        impl<U: Upgrade> VTable<U> {
            const IT: FfiUpgradeVTable = FfiUpgradeVTable { start: start::<U>, poll: poll::<U>, drop: drop_box::<U> };
        }
        unsafe extern "C" fn start<U: Upgrade>(data: *mut (), stream: FfiStream) -> bool {
            // SAFETY: the box made below, used by one thread at a time, never moved out of.
            contain(|| unsafe { Pin::new_unchecked(&mut *data.cast::<U>()) }.start(stream)).is_some()
        }
        unsafe extern "C" fn poll<U: Upgrade>(data: *mut (), head: *const WakerHead) -> UpgradeOutcome {
            contain(|| {
                // SAFETY: the box made below, used by one thread at a time, never moved out of.
                let upgrade = unsafe { Pin::new_unchecked(&mut *data.cast::<U>()) };
                // SAFETY: the other side lends the waker for this call.
                unsafe { waker::borrow(head, |waker| upgrade.poll(&mut Context::from_waker(waker))) }
            })
            .map_or(UpgradeOutcome::Panicked, |poll| match poll {
                Poll::Pending => UpgradeOutcome::Pending,
                Poll::Ready(()) => UpgradeOutcome::Done,
            })
        }
        Self { data: Box::into_raw(Box::new(upgrade)).cast(), vtable: &VTable::<U>::IT }
    }

    /// Gives it the stream. False when it panicked.
    pub fn start(&mut self, stream: FfiStream) -> bool {
        // SAFETY: data and vtable were made together and live until `Drop`; `&mut self` means one call at a time.
        unsafe { ((*self.vtable).start)(self.data, stream) }
    }

    /// Polls it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> UpgradeOutcome {
        // SAFETY: as in `start`.
        waker::lend(cx.waker(), |head| unsafe { ((*self.vtable).poll)(self.data, head) })
    }
}

impl Drop for FfiUpgrade {
    fn drop(&mut self) {
        // SAFETY: made together, dropped once.
        unsafe { ((*self.vtable).drop)(self.data) }
    }
}
