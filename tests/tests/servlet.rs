//! What the container does around an application: methods, hosts, folders, errors, logs and metrics.

use std::fs;

use serde_json::Value;
use wharf_tests::{Load, Site, chameleon, library, wait};

#[test]
fn methods_as_in_http_servlet() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&[]);
    let mut client = wharf.connect();
    let get = client.get("/shop/").unwrap();
    let head = client.send("HEAD", "/shop/", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")));
    let options = client.send("OPTIONS", "/shop/", &[], b"").unwrap();
    assert!(matches!(options.status, 200 | 204), "{options:?}");
    let allow = options.header("allow").unwrap().to_owned();
    for method in ["GET", "HEAD", "OPTIONS"] {
        assert!(allow.split(", ").any(|m| m == method), "{allow}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        let answer = client.send(method, "/shop/", &[], b"").unwrap();
        assert_eq!((answer.status, answer.header("allow").is_some()), (405, true), "{method}: {answer:?}");
    }
    for method in ["TRACE", "CONNECT"] {
        let answer = wharf.send(method, "/shop/", &[], b"");
        assert!(matches!(answer.status, 400 | 405 | 501), "{method}: {answer:?}");
    }
    let star = client.send("OPTIONS", "*", &[], b"").unwrap();
    assert!(star.status == 200 && star.header("allow").is_some(), "{star:?}");
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/other.so", chameleon("other"));
    let wharf = site.start(&[]);
    // Plain dot segments are resolved before anything is mapped, as clients do themselves (RFC 3986, section 5.2.4).
    assert_eq!(wharf.get("/shop/../other/").text(), "other");
    // Decoded once, and no more: a name with per cent signs, of the application that it is below.
    assert_eq!(wharf.get("/shop/%252e%252e/other/").text(), "one");
    for path in [
        "/../other/",
        "/shop/../../other/",
        "/shop/%2e%2e/other/",
        "/shop/..%2fother/",
        "/shop/..;/other/",
        "/shop/%00",
        "/shop/%5c..%5cother/",
        "/shop\\..\\other/",
        "/shop/%c0%ae%c0%ae/other/",
    ] {
        let answer = wharf.get(path);
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert!(!answer.text().starts_with("other"), "{path}");
    }
    assert_eq!(wharf.get("/shop/").text(), "one");
}

#[test]
fn requests_that_are_none_are_refused_and_the_next_one_answered() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&[]);
    for request in [
        &b"GET /shop/ HTTP/1.1\r\n\r\n"[..],
        b"GET /shop/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /shop/ HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /shop/ HTTP/1.1\r\nHost: a\r\nName : v\r\n\r\n",
        b"POST /shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /shop/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"GE\x00T /shop/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let shown = String::from_utf8_lossy(request).into_owned();
        let mut client = wharf.connect();
        client.write_raw(request).unwrap();
        match client.read("GET") {
            Ok(answer) => assert!((400..=505).contains(&answer.status), "{shown:?}: {answer:?}"),
            // Closed without a word, which is as good.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{shown:?}: {error}"),
        }
        assert_eq!(wharf.get("/shop/").text(), "one", "after {shown:?}");
    }
}

#[test]
fn hosts_by_name_alias_wildcard_and_default() {
    let config = r#"
        [[host]]
        name = "shop.example"
        aliases = ["www.shop.example"]
        deploy_dir = "shop"
        [[host]]
        name = "*.tenants.example"
        deploy_dir = "tenants"
        [[host]]
        name = "main.example"
        default = true
    "#;
    let site = Site::new().with("wharf.toml", config);
    site.put("shop/ROOT.so", chameleon("shop"));
    site.put("tenants/ROOT.so", chameleon("tenant"));
    site.put("deploy/ROOT.so", chameleon("main"));
    site.put("deploy/moved.so", chameleon("moved"));
    site.put("deploy/moved.toml", "host = \"shop.example\"\n");
    let wharf = site.start(&[]);
    let mut client = wharf.connect();
    for (host, path, text) in [
        ("shop.example", "/", "shop"),
        ("SHOP.example:8080", "/", "shop"),
        ("shop.example.", "/", "shop"),
        ("www.shop.example", "/", "shop"),
        ("a.tenants.example", "/", "tenant"),
        ("main.example", "/", "main"),
        ("unknown.example", "/", "main"),
        ("127.0.0.1", "/", "main"),
        ("[::1]:80", "/", "main"),
        ("shop.example", "/moved/", "moved"),
    ] {
        let answer = client.send("GET", path, &[("Host", host)], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, text), "{host}{path}");
    }
    // It left the host whose folder it is in: the root application has the path there.
    let answer = client.send("GET", "/moved/", &[("Host", "main.example")], b"").unwrap();
    assert_eq!(answer.text(), "main");
    // An absolute target is the host, whatever the field says.
    let answer = client.send("GET", "http://shop.example/", &[("Host", "main.example")], b"").unwrap();
    assert_eq!(answer.text(), "shop");
    let list = wharf.cli(&["list"]).out;
    assert!(list.contains("shop.example/moved"), "{list}");
}

