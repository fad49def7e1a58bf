//! HTTP/2 as a client should speak it, and as it should not: floods, wrong messages, windows that never open.

use rustix::process::Signal;
use wharf_tests::h2::{block, frame, kind};
use wharf_tests::{Client, H2, Site, Wharf, chameleon, library, printed, tool, wait};

const CALM: u32 = 0xb;

fn start(more: &[&str]) -> Wharf {
    let mut arguments = vec!["--set", "server.http2.cleartext=true"];
    more.iter().for_each(|set| arguments.extend(["--set", set]));
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/transfer.so", library("transfer"));
    site.start(&arguments)
}

/// After everything: it answers, and nothing is left.
fn assert_well(wharf: &Wharf, descriptors: usize) {
    let mut client = H2::connect(wharf.addr(), &[]);
    let stream = client.get("/shop/", &[]).unwrap();
    assert_eq!(client.status(stream), 200);
    drop(client);
    assert_eq!(wharf.get("/shop/").text(), "one");
    wait("the connections to be gone", || (wharf.descriptors() <= descriptors).then_some(()));
    wait("the leases to be given back", || (wharf.app("shop")["generations"][0]["leases"] == 0).then_some(()));
}

fn warm(wharf: &Wharf) -> usize {
    assert_eq!(wharf.get("/shop/").text(), "one");
    wharf.app("shop");
    wharf.descriptors()
}

#[test]
fn clients_with_prior_knowledge_are_served_where_it_is_allowed() {
    let wharf = start(&[]);
    let mut client = H2::connect(wharf.addr(), &[]);
    let slow = client.get("/shop/slow", &[]).unwrap();
    let quick = client.get("/shop/", &[]).unwrap();
    assert_eq!(client.status(quick), 200, "it does not wait for the one before");
    assert_eq!(client.status(slow), 200);
    let missing = client.get("/nothing", &[]).unwrap();
    assert_eq!(client.status(missing), 404);
    // HTTP/1 on the same port, in one piece and in single bytes.
    assert_eq!(wharf.get("/shop/").text(), "one");
    let mut client = wharf.connect();
    for byte in b"GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.write_raw(&[*byte]).unwrap();
    }
    assert_eq!(client.read("GET").unwrap().text(), "one");
    let mut client = wharf.connect();
    client.write_raw(b"PRI /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.read("PRI").unwrap().status, 501, "a method that begins like the preface");
    let url = format!("http://{}/shop/", wharf.addr());
    if let Some(mut curl) = tool("curl", &["-sS", "--http2-prior-knowledge", "-w", " %{http_version}", &url]) {
        assert_eq!(printed(&curl.output().unwrap()), "one 2");
    }
    // An upgrade is an offer that need not be taken.
    if let Some(mut curl) = tool("curl", &["-sS", "--http2", "-d", "x=y", "-w", " %{http_version} %{http_code}", &url])
    {
        let said = printed(&curl.output().unwrap());
        assert!(said.ends_with(" 1.1 405"), "{said}");
    }
}

#[test]
fn without_leave_the_preface_is_no_request() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&[]);
    let mut client = Client::connect(wharf.addr()).unwrap();
    client.write_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert!(client.read("GET").map_or(true, |answer| matches!(answer.status, 400 | 505)));
    assert!(client.read("GET").is_err());
}

#[test]
fn requests_by_a_load_generator_succeed() {
    let wharf = start(&[]);
    let url = format!("http://{}/shop/", wharf.addr());
    let Some(mut h2load) = tool("h2load", &["-n", "5000", "-c", "10", "-m", "20", "-t", "1", &url]) else { return };
    let said = printed(&h2load.output().unwrap());
    assert!(said.contains("5000 succeeded, 0 failed"), "{said}");
}

