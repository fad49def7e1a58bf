//! What a request says: parameters, charsets, languages, path parameters, dates, trailers (Servlet 6.1, chapter 3).

use wharf_sdk::http::HeaderMap;
use wharf_sdk::{App, Body, Error, MAX_PARAMETERS, Request, TestClient, any, get, post};

const FORM: &str = "application/x-www-form-urlencoded";

/// The query, type and content of a form, and the parameters, or the status.
type ParameterRow = (&'static str, &'static str, &'static [u8], Result<&'static [(&'static str, &'static str)], u16>);

const PARAMETERS: &[ParameterRow] = &[
    // Servlet 6.1, section 3.1: the query first, then the form, in the order sent.
    ("", "", b"", Ok(&[])),
    ("a=1", "", b"", Ok(&[("a", "1")])),
    ("a=1&b=2", "", b"", Ok(&[("a", "1"), ("b", "2")])),
    ("a=hello", FORM, b"a=goodbye&a=world", Ok(&[("a", "hello"), ("a", "goodbye"), ("a", "world")])),
    ("", FORM, b"b=1&a=2", Ok(&[("b", "1"), ("a", "2")])),
    ("q=1", FORM, b"", Ok(&[("q", "1")])),
    // Content of another type is no form.
    ("a=1", "text/plain", b"b=2", Ok(&[("a", "1")])),
    ("a=1", "multipart/form-data; boundary=x", b"b=2", Ok(&[("a", "1")])),
    ("a=1", "", b"b=2", Ok(&[("a", "1")])),
    ("", "APPLICATION/x-www-form-URLENCODED", b"b=2", Ok(&[("b", "2")])),
    ("", "application/x-www-form-urlencoded ; charset=utf-8", b"b=%C3%BC", Ok(&[("b", "\u{fc}")])),
    // Names and values (URL Standard, section 5.1).
    ("a", "", b"", Ok(&[("a", "")])),
    ("a=", "", b"", Ok(&[("a", "")])),
    ("=1", "", b"", Ok(&[("", "1")])),
    ("=", "", b"", Ok(&[("", "")])),
    ("&&a=1&&", "", b"", Ok(&[("a", "1")])),
    ("a=b=c", "", b"", Ok(&[("a", "b=c")])),
    ("a=1;b=2", "", b"", Ok(&[("a", "1;b=2")])),
    ("A=1&a=2", "", b"", Ok(&[("A", "1"), ("a", "2")])),
    ("a=x+y", "", b"", Ok(&[("a", "x y")])),
    ("a+b=1", "", b"", Ok(&[("a b", "1")])),
    ("a=x%2By", "", b"", Ok(&[("a", "x+y")])),
    ("a%3Db=%26", "", b"", Ok(&[("a=b", "&")])),
    ("a=%e2%82%ac", "", b"", Ok(&[("a", "\u{20ac}")])),
    ("a=%00", "", b"", Ok(&[("a", "\0")])),
    ("a=%25%32%35", "", b"", Ok(&[("a", "%25")])),
    ("a=%0d%0a", "", b"", Ok(&[("a", "\r\n")])),
    ("", FORM, b"a=1\r\n", Ok(&[("a", "1\r\n")])),
    ("", FORM, "a=\u{fc}".as_bytes(), Ok(&[("a", "\u{fc}")])),
    // What can't be read is a 400 (Servlet 6.1, section 3.1, on errors).
    ("a=%", "", b"", Err(400)),
    ("a=%4", "", b"", Err(400)),
    ("a=%zz", "", b"", Err(400)),
    ("%zz=a", "", b"", Err(400)),
    ("a=%ff", "", b"", Err(400)),
    ("a=%c0%af", "", b"", Err(400)),
    ("a=%ed%a0%80", "", b"", Err(400)),
    ("good=1", FORM, b"a=%f", Err(400)),
    ("", FORM, b"a=\xff", Err(400)),
    // The charset of a form.
    ("", "application/x-www-form-urlencoded; charset=ISO-8859-1", b"a=%FC", Ok(&[("a", "\u{fc}")])),
    ("", "application/x-www-form-urlencoded; charset=\"iso-8859-1\"", b"a=\xfc", Ok(&[("a", "\u{fc}")])),
    (
        "a=%C3%BC",
        "application/x-www-form-urlencoded; charset=latin1",
        b"b=%FC",
        Ok(&[("a", "\u{fc}"), ("b", "\u{fc}")]),
    ),
    ("", "application/x-www-form-urlencoded; charset=windows-1252", b"a=%80", Ok(&[("a", "\u{20ac}")])),
    ("", "application/x-www-form-urlencoded; charset=Shift_JIS", b"a=%82%A0", Ok(&[("a", "\u{3042}")])),
    ("", "application/x-www-form-urlencoded; charset=US-ASCII", b"a=%FC", Err(400)),
    ("", "application/x-www-form-urlencoded; charset=Shift_JIS", b"a=%82", Err(400)),
    ("", "application/x-www-form-urlencoded; charset=klingon", b"a=1", Err(415)),
];

