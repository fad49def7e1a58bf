//! A session as a store keeps it: a file, a row, a value in Redis.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| wharf_session::read_stored("default/shop", bytes));
