//! Cookies as they are read and as they are set: RFC 6265, sections 4.1 and 4.2.

use wharf_sdk::cookie::{Cookie, SameSite};
use wharf_sdk::{App, Nameless, Request, Response, TestClient, get, parse_cookies};

use Nameless::{Ignore, Name};

/// What is done with cookies without `=`, the field, and the cookies in it.
const READ: &[(Nameless, &str, &[&str])] = &[
    // Well formed, with and without blanks and empty pairs.
    (Ignore, "foo=bar; a=b", &["foo=bar", "a=b"]),
    (Ignore, "foo=bar;a=b;", &["foo=bar", "a=b"]),
    (Ignore, "foo=bar;a=b; ;", &["foo=bar", "a=b"]),
    (Ignore, "", &[]),
    (Ignore, ";;;", &[]),
    (Ignore, "  a=b  ;\tc=d\t", &["a=b", "c=d"]),
    (Ignore, "a = b", &["a=b"]),
    (Ignore, "a=1; a=2", &["a=1", "a=2"]),
    (Ignore, "a=b=c", &["a=b=c"]),
    (Ignore, "A=1; a=2", &["A=1", "a=2"]),
    // Without an equals sign: the name alone.
    (Name, "foo;a=b; ;", &["foo=", "a=b"]),
    (Name, "foo;a=b;bar;", &["foo=", "a=b", "bar="]),
    (Name, "foo;a=b;bar ;", &["foo=", "a=b", "bar="]),
    (Name, "fred=1; jim=2; bob; george=3", &["fred=1", "jim=2", "bob=", "george=3"]),
    (Name, "fred=1; jim=2; bob=", &["fred=1", "jim=2", "bob="]),
    (Name, "foo;a=b; ;bar", &["foo=", "a=b", "bar="]),
    (Name, "foo;a=b; ;;bar=rab", &["foo=", "a=b", "bar=rab"]),
    (Name, "foo;a=b;;#;bar=rab", &["foo=", "a=b", "#=", "bar=rab"]),
    // Without an equals sign: passed over, which is what requests do.
    (Ignore, "foo;a=b; ;", &["a=b"]),
    (Ignore, "foo;a=b;bar;", &["a=b"]),
    (Ignore, "foo;a=b;bar ;", &["a=b"]),
    (Ignore, "fred=1; jim=2; bob; george=3", &["fred=1", "jim=2", "george=3"]),
    (Ignore, "fred=1; jim=2; bob=", &["fred=1", "jim=2", "bob="]),
    (Ignore, "foo;a=b; ;bar", &["a=b"]),
    (Ignore, "foo;a=b; ;;bar=rab", &["a=b", "bar=rab"]),
    (Ignore, "foo;a=b;;#;bar=rab", &["a=b", "bar=rab"]),
    // Quotes belong to the value (RFC 6265, section 4.1.1).
    (Ignore, "foo=bar;a=\"b\";", &["foo=bar", "a=\"b\""]),
    (Ignore, "a=\"\"", &["a=\"\""]),
    (Ignore, "a=\"", &[]),
    (Ignore, "a=b\"c\"", &[]),
    // What is no cookie-octet makes the one cookie malformed.
    (Ignore, "a=()<>@:\\\"/[]?={}\t; foo=bar", &["foo=bar"]),
    (Ignore, "a=()<>@:/[]?={}; foo=bar", &["a=()<>@:/[]?={}", "foo=bar"]),
    (Ignore, "a=x y; b=1", &["b=1"]),
    (Ignore, "a=x,y; b=1", &["b=1"]),
    (Ignore, "a=x\\y; b=1", &["b=1"]),
    (Ignore, "=x; b=1", &["b=1"]),
    (Ignore, "a b=x; b=1", &["b=1"]),
    (Ignore, "a/b=x; b=1", &["b=1"]),
    (Ignore, "a=\u{7f}; b=1", &["b=1"]),
    // `$Version` and the like are cookies as any other (RFC 6265 has no versions).
    (Ignore, "$Version=1;foo=bar;a=b; ; ", &["$Version=1", "foo=bar", "a=b"]),
    (Ignore, "$Version=1;foo= ;a=b; ; ", &["$Version=1", "foo=", "a=b"]),
    (Ignore, "$Version=1;foo;a=b; ; ", &["$Version=1", "a=b"]),
    (Ignore, "$Version=1;foo=\"bar\";a=b; ; ", &["$Version=1", "foo=\"bar\"", "a=b"]),
    (Ignore, "$Version=1;foo=b'ar;a=b", &["$Version=1", "foo=b'ar", "a=b"]),
    (Ignore, "$Version=1;foo=\"b\\\"ar\";a=b", &["$Version=1", "a=b"]),
    (Ignore, "$Version=1;foo=bar;a=\"b\\", &["$Version=1", "foo=bar"]),
    (
        Ignore,
        "$Version=1;foo=\"bar\";$Domain=apache.org;a=b;$Domain=yahoo.com",
        &["$Version=1", "foo=\"bar\"", "$Domain=apache.org", "a=b", "$Domain=yahoo.com"],
    ),
    (
        Ignore,
        "$Version=1;foo=\"bar\";$Domain=apache.org;$Port=8080;a=b",
        &["$Version=1", "foo=\"bar\"", "$Domain=apache.org", "$Port=8080", "a=b"],
    ),
    (Ignore, "$Version=0;foo=bar", &["$Version=0", "foo=bar"]),
    (Ignore, "$Version=1;{\"a\":true, \"b\":false};a=b", &["$Version=1", "a=b"]),
    (
        Ignore,
        "$Version=\"1\"; userId=\"foo\";$Path=\"/\";$Domain=\"www.example.org\"",
        &["$Version=\"1\"", "userId=\"foo\"", "$Path=\"/\"", "$Domain=\"www.example.org\""],
    ),
    // Control characters are refused; characters beyond ASCII are taken as UTF-8.
    (Ignore, "f\u{8}o=bar", &[]),
    (Ignore, "foo=b\u{e1}r", &["foo=b\u{e1}r"]),
    (Ignore, "$Version=1; foo=\"b\u{e1}r\"", &["$Version=1", "foo=\"b\u{e1}r\""]),
    (Ignore, "$Version=1; foo=b\u{8}r", &["$Version=1"]),
    (Ignore, "$Version=1; foo=b\u{88}r", &["$Version=1", "foo=b\u{88}r"]),
    (Ignore, "f\u{f6}o=bar; a=b", &["a=b"]),
];

