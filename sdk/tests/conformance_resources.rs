//! Files of an application: RFC 9110, sections 13 and 14; Servlet 6.1, sections 10.5 and 10.10.

use std::path::Path;

use wharf_sdk::{App, Resources, TestClient, any, get};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    put("app.toml", "kind = 'module'");
    put("shop.so", "ELF");
    put(".env", "secret");
    put("static/index.html", "<p>home");
    put("static/digits.txt", "0123456789");
    put("static/style.css", "p{}");
    put("static/style.css.br", "BR");
    put("static/style.css.gz", "GZ");
    put("static/style.css.zst", "ZST");
    put("static/app.js", "js");
    put("static/image.svg", "<svg/>");
    put("static/data.bin", "bin");
    put("static/none", "x");
    put("static/a b\u{fc}.txt", "blank");
    put("static/100%.txt", "percent");
    put("static/docs/index.html", "<p>docs");
    put("static/docs/start.html", "<p>start");
    put("static/bare/file.txt", "bare");
    put("static/.git/config", "secret");
    put("static/.well-known/security.txt", "contact");
    put("static/WEB-INF/web.xml", "secret");
    put("static/META-INF/x", "secret");
    put("static/APP-PRIVATE/x", "secret");
    put("static/app.toml", "secret");
    put("static/lib.so", "secret");
    put("static/page.html~", "secret");
    std::os::unix::fs::symlink("../app.toml", folder.path().join("static/link.txt")).unwrap();
    std::os::unix::fs::symlink("digits.txt", folder.path().join("static/inner.txt")).unwrap();
    folder
}

async fn client(app: App, folder: &Path) -> TestClient {
    TestClient::new(app).context_path("/shop").folder(folder).start().await.unwrap()
}

/// Path, status, and content type and content, or where it leads.
const FILES: &[(&str, u16, &str, &str)] = &[
    ("/digits.txt", 200, "text/plain; charset=utf-8", "0123456789"),
    ("/style.css", 200, "text/css; charset=utf-8", "p{}"),
    ("/app.js", 200, "text/javascript; charset=utf-8", "js"),
    ("/image.svg", 200, "image/svg+xml", "<svg/>"),
    ("/data.bin", 200, "application/octet-stream", "bin"),
    ("/none", 200, "application/octet-stream", "x"),
    ("/a%20b%C3%BC.txt", 200, "text/plain; charset=utf-8", "blank"),
    ("/100%25.txt", 200, "text/plain; charset=utf-8", "percent"),
    ("/inner.txt", 200, "text/plain; charset=utf-8", "0123456789"),
    ("/digits.txt?v=2", 200, "text/plain; charset=utf-8", "0123456789"),
    ("/digits.txt;v=2", 200, "text/plain; charset=utf-8", "0123456789"),
    ("/.well-known/security.txt", 200, "text/plain; charset=utf-8", "contact"),
    // Folders: a slash, the welcome file, never a listing.
    ("/", 200, "text/html; charset=utf-8", "<p>home"),
    ("/docs/", 200, "text/html; charset=utf-8", "<p>docs"),
    ("/docs", 307, "", "/shop/docs/"),
    ("/docs?x=1", 307, "", "/shop/docs/?x=1"),
    ("/bare", 307, "", "/shop/bare/"),
    ("/bare/", 404, "", ""),
    ("/digits.txt/", 404, "", ""),
    ("/nothing", 404, "", ""),
    ("/nothing/", 404, "", ""),
    // What is private.
    ("/app.toml", 404, "", ""),
    ("/APP.TOML", 404, "", ""),
    ("/%61pp.toml", 404, "", ""),
    ("/lib.so", 404, "", ""),
    ("/LIB.SO", 404, "", ""),
    ("/.git/config", 404, "", ""),
    ("/.git/", 404, "", ""),
    ("/%2egit/config", 404, "", ""),
    ("/WEB-INF/web.xml", 404, "", ""),
    ("/web-inf/web.xml", 404, "", ""),
    ("/WEB-INF/", 404, "", ""),
    ("/META-INF/x", 404, "", ""),
    ("/APP-PRIVATE/x", 404, "", ""),
    ("/page.html~", 404, "", ""),
    ("/link.txt", 404, "", ""),
    // Out of the folder.
    ("/../app.toml", 404, "", ""),
    ("/docs/../../app.toml", 404, "", ""),
    ("/x/..%2f..%2fapp.toml", 400, "", ""),
    ("/digits.txt%00.html", 400, "", ""),
];