#[test]
fn a_static_site_and_an_exploded_folder() {
    let site = Site::new();
    site.put("deploy/site/app.toml", "kind = \"static\"\nroot = \"public\"\n");
    site.put("deploy/site/secret.txt", "no");
    site.put("deploy/site/public/index.html", "<h1>Hi</h1>");
    site.put("deploy/site/public/a/b.txt", "text");
    site.put("deploy/site/public/.env", "no");
    site.put("deploy/folder/app.toml", "kind = \"module\"\ncontext_path = \"/app\"\n[init]\ngreeting = \"Ahoy\"\n");
    site.put("deploy/folder/module.so", library("hello"));
    let wharf = site.start(&[]);
    let index = wharf.get("/site/");
    assert_eq!((index.status, index.text().as_str()), (200, "<h1>Hi</h1>"));
    assert!(index.header("content-type").unwrap().starts_with("text/html"));
    let text = wharf.get("/site/a/b.txt");
    assert_eq!(text.text(), "text");
    let part = wharf.send("GET", "/site/a/b.txt", &[("Range", "bytes=1-2")], b"");
    assert_eq!((part.status, part.text().as_str()), (206, "ex"));
    for path in ["/site/.env", "/site/app.toml", "/site/secret.txt", "/site/../secret.txt", "/site/nothing"] {
        assert!(matches!(wharf.get(path).status, 400 | 404), "{path}");
    }
    assert_eq!(wharf.send("PUT", "/site/a/b.txt", &[], b"x").status, 405);
    // Files change without a redeploy.
    wharf.put("deploy/site/public/a/b.txt", "other");
    assert_eq!(wharf.get("/site/a/b.txt").text(), "other");

    assert_eq!(wharf.get("/app/").text(), "Ahoy, world!\n");
    assert_eq!(wharf.get("/folder/").status, 404);
    // A new module in the folder is a redeploy; so is a new app.toml.
    wharf.put("deploy/folder/module.so", chameleon("new"));
    wharf.wait_for("/app/", "new");
    wharf.put("deploy/folder/app.toml", "kind = \"module\"\n");
    wharf.wait_for("/folder/", "new");
    wait("the old path to be gone", || (wharf.get("/app/").status == 404).then_some(()));
    fs::remove_dir_all(wharf.path("deploy/folder")).unwrap();
    wait("404", || (wharf.get("/folder/").status == 404).then_some(()));
    wait("nothing mapped", || wharf.mapped().is_empty().then_some(()));
}

#[test]
fn a_panic_is_a_500_with_a_request_id_that_leads_to_the_log() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/other.so", chameleon("other"));
    let wharf = site.start(&["--set", "log.format=json"]);
    let load = Load::start(wharf.addr(), &["/other/"], 1, std::time::Duration::from_millis(1));
    let mut client = wharf.connect();
    let answer = client.get("/shop/panic").unwrap();
    assert_eq!(answer.status, 500);
    // The panic and its place are for the log, not for the client.
    assert!(!answer.text().contains("as asked"), "{}", answer.text());
    let (_, rest) = answer.text().split_once("Request ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let id = rest.split('<').next().unwrap().to_owned();
    let record = wait("the record", || record(&wharf.log(), "as asked"));
    assert_eq!((&record["app"], &record["level"]), (&"/shop".into(), &"ERROR".into()), "{record}");
    assert!(record.to_string().contains(&id), "no {id} in {record}");
    assert!(record.to_string().contains("chameleon/src/lib.rs"), "{record}");
    // The connection and the application go on.
    assert_eq!(client.get("/shop/").unwrap().text(), "one");
    let metrics = wharf.admin("GET", "/v1/metrics").text();
    let line =
        metrics.lines().find(|l| l.contains("wharf_requests_total") && l.contains("/shop\"") && l.contains("5xx"));
    assert!(line.is_some_and(|l| l.ends_with(" 1")), "{metrics}");
    load.stop().assert_clean();
}

