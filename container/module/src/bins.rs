//! Blocks that a thread has freed and keeps for its next allocations: of the heap of a module, or of the container's own.
//!
//! mimalloc hands out a page's blocks in turn, so that what a request frees comes back only after many others, when no cache of the
//! processor holds it any more; and it looks up what the block belongs to each time. Here the last block that was freed is the first to
//! be used again, and one line of the table is all that is looked at.

use std::ffi::c_void;

/// Every block of mimalloc that is not smaller is aligned to this, so most need no other function.
pub(crate) const NATURAL: usize = 16;
/// Blocks are kept by their size in steps of this, which is also what all are aligned to.
const STEP: usize = NATURAL;
/// Larger blocks are not kept.
const LARGEST: usize = 1024;
/// Blocks kept of each size.
const KEPT: usize = 8;

/// A block that nobody uses: in it is where the next one of its size is.
struct Free {
    next: *mut Free,
}

/// The kept blocks of one size.
struct Bin {
    first: *mut Free,
    count: usize,
}

/// What one thread keeps. On cache lines of its own.
#[repr(align(64))]
pub(crate) struct Bins([Bin; LARGEST / STEP]);

/// What to ask mimalloc for, so that a block can be used again for any size of its bin.
#[inline]
pub(crate) const fn rounded(size: usize) -> usize {
    if size <= LARGEST { size.next_multiple_of(STEP) } else { size }
}

/// The bin for blocks of this size.
#[inline]
const fn bin(size: usize) -> usize {
    // No size at all is no bin.
    size.wrapping_sub(1) / STEP
}

impl Bins {
    pub(crate) const fn new() -> Self {
        Self([const { Bin { first: std::ptr::null_mut(), count: 0 } }; LARGEST / STEP])
    }

    /// Takes a block for so many bytes, aligned to 16.
    #[inline]
    pub(crate) fn take(&mut self, size: usize) -> Option<*mut u8> {
        let bin = self.0.get_mut(bin(size))?;
        let block = bin.first;
        if block.is_null() {
            return None;
        }
        // SAFETY: what is in a bin was written by `keep`, and is nobody else's until it is taken out here.
        bin.first = unsafe { (*block).next };
        bin.count -= 1;
        Some(block.cast())
    }

    /// Keeps a block. False where it is too large, or there are enough.
    ///
    /// # Safety
    /// The block must be free, of at least `rounded(size)` bytes, and aligned to 16; it must stay so until it is taken out.
    #[inline]
    pub(crate) unsafe fn keep(&mut self, block: *mut u8, size: usize) -> bool {
        let Some(bin) = self.0.get_mut(bin(size)).filter(|bin| bin.count < KEPT) else { return false };
        let block = block.cast::<Free>();
        // SAFETY: the caller's promise: there are 16 bytes at least, aligned, that nobody else uses.
        unsafe { block.write(Free { next: bin.first }) };
        bin.first = block;
        bin.count += 1;
        true
    }

    /// Gives all of them to `free`.
    pub(crate) fn empty(&mut self, free: impl Fn(*mut c_void)) {
        for bin in 0..self.0.len() {
            while let Some(block) = self.take((bin + 1) * STEP) {
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
        for size in 1..=LARGEST {
            let room = rounded(size);
            assert!(room >= size && room < size + STEP && room.is_multiple_of(STEP), "{size}");
            assert_eq!(bin(size), bin(room), "{size}");
            assert_eq!(bin(size), room / STEP - 1, "{size}");
        }
        let bins = Bins::new().0.len();
        assert!(bin(0) >= bins && bin(LARGEST + 1) >= bins);
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
