//! The heap of a generation.
//!
//! A module's global allocator asks the process, at its first allocation, for the symbol [`HEAP_SYMBOL`]. Inside the
//! container it gets the functions of a heap that belongs to this one generation; elsewhere the symbol is not there, and
//! the module uses the system's allocator.

/// Name of the function, with the NUL that `dlsym` wants.
pub const HEAP_SYMBOL: &std::ffi::CStr = c"wharf_module_heap_v1";

/// Type of the function: the heap of the generation that is being loaded on this thread, or null.
pub type HeapFn = unsafe extern "C" fn() -> *const HeapApi;

/// A heap and its functions. Every function may be called on any thread.
#[repr(C)]
pub struct HeapApi {
    /// For the functions.
    pub heap: *mut (),
    /// Allocates `size` bytes at a multiple of `align`; null when there is no memory.
    pub alloc: unsafe extern "C" fn(heap: *mut (), size: usize, align: usize) -> *mut u8,
    /// The same, zeroed.
    pub alloc_zeroed: unsafe extern "C" fn(heap: *mut (), size: usize, align: usize) -> *mut u8,
    /// Resizes a block of this heap that was asked for with `old` bytes; null, with the block unchanged, when there is no memory.
    pub realloc: unsafe extern "C" fn(heap: *mut (), block: *mut u8, old: usize, size: usize, align: usize) -> *mut u8,
    /// Frees a block of this heap that was asked for with `size` bytes.
    pub free: unsafe extern "C" fn(heap: *mut (), block: *mut u8, size: usize),
}

// SAFETY: its functions may be called on any thread.
unsafe impl Sync for HeapApi {}
// SAFETY: as above.
unsafe impl Send for HeapApi {}
