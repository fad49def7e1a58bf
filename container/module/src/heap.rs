//! The heap of a generation: everything its Rust code allocates and forgets goes when the heap goes.
//!
//! A heap is mimalloc's first-class heap (version 3: any thread may allocate from it, and destroying it frees every live
//! block at once). Its code and thread-local state are the executable's, so nothing of it hangs on the module.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use libmimalloc_sys::mi_free;
use wharf_abi::HeapApi;
use wharf_kernel::per_thread::{SHARED, known_number, number};

use crate::bins::{Bins, NATURAL, rounded};
use crate::resident::{give_back, small_pages_at};

#[repr(C)]
struct Area {
    blocks: *mut c_void,
    reserved: usize,
    committed: usize,
    used: usize,
    block_size: usize,
    full_block_size: usize,
}

type Visitor = extern "C" fn(*const c_void, *const Area, *mut c_void, usize, *mut c_void) -> bool;

// SAFETY: the functions of mimalloc 3 that the -sys crate does not declare, with the types of its `mimalloc.h`.
unsafe extern "C" {
    fn mi_heap_new() -> *mut c_void;
    fn mi_heap_destroy(heap: *mut c_void);
    fn mi_heap_collect(heap: *mut c_void, force: bool);
    fn mi_heap_malloc(heap: *mut c_void, size: usize) -> *mut c_void;
    fn mi_heap_malloc_aligned(heap: *mut c_void, size: usize, align: usize) -> *mut c_void;
    fn mi_heap_zalloc_aligned(heap: *mut c_void, size: usize, align: usize) -> *mut c_void;
    fn mi_heap_realloc_aligned(heap: *mut c_void, block: *mut c_void, size: usize, align: usize) -> *mut c_void;
    fn mi_heap_visit_blocks(heap: *mut c_void, each: bool, visit: Visitor, arg: *mut c_void) -> bool;
}

/// What a thread has of a heap; the last slot is that of all threads without a number of their own. A cache line of its own.
#[repr(align(64))]
#[derive(Default)]
struct Slot {
    /// Bytes allocated less bytes freed; only the sum of all slots means anything.
    live: AtomicI64,
    /// Null until something is kept; always null in the last slot.
    bins: AtomicPtr<Bins>,
}

struct Inner {
    mimalloc: *mut c_void,
    slots: [Slot; SHARED + 1],
    api: HeapApi,
}

impl Inner {
    /// The slot with this number, where it is one thread's alone.
    #[inline]
    fn slot(&self, number: usize) -> Option<&Slot> {
        if number < SHARED { Some(&self.slots[number]) } else { None }
    }

    /// The slot of this thread, where it is this thread's alone.
    #[inline]
    fn own(&self) -> Option<&Slot> {
        self.slot(number())
    }

    /// The same without an answer for a thread that has not asked for its number yet. What most calls need, and in few steps.
    #[inline]
    fn known(&self) -> Option<&Slot> {
        self.slot(known_number())
    }

    /// A block of `size` bytes that `take` finds among those that this thread keeps, counted.
    #[inline]
    fn kept(&self, size: usize, take: impl FnOnce(&mut Bins) -> Option<*mut u8>) -> Option<*mut u8> {
        let slot = self.known()?;
        // SAFETY: this thread's alone.
        let block = unsafe { slot.bins() }.and_then(take)?;
        slot.count(size as i64);
        Some(block)
    }

    /// Adds to the live bytes.
    fn count(&self, bytes: i64) {
        match self.own() {
            Some(slot) => slot.count(bytes),
            None => _ = self.slots[SHARED].live.fetch_add(bytes, Ordering::Relaxed),
        }
    }

    /// Counts a new block of `size` bytes and passes it on.
    fn counted(&self, block: *mut c_void, size: usize) -> *mut u8 {
        if !block.is_null() {
            self.count(size as i64);
        }
        block.cast()
    }
}