#[tokio::test]
async fn files_folders_and_what_is_private() {
    let folder = folder();
    let client = client(App::new().resources(Resources::new("static")), folder.path()).await;
    for (path, status, kind, content) in FILES {
        let answer = client.get(path).send().await;
        let head = client.request(wharf_sdk::Method::HEAD, path).send().await;
        assert_eq!((answer.status().as_u16(), head.status().as_u16()), (*status, *status), "{path}");
        match status {
            307 => assert_eq!(answer.header("location"), Some(*content), "{path}"),
            200 => {
                assert_eq!(answer.header("content-type"), Some(*kind), "{path}");
                assert_eq!(head.header("content-length"), Some(&*content.len().to_string()), "{path}");
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
                assert_eq!((answer.text().await.as_str(), head.text().await.as_str()), (*content, ""), "{path}");
            }
            _ => {}
        }
    }
}

/// `Range` of ten bytes, status, `Content-Range`, content (RFC 9110, section 14).
const RANGES: &[(&str, u16, &str, &str)] = &[
    ("bytes=0-3", 206, "bytes 0-3/10", "0123"),
    ("bytes=0-0", 206, "bytes 0-0/10", "0"),
    ("bytes=9-9", 206, "bytes 9-9/10", "9"),
    ("bytes=7-", 206, "bytes 7-9/10", "789"),
    ("bytes=0-", 206, "bytes 0-9/10", "0123456789"),
    ("bytes=-3", 206, "bytes 7-9/10", "789"),
    ("bytes=0-9", 206, "bytes 0-9/10", "0123456789"),
    // The last byte beyond the end: to the end (section 14.1.2).
    ("bytes=7-100", 206, "bytes 7-9/10", "789"),
    ("bytes=-100", 206, "bytes 0-9/10", "0123456789"),
    // Beyond the end (section 15.5.17).
    ("bytes=10-", 416, "bytes */10", ""),
    ("bytes=100-200", 416, "bytes */10", ""),
    ("bytes=-0", 416, "bytes */10", ""),
    // Not a range (section 14.2): all of it.
    ("bytes=5-4", 200, "", "0123456789"),
    ("bytes=a-b", 200, "", "0123456789"),
    ("bytes=-", 200, "", "0123456789"),
    ("items=0-3", 200, "", "0123456789"),
    ("0-3", 200, "", "0123456789"),
    // Several ranges are answered with all of it, as a server may (section 14.2).
    ("bytes=0-1,3-4", 200, "", "0123456789"),
    ("bytes=0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0,0-0", 200, "", "0123456789"),
];

#[tokio::test]
async fn ranges() {
    let folder = folder();
    let client = client(App::new().resources(Resources::new("static")), folder.path()).await;
    for (range, status, content_range, content) in RANGES {
        let answer = client.get("/digits.txt").header("range", range).send().await;
        assert_eq!(answer.status(), *status, "{range}");
        let head = client.request(wharf_sdk::Method::HEAD, "/digits.txt").header("range", range).send().await;
        assert_eq!((head.status().as_u16(), head.header("content-length")), (200, Some("10")), "{range}");
        assert_eq!(answer.header("content-range").unwrap_or_default(), *content_range, "{range}");
        if *status != 416 {
            assert_eq!(answer.text().await, *content, "{range}");
        }
    }
}

