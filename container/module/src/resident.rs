//! What the process keeps of the memory it no longer uses, and in pages of which size.

use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libmimalloc_sys::{mi_collect, mi_option_set};

/// The mapping that was last kept to small pages: begin and end.
static SMALL_PAGES: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Keeps the kernel from backing the heaps with huge pages. Heaps are many and mostly small, and lie beside each other in one
/// mapping: where a few KiB are in use, 2 MiB would be held.
///
/// mimalloc is built not to ask for them (the feature `no_thp`); where the kernel gives them unasked, the mapping is told directly: a setting
/// of the process would hold for the programs that the container starts, too. Without `/proc`, nothing happens.
pub fn use_small_pages() {
    let block = Box::new(0_u8);
    small_pages_at((&raw const *block).addr());
}

pub(crate) fn small_pages_at(address: usize) {
    let [begin, end] = &SMALL_PAGES;
    if (begin.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&address) {
        return;
    }
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let mapping = maps.lines().find_map(|line| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
        range.contains(&address).then_some(range)
    });
    let Some(range) = mapping else { return };
    // SAFETY: advice about pages changes nothing of what is in them; a range that is no longer mapped is refused.
    unsafe { libc::madvise(std::ptr::without_provenance_mut(range.start), range.len(), libc::MADV_NOHUGEPAGE) };
    begin.store(range.start, Ordering::Relaxed);
    end.store(range.end, Ordering::Relaxed);
}

/// `mi_option_purge_delay` in `mi_option_t` of mimalloc 3.
const PURGE_DELAY: c_int = 15;
/// mimalloc's own value, in milliseconds.
const USUAL_DELAY: c_long = 1000;

/// As long as there is one, free memory goes back to the system at once. A start uses much, on several threads that then have
/// nothing more to do, and what lies free there is looked at no more.
#[derive(Debug)]
pub struct Frugal(());

static FRUGAL: Mutex<usize> = Mutex::new(0);

impl Frugal {
    /// Begins to be so.
    #[must_use = "it ends when this is dropped"]
    pub fn begin() -> Self {
        let mut count = FRUGAL.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        // SAFETY: the option of that number exists; an aligned word, written under the lock and read anew at each use.
        unsafe { mi_option_set(PURGE_DELAY, 0) };
        Self(())
    }
}

impl Drop for Frugal {
    fn drop(&mut self) {
        let mut count = FRUGAL.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= 1;
        if *count == 0 {
            // SAFETY: as above.
            unsafe { mi_option_set(PURGE_DELAY, USUAL_DELAY) };
        }
    }
}

/// Gives free memory of this thread, and what lies free in all heaps, back to the system.
pub(crate) fn give_back() {
    // SAFETY: no preconditions.
    unsafe { mi_collect(true) };
}