#[test]
fn cancelled_requests_in_floods_end_the_connection() {
    let wharf = start(&[]);
    let descriptors = warm(&wharf);
    // All at once: the attack called rapid reset.
    let mut client = H2::connect(wharf.addr(), &[]);
    let fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/shop/slow"), (":authority", "a")]);
    let mut sent = 0;
    while sent < 10_000 {
        let stream = client.stream();
        let both = [frame(kind::HEADERS, 5, stream, &fields), frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])];
        if client.raw(&both.concat()).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(client.is_closed(), "after {sent}");
    // One after the other, each seen before the next: the library's own count does not see these.
    let mut client = H2::connect(wharf.addr(), &[]);
    let mut code = None;
    for n in 0_u32..1000 {
        let stream = client.get("/shop/slow", &[]).unwrap();
        let _ = client.send(kind::PING, 0, 0, &[0; 8]);
        let answer = client.read_until(|f| f.kind == kind::GOAWAY || f.kind == kind::PING && f.flags == 1);
        match answer {
            Some(frame) if frame.kind == kind::PING => {}
            Some(frame) => {
                code = Some((n, frame.number(4)));
                break;
            }
            None => break,
        }
        if client.send(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]).is_err() {
            break;
        }
    }
    let (n, code) = code.expect("a GOAWAY");
    assert_eq!(code, CALM);
    assert!((200..=202).contains(&n), "{n}");
    wait("the log to say so", || wharf.log().contains("too many cancelled requests").then_some(()));
    assert_well(&wharf, descriptors);
}

