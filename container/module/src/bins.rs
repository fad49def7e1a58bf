//! Blocks that a thread has freed and keeps for its next allocations: of the heap of a module, or of the container's own.
//!
//! mimalloc hands out a page's blocks in turn, so that what a request frees comes back only after many others, when no cache of the
//! processor holds it any more; and it looks up what the block belongs to each time. Here the last block that was freed is the first to
//! be used again, and one line of the table is all that is looked at.

use std::ffi::c_void;

/// Every block of mimalloc that is not smaller is aligned to this, so most need no other function.
pub(crate) const NATURAL: usize = 16;
/// Small blocks are kept by their size in steps of this, which is also what all are aligned to.
const STEP: usize = NATURAL;
/// What counts as small.
const SMALL: usize = 1024;
/// Small blocks kept of each size.
const KEPT: usize = 8;
/// Those above are kept by their size in steps of this, as fine as the classes of mimalloc.
const LARGE_STEP: usize = 256;
/// Larger blocks are not kept. A connection's buffer is one that is: hyper takes one for each request.
const LARGEST: usize = 8192;
/// Large blocks kept of each size.
const LARGE_KEPT: usize = 2;

/// A block that nobody uses: in it is where the next one of its size is.
struct Free {
    next: *mut Free,
}

/// The kept blocks of one size.
struct Bin {
    first: *mut Free,
    count: usize,
}

impl Bin {
    const EMPTY: Self = Self { first: std::ptr::null_mut(), count: 0 };

    #[inline]
    fn take(&mut self) -> Option<*mut u8> {
        let block = self.first;
        if block.is_null() {
            return None;
        }
        // SAFETY: what is in a bin was written by `keep`, and is nobody else's until it is taken out here.
        self.first = unsafe { (*block).next };
        self.count -= 1;
        Some(block.cast())
    }

    /// Keeps a block, where there are not as many already.
    ///
    /// # Safety
    /// As [`Bins::keep`].
    #[inline]
    unsafe fn keep(&mut self, block: *mut u8, most: usize) -> bool {
        if self.count >= most {
            return false;
        }
        let block = block.cast::<Free>();
        // SAFETY: the caller's promise: there are 16 bytes at least, aligned, that nobody else uses.
        unsafe { block.write(Free { next: self.first }) };
        self.first = block;
        self.count += 1;
        true
    }
}

/// What one thread keeps. On cache lines of its own.
#[repr(align(64))]
pub(crate) struct Bins {
    small: [Bin; SMALL / STEP],
    large: [Bin; (LARGEST - SMALL) / LARGE_STEP],
}

/// What to ask mimalloc for, so that a block can be used again for any size of its bin.
#[inline]
pub(crate) const fn rounded(size: usize) -> usize {
    if size <= SMALL {
        size.next_multiple_of(STEP)
    } else if size <= LARGEST {
        size.next_multiple_of(LARGE_STEP)
    } else {
        size
    }
}

/// The bin for small blocks of this size. No size at all is no bin.
#[inline]
const fn small(size: usize) -> usize {
    size.wrapping_sub(1) / STEP
}

/// The bin for large ones.
const fn large(size: usize) -> usize {
    size.wrapping_sub(SMALL + 1) / LARGE_STEP
}

impl Bins {
    pub(crate) const fn new() -> Self {
        Self { small: [const { Bin::EMPTY }; _], large: [const { Bin::EMPTY }; _] }
    }

    /// Takes a small block for so many bytes, aligned to 16.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> Option<*mut u8> {
        self.small.get_mut(small(size))?.take()
    }

    /// Takes a large one.
    pub(crate) fn take_large(&mut self, size: usize) -> Option<*mut u8> {
        self.large.get_mut(large(size))?.take()
    }

    /// Keeps a small block. False where it is too large, or there are enough.
    ///
    /// # Safety
    /// The block must be free, of at least `rounded(size)` bytes, and aligned to 16; it must stay so until it is taken out.
    #[inline]
    pub(crate) unsafe fn keep(&mut self, block: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        self.small.get_mut(small(size)).is_some_and(|bin| unsafe { bin.keep(block, KEPT) })
    }

    /// Keeps a large one.
    ///
    /// # Safety
    /// As [`Self::keep`].
    pub(crate) unsafe fn keep_large(&mut self, block: *mut u8, size: usize) -> bool {
        // SAFETY: the caller's promise.
        self.large.get_mut(large(size)).is_some_and(|bin| unsafe { bin.keep(block, LARGE_KEPT) })
    }

    /// Gives all of them to `free`.
    pub(crate) fn empty(&mut self, free: impl Fn(*mut c_void)) {
        for bin in self.small.iter_mut().chain(&mut self.large) {
            while let Some(block) = bin.take() {
                free(block.cast());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_one_bin_are_rounded_to_the_same() {
        let Bins { small: few, large: more } = Bins::new();
        for size in 1..=LARGEST {
            let (room, step) = (rounded(size), if size <= SMALL { STEP } else { LARGE_STEP });
            assert!(room >= size && room < size + step && room.is_multiple_of(step), "{size}");
            match size {
                ..=SMALL => assert_eq!((small(size), small(room)), (room / STEP - 1, room / STEP - 1), "{size}"),
                _ => assert!(small(size) >= few.len() && large(size) == large(room), "{size}"),
            }
        }
        assert!(large(SMALL + 1) == 0 && large(LARGEST) == more.len() - 1 && large(LARGEST + 1) >= more.len());
        assert!(small(0) >= few.len() && large(0) >= more.len(), "no size at all");
        assert_eq!(rounded(LARGEST + 1), LARGEST + 1);
    }

    #[test]
    fn the_last_one_comes_first_and_there_are_a_few_only() {
        let mut blocks = [[0_u128; 4]; KEPT + 1];
        let addresses: Vec<*mut u8> = blocks.iter_mut().map(|block| block.as_mut_ptr().cast()).collect();
        let mut bins = Bins::new();
        for (at, block) in addresses.iter().enumerate() {
            // SAFETY: 64 bytes of the array above, used by nobody else.
            assert_eq!(unsafe { bins.keep(*block, 49 + at) }, at < KEPT);
        }
        assert_eq!(bins.take(65), None);
        assert_eq!(bins.take(64), Some(addresses[KEPT - 1]));
        let emptied = std::cell::RefCell::new(Vec::new());
        bins.empty(|block| emptied.borrow_mut().push(block.cast::<u8>()));
        let rest: Vec<_> = addresses[..KEPT - 1].iter().rev().copied().collect();
        assert_eq!(emptied.into_inner(), rest);
        assert_eq!(bins.take(64), None);
    }
}