async fn show(mut request: Request) -> Result<String, Error> {
    let parameters = request.parameters().await?;
    Ok(format!("{:?}", parameters.iter().collect::<Vec<_>>()))
}

#[tokio::test]
async fn parameters_of_query_and_form() {
    let client = TestClient::new(App::new().servlet("show", "/", any(show))).start().await.unwrap();
    for (query, content_type, content, want) in PARAMETERS {
        let mut request = client.post(&format!("/?{query}")).body(*content);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = request.send().await;
        let got = (answer.status().as_u16(), answer.text().await);
        match want {
            Ok(pairs) => assert_eq!(got, (200, format!("{pairs:?}")), "{query} {content:?}"),
            Err(status) => assert_eq!(got.0, *status, "{query} {content:?}"),
        }
    }
}

#[tokio::test]
async fn limits_of_parameters() {
    let client = TestClient::new(App::new().servlet("show", "/", any(show))).start().await.unwrap();
    let pairs = |count: usize| "a&".repeat(count);
    for (query, form, status) in [
        (0, MAX_PARAMETERS, 200),
        (0, MAX_PARAMETERS + 1, 400),
        (1, MAX_PARAMETERS - 1, 200),
        (1, MAX_PARAMETERS, 400),
        (MAX_PARAMETERS + 1, 0, 400),
    ] {
        let request = client.post(&format!("/?{}", pairs(query))).header("content-type", FORM).body(pairs(form));
        assert_eq!(request.send().await.status(), status, "{query} {form}");
    }
    for (len, status) in [(wharf_sdk::DEFAULT_CONTENT_LIMIT, 200), (wharf_sdk::DEFAULT_CONTENT_LIMIT + 1, 413)] {
        let request = client.post("/").header("content-type", FORM).body("a".repeat(len));
        assert_eq!(request.send().await.status(), status, "{len}");
    }
}

#[tokio::test]
async fn a_form_is_read_into_a_structure_in_its_charset() {
    #[derive(serde::Deserialize)]
    struct Greeting {
        word: String,
        times: u32,
    }
    let read = |mut request: Request| async move {
        let greeting: Greeting = request.form().await?;
        Ok(greeting.word.repeat(greeting.times as usize))
    };
    let client = TestClient::new(App::new().servlet("read", "/", post(read))).start().await.unwrap();
    let form = "application/x-www-form-urlencoded; charset=ISO-8859-1";
    for (content_type, content, status) in [
        (form, "word=%FC&times=2", 200),
        (form, "word=%FC&times=many", 422),
        (FORM, "word=%FC&times=2", 400),
        ("text/plain", "word=x&times=2", 415),
        ("application/x-www-form-urlencoded; charset=x-none", "word=x&times=2", 415),
    ] {
        let answer = client.post("/").header("content-type", content_type).body(content).send().await;
        assert_eq!(answer.status(), status, "{content_type} {content}");
        if status == 200 {
            assert_eq!(answer.text().await, "\u{fc}\u{fc}");
        }
    }
}

