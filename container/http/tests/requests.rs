//! Whole requests over a raw socket: what is answered, refused, and survived.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::*;
use wharf_http::Limits;
use wharf_kernel::RouteTable;

#[test]
fn a_request_is_mapped_and_answered() {
    let running = start();
    let rows = [
        ("/a/b", "GET HTTP/1.1 /  /a/b 0"),
        ("/shop/cart/x", "GET HTTP/1.1 /shop /cart /x 0"),
        ("/shop//cart/./y;id=1/../z?q", "GET HTTP/1.1 /shop /cart /z 0"),
        ("/shop/a.jsp", "GET HTTP/1.1 /shop /a.jsp null 0"),
        ("http://a/a", "GET HTTP/1.1 /  /a 0"),
        ("http://a", "GET HTTP/1.1 /  / 0"),
    ];
    for (target, expected) in rows {
        let text = get(running.addr, target);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(expected), "{target}: {text}");
    }
    assert_eq!(statuses(&get(running.addr, "/shop/none")), [404]);
    let text = get(running.addr, "/shop?a=b");
    assert!(text.contains("302") && text.contains("location: /shop/?a=b\r\n"), "{text}");
    let text =
        exchange(running.addr, b"POST /shop HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(statuses(&text), [404], "no servlet of /shop takes its root");
}

/// Rows P1 to P12: each gets this status and the connection is closed, or nothing is answered at all.
#[test]
fn invalid_requests_are_refused() {
    let running = start();
    let host = "Host: a\r\n";
    let rows: &[(String, &[u16])] = &[
        ("GET / HTTP/1.1\r\n\r\n".into(), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}Host: b\r\n\r\n"), &[400]),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), &[400]),
        ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n".into(), &[400]),
        ("GET / HTTP/1.1\r\nHost: a/..\r\n\r\n".into(), &[400]),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n".into(), &[400]),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), &[400]),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n".into(), &[400]),
        ("GET http://x/ HTTP/1.1\r\n\r\n".into(), &[400]),
        (format!("GET http://u@x/ HTTP/1.1\r\n{host}\r\n"), &[400]),
        (format!("GET ftp://x/ HTTP/1.1\r\n{host}\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\nabcde"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 0x10\r\n\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 5,6\r\n\r\nabcdef"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1_0\r\n\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length:\r\n\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 18446744073709551616\r\n\r\n"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), &[400]),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"), &[400]),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}Name : v\r\n\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}: v\r\n\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}A: b\r\n c\r\n\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}A: b\0c\r\n\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}A: b\rc\r\n\r\n"), &[400]),
        (format!("GET / HTTP/1.1\r\n{host}A: b\u{7f}c\r\n\r\n"), &[400]),
        (format!("GET / HTTP/9.9\r\n{host}\r\n"), &[400]),
        (format!("GET / HTTP/1.10\r\n{host}\r\n"), &[400]),
        ("GET /\r\n\r\n".into(), &[400]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[]),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".into(), &[400]),
        (format!("GE\0T / HTTP/1.1\r\n{host}\r\n"), &[400]),
        (format!("CONNECT a:80 HTTP/1.1\r\n{host}\r\n"), &[405]),
        (format!("GET / HTTP/1.1\r\n{host}Expect: x\r\n\r\n"), &[417]),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(9000)), &[414]),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "A: b\r\n".repeat(101)), &[431]),
        (format!("GET / HTTP/1.1\r\n{host}A: {}\r\n\r\n", "b".repeat(64 * 1024)), &[431]),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "Cookie: a\r\n".repeat(10_000)), &[431]),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 10737418240\r\n\r\n"), &[413]),
    ];
    for (request, expected) in rows {
        let text = exchange(running.addr, request.as_bytes());
        let shown = &request[..request.len().min(80)];
        assert_eq!(statuses(&text), *expected, "{shown:?}: {text}");
    }
    assert_eq!(statuses(&get(running.addr, "/")), [200], "a fresh connection gets its answer");
}

