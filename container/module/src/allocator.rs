//! The allocator for the container's own code: mimalloc, as for the modules, without a heap of its own.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

use libmimalloc_sys::{mi_free, mi_malloc, mi_malloc_aligned, mi_realloc_aligned, mi_zalloc_aligned};
use wharf_kernel::per_thread::{SHARED, number};

use crate::bins::{Bins, NATURAL, rounded};

/// What each thread with a number of its own keeps. A thread that ends leaves it to the one that has its number next.
struct Kept([UnsafeCell<Bins>; SHARED]);

// SAFETY: each is used by the one living thread that has its number (`wharf_kernel::per_thread`).
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept([const { UnsafeCell::new(Bins::new()) }; SHARED]);

/// What this thread keeps.
///
/// # Safety
/// The reference must be gone before the thread calls this again.
#[inline]
unsafe fn kept<'a>() -> Option<&'a mut Bins> {
    let kept = KEPT.0.get(number())?;
    // SAFETY: no other living thread has this number, and this one has no other reference, as the caller promises.
    Some(unsafe { &mut *kept.get() })
}

/// A block that is large, or none that this thread has kept.
#[cold]
#[inline(never)]
fn fresh(size: usize, align: usize) -> *mut u8 {
    if align <= NATURAL
        // SAFETY: gone at the end of the expression, in which nothing is allocated.
        && let Some(block) = unsafe { kept() }.and_then(|bins| bins.take_large(size))
    {
        return block;
    }
    // SAFETY: any size and alignment.
    unsafe {
        if align <= NATURAL && align <= rounded(size) {
            mi_malloc(rounded(size)).cast()
        } else {
            mi_malloc_aligned(rounded(size), align).cast()
        }
    }
}

/// Keeps a block that is large, or frees it.
///
/// # Safety
/// It must be a live block of mimalloc that was asked for with this size.
#[cold]
#[inline(never)]
unsafe fn let_go(block: *mut u8, size: usize) {
    // SAFETY: as in `dealloc`.
    if unsafe { kept().is_some_and(|bins| bins.keep_large(block, size)) } {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { mi_free(block.cast()) }
}

/// The container's `#[global_allocator]`.
pub struct Allocator;

// SAFETY: mimalloc keeps the contract of `malloc` for every size and alignment, and what is kept is handed out to one at a time.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        if align <= NATURAL
            // SAFETY: gone at the end of the expression, in which nothing is allocated.
            && let Some(block) = unsafe { kept() }.and_then(|bins| bins.take(size))
        {
            return block;
        }
        fresh(size, align)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: any size and alignment.
        unsafe { mi_zalloc_aligned(rounded(layout.size()), layout.align()).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: gone at the end of the expression, in which nothing is allocated. The block is free from here on; every one is asked
        // for with `rounded(size)` bytes, so that it is aligned to 16.
        if unsafe { kept().is_some_and(|bins| bins.keep(block, layout.size())) } {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { let_go(block, layout.size()) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: a live block of mimalloc, as the caller promises.
        unsafe { mi_realloc_aligned(block.cast(), rounded(size), layout.align()).cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_frees_it_gets_again_and_every_alignment_holds() {
        for (size, align) in [(1, 1), (40, 8), (64, 16), (24, 64), (1000, 8), (5000, 4096), (3_000_000, 8)] {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: a block is used within its size, and freed once.
            unsafe {
                let first = Allocator.alloc(layout);
                assert_eq!(first.addr() % align, 0);
                first.write_bytes(0xAA, size);
                Allocator.dealloc(first, layout);
                let again = Allocator.alloc_zeroed(layout);
                assert!((0..size).all(|at| again.add(at).read() == 0));
                let larger = Allocator.realloc(again, layout, size * 2);
                assert_eq!((larger.addr() % align, larger.read()), (0, 0));
                Allocator.dealloc(larger, Layout::from_size_align(size * 2, align).unwrap());
            }
        }
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: as above.
        unsafe {
            let block = Allocator.alloc(layout);
            Allocator.dealloc(block, layout);
            assert_eq!(Allocator.alloc(layout), block);
            Allocator.dealloc(block, layout);
        }
    }
}
