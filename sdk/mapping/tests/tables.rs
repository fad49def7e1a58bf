//! The rules as tables: every row is an input with what must come of it.

use wharf_mapping::{AppName, PathError, canonicalise, normalise, parse_host, path_params, strip_params};

/// Servlet 6.1, section 3.5.2: what becomes of a request path; `None` is a refusal.
#[test]
fn paths_are_canonicalised_or_refused() {
    let rows: &[(&str, Option<&str>)] = &[
        ("foo/bar", None),
        ("foo/bar/", None),
        ("%2e/foo/bar/", None),
        (".%2e/foo/bar/", None),
        ("", None),
        ("*", None),
        ("/", Some("/")),
        ("//", Some("/")),
        ("/.", Some("/")),
        ("/./", Some("/")),
        ("/foo/bar;jsessionid=1234", Some("/foo/bar")),
        ("/foo/bar/;jsessionid=1234", Some("/foo/bar/")),
        ("/foo;/bar;/;", Some("/foo/bar/")),
        ("/foo/././bar", Some("/foo/bar")),
        ("/foo/bar/./", Some("/foo/bar/")),
        ("/foo/bar/./;", Some("/foo/bar/")),
        ("/foo/../bar", Some("/bar")),
        ("/foo/bar/..", Some("/foo")),
        ("/foo/..bar", Some("/foo/..bar")),
        ("/foo/.bar", Some("/foo/.bar")),
        ("/foo/...", Some("/foo/...")),
        ("/foo//bar", Some("/foo/bar")),
        ("/foo%20bar", Some("/foo bar")),
        ("/foo/bar;", Some("/foo/bar")),
        ("/caf%C3%A9", Some("/café")),
        ("/a%3Bb", Some("/a;b")),
        ("/%252e%252e/x", Some("/%2e%2e/x")),
        ("/x%2Eso", Some("/x.so")),
        ("/%2e%2e%2e/x", Some("/.../x")),
        ("/[a]|{b}^\"<c>", Some("/[a]|{b}^\"<c>")),
        ("/foo%7Fbar", None),
        ("/foo\u{7f}bar", None),
        ("/foo\tbar", None),
        ("/foo%00", None),
        ("/foo%0a", None),
        ("/foo%1F", None),
        ("/foo%2Fb%25r", None),
        ("/foo%2fbar", None),
        ("/foo\\bar", None),
        ("/foo/.%5Cbar", None),
        ("/foo/.%5cbar", None),
        ("/foo;%2F/bar", None),
        ("/foo;%00/bar", None),
        ("/foo/%2e/bar", None),
        ("/foo/%2e;/bar", None),
        ("/foo/%2E", None),
        ("/../foo/bar", None),
        ("/..", None),
        ("/foo/../..", None),
        ("/foo/%2e%2e/%2E%2E/bar", None),
        ("/foo/.%2e/bar", None),
        ("/foo/..;/bar", None),
        ("/.;/", None),
        ("/foo/..%2Fbar", None),
        ("/foo/bar/..;", None),
        ("/;/foo;/;/bar/;/;", None),
        ("/foo/;/../bar", None),
        ("/foo%E2%82bar", None),
        ("/%c0%ae", None),
        ("/foo%XX/bar", None),
        ("/foo/bar%0", None),
        ("/foo/bar%", None),
        ("/foo;%zz", None),
        ("/foo/bar#f", None),
        ("/#f", None),
        ("/foo/bar;#f", None),
        ("/a b", None),
        ("/a?b", None),
        ("/é", None),
    ];
    for (input, expected) in rows {
        let found = canonicalise(input);
        assert_eq!(found.as_ref().ok().map(|p| &*p.decoded), *expected, "{input:?}: {found:?}");
    }
}

