//! The file descriptors that a module opens, so that what it leaves open can be closed when it is unloaded.
//!
//! Rust never drops a static, and a runtime or a library may keep descriptors in one: tokio keeps a pair of sockets for
//! signals. Without care every generation would leave its own behind. So the executable puts itself in front of the C
//! library's functions that make descriptors, as in [`crate::interpose`], and remembers from where each was called.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::interpose::next;

/// Descriptors above this are not remembered.
const MOST: usize = 1 << 16;

/// For each open descriptor the address that asked for it; 0 where that is not known.
static OPENED_BY: [AtomicUsize; MOST] = [const { AtomicUsize::new(0) }; MOST];

fn remember(descriptor: c_int, caller: usize) {
    if let Some(slot) = usize::try_from(descriptor).ok().and_then(|d| OPENED_BY.get(d)) {
        slot.store(caller, Ordering::Relaxed);
    }
}

/// Defines an exported function that hands its arguments and its return address to another one.
macro_rules! in_front {
    ($($name:ident($($argument:ident: $type:ty),*) => $behind:ident, $x86:literal, $arm:literal;)*) => {$(
        /// The C library's function, with the descriptors it makes remembered.
        ///
        /// # Safety
        /// As the C library's.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!(concat!("mov ", $x86, ", [rsp]"), "jmp {}", sym $behind);
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!(concat!("mov ", $arm, ", x30"), "b {}", sym $behind);
        }
    )*};
}

in_front! {
    socket(domain: c_int, kind: c_int, protocol: c_int) => socket_for, "rcx", "x3";
    socketpair(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) => socketpair_for, "r8", "x4";
    accept4(listener: c_int, address: *mut c_void, length: *mut c_void, flags: c_int) => accept4_for, "r8", "x4";
    epoll_create1(flags: c_int) => epoll_create1_for, "rsi", "x1";
    eventfd(initial: c_uint, flags: c_int) => eventfd_for, "rdx", "x2";
    timerfd_create(clock: c_int, flags: c_int) => timerfd_create_for, "rdx", "x2";
    pipe2(pair: *mut c_int, flags: c_int) => pipe2_for, "rdx", "x2";
    // The mode of the next two is a variable argument, which is passed like any other where there are registers left.
    open64(path: *const c_char, flags: c_int, mode: c_uint) => open64_for, "rcx", "x3";
    openat64(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint) => openat64_for, "r8", "x4";
}

macro_rules! behind {
    ($($behind:ident = $name:literal($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $behind($($argument: $type,)* caller: usize) -> c_int {
            static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            // SAFETY: the C library's function of this name has this type.
            let real: unsafe extern "C" fn($($type),*) -> c_int = unsafe { std::mem::transmute(next(&REAL, $name)) };
            // SAFETY: passed on unchanged.
            let descriptor = unsafe { real($($argument),*) };
            remember(descriptor, caller);
            descriptor
        }
    )*};
}

behind! {
    socket_for = c"socket"(domain: c_int, kind: c_int, protocol: c_int);
    accept4_for = c"accept4"(listener: c_int, address: *mut c_void, length: *mut c_void, flags: c_int);
    epoll_create1_for = c"epoll_create1"(flags: c_int);
    eventfd_for = c"eventfd"(initial: c_uint, flags: c_int);
    timerfd_create_for = c"timerfd_create"(clock: c_int, flags: c_int);
    open64_for = c"open64"(path: *const c_char, flags: c_int, mode: c_uint);
    openat64_for = c"openat64"(folder: c_int, path: *const c_char, flags: c_int, mode: c_uint);
}

/// # Safety
/// `pair` must be what a successful call has filled.
unsafe fn remember_pair(result: c_int, pair: *const c_int, caller: usize) -> c_int {
    if result == 0 {
        // SAFETY: the caller's promise.
        let (first, second) = unsafe { (*pair, *pair.add(1)) };
        remember(first, caller);
        remember(second, caller);
    }
    result
}

unsafe extern "C" fn socketpair_for(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
    caller: usize,
) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Real = unsafe extern "C" fn(c_int, c_int, c_int, *mut c_int) -> c_int;
    // SAFETY: the C library's function of this name has this type; passed on unchanged.
    unsafe {
        let real: Real = std::mem::transmute(next(&REAL, c"socketpair"));
        remember_pair(real(domain, kind, protocol, pair), pair, caller)
    }
}

unsafe extern "C" fn pipe2_for(pair: *mut c_int, flags: c_int, caller: usize) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Real = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    // SAFETY: the C library's function of this name has this type; passed on unchanged.
    unsafe {
        let real: Real = std::mem::transmute(next(&REAL, c"pipe2"));
        remember_pair(real(pair, flags), pair, caller)
    }
}

/// Closes a descriptor (POSIX), and forgets it.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    // Forgotten first: once it is closed, the number may be another thread's.
    remember(descriptor, 0);
    // SAFETY: passed on unchanged.
    unsafe { real_close()(descriptor) }
}

fn real_close() -> unsafe extern "C" fn(c_int) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    // SAFETY: the C library's function of this name has this type.
    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> c_int>(next(&REAL, c"close")) }
}

/// Closes what code in `extent` has opened and not closed. Returns how many there were. To be called when none of that code
/// runs any more.
pub(crate) fn close_left(extent: &Range<usize>) -> u64 {
    let mut closed = 0;
    for (descriptor, slot) in OPENED_BY.iter().enumerate() {
        if extent.contains(&slot.load(Ordering::Relaxed)) {
            // SAFETY: opened by a module that is being unloaded, and closed by nobody since.
            unsafe { close(descriptor as c_int) };
            closed += 1;
        }
    }
    closed
}

/// Names the exported functions, so that no linker drops them.
pub(crate) fn keep() {
    std::hint::black_box([
        socket as *const (),
        socketpair as *const (),
        accept4 as *const (),
        epoll_create1 as *const (),
        eventfd as *const (),
        timerfd_create as *const (),
        pipe2 as *const (),
        open64 as *const (),
        openat64 as *const (),
        close as *const (),
    ]);
}
