//! The functions of the C library that the executable puts in front of glibc's, so that a module can be unloaded.
//!
//! On a thread that lives on, glibc keeps a library mapped while a thread-local destructor of its waits for the thread's
//! end, and calls a pthread key's destructor at that end although its code may be gone. So the executable exports its own
//! `__cxa_thread_atexit_impl`, `pthread_key_create`, `pthread_key_delete` and `pthread_create`: the dynamic linker prefers
//! them to glibc's for every module. They keep lists; retirement runs what is on them, thread by thread, and takes it off.
//!
//! Calls from the executable itself go straight on to glibc.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Dtor = unsafe extern "C" fn(*mut c_void);
type Start = extern "C" fn(*mut c_void) -> *mut c_void;

// SAFETY: symbols of the linker's own script; only their addresses are taken.
unsafe extern "C" {
    static __executable_start: u8;
    static _end: u8;
}

/// True when `address` is code or data of the executable itself.
pub(crate) fn in_executable(address: usize) -> bool {
    let (start, end) = (&raw const __executable_start as usize, &raw const _end as usize);
    (start..end).contains(&address)
}

/// The next definition of a symbol after the executable's: glibc's.
pub(crate) fn next(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cache.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: a NUL-terminated name; RTLD_NEXT is resolved from this function's own object, the executable.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        // Without the real function nothing in this process can work.
        std::process::abort();
    }
    cache.store(found, Ordering::Relaxed);
    found
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- thread-local destructors -------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Waiting {
    dtor: Dtor,
    object: *mut c_void,
}

thread_local! {
    /// The destructors that wait on this thread, in the order in which they were registered. Const and without a destructor
    /// of its own, so that it can be used at any time in a thread's life.
    static WAITING: Cell<*mut Vec<Waiting>> = const { Cell::new(std::ptr::null_mut()) };
}

/// The key whose destructor runs, at a thread's end, what retirement did not; 0 is "not made yet", else key + 1.
static EXIT_KEY: AtomicU32 = AtomicU32::new(0);

fn exit_key() -> libc::pthread_key_t {
    let known = EXIT_KEY.load(Ordering::Acquire);
    if known != 0 {
        return known - 1;
    }
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = lock(&MAKING);
    if EXIT_KEY.load(Ordering::Acquire) == 0 {
        let mut key = 0;
        // SAFETY: a valid place for the key and a destructor that is never unloaded.
        if unsafe { real_key_create()(&raw mut key, Some(run_all_at_exit)) } != 0 {
            std::process::abort();
        }
        EXIT_KEY.store(key + 1, Ordering::Release);
    }
    EXIT_KEY.load(Ordering::Acquire) - 1
}

unsafe extern "C" fn run_all_at_exit(_: *mut c_void) {
    run_thread_locals(&(0..usize::MAX));
    let list = WAITING.replace(std::ptr::null_mut());
    if !list.is_null() {
        // SAFETY: made by `Box::into_raw` below, and taken out of the only place that knew it.
        drop(unsafe { Box::from_raw(list) });
    }
}

/// Registers a thread-local destructor (Itanium C++ ABI, section 3.3.6.2; glibc's extension for threads).
///
/// # Safety
/// As glibc's: `dtor` may be called with `object` on this thread until the library of `dso` is unloaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __cxa_thread_atexit_impl(dtor: Dtor, object: *mut c_void, dso: *mut c_void) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    if in_executable(dtor as usize) {
        let real = next(&REAL, c"__cxa_thread_atexit_impl");
        // SAFETY: glibc's function of this name has this type.
        let real: unsafe extern "C" fn(Dtor, *mut c_void, *mut c_void) -> c_int = unsafe { std::mem::transmute(real) };
        // SAFETY: passed on unchanged.
        return unsafe { real(dtor, object, dso) };
    }
    let mut list = WAITING.get();
    if list.is_null() {
        list = Box::into_raw(Box::default());
        WAITING.set(list);
    }
    // Each time, not only the first: at a thread's end glibc has set the value back to null when it calls us.
    // SAFETY: the key exists, and any non-null value will do.
    unsafe { libc::pthread_setspecific(exit_key(), list.cast()) };
    // SAFETY: only this thread uses the list, and no reference to it is held across a call of a destructor.
    unsafe { (*list).push(Waiting { dtor, object }) };
    0
}

/// Runs, on this thread, the destructors whose code lies in `extent`, latest first, until none is left. Returns how many.
fn run_thread_locals(extent: &Range<usize>) -> u64 {
    let mut run = 0;
    loop {
        let list = WAITING.get();
        if list.is_null() {
            return run;
        }
        // SAFETY: only this thread uses the list; the borrow ends before the destructor is called.
        let list = unsafe { &mut *list };
        let Some(at) = list.iter().rposition(|w| extent.contains(&(w.dtor as usize))) else { return run };
        let waiting = list.remove(at);
        // SAFETY: registered for this thread and called once; its library is still mapped.
        unsafe { (waiting.dtor)(waiting.object) };
        run += 1;
    }
}

