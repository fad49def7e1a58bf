//! A path that is accepted is canonical: it stays what it is, and climbs out of nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_mapping::{ServletMap, canonicalise, path_params, strip_params};

fuzz_target!(|path: &str| {
    path_params(path).count();
    strip_params(path);
    let Ok(found) = canonicalise(path) else { return };
    assert!(found.decoded.starts_with('/') && found.encoded.starts_with('/'));
    assert!(!found.decoded.split('/').any(|segment| segment == ".." || segment == "."), "{:?}", found.decoded);
    assert!(!found.decoded.contains(['\0', '\\']), "{:?}", found.decoded);
    let again = canonicalise(&found.encoded).expect("what is canonical is accepted");
    assert_eq!((&again.encoded, &again.decoded), (&found.encoded, &found.decoded));
    let patterns = [(0, vec!["/a/*".into(), "*.b".into()]), (1, vec!["/".into(), "".into(), "/a/b".into()])];
    let map = ServletMap::new(patterns).expect("the patterns are valid");
    let found_by = map.find(&found.decoded).expect("there is a default servlet");
    assert!(found_by.servlet_path_len <= found.decoded.len() && found.decoded.is_char_boundary(found_by.servlet_path_len));
});