/// `Content-Type`, content, and the text or the status.
const TEXTS: &[(&str, &[u8], Result<&str, u16>)] = &[
    ("", "\u{20ac}".as_bytes(), Ok("\u{20ac}")),
    ("text/plain", "\u{20ac}".as_bytes(), Ok("\u{20ac}")),
    ("text/plain; charset=utf-8", "\u{20ac}".as_bytes(), Ok("\u{20ac}")),
    ("text/plain; charset=UTF8", "\u{20ac}".as_bytes(), Ok("\u{20ac}")),
    ("text/plain; Charset=\"UTF-8\"", "\u{20ac}".as_bytes(), Ok("\u{20ac}")),
    ("text/plain; charset=iso-8859-1", b"\xfc", Ok("\u{fc}")),
    // Not windows-1252: the bytes of C1 are what they are.
    ("text/plain; charset=ISO-8859-1", b"\x80", Ok("\u{80}")),
    ("text/plain; charset=windows-1252", b"\x80", Ok("\u{20ac}")),
    ("text/plain; charset=us-ascii", b"abc", Ok("abc")),
    ("text/plain; charset=us-ascii", b"\xfc", Err(400)),
    ("text/plain; charset=iso-8859-15", b"\xa4", Ok("\u{20ac}")),
    ("text/plain; charset=koi8-r", b"\xc1", Ok("\u{430}")),
    ("text/plain; charset=shift_jis", b"\x82\xa0", Ok("\u{3042}")),
    ("text/plain; charset=euc-jp", b"\xa4\xa2", Ok("\u{3042}")),
    ("text/plain; charset=gb18030", b"\xd6\xd0", Ok("\u{4e2d}")),
    ("text/plain; charset=big5", b"\xa4\xa4", Ok("\u{4e2d}")),
    ("text/plain; charset=utf-16le", b"a\0", Ok("a")),
    ("text/plain; charset=utf-16be", b"\0a", Ok("a")),
    ("text/plain; charset=utf-16", b"\xfe\xff\0a", Ok("a")),
    ("text/plain; charset=utf-16le", b"a", Err(400)),
    ("text/plain", b"\xff", Err(400)),
    ("text/plain; charset=utf-8", b"\xc0\x80", Err(400)),
    ("text/plain; charset=shift_jis", b"\x82", Err(400)),
    ("text/plain; charset=klingon", b"x", Err(415)),
    ("text/plain; charset=", b"x", Err(415)),
    // Escape sequences of these hide markup from filters: not taken (Encoding Standard, section 4.2).
    ("text/plain; charset=iso-2022-kr", b"x", Err(415)),
];

#[tokio::test]
async fn text_is_read_in_its_charset() {
    let echo = |mut request: Request| async move { request.text().await };
    let client = TestClient::new(App::new().servlet("echo", "/", post(echo))).start().await.unwrap();
    for (content_type, content, want) in TEXTS {
        let mut request = client.post("/").body(*content);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let answer = request.send().await;
        let got = (answer.status().as_u16(), answer.text().await);
        match want {
            Ok(text) => assert_eq!(got, (200, (*text).to_owned()), "{content_type} {content:?}"),
            Err(status) => assert_eq!(got.0, *status, "{content_type} {content:?}"),
        }
    }
}

