//! FastCGI 1.0 through the whole program, against a responder of the tests' own: what it is told, and what it may answer.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wharf_gateway::codec::{self, kind};
use wharf_tests::{Asked, Client, Responder, Site, Talk, Wharf, wait};

/// A container with the application `/app`, whose responder is this one.
fn app(
    options: &str,
    files: &[(&str, &str)],
    answer: impl Fn(&Asked, &mut Talk) -> io::Result<()> + Send + Sync + 'static,
) -> (Wharf, Responder) {
    let site = Site::new();
    let socket = site.path("responder");
    let address = format!("address = \"unix:{}\"", socket.display());
    for (name, text) in files {
        site.put(&format!("deploy/app/{name}"), text);
    }
    site.put("deploy/app/app.toml", format!("kind = \"fastcgi\"\n[fastcgi]\n{address}\n{options}"));
    let responder = Responder::start(&socket, answer);
    (site.start(&[]), responder)
}

/// Answers with what it was told.
fn echo(asked: &Asked, talk: &mut Talk) -> io::Result<()> {
    let mut text = String::from("Content-Type: text/plain\n\n");
    asked.params.iter().for_each(|(name, value)| text.push_str(&format!("{name}={value}\n")));
    talk.answer(&text)
}

#[test]
fn an_application_is_told_of_its_request() {
    let (wharf, _responder) = app("params = { GREETING = \"ahoy\" }\n", &[("sub/x.php", "<?php")], echo);
    let headers = [
        ("Host", "example.org"),
        ("Proxy", "http://evil/"),
        ("Content_Length", "7"),
        ("X_Forwarded_For", "forged"),
        ("Authorization", "Basic eDp5"),
        ("Content-Type", "text/x"),
    ];
    let answer = wharf.send("POST", "/app/sub/x.php/a%20b/c?x=1&y=%20", &headers, b"12345");
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    let root = fs::canonicalize(wharf.path("deploy/app")).unwrap();
    let root = root.to_str().unwrap();
    for line in [
        "CONTENT_LENGTH=5".to_owned(),
        "CONTENT_TYPE=text/x".into(),
        format!("DOCUMENT_ROOT={root}"),
        "GATEWAY_INTERFACE=CGI/1.1".into(),
        "GREETING=ahoy".into(),
        "HTTP_HOST=example.org".into(),
        "PATH_INFO=/a b/c".into(),
        format!("PATH_TRANSLATED={root}/a b/c"),
        "QUERY_STRING=x=1&y=%20".into(),
        "REDIRECT_STATUS=200".into(),
        "REMOTE_ADDR=127.0.0.1".into(),
        "REQUEST_METHOD=POST".into(),
        "REQUEST_URI=/app/sub/x.php/a%20b/c?x=1&y=%20".into(),
        format!("SCRIPT_FILENAME={root}/sub/x.php"),
        "SCRIPT_NAME=/app/sub/x.php".into(),
        "SERVER_NAME=example.org".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    for name in ["HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_X_FORWARDED_FOR", "HTTP_AUTHORIZATION", "PATH="] {
        assert!(!text.lines().any(|l| l.starts_with(name)), "{name}");
    }
}

#[test]
fn a_path_leads_to_the_script_that_exists_or_to_nothing() {
    let options = "fallback = \"/index.php\"\nno_execute = [\"uploads\"]\n";
    let files = [
        ("index.php", "<?php SECRET"),
        ("a/index.php", "<?php SECRET"),
        ("page/index.html", "HTML"),
        ("x.php", "<?php SECRET"),
        ("uploads/evil.php", "<?php SECRET"),
        ("uploads/picture.jpg", "JPEG"),
        ("old.php5", "<?php SECRET"),
        ("lib.inc", "<?php SECRET"),
        (".env", "SECRET"),
    ];
    let (wharf, _responder) = app(options, &files, echo);
    wharf.put("outside.php", "<?php SECRET");
    std::os::unix::fs::symlink("../../outside.php", wharf.path("deploy/app/link.php")).unwrap();
    for (path, status, what) in [
        ("/app/", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/a/", 200, "SCRIPT_NAME=/app/a/index.php\n"),
        ("/app/a", 302, ""),
        ("/app/page/", 200, "HTML"),
        ("/app/x.php/y.php", 200, "PATH_INFO=/y.php\n"),
        ("/app/uploads/picture.jpg", 200, "JPEG"),
        // The front controller answers what does not exist, and knows what was asked for.
        ("/app/some/page?x=1", 200, "REQUEST_URI=/app/some/page?x=1\n"),
        ("/app/some/page", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/none.php", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/uploads/", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/uploads/picture.jpg/x.php", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/link.php", 200, "SCRIPT_NAME=/app/index.php\n"),
        // Neither run nor shown.
        ("/app/uploads/evil.php", 404, ""),
        ("/app/UPLOADS/evil.php", 200, "SCRIPT_NAME=/app/index.php\n"),
        ("/app/old.php5", 404, ""),
        ("/app/lib.inc", 404, ""),
        ("/app/.env", 404, ""),
        ("/app/app.toml", 404, ""),
        ("/app/x.php%00.jpg", 400, ""),
        ("/app/..%2foutside.php", 400, ""),
    ] {
        let answer = wharf.get(path);
        assert!(answer.status == status && answer.text().contains(what), "{path}: {answer:?}");
        assert!(
            !answer.text().contains("SECRET") && !answer.text().contains("/uploads/evil.php\n"),
            "{path}: {answer:?}"
        );
    }
    assert_eq!(wharf.send("POST", "/app/uploads/picture.jpg", &[], b"").status, 405);
}

#[test]
fn status_pages_are_for_those_who_are_named() {
    for (from, status) in [("127.0.0.1", 200), ("192.0.2.1", 404)] {
        let options = format!("status_paths = [\"/status\"]\nstatus_from = [\"{from}\"]\n");
        let (wharf, _responder) = app(&options, &[], echo);
        let answer = wharf.get("/app/status?full");
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(status == 404 || answer.text().contains("SCRIPT_NAME=/status\n"), "{answer:?}");
        assert_eq!(wharf.get("/app/ping").status, 404);
    }
}

const HEAD: &str = "Content-Type: text/plain\n\n";

/// Bytes of a record that says of itself what it likes.
fn record(version: u8, kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
    let [id_high, id_low] = id.to_be_bytes();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut bytes = vec![version, kind, id_high, id_low, high, low, padding, 0];
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + usize::from(padding), 0xff);
    bytes
}

/// What the responder says to each path.
fn edge(asked: &Asked, talk: &mut Talk) -> io::Result<()> {
    let stdout = |content: &str| record(1, kind::STDOUT, 1, content.as_bytes(), 0);
    let end = record(1, kind::END_REQUEST, 1, &[0; 8], 0);
    match asked.param("PATH_INFO") {
        "/padding" => {
            talk.raw(&record(1, kind::STDOUT, 1, HEAD.as_bytes(), 255))?;
            talk.raw(&record(1, kind::STDOUT, 1, b"hello", 3))?;
            talk.raw(&record(1, kind::STDOUT, 1, b"", 8))?;
            talk.raw(&record(1, kind::END_REQUEST, 1, &[0; 8], 200))
        }
        "/split" => {
            let bytes = [stdout(HEAD), stdout("hel"), stdout("lo"), end].concat();
            bytes.iter().try_for_each(|b| talk.raw(&[*b]))
        }
        "/stderr" => {
            talk.send(kind::STDERR, b"a warning of ")?;
            talk.send(kind::STDOUT, HEAD.as_bytes())?;
            talk.send(kind::STDERR, b"the script\nwharf: forged\x1b[31m\n")?;
            talk.answer("hello")
        }
        "/app-status" => {
            talk.send(kind::STDOUT, format!("{HEAD}hello").as_bytes())?;
            talk.end(255, 0)
        }
        "/management" => {
            talk.raw(&record(1, kind::UNKNOWN_TYPE, 0, &[0; 8], 0))?;
            talk.answer(&format!("{HEAD}hello"))
        }
        "/version" => talk.raw(&record(2, kind::STDOUT, 1, HEAD.as_bytes(), 0)),
        "/http" => talk.raw(b"HTTP/1.1 200 OK\r\n\r\n"),
        "/other-id" => talk.raw(&record(1, kind::STDOUT, 2, HEAD.as_bytes(), 0)),
        "/other-kind" => talk.raw(&record(1, kind::PARAMS, 1, b"x", 0)),
        "/short-end" => talk.raw(&[stdout(HEAD), record(1, kind::END_REQUEST, 1, &[0; 4], 0)].concat()),
        "/silent" => talk.end(0, 0),
        "/closed" => Err(io::ErrorKind::Other.into()),
        "/half" => talk.raw(&stdout("Content-Ty")).and(Err(io::ErrorKind::Other.into())),
        "/mid-body" => talk.raw(&stdout(&format!("{HEAD}hel"))).and(Err(io::ErrorKind::Other.into())),
        "/overloaded" => talk.end(0, codec::protocol_status::OVERLOADED),
        "/multiplex" => talk.end(0, codec::protocol_status::CANT_MPX_CONN),
        "/role" => talk.end(0, codec::protocol_status::UNKNOWN_ROLE),
        "/unknown" => talk.end(0, 77),
        "/endless-head" => loop {
            talk.send(kind::STDOUT, "X-A: b\n".repeat(1000).as_bytes())?;
        },
        "/status99" => talk.answer("Status: 99\nContent-Type: a/b\n\n"),
        "/lengths" => talk.answer("Content-Type: a/b\nContent-Length: 5\nContent-Length: 6\n\nhello"),
        "/nul" => talk.answer("Content-Type: a/b\nX-A: \0\n\nhello"),
        "/no-blank" => talk.answer("Content-Type: text/plain\n"),
        "/local" => talk.answer("Location: /app/arrived\n\n"),
        "/loop" => talk.answer("Location: /app/loop\n\n"),
        "/file" => talk.answer(&format!("X-Accel-Redirect: /files/a.txt\n{HEAD}")),
        "/out" => talk.answer(&format!("X-Sendfile: /etc/passwd\n{HEAD}")),
        "/hang" => loop {
            if talk.record()?.is_none() {
                return Ok(());
            }
        },
        _ => talk.answer(&format!("{HEAD}hello")),
    }
}

#[test]
fn what_is_no_answer_is_a_bad_gateway() {
    let options = "all_paths = true\nfirst_byte_timeout = \"500ms\"\naccel_redirects = { \"/files/\" = \"files\" }\n";
    let (wharf, _responder) = app(options, &[("files/a.txt", "the file")], edge);
    for (path, status, text) in [
        ("x", 200, "hello"),
        ("padding", 200, "hello"),
        ("split", 200, "hello"),
        ("stderr", 200, "hello"),
        ("app-status", 200, "hello"),
        ("management", 200, "hello"),
        ("local", 200, "hello"),
        ("file", 200, "the file"),
        ("version", 502, ""),
        ("http", 502, ""),
        ("other-id", 502, ""),
        ("other-kind", 502, ""),
        ("silent", 502, ""),
        ("closed", 502, ""),
        ("half", 502, ""),
        ("overloaded", 503, ""),
        ("multiplex", 502, ""),
        ("role", 502, ""),
        ("unknown", 502, ""),
        ("endless-head", 502, ""),
        ("status99", 502, ""),
        ("lengths", 502, ""),
        ("nul", 502, ""),
        ("no-blank", 502, ""),
        ("loop", 502, ""),
        ("out", 502, ""),
        ("hang", 504, ""),
    ] {
        let answer = wharf.get(&format!("/app/{path}"));
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status != 200 || answer.text() == text, "{path}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{path}");
    }
    // Once the head has gone out, the connection says that the content is not whole.
    for path in ["/app/mid-body", "/app/short-end"] {
        let answer = wharf.connect().get(path);
        assert!(answer.as_ref().is_err() || answer.as_ref().is_ok_and(|a| a.status == 502), "{path}: {answer:?}");
    }
    let head = wharf.send("HEAD", "/app/x", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let log = wharf.log();
    assert!(log.contains("a warning of the script"), "{log}");
    assert!(!log.contains('\x1b') && !log.lines().any(|l| l.starts_with("wharf: forged")), "{log}");
}

#[test]
fn bodies_are_streamed_both_ways_at_once() {
    let (wharf, _responder) = app("all_paths = true\n", &[], |asked, talk| {
        talk.send(kind::STDOUT, format!("{HEAD}{} ", asked.param("CONTENT_LENGTH")).as_bytes())?;
        talk.send(kind::STDOUT, &asked.stdin)?;
        talk.end(0, 0)
    });
    let body: Vec<u8> = (0..10_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let answer = wharf.send("POST", "/app/x", &[], &body);
    assert_eq!(answer.status, 200);
    assert!(answer.body.strip_prefix(b"10000000 ").is_some_and(|b| b == body));
    // Of unknown length: told in full all the same.
    for length in [0, 5, 300_000] {
        let mut client = wharf.connect();
        client.write("POST", "/app/x", &[("Transfer-Encoding", "chunked"), ("Content-Length", "")], b"").ok();
        let mut client = wharf.connect();
        let mut bytes = b"POST /app/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        if length > 0 {
            bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            bytes.extend_from_slice(&body[..length]);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        client.write_raw(&bytes).unwrap();
        let answer = client.read("POST").unwrap();
        let (told, content) = answer.body.split_at(answer.body.iter().position(|b| *b == b' ').unwrap());
        assert_eq!((String::from_utf8_lossy(told).parse().unwrap_or(0), content.len() - 1), (length, length));
    }
}

#[test]
fn connections_are_kept_and_stale_ones_cost_no_request() {
    let posts = Arc::new(Mutex::new(Vec::new()));
    let seen = posts.clone();
    let (wharf, responder) = app("all_paths = true\nkeep_connections = 1\n", &[], move |asked, talk| {
        if asked.param("REQUEST_METHOD") == "POST" {
            seen.lock().unwrap().push(asked.connection);
        }
        if asked.param("PATH_INFO") == "/die-second" && asked.nth > 1 {
            // Read, and closed without a word: the request was lost on a connection that was kept.
            return Err(io::ErrorKind::Other.into());
        }
        talk.answer(&format!("{HEAD}{}/{} keep={}", asked.connection, asked.nth, asked.keep))?;
        if asked.param("PATH_INFO") == "/close" { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    });
    assert_eq!(wharf.get("/app/a").text(), "1/1 keep=true");
    assert_eq!(wharf.get("/app/a").text(), "1/2 keep=true");
    assert_eq!(wharf.get("/app/close").text(), "1/3 keep=true");
    // Its end is seen, or the request is sent again: nobody notices.
    assert_eq!(wharf.get("/app/a").text(), "2/1 keep=true");
    assert_eq!(wharf.get("/app/die-second").text(), "3/1 keep=true");
    // What may have an effect never goes over a connection that was used before, and is never sent twice.
    assert_eq!(wharf.send("POST", "/app/a", &[], b"x").text(), "4/1 keep=false");
    assert_eq!(wharf.send("POST", "/app/a", &[], b"").text(), "5/1 keep=false");
    assert_eq!(*posts.lock().unwrap(), [4, 5]);
    assert_eq!(responder.connections.load(Ordering::SeqCst), 5);
}

#[test]
fn a_connection_that_is_kept_for_nothing_is_closed() {
    let (wharf, _responder) = app("all_paths = true\nkeep_connections = 2\nkeep_timeout = \"300ms\"\n", &[], echo);
    // Twice: the watch over them ends with the last one, and begins again.
    for _ in 0..2 {
        let before = wharf.descriptors();
        let mut client = wharf.connect();
        assert!(client.get("/app/a").unwrap().text().contains("REQUEST_METHOD=GET"));
        assert_eq!(wharf.descriptors(), before + 2, "the client's and the one that is kept");
        drop(client);
        wait("both connections to be closed", || (wharf.descriptors() == before).then_some(()));
    }
}

#[test]
fn a_small_answer_has_its_length() {
    let (wharf, _responder) = app("all_paths = true\n", &[], |asked, talk| match asked.param("PATH_INFO") {
        "/small" => {
            let mut bytes = record(1, kind::STDOUT, 1, format!("{HEAD}hello").as_bytes(), 0);
            bytes.extend(record(1, kind::END_REQUEST, 1, &[0; 8], 0));
            talk.raw(&bytes)
        }
        _ => talk.answer(&format!("{HEAD}{}", "x".repeat(1 << 20))),
    });
    let small = wharf.get("/app/small");
    assert_eq!((small.text().as_str(), small.header("content-length")), ("hello", Some("5")));
    let large = wharf.get("/app/large");
    assert_eq!((large.body.len(), large.header("transfer-encoding")), (1 << 20, Some("chunked")));
}

#[test]
fn a_post_that_is_lost_is_not_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let (wharf, _responder) = app("all_paths = true\nkeep_connections = 4\n", &[], move |asked, talk| {
        if asked.param("REQUEST_METHOD") == "POST" {
            counter.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::Other.into());
        }
        talk.answer(&format!("{HEAD}x"))
    });
    assert_eq!(wharf.get("/app/a").status, 200);
    assert_eq!(wharf.send("POST", "/app/a", &[], b"x").status, 502);
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_that_goes_away_is_told_of() {
    let aborted = Arc::new(AtomicBool::new(false));
    let flag = aborted.clone();
    let (wharf, _responder) = app("all_paths = true\n", &[], move |asked, talk| {
        if asked.param("PATH_INFO") != "/stream" {
            return talk.answer(&format!("{HEAD}x"));
        }
        talk.send(kind::STDOUT, format!("{HEAD}first").as_bytes())?;
        while let Some(record) = talk.record()? {
            if record.kind == kind::ABORT_REQUEST {
                flag.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    });
    let mut client = wharf.connect();
    client.write("GET", "/app/stream", &[], b"").unwrap();
    assert_eq!(client.read_head().unwrap().status, 200);
    assert_eq!(client.read_chunk().unwrap().unwrap(), b"first");
    drop(client);
    wait("ABORT_REQUEST", || aborted.load(Ordering::SeqCst).then_some(()));
    assert_eq!(wharf.get("/app/x").status, 200);
}

#[test]
fn too_many_requests_and_no_application_are_unavailable() {
    let options = "all_paths = true\nmax_connections = 1\nqueue = 0\n";
    let (wharf, _responder) = app(options, &[], |asked, talk| {
        if asked.param("PATH_INFO") == "/hold" {
            talk.send(kind::STDOUT, format!("{HEAD}first").as_bytes())?;
            while talk.record()?.is_some() {}
            return Ok(());
        }
        talk.answer(&format!("{HEAD}x"))
    });
    let mut client: Client = wharf.connect();
    client.write("GET", "/app/hold", &[], b"").unwrap();
    client.read_head().unwrap();
    let answer = wharf.get("/app/x");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    drop(client);
    wait("a place", || (wharf.get("/app/x").status == 200).then_some(()));
    // Nobody listens at all.
    wharf.put(
        "deploy/gone/app.toml",
        "kind = \"fastcgi\"\n[fastcgi]\naddress = \"unix:/nowhere/socket\"\nall_paths = true\n",
    );
    wait("the second application", || (wharf.get("/gone/").status != 404).then_some(()));
    let answer = wharf.get("/gone/");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
}

#[test]
fn an_authorizer_is_asked_first() {
    let site = Site::new();
    let (responder, authorizer) = (site.path("responder"), site.path("authorizer"));
    let toml = format!(
        "kind = \"fastcgi\"\n[fastcgi]\naddress = \"unix:{}\"\nauthorizer = \"unix:{}\"\n",
        responder.display(),
        authorizer.display()
    );
    let _responder = Responder::start(&responder, echo);
    let _authorizer = Responder::start(&authorizer, |asked, talk| {
        assert_eq!(asked.role, 2);
        for name in ["CONTENT_LENGTH", "PATH_INFO", "PATH_TRANSLATED", "SCRIPT_NAME"] {
            assert!(!asked.params.contains_key(name), "{name}");
        }
        match asked.param("HTTP_X_PASS") {
            "" => talk.answer("Status: 403 No\nContent-Type: text/plain\nVariable-SECRET: x\n\nnot you"),
            "broken" => Err(io::ErrorKind::Other.into()),
            _ => talk.answer("Status: 200 OK\nVariable-REMOTE_USER: ann\nX-Other: y\n\n"),
        }
    });
    let site = site.with("deploy/app/app.toml", toml).with("deploy/app/x.php", "").with("deploy/app/a.txt", "text");
    let wharf = site.start(&[]);
    for path in ["/app/x.php", "/app/a.txt", "/app/none"] {
        let refused = wharf.get(path);
        assert_eq!((refused.status, refused.text().as_str()), (403, "not you"), "{path}");
        assert!(refused.header("variable-secret").is_none());
        assert_eq!(wharf.send("GET", path, &[("X-Pass", "broken")], b"").status, 502, "{path}");
    }
    let passed = wharf.send("POST", "/app/x.php/info", &[("X-Pass", "yes")], b"12345");
    assert!(passed.text().contains("REMOTE_USER=ann\n") && passed.text().contains("CONTENT_LENGTH=5\n"), "{passed:?}");
    assert_eq!(wharf.send("GET", "/app/a.txt", &[("X-Pass", "yes")], b"").text(), "text");
}
