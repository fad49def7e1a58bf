//! What a module imports: the libraries it needs, their versions and their symbols, found without loading any of them.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{Dyn, FileHeader, Sym};
use wharf_kernel::refusal::{Code, Refusal};

use crate::probe::{Elf, at};

impl Elf<'_> {
    /// The libraries it needs are here, new enough, and have the symbols it imports.
    pub(crate) fn check_imports(&self) -> Result<(), Refusal> {
        let imports = Imports::read(self)?;
        for version in &imports.glibc_versions {
            if newer_than_running(version) {
                let what = format!("it needs {version}, this machine has GLIBC_{}", running_glibc());
                return Err(Refusal::new(Code::NewerGlibc, at(self.path, what)));
            }
        }
        let mut here = Here::default();
        for library in &imports.needed {
            self.gather(library, &imports.search, &mut here)?;
        }
        if here.unreadable {
            // The dynamic linker knows better: it judges in the trial.
            return Ok(());
        }
        for symbol in imports.symbols {
            if !here.has(&symbol) {
                let what =
                    format!("'{}' is in none of: {}", String::from_utf8_lossy(&symbol), imports.needed.join(", "));
                return Err(Refusal::new(Code::MissingSymbol, at(self.path, what)));
            }
        }
        Ok(())
    }

    /// Finds a needed library, and those that it needs: among what this process has loaded, else as files.
    fn gather(&self, library: &str, search: &[PathBuf], here: &mut Here) -> Result<(), Refusal> {
        if !here.seen.insert(library.to_owned()) {
            return Ok(());
        }
        if let Some(open) = OpenLibrary::find(library) {
            here.open.push(open);
            return Ok(());
        }
        let candidate = search.iter().map(|dir| dir.join(library)).find(|p| p.is_file());
        let Some(path) = candidate else {
            return Err(Refusal::new(Code::MissingLibrary, at(self.path, format!("'{library}' was not found"))));
        };
        let Ok(bytes) = fs::read(&path) else {
            here.unreadable = true;
            return Ok(());
        };
        match Elf::parse(&path, &bytes).and_then(|elf| Imports::read(&elf)) {
            Ok(imports) => {
                here.symbols.extend(imports.exports);
                imports.needed.iter().try_for_each(|next| self.gather(next, search, here))
            }
            Err(_) => {
                here.unreadable = true;
                Ok(())
            }
        }
    }
}

/// Where a module's imports may be found.
#[derive(Default)]
struct Here {
    seen: HashSet<String>,
    open: Vec<OpenLibrary>,
    symbols: HashSet<Vec<u8>>,
    /// A needed library is there, but could not be read.
    unreadable: bool,
}

impl Here {
    fn has(&self, symbol: &[u8]) -> bool {
        if self.symbols.contains(symbol) {
            return true;
        }
        let Ok(name) = CString::new(symbol) else { return false };
        // SAFETY: a NUL-terminated name; only whether there is an address is looked at.
        let found = |handle| !unsafe { libc::dlsym(handle, name.as_ptr()) }.is_null();
        // What the executable exports is found first; a library that only a module has loaded, only by its handle.
        found(libc::RTLD_DEFAULT) || self.open.iter().any(|library| found(library.0))
    }
}

/// A library that this process has loaded already.
struct OpenLibrary(*mut libc::c_void);

impl OpenLibrary {
    fn find(library: &str) -> Option<Self> {
        let name = CString::new(library).ok()?;
        // SAFETY: RTLD_NOLOAD opens nothing that is not open already.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        (!handle.is_null()).then(|| Self(handle))
    }
}

impl Drop for OpenLibrary {
    fn drop(&mut self) {
        // SAFETY: the handle from `find`, given back once.
        unsafe { libc::dlclose(self.0) };
    }
}

/// What the dynamic section says.
struct Imports {
    needed: Vec<String>,
    search: Vec<PathBuf>,
    symbols: Vec<Vec<u8>>,
    exports: Vec<Vec<u8>>,
    glibc_versions: Vec<String>,
}

