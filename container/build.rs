//! Exports from the executable the functions that modules must find before glibc's (see `wharf_module::interpose`).

fn main() {
    for symbol in include!("module/exported.rs") {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo:rerun-if-changed=module/exported.rs");
}