#[test]
fn panics_elsewhere_than_in_the_handler_harm_nobody_else() {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/other.so", chameleon("other"));
    let wharf = site.start(&[]);
    let load = Load::start(wharf.addr(), &["/other/", "/shop/"], 2, std::time::Duration::from_millis(1));
    for _ in 0..20 {
        // The head is out already: the body breaks off, and does not look whole.
        let mut client = wharf.connect();
        client.write("GET", "/shop/panic-stream", &[], b"").unwrap();
        assert!(client.read("GET").is_err());
        assert_eq!(wharf.get("/shop/panic-task").text(), "the task is lost");
        assert_eq!(wharf.get("/shop/panic-drop").status, 500);
    }
    for word in ["in the stream", "in the task", "in the drop"] {
        wait(word, || wharf.log().contains(word).then_some(()));
    }
    load.stop().assert_clean();
    wharf.remove("deploy/shop.so");
    wait("it to be unmapped", || (wharf.mapped().len() == 1).then_some(()));
}

/// The first JSON record of the log whose text has `word` in it.
fn record(log: &str, word: &str) -> Option<Value> {
    log.lines().filter(|l| l.contains(word)).find_map(|l| serde_json::from_str(l).ok())
}

#[test]
fn what_an_application_says_arrives_with_application_version_and_request_id() {
    let site = Site::new().with("deploy/shop##2.so", chameleon("one"));
    let wharf = site.start(&["--set", "log.format=json", "--set", "access_log.format=json"]);
    assert_eq!(wharf.get("/shop/log").text(), "logged");
    let said = wait("the record", || record(&wharf.log(), "said in a request"));
    assert_eq!((&said["app"], &said["version"]), (&"/shop##2".into(), &"1.2.3".into()), "{said}");
    assert_eq!(said["message"], "said in a request answer=42", "{said}");
    // The same id in the access log.
    let line = wait("the access log", || record(&wharf.output(), "/shop/log"));
    assert!(said["request"].is_string());
    assert_eq!(
        (&line["id"], &line["app"], &line["version"]),
        (&said["request"], &"/shop".into(), &"2".into()),
        "{line}"
    );
    assert_eq!((&line["status"], &line["bytes"], &line["remote"]), (&200.into(), &6.into(), &"127.0.0.1".into()));
}

#[test]
fn the_access_log_is_in_the_combined_format_and_can_be_rotated() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let wharf = site.start(&["--set", "access_log.file=access.log"]);
    let log = |name: &str| fs::read_to_string(wharf.path(name)).unwrap_or_default();
    wharf.send("GET", "/shop/?a=%22b%22", &[("User-Agent", "a \"b\""), ("Referer", "http://x/")], b"");
    let line = wait("the line", || log("access.log").lines().next().map(str::to_owned));
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    let end = r#" +0000] "GET /shop/?a=%22b%22 HTTP/1.1" 200 3 "http://x/" "a \x22b\x22""#;
    assert!(line.ends_with(end), "{line}");
    fs::rename(wharf.path("access.log"), wharf.path("access.log.1")).unwrap();
    wharf.signal(rustix::process::Signal::HUP);
    wait("the new file", || wharf.path("access.log").exists().then_some(()));
    wharf.get("/shop/after");
    wait("the line", || log("access.log").contains("/shop/after").then_some(()));
    assert!(!log("access.log.1").contains("/shop/after"));
}

#[test]
fn metrics_count_what_happened() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&[]);
    for _ in 0..5 {
        wharf.get("/shop/");
    }
    wharf.get("/nothing");
    let metrics = wharf.admin("GET", "/v1/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    let value = |name: &str, words: &[&str]| {
        let line = text.lines().find(|l| l.starts_with(name) && words.iter().all(|w| l.contains(w)));
        line.unwrap_or_else(|| panic!("no {name} {words:?} in:\n{text}")).rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("wharf_requests_total", &["app=\"/shop\"", "2xx"]), "5");
    assert_eq!(value("wharf_requests_total", &["app=\"\"", "4xx"]), "1");
    assert_eq!(value("wharf_generations", &["serving"]), "1");
    assert_eq!(value("wharf_redeploys_total", &[]), "1");
    assert_ne!(value("wharf_app_heap_bytes", &["app=\"/shop\""]), "0");
}
