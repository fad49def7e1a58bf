//! Exports from the executable the functions that modules must find before glibc's (see `wharf_module::interpose`).

fn main() {
    for symbol in [
        "__cxa_thread_atexit_impl",
        "pthread_create",
        "pthread_key_create",
        "pthread_key_delete",
        "wharf_module_heap_v1",
    ] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
