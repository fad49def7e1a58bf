//! WebSocket and other upgrades: the opening handshake, frames that are right and wrong, and what becomes of open
//! connections when an application goes.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use wharf_tests::{ACCEPT, Client, HANDSHAKE, RawSocket, Site, Wharf, library, marked, wait, within};

fn sockets(version: &str) -> Vec<u8> {
    marked(library("sockets"), "VERSION:one", &format!("VERSION:{version}"))
}

fn start(arguments: &[&str]) -> Wharf {
    Site::new().with("deploy/s.so", sockets("one")).start(arguments)
}

fn open(wharf: &Wharf, target: &str) -> RawSocket {
    RawSocket::open(wharf.addr(), target, &[]).unwrap_or_else(|e| panic!("{target}: {e}"))
}

/// What the open sockets of the application are, by the metrics.
fn open_upgrades(wharf: &Wharf) -> u64 {
    let text = wharf.admin("GET", "/v1/metrics").text();
    let line = text.lines().find(|l| l.starts_with("wharf_upgrades_open{app=\"/s\"")).unwrap_or_default();
    line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A row of the table of opening handshakes: the section of RFC 6455 that it holds, the method, what is changed in a right
/// handshake (`None` takes the field away), and the status that is due.
type Row = (&'static str, &'static str, &'static [(&'static str, Option<&'static str>)], u16);

const ROWS: &[Row] = &[
    ("4.2.2: a right handshake", "GET", &[], 101),
    ("4.1 (2): another method", "POST", &[], 405),
    ("4.1 (2): another method", "HEAD", &[], 405),
    ("4.1 (2): another method", "OPTIONS", &[], 405),
    ("4.2.1 (3): no Upgrade", "GET", &[("Upgrade", None)], 426),
    ("4.2.1 (3): another Upgrade", "GET", &[("Upgrade", Some("h2c"))], 426),
    ("4.2.1 (3): any case", "GET", &[("Upgrade", Some("WebSocket"))], 101),
    ("4.2.1 (3): one of several", "GET", &[("Upgrade", Some("h2c, websocket"))], 101),
    ("4.2.1 (4): no Connection", "GET", &[("Connection", None)], 400),
    ("4.2.1 (4): another Connection", "GET", &[("Connection", Some("keep-alive"))], 400),
    ("4.2.1 (4): one of several", "GET", &[("Connection", Some("keep-alive, UPGRADE"))], 101),
    ("4.2.1 (5): no key", "GET", &[("Sec-WebSocket-Key", None)], 400),
    ("4.2.1 (5): an empty key", "GET", &[("Sec-WebSocket-Key", Some(""))], 400),
    ("4.2.1 (5): 15 bytes", "GET", &[("Sec-WebSocket-Key", Some("MTIzNDU2Nzg5MDEyMzQ1"))], 400),
    ("4.2.1 (5): 17 bytes", "GET", &[("Sec-WebSocket-Key", Some("MTIzNDU2Nzg5MDEyMzQ1Njc="))], 400),
    ("4.2.1 (5): no base64", "GET", &[("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25j!Q=="))], 400),
    (
        "11.3.1: two keys",
        "GET",
        &[("Sec-WebSocket-Key", Some("dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))],
        400,
    ),
    ("4.2.1 (6): no version", "GET", &[("Sec-WebSocket-Version", None)], 400),
    ("4.4: version 12", "GET", &[("Sec-WebSocket-Version", Some("12"))], 426),
    ("4.4: version 8", "GET", &[("Sec-WebSocket-Version", Some("8"))], 426),
    ("4.4: no number", "GET", &[("Sec-WebSocket-Version", Some("x"))], 426),
    ("11.3.5: two versions", "GET", &[("Sec-WebSocket-Version", Some("13\r\nSec-WebSocket-Version: 13"))], 400),
    ("4.2.1 (8): a list that is none", "GET", &[("Sec-WebSocket-Protocol", Some("a,,b"))], 400),
    ("4.1 (10): a protocol twice", "GET", &[("Sec-WebSocket-Protocol", Some("a, a"))], 400),
    ("4.1 (10): a protocol that is no token", "GET", &[("Sec-WebSocket-Protocol", Some("a b"))], 400),
    ("4.2.2 (5): none in common", "GET", &[("Sec-WebSocket-Protocol", Some("soap"))], 101),
    ("9.1: an extension nobody knows", "GET", &[("Sec-WebSocket-Extensions", Some("x-snappy; level=9"))], 101),
    ("10.2: the same origin", "GET", &[("Origin", Some("http://localhost"))], 101),
    ("10.2: another origin", "GET", &[("Origin", Some("http://evil.example"))], 403),
    ("10.2: another port", "GET", &[("Origin", Some("http://localhost:8081"))], 403),
    ("10.2: an origin that is hidden", "GET", &[("Origin", Some("null"))], 403),
    ("10.2: two origins", "GET", &[("Origin", Some("http://localhost\r\nOrigin: http://evil.example"))], 403),
    ("4.1 (RFC 9110, 7.8): content", "GET", &[("Content-Length", Some("3"))], 400),
    ("4.1 (RFC 9110, 7.8): content", "GET", &[("Transfer-Encoding", Some("chunked"))], 400),
];

#[test]
fn opening_handshakes_are_answered_by_the_letter() {
    let wharf = start(&[]);
    for (rule, method, changes, want) in ROWS {
        let mut client = wharf.connect();
        let mut head = format!("{method} /s/echo HTTP/1.1\r\nHost: localhost\r\n");
        let changed = |name: &str| changes.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        for (name, value) in HANDSHAKE {
            if let Some(value) = changed(name).unwrap_or(Some(value)) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        for (name, value) in changes.iter().filter(|(name, _)| HANDSHAKE.iter().all(|(n, _)| n != name)) {
            head.push_str(&format!("{name}: {}\r\n", value.unwrap_or_default()));
        }
        client.write_raw(format!("{head}\r\n").as_bytes()).unwrap();
        let answer = client.read_head().unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert_eq!(answer.status, *want, "{rule}: {method} {changes:?} {answer:?}");
        let header = |name: &str| answer.header(name).map(str::to_ascii_lowercase);
        match want {
            101 => {
                assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT), "{rule}");
                assert_eq!(header("upgrade").as_deref(), Some("websocket"), "{rule}");
                assert_eq!(header("connection").as_deref(), Some("upgrade"), "{rule}");
                assert_eq!(header("sec-websocket-extensions").or(header("sec-websocket-protocol")), None, "{rule}");
            }
            405 => assert_eq!(answer.header("allow"), Some("GET"), "{rule}"),
            426 => {
                assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{rule}");
                assert_eq!(header("upgrade").as_deref(), Some("websocket"), "{rule}");
            }
            _ => {}
        }
    }
    // RFC 6455, section 4.2.1 (1): HTTP/1.1 or higher.
    let mut client = wharf.connect();
    let fields: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.write_raw(format!("GET /s/echo HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n").as_bytes()).unwrap();
    assert_eq!(client.read_head().unwrap_err().kind(), io::ErrorKind::InvalidData, "no HTTP/1.1 answer");
    // What only looks like an upgrade is an ordinary request.
    let ignored = wharf.send("GET", "/s/", &[("Connection", "Upgrade"), ("Upgrade", "h2c")], b"");
    assert_eq!((ignored.status, ignored.text().as_str()), (200, "one generation 1\n"));
    let ignored = wharf.send("GET", "/s/", &[("Connection", "Upgrade"), ("Upgrade", "h2c")], b"abc");
    assert_eq!(ignored.status, 200);
    // A 101 that nothing follows is a mistake of the application, whether it was asked for or not.
    for headers in [&HANDSHAKE[..], &[]] {
        assert_eq!(wharf.send("GET", "/s/no-switch", headers, b"").status, 500);
    }
    assert_eq!(wharf.get("/s/raw").status, 426);
}

/// A row of the table of frames: the section of RFC 6455, the frames as first byte and content, and the code that is due.
type Frames = (&'static str, &'static [(u8, &'static [u8])], u16);

const FRAMES: &[Frames] = &[
    ("5.2: a reserved bit", &[(0xc1, b"x")], 1002),
    ("5.2: a reserved bit", &[(0xa1, b"x")], 1002),
    ("5.2: a reserved bit", &[(0x91, b"x")], 1002),
    ("5.2: a reserved opcode", &[(0x83, b"x")], 1002),
    ("5.2: a reserved control opcode", &[(0x8b, b"x")], 1002),
    ("5.4: a continuation of nothing", &[(0x80, b"x")], 1002),
    ("5.4: a message within another", &[(0x01, b"a"), (0x81, b"b")], 1002),
    ("5.5: a ping of 126 bytes", &[(0x89, &[b'x'; 126])], 1002),
    ("5.5: a ping in fragments", &[(0x09, b"x")], 1002),
    ("5.5.1: a close frame of one byte", &[(0x88, b"x")], 1002),
    ("5.5.1: a reason that is not UTF-8", &[(0x88, &[3, 0xe8, 0xff])], 1007),
    ("5.6: text that is not UTF-8", &[(0x81, &[0xc0, 0x80])], 1007),
    ("8.1: text that is not UTF-8, in fragments", &[(0x01, &[0xce]), (0x80, &[0xff])], 1007),
    ("7.4.1: close code 1005 on the wire", &[(0x88, &[3, 0xed])], 1002),
    ("7.4.1: close code 1006 on the wire", &[(0x88, &[3, 0xee])], 1002),
    ("7.4.2: close code 999", &[(0x88, &[3, 0xe7])], 1002),
    ("7.4.1: the code comes back", &[(0x88, &[3, 0xe8])], 1000),
    ("7.4.2: an application's code comes back", &[(0x88, &[0x0f, 0xa1])], 4001),
    ("7.4.1: no code comes back as none", &[(0x88, &[])], 1005),
    ("10.4: a message above the limit", &[(0x01, &[b'x'; 600]), (0x80, &[b'x'; 600])], 1009),
    ("10.4: a frame above the limit", &[(0x81, &[b'x'; 700])], 1009),
];

#[test]
fn wrong_frames_fail_the_connection_with_the_right_code() {
    let wharf = start(&[]);
    for (rule, frames, want) in FRAMES {
        let mut socket = open(&wharf, "/s/strict");
        assert_eq!(socket.recv_text(), "none");
        frames.iter().for_each(|(first, payload)| socket.send(*first, payload).unwrap());
        assert_eq!(socket.closed().unwrap_or_else(|e| panic!("{rule}: {e}")), *want, "{rule}");
    }
    // Section 5.1: a frame that is not masked.
    let mut socket = open(&wharf, "/s/echo");
    socket.send_bytes(&[0x81, 2, b'h', b'i']).unwrap();
    assert_eq!(socket.closed().unwrap(), 1002);
    // Section 5.2: a length that nobody can have; nothing of it is waited for or made room for.
    let mut socket = open(&wharf, "/s/echo");
    socket.send_bytes(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]).unwrap();
    assert_eq!(socket.closed().unwrap(), 1009);
    wait("all to be over", || (open_upgrades(&wharf) == 0).then_some(()));
}

#[test]
fn messages_of_all_kinds_come_back() {
    let wharf = start(&[]);
    for target in ["/s/echo", "/s/axum/echo"] {
        let stream = std::net::TcpStream::connect(wharf.addr()).unwrap();
        let (mut socket, _) = tungstenite::client(format!("ws://localhost{target}"), stream).unwrap();
        for len in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
            let message = tungstenite::Message::text("x".repeat(len));
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message, "{target}: {len}");
            let message = tungstenite::Message::binary(vec![0xff; len]);
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message, "{target}: {len}");
        }
        socket.send(tungstenite::Message::Ping(vec![7; 125].into())).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::Pong(vec![7; 125].into()));
        socket.close(None).unwrap();
        assert!(socket.read().unwrap().is_close());
        assert!(matches!(socket.read().unwrap_err(), tungstenite::Error::ConnectionClosed));
    }
    // In fragments, with a ping between them, which is answered at once (sections 5.4 and 5.5.2).
    let mut socket = open(&wharf, "/s/echo");
    socket.send(0x01, b"one ").unwrap();
    socket.send(0x89, b"are you there").unwrap();
    let pong = socket.recv().unwrap();
    assert_eq!((pong.first, pong.payload.as_slice()), (0x8a, &b"are you there"[..]));
    socket.send(0x00, b"two ").unwrap();
    socket.send(0x80, b"three").unwrap();
    assert_eq!(socket.recv_text(), "one two three");
    // What the client sends right behind its handshake belongs to the socket, and so does all that comes in one piece.
    for target in ["/s/echo", "/s/axum/echo"] {
        let mut client = wharf.connect();
        let fields: String = HANDSHAKE.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut bytes = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes();
        bytes.extend([0x81, 0x82, 0, 0, 0, 0, b'h', b'i', 0x88, 0x80, 0, 0, 0, 0]);
        client.write_raw(&bytes).unwrap();
        assert_eq!(client.read_head().unwrap().status, 101, "{target}");
        assert_eq!(client.rest().unwrap(), [0x81, 2, b'h', b'i', 0x88, 0], "{target}");
    }
    // Many at once.
    let mut all = Vec::new();
    for n in 0..200_u8 {
        all.extend([0x82, 0x81, 0, 0, 0, 0, n]);
    }
    socket.send_bytes(&all).unwrap();
    for n in 0..200_u8 {
        assert_eq!(socket.recv().unwrap().payload, [n]);
    }
}

#[test]
fn protocols_origins_and_the_ways_to_end() {
    let wharf = start(&[]);
    let strict = |headers: &[(&str, &str)]| RawSocket::open_with(wharf.addr(), "/s/strict", headers);
    // The first that the client asks for among those that are spoken (section 4.2.2, number 5).
    let (mut socket, answer) = strict(&[("Sec-WebSocket-Protocol", "soap, chat.v1, chat.v2")]).unwrap();
    assert_eq!((socket.recv_text().as_str(), answer.header("sec-websocket-protocol")), ("chat.v1", Some("chat.v1")));
    for (origin, good) in
        [("https://app.example.com", true), ("http://localhost", true), ("http://app.example.com", false)]
    {
        assert_eq!(strict(&[("Origin", origin)]).is_ok(), good, "{origin}");
    }
    for (say, code) in [("bye", 1000), ("close", 4001), ("fail", 1011), ("panic", 1011)] {
        let (mut socket, _) = strict(&[]).unwrap();
        socket.text(say).unwrap();
        assert_eq!(socket.closed().unwrap(), code, "{say}");
    }
    assert!(wharf.log().contains("as the test asked for"));
    // A raw connection whose handler panics is closed.
    let mut raw = Client::connect(wharf.addr()).unwrap();
    raw.write("GET", "/s/raw", &[("Connection", "upgrade"), ("Upgrade", "echo")], b"").unwrap();
    assert_eq!(raw.read("GET").unwrap().status, 101);
    raw.write_raw(b"!").unwrap();
    assert_eq!(raw.rest().unwrap(), b"");
    // A panic costs its own socket alone.
    assert_eq!(wharf.get("/s/").status, 200);
}

#[test]
fn a_client_that_is_silent_idle_or_does_not_read_is_let_go() {
    let wharf = start(&[]);
    // It is pinged, and answers nothing.
    let mut silent = open(&wharf, "/s/silent");
    assert!(silent.recv_text().starts_with("socket "));
    assert_eq!(silent.recv().unwrap().first, 0x89);
    assert!(!silent.ended().unwrap(), "a lost connection gets no close frame");
    // One that answers stays.
    let mut lively = open(&wharf, "/s/silent");
    lively.recv_text();
    for _ in 0..3 {
        let ping = lively.recv().unwrap();
        assert_eq!(ping.first, 0x89);
        lively.send(0x8a, &ping.payload).unwrap();
    }
    let mut idle = open(&wharf, "/s/idle");
    assert_eq!(idle.closed().unwrap(), 1000);
    // It reads nothing of what comes: the server stops sending, and lets it go.
    let _deaf = open(&wharf, "/s/flood");
    wait("the end of the flood", || wharf.log().contains("the flood ends").then_some(()));
    drop(lively);
    wait("all to be over", || (open_upgrades(&wharf) == 0).then_some(()));
}

#[test]
fn open_connections_are_counted_and_written_down_when_they_end() {
    let wharf = start(&[]);
    let metric = |name: &str| {
        let text = wharf.admin("GET", "/v1/metrics").text();
        text.lines().find(|l| l.starts_with(name)).map(str::to_owned).unwrap_or_default()
    };
    let mut socket = open(&wharf, "/s/echo");
    let mut raw = Client::connect(wharf.addr()).unwrap();
    raw.write("GET", "/s/raw", &[("Connection", "upgrade"), ("Upgrade", "ECHO")], b"").unwrap();
    assert_eq!(raw.read("GET").unwrap().status, 101);
    socket.text("hello").unwrap();
    assert_eq!(socket.recv_text(), "hello");
    assert_eq!(open_upgrades(&wharf), 2);
    assert_eq!(metric("wharf_connections_open"), "wharf_connections_open 2");
    assert!(metric("wharf_requests_in_flight").ends_with(" 0"));
    assert_eq!(wharf.app("s")["generations"][0]["leases"], 2);
    assert!(!wharf.output().contains(" 101 "));
    socket.send(0x88, &[3, 0xe8]).unwrap();
    assert_eq!(socket.closed().unwrap(), 1000);
    drop(raw);
    wait("the end of both", || (open_upgrades(&wharf) == 0).then_some(()));
    // The frames that were sent: 7 bytes and 4.
    let line = wait("the record", || wharf.output().lines().find(|l| l.contains("/s/echo")).map(str::to_owned));
    assert!(line.contains("\"GET /s/echo HTTP/1.1\" 101 11 "), "{line}");
    assert_eq!(metric("wharf_connections_open"), "wharf_connections_open 0");
    assert!(metric("wharf_upgrades_total").ends_with(" 2"));
    wait("no lease", || (wharf.app("s")["generations"][0]["leases"] == 0).then_some(()));
}

#[test]
fn a_redeploy_closes_every_socket_with_1001_and_unloads_the_generation() {
    let wharf = start(&[]);
    let targets = ["/s/echo", "/s/named", "/s/strict", "/s/axum/echo", "/s/axum/hang"];
    for round in 2..5 {
        let mut open: Vec<_> = targets.iter().flat_map(|t| [open(&wharf, t), open(&wharf, t)]).collect();
        // In the middle of a message of its own, too.
        open[0].send(0x01, b"half a mess").unwrap();
        let mut raw = Client::connect(wharf.addr()).unwrap();
        raw.write("GET", "/s/raw", &[("Connection", "upgrade"), ("Upgrade", "echo")], b"").unwrap();
        assert_eq!(raw.read("GET").unwrap().status, 101);
        let version = format!("v{round}");
        wharf.put("deploy/s.so", sockets(&version));
        wharf.wait_for("/s/", &format!("{version} generation {round}\n"));
        for (at, socket) in open.iter_mut().enumerate() {
            let code = socket.closed().unwrap_or_else(|e| panic!("{}: {e}", targets[at / 2]));
            assert_eq!(code, 1001, "{}", targets[at / 2]);
        }
        raw.skip(7).unwrap();
        // New ones are the new generation's.
        let mut socket = self::open(&wharf, "/s/named");
        assert_eq!(socket.recv_text(), format!("{version} generation {round}"));
        drop(socket);
        wharf.wait_alone("s");
        let mapped = wharf.mapped();
        assert!(mapped.len() == 1 && mapped.iter().all(|m| m.starts_with(&format!("s.{round}."))), "{mapped:?}");
    }
    assert!(!wharf.log().contains("were cut"), "{}", wharf.log());
}

#[test]
fn what_does_not_end_in_the_drain_time_is_cut_and_the_generation_goes() {
    let wharf = start(&["--set", "server.drain_timeout=1s"]);
    let mut hung = open(&wharf, "/s/hang");
    let mut client = Client::connect(wharf.addr()).unwrap();
    client.write("GET", "/s/raw", &[("Connection", "upgrade"), ("Upgrade", "echo")], b"").unwrap();
    assert_eq!(client.read("GET").unwrap().status, 101);
    wharf.put("deploy/s.so", sockets("two"));
    // The handler hangs; its client is told all the same.
    assert_eq!(hung.closed().unwrap(), 1001);
    wharf.wait_alone("s");
    assert_eq!(wharf.mapped().len(), 1);
    assert!(wharf.log().contains("upgraded connections did not end within the drain time of 1s and were cut"));
    assert!(wharf.admin("GET", "/v1/metrics").text().contains("wharf_upgrades_cut_total 1\n"));
    assert_eq!(wharf.get("/s/").text(), "two generation 2\n");
    // By undeployment it is the same.
    let mut socket = open(&wharf, "/s/axum/hang");
    wharf.remove("deploy/s.so");
    assert_eq!(socket.closed().unwrap(), 1001);
    within(Duration::from_secs(30), "nothing mapped", || wharf.mapped().is_empty().then_some(()));
}

#[test]
fn a_stop_of_the_container_says_goodbye_and_waits_for_it() {
    let mut wharf = start(&[]);
    let mut all: Vec<_> = ["/s/echo", "/s/hang", "/s/axum/echo"].iter().map(|target| open(&wharf, target)).collect();
    wharf.signal(Signal::TERM);
    for socket in &mut all {
        assert_eq!(socket.closed().unwrap(), 1001);
    }
    assert!(wharf.wait_end().success(), "{}", wharf.log());
}

#[test]
fn a_stop_does_not_wait_for_ever_for_an_upgraded_connection() {
    let mut wharf = start(&["--set", "server.drain_timeout=500ms"]);
    let mut rude = open(&wharf, "/s/echo");
    wharf.signal(Signal::TERM);
    // It reads the goodbye and does not answer.
    assert_eq!(rude.recv().unwrap().close_code(), Some(1001));
    let status = wharf.wait_end();
    assert!(!status.success() && wharf.log().contains("1 connections were cut"), "{status} {}", wharf.log());
}
