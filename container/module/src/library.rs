//! An opened shared library: where it lies, and the proof that it is gone.

use std::ffi::{CStr, c_void};
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

/// A library that this process has opened. Dropping it leaves it open: threads of it may still run. Only [`Library::close`]
/// closes it.
pub(crate) struct Library {
    handle: ManuallyDrop<Handle>,
    path: PathBuf,
    extent: Range<usize>,
}

impl Library {
    /// Opens the library: its static constructors run, on this thread.
    ///
    /// # Safety
    /// The file must be a whole ELF library that nobody writes to while it is open, and one whose constructors are trusted.
    pub(crate) unsafe fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: the caller's promise.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|e| match e {
            libloading::Error::DlOpen { source } => source.to_string(),
            other => other.to_string(),
        })?;
        let extent = mapped(path).ok_or("the dynamic linker does not list it after loading it")?;
        Ok(Self { handle: ManuallyDrop::new(handle), path: path.to_owned(), extent })
    }

    /// The addresses from its first to its last loaded segment.
    pub(crate) fn extent(&self) -> Range<usize> {
        self.extent.clone()
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The address of an exported symbol.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<*const c_void> {
        // SAFETY: only the address is taken; whoever uses it answers for its type.
        let symbol = unsafe { self.handle.get::<*const c_void>(name.to_bytes_with_nul()) }.ok()?;
        Some(symbol.into_raw().cast_const().cast())
    }

    /// Closes it. Returns whether it is unmapped.
    ///
    /// # Safety
    /// Nothing may use its code or data after this.
    pub(crate) unsafe fn close(self) -> bool {
        let Self { handle, path, .. } = self;
        let closed = ManuallyDrop::into_inner(handle).close().is_ok();
        closed && mapped(&path).is_none()
    }
}

/// The extent of the library that was loaded from `path`, as the dynamic linker lists it; `None` when it doesn't.
pub(crate) fn mapped(path: &Path) -> Option<Range<usize>> {
    struct Search<'a> {
        path: &'a [u8],
        found: Option<Range<usize>>,
    }
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, search: *mut c_void) -> i32 {
        // SAFETY: the dynamic linker passes a valid entry, and `search` is the structure below.
        let (info, search) = unsafe { (&*info, &mut *search.cast::<Search<'_>>()) };
        // SAFETY: a NUL-terminated name, valid during the call.
        if info.dlpi_name.is_null() || unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes() != search.path {
            return 0;
        }
        // SAFETY: pointer and count belong together.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let loads = headers.iter().filter(|h| h.p_type == libc::PT_LOAD);
        let base = info.dlpi_addr as usize;
        let start = loads.clone().map(|h| base + h.p_vaddr as usize).min().unwrap_or(base);
        let end = loads.map(|h| base + (h.p_vaddr + h.p_memsz) as usize).max().unwrap_or(base);
        search.found = Some(start..end);
        1
    }
    let mut search = Search { path: path.as_os_str().as_bytes(), found: None };
    // SAFETY: the callback keeps the contract, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}
