//! A module that calls `exit`: found in the trial, and named in the log where it slips through.
//!
//! `exit` runs the destructors of the whole process while other threads go on, which may end in a crash. In the trial the
//! process ends at once instead, so that the verdict is always the same.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::interpose::{in_executable, next};

/// Set in the child that does the trial load.
pub(crate) static IS_TRIAL: AtomicBool = AtomicBool::new(false);

/// Ends the process (ISO C).
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn exit(status: c_int) -> ! {
    #[cfg(target_arch = "x86_64")]
    std::arch::naked_asm!("mov rsi, [rsp]", "jmp {}", sym exit_for);
    #[cfg(target_arch = "aarch64")]
    std::arch::naked_asm!("mov x1, x30", "b {}", sym exit_for);
}

unsafe extern "C" fn exit_for(status: c_int, caller: usize) -> ! {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    if !in_executable(caller) {
        if IS_TRIAL.load(Ordering::Relaxed) {
            // SAFETY: no preconditions.
            unsafe { libc::_exit(status) };
        }
        tracing::error!(status, "an application called exit: the container ends");
    }
    // SAFETY: the C library's function of this name has this type.
    let real: unsafe extern "C" fn(c_int) -> ! = unsafe { std::mem::transmute(next(&REAL, c"exit")) };
    // SAFETY: passed on unchanged.
    unsafe { real(status) }
}

/// Names the exported function, so that no linker drops it.
pub(crate) fn keep() {
    std::hint::black_box(exit as *const ());
}
