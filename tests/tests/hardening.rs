//! What a hostile or broken client sends over HTTP/1.1, as raw bytes, and what is safe. The names are those of the table in
//! docs/threats.md.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wharf_tests::{Answer, Client, Load, Site, Wharf, chameleon, library, wait};

fn site() -> Site {
    Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/transfer.so", library("transfer"))
}

fn start(sets: &[&str]) -> Wharf {
    let mut arguments = Vec::new();
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    site().start(&arguments)
}

/// After everything: it answers, and nothing is left.
fn assert_well(wharf: &Wharf, descriptors: usize) {
    assert_eq!(wharf.get("/shop/").text(), "one");
    wait("the connections to be gone", || (wharf.descriptors() <= descriptors).then_some(()));
    wait("the leases to be given back", || (wharf.app("shop")["generations"][0]["leases"] == 0).then_some(()));
}

fn warm(wharf: &Wharf) -> usize {
    assert_eq!(wharf.get("/shop/").text(), "one");
    wharf.app("shop");
    wharf.descriptors()
}

/// Sends the bytes and reads every answer until the connection is closed, or nothing more comes for a while.
fn answers(wharf: &Wharf, bytes: &[u8]) -> (Vec<Answer>, bool) {
    let mut client = wharf.connect();
    let _ = client.write_raw(bytes);
    let mut all = Vec::new();
    loop {
        match client.read("GET") {
            Ok(answer) => all.push(answer),
            Err(error) => {
                let open = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(open || error.kind() != ErrorKind::InvalidData, "{error}: {all:?}");
                return (all, !open);
            }
        }
    }
}