#[test]
fn frames_that_mean_nothing_end_the_connection_in_floods() {
    let wharf = start(&[]);
    let descriptors = warm(&wharf);
    let memory = wharf.resident_kib();
    let post = block(&[(":method", "POST"), (":scheme", "http"), (":path", "/shop/"), (":authority", "a")]);
    for (name, open, flood) in [
        ("PING", false, frame(kind::PING, 0, 0, &[0; 8])),
        ("SETTINGS", false, frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("PRIORITY", false, frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
        ("an unknown kind", false, frame(0xee, 0, 0, &[0; 3])),
        ("empty DATA", true, frame(kind::DATA, 0, 1, &[])),
    ] {
        let mut client = H2::connect(wharf.addr(), &[]);
        if open {
            client.send(kind::HEADERS, 4, 1, &post).unwrap();
        }
        let flood = flood.repeat(100);
        // Nobody reads what comes back.
        let sent = (0..2000).take_while(|_| client.raw(&flood).is_ok()).count();
        assert!(client.is_closed(), "{name}: open after {sent}");
        println!("{name}: {sent} times 100");
    }
    assert!(wharf.resident_kib() < memory + 20_000, "{memory} KiB have become {}", wharf.resident_kib());
    assert_well(&wharf, descriptors);
}

#[test]
fn heads_that_never_end_and_heads_that_are_too_large() {
    let wharf = start(&[]);
    let descriptors = warm(&wharf);
    let memory = wharf.resident_kib();
    let fields = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/shop/"), (":authority", "a")]);
    // CONTINUATION without an end.
    for piece in [block(&[("x", &"y".repeat(1000))]), Vec::new()] {
        let mut client = H2::connect(wharf.addr(), &[]);
        client.send(kind::HEADERS, 1, 1, &fields).unwrap();
        let more = frame(kind::CONTINUATION, 0, 1, &piece);
        let sent = (0..100_000).take_while(|_| client.raw(&more).is_ok()).count();
        assert!(sent < 100_000 && client.is_closed(), "{sent}");
    }
    // A field of 4,000 bytes in the table, and one byte for each of 4,000 uses of it.
    let mut client = H2::connect(wharf.addr(), &[]);
    let mut bomb = fields.clone();
    bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend(vec![b'y'; 4000]);
    bomb.extend(vec![0xbe; 4000]);
    client.send(kind::HEADERS, 5, 1, &bomb).unwrap();
    assert!(matches!(client.status(1), 0 | 431));
    // Many fields, large fields, many cookies: as with HTTP/1.
    for (count, name, value) in [(101, "x", "y"), (1, "x", &*"y".repeat(40_000)), (101, "cookie", "a=b")] {
        let mut client = H2::connect(wharf.addr(), &[]);
        let stream = client.stream();
        let mut fields = fields.clone();
        (0..count).for_each(|_| fields.extend(block(&[(name, value)])));
        let pieces: Vec<&[u8]> = fields.chunks(16_000).collect();
        for (n, piece) in pieces.iter().enumerate() {
            let (kind, end) = (if n == 0 { kind::HEADERS } else { kind::CONTINUATION }, u8::from(n == 0));
            let flags = end | if n + 1 == pieces.len() { 4 } else { 0 };
            client.send(kind, flags, stream, piece).unwrap();
        }
        let status = client.status(stream);
        assert!(status == 431, "{count} times {name}: {status}");
    }
    assert!(wharf.resident_kib() < memory + 20_000, "{memory} KiB have become {}", wharf.resident_kib());
    assert_well(&wharf, descriptors);
}

#[test]
fn wrong_messages_are_refused() {
    let wharf = start(&[]);
    let descriptors = warm(&wharf);
    let head = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost")];
    let with = |path: &'static str, more: &[(&'static str, &'static str)]| {
        let mut fields = head.to_vec();
        fields.push((":path", path));
        fields.extend(more);
        fields
    };
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("a space in the path", with("/shop/ HTTP/1.1", &[])),
        ("a line break in the path", with("/shop/\r\nX: y", &[])),
        ("no path", head.to_vec()),
        ("an empty path", with("", &[])),
        ("another Host", with("/shop/", &[("host", "other")])),
        ("two Hosts", with("/shop/", &[("host", "localhost"), ("host", "localhost")])),
        ("Connection", with("/shop/", &[("connection", "close")])),
        ("Transfer-Encoding", with("/shop/", &[("transfer-encoding", "chunked")])),
        ("Upgrade", with("/shop/", &[("upgrade", "websocket")])),
        ("TE", with("/shop/", &[("te", "gzip")])),
        ("capitals", with("/shop/", &[("X-Capital", "1")])),
        ("a line break in a value", with("/shop/", &[("x", "a\r\nb: c")])),
        ("an unknown pseudo header", with("/shop/", &[(":protocol", "websocket")])),
        ("a pseudo header too late", vec![(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/shop/")]),
        ("no method", vec![(":scheme", "http"), (":path", "/shop/"), (":authority", "a")]),
        ("two methods", with("/shop/", &[(":method", "POST")])),
        ("another scheme", vec![(":method", "GET"), (":scheme", "ftp"), (":path", "/shop/"), (":authority", "a")]),
        (
            "an authority with a user",
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/shop/"), (":authority", "a@b")],
        ),
        ("no authority", vec![(":method", "GET"), (":scheme", "http"), (":path", "/shop/")]),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "a:80")]),
    ];
    for (name, fields) in &rows {
        let mut client = H2::connect(wharf.addr(), &[]);
        client.send(kind::HEADERS, 5, 1, &block(fields)).unwrap();
        let status = client.status(1);
        assert!(matches!(status, 0 | 400 | 405), "{name}: {status}");
    }
    // A length that is not that of the content.
    for (length, content) in [("3", &b"hello"[..]), ("9", b"hello"), ("0", b"x"), ("-1", b""), ("5, 5", b"hello")] {
        let mut client = H2::connect(wharf.addr(), &[]);
        let fields = [(":method", "PUT"), (":path", "/transfer/files/x"), ("content-length", length)];
        let fields = [&head[1..], &fields].concat();
        let (pseudo, rest): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(n, _)| n.starts_with(':'));
        client.send(kind::HEADERS, 4, 1, &block(&[pseudo, rest].concat())).unwrap();
        let _ = client.send(kind::DATA, 1, 1, content);
        let status = client.status(1);
        assert!(!(200..300).contains(&status), "{length} for {}: {status}", content.len());
    }
    // DATA on a stream that is not there, a frame that is too large, HEADERS on an even stream.
    for bytes in [
        frame(kind::DATA, 1, 5, b"x"),
        frame(kind::HEADERS, 5, 1, &vec![0; 20_000]),
        frame(kind::HEADERS, 5, 2, &block(&head)),
        frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(kind::SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(kind::PING, 0, 0, &[0; 7]),
    ] {
        let mut client = H2::connect(wharf.addr(), &[]);
        client.raw(&bytes).unwrap();
        assert!(client.goaway().is_some_and(|code| code != 0), "{:?}", &bytes[..9]);
    }
    assert_well(&wharf, descriptors);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let wharf = start(&["server.http2.max_streams=5"]);
    let mut client = H2::connect(wharf.addr(), &[]);
    let streams: Vec<u32> = (0..8).map(|_| client.get("/shop/slow", &[]).unwrap()).collect();
    let (mut answered, mut refused) = (0, 0);
    while answered + refused < streams.len() {
        let frame = client.read().unwrap();
        match frame.kind {
            kind::HEADERS => answered += 1,
            // REFUSED_STREAM: it may be tried again.
            kind::RST_STREAM if frame.number(0) == 7 => refused += 1,
            _ => {}
        }
    }
    assert_eq!((answered, refused), (5, 3));
}

