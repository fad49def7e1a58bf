//! The table of bad files: each with its own error code, and with what its message must say.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use wharf_tests::{chameleon, library, marked, replaced, replaced_name};

/// What is put in place of the good version.
pub(crate) enum Bad {
    /// A file with this content.
    Content(Vec<u8>),
    /// Whatever this makes at the path.
    Made(fn(&Path)),
    /// The good file, and this beside it.
    SideCar(&'static str),
}

pub(crate) struct Case {
    /// What is bad about it.
    pub(crate) name: &'static str,
    /// What is put in place.
    pub(crate) bad: Bad,
    /// Its error code.
    pub(crate) code: &'static str,
    /// What the message must have in it.
    pub(crate) words: &'static [&'static str],
}

/// One row.
pub(crate) fn case(name: &'static str, bad: Bad, code: &'static str, words: &'static [&'static str]) -> Case {
    Case { name, bad, code, words }
}

fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

fn cut(len: usize) -> Vec<u8> {
    let mut bytes = good();
    bytes.truncate(len);
    bytes
}

/// The good file.
pub(crate) fn good() -> Vec<u8> {
    chameleon("one")
}

fn constructor(does: &str) -> Vec<u8> {
    marked(good(), "MARK:none", &format!("MARK:{does}"))
}

fn system_library(name: &str) -> Vec<u8> {
    let folders = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib", "/lib"];
    let path = folders.iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists());
    fs::read(path.unwrap_or_else(|| panic!("no {name} on this machine"))).unwrap()
}

/// The needed C library version that this file names last, with a major version of the far future.
fn future_glibc() -> Vec<u8> {
    let bytes = good();
    let begin = b"\0GLIBC_2.";
    let at = bytes.windows(begin.len()).position(|w| w == begin).expect("it needs a C library");
    let mut bytes = bytes;
    bytes[at + 7] = b'9';
    bytes
}

#[cfg(target_arch = "aarch64")]
const OTHER_MACHINE: [u8; 2] = [62, 0];
#[cfg(not(target_arch = "aarch64"))]
const OTHER_MACHINE: [u8; 2] = [183, 0];

