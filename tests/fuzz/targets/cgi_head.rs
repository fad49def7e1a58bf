//! The head that a CGI program writes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| wharf_gateway::fuzzing::cgi_head(bytes));