#[test]
fn refusals_say_why() {
    let rows = [
        ("foo", PathError::NoLeadingSlash),
        ("/a#b", PathError::Fragment),
        ("/a%5cb", PathError::Backslash),
        ("/a%2fb", PathError::EncodedSlash),
        ("/a%09b", PathError::Control),
        ("/a b", PathError::IllegalCharacter),
        ("/a%4", PathError::BadEscape),
        ("/%ff", PathError::NotUtf8),
        ("/%2e%2E/a", PathError::EncodedDotSegment),
        ("/a/..;x/b", PathError::DotSegmentParameter),
        ("/;x/b", PathError::EmptySegmentParameter),
        ("/a/../../b", PathError::AboveRoot),
    ];
    for (input, expected) in rows {
        assert_eq!(canonicalise(input), Err(expected), "{input:?}");
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn the_encoded_form_keeps_its_escapes() {
    let path = canonicalise("/a%20b//c;x=1/%C3%A9").unwrap();
    assert_eq!((&*path.encoded, &*path.decoded), ("/a%20b/c/%C3%A9", "/a b/c/é"));
}

#[test]
fn decoded_paths_are_normalised() {
    let rows: &[(&str, Option<&str>)] = &[
        ("//something", Some("/something")),
        ("something//", Some("/something/")),
        ("///", Some("/")),
        ("/.", Some("/")),
        (".", Some("/")),
        ("/../", None),
        ("//..", None),
        ("/./..", None),
        ("/a/../..", None),
        ("/a/..", Some("/")),
        ("/a/../", Some("/")),
        ("/a/b/..", Some("/a")),
        ("/a/b/../", Some("/a/")),
        ("/a\0/b/./", None),
        ("/a/b/./\0", None),
        ("/a\\b", None),
        ("/a;b/c", Some("/a;b/c")),
        ("/a b/é", Some("/a b/é")),
    ];
    for (input, expected) in rows {
        assert_eq!(normalise(input).as_deref(), *expected, "{input:?}");
    }
}

#[test]
fn path_parameters_are_found_and_removed() {
    let rows = [
        ("/foo", "/foo", false),
        ("/foo/bar", "/foo/bar", false),
        ("/foo;/", "/foo/", false),
        ("/foo;a=1", "/foo", true),
        ("/foo;a=1/bar", "/foo/bar", true),
        (";a=1/foo", "/foo", true),
        (";/foo;a=1/bar", "/foo/bar", true),
        (";/foo;a=/bar", "/foo/bar", false),
        ("/foo;a=1;b=1/bar", "/foo/bar", true),
        ("/foo;b=1;a=1/bar", "/foo/bar", true),
    ];
    for (input, stripped, has_a) in rows {
        assert_eq!(strip_params(input), stripped, "{input:?}");
        assert_eq!(path_params(input).any(|p| p == ("a", "1")), has_a, "{input:?}");
    }
}

/// Hosts that are valid, with the place of the colon before the port.
#[test]
fn valid_hosts_are_taken_apart() {
    let names = "127.0.0.1 0.0.0.0 0.0 0.0.0 0.00.0.0 256.0.0.0 0.256.0.0 0.0.256.0 0.0.0.256 0.a.0.0 localhost \
        4294967295.localhost tomcat.apache.org 0.0.0.com 0.0.0.0.com foo.0.0.com 1foo.0.0.com foo1.0.0.com 1foo1.0.0.com \
        1-foo.0.0.com 1--foo.0.0.com foo.0.0.1com foo.0.0.com1 foo.0.0.com1com1 foo.0.0.1-com foo.0.0.1--com com 0com \
        0.0.0com 0.0.0.0com 123 foo.bar.0com myapp-t.mydomain.com myapp-t.my-domain.com myapp-t.my-domain.c-om \
        myapp-t.mydomain.com. foo.bar. my_app [0:0:0:0:0:0:127.0.0.1] [::1.2.3.4] [::1]";
    for name in names.split_ascii_whitespace() {
        let found = parse_host(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((found.host, found.port), (name, None));
    }
    let with_port = "gateway.demo-ilt-latest-demo:9000 [::1]:8080 [1::1]:8080 [A::A]:8080 [A:0::A]:8080 \
        [1234:5678:90AB:CDEF:1234:5678:90AB:CDEF]:8080 [1234:5678:90AB:CDEF:1234:5678:90AB::]:8080 \
        [0:0:0:0:0:0:0:0]:8080 [::127.0.0.1]:8080 [1::127.0.0.1]:8080 [A::127.0.0.1]:8080 [A:0::127.0.0.1]:8080 \
        [1234:5678:90AB:CDEF:1234:5678:127.0.0.1]:8080 localhost:0 localhost:65535";
    for text in with_port.split_ascii_whitespace() {
        let found = parse_host(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let colon = text.rfind(':').unwrap();
        assert_eq!((found.host, found.port), (&text[..colon], text[colon + 1..].parse().ok()));
    }
    assert_eq!(parse_host("localhost:").unwrap().port, None);
}

#[test]
fn invalid_hosts_are_refused() {
    let bad = [
        "",
        ".0.0.0",
        "0]",
        ".",
        ".foo.bar",
        "foo.bar-",
        "^foo.bar",
        "f*oo.bar",
        "foo.-bar",
        "foo.b*ar",
        "foo..bar",
        "foo-.bar",
        "[1234:5678:90AB:CDEF:1234:5678:127.0.0.1",
        "[0:0:G:0:0:0:0:0]",
        "[1234:5678:90AB:CDEF:1234:5678:90AB:]",
        "[::127.00.0.1]",
        "[0:0:G:0:0:0:127.0.0.1]",
        "[1::127..0.1]",
        "[1::127.a.0.1]",
        "[1::127.-.0.1]",
        "[::1]'",
        "[1111:::3333:4444:5555:6666:7777:8888]",
        "[1111:2222:3333:4444:5555:6666:7777:8888:9999]",
        "[1111:2222:3333]",
        "localhost:-1",
        "127.0.0.1:-1",
        "[::1]:-1",
        "localhost:65536",
        "localhost:+1",
        "localhost:8o",
        "a b",
        "a@b",
        "a/..",
        "a,b",
        "a%20b",
        ":80",
        "[]",
        "[::1%eth0]",
        "é.example",
        "a:1:2",
        "a\r\nb",
    ];
    for text in bad {
        assert!(parse_host(text).is_err(), "{text:?}");
    }
    assert!(parse_host(&"a.".repeat(200)).is_err());
}

#[test]
fn file_names_say_where_an_application_is_mounted() {
    let rows = [
        ("/foo/bar", "/bar", ""),
        ("/foo/bar.so", "/bar", ""),
        ("/foo/bar.SO", "/bar", ""),
        ("/foo/bar.toml", "/bar", ""),
        ("/foo/bar////", "/bar", ""),
        ("/foo/bar##4", "/bar", "4"),
        ("/foo/bar##4.so", "/bar", "4"),
        ("/foo/bar#foo##4", "/bar/foo", "4"),
        ("/foo/ROOT", "", ""),
        ("/foo/ROOT##7.so", "", "7"),
        ("shop.v1.so", "/shop.v1", ""),
        ("shop##1.2-rc_1+b", "/shop", "1.2-rc_1+b"),
    ];
    for (file, path, version) in rows {
        let name = AppName::from_file(file).unwrap();
        assert_eq!((&*name.path, &*name.version), (path, version), "{file}");
    }
    for bad in [
        "", ".so", "#a.so", "a#.so", "a#..#b", "a##", "##2", "a##2##3", "a##<b>", "a;b", "a%20", "<script>", "a\nb",
        "..",
    ] {
        assert!(AppName::from_file(bad).is_err(), "{bad:?}");
    }
    let error = AppName::parse("a#").unwrap_err().to_string();
    assert!(error.contains("'a#'"), "{error}");
    assert!(AppName::parse(&"x".repeat(300)).is_err());
}