#[tokio::test]
async fn conditional_requests() {
    let folder = folder();
    let client =
        client(App::new().resources(Resources::new("static").cache_control("max-age=60")), folder.path()).await;
    let first = client.get("/digits.txt").send().await;
    let (tag, date) = (first.header("etag").unwrap().to_owned(), first.header("last-modified").unwrap().to_owned());
    assert_eq!(first.header("cache-control"), Some("max-age=60"));
    let (old, future) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT");
    let other = "\"other\"";
    let many = format!("\"x\", {tag}");
    for (fields, status) in [
        (&[("if-none-match", &*tag)][..], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", &many)], 304),
        (&[("if-none-match", other)], 200),
        (&[("if-modified-since", &date)], 304),
        (&[("if-modified-since", future)], 304),
        (&[("if-modified-since", old)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        // The tag counts before the date (RFC 9110, section 13.2.2).
        (&[("if-none-match", other), ("if-modified-since", &date)], 200),
        (&[("if-none-match", &tag), ("if-modified-since", old)], 304),
        (&[("if-match", "*")], 200),
        (&[("if-match", other)], 412),
        (&[("if-unmodified-since", &date)], 200),
        (&[("if-unmodified-since", old)], 412),
        // A part of another file is no use: all of it (section 13.1.5).
        (&[("range", "bytes=0-1"), ("if-range", &date)], 206),
        (&[("range", "bytes=-100"), ("if-range", &date)], 206),
        (&[("range", "bytes=-100"), ("if-range", old)], 200),
        (&[("if-range", old)], 200),
        (&[("range", "bytes=0-1"), ("if-range", old)], 200),
        (&[("range", "bytes=0-1"), ("if-range", other)], 200),
        (&[("range", "bytes=0-1"), ("if-none-match", &tag)], 304),
    ] {
        let mut request = client.get("/digits.txt");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let answer = request.send().await;
        assert_eq!(answer.status(), status, "{fields:?}");
        if status == 304 {
            assert_eq!(answer.header("etag"), Some(&*tag), "{fields:?}");
            assert_eq!(answer.header("cache-control"), Some("max-age=60"), "{fields:?}");
            assert!(answer.bytes().await.is_empty());
        }
    }
}

/// `Accept-Encoding`, and the variant (RFC 9110, section 12.5.3).
#[tokio::test]
async fn precompressed_variants() {
    let folder = folder();
    let client = client(App::new().resources(Resources::new("static")), folder.path()).await;
    for (accept, encoding, content) in [
        ("", None, "p{}"),
        ("identity", None, "p{}"),
        ("gzip", Some("gzip"), "GZ"),
        ("br", Some("br"), "BR"),
        ("zstd", Some("zstd"), "ZST"),
        ("gzip;q=0.5, br;q=0.1", Some("gzip"), "GZ"),
        ("gzip;q=0.1, br;q=0.5", Some("br"), "BR"),
        ("gzip;q=0", None, "p{}"),
        ("deflate", None, "p{}"),
    ] {
        let mut request = client.get("/style.css");
        if !accept.is_empty() {
            request = request.header("accept-encoding", accept);
        }
        let answer = request.send().await;
        assert_eq!(answer.header("content-encoding"), encoding, "{accept}");
        assert_eq!(answer.header("content-type"), Some("text/css; charset=utf-8"), "{accept}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accept}");
        assert_eq!(answer.text().await, content, "{accept}");
    }
    let plain = client.get("/digits.txt").header("accept-encoding", "gzip, br").send().await;
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.text().await, "0123456789");
}

#[tokio::test]
async fn other_patterns_methods_welcome_files_and_error_pages() {
    let folder = folder();
    let app = App::new()
        .servlet("files", "/files/*", Resources::new("static"))
        .servlet("css", "*.css", Resources::new("static"))
        .servlet("all", "/all/*", Resources::new(""))
        .servlet("item", "/item", get(|_| async { "item" }))
        .welcome_files(["start.html", "index.html"])
        .error_page(wharf_sdk::StatusCode::NOT_FOUND, any(|_| async { "lost" }))
        .resources(Resources::new(folder.path().join("static")));
    let client = client(app, folder.path()).await;
    for (method, path, status, want) in [
        ("GET", "/files/digits.txt", 200, "0123456789"),
        ("GET", "/files/", 200, "<p>home"),
        ("GET", "/files", 302, "/shop/files/"),
        ("GET", "/files?a=b", 302, "/shop/files/?a=b"),
        ("GET", "/files/docs", 307, "/shop/files/docs/"),
        ("GET", "/files/docs/", 200, "<p>start"),
        ("GET", "/files/.git/config", 404, "lost"),
        ("GET", "/style.css", 200, "p{}"),
        ("GET", "/all/static/app.js", 200, "js"),
        ("GET", "/all/app.toml", 404, "lost"),
        ("GET", "/all/shop.so", 404, "lost"),
        ("GET", "/all/.env", 404, "lost"),
        ("GET", "/all/", 404, "lost"),
        ("GET", "/item", 200, "item"),
        ("GET", "/docs/", 200, "<p>start"),
        ("GET", "/nothing", 404, "lost"),
        ("POST", "/digits.txt", 405, ""),
        ("PUT", "/digits.txt", 405, ""),
        ("DELETE", "/digits.txt", 405, ""),
        ("OPTIONS", "/digits.txt", 204, ""),
    ] {
        let answer = client.request(method.parse().unwrap(), path).send().await;
        assert_eq!(answer.status(), status, "{method} {path}");
        match status {
            302 | 307 => assert_eq!(answer.header("location"), Some(want), "{path}"),
            405 | 204 => assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"), "{method}"),
            _ => assert_eq!(answer.text().await, want, "{method} {path}"),
        }
    }
}

#[tokio::test]
async fn without_the_folder_the_application_does_not_start() {
    let start =
        |client: wharf_sdk::TestClientBuilder| async { client.start().await.map(drop).unwrap_err().to_string() };
    let app = || App::new().resources(Resources::new("static"));
    let error = start(TestClient::new(app())).await;
    assert!(error.contains("deploy it as a folder"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = start(TestClient::new(app()).folder(empty.path())).await;
    assert!(error.contains("static"), "{error}");
}

/// Files that the module carries follow the same rules: Servlet 6.1, sections 4.6 and 10.10; RFC 9110, sections 13 and 14.
#[tokio::test]
async fn embedded_files_are_served_like_those_of_a_folder() {
    fn find(path: &str) -> Option<std::borrow::Cow<'static, [u8]>> {
        let content: &[u8] = match path {
            "index.html" => b"<p>home",
            "docs/index.html" => b"<p>docs",
            "css/style.css" => b"p{}",
            "css/style.css.gz" => b"GZ",
            "digits.txt" => b"0123456789",
            "a b.txt" => b"blank",
            ".env" | "WEB-INF/web.xml" => b"secret",
            _ => return None,
        };
        Some(content.into())
    }
    let app = App::new().resources(Resources::embedded(find).cache_control("max-age=60"));
    let client = TestClient::new(app).context_path("/shop").start().await.unwrap();
    let rows = [
        ("/", "", "", 200, "<p>home"),
        ("/docs/", "", "", 200, "<p>docs"),
        ("/docs", "", "", 307, ""),
        ("/css/style.css", "", "", 200, "p{}"),
        ("/css/style.css", "accept-encoding", "gzip", 200, "GZ"),
        ("/a%20b.txt", "", "", 200, "blank"),
        ("/digits.txt", "range", "bytes=2-4", 206, "234"),
        ("/digits.txt", "range", "bytes=-99", 206, "0123456789"),
        ("/digits.txt", "range", "bytes=20-", 416, ""),
        ("/digits.txt", "if-none-match", "*", 304, ""),
        ("/digits.txt", "if-match", "\"other\"", 412, ""),
        ("/css/", "", "", 404, ""),
        ("/css", "", "", 404, ""),
        ("/none.txt", "", "", 404, ""),
        ("/digits.txt/", "", "", 404, ""),
        ("/.env", "", "", 404, ""),
        ("/WEB-INF/web.xml", "", "", 404, ""),
    ];
    for (path, name, value, status, content) in rows {
        let request = client.get(path);
        let request = if name.is_empty() { request } else { request.header(name, value) };
        let answer = request.send().await;
        assert_eq!(answer.status().as_u16(), status, "{path} {name}: {value}");
        if answer.status().is_success() {
            assert_eq!(answer.header("cache-control"), Some("max-age=60"), "{path}");
            assert_eq!(answer.text().await, content, "{path} {name}: {value}");
        }
    }
}