impl Imports {
    fn read(elf: &Elf<'_>) -> Result<Self, Refusal> {
        let (e, data) = (elf.endian, elf.bytes);
        let damaged = |x: object::Error| elf.damaged(x);
        let sections = elf.header.sections(e, data).map_err(damaged)?;
        let symbols = sections.symbols(e, data, elf::SHT_DYNSYM).map_err(damaged)?;
        let strings = symbols.strings();
        let mut this = Self {
            needed: Vec::new(),
            search: Vec::new(),
            symbols: Vec::new(),
            exports: Vec::new(),
            glibc_versions: Vec::new(),
        };
        let text = |offset: u32| {
            let bytes = strings.get(offset).map_err(|()| elf.damaged("a name lies outside the string table"))?;
            Ok::<_, Refusal>(String::from_utf8_lossy(bytes).into_owned())
        };
        if let Some((entries, _)) = sections.dynamic(e, data).map_err(damaged)? {
            let origin = elf.path.parent().unwrap_or(Path::new("."));
            for entry in entries {
                let tag = entry.tag(e);
                let value = entry.val32(e).unwrap_or(0);
                match tag {
                    elf::DT_NEEDED => this.needed.push(text(value)?),
                    elf::DT_RUNPATH | elf::DT_RPATH => {
                        let dirs = text(value)?.replace("$ORIGIN", &origin.to_string_lossy());
                        this.search.extend(dirs.split(':').map(PathBuf::from));
                    }
                    _ => {}
                }
            }
        }
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            this.search.extend(std::env::split_paths(&path));
        }
        for dir in [
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
            "/lib/aarch64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/lib64",
            "/usr/lib64",
            "/lib",
            "/usr/lib",
            "/usr/local/lib",
        ] {
            this.search.push(PathBuf::from(dir));
        }
        for symbol in symbols.iter().skip(1) {
            let name = symbol.name(e, strings).map_err(damaged)?.to_vec();
            if symbol.is_undefined(e) {
                if symbol.st_bind() == elf::STB_GLOBAL && !name.is_empty() {
                    this.symbols.push(name);
                }
            } else if symbol.st_bind() != elf::STB_LOCAL {
                this.exports.push(name);
            }
        }
        if let Some((mut needs, link)) = sections.gnu_verneed(e, data).map_err(damaged)? {
            let strings = sections.strings(e, data, link).map_err(damaged)?;
            while let Some((need, mut versions)) = needs.next().map_err(damaged)? {
                let from = need.file(e, strings).map_err(damaged)?;
                while let Some(version) = versions.next().map_err(damaged)? {
                    let name = String::from_utf8_lossy(version.name(e, strings).map_err(damaged)?).into_owned();
                    if from.starts_with(b"libc.so") || from.starts_with(b"libm.so") || from.starts_with(b"ld-linux") {
                        this.glibc_versions.push(name);
                    }
                }
            }
        }
        Ok(this)
    }
}

fn running_glibc() -> String {
    // SAFETY: returns a static, NUL-terminated string.
    unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy().into_owned()
}

fn newer_than_running(version: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|n| n.parse().unwrap_or(0)).collect::<Vec<u32>>();
    // `GLIBC_PRIVATE`, `GLIBC_ABI_DT_RELR` and the like name features: left to the dynamic linker's judgement, in the trial.
    version
        .strip_prefix("GLIBC_")
        .filter(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        .is_some_and(|v| numbers(v) > numbers(&running_glibc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_c_library_are_compared_by_number() {
        assert!(newer_than_running("GLIBC_99.1"));
        assert!(!newer_than_running("GLIBC_2.2.5"));
        assert!(!newer_than_running("GLIBC_PRIVATE"));
        assert!(!newer_than_running(&format!("GLIBC_{}", running_glibc())));
    }
}
