//! Admission by reading: everything that can be known of a module's file before any of its code runs.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wharf_abi::{ABI_MAJOR, ABI_MINOR, DESCRIPTOR_MAGIC, DESCRIPTOR_SECTION};
use wharf_kernel::launch::Description;
use wharf_kernel::refusal::{Code, Refusal};

pub(crate) type Header = FileHeader64<Endianness>;

/// A module's file, read and found good.
pub(crate) struct Probed {
    /// The whole file.
    pub(crate) bytes: Vec<u8>,
    /// What it says of itself.
    pub(crate) description: Description,
    /// What else it says of itself.
    pub(crate) descriptor: Descriptor,
}

/// The descriptor's text. Unknown keys are for newer containers.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Descriptor {
    abi: String,
    name: String,
    version: String,
    sdk: String,
    rustc: String,
    panic: String,
    /// `wharf`, or `own` when the module brings its own allocator.
    #[serde(default)]
    pub(crate) allocator: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
}

/// Reads a module's file and says what it is, or why it will not do. Runs none of its code and never opens it as a library.
///
/// # Errors
/// A refusal of the stage `probe` (or `found`, for what is not a plain file).
pub fn probe(path: &Path) -> Result<Description, Refusal> {
    read(path).map(|probed| probed.description)
}

pub(crate) fn read(path: &Path) -> Result<Probed, Refusal> {
    let bytes = read_regular(path)?;
    if bytes.is_empty() {
        return Err(Refusal::new(Code::Empty, at(path, "0 bytes")));
    }
    let file = Elf::parse(path, &bytes)?;
    let descriptor = file.descriptor()?;
    file.check_descriptor(&descriptor)?;
    file.check_imports()?;
    let digest = Sha256::digest(&bytes);
    let description = Description {
        name: descriptor.name.clone(),
        version: descriptor.version.clone(),
        sdk: descriptor.sdk.clone(),
        rustc: descriptor.rustc.clone(),
        abi: descriptor.abi.clone(),
        sha256: digest.iter().map(|b| format!("{b:02x}")).collect(),
        size: bytes.len() as u64,
        resources: descriptor.resources.clone(),
        roles: descriptor.roles.clone(),
    };
    Ok(Probed { bytes, description, descriptor })
}

pub(crate) fn at(path: &Path, what: impl std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}

