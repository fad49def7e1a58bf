//! Broken backends, hostile clients: what is tried again, what gets through, what ends how.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use wharf_tests::{Site, wait};

use crate::{Backend, head, proxy, proxy_with, raw, toml};

#[test]
fn a_websocket_becomes_a_tunnel_and_ends_with_its_application() {
    let a = Backend::named("a");
    let wharf = proxy_with(&[a.url()], "", &["--set", "server.drain_timeout=1s"]);
    let ask = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", "a2V5")];
    let mut client = wharf.connect();
    client.write("GET", "/tunnel", &ask, b"").expect("it is sent");
    let answer = client.read_head().expect("an answer");
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    let hello = b"17\r\nbytes through it\r\n";
    client.write_raw(hello).expect("bytes go in");
    client.skip(hello.len() as u64).expect("and come back");
    // A backend that does not change over: an ordinary answer, and the connection goes on.
    let mut other = wharf.connect();
    assert_eq!(other.send("GET", "/", &ask, b"").expect("an answer").status, 200);
    assert_eq!(other.get("/").expect("the connection lives").status, 200);
    assert!(other.send("GET", "/seen", &[("Upgrade", "h2c"), ("Connection", "Upgrade")], b"").unwrap().status == 200);

    wharf.remove("deploy/ROOT.toml");
    assert!(client.skip(1).is_err(), "the tunnel ends");
    wait("nothing to be left", || wharf.list().is_empty().then_some(()));
}

#[test]
fn a_backend_that_changes_the_protocol_unasked_opens_no_tunnel() {
    let (addr, _) = raw(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
        let _ = stream.read(&mut [0; 9]);
    });
    let wharf = proxy(&[format!("http://{addr}")], "");
    assert_eq!(wharf.get("/").status, 502);
}

#[test]
fn only_what_is_safe_is_tried_again() {
    // Answers once, then closes the connection on the next request, as one that went idle would.
    let (stale, connections) = raw(|mut stream| {
        if head(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            head(&mut stream);
        }
    });
    let wharf = proxy_with(&[format!("http://{stale}")], "", &["--set", "server.workers=1"]);
    let mut client = wharf.connect();
    assert_eq!(client.get("/").unwrap().status, 200);
    assert_eq!(client.get("/").unwrap().status, 200, "a GET is sent again on a new connection");
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    let post = client.send("POST", "/", &[], b"once").unwrap();
    assert_eq!((post.status, connections.load(Ordering::SeqCst)), (502, 2), "a POST is not sent twice");
    assert_eq!(client.send("PUT", "/", &[], b"twice").unwrap().status, 200);

    // Where the connection is refused nothing was sent, so another may have even a streamed POST.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let a = Backend::named("a");
    let wharf = proxy(&[format!("http://{closed}"), a.url()], "eject.failures = 0");
    for _ in 0..6 {
        let body = vec![b'x'; 200_000];
        assert_eq!(wharf.send("POST", "/echo", &[], &body).body, body);
    }
}

#[test]
fn failures_have_their_status_and_second_tries_a_budget() {
    let closed = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let a = Backend::named("a");
    let more = "first_byte_timeout = \"200ms\"\nretry.attempts = 2\neject.failures = 0";
    let (cut, _) = raw(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
    });
    let (mad, tries) = raw(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx");
    });
    let wharf = Site::new()
        .with("deploy/down.toml", toml(&[format!("http://{}", closed()), format!("http://{}", closed())], ""))
        .with("deploy/slow.toml", toml(&[a.url()], more))
        .with("deploy/cut.toml", toml(&[format!("http://{cut}")], ""))
        .with(
            "deploy/mad.toml",
            toml(
                &[format!("http://{mad}"), format!("http://localhost:{}", mad.port())],
                "retry = { percent = 0, min_per_second = 0 }",
            ),
        )
        .start(&[]);
    let down = wharf.get("/down/");
    assert_eq!((down.status, down.header("retry-after")), (503, Some("1")));
    assert_eq!(wharf.get("/slow/never").status, 504);
    assert!(wharf.connect().get("/cut/").is_err(), "a body that is cut off is not passed for a whole one");
    assert_eq!(wharf.get("/mad/").status, 502, "two lengths are no length");
    assert_eq!(tries.load(Ordering::SeqCst), 1, "without a budget there is no second try");
    wait("the log to say why", || wharf.log().contains("the budget for second tries is used up").then_some(()));
    assert_eq!(wharf.get("/slow/").text(), "a");
}

