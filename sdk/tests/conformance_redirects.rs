//! Redirects, errors and other rules of responses: Servlet 6.1, chapter 5.

use std::time::{Duration, SystemTime};

use wharf_sdk::{App, Body, Error, Request, Response, StatusCode, TestClient, any, get, http::HeaderMap};

/// The location, and whether it may be sent.
const LOCATIONS: &[(&str, bool)] = &[
    ("", true),
    ("items/7", true),
    ("./", true),
    ("../x", true),
    ("?page=2", true),
    ("#top", true),
    ("/shop/", true),
    ("//cdn.example.com/x", true),
    ("http://example.com/", true),
    ("https://example.com:8443/a?b=c#d", true),
    ("https://[::1]/", true),
    ("mailto:a@example.com", true),
    ("/a%20b", true),
    ("/?q=a+b&c=d", true),
    ("/a b", false),
    ("/a\r\nSet-Cookie: x=1", false),
    ("/a\nb", false),
    ("/a\0", false),
    ("/a\tb", false),
    ("/\\evil.example", false),
    ("\\\\evil.example", false),
    ("/gr\u{fc}n", false),
    ("/\u{7f}", false),
];

#[test]
fn locations_are_sent_as_they_are_or_refused() {
    for (location, good) in LOCATIONS {
        match Response::redirect(location) {
            Ok(response) => {
                assert!(good, "{location:?}");
                assert_eq!(response.status_code(), 302);
                assert_eq!(response.headers()["location"], *location);
            }
            Err(error) => {
                assert!(!good, "{location:?}: {error}");
                assert_eq!(error.status(), 500);
            }
        }
        assert_eq!(Response::see_other(location).is_ok(), *good, "{location:?}");
    }
}

#[test]
fn statuses_of_redirects() {
    for (status, good) in [
        (200, false),
        (300, false),
        (301, true),
        (302, true),
        (303, true),
        (304, false),
        (305, false),
        (307, true),
        (308, true),
        (404, false),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Response::redirect_with(status, "/x").map(|r| r.status_code()).ok(), good.then_some(status));
    }
}

#[test]
fn a_location_from_a_client_stays_on_this_host() {
    for (location, good) in [
        ("/cart", true),
        ("cart?x=http://a", true),
        ("?next=//x", true),
        ("#a:b", true),
        ("./a:b", true),
        ("", true),
        ("//evil.example", false),
        ("///evil.example", false),
        ("http://evil.example", false),
        ("HTTPS:evil.example", false),
        ("javascript:alert(1)", false),
        ("data:text/html,x", false),
        ("/\\evil.example", false),
        ("\\/evil.example", false),
        ("/\t/evil.example", false),
        (" //evil.example", false),
        ("/a\r\nb: c", false),
    ] {
        let redirect = Response::redirect_within(location);
        assert_eq!(redirect.is_ok(), good, "{location:?}");
        if let Err(error) = redirect {
            assert_eq!(error.status(), 400);
        }
    }
}

#[tokio::test]
async fn send_error_gets_the_error_page_and_refuses_other_statuses() {
    let fail = |request: Request| async move {
        let status: u16 = request.parameter("status").unwrap().parse().unwrap();
        let mut begun = Response::text("half a page");
        begun.reset();
        assert_eq!((begun.body().is_empty(), begun.headers().is_empty()), (true, true));
        Response::send_error(StatusCode::from_u16(status).unwrap(), "sold out")
    };
    let page = |request: Request| async move {
        let error = request.error().unwrap();
        format!("page: {} {}", error.status().as_u16(), error.message())
    };
    let app = || App::new().servlet("fail", "/fail", get(fail));
    let with_page = TestClient::new(app().default_error_page(any(page))).start().await.unwrap();
    let without = TestClient::new(app()).start().await.unwrap();
    for (status, sent, paged, bare) in [
        (400, 400, "page: 400 sold out", "sold out"),
        (404, 404, "page: 404 sold out", "sold out"),
        (410, 410, "page: 410 sold out", "sold out"),
        (500, 500, "page: 500 sold out", ""),
        (503, 503, "page: 503 sold out", ""),
        (200, 500, "page: 500 send_error needs a status from 400 to 599, but got 200 OK", ""),
        (302, 500, "page: 500 send_error needs a status from 400 to 599, but got 302 Found", ""),
    ] {
        let path = format!("/fail?status={status}");
        for (client, want) in [(&with_page, paged), (&without, bare)] {
            let answer = client.get(&path).send().await;
            assert_eq!(answer.status(), sent, "{status}");
            assert_eq!(answer.text().await, want, "{status}");
        }
    }
}

