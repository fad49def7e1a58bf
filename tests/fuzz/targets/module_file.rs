//! A module's file, before any of its code runs: ELF and descriptor.
#![no_main]

use std::io::Write;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<std::path::PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("wharf-fuzz-{}.so", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    let mut file = std::fs::File::create(&*FILE).expect("the file can be written");
    file.write_all(bytes).expect("the file can be written");
    drop(file);
    let _ = wharf_module::probe(&FILE);
});