impl Slot {
    /// Adds to the live bytes; for the thread whose own it is. An atomic addition for each block would cost more than the rest of a
    /// small allocation.
    #[inline]
    fn count(&self, bytes: i64) {
        self.live.store(self.live.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }

    /// What this thread keeps.
    ///
    /// # Safety
    /// The slot must be this thread's alone, or nobody may use the heap, as long as the reference lives.
    #[inline]
    #[expect(clippy::mut_from_ref)]
    unsafe fn bins(&self) -> Option<&mut Bins> {
        // SAFETY: null or the box made in `let_go`, which lives as long as the heap; the caller's promise. Whoever takes a thread's
        // number after it sees what it wrote (`wharf_kernel::per_thread`).
        unsafe { self.bins.load(Ordering::Relaxed).as_mut() }
    }

    /// Frees what is kept.
    ///
    /// # Safety
    /// As [`Self::bins`].
    unsafe fn empty(&self) {
        // SAFETY: the caller's promise.
        if let Some(bins) = unsafe { self.bins() } {
            // SAFETY: what is kept are blocks of mimalloc that nobody uses.
            bins.empty(|block| unsafe { mi_free(block) });
        }
    }
}

/// The heap of one generation.
pub(crate) struct Heap(*mut Inner);

// SAFETY: mimalloc's heaps may be used on any thread; the counters are atomic.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

thread_local! {
    /// The heap for the module that is being loaded on this thread.
    static LOADING: Cell<*const HeapApi> = const { Cell::new(std::ptr::null()) };
}

/// The heap that an `HeapApi` is of.
///
/// # Safety
/// `heap` must be the `HeapApi::heap` of a heap that is alive.
unsafe fn inner<'a>(heap: *mut ()) -> &'a Inner {
    // SAFETY: the caller's promise.
    unsafe { &*heap.cast::<Inner>() }
}

unsafe extern "C" fn alloc(heap: *mut (), size: usize, align: usize) -> *mut u8 {
    // SAFETY: called through the `HeapApi` of a live heap.
    let this = unsafe { inner(heap) };
    if align <= NATURAL
        && let Some(block) = this.kept(size, |bins| bins.take(size))
    {
        return block;
    }
    // SAFETY: the caller's promise.
    unsafe { fresh(heap, size, align) }
}

/// A block that is large, or none that this thread has kept. In a function of its own, so that the way that most calls take needs no room on the
/// stack; as one of C, so that it can be jumped to.
#[cold]
#[inline(never)]
unsafe extern "C" fn fresh(heap: *mut (), size: usize, align: usize) -> *mut u8 {
    // SAFETY: called through the `HeapApi` of a live heap.
    let inner = unsafe { inner(heap) };
    if align <= NATURAL
        && let Some(block) = inner.kept(size, |bins| bins.take_large(size))
    {
        return block;
    }
    // SAFETY: a live heap of mimalloc; any size and alignment.
    let block = unsafe {
        if align <= NATURAL && align <= rounded(size) {
            mi_heap_malloc(inner.mimalloc, rounded(size))
        } else {
            mi_heap_malloc_aligned(inner.mimalloc, rounded(size), align)
        }
    };
    inner.counted(block, size)
}

unsafe extern "C" fn alloc_zeroed(heap: *mut (), size: usize, align: usize) -> *mut u8 {
    // SAFETY: called through the `HeapApi` of a live heap.
    let inner = unsafe { inner(heap) };
    // SAFETY: a live heap of mimalloc; any size and alignment.
    inner.counted(unsafe { mi_heap_zalloc_aligned(inner.mimalloc, rounded(size), align) }, size)
}

unsafe extern "C" fn realloc(heap: *mut (), block: *mut u8, old: usize, size: usize, align: usize) -> *mut u8 {
    // SAFETY: called through the `HeapApi` of a live heap with a live block of it.
    unsafe {
        let inner = inner(heap);
        let after = mi_heap_realloc_aligned(inner.mimalloc, block.cast(), rounded(size), align);
        if !after.is_null() {
            inner.count(size as i64 - old as i64);
        }
        after.cast()
    }
}

unsafe extern "C" fn free(heap: *mut (), block: *mut u8, size: usize) {
    // SAFETY: called through the `HeapApi` of a live heap.
    let this = unsafe { inner(heap) };
    if let Some(slot) = this.known()
        // SAFETY: this thread's alone.
        && let Some(bins) = unsafe { slot.bins() }
        // SAFETY: the block is free from here on; every one is asked for with at least `rounded(size)` bytes, and aligned to 16 then.
        && unsafe { bins.keep(block, size) }
    {
        slot.count(-(size as i64));
        return;
    }
    // SAFETY: a live block of the heap.
    unsafe { let_go(heap, block, size) };
}

/// Keeps a block that is large, or the first one of this thread, or frees it. As [`fresh`], a function of its own.
#[cold]
#[inline(never)]
unsafe extern "C" fn let_go(heap: *mut (), block: *mut u8, size: usize) {
    // SAFETY: called through the `HeapApi` of a live heap.
    let inner = unsafe { inner(heap) };
    inner.count(-(size as i64));
    if let Some(slot) = inner.own() {
        if slot.bins.load(Ordering::Relaxed).is_null() {
            slot.bins.store(Box::into_raw(Box::new(Bins::new())), Ordering::Relaxed);
        }
        // SAFETY: this thread's alone; and as in `free`.
        if unsafe { slot.bins().is_some_and(|bins| bins.keep(block, size) || bins.keep_large(block, size)) } {
            return;
        }
    }
    // SAFETY: called with a live block of it.
    unsafe { mi_free(block.cast()) };
}

/// The heap for the module that is being loaded on this thread, or null. Modules find it by name (`wharf_abi::HEAP_SYMBOL`).
#[unsafe(no_mangle)]
pub(crate) extern "C" fn wharf_module_heap_v1() -> *const HeapApi {
    LOADING.get()
}

impl Heap {
    /// A new, empty heap.
    pub(crate) fn new() -> Self {
        // SAFETY: no preconditions; mimalloc aborts or returns null without memory, which is checked.
        let mimalloc = unsafe { mi_heap_new() };
        assert!(!mimalloc.is_null(), "no memory for a heap");
        let inner = Box::into_raw(Box::new(Inner {
            mimalloc,
            slots: std::array::from_fn(|_| Slot::default()),
            api: HeapApi { heap: std::ptr::null_mut(), alloc, alloc_zeroed, realloc, free },
        }));
        // SAFETY: just made, not shared yet.
        unsafe { (*inner).api.heap = inner.cast() };
        small_pages_at(inner.addr());
        Self(inner)
    }