/// Reads a plain file, and nothing that could block or change behind a link.
fn read_regular(path: &Path) -> Result<Vec<u8>, Refusal> {
    let unreadable = |e: std::io::Error| Refusal::new(Code::Unreadable, at(path, e));
    let kind = fs::symlink_metadata(path).map_err(unreadable)?.file_type();
    if !kind.is_file() {
        let what = match kind {
            k if k.is_symlink() => "a symbolic link",
            k if k.is_dir() => "a directory",
            k if k.is_fifo() => "a FIFO",
            k if k.is_socket() => "a socket",
            _ => "a device",
        };
        return Err(Refusal::new(Code::NotRegular, at(path, what)));
    }
    // The look above and the open are two moments: the flags hold for whatever is there at the second.
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Refusal::new(Code::NotRegular, at(path, "not a plain file")));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(Refusal::new(Code::WorldWritable, at(path, format!("mode {:o}", metadata.mode() & 0o7777))));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// A module's file, taken apart.
pub(crate) struct Elf<'a> {
    pub(crate) path: &'a Path,
    pub(crate) bytes: &'a [u8],
    pub(crate) header: &'a Header,
    pub(crate) endian: Endianness,
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Refusal> {
        let refuse = |code, what: String| Err(Refusal::new(code, at(path, what)));
        if !bytes.starts_with(&elf::ELFMAG) {
            // A file that is shorter than the magic number but agrees with it so far is on its way.
            if elf::ELFMAG.starts_with(bytes) {
                return refuse(Code::Truncated, format!("{} bytes", bytes.len()));
            }
            return refuse(Code::NotElf, format!("starts with {:02x?}", &bytes[..bytes.len().min(4)]));
        }
        if bytes.len() < size_of::<Header>() {
            return refuse(Code::Truncated, format!("{} bytes, less than an ELF header", bytes.len()));
        }
        if bytes[4] != elf::ELFCLASS64.0 || bytes[5] != native_data().0 {
            let class = if bytes[4] == elf::ELFCLASS32.0 { "32-bit" } else { "64-bit" };
            let order = if bytes[5] == elf::ELFDATA2MSB.0 { "big-endian" } else { "little-endian" };
            return refuse(Code::WrongClass, format!("{class}, {order}"));
        }
        let damaged = |e: object::Error| Refusal::new(Code::BadElf, at(path, e));
        let header = Header::parse(bytes).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        let machine = header.e_machine(endian);
        if machine != native_machine() {
            return refuse(
                Code::WrongMachine,
                format!("built for {}, this machine is {}", machine_name(machine), machine_name(native_machine())),
            );
        }
        if header.e_type(endian) != elf::ET_DYN {
            return refuse(Code::NotSharedLibrary, format!("ELF type {}", header.e_type(endian).0));
        }
        let this = Self { path, bytes, header, endian };
        this.check_whole()?;
        Ok(this)
    }

    pub(crate) fn damaged(&self, what: impl std::fmt::Display) -> Refusal {
        Refusal::new(Code::BadElf, at(self.path, what))
    }

    /// Every part that a header announces lies inside the file.
    fn check_whole(&self) -> Result<(), Refusal> {
        let len = self.bytes.len() as u64;
        let need = |what: &str, offset: u64, size: u64| {
            let end = offset.checked_add(size).ok_or_else(|| self.damaged(format!("{what} has no end")))?;
            if end > len {
                let what = format!("{len} bytes, but {what} ends at byte {end}");
                return Err(Refusal::new(Code::Truncated, at(self.path, what)));
            }
            Ok(())
        };
        let (h, e) = (self.header, self.endian);
        need(
            "the program header table",
            h.e_phoff.get(e),
            u64::from(h.e_phnum.get(e)) * u64::from(h.e_phentsize.get(e)),
        )?;
        need(
            "the section header table",
            h.e_shoff.get(e),
            u64::from(h.e_shnum.get(e)) * u64::from(h.e_shentsize.get(e)),
        )?;
        let segments = h.program_headers(e, self.bytes).map_err(|x| self.damaged(x))?;
        for (i, segment) in segments.iter().enumerate() {
            need(&format!("segment {i}"), segment.p_offset(e), segment.p_filesz(e))?;
        }
        let sections = h.sections(e, self.bytes).map_err(|x| self.damaged(x))?;
        for (i, section) in sections.iter().enumerate() {
            if section.sh_type(e) != elf::SHT_NOBITS && section.sh_type(e) != elf::SHT_NULL {
                need(&format!("section {i}"), section.sh_offset(e), section.sh_size(e))?;
            }
        }
        if !segments.iter().any(|s| s.p_type(e) == elf::PT_LOAD)
            || !segments.iter().any(|s| s.p_type(e) == elf::PT_DYNAMIC)
        {
            return Err(self.damaged("it has nothing to load"));
        }
        Ok(())
    }

    fn descriptor(&self) -> Result<Descriptor, Refusal> {
        let sections = self.header.sections(self.endian, self.bytes).map_err(|e| self.damaged(e))?;
        let Some((_, section)) = sections.section_by_name(self.endian, DESCRIPTOR_SECTION.as_bytes()) else {
            return Err(Refusal::new(Code::NoDescriptor, at(self.path, format!("no section {DESCRIPTOR_SECTION}"))));
        };
        let bad = |what: String| Refusal::new(Code::BadDescriptor, at(self.path, what));
        let data = section.data(self.endian, self.bytes).map_err(|e| self.damaged(e))?;
        let text = std::str::from_utf8(data).map_err(|e| bad(format!("it is not text: {e}")))?;
        if !text.starts_with(DESCRIPTOR_MAGIC) {
            return Err(bad(format!("it does not start with '{}'", DESCRIPTOR_MAGIC.trim_end())));
        }
        toml::from_str(text).map_err(|e| bad(e.message().to_owned()))
    }

    fn check_descriptor(&self, descriptor: &Descriptor) -> Result<(), Refusal> {
        let foreign = || {
            let what = format!("the module speaks ABI {}, this container ABI {ABI_MAJOR}.{ABI_MINOR}", descriptor.abi);
            Refusal::new(Code::ForeignAbi, at(self.path, what))
        };
        let (major, minor) = descriptor.abi.split_once('.').ok_or_else(foreign)?;
        if major.parse() != Ok(ABI_MAJOR) || minor.parse::<u32>().map_err(|_| foreign())? > ABI_MINOR {
            return Err(foreign());
        }
        if descriptor.panic != "unwind" {
            return Err(Refusal::new(Code::PanicAbort, at(self.path, format!("panic = \"{}\"", descriptor.panic))));
        }
        Ok(())
    }
}

fn native_data() -> elf::DataEncoding {
    if cfg!(target_endian = "little") { elf::ELFDATA2LSB } else { elf::ELFDATA2MSB }
}

fn native_machine() -> elf::Machine {
    if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 }
}

fn machine_name(machine: elf::Machine) -> String {
    let names = HashMap::from([
        (elf::EM_X86_64, "x86-64"),
        (elf::EM_AARCH64, "AArch64"),
        (elf::EM_ARM, "ARM"),
        (elf::EM_386, "80386"),
        (elf::EM_RISCV, "RISC-V"),
        (elf::EM_PPC64, "PowerPC64"),
        (elf::EM_S390, "s390"),
    ]);
    names.get(&machine).map_or_else(|| format!("machine number {}", machine.0), |name| (*name).to_owned())
}

/// Clears, in a copy of a module, the flag that would keep it mapped for ever (`DF_1_NODELETE`). Returns whether it was set.
pub(crate) fn clear_nodelete(bytes: &mut [u8]) -> bool {
    let Ok(header) = Header::parse(&*bytes) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, &*bytes) else { return false };
    let Some(dynamic) = segments.iter().find(|s| s.p_type(endian) == elf::PT_DYNAMIC) else { return false };
    let (start, size) = (dynamic.p_offset(endian) as usize, dynamic.p_filesz(endian) as usize);
    let Some(table) = start.checked_add(size).and_then(|end| bytes.get_mut(start..end)) else { return false };
    let mut cleared = false;
    for entry in table.chunks_exact_mut(16) {
        let word = |at: &[u8]| u64::from_ne_bytes(at.try_into().unwrap_or_default());
        let (tag, value) = (word(&entry[..8]), word(&entry[8..]));
        let nodelete = elf::DF_1_NODELETE.0;
        if tag == elf::DT_FLAGS_1.0 as u64 && value & nodelete != 0 {
            entry[8..].copy_from_slice(&(value & !nodelete).to_ne_bytes());
            cleared = true;
        }
    }
    cleared
}