/// `Accept-Language` fields, and the languages.
const LANGUAGES: &[(&[&str], &[&str])] = &[
    (&[], &[]),
    (&[""], &[]),
    (&["de"], &["de"]),
    (&["de-CH"], &["de-CH"]),
    (&["en, de"], &["en", "de"]),
    (&["en;q=0.5, de"], &["de", "en"]),
    (&["da, en-gb;q=0.8, en;q=0.7"], &["da", "en-gb", "en"]),
    (&["en;q=0.7, en-gb;q=0.8, da"], &["da", "en-gb", "en"]),
    (&["a;q=0.001, b;q=0.002, c;q=0.01"], &["c", "b", "a"]),
    (&["fr;q=0, en"], &["en"]),
    (&["fr;q=0.000"], &[]),
    (&["*"], &[]),
    (&["*, de;q=0.5"], &["de"]),
    (&["en", "de;q=0.9", "fr"], &["en", "fr", "de"]),
    (&["zh-Hant-TW"], &["zh-Hant-TW"]),
    (&["es-419"], &["es-419"]),
    (&["en ; q=0.5 , de ;Q=0.9"], &["de", "en"]),
    (&["en\t;\tq=1"], &["en"]),
    (&["en;q=1.000"], &["en"]),
    (&["en;q=1.001, de"], &["de"]),
    (&["en;q=2, de"], &["de"]),
    (&["en;q=-1, de"], &["de"]),
    (&["en;q=0.1234, de"], &["de"]),
    (&["en;q=x, de"], &["de"]),
    (&["en;q, de"], &["de"]),
    (&["en;x=1;q=0.5, de"], &["de", "en"]),
    (&[",, ,de,"], &["de"]),
    (&["de_CH, en"], &["en"]),
    (&["1a, en"], &["en"]),
    (&["abcdefghi, en"], &["en"]),
    (&["en-, -de, fr"], &["fr"]),
    (&["en us, fr"], &["fr"]),
];

#[tokio::test]
async fn languages_by_quality() {
    let show = |request: Request| async move {
        let locales = request.locales();
        assert_eq!(request.locale(), locales.first().copied());
        format!("{locales:?}")
    };
    let client = TestClient::new(App::new().servlet("show", "/", get(show))).start().await.unwrap();
    for (fields, want) in LANGUAGES {
        let mut request = client.get("/");
        for field in *fields {
            request = request.header("accept-language", field);
        }
        assert_eq!(request.send().await.text().await, format!("{want:?}"), "{fields:?}");
    }
}

/// Path, and `segment name=value` of its parameters.
const PATH_PARAMETERS: &[(&str, &str)] = &[
    ("/a/b", ""),
    ("/a;x=1/b", "0 x=1"),
    ("/a;x=1;y=2/b", "0 x=1, 0 y=2"),
    ("/a/b;x=1", "1 x=1"),
    ("/a;x=1/b;x=2", "0 x=1, 1 x=2"),
    ("/a;x", "0 x="),
    ("/a;x=", "0 x="),
    ("/a;=1", "0 =1"),
    ("/a;;x=1;", "0 x=1"),
    ("/a;x=1=2", "0 x=1=2"),
    ("/a;x=1,2", "0 x=1,2"),
    ("/;x=1", "0 x=1"),
    ("/a;x=b+c", "0 x=b+c"),
    ("/a;x=%C3%BC", "0 x=\u{fc}"),
    ("/a;x%3Dy=1", "0 x=y=1"),
    ("/a;v=1?;q=2", "0 v=1"),
    ("/a;x=%ff", "400"),
];

#[tokio::test]
async fn path_parameters_by_segment_and_out_of_the_mapping() {
    let show = |request: Request| async move {
        let all = request.path_parameters()?;
        assert_eq!(request.path_parameter("x"), all.iter().find(|p| p.name == "x").map(|p| p.value.clone()));
        assert!(!request.path().contains(';'));
        let all: Vec<_> = all.iter().map(|p| format!("{} {}={}", p.segment, p.name, p.value)).collect();
        Ok(all.join(", "))
    };
    let client = TestClient::new(App::new().servlet("show", "/", get(show))).start().await.unwrap();
    for (path, want) in PATH_PARAMETERS {
        let answer = client.get(path).send().await;
        if *want == "400" {
            assert_eq!(answer.status(), 400, "{path}");
        } else {
            assert_eq!(answer.text().await, *want, "{path}");
        }
    }
}