// ---- pthread keys -------------------------------------------------------------------------------------------------

struct Key {
    key: libc::pthread_key_t,
    dtor: Dtor,
}

static KEYS: Mutex<Vec<Key>> = Mutex::new(Vec::new());

type KeyCreate = unsafe extern "C" fn(*mut libc::pthread_key_t, Option<Dtor>) -> c_int;

fn real_key_create() -> KeyCreate {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    // SAFETY: glibc's function of this name has this type.
    unsafe { std::mem::transmute::<*mut c_void, KeyCreate>(next(&REAL, c"pthread_key_create")) }
}

fn real_key_delete() -> unsafe extern "C" fn(libc::pthread_key_t) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let real = next(&REAL, c"pthread_key_delete");
    // SAFETY: glibc's function of this name has this type.
    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(libc::pthread_key_t) -> c_int>(real) }
}

/// Makes a thread-specific data key (POSIX), and remembers it when its destructor is a module's.
///
/// # Safety
/// As glibc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_create(key: *mut libc::pthread_key_t, dtor: Option<Dtor>) -> c_int {
    // SAFETY: passed on unchanged.
    let result = unsafe { real_key_create()(key, dtor) };
    if let Some(dtor) = dtor
        && result == 0
        && !in_executable(dtor as usize)
    {
        // SAFETY: the call succeeded, so the key was written.
        lock(&KEYS).push(Key { key: unsafe { *key }, dtor });
    }
    result
}

/// Gives a key back (POSIX), and forgets it.
///
/// # Safety
/// As glibc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_key_delete(key: libc::pthread_key_t) -> c_int {
    lock(&KEYS).retain(|k| k.key != key);
    // SAFETY: passed on unchanged.
    unsafe { real_key_delete()(key) }
}

/// Runs, on this thread, the destructors of the keys whose destructor lies in `extent`. Returns how many.
fn run_keys(extent: &Range<usize>) -> u64 {
    let mut run = 0;
    // As glibc does at a thread's end: a destructor may set values again, so several rounds.
    for _ in 0..4 {
        let keys: Vec<(libc::pthread_key_t, Dtor)> =
            lock(&KEYS).iter().filter(|k| extent.contains(&(k.dtor as usize))).map(|k| (k.key, k.dtor)).collect();
        let mut any = false;
        for (key, dtor) in keys {
            // SAFETY: a live key.
            let value = unsafe { libc::pthread_getspecific(key) };
            if !value.is_null() {
                any = true;
                run += 1;
                // SAFETY: as glibc does it: the value is reset, then its destructor called, in a library still mapped.
                unsafe {
                    libc::pthread_setspecific(key, std::ptr::null());
                    dtor(value);
                }
            }
        }
        if !any {
            break;
        }
    }
    run
}

/// Runs everything that waits on this thread for the code in `extent`. Returns how many destructors ran.
pub fn run_destructors(extent: &Range<usize>) -> u64 {
    let mut total = 0;
    loop {
        let run = run_thread_locals(extent) + run_keys(extent);
        if run == 0 {
            return total;
        }
        total += run;
        if total > 1_000_000 {
            // Destructors that register each other for ever: what remains is reported by the caller's proof.
            return total;
        }
    }
}

/// Gives back the keys whose destructor lies in `extent`. To be called when no thread has a value for them any more.
pub fn delete_keys(extent: &Range<usize>) -> u64 {
    let mut deleted = 0;
    lock(&KEYS).retain(|k| {
        let ours = extent.contains(&(k.dtor as usize));
        if ours {
            // SAFETY: a live key that its owner did not give back.
            unsafe { real_key_delete()(k.key) };
            deleted += 1;
        }
        !ours
    });
    deleted
}

// ---- threads ------------------------------------------------------------------------------------------------------

struct Started {
    number: u64,
    start: usize,
    /// Kernel thread id; 0 until the thread runs.
    tid: i32,
    /// Its start time in clock ticks, so that a reused id is not taken for it.
    since: u64,
    /// Its start function has returned; the end is near.
    returned: bool,
}

static THREADS: Mutex<Vec<Started>> = Mutex::new(Vec::new());
/// Processor time of threads that have ended, by their start functions.
static ENDED: Mutex<BTreeMap<usize, Duration>> = Mutex::new(BTreeMap::new());
static THREAD_NUMBER: AtomicU64 = AtomicU64::new(0);

struct Wrapped {
    start: Start,
    argument: *mut c_void,
    number: u64,
}

