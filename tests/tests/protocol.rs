//! Requests that want to be read in two ways, bodies that nobody reads, and what a client may do slowly: through the whole
//! program, with an application behind it.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::Duration;

use wharf_tests::{Client, Load, Site, Wharf, chameleon, library, wait};

fn shop() -> Wharf {
    Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/transfer.so", library("transfer")).start(&[])
}

/// Sends the bytes and reads one answer; `None` when the connection was closed without one.
fn raw(wharf: &Wharf, request: &[u8]) -> (Client, Option<u16>) {
    let mut client = wharf.connect();
    client.write_raw(request).unwrap();
    match client.read("GET") {
        Ok(answer) => (client, Some(answer.status)),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => (client, None),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn lengths_that_can_be_read_in_two_ways_are_refused_and_the_connection_closed() {
    let wharf = shop();
    for length in ["+5", "-1", "0x10", "5,6", "1_0", "", "18446744073709551616", "5\r\nContent-Length: 6"] {
        // What follows would be a request of its own, were the length read as nothing.
        let request =
            format!("POST /shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nGET /shop/ HTTP/1.1\r\n\r\n");
        let (mut client, status) = raw(&wharf, request.as_bytes());
        assert!(status.is_none_or(|s| s == 400), "{length:?}: {status:?}");
        assert!(client.read("GET").is_err(), "{length:?}: a second answer");
    }
    for size in ["0x5", " 5", "5_0", "11111111111111111", "-1", "+5"] {
        let request = format!(
            "PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\nGET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let (mut client, status) = raw(&wharf, request.as_bytes());
        assert!(status.is_none_or(|s| (400..=500).contains(&s)), "{size:?}: {status:?}");
        assert!(client.read("GET").is_err(), "{size:?}: a second answer");
    }
    // Both framings: chunked wins and the connection ends, or it is refused (RFC 9112, section 6.3).
    let both = b"PUT /transfer/files/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut client, status) = raw(&wharf, both);
    match status {
        None | Some(400) => {}
        Some(status) => assert!(matches!(status, 200 | 201), "{status}"),
    }
    if let Ok(second) = client.read("GET") {
        assert_eq!(second.text(), "one", "the rest of the body was read as a request");
    }
    assert_eq!(wharf.get("/shop/").text(), "one");
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let wharf = shop();
    let stream = TcpStream::connect(wharf.addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut writer = stream.try_clone().unwrap();
    for byte in b"GET /shop/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" {
        writer.write_all(&[*byte]).unwrap();
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut &stream, &mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\none"), "{text}");
}

#[test]
fn a_body_that_the_application_leaves_unread_is_not_the_next_request() {
    let wharf = shop();
    let mut client = wharf.connect();
    let body = b"GET /shop/log HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let answer = client.send("POST", "/shop/", &[], &body).unwrap();
    assert_eq!(answer.status, 405);
    if !answer.is_last() {
        assert_eq!(client.get("/shop/").unwrap().text(), "one");
    }
    assert!(!wharf.log().contains("said in a request"), "the body was read as requests");
}

#[test]
fn expectations() {
    let wharf = shop();
    let mut client = wharf.connect();
    let headers = [("Expect", "100-continue"), ("Content-Length", "5")];
    client.write("PUT", "/transfer/files/e", &headers, b"").unwrap();
    assert_eq!(client.read_head().unwrap().status, 100);
    client.write_raw(b"hello").unwrap();
    assert_eq!(client.read("PUT").unwrap().status, 201);
    // An application that does not want the body says so at once.
    let mut client = wharf.connect();
    client.write("POST", "/shop/", &headers, b"").unwrap();
    assert_eq!(client.read("POST").unwrap().status, 405);
    assert_eq!(wharf.send("GET", "/shop/", &[("Expect", "miracles")], b"").status, 417);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let wharf = shop();
    let mut client = wharf.connect();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    client.write_raw([request("/shop/slow"), request("/shop/log"), request("/shop/")].concat().as_bytes()).unwrap();
    let texts: Vec<String> = (0..3).map(|_| client.read("GET").unwrap().text()).collect();
    assert_eq!(texts, ["one", "logged", "one"]);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let wharf = shop();
    let long = "x".repeat(9 << 10);
    assert_eq!(wharf.get(&format!("/shop/{long}")).status, 414);
    let many: Vec<String> = (0..101).map(|n| format!("X-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), "1")).collect();
    assert_eq!(wharf.send("GET", "/shop/", &many, b"").status, 431);
    let large = "x".repeat(8 << 10);
    let large = [("A", large.as_str()), ("B", &large), ("C", &large), ("D", &large), ("E", &large)];
    assert_eq!(wharf.send("GET", "/shop/", &large, b"").status, 431);
}

#[test]
fn slow_and_vanishing_clients_harm_nobody_and_leave_nothing() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let wharf = site.start(&["--set", "server.limits.header_timeout=1s"]);
    wharf.get("/shop/");
    let descriptors = wharf.descriptors();
    let load = Load::start(wharf.addr(), &["/shop/"], 1, Duration::from_millis(2));
    let mut slow: Vec<Client> = (0..100).map(|_| wharf.connect()).collect();
    slow.iter_mut().for_each(|c| c.write_raw(b"GET /shop/ HTTP/1.1\r\nHo").unwrap());
    // Requests whose clients go away before the answer.
    for _ in 0..100 {
        wharf.connect().write("GET", "/shop/slow", &[], b"").unwrap();
    }
    for client in &mut slow {
        // 408, or closed without a word.
        assert!(client.read("GET").map_or(true, |answer| answer.status == 408));
    }
    load.stop().assert_clean();
    wait("the connections to be gone", || (wharf.descriptors() <= descriptors).then_some(()));
    wait("the leases to be given back", || (wharf.app("shop")["generations"][0]["leases"] == 0).then_some(()));
}