#[test]
fn windows_that_never_open_hold_nothing_for_long() {
    let wharf = start(&["server.limits.send_timeout=1s"]);
    let content = vec![b'x'; 4 << 20];
    assert!(matches!(wharf.send("PUT", "/transfer/files/big", &[], &content).status, 200 | 201));
    let descriptors = warm(&wharf);
    let memory = wharf.resident_kib();
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut client = H2::connect(wharf.addr(), &[(4, 0)]);
    for _ in 0..100 {
        client.get("/transfer/files/big", &[]).unwrap();
    }
    assert!(client.is_closed());
    assert!(wharf.resident_kib() < memory + 40_000, "{memory} KiB have become {}", wharf.resident_kib());
    assert_well(&wharf, descriptors);
}

#[test]
fn idle_connections_and_silent_ones_are_closed() {
    let wharf = start(&["server.limits.keep_alive_timeout=400ms", "server.limits.header_timeout=400ms"]);
    let descriptors = warm(&wharf);
    let mut silent = H2::connect(wharf.addr(), &[]);
    assert_eq!(silent.goaway(), Some(0), "no request came");
    let mut client = H2::connect(wharf.addr(), &[]);
    // Longer than the idle time, and yet not idle.
    let stream = client.get("/shop/slow", &[]).unwrap();
    assert_eq!(client.status(stream), 200);
    assert_eq!(client.goaway(), Some(0));
    assert_well(&wharf, descriptors);
}

#[test]
fn an_application_that_does_not_answer_costs_its_request_alone() {
    let wharf = start(&["server.limits.response_timeout=300ms"]);
    let mut client = H2::connect(wharf.addr(), &[]);
    let slow = client.get("/shop/slow", &[]).unwrap();
    assert_eq!(client.status(slow), 504);
    let next = client.get("/shop/", &[]).unwrap();
    assert_eq!(client.status(next), 200);
}

#[test]
fn a_stop_lets_requests_end_and_says_goodbye() {
    let mut wharf = start(&[]);
    let mut idle = H2::connect(wharf.addr(), &[]);
    let first = idle.get("/shop/", &[]).unwrap();
    assert_eq!(idle.status(first), 200);
    let mut busy = H2::connect(wharf.addr(), &[]);
    let stream = busy.get("/shop/slow", &[]).unwrap();
    wait("the request to be under way", || (wharf.app("shop")["generations"][0]["leases"] == 1).then_some(()));
    wharf.signal(Signal::TERM);
    let mut goodbye = false;
    let answer = busy.read_until(|f| {
        goodbye |= f.kind == kind::GOAWAY && f.number(4) == 0;
        f.stream == stream && f.kind == kind::DATA
    });
    assert_eq!(answer.map(|f| f.payload).as_deref(), Some(&b"one"[..]));
    assert!(goodbye, "no GOAWAY");
    assert_eq!(idle.goaway(), Some(0));
    assert!(wharf.wait_end().success());
}
