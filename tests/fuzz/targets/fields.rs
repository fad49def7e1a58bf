//! What a client says in cookies, parameters, ranges and links.
#![no_main]

use http::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};
use libfuzzer_sys::fuzz_target;
use wharf_mapping::range;
use wharf_sdk::{Nameless, Parameters, parse_cookies};
use wharf_session_state::{in_cookies, in_link, in_path};

fuzz_target!(|bytes: &[u8]| {
    parse_cookies(bytes, Nameless::Ignore).count();
    let _ = Parameters::parse(bytes);
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let mut headers = HeaderMap::from_iter([(RANGE, value.clone()), (IF_RANGE, value)]);
        let file = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, HeaderValue::from_static("10"))]);
        if range::prepare(&mut headers, false) {
            range::settle(&mut headers, &file);
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    in_cookies(text, "SID").count();
    in_path(text, "SID");
    if let Some(link) = in_link(text, "SID=1", "/shop", "https://example.org") {
        assert!(link.contains(";SID=1") && in_link(&link, "SID=1", "/shop", "https://example.org").is_none(), "{link}");
    }
});