    /// Runs `load`: a module whose first allocation falls into it, on this thread, takes this heap for good.
    pub(crate) fn during<R>(&self, load: impl FnOnce() -> R) -> R {
        struct Reset(*const HeapApi);
        impl Drop for Reset {
            fn drop(&mut self) {
                LOADING.set(self.0);
            }
        }
        // SAFETY: alive as long as `self`.
        let _reset = Reset(LOADING.replace(unsafe { &raw const (*self.0).api }));
        load()
    }

    /// Gives what this thread has free in it back to the system: a start leaves much behind.
    pub(crate) fn settle(&self) {
        // SAFETY: a live heap; what is emptied and collected is this thread's part of it.
        unsafe {
            if let Some(slot) = (*self.0).own() {
                slot.empty();
            }
            mi_heap_collect((*self.0).mimalloc, true);
        }
        give_back();
    }

    /// Bytes in live blocks, as they were asked for.
    pub(crate) fn live_bytes(&self) -> u64 {
        // SAFETY: alive as long as `self`.
        let slots = unsafe { &(*self.0).slots };
        slots.iter().map(|slot| slot.live.load(Ordering::Relaxed)).sum::<i64>().max(0) as u64
    }

    /// Bytes and number of the live blocks, by a walk through the heap.
    ///
    /// # Safety
    /// No other thread may use the heap during the call.
    pub(crate) unsafe fn survey(&self) -> (u64, u64) {
        extern "C" fn visit(
            _: *const c_void,
            area: *const Area,
            block: *mut c_void,
            _: usize,
            sum: *mut c_void,
        ) -> bool {
            if block.is_null() {
                // SAFETY: mimalloc passes a valid area, and `sum` is the pair below.
                let (area, sum) = unsafe { (&*area, &mut *sum.cast::<(u64, u64)>()) };
                sum.0 += (area.used * area.block_size) as u64;
                sum.1 += area.used as u64;
            }
            true
        }
        let mut sum = (0_u64, 0_u64);
        // SAFETY: a live heap, used by nobody else as the caller promises.
        unsafe { (*self.0).slots.iter().for_each(|slot| slot.empty()) };
        // SAFETY: as above.
        unsafe { mi_heap_visit_blocks((*self.0).mimalloc, false, visit, (&raw mut sum).cast()) };
        sum
    }

    /// Frees every block and the heap itself.
    ///
    /// # Safety
    /// Nobody may use a block of it, or the heap, during the call or after.
    pub(crate) unsafe fn destroy(self) {
        // SAFETY: the caller's promise; `self` is gone after this, and there is no `Drop`: a heap that is merely dropped
        // stays, for what allocated from it may still be there.
        unsafe {
            mi_heap_destroy((*self.0).mimalloc);
            let inner = Box::from_raw(self.0);
            for bins in inner.slots.iter().map(|slot| slot.bins.load(Ordering::Relaxed)).filter(|bins| !bins.is_null())
            {
                drop(Box::from_raw(bins));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_counted_and_freed() {
        let heap = Heap::new();
        heap.during(|| {
            let api = wharf_module_heap_v1();
            // SAFETY: the API of a live heap; blocks are used within their size.
            unsafe {
                let api = &*api;
                let a = (api.alloc)(api.heap, 1000, 8);
                let b = (api.alloc_zeroed)(api.heap, 100, 64);
                assert_eq!(b as usize % 64, 0);
                assert_eq!(*b, 0);
                let c = (api.realloc)(api.heap, a, 1000, 5000, 8);
                (api.free)(api.heap, c, 5000);
                // Kept for this thread's next one.
                let d = (api.alloc)(api.heap, 500, 8);
                (api.free)(api.heap, d, 500);
                assert_eq!((api.alloc)(api.heap, 510, 16), d);
                (api.free)(api.heap, d, 510);
            }
        });
        assert!(wharf_module_heap_v1().is_null());
        assert_eq!(heap.live_bytes(), 100);
        // SAFETY: no other thread knows this heap.
        unsafe {
            let (bytes, blocks) = heap.survey();
            assert_eq!(blocks, 1);
            assert!(bytes >= 100);
            heap.destroy();
        }
    }
}