extern "C" fn trampoline(wrapped: *mut c_void) -> *mut c_void {
    // SAFETY: the box that `pthread_create` below gave to this thread alone.
    let wrapped = unsafe { Box::from_raw(wrapped.cast::<Wrapped>()) };
    let Wrapped { start, argument, number } = *wrapped;
    // SAFETY: no arguments, no failure.
    let tid = unsafe { libc::gettid() };
    let since = start_time(tid).unwrap_or(0);
    if let Some(me) = lock(&THREADS).iter_mut().find(|t| t.number == number) {
        (me.tid, me.since) = (tid, since);
    }
    let result = start(argument);
    let mut threads = lock(&THREADS);
    if let Some(me) = threads.iter_mut().find(|t| t.number == number) {
        me.returned = true;
    }
    *lock(&ENDED).entry(start as usize).or_default() += time_of(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default();
    result
}

/// Starts a thread (POSIX), and remembers it when its start function is a module's.
///
/// # Safety
/// As glibc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    type Create = unsafe extern "C" fn(*mut libc::pthread_t, *const libc::pthread_attr_t, Start, *mut c_void) -> c_int;
    // SAFETY: glibc's function of this name has this type.
    let real: Create = unsafe { std::mem::transmute(next(&REAL, c"pthread_create")) };
    if in_executable(start as usize) {
        // SAFETY: passed on unchanged.
        return unsafe { real(thread, attributes, start, argument) };
    }
    let number = THREAD_NUMBER.fetch_add(1, Ordering::Relaxed);
    {
        let mut threads = lock(&THREADS);
        if threads.len() >= 64 {
            threads.retain(|t| !t.returned || is_alive(t));
        }
        threads.push(Started { number, start: start as usize, tid: 0, since: 0, returned: false });
    }
    let wrapped = Box::into_raw(Box::new(Wrapped { start, argument, number }));
    // SAFETY: the trampoline takes the box, and calls the start function with its argument.
    let result = unsafe { real(thread, attributes, trampoline, wrapped.cast()) };
    if result != 0 {
        lock(&THREADS).retain(|t| t.number != number);
        // SAFETY: no thread was started, so the box is still ours.
        drop(unsafe { Box::from_raw(wrapped) });
    }
    result
}

/// Start time of a thread of this process (`/proc/self/task/TID/stat`, field 22), `None` when there is no such thread.
fn start_time(tid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    // The name in field 2 may hold spaces and parentheses; the fields after the last ')' are plain.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_alive(thread: &Started) -> bool {
    thread.tid == 0 || start_time(thread.tid) == Some(thread.since)
}

/// The threads that were started with a function in `extent` and still run, by name.
pub fn threads_in(extent: &Range<usize>) -> Vec<String> {
    let mut threads = lock(&THREADS);
    threads.retain(|t| !extent.contains(&t.start) || is_alive(t));
    threads
        .iter()
        .filter(|t| extent.contains(&t.start))
        .map(|t| {
            let name = std::fs::read_to_string(format!("/proc/self/task/{}/comm", t.tid)).unwrap_or_default();
            format!("thread '{}' (tid {})", name.trim_end(), t.tid)
        })
        .collect()
}

fn time_of(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result has room.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (done == 0).then(|| Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// The clock of a thread's processor time, as Linux numbers them (`pthread_getcpuclockid` takes no kernel id).
fn clock_of(tid: i32) -> libc::clockid_t {
    const OF_A_THREAD: libc::clockid_t = 4;
    const RUNNING: libc::clockid_t = 2;
    (!tid << 3) | OF_A_THREAD | RUNNING
}

/// The processor time of all threads that were started with a function in `extent`.
pub fn thread_time(extent: &Range<usize>) -> Duration {
    // Both at once, as at the end of a thread: it is in one of them.
    let threads = lock(&THREADS);
    let running = threads.iter().filter(|t| extent.contains(&t.start) && t.tid != 0 && !t.returned);
    let running: Duration = running.filter_map(|t| time_of(clock_of(t.tid))).sum();
    running + lock(&ENDED).range(extent.clone()).map(|(_, time)| *time).sum::<Duration>()
}

/// Forgets what threads have taken that were started with a function in `extent`: something else will be there.
pub fn forget_times(extent: &Range<usize>) {
    lock(&ENDED).retain(|start, _| !extent.contains(start));
}

/// Names the exported functions, so that no linker drops them.
pub fn keep() {
    crate::descriptors::keep();
    crate::signals::keep();
    crate::exit::keep();
    std::hint::black_box((
        __cxa_thread_atexit_impl as *const (),
        pthread_key_create as *const (),
        pthread_key_delete as *const (),
        pthread_create as *const (),
        crate::heap::wharf_module_heap_v1 as *const (),
    ));
}