#[test]
fn a_loop_ends_and_smuggled_requests_reach_nobody() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let (count, requests) = raw(|mut stream| {
        while head(&mut stream) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let wharf = Site::new()
        .with("deploy/ROOT.toml", toml(&[format!("http://{port}")], "host = \"backend\""))
        .with("deploy/count.toml", toml(&[format!("http://{count}")], ""))
        .start(&["--set", &format!("server.listen=127.0.0.1:0,{port}")]);
    assert_eq!(wharf.get("/").status, 508);
    for smuggled in [
        "POST /count/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "POST /count/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
        "POST /count/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET /count/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    ] {
        let mut client = wharf.connect();
        client.write_raw(smuggled.as_bytes()).unwrap();
        let status = client.read("POST").map_or(400, |a| a.status);
        assert!((400..500).contains(&status), "{smuggled:?}: {status}");
    }
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    // Both framings: chunked wins, and the backend sees one of them.
    let a = Backend::named("a");
    wharf.put("deploy/seen.toml", toml(&[a.url()], ""));
    wait("seen to serve", || (wharf.get("/seen/").status == 200).then_some(()));
    let mut client = wharf.connect();
    let both = "POST /seen/seen HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /x HTTP/1.1\r\n";
    client.write_raw(both.as_bytes()).unwrap();
    let answer = client.read("POST").unwrap();
    if answer.status == 200 {
        assert!(
            answer.text().ends_with("\n3 bytes") && !answer.text().contains("content-length: 50"),
            "{}",
            answer.text()
        );
        assert!(answer.is_last());
    } else {
        assert_eq!(answer.status, 400);
    }
}

#[test]
fn a_cookie_keeps_a_client_at_its_backend_and_a_forged_one_does_not() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let wharf = proxy(&[a.url(), b.url()], "sticky = {}");
    let first = wharf.get("/");
    let cookie = first.header("set-cookie").expect("a cookie").split(';').next().expect("its value").to_owned();
    assert!(!cookie.contains("127.0.0.1"), "{cookie}");
    for _ in 0..6 {
        let again = wharf.send("GET", "/", &[("Cookie", &cookie)], b"");
        assert_eq!((again.text(), again.header("set-cookie")), (first.text(), None));
    }
    for forged in ["WHARFROUTE=http://169.254.169.254", &format!("{cookie}0"), &cookie.replace('.', "0.")] {
        let answer = wharf.send("GET", "/", &[("Cookie", forged)], b"");
        assert!(answer.status == 200 && answer.header("set-cookie").is_some(), "{forged}");
    }
    // The backend goes: another takes over.
    drop(if first.text() == "a" { a } else { b });
    let other = wharf.send("GET", "/", &[("Cookie", &cookie)], b"");
    assert!(other.status == 200 && other.text() != first.text() && other.header("set-cookie").is_some());
}

#[test]
fn content_is_streamed_and_held_back_both_ways() {
    let (addr, _) = raw(|mut stream| {
        head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
        // The rest only comes when the test has read the first piece; see the channel below.
        head(&mut stream);
    });
    let wharf = proxy(&[format!("http://{addr}")], "");
    let mut client = wharf.connect();
    client.write("GET", "/", &[], b"").unwrap();
    assert_eq!(client.read_head().unwrap().status, 200);
    assert_eq!(client.read_chunk().unwrap().unwrap(), b"one", "before the rest is there");

    // A backend that reads nothing: what it is sent stays with the client, not in the container.
    let (done, wait_done) = mpsc::channel::<()>();
    let wait_done = std::sync::Mutex::new(wait_done);
    let (deaf, _) = raw(move |_stream| {
        let _ = wait_done.lock().unwrap().recv();
    });
    let wharf = proxy_with(&[format!("http://{deaf}")], "", &["--set", "server.limits.body=1000000000"]);
    let before = wharf.resident_kib();
    let mut stream = TcpStream::connect(wharf.addr()).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n").unwrap();
    let block = vec![0; 1 << 20];
    let sent = (0..400).take_while(|_| stream.write_all(&block).is_ok()).count();
    assert!(sent < 100, "{sent} MiB went into nothing");
    assert!(wharf.resident_kib() < before + 20_000);
    drop(done);
}
