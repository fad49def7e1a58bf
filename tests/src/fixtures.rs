//! What the tests run and deploy: the program, the sample applications and the fixtures, built once for each test process
//! by the cargo that runs the tests, in the profile that the tests have.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The packages that are built: what is deployed, and the program.
const PACKAGES: &[&str] = &[
    "wharf",
    "hello",
    "shop",
    "axum-todo",
    "transfer",
    "guestbook",
    "clock",
    "chat",
    "chameleon",
    "databases",
    "caches",
    "clients",
    "signing",
    "dispatching",
    "redeploy-a",
    "redeploy-b",
    "foreign-layout",
    "sockets",
];

struct Built {
    /// `target/debug`, or what the profile is called.
    target: PathBuf,
    /// A folder of this process, with a second name of the program, so that another build does not take it away.
    own: PathBuf,
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the workspace is there")
}

fn built() -> &'static Built {
    static BUILT: OnceLock<Result<Built, String>> = OnceLock::new();
    match BUILT.get_or_init(build) {
        Ok(built) => built,
        // Said by every test, tried once.
        Err(error) => panic!("{error}"),
    }
}

fn build() -> Result<Built, String> {
    // This executable is target/PROFILE/deps/NAME-HASH.
    let exe = std::env::current_exe().expect("a path");
    let target = exe.ancestors().nth(2).expect("target/PROFILE").to_owned();
    let profile = target.file_name().and_then(|n| n.to_str()).expect("a profile");
    let mut cargo = Command::new(env!("CARGO"));
    without_package(&mut cargo);
    cargo.args(["build", "--quiet", "--profile", if profile == "debug" { "dev" } else { profile }]);
    cargo.arg("--target-dir").arg(target.parent().expect("target"));
    PACKAGES.iter().for_each(|p| _ = cargo.args(["-p", p]));
    let status = cargo.current_dir(workspace()).status().map_err(|e| format!("cargo does not run: {e}"))?;
    if !status.success() {
        return Err("the program and the fixtures do not build; see what cargo says of it".into());
    }
    let own = own_folder(&target.join("wharf-tests"));
    fs::hard_link(target.join("wharf"), own.join("wharf")).map_err(|e| format!("no link to the program: {e}"))?;
    Ok(Built { target, own })
}

/// Takes from a cargo that is to be started what the cargo which runs this program said of the package: build scripts that look
/// at it (ring's) would run again with each change between this one and one from a shell.
pub fn without_package(cargo: &mut Command) {
    let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    std::env::vars().filter(|(name, _)| of_package(name)).for_each(|(name, _)| _ = cargo.env_remove(name));
}

/// A folder named after this process; those of processes that are gone are removed.
fn own_folder(all: &Path) -> PathBuf {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let own = all.join(std::process::id().to_string());
    let _ = fs::remove_dir_all(&own);
    fs::create_dir_all(&own).expect("a folder in target");
    own
}

/// The program.
pub fn wharf() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built().own.join("wharf"))
}

/// The folder in which cargo leaves what it builds.
pub fn target() -> &'static Path {
    &built().target
}

/// The library of a package, without its debug information where there is a `strip`.
///
/// # Panics
/// When there is none of this name.
pub fn library(package: &str) -> Vec<u8> {
    static READ: Mutex<Option<HashMap<String, Vec<u8>>>> = Mutex::new(None);
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let read = read.get_or_insert_default();
    read.entry(package.to_owned())
        .or_insert_with(|| {
            let name = format!("lib{}.so", package.replace('-', "_"));
            let (whole, small) = (built().target.join(&name), built().own.join(&name));
            let stripped = Command::new("strip").arg("-o").arg(&small).arg(&whole).status();
            let path = if stripped.is_ok_and(|s| s.success()) { small } else { whole };
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .clone()
}

/// The chameleon, answering `version` (up to 15 letters).
pub fn chameleon(version: &str) -> Vec<u8> {
    marked(library("chameleon"), "VERSION:one", &format!("VERSION:{version}"))
}

/// The same with a mark overwritten: `mark` as it is, `text` as it shall be, padded with `~`.
///
/// # Panics
/// When the mark is not there exactly once.
pub fn marked(bytes: Vec<u8>, mark: &str, text: &str) -> Vec<u8> {
    let whole = format!("{mark:~<24}");
    assert!(text.len() <= 24, "{text}");
    replaced(bytes, whole.as_bytes(), format!("{text:~<24}").as_bytes())
}

/// The same with the name `old` of the dynamic string table overwritten.
///
/// # Panics
/// As [`replaced`].
pub fn replaced_name(bytes: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    replaced(bytes, format!("\0{old}\0").as_bytes(), format!("\0{new}\0").as_bytes())
}

/// The same with the only `old` overwritten by `new` of equal length.
///
/// # Panics
/// When `old` is not there, or more than once, or the lengths differ.
pub fn replaced(mut bytes: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len(), "of one length");
    let find = |from: usize| bytes[from..].windows(old.len()).position(|w| w == old).map(|at| from + at);
    let at = find(0).unwrap_or_else(|| panic!("{:?} is not there", String::from_utf8_lossy(old)));
    assert_eq!(find(at + 1), None, "{:?} is there twice", String::from_utf8_lossy(old));
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// Whether nothing may be skipped, as in continuous integration.
pub fn is_required() -> bool {
    std::env::var_os("WHARF_REQUIRE_ALL").is_some_and(|v| v == "1")
}