#[test]
fn what_can_not_be_sent_is_an_error_the_application_sees() {
    let long_ago = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let text = || Response::text("abc");
    let stream = || Response::new(Body::from("abc").with_trailers(HeaderMap::new));
    for (rule, result, good) in [
        ("a media type", text().with_content_type("text/plain; charset=utf-8"), true),
        ("a media type without subtype", text().with_content_type("text"), false),
        ("an empty media type", text().with_content_type(""), false),
        ("a media type with a blank", text().with_content_type("text/pl ain"), false),
        ("a line end in a media type", text().with_content_type("text/plain\r\nx: y"), false),
        ("the length it has", text().with_content_length(3), true),
        ("another length", text().with_content_length(4), false),
        ("a length of a stream", stream().with_content_length(3), true),
        ("a date", text().date_header("expires", SystemTime::UNIX_EPOCH), true),
        ("a date before 1970", text().date_header("expires", long_ago), false),
        (
            "a date after 9999",
            text().date_header("expires", SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)),
            false,
        ),
        ("a number", text().int_header("age", 3), true),
        ("a charset", Response::text_in("text/plain", "ISO-8859-1", "\u{fc}"), true),
        ("an unknown charset", Response::text_in("text/plain", "klingon", "x"), false),
        ("a character the charset has not", Response::text_in("text/plain", "ISO-8859-1", "\u{20ac}"), false),
        ("beyond ASCII in ASCII", Response::text_in("text/plain", "US-ASCII", "\u{fc}"), false),
        ("a charset that is for reading alone", Response::text_in("text/plain", "UTF-16", "x"), false),
        ("the euro sign in windows-1252", Response::text_in("text/plain", "windows-1252", "\u{20ac}"), true),
        ("a trailer", text().with_trailers(&["x-sum"], HeaderMap::new), true),
        ("a trailer that frames", text().with_trailers(&["Content-Length"], HeaderMap::new), false),
        ("a trailer that routes", text().with_trailers(&["host"], HeaderMap::new), false),
        ("a trailer without a name", text().with_trailers(&[""], HeaderMap::new), false),
        ("a line end in a header", text().header("x", "a\r\nb"), false),
        ("a line feed in a header", text().add_header("x", "a\nb"), false),
        ("a blank in a name", text().header("a b", "x"), false),
    ] {
        assert_eq!(
            result.as_ref().map_err(Error::status).err(),
            (!good).then_some(StatusCode::INTERNAL_SERVER_ERROR),
            "{rule}"
        );
    }
}

#[tokio::test]
async fn trailers_come_after_the_content_and_only_those_announced() {
    let sum = |_| async {
        Response::text("abc").with_trailers(&["x-sum"], || {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "6".parse().unwrap());
            trailers.insert("x-other", "7".parse().unwrap());
            trailers
        })
    };
    let client = TestClient::new(App::new().servlet("sum", "/", get(sum))).start().await.unwrap();
    let mut answer = client.get("/").send().await;
    assert_eq!(answer.header("trailer"), Some("x-sum"));
    assert_eq!(answer.chunk().await.as_deref(), Some(&b"abc"[..]));
    assert!(answer.trailers().is_none());
    assert!(answer.chunk().await.is_none());
    let trailers = answer.trailers().unwrap();
    assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &"6".parse().unwrap()));
}

#[tokio::test]
async fn a_buffer_can_be_reset_and_a_stated_length_is_held() {
    let mut response = Response::text("abc").with_status(StatusCode::CREATED);
    response.reset_buffer();
    assert_eq!((response.status_code().as_u16(), response.body().is_empty()), (201, true));
    assert!(response.headers().contains_key("content-type"));

    let stream = Body::from("abc").with_trailers(HeaderMap::new);
    let mut short = Response::new(stream).with_content_length(4).unwrap();
    let body = short.body_mut();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "abc");
    assert!(body.chunk().await.unwrap().is_err());
}
