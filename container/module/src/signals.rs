//! Signal handlers of modules: none may stay behind, and none may take the container's own signals.
//!
//! A signal's action belongs to the whole process. A handler whose code is gone ends the process at the next signal, and
//! one for SIGTERM or SIGINT would keep the container from hearing that it shall stop. So the executable puts itself in
//! front of `sigaction` and `signal`, as in [`crate::interpose`].

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::AtomicPtr;

use crate::interpose::{in_executable, lock, next};

type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;

/// The signals by which people and supervisors speak to the container. A module that asks for one is told that it has it,
/// and never hears it.
const RESERVED: [c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

struct Installed {
    signal: c_int,
    handler: usize,
    before: libc::sigaction,
}

/// Handlers of modules, in the order in which they were installed.
static INSTALLED: Mutex<Vec<Installed>> = Mutex::new(Vec::new());

fn real() -> Sigaction {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    // SAFETY: the C library's function of this name has this type.
    unsafe { std::mem::transmute::<*mut c_void, Sigaction>(next(&REAL, c"sigaction")) }
}

fn is_foreign(handler: usize) -> bool {
    handler != libc::SIG_DFL && handler != libc::SIG_IGN && !in_executable(handler)
}

/// Changes a signal's action (POSIX). A module's handler is remembered, or for a reserved signal passed over.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    // SAFETY: null or valid, as the caller promises.
    let handler = unsafe { new.as_ref() }.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    if !is_foreign(handler) {
        // SAFETY: passed on unchanged.
        return unsafe { real()(signal, new, old) };
    }
    if RESERVED.contains(&signal) {
        tracing::warn!(signal, "an application asked for a signal that is the container's: it will not hear it");
        // SAFETY: asks only; `old` is null or valid, as the caller promises.
        return unsafe { real()(signal, std::ptr::null(), old) };
    }
    let mut installed = lock(&INSTALLED);
    // SAFETY: all zeroes is a valid value, and it is written before it is read.
    let mut before = unsafe { std::mem::zeroed::<libc::sigaction>() };
    // SAFETY: passed on, with a place for the old action that is ours.
    let result = unsafe { real()(signal, new, &raw mut before) };
    if result == 0 {
        if !old.is_null() {
            // SAFETY: valid, as the caller promises.
            unsafe { *old = before };
        }
        installed.push(Installed { signal, handler, before });
    }
    result
}

/// Changes a signal's action, the old way (ISO C).
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: all zeroes is a valid value of both.
    let (mut new, mut old) = unsafe { (std::mem::zeroed::<libc::sigaction>(), std::mem::zeroed::<libc::sigaction>()) };
    new.sa_sigaction = handler;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both are valid.
    if unsafe { sigaction(signal, &raw const new, &raw mut old) } == 0 { old.sa_sigaction } else { libc::SIG_ERR }
}

/// Takes the handlers in `extent` away: what was there before each is there again. Returns how many there were.
pub(crate) fn remove_handlers(extent: &Range<usize>) -> u64 {
    let mut installed = lock(&INSTALLED);
    let mut removed = 0;
    while let Some(at) = installed.iter().position(|i| extent.contains(&i.handler)) {
        let gone = installed.remove(at);
        removed += 1;
        match installed[at..].iter_mut().find(|later| later.signal == gone.signal) {
            // A later one is in force: it will give back what this one would have.
            Some(later) => later.before = gone.before,
            // SAFETY: an action that was in force before.
            None => _ = unsafe { real()(gone.signal, &raw const gone.before, std::ptr::null_mut()) },
        }
    }
    removed
}

/// Names the exported functions, so that no linker drops them.
pub(crate) fn keep() {
    std::hint::black_box([sigaction as *const (), signal as *const ()]);
}
