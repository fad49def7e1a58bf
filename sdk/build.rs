//! Tells the SDK which compiler built it, for the descriptor.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version =
        Command::new(rustc).arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let version = version.unwrap_or_default();
    println!("cargo:rustc-env=WHARF_RUSTC={}", version.trim().replace(['"', '\\'], ""));
    println!("cargo:rerun-if-changed=build.rs");
}