/// What comes behind a bad request: were it read as a request, the application would say so in the log.
const SMUGGLED: &str = "GET /shop/log HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    let wharf = start(&["server.limits.header_timeout=1s", "server.limits.body_idle_timeout=1s"]);
    let descriptors = warm(&wharf);
    let get = |rest: &str| format!("GET /shop/ HTTP/1.1\r\n{rest}\r\n\r\n").into_bytes();
    let put = |rest: &str| format!("PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\n{rest}").into_bytes();
    let chunked = |head: &str| put(&format!("{head}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let many = (0..101).map(|n| format!("X-{n}: 1")).collect::<Vec<_>>().join("\r\n");
    let cookies = |n| vec!["a=b"; n].join("; ");
    let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("P1 no Host", get("Accept: */*"), &[400]),
        ("P1 two Hosts", get("Host: a\r\nHost: b"), &[400]),
        ("P1 the same Host twice", get("Host: a\r\nHost: a"), &[400]),
        ("P1 a space in the Host", get("Host: a b"), &[400]),
        ("P1 a user in the Host", get("Host: a@b"), &[400]),
        ("P1 a path in the Host", get("Host: a/.."), &[400]),
        ("P1 a port that is none", get("Host: a:b"), &[400]),
        ("P1 a list of Hosts", get("Host: a, b"), &[400]),
        ("P3 Transfer-Encoding that is not chunked", chunked("Transfer-Encoding: xchunked"), &[400]),
        ("P3 chunked, then something else", chunked("Transfer-Encoding: chunked, identity"), &[400]),
        ("P3 gzip alone", chunked("Transfer-Encoding: gzip"), &[400]),
        ("P3 chunked with a vertical tab", chunked("Transfer-Encoding: \x0bchunked"), &[400]),
        ("P3 a space before the colon", chunked("Transfer-Encoding : chunked"), &[400]),
        ("P3 quoted", chunked("Transfer-Encoding: \"chunked\""), &[400]),
        ("P3 two lines, chunked not the last", chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: x"), &[400]),
        ("P5 two lengths", put("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), &[400]),
        ("P5 a list of lengths", put("Content-Length: 5, 5\r\n\r\nhello"), &[400]),
        ("P5 a length with a sign", put("Content-Length: +5\r\n\r\nhello"), &[400]),
        ("P5 a length in hexadecimal", put("Content-Length: 0x5\r\n\r\nhello"), &[400]),
        ("P5 a length in other digits", put("Content-Length: \u{0665}\r\n\r\nhello"), &[400]),
        ("P6 a chunk without an end", put("Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n"), &[400]),
        (
            "P6 a chunk's size with 17 digits",
            put("Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
            &[400],
        ),
        ("P6 no chunk's size", put("Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"), &[400]),
        (
            "P6 a chunk's size that ends in CR alone",
            put("Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n"),
            &[400],
        ),
        ("P8 a wrong end", put("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX"), &[400]),
        ("P10 a line that goes on", get("Host: a\r\nX: a\r\n b"), &[400]),
        ("P10 a first line that goes on", get(" X: a\r\nHost: a"), &[400]),
        ("P10 a space before the colon", get("Host: a\r\nX : a"), &[400]),
        ("P10 no name", get("Host: a\r\n: a"), &[400]),
        ("P10 no colon", get("Host: a\r\nX"), &[400]),
        ("P10 CR in a value", get("Host: a\r\nX: a\rb"), &[400]),
        ("P10 NUL in a value", get("Host: a\r\nX: a\0b"), &[400]),
        ("P10 DEL in a value", get("Host: a\r\nX: a\x7fb"), &[400]),
        ("P10 NUL in a name", get("Host: a\r\nX\0: b"), &[400]),
        ("P10 CR as the end of a line", b"GET /shop/ HTTP/1.1\rHost: a\r\r".to_vec(), &[400]),
        ("P11 HTTP/9.9", b"GET /shop/ HTTP/9.9\r\nHost: a\r\n\r\n".to_vec(), &[400, 505]),
        ("P11 HTTP/1.10", b"GET /shop/ HTTP/1.10\r\nHost: a\r\n\r\n".to_vec(), &[400, 505]),
        ("P11 HTTP/2.0 in the first line", b"GET /shop/ HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), &[400, 505]),
        ("P11 http/1.1 in small letters", b"GET /shop/ http/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("P11 HTTP/0.9", b"GET /shop/\r\n\r\n".to_vec(), &[400]),
        ("P11 the beginning of a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), &[400]),
        ("P11 the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("P12 NUL in the method", b"GE\0T /shop/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("P12 a long method", format!("{} /shop/ HTTP/1.1\r\nHost: a\r\n\r\n", "G".repeat(8192)).into_bytes(), &[501]),
        ("P12 CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_vec(), &[405]),
        ("P12 two spaces", b"GET  /shop/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("P12 a space at the front", b" GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("P12 a tab", b"GET\t/shop/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        ("P12 a control character in the target", b"GET /shop/\x01 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), &[400]),
        (
            "P14 HTTP/1.0 with Transfer-Encoding",
            b"PUT /transfer/files/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
            &[400],
        ),
        ("P15 an unknown expectation", get("Host: a\r\nExpect: miracles"), &[417]),
        ("H2 101 header fields", get(&format!("Host: a\r\n{many}")), &[431]),
        ("H2 a value of 64 KiB", get(&format!("Host: a\r\nX: {}", "y".repeat(64 << 10))), &[431]),
        ("H2 200 cookies", get(&format!("Host: a\r\nCookie: {}", cookies(200))), &[431]),
        ("H2 50 Cookie lines", get(&format!("Host: a{}", "\r\nCookie: a=b".repeat(50))), &[431]),
        (
            "H2 a target of 9 KiB",
            format!("GET /shop/{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9 << 10)).into_bytes(),
            &[414],
        ),
        ("B1 a length of 10 GiB", put("Content-Length: 10737418240\r\n\r\nhello"), &[413]),
        ("A10 an If-None-Match of 1 MiB", get(&format!("Host: a\r\nIf-None-Match: {}", "y".repeat(1 << 20))), &[431]),
        ("noise", (0..=255).cycle().take(2000).collect(), &[400]),
    ];
    for (name, bytes, allowed) in rows {
        let bytes = [&bytes[..], SMUGGLED.as_bytes()].concat();
        let (answers, closed) = answers(&wharf, &bytes);
        let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
        assert!(closed, "{name}: the connection is open; {statuses:?}");
        assert!(answers.len() <= 1, "{name}: {statuses:?}");
        match statuses.first() {
            Some(status) => assert!(allowed.contains(status), "{name}: {status}"),
            None if allowed.is_empty() => continue,
            None => panic!("{name}: closed without an answer"),
        }
        let text = answers[0].text();
        // What is wrong with the content is found when the application reads it.
        let content = name.starts_with("P6") || name.starts_with("P8");
        assert!(
            content || text.contains("<h1>") && text.contains("Request "),
            "{name}: not the container's page: {text}"
        );
    }
    assert!(!wharf.log().contains("said in a request"), "a request was smuggled");
    // Each has a line in the access log.
    wait("the refused requests in the access log", || {
        let out = wharf.output();
        (out.contains("\"- * HTTP/1.1\" 400") && out.contains("\"- * HTTP/1.1\" 431")).then_some(())
    });
    assert_well(&wharf, descriptors);
}

#[test]
fn what_is_odd_but_allowed_is_read_in_one_way() {
    let wharf = start(&[]);
    let rows: Vec<(&str, &[u8], u16)> = vec![
        ("P2 the target's host counts", b"GET http://x/shop/ HTTP/1.1\r\nHost: y\r\n\r\n", 200),
        ("P12 TRACE", b"TRACE /shop/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("P12 an unknown method", b"FOO /shop/ HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("P12 a method in small letters", b"get /shop/ HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("P14 HTTP/1.0 kept alive", b"GET /shop/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200),
        ("P10 LF alone, the documented exception", b"GET /shop/ HTTP/1.1\nHost: a\n\n", 200),
        ("line ends before a request", b"\r\n\r\nGET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("two Cookie lines", b"GET /shop/ HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n", 200),
        ("P9 trailers", b"PUT /transfer/files/t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nHost: b\r\nAuthorization: c\r\n\r\n", 201),
        ("a chunk extension", b"PUT /transfer/files/e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", 201),
    ];
    for (name, bytes, expected) in rows {
        let mut client = wharf.connect();
        client.write_raw(bytes).unwrap();
        let answer = client.read("GET").unwrap();
        assert_eq!(answer.status, expected, "{name}");
        if !answer.is_last() {
            assert_eq!(client.get("/shop/").unwrap().text(), "one", "{name}: the next request");
        }
    }
    assert_eq!(wharf.get("/transfer/files/t").text(), "hello");
}

#[test]
fn endless_bodies_and_endless_extensions_are_cut() {
    let wharf = start(&["server.limits.body=100000"]);
    let descriptors = warm(&wharf);
    let memory = wharf.resident_kib();
    let head = "PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for piece in [format!("1000\r\n{}\r\n", "x".repeat(4096)), format!(";{}", "x".repeat(4096))] {
        let mut client = wharf.connect();
        client.write_raw(head.as_bytes()).unwrap();
        if piece.starts_with(';') {
            client.write_raw(b"5").unwrap();
        }
        let sent = (0..20_000).take_while(|_| client.write_raw(piece.as_bytes()).is_ok()).count();
        assert!(sent < 20_000, "{sent} pieces were taken");
    }
    assert!(wharf.resident_kib() < memory + 20_000);
    assert_well(&wharf, descriptors);
}

#[test]
fn idle_connections_have_more_time_than_heads() {
    let wharf = start(&["server.limits.header_timeout=400ms", "server.limits.keep_alive_timeout=20s"]);
    let mut client = wharf.connect();
    assert_eq!(client.get("/shop/").unwrap().text(), "one");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(client.get("/shop/").unwrap().text(), "one", "an idle connection lives longer than a head may take");
    let began = Instant::now();
    client.write_raw(b"GET /shop/ HTTP/1.1\r\nHo").unwrap();
    assert!(client.read("GET").is_err());
    assert!(began.elapsed() < Duration::from_secs(15), "the head has its own limit");
    let began = Instant::now();
    let mut silent = wharf.connect();
    assert!(silent.read("GET").is_err());
    assert!(began.elapsed() < Duration::from_secs(15), "so has a new connection");

    let wharf = start(&["server.limits.keep_alive_timeout=400ms"]);
    let mut client = wharf.connect();
    assert_eq!(client.get("/shop/").unwrap().text(), "one");
    let began = Instant::now();
    assert_eq!(client.read("GET").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(began.elapsed() < Duration::from_secs(9));
    // As long as content comes in, which nobody reads here, it is not idle, whether there is an answer or not.
    let mut client = wharf.connect();
    client.write("POST", "/shop/", &[("Content-Length", "5")], b"he").unwrap();
    client.read("POST").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    client.write_raw(b"llo").unwrap();
    assert_eq!(client.get("/shop/").unwrap().text(), "one");
    let began = Instant::now();
    assert_eq!(client.read("GET").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(began.elapsed() < Duration::from_secs(9));
}

#[test]
fn a_connection_has_so_many_requests() {
    let wharf = start(&["server.limits.keep_alive_requests=3"]);
    let mut client = wharf.connect();
    let last: Vec<bool> = (0..3).map(|_| client.get("/shop/").unwrap().is_last()).collect();
    assert_eq!(last, [false, false, true]);
    assert!(client.read("GET").is_err());
}

#[test]
fn an_application_that_does_not_answer_is_answered_for() {
    let wharf = start(&["server.limits.response_timeout=300ms"]);
    let descriptors = warm(&wharf);
    let mut client = wharf.connect();
    let answer = client.get("/shop/slow").unwrap();
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("Request "), "{}", answer.text());
    assert_eq!(client.get("/shop/").unwrap().text(), "one");
    assert!(wharf.log().contains("did not begin its answer in time"));
    drop(client);
    // A body that comes in slowly is not the application's fault.
    let mut client = wharf.connect();
    client.write("PUT", "/transfer/files/slow", &[("Content-Length", "8")], b"").unwrap();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        client.write_raw(b"x").unwrap();
    }
    assert_eq!(client.read("PUT").unwrap().status, 201);
    drop(client);
    assert_well(&wharf, descriptors);
}

#[test]
fn bodies_that_drip_are_cut() {
    let wharf = start(&["server.limits.body_min_rate=1000000"]);
    let descriptors = warm(&wharf);
    let mut client = wharf.connect();
    client.write("PUT", "/transfer/files/x", &[("Content-Length", "100000")], b"").unwrap();
    let began = Instant::now();
    let mut bytes = 0;
    while client.write_raw(b"x").is_ok() && began.elapsed() < Duration::from_secs(20) {
        bytes += 1;
        std::thread::sleep(Duration::from_millis(100));
        if bytes == 60 {
            break;
        }
    }
    let answer = client.read("PUT").unwrap();
    assert_eq!((answer.status, answer.is_last()), (408, true));
    drop(client);
    assert_well(&wharf, descriptors);
}

#[test]
fn clients_that_do_not_read_are_cut_and_harm_nobody() {
    let wharf = start(&["server.limits.send_timeout=1s"]);
    let content = vec![b'x'; 8 << 20];
    assert!(matches!(wharf.send("PUT", "/transfer/files/big", &[], &content).status, 200 | 201));
    let descriptors = warm(&wharf);
    let memory = wharf.resident_kib();
    let load = Load::start(wharf.addr(), &["/shop/"], 1, Duration::from_millis(2));
    let stop = Arc::new(AtomicBool::new(false));
    let slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(wharf.addr()).unwrap();
            stream.write_all(b"GET /transfer/files/big HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream
        })
        .collect();
    // One of them reads, but too little to count.
    let drip = std::thread::spawn({
        let (mut stream, stop) = (slow[0].try_clone().unwrap(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) && stream.read(&mut [0; 16]).is_ok_and(|n| n > 0) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    wait("the log to say that 50 were cut", || {
        (wharf.log().matches("does not take what is sent").count() >= 50).then_some(())
    });
    load.stop().assert_clean();
    stop.store(true, Ordering::Relaxed);
    drip.join().unwrap();
    drop(slow);
    assert!(wharf.resident_kib() < memory + 60_000, "{memory} KiB have become {}", wharf.resident_kib());
    assert_well(&wharf, descriptors);
    // Whoever takes its time, but reads, gets everything.
    let mut client = wharf.connect();
    client.write("GET", "/transfer/files/big", &[], b"").unwrap();
    assert_eq!(client.read_head().unwrap().status, 200);
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(300));
        client.skip(1 << 20).unwrap();
    }
}

#[test]
fn one_address_has_so_many_connections() {
    let wharf = start(&["server.limits.connections_per_address=3"]);
    let mut held: Vec<Client> = (0..3).map(|_| wharf.connect()).collect();
    held.iter_mut().for_each(|c| assert_eq!(c.get("/shop/").unwrap().text(), "one"));
    let mut fourth = wharf.connect();
    let _ = fourth.write("GET", "/shop/", &[], b"");
    assert!(fourth.read("GET").is_err());
    assert!(wharf.log().contains("the address has as many as it may"));
    held.pop();
    wait("a place to be free", || wharf.connect().get("/shop/").is_ok().then_some(()));
}

#[test]
fn addresses_hosts_and_rates_are_refused_as_configured() {
    let wharf = start(&["protect.deny=['127.0.0.0/8']"]);
    assert_eq!(wharf.get("/shop/").status, 403);
    // What a client says about itself changes nothing.
    assert_eq!(wharf.send("GET", "/shop/", &[("X-Forwarded-For", "192.0.2.1")], b"").status, 403);
    let wharf = start(&["protect.allow=['192.0.2.0/24', '127.0.0.1']"]);
    assert_eq!(wharf.get("/shop/").status, 200);
    let wharf = start(&["protect.allow=['192.0.2.0/24']"]);
    assert_eq!(wharf.get("/shop/").status, 403);

    let wharf = start(&["protect.hosts=['shop.example', '*.api.example']"]);
    for (host, status) in [
        ("shop.example", 200),
        ("SHOP.example:8080", 200),
        ("a.b.api.example", 200),
        ("api.example", 421),
        ("evil.example", 421),
        ("shop.example.evil.test", 421),
        ("127.0.0.1", 421),
    ] {
        assert_eq!(wharf.send("GET", "/shop/", &[("Host", host)], b"").status, status, "{host}");
    }

    let wharf = start(&["protect.rate={ requests = 5, per = '1h' }"]);
    let statuses: Vec<u16> = (0..7).map(|_| wharf.get("/shop/").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    let seconds: u64 = wharf.get("/shop/").header("retry-after").unwrap().parse().unwrap();
    assert!((600..=721).contains(&seconds), "{seconds}");
}

#[test]
fn requests_of_other_sites_are_refused_as_configured() {
    let wharf = start(&["protect.csrf=true", "protect.trusted_origins=['https://friend.example']"]);
    let put = |headers: &[(&str, &str)]| wharf.send("PUT", "/transfer/files/x", headers, b"x").status;
    for (headers, allowed) in [
        (&[][..], true),
        (&[("Sec-Fetch-Site", "same-origin")], true),
        (&[("Sec-Fetch-Site", "cross-site")], false),
        (&[("Sec-Fetch-Site", "same-site")], false),
        (&[("Origin", "https://evil.example")], false),
        (&[("Origin", "null")], false),
        (&[("Origin", "http://localhost")], true),
        (&[("Sec-Fetch-Site", "cross-site"), ("Origin", "https://friend.example")], true),
    ] {
        assert_eq!(put(headers) != 403, allowed, "{headers:?}");
    }
    assert_eq!(wharf.send("GET", "/shop/", &[("Sec-Fetch-Site", "cross-site")], b"").status, 200);

    let cors =
        "protect.cors={ origins = ['https://shop.example'], methods = ['PUT'], headers = ['X-A'], max_age = '1m' }";
    let wharf = start(&[cors]);
    let preflight = |origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        wharf.send("OPTIONS", "/transfer/files/x", &headers, b"")
    };
    let answer = preflight("https://shop.example");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-a"));
    assert_eq!(answer.header("access-control-max-age"), Some("60"));
    assert_eq!(preflight("https://evil.example").header("access-control-allow-origin"), None);
    let answer = wharf.send("GET", "/shop/", &[("Origin", "https://shop.example")], b"");
    assert_eq!(answer.text(), "one");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(wharf.get("/shop/").header("access-control-allow-origin"), None);
    assert!(wharf.send("OPTIONS", "/shop/", &[], b"").header("allow").is_some(), "an OPTIONS that is no preflight");
}

#[test]
fn security_headers_are_added_where_configured() {
    let plain = start(&[]).get("/shop/");
    assert_eq!(plain.header("x-frame-options"), None);
    let wharf = start(&["protect.security_headers=true", "protect.headers={ Server = 'none' }"]);
    for target in ["/shop/", "/missing"] {
        let answer = wharf.get(target);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{target}");
        assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"), "{target}");
        assert_eq!(answer.header("server"), Some("none"), "{target}");
        assert_eq!(answer.headers.iter().filter(|(n, _)| n == "x-content-type-options").count(), 1);
    }
}

#[test]
fn nothing_a_client_sends_makes_a_line_of_the_access_log() {
    for format in ["combined", "json"] {
        let wharf = start(&[&format!("access_log.format={format}")]);
        let headers = [("User-Agent", "a\"[31m\u{85}\u{2028} - - [x] \"GET /forged"), ("Referer", "\\\" 200 0\t\"")];
        wharf.send("GET", "/shop/\"?a=%0a%0dforged", &headers, b"");
        let line = wait("the line", || {
            let out = wharf.output();
            out.lines().find(|l| l.contains("forged")).map(str::to_owned)
        });
        assert!(line.bytes().all(|b| (0x20..0x7f).contains(&b)) || format == "json", "{line:?}");
        if format == "json" {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["target"], "/shop/\"?a=%0a%0dforged");
            assert!(line.chars().all(|c| !c.is_control() && c != '\u{2028}'), "{line:?}");
        } else {
            assert_eq!(line.matches('"').count(), 6, "{line}");
        }
    }
}

/// A generator of numbers that is the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Requests with bytes changed, doubled and removed: 3,000 of them, or as many as WHARF_MALFORMED says.
#[test]
fn malformed_requests_harm_nothing() {
    let count = std::env::var("WHARF_MALFORMED").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let wharf = start(&[
        "server.limits.header_timeout=100ms",
        "server.limits.body_idle_timeout=100ms",
        "access_log.format=off",
    ]);
    let descriptors = warm(&wharf);
    let seeds: [&[u8]; 5] = [
        b"GET /shop/ HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=d\r\nAccept: */*\r\n\r\n",
        b"PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        b"GET http://a:80/shop/%2e%2e/;x=y?q=%zz HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
        b"HEAD /shop/ HTTP/1.0\r\nConnection: keep-alive\r\nRange: bytes=0-1\r\n\r\n",
    ];
    let interesting = b"\0\r\n\t :;,%/\\\"\x7f\x80\xff";
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut memory, mut statuses) = (0, std::collections::BTreeMap::<u16, u32>::new());
    for n in 0..count {
        let mut bytes = seeds[numbers.below(seeds.len())].to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len());
            match numbers.below(5) {
                0 => bytes[at] = interesting[numbers.below(interesting.len())],
                1 => bytes[at] = numbers.below(256) as u8,
                2 => bytes.insert(at, interesting[numbers.below(interesting.len())]),
                3 => drop(bytes.drain(at..(at + 1 + numbers.below(8)).min(bytes.len()))),
                _ => {
                    let part = bytes[at..(at + 1 + numbers.below(40)).min(bytes.len())].to_vec();
                    let to = numbers.below(bytes.len());
                    bytes.splice(to..to, part);
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        let mut stream = TcpStream::connect(wharf.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(&bytes);
        // No more comes: the server need not wait for it.
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        let status =
            said.get(9..12).and_then(|s| std::str::from_utf8(s).ok()).and_then(|s| s.parse().ok()).unwrap_or(0);
        *statuses.entry(status).or_default() += 1;
        // 501 is said to an unknown method, 505 to an unknown version.
        assert!(status < 500 || matches!(status, 501 | 505), "{status} for {:?}", String::from_utf8_lossy(&bytes));
        if n == count / 3 {
            memory = wharf.resident_kib();
        }
    }
    println!("{count} requests, by status: {statuses:?}; {memory} KiB at a third, {} at the end", wharf.resident_kib());
    assert!(wharf.resident_kib() < memory + 10_000, "{memory} KiB have become {}", wharf.resident_kib());
    assert!(!wharf.log().contains("panicked"));
    assert_well(&wharf, descriptors);
}
