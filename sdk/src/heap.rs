//! The module's global allocator: the heap of its generation inside the container, the system's allocator elsewhere.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicPtr, Ordering};

use wharf_abi::{HEAP_SYMBOL, HeapApi, HeapFn};

/// Set as `#[global_allocator]` by [`export!`](crate::export).
///
/// At its first allocation it asks the process for the container's function. That decides for the module's whole life, so a
/// block is always freed where it came from.
pub struct ModuleAllocator;

/// The container's heap. Null: it has none for us, or was not asked yet, as [`ANSWER`] knows.
static HEAP: AtomicPtr<HeapApi> = AtomicPtr::new(std::ptr::null_mut());

/// Null: not asked yet. Else the container's heap, or `NO_HEAP`.
static ANSWER: AtomicPtr<HeapApi> = AtomicPtr::new(std::ptr::null_mut());

/// Only its address matters: "the container has no heap for us".
static NO_HEAP: u64 = 0;

fn no_heap() -> *mut HeapApi {
    (&raw const NO_HEAP).cast_mut().cast()
}

fn ask() -> *mut HeapApi {
    // SAFETY: a NUL-terminated name; `dlsym` allocates, if at all, with the C library's allocator.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, HEAP_SYMBOL.as_ptr()) };
    let mut heap = no_heap();
    if !function.is_null() {
        // SAFETY: the symbol of this name has this type: its version is part of the name.
        let function: HeapFn = unsafe { std::mem::transmute(function) };
        // SAFETY: no preconditions.
        let given = unsafe { function() }.cast_mut();
        if !given.is_null() {
            heap = given;
        }
    }
    if let Err(other) = ANSWER.compare_exchange(std::ptr::null_mut(), heap, Ordering::AcqRel, Ordering::Acquire) {
        heap = other;
    }
    if heap != no_heap() {
        HEAP.store(heap, Ordering::Release);
    }
    heap
}

/// The container's heap, where it is known that it has one.
#[inline]
fn heap() -> Option<&'static HeapApi> {
    // SAFETY: null or the container's, which keeps it until after this module is unloaded.
    unsafe { HEAP.load(Ordering::Acquire).as_ref() }
}

/// The container's heap, or `None` where it has none for us.
fn asked() -> Option<&'static HeapApi> {
    let mut heap = ANSWER.load(Ordering::Acquire);
    if heap.is_null() {
        heap = ask();
    }
    // SAFETY: not `NO_HEAP`, so it is the container's, which keeps it until after this module is unloaded.
    (heap != no_heap()).then(|| unsafe { &*heap })
}

/// The two functions that every request calls many times, for whoever has not asked yet, or got no heap: so they are short.
mod first {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::asked;

    #[cold]
    #[inline(never)]
    pub(super) unsafe fn alloc(layout: Layout) -> *mut u8 {
        match asked() {
            // SAFETY: the caller's contract, passed on.
            Some(api) => unsafe { (api.alloc)(api.heap, layout.size(), layout.align()) },
            // SAFETY: the caller's contract, passed on.
            None => unsafe { System.alloc(layout) },
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) unsafe fn dealloc(block: *mut u8, layout: Layout) {
        match asked() {
            // SAFETY: the block came from the same heap.
            Some(api) => unsafe { (api.free)(api.heap, block, layout.size()) },
            // SAFETY: the block came from `System`.
            None => unsafe { System.dealloc(block, layout) },
        }
    }
}

// SAFETY: either all calls go to `System`, or all go to one heap of the container that keeps the contract of `malloc`.
unsafe impl GlobalAlloc for ModuleAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match heap() {
            // SAFETY: the caller's contract, passed on.
            Some(api) => unsafe { (api.alloc)(api.heap, layout.size(), layout.align()) },
            // SAFETY: the caller's contract, passed on.
            None => unsafe { first::alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match asked() {
            // SAFETY: the caller's contract, passed on.
            Some(api) => unsafe { (api.alloc_zeroed)(api.heap, layout.size(), layout.align()) },
            // SAFETY: the caller's contract, passed on.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match heap() {
            // SAFETY: the block came from the same heap.
            Some(api) => unsafe { (api.free)(api.heap, block, layout.size()) },
            // SAFETY: the block came from where all do.
            None => unsafe { first::dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match asked() {
            // SAFETY: the block came from the same heap.
            Some(api) => unsafe { (api.realloc)(api.heap, block, layout.size(), size, layout.align()) },
            // SAFETY: the block came from `System`.
            None => unsafe { System.realloc(block, layout, size) },
        }
    }
}