#[test]
fn cookies_that_are_sent_are_read() {
    for (nameless, field, want) in READ {
        let read: Vec<_> =
            parse_cookies(field.as_bytes(), *nameless).map(|c| format!("{}={}", c.name(), c.value())).collect();
        assert_eq!(read, *want, "{nameless:?} {field:?}");
    }
    let not_utf_8: Vec<_> = parse_cookies(b"a=\xff; b=1", Ignore).map(|c| c.name().to_owned()).collect();
    assert_eq!(not_utf_8, ["b"]);
}

#[tokio::test]
async fn a_request_reads_all_its_fields() {
    let shown = |request: Request| async move {
        let all: Vec<_> = request.cookies().map(|c| format!("{}={}", c.name(), c.value())).collect();
        format!("{} {:?}", all.join(" "), request.cookie("b").map(|c| c.value().to_owned()))
    };
    let client = TestClient::new(App::new().servlet("shown", "/", get(shown))).start().await.unwrap();
    let sent = client.get("/").header("cookie", "a=1; bare").header("cookie", "b=2; a=3").send().await;
    assert_eq!(sent.text().await, "a=1 b=2 a=3 Some(\"2\")");
}

/// The cookie, and its `Set-Cookie`; `None` where it may not be set.
fn written() -> Vec<(&'static str, Cookie<'static>, Option<&'static str>)> {
    let secure = |name: &'static str| Cookie::build((name, "1")).secure(true);
    vec![
        ("plain", Cookie::new("a", "1"), Some("a=1")),
        ("empty value", Cookie::new("a", ""), Some("a=")),
        ("equals sign", Cookie::new("a", "b=c"), Some("a=b=c")),
        ("quoted", Cookie::new("a", "\"b\""), Some("a=\"b\"")),
        ("path", Cookie::build(("a", "1")).path("/shop").build(), Some("a=1; Path=/shop")),
        ("domain", Cookie::build(("a", "1")).domain("example.com").build(), Some("a=1; Domain=example.com")),
        ("http only", Cookie::build(("a", "1")).http_only(true).build(), Some("a=1; HttpOnly")),
        ("secure", secure("a").build(), Some("a=1; Secure")),
        ("strict", Cookie::build(("a", "1")).same_site(SameSite::Strict).build(), Some("a=1; SameSite=Strict")),
        ("lax", Cookie::build(("a", "1")).same_site(SameSite::Lax).build(), Some("a=1; SameSite=Lax")),
        ("none", Cookie::build(("a", "1")).same_site(SameSite::None).build(), Some("a=1; SameSite=None; Secure")),
        ("partitioned", Cookie::build(("a", "1")).partitioned(true).build(), Some("a=1; Partitioned; Secure")),
        (
            "max age",
            Cookie::build(("a", "1")).max_age(wharf_sdk::cookie::time::Duration::hours(1)).build(),
            Some("a=1; Max-Age=3600"),
        ),
        (
            "expires",
            Cookie::build(("a", "1")).expires(wharf_sdk::cookie::time::OffsetDateTime::UNIX_EPOCH).build(),
            Some("a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        ),
        ("until the browser ends", Cookie::build(("a", "1")).expires(None).build(), Some("a=1")),
        ("host prefix", secure("__Host-a").path("/").build(), Some("__Host-a=1; Secure; Path=/")),
        ("secure prefix", secure("__Secure-a").build(), Some("__Secure-a=1; Secure")),
        ("every token character", Cookie::new("!#$%&'*+-.^_`|~0aZ", "1"), Some("!#$%&'*+-.^_`|~0aZ=1")),
        // Names are tokens.
        ("no name", Cookie::new("", "1"), None),
        ("blank in name", Cookie::new("a b", "1"), None),
        ("equals in name", Cookie::new("a=b", "1"), None),
        ("semicolon in name", Cookie::new("a;b", "1"), None),
        ("comma in name", Cookie::new("a,b", "1"), None),
        ("quote in name", Cookie::new("\"a\"", "1"), None),
        ("line end in name", Cookie::new("a\r\nb", "1"), None),
        ("name beyond ASCII", Cookie::new("\u{e4}", "1"), None),
        // Values are cookie-octets.
        ("blank in value", Cookie::new("a", "b c"), None),
        ("comma in value", Cookie::new("a", "b,c"), None),
        ("semicolon in value", Cookie::new("a", "b; Path=/"), None),
        ("backslash in value", Cookie::new("a", "b\\c"), None),
        ("quote in value", Cookie::new("a", "b\"c"), None),
        ("half quoted", Cookie::new("a", "\"b"), None),
        ("line end in value", Cookie::new("a", "b\r\nSet-Cookie: c=d"), None),
        ("NUL in value", Cookie::new("a", "b\0"), None),
        ("value beyond ASCII", Cookie::new("a", "\u{e4}"), None),
        // Attributes.
        ("semicolon in path", Cookie::build(("a", "1")).path("/; Domain=x").build(), None),
        ("line end in path", Cookie::build(("a", "1")).path("/\n").build(), None),
        ("path beyond ASCII", Cookie::build(("a", "1")).path("/\u{e4}").build(), None),
        ("blank in domain", Cookie::build(("a", "1")).domain("a b").build(), None),
        ("semicolon in domain", Cookie::build(("a", "1")).domain("a; Secure").build(), None),
        ("domain with a port", Cookie::build(("a", "1")).domain("a:80").build(), None),
        ("empty label", Cookie::build(("a", "1")).domain("a..b").build(), None),
        ("hyphen at the begin", Cookie::build(("a", "1")).domain("-a.b").build(), None),
        ("hyphen at the end", Cookie::build(("a", "1")).domain("a-.b").build(), None),
        // What browsers ignore.
        ("none, not secure", Cookie::build(("a", "1")).same_site(SameSite::None).secure(false).build(), None),
        ("partitioned, not secure", Cookie::build(("a", "1")).partitioned(true).secure(false).build(), None),
        ("secure prefix, not secure", Cookie::new("__Secure-a", "1"), None),
        ("secure prefix in another case", Cookie::new("__secure-a", "1"), None),
        ("host prefix, not secure", Cookie::build(("__Host-a", "1")).path("/").build(), None),
        ("host prefix without path", secure("__Host-a").build(), None),
        ("host prefix, other path", secure("__Host-a").path("/x").build(), None),
        ("host prefix with domain", secure("__Host-a").path("/").domain("a.b").build(), None),
        ("too long", Cookie::new("a", "b".repeat(4096)), None),
    ]
}

#[test]
fn cookies_are_set_or_refused() {
    for (rule, cookie, want) in written() {
        match (Response::text("x").cookie(cookie), want) {
            (Ok(response), Some(want)) => assert_eq!(response.headers()["set-cookie"], want, "{rule}"),
            (Err(error), None) => assert_eq!(error.status(), 500, "{rule}"),
            (got, want) => panic!("{rule}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn several_cookies_are_fields_of_their_own_and_one_can_be_removed() {
    let response = Response::text("x").cookie(Cookie::new("a", "1")).unwrap().cookie(Cookie::new("b", "2")).unwrap();
    let all: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(all, ["a=1", "b=2"]);
    let gone = Response::text("x").remove_cookie(Cookie::build(("a", "1")).path("/shop").build()).unwrap();
    let field = gone.headers()["set-cookie"].to_str().unwrap();
    assert!(field.starts_with("a=; Path=/shop; Max-Age=0; Expires="), "{field}");
}
