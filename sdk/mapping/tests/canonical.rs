//! What holds of every path, valid or not.

use proptest::prelude::*;
use wharf_mapping::{AppName, canonicalise, normalise, parse_host};

/// Text made of the parts that matter to paths.
fn paths() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("/"),
        Just("/"),
        Just("/"),
        Just("."),
        Just(".."),
        Just(";"),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%20"),
        Just("%C3%A9"),
        Just("%ff"),
        Just("%"),
        Just("\\"),
        Just("a"),
        Just("b.c"),
        Just("%3b"),
        Just("%25"),
        Just("é"),
        Just("//"),
    ];
    prop_oneof![proptest::collection::vec(part, 0..12).prop_map(|p| format!("/{}", p.concat())), ".*"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_canonical_path_is_canonical(raw in paths()) {
        if let Ok(path) = canonicalise(&raw) {
            prop_assert!(path.encoded.starts_with('/') && path.decoded.starts_with('/'));
            prop_assert!(!path.encoded.contains("//") && !path.encoded.contains(';') && !path.decoded.contains("//"));
            for text in [&path.encoded, &path.decoded] {
                prop_assert!(!text.split('/').any(|s| s == "." || s == ".."), "{}", text);
                prop_assert!(!text.bytes().any(|b| b.is_ascii_control() || b == b'\\'));
            }
            let again = canonicalise(&path.encoded).unwrap();
            prop_assert_eq!(&again, &path);
            prop_assert!(matches!(again.encoded, std::borrow::Cow::Borrowed(_)), "canonical already, yet copied");
            let slashes = |text: &str| text.matches('/').count();
            prop_assert_eq!(slashes(&path.encoded), slashes(&path.decoded));
        }
    }

    #[test]
    fn normal_form_is_stable(raw in paths()) {
        if let Some(path) = normalise(&raw) {
            prop_assert!(!path.contains("//") && !path.split('/').any(|s| s == "." || s == ".."), "{}", path);
            prop_assert_eq!(&*normalise(&path).unwrap(), &*path);
        }
    }

    #[test]
    fn hosts_and_names_never_panic(text in ".*") {
        let _ = parse_host(&text);
        let _ = AppName::parse(&text);
        let _ = AppName::from_file(&text);
    }

    #[test]
    fn a_name_can_be_written_back(path in "(/[a-z.]{1,4}[a-z]){1,3}", version in "[0-9]{0,3}") {
        let mut stem = path[1..].replace('/', "#");
        if !version.is_empty() {
            stem = format!("{stem}##{version}");
        }
        prop_assert_eq!(AppName::parse(&stem).unwrap(), AppName { path, version });
    }
}