/// Bad modules.
pub(crate) fn files() -> Vec<Case> {
    let whole = good().len();
    vec![
        case("text", Bad::Content(b"not a library\n".to_vec()), "W0202", &["starts with"]),
        case("empty", Bad::Content(Vec::new()), "W0201", &["0 bytes", "copy it again"]),
        case("the first bytes of ELF alone", Bad::Content(b"\x7fEL".to_vec()), "W0203", &["3 bytes"]),
        case("cut in the ELF header", Bad::Content(cut(40)), "W0203", &["40 bytes", "ELF header"]),
        case("cut in the program headers", Bad::Content(cut(100)), "W0203", &["program header table"]),
        case("cut in the middle", Bad::Content(cut(whole / 2)), "W0203", &["section header table", "copy it again"]),
        case("cut in the section table", Bad::Content(cut(whole - 10)), "W0203", &["section header table"]),
        case(
            "for another machine",
            Bad::Content(patched(18, &OTHER_MACHINE)),
            "W0205",
            &["built for", "this machine is"],
        ),
        case("32-bit", Bad::Content(patched(4, &[1])), "W0204", &["32-bit"]),
        case("big-endian", Bad::Content(patched(5, &[2])), "W0204", &["big-endian"]),
        case("an executable", Bad::Content(patched(16, &[2, 0])), "W0206", &["cdylib"]),
        case("an object file", Bad::Content(patched(16, &[1, 0])), "W0206", &["ELF type 1"]),
        case("a program", Bad::Content(fs::read("/bin/cat").unwrap()), "W0207", &["export!"]),
        case("a library of the system", Bad::Content(system_library("libm.so.6")), "W0207", &["wharf_sdk::export!"]),
        case(
            "ABI of the future",
            Bad::Content(replaced(good(), b"\nabi = \"1.0\"\n", b"\nabi = \"9.0\"\n")),
            "W0209",
            &["the module speaks ABI 9.0", "this container ABI 1."],
        ),
        case(
            "newer minor ABI",
            Bad::Content(replaced(good(), b"\nabi = \"1.0\"\n", b"\nabi = \"1.9\"\n")),
            "W0209",
            &["the module speaks ABI 1.9", "upgrade the container"],
        ),
        case(
            "panic = abort",
            Bad::Content(replaced(good(), b"\npanic = \"unwind\"\n", b"\npanic = \"abort\" \n")),
            "W0210",
            &["abort", "Cargo.toml"],
        ),
        case(
            "damaged descriptor",
            Bad::Content(replaced(good(), b"\npanic = \"unwind\"\n", b"\npanic = \"unwind \n")),
            "W0208",
            &["wharf-sdk"],
        ),
        case(
            "descriptor of another kind",
            Bad::Content(replaced(good(), b"# wharf module descriptor 1\n", b"# wharf module descriptor 7\n")),
            "W0208",
            &["does not start with"],
        ),
        case(
            "missing symbol",
            Bad::Content(replaced_name(good(), "epoll_wait", "epoll_wajt")),
            "W0212",
            &["'epoll_wajt' is in none of", "link the library"],
        ),
        case(
            "missing C library version",
            Bad::Content(future_glibc()),
            "W0211",
            &["it needs GLIBC_9.", "this machine has"],
        ),
        case(
            "missing library",
            Bad::Content(replaced_name(good(), "libgcc_s.so.1", "libnot_s.so.1")),
            "W0213",
            &["'libnot_s.so.1' was not found", "install"],
        ),
        case(
            "no root module",
            Bad::Content(replaced_name(good(), "wharf_module_root_v1", "wharf_module_root_v0")),
            "W0403",
            &["wharf-sdk"],
        ),
        case(
            "changed layout",
            Bad::Content(library("foreign-layout")),
            "W0501",
            &["expected is this container's, found is the module's", "u64"],
        ),
        case("constructor crashes", Bad::Content(constructor("crash")), "W0301", &["SIGSEGV", "static constructors"]),
        case("constructor exits", Bad::Content(constructor("exit")), "W0302", &["exit status 0"]),
        case("constructor hangs", Bad::Content(constructor("hang")), "W0303", &["after 2s", "trial_timeout"]),
        case("symbolic link", Bad::Made(|path| symlink("/bin/cat", path).unwrap()), "W0104", &["symbolic link"]),
        case(
            "FIFO",
            Bad::Made(|path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
            "W0104",
            &["FIFO", "copy the file itself"],
        ),
        case(
            "writable by everyone",
            Bad::Made(|path| {
                fs::write(path, good()).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
            }),
            "W0106",
            &["mode 666", "chmod o-w"],
        ),
    ]
}

/// Bad TOML files beside a good module.
pub(crate) fn side_cars() -> Vec<Case> {
    let case = |name, text, code, words| case(name, Bad::SideCar(text), code, words);
    vec![
        case("not TOML", "order = = 1\n", "W0103", &["shop.toml:1:9", "^"]),
        case("wrong type", "order = 1\nhealth = 5\n", "W0103", &["shop.toml:2:10", "^"]),
        case("unknown key", "helth = \"/health\"\n", "W0103", &["shop.toml:1:1", "^^^^^", "did you mean 'health'?"]),
        case("unknown host", "host = \"elsewhere\"\n", "W0103", &["host 'elsewhere' is not configured", "[[host]]"]),
        case("bad context path", "context_path = \"/a/../b\"\n", "W0101", &["correct context_path"]),
        case("start fails", "[init]\nstart = \"error\"\n", "W0601", &["the database is not there"]),
        case("start panics", "[init]\nstart = \"panic\"\n", "W0602", &["see the panic message"]),
        case("start crashes", "[init]\nstart = \"crash\"\n", "W0301", &["SIGSEGV"]),
        case("start exits", "[init]\nstart = \"exit\"\n", "W0302", &["exit status 3", "must not call exit"]),
        case("start hangs", "[init]\nstart = \"hang\"\n", "W0303", &["after 2s"]),
        case(
            "start fails in the container alone",
            "[init]\nstart = \"error\"\nonly = \"container\"\n",
            "W0601",
            &["the database is not there"],
        ),
        case("start panics in the container alone", "[init]\nstart = \"panic\"\nonly = \"container\"\n", "W0602", &[]),
        case("unhealthy", "health = \"/health\"\n[init]\nhealth = \"bad\"\n", "W0701", &["GET /health: status 503"]),
        case("health path panics", "health = \"/panic\"\n", "W0701", &["GET /panic: status 500"]),
    ]
}
