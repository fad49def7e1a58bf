//! The tests of this crate load modules: their executables export what the container's executable exports.

fn main() {
    for symbol in include!("exported.rs") {
        println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo:rerun-if-changed=exported.rs");
}
