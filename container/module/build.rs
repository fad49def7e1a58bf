//! The tests of this crate load modules: their executables export what the container's executable exports.

fn main() {
    for symbol in [
        "__cxa_thread_atexit_impl",
        "pthread_create",
        "pthread_key_create",
        "pthread_key_delete",
        "wharf_module_heap_v1",
    ] {
        println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
