//! The Host header, the names of deployed files, and URL patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_mapping::{AppName, ServletMap, parse_host};

fuzz_target!(|text: &str| {
    if let Ok(host) = parse_host(text) {
        assert!(text.starts_with(host.host) && !host.host.contains(['/', '@', ' ', '\r', '\n']), "{:?}", host.host);
    }
    let _ = AppName::parse(text);
    let _ = AppName::from_file(text);
    if let Ok(map) = ServletMap::new([(0, vec![text.to_owned()])]) {
        map.find("/a/b.c");
    }
});
