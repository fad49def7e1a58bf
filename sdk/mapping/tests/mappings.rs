//! The servlet mapping rules: the specification's own examples, the errors, and a comparison with a naive model.

use proptest::prelude::*;
use wharf_mapping::{MappingError, Match, MatchKind, ServletMap};

fn map(patterns: &[&str]) -> ServletMap {
    ServletMap::new(patterns.iter().enumerate().map(|(i, p)| (i, vec![(*p).to_owned()]))).unwrap()
}

#[test]
fn the_examples_of_the_specification_hold() {
    // Servlet 6.1, section 12.2.2.
    let map = map(&["/foo/bar/*", "/baz/*", "/catalog", "*.bop", "/"]);
    let rows = [
        ("/foo/bar/index.html", 0, "/foo/bar", Some("/index.html")),
        ("/foo/bar/index.bop", 0, "/foo/bar", Some("/index.bop")),
        ("/foo/bar", 0, "/foo/bar", None),
        ("/foo/bar/", 0, "/foo/bar", Some("/")),
        ("/baz", 1, "/baz", None),
        ("/baz/index.html", 1, "/baz", Some("/index.html")),
        ("/catalog", 2, "/catalog", None),
        ("/catalog/index.html", 4, "/catalog/index.html", None),
        ("/catalog/racecar.bop", 3, "/catalog/racecar.bop", None),
        ("/index.bop", 3, "/index.bop", None),
        ("/bazz", 4, "/bazz", None),
        ("/a.bop/b", 4, "/a.bop/b", None),
        ("/a.BOP", 4, "/a.BOP", None),
        ("/", 4, "/", None),
    ];
    for (path, servlet, servlet_path, path_info) in rows {
        let found = map.find(path).unwrap();
        assert_eq!(found.servlet, servlet, "{path}");
        assert_eq!(&path[..found.servlet_path_len], servlet_path, "{path}");
        assert_eq!(found.has_path_info.then(|| &path[found.servlet_path_len..]), path_info, "{path}");
    }
}

#[test]
fn the_context_root_pattern_takes_the_root_alone() {
    let map = map(&["", "/*", "/x"]);
    let found = map.find("/").unwrap();
    assert_eq!(
        (found.servlet, found.kind, found.servlet_path_len, found.has_path_info),
        (0, MatchKind::ContextRoot, 0, true)
    );
    assert_eq!(map.find("").unwrap().servlet, 0);
    assert_eq!(map.find("/x").unwrap().servlet, 2);
    let found = map.find("/y").unwrap();
    assert_eq!((found.servlet, found.servlet_path_len, found.has_path_info), (1, 0, true));
}

#[test]
fn nothing_matches_where_there_is_no_pattern_for_it() {
    assert_eq!(ServletMap::new([]).unwrap().find("/"), None);
    assert_eq!(map(&["/a", "*.b"]).find("/c"), None);
    assert!(ServletMap::new([]).unwrap().is_empty() && !map(&["/a"]).is_empty());
}

#[test]
fn malformed_patterns_are_refused() {
    for bad in [
        "a", "*", "a/*", "/*.jsp", "/a/*.b", "*.", "*.a.b", "*.a/b", "/a//b", "/a/../b", "/./a", "/a\nb", "/a//*",
        "x.y",
    ] {
        let error = ServletMap::new([(3, vec![bad.to_owned()])]).unwrap_err();
        assert!(matches!(&error, MappingError::Malformed { servlet: 3, .. }), "{bad:?}: {error}");
        assert!(error.describe(|_| "Cart").contains("'Cart'"));
    }
}

#[test]
fn duplicates_name_both_servlets() {
    for pattern in ["", "/", "/a", "/a/*", "*.a"] {
        let error = ServletMap::new([(1, vec![pattern.to_owned()]), (4, vec!["/z".to_owned(), pattern.to_owned()])])
            .unwrap_err();
        assert_eq!(error, MappingError::Duplicate { pattern: pattern.to_owned(), first: 1, second: 4 });
        let text = error.describe(|i| if i == 1 { "Cart" } else { "Shop" });
        assert!(text.contains("'Cart'") && text.contains("'Shop'"), "{text}");
    }
}

#[test]
fn a_long_path_of_slashes_is_answered_quickly() {
    let map = map(&["/a/*", "/"]);
    let path = "/b".repeat(500_000);
    let began = std::time::Instant::now();
    assert_eq!(map.find(&path).unwrap().servlet, 1);
    // Hashing every prefix of it would take minutes.
    assert!(began.elapsed().as_secs() < 5);
}

/// The rules read off the specification, one pattern at a time.
fn model(patterns: &[String], path: &str) -> Option<Match> {
    let hit =
        |i: usize, len, info, kind| Match { servlet: i, pattern: 0, servlet_path_len: len, has_path_info: info, kind };
    if let Some(i) = patterns.iter().position(|p| p.is_empty() && path == "/") {
        return Some(hit(i, 0, true, MatchKind::ContextRoot));
    }
    if let Some(i) = patterns.iter().position(|p| p != "/" && p == path) {
        return Some(hit(i, path.len(), false, MatchKind::Exact));
    }
    let below = |p: &String| {
        let base = p.strip_suffix("/*")?;
        (path == base || path.starts_with(&format!("{base}/"))).then_some(base.len())
    };
    if let Some((len, i)) = patterns.iter().enumerate().filter_map(|(i, p)| Some((below(p)?, i))).max() {
        return Some(hit(i, len, len < path.len(), MatchKind::Prefix));
    }
    let last = path.rsplit('/').next().unwrap();
    let ext = last.rsplit_once('.').map(|(_, ext)| format!("*.{ext}"));
    if let Some(i) = ext.and_then(|ext| patterns.iter().position(|p| *p == ext)) {
        return Some(hit(i, path.len(), false, MatchKind::Extension));
    }
    patterns.iter().position(|p| p == "/").map(|i| hit(i, path.len(), false, MatchKind::Default))
}

proptest! {
    #[test]
    fn the_map_agrees_with_the_model(
        patterns in proptest::collection::hash_set("(|/|\\*\\.[ab]|(/[ab]){1,3}|(/[ab]){0,3}/\\*|/[ab]\\.[ab])", 0..12),
        path in "(/|(/[ab]){1,4}/?|(/[ab]){0,3}/[ab]?\\.[ab])",
    ) {
        let patterns: Vec<_> = patterns.into_iter().collect();
        let map = ServletMap::new(patterns.iter().cloned().map(|p| vec![p]).enumerate()).unwrap();
        prop_assert_eq!(map.find(&path), model(&patterns, &path));
    }
}
