//! A static site as the pipeline sees it: what is served, what is not, and how it is let go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use wharf_gateway::StaticSite;
use wharf_kernel::launch::{Kind, Launched, Launcher, Plan};
use wharf_kernel::{AppId, Body, Connection, ContextPath, Exchange, PathElements, Version};

fn plan(root: &Path) -> Plan {
    Plan {
        id: AppId { host: "default".into(), path: ContextPath::parse("/docs").unwrap(), version: Version::default() },
        kind: Kind::Static,
        source: root.to_owned(),
        folder: None,
        init: Default::default(),
        generation: 1,
        trial_timeout: Duration::from_secs(1),
        start_timeout: Duration::from_secs(1),
        stop_timeout: Duration::from_secs(1),
        runtime_threads: 1,
        blocking_threads: 1,
        options: Arc::default(),
    }
}

fn site() -> (tempfile::TempDir, Arc<dyn Launched>) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    std::fs::write(root.join("index.html"), "<h1>home</h1>").unwrap();
    std::fs::write(root.join("sub/index.html"), "sub").unwrap();
    std::fs::write(root.join("a b.txt"), "0123456789").unwrap();
    std::fs::write(root.join("app.js"), "plain").unwrap();
    std::fs::write(root.join("app.js.gz"), "zipped").unwrap();
    std::fs::write(root.join("app.js.br"), "brotli").unwrap();
    std::fs::write(root.join("app.toml"), "kind = 'static'").unwrap();
    std::fs::write(root.join(".env"), "secret").unwrap();
    std::fs::write(root.join("x.SO"), "secret").unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("sub", root.join("inner")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("zero")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("sub/x.gz"), rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    std::fs::write(root.join("sub/x"), "x").unwrap();
    let launched = StaticSite.launch(&plan(&root)).unwrap();
    (folder, launched)
}

async fn send(site: &Arc<dyn Launched>, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let target = format!("/docs{path}");
    let mut request = Request::builder().method(method).uri(&target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let encoded: Arc<str> = target.split('?').next().unwrap().into();
    let exchange = Box::new(Exchange {
        session: wharf_kernel::session::SessionSlot::default(),
        request: request.body(Body::empty()).unwrap(),
        path: PathElements::new(
            encoded.clone(),
            &encoded.replace("%20", " "),
            &ContextPath::parse("/docs").unwrap(),
            None,
        ),
        authority: "a".into(),
        connection: Arc::new(Connection::new(None, None, false)),
        id: "1".into(),
    });
    site.endpoint().call(exchange, site.gate().try_lease().unwrap()).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn files_are_served() {
    let (_folder, site) = site();
    let rows =
        [("/", "<h1>home</h1>"), ("/sub/", "sub"), ("/a%20b.txt", "0123456789"), ("/inner/", "sub"), ("/sub/x", "x")];
    for (path, expected) in rows {
        let response = send(&site, "GET", path, &[]).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(text(response).await, expected, "{path}");
    }
    let response = send(&site, "GET", "/sub?q=1", &[]).await;
    assert_eq!(
        (response.status(), &response.headers()["location"]),
        (StatusCode::TEMPORARY_REDIRECT, &"/docs/sub/?q=1".parse().unwrap())
    );
    let response = send(&site, "HEAD", "/a%20b.txt", &[]).await;
    assert_eq!(response.headers()["content-length"], "10");
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn ranges_conditions_and_encodings_are_honoured() {
    let (_folder, site) = site();
    let file = send(&site, "HEAD", "/a%20b.txt", &[]).await;
    let header = |name: &str| file.headers()[name].to_str().unwrap().to_owned();
    let (tag, date) = (header("etag"), header("last-modified"));
    // RFC 9110, sections 13.1.5, 14.1.2 and 14.2.
    let rows = [
        ("bytes=2-4", "", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", "", 206, "bytes 7-9/10", "789"),
        ("bytes=7-99", "", 206, "bytes 7-9/10", "789"),
        ("bytes=-3", "", 206, "bytes 7-9/10", "789"),
        ("bytes=-99", "", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=-0", "", 416, "bytes */10", ""),
        ("bytes=20-", "", 416, "bytes */10", ""),
        ("bytes=4-2", "", 200, "", "0123456789"),
        ("bytes=0-1,3-4", "", 200, "", "0123456789"),
        ("lines=2-4", "", 200, "", "0123456789"),
        ("bytes=2-4", &tag, 206, "bytes 2-4/10", "234"),
        ("bytes=2-4", &date, 206, "bytes 2-4/10", "234"),
        ("bytes=2-4", "\"other\"", 200, "", "0123456789"),
        ("bytes=2-4", "W/\"weak\"", 200, "", "0123456789"),
        ("bytes=2-4", "Thu, 01 Jan 1970 00:00:00 GMT", 200, "", "0123456789"),
        ("bytes=20-", "\"other\"", 200, "", "0123456789"),
    ];
    for (range, condition, status, shown, content) in rows {
        let headers = [("range", range), ("if-range", condition)];
        let headers = if condition.is_empty() { &headers[..1] } else { &headers[..] };
        let response = send(&site, "GET", "/a%20b.txt", headers).await;
        let got = response.headers().get("content-range").map_or("", |v| v.to_str().unwrap()).to_owned();
        assert_eq!((response.status().as_u16(), &*got), (status, shown), "{range} {condition}");
        assert_eq!(text(response).await, content, "{range} {condition}");
    }
    let etag = send(&site, "GET", "/", &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(send(&site, "GET", "/", &[("if-none-match", &etag)]).await.status(), 304);
    assert_eq!(send(&site, "GET", "/", &[("if-match", "\"other\"")]).await.status(), 412);
    for (accepted, expected) in [("gzip", "zipped"), ("br, gzip", "brotli"), ("identity", "plain")] {
        assert_eq!(text(send(&site, "GET", "/app.js", &[("accept-encoding", accepted)]).await).await, expected);
    }
}

#[tokio::test]
async fn everything_else_is_not_there() {
    let (_folder, site) = site();
    let long = format!("/{}", "n".repeat(300));
    let paths = [
        "/none",
        "/empty/",
        "/app.toml",
        "/APP.TOML",
        "/.env",
        "/x.SO",
        "/link",
        "/zero",
        "/fifo",
        "/index.html/",
        "/index.html/x",
        &long,
    ];
    for path in paths {
        let response = tokio::time::timeout(Duration::from_secs(10), send(&site, "GET", path, &[])).await.expect(path);
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(text(response).await, "", "{path}");
    }
    // A FIFO in the place of a precompressed file is no reason to wait either.
    let response =
        tokio::time::timeout(Duration::from_secs(10), send(&site, "GET", "/sub/x", &[("accept-encoding", "gzip")]))
            .await;
    assert_eq!(text(response.unwrap()).await, "x");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let response = send(&site, method, "/", &[]).await;
        assert_eq!(
            (response.status(), response.headers()["allow"].as_bytes()),
            (StatusCode::METHOD_NOT_ALLOWED, &b"GET, HEAD"[..])
        );
    }
}

#[tokio::test]
async fn a_site_goes_when_its_last_body_is_sent() {
    let (_folder, site) = site();
    let response = send(&site, "GET", "/", &[]).await;
    let report = site.retire(Duration::from_millis(10));
    assert_eq!(report.held_by, ["1 response body"]);
    assert!(site.gate().try_lease().is_none());
    drop(response);
    assert!(site.retry_retire().held_by.is_empty());
}

#[test]
fn a_root_that_is_no_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    for name in ["none", "file"] {
        let refusal = StaticSite.launch(&plan(&folder.path().join(name))).err().unwrap();
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
}
