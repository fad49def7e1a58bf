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
    /// Its code, where that is as it is in the file.
    code: Vec<Range<usize>>,
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
        let Mapped { extent, code } = mapped(path).ok_or("the dynamic linker does not list it after loading it")?;
        Ok(Self { handle: ManuallyDrop::new(handle), path: path.to_owned(), extent, code })
    }

    /// The addresses from its first to its last loaded segment.
    pub(crate) fn extent(&self) -> Range<usize> {
        self.extent.clone()
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of the pages of code that are in memory now: much of what a start runs is never run again. What is used later comes back
    /// from the file's cache.
    pub(crate) fn rest(&self) {
        for code in &self.code {
            // SAFETY: pages of this library that nobody can write to, and that are as they are in the file, which nobody writes
            // to (`open`): what is read from them next is the same.
            unsafe {
                libc::madvise(std::ptr::with_exposed_provenance_mut(code.start), code.len(), libc::MADV_DONTNEED)
            };
        }
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

/// Where a library lies.
pub(crate) struct Mapped {
    /// The addresses from its first to its last loaded segment.
    pub(crate) extent: Range<usize>,
    code: Vec<Range<usize>>,
}

/// The library that was loaded from `path`, as the dynamic linker lists it; `None` when it doesn't.
pub(crate) fn mapped(path: &Path) -> Option<Mapped> {
    struct Search<'a> {
        path: &'a [u8],
        found: Option<Mapped>,
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
        // Whole pages: the linker has mapped the rest of the last one, too.
        let page = |address: usize| address & !(PAGE - 1);
        let code =
            headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & (libc::PF_X | libc::PF_W) == libc::PF_X);
        let code = code.map(|h| {
            let first = base + h.p_vaddr as usize;
            page(first)..page(first + h.p_filesz as usize + PAGE - 1)
        });
        let dynamic = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC);
        // SAFETY: the dynamic section of a loaded library lies at this address for as long as it is loaded.
        let patched =
            dynamic.is_none_or(|h| unsafe { has_text_relocations((base + h.p_vaddr as usize) as *const Dynamic) });
        let code = if patched { Vec::new() } else { code.collect() };
        search.found = Some(Mapped { extent: start..end, code });
        1
    }
    let mut search = Search { path: path.as_os_str().as_bytes(), found: None };
    // SAFETY: the callback keeps the contract, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

/// What the segments of a library are aligned to, at least, on the machines that the container runs on.
const PAGE: usize = 4096;

/// An entry of the dynamic section (`Elf64_Dyn`).
#[repr(C)]
struct Dynamic {
    tag: i64,
    value: u64,
}

/// Whether the dynamic linker has changed the code: then it is not what is in the file.
///
/// # Safety
/// `entry` must be the first of a dynamic section that ends with a null entry.
unsafe fn has_text_relocations(mut entry: *const Dynamic) -> bool {
    const FLAGS: i64 = 30;
    const TEXT_RELOCATIONS: i64 = 22;
    const IN_FLAGS: u64 = 4;
    loop {
        // SAFETY: the section goes on until the null entry, by the caller's promise.
        let Dynamic { tag, value } = unsafe { entry.read() };
        match tag {
            0 => return false,
            TEXT_RELOCATIONS => return true,
            FLAGS if value & IN_FLAGS != 0 => return true,
            _ => {}
        }
        // SAFETY: as above.
        entry = unsafe { entry.add(1) };
    }
}
