//! The header of the PROXY protocol, and the fields by which a trusted proxy names its client.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    wharf_http::fuzzing::proxy_protocol(bytes);
    wharf_http::fuzzing::forwarded(bytes);
});