#[test]
fn bad_chunks_break_the_request_off_and_close() {
    let running = start();
    let chunks = [
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "5_0\r\nabcde\r\n0\r\n\r\n",
        "11111111111111111\r\na",
        "\r\n",
        "-1\r\na",
        "5\r\nabcdeX\r\n0\r\n\r\n",
        "0\r\nX",
    ];
    for chunk in chunks {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut stream = connect(running.addr);
        stream.write_all(format!("{head}{chunk}").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let text = read_all(&mut stream);
        assert!(matches!(*statuses(&text), [] | [400]), "{chunk:?}: {text}");
    }
}

#[test]
fn a_body_with_both_lengths_is_read_as_chunks_and_the_connection_closed() {
    let running = start();
    for heads in ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    {
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{heads}\r\n\r\n5\r\nabcde\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let text = exchange(running.addr, request.as_bytes());
        assert_eq!(statuses(&text), [200], "{text}");
        assert!(text.ends_with("POST HTTP/1.1 /  / 5") && text.contains("connection: close"), "{text}");
    }
}

#[test]
fn bad_paths_are_refused_before_mapping() {
    let running = start();
    for path in [
        "/../x",
        "/%2e%2e/x",
        "/..%2fx",
        "/.;/",
        "/a/..;/manager",
        "/%00",
        "/%0a",
        "/%2f",
        "/%5c",
        "/\\",
        "/%c0%ae",
        "/%zz",
    ] {
        assert_eq!(statuses(&get(running.addr, path)), [400], "{path}");
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_answer() {
    let running = start();
    let request = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    let mut stream = connect(running.addr);
    stream.set_nodelay(true).unwrap();
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(read_all(&mut stream).ends_with("POST HTTP/1.1 /  /x 3"));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let running = start();
    let mut request = String::new();
    for n in 0..50 {
        request.push_str(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    request.push_str("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let text = exchange(running.addr, request.as_bytes());
    assert_eq!(statuses(&text), [200; 51]);
    let positions: Vec<_> = (0..50).map(|n| text.find(&format!("  /{n} 0")).unwrap()).collect();
    assert!(positions.is_sorted());
}

#[test]
fn an_unread_body_is_not_taken_for_a_request() {
    let running = start();
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let request = format!(
        "POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let text = exchange(running.addr, request.as_bytes());
    assert!(text.contains("unread POST") && !text.contains("smuggled"), "{text}");
    assert!(text.ends_with("/next 0"), "a small body is drained and the connection goes on: {text}");
}

#[test]
fn an_expectation_that_is_not_waited_for_does_no_harm() {
    let running = start();
    let mut stream = connect(running.addr);
    stream.write_all(b"POST /unread HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert!(&first == b"HTTP/1.1 200" || &first == b"HTTP/1.1 100", "{}", String::from_utf8_lossy(&first));
    let text = exchange(
        running.addr,
        b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert!(text.ends_with("/x 3"), "{text}");
}

#[test]
fn a_body_without_a_length_is_capped_too() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let chunk = format!("190\r\n{}\r\n", "a".repeat(400));
    let request =
        |n| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(n));
    assert!(exchange(running.addr, request(2).as_bytes()).ends_with(" 800"));
    assert_eq!(statuses(&exchange(running.addr, request(3).as_bytes())), [413]);
}

#[test]
fn a_client_that_sends_first_and_reads_later_learns_of_413() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let body = "a".repeat(200_000);
    for _ in 0..20 {
        let sized = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(statuses(&exchange(running.addr, sized.as_bytes())), [413]);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        assert_eq!(statuses(&exchange(running.addr, chunked.as_bytes())), [413]);
    }
}

#[test]
fn the_target_wins_over_the_host_header() {
    let running = start();
    let text = exchange(running.addr, b"GET http://x:81/host HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n");
    assert!(text.ends_with("x:81 [\"x:81\"]"), "{text}");
    let text = exchange(running.addr, b"GET /host HTTP/1.0\r\n\r\n");
    assert!(text.ends_with(" []"), "{text}");
}

#[test]
fn methods_are_ruled() {
    let running = start();
    let send = |method: &str, target: &str| {
        exchange(running.addr, format!("{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
    };
    let text = send("TRACE", "/");
    assert!(statuses(&text) == [405] && text.contains("allow: GET"), "{text}");
    let text = send("OPTIONS", "*");
    assert!(statuses(&text) == [200] && text.contains("allow: GET"), "{text}");
    assert_eq!(statuses(&send("GET", "*")), [400]);
    assert!(send("BREW", "/pot").ends_with("BREW HTTP/1.1 /  /pot 0"));
    let text = send("HEAD", "/a");
    assert!(text.ends_with("\r\n\r\n") && text.contains("content-length: 21"), "{text}");
    let text = send("HEAD", "/status/404");
    assert!(statuses(&text) == [404] && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn errors_have_a_page() {
    let running = start();
    let text = get(running.addr, "/status/404");
    assert!(text.contains("404 Not Found</h1>") && text.contains("nosniff"), "{text}");
    let text = exchange(
        running.addr,
        b"GET /status/404 HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
    );
    assert!(text.contains("application/problem+json") && text.contains("\"status\":404"), "{text}");
    let empty = start_with(Limits::default(), vec![]);
    assert!(get(empty.addr, "/").contains("No application is deployed yet"));
    let suspended = start_with(Limits::default(), vec![route("/", None, true)]);
    let text = get(suspended.addr, "/");
    assert!(statuses(&text) == [503] && text.contains("retry-after: "), "{text}");
}

#[test]
fn what_an_application_does_wrong_is_contained() {
    let running = start();
    let text = get(running.addr, "/panic");
    assert_eq!(statuses(&text), [500], "{text}");
    assert_eq!(running.pipeline.counters.panics(), 1);
    assert_eq!(statuses(&get(running.addr, "/continue")), [500]);
    let text = get(running.addr, "/lying");
    assert!(text.contains("content-length: 4\r\n") && !text.contains("transfer-encoding"), "{text}");
}

#[test]
fn every_request_is_counted_and_written_down() {
    let running = start();
    exchange(
        running.addr,
        b"POST /x?q HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
    );
    get(running.addr, "/..");
    running.server.drain(Duration::from_secs(10));
    let log = running.log.0.lock().unwrap();
    let lines: Vec<_> = log.iter().map(|r| (r.status, r.target.to_string(), r.app.is_some(), r.aborted)).collect();
    assert_eq!(lines, [(200, "/x?q".to_owned(), true, false), (400, "/..".to_owned(), false, false)]);
    assert_eq!(log[0].user_agent.as_ref().unwrap(), "test");
    assert_ne!(log[0].id, log[1].id);
    let table = running.pipeline.routes.load();
    let app = &table.routes()[0].counters;
    assert_eq!(*log[0].app.as_ref().unwrap().app, app.app);
    assert_eq!((app.by_class(), app.bytes_in(), app.in_flight()), ([0, 1, 0, 0, 0], 3, 0));
    assert_eq!(app.bytes_out(), log[0].bytes);
    assert_eq!(running.pipeline.counters.unmapped_by_class(), [0, 0, 0, 1, 0]);
    assert_eq!(running.pipeline.counters.open_connections(), 0);
}

#[test]
fn a_connection_can_be_upgraded() {
    let running = start();
    let request = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\nhello";
    let text = exchange(running.addr, request);
    assert!(text.starts_with("HTTP/1.1 101 ") && text.contains("upgrade: shout") && text.ends_with("HELLO"), "{text}");
}

#[test]
fn a_lease_refused_by_a_closed_gate_is_sought_in_the_next_table() {
    let running = start_with(Limits::default(), vec![]);
    let old = route("/", None, false);
    running.pipeline.routes.store(RouteTable::new([], [old.clone()]).unwrap());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            let mut current = old;
            for _ in 0..2000 {
                let next = route("/", None, false);
                running.pipeline.routes.store(RouteTable::new([], [next.clone()]).unwrap());
                current.gate.close();
                current = next;
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut stream = connect(running.addr);
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut answer = [0; 512];
            let len = stream.read(&mut answer).unwrap();
            assert!(answer[..len].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..len]));
        }
        swaps.join().unwrap();
    });
}

#[test]
fn an_answer_that_looks_like_the_protocol_librarys_own_stays_as_it_is() {
    let running = start();
    let text = exchange(running.addr, b"HEAD /bare HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 400 ") && text.ends_with("\r\n\r\n"), "{text}");
    assert_eq!(text.matches("\r\n\r\n").count(), 1, "{text}");
    let text = exchange(running.addr, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\nno request\r\n\r\n");
    assert_eq!(statuses(&text), [200, 400], "{text}");
    let text = exchange(running.addr, b"no request\r\n\r\n");
    assert!(text.contains("<h1>400 Bad Request</h1>"), "{text}");
    // The line is written when the connection is gone.
    let began = std::time::Instant::now();
    let lines = || running.log.0.lock().unwrap().iter().filter(|r| r.method.as_str() == "-" && r.status == 400).count();
    while lines() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "{} lines", lines());
        std::thread::yield_now();
    }
}