/// Dates of RFC 9110, section 5.6.7, and whole numbers.
#[tokio::test]
async fn header_fields_as_dates_and_numbers() {
    let show = |request: Request| async move {
        let seconds = |when: std::time::SystemTime| when.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        Ok(format!("{:?} {:?}", request.date_header("x-date")?.map(seconds), request.int_header("x-number")?))
    };
    let client = TestClient::new(App::new().servlet("show", "/", get(show))).start().await.unwrap();
    for (name, value, want) in [
        ("x-date", "Sun, 06 Nov 1994 08:49:37 GMT", "Some(784111777) None"),
        ("x-date", "Sunday, 06-Nov-94 08:49:37 GMT", "Some(784111777) None"),
        ("x-date", "Sun Nov  6 08:49:37 1994", "Some(784111777) None"),
        ("x-date", "yesterday", "400"),
        ("x-date", "", "400"),
        ("x-date", "1994-11-06T08:49:37Z", "400"),
        ("x-number", "7", "None Some(7)"),
        ("x-number", "-7", "None Some(-7)"),
        ("x-number", " 7 ", "None Some(7)"),
        ("x-number", "7.5", "400"),
        ("x-number", "", "400"),
        ("x-number", "99999999999999999999", "400"),
        ("x-other", "7", "None None"),
    ] {
        let answer = client.get("/").header(name, value).send().await;
        if want == "400" {
            assert_eq!(answer.status(), 400, "{name}: {value}");
        } else {
            assert_eq!(answer.text().await, want, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn the_host_and_its_port() {
    let show = |request: Request| async move {
        assert_eq!(request.protocol(), "HTTP/1.1");
        format!("{} {} {}", request.server_name(), request.server_port(), request.request_url())
    };
    let client = TestClient::new(App::new().servlet("show", "/", get(show))).start().await.unwrap();
    for (target, want) in [
        ("http://example.com/a?b", "example.com 80 http://example.com/a"),
        ("http://example.com:8080/a", "example.com 8080 http://example.com:8080/a"),
        ("http://[::1]/a", "[::1] 80 http://[::1]/a"),
        ("http://[::1]:81/a", "[::1] 81 http://[::1]:81/a"),
        ("/a", "localhost 80 http://localhost/a"),
    ] {
        assert_eq!(client.get(target).send().await.text().await, want, "{target}");
    }
}

#[tokio::test]
async fn trailers_are_there_once_the_content_has_been_read() {
    let show = |mut request: Request| async move {
        assert!(request.trailers().is_none());
        let text = request.text().await?;
        let sum = request.trailers().and_then(|trailers| trailers.get("x-sum")?.to_str().ok()).unwrap_or("none");
        Ok(format!("{text} {sum}"))
    };
    let client = TestClient::new(App::new().servlet("show", "/", post(show))).start().await.unwrap();
    let with = Body::from("abc").with_trailers(|| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "6".parse().unwrap());
        trailers
    });
    assert_eq!(client.post("/").body(with).send().await.text().await, "abc 6");
    assert_eq!(client.post("/").body("abc").send().await.text().await, "abc none");
}

#[tokio::test]
async fn links_are_encoded_by_whoever_keeps_something_in_them() {
    let show = |mut request: Request| async move {
        let before = request.encode_url("/cart").into_owned();
        let encoder = wharf_sdk::UrlEncoder::new(|url| url.starts_with('/').then(|| format!("{url};id=7")));
        request.extensions_mut().insert(encoder);
        format!("{before} {} {}", request.encode_url("/cart"), request.encode_url("http://elsewhere/"))
    };
    let client = TestClient::new(App::new().servlet("show", "/", get(show))).start().await.unwrap();
    assert_eq!(client.get("/").send().await.text().await, "/cart /cart;id=7 http://elsewhere/");
}
