//! Polls that do not come back, or run long: what else their worker was at goes on.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use wharf_tests::h2::kind;
use wharf_tests::neighbours::{BAD, answers, begin, count, metric, neighbours};
use wharf_tests::{Authority, Client, H2, RawSocket, Site, chameleon, library, wait};

#[test]
fn a_poll_that_never_returns_keeps_nobody_else_out() {
    let wharf = neighbours("", &["--set", "server.workers=1"]);
    let mut spinning = begin(&wharf, "/bad/spin", 1);
    wait("the poll", || (wharf.app("bad")["load"]["in_flight"] == 1).then_some(()));
    // At once, and so handed to the one worker that there is, before anything could be seen of what it is in.
    let begin_at = Instant::now();
    let answers = answers(begin(&wharf, "/good/", 20));
    assert_eq!(count(&answers, 200), 20);
    assert!(begin_at.elapsed() < Duration::from_secs(5), "{:?}", begin_at.elapsed());
    let log = wharf.log();
    let line = log.lines().find(|l| l.contains("has not come back")).expect("a line in the log");
    for part in ["app=/bad", "target=\"/bad/spin\"", "thread=\"wharf-worker-0\"", "request="] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(metric(&wharf, &format!("wharf_stuck_polls{BAD}}}")), Some(1));
    assert!(wharf.cli(&["list"]).out.contains("1 polls do not come back, polled on threads of its own"));

    // Its next requests are polled elsewhere, and its content as well.
    let threads = wharf.get("/bad/thread").text();
    assert!(threads.split(' ').all(|t| t.starts_with("own-")), "{threads}");
    // Held as long as it does not come back, and gone when it does.
    wharf.put("deploy/bad.so", chameleon("bad2"));
    wharf.wait_for("/bad/", "bad2");
    assert_eq!(wharf.get("/good/").text(), "good");
    spinning.clear();
}

#[test]
fn open_connections_of_a_stuck_worker_go_on_elsewhere() {
    let wharf = neighbours("", &["--set", "server.workers=2"]);
    let mut kept: Vec<Client> = (0..12).map(|_| wharf.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/good/").unwrap().status, 200);
    }
    let spinning = begin(&wharf, "/bad/spin", 1);
    wait("the poll", || (wharf.app("bad")["load"]["in_flight"] == 1).then_some(()));
    // Before anybody has seen that it does not come back, and again when it is known.
    for _ in 0..2 {
        let begin_at = Instant::now();
        kept.iter_mut().for_each(|client| client.write("GET", "/good/", &[], b"").unwrap());
        for client in &mut kept {
            assert_eq!(client.read("GET").unwrap().text(), "good");
        }
        assert!(begin_at.elapsed() < Duration::from_secs(5), "{:?}", begin_at.elapsed());
    }
    assert!(wharf.log().contains("go on elsewhere"), "{}", wharf.log());
    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    assert_eq!(answers(spinning)[0].text(), "spun");
    wait("the end of it", || (wharf.app("bad")["load"]["stuck_polls"] == 0).then_some(()));
    for client in &mut kept {
        assert_eq!(client.get("/good/").unwrap().status, 200);
    }
    wait("the count", || (metric(&wharf, "wharf_connections_open") == Some(kept.len() as u64)).then_some(()));
}

/// Whatever a worker was at when a poll did not come back, but for that poll.
#[test]
fn requests_under_way_and_connections_of_every_kind_leave_a_stuck_worker() {
    const EACH: usize = 6;
    let authority = Authority::new("ours");
    let site = Site::new()
        .with("deploy/good.so", chameleon("good"))
        .with("deploy/bad.so", chameleon("bad"))
        .with("deploy/s.so", library("sockets"));
    authority.certify(&site.path("")).unwrap();
    let wharf = site.start(&[
        "--set",
        "server.listen=[\"127.0.0.1:0\", \"https://127.0.0.1:0\"]",
        "--set",
        "server.http2.cleartext=true",
        "--set",
        "server.workers=2",
    ]);
    let http1 = || (0..EACH).map(|_| wharf.connect()).collect::<Vec<_>>();
    let http2 = || (0..EACH).map(|_| H2::connect(wharf.addr(), &[])).collect::<Vec<_>>();
    let config = authority.trusting();
    let tls = |_| {
        let session = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(wharf.secure_addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Client::over(StreamOwned::new(session, socket));
        assert_eq!(client.get("/good/").unwrap().text(), "good");
        client
    };

    // Idle: encrypted, after content, as HTTP/2, as a WebSocket, and upgraded to what a thread of the application reads.
    let mut encrypted: Vec<_> = (0..EACH).map(tls).collect();
    let mut after_content = http1();
    after_content
        .iter_mut()
        .for_each(|c| assert_eq!(c.send("POST", "/good/elsewhere", &[], b"x").unwrap().text(), "x"));
    let mut streams = http2();
    for client in &mut streams {
        let stream = client.get("/good/", &[]).unwrap();
        assert_eq!(client.status(stream), 200);
    }
    let open = |target: &str| RawSocket::open(wharf.addr(), target, &[]).unwrap();
    let mut sockets: Vec<_> = (0..EACH).map(|at| open(["/s/echo", "/s/axum/echo"][at % 2])).collect();
    let mut upgraded = http1();
    for client in &mut upgraded {
        client.write_raw(b"GET /s/away HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").unwrap();
        assert_eq!(client.read_head().unwrap().status, 101);
    }
    // Under way: the application waits, the client has sent a part of the head or of the content.
    let mut waiting = begin(&wharf, "/good/wait?millis=3000", EACH);
    let mut waiting_streams = http2();
    let numbers: Vec<_> = waiting_streams.iter_mut().map(|c| c.get("/good/wait?millis=3000", &[]).unwrap()).collect();
    let mut heads = http1();
    heads.iter_mut().for_each(|client| client.write_raw(b"GET /good/ HTTP/1.1\r\nHo").unwrap());
    let mut contents = http1();
    for (at, client) in contents.iter_mut().enumerate() {
        let path = ["/good/elsewhere", "/good/trailers"][at % 2];
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
        client.write_raw(head.as_bytes()).unwrap();
    }
    wait("the requests", || (wharf.app("good")["load"]["in_flight"] == 3 * EACH).then_some(()));

    // A stream that does not come back, beside one of the same connection that is waited for.
    let mut spinning = H2::connect(wharf.addr(), &[]);
    let beside = spinning.get("/good/wait?millis=3000", &[]).unwrap();
    wait("the stream", || (wharf.app("good")["load"]["in_flight"] == 3 * EACH + 1).then_some(()));
    let spin = spinning.get("/bad/spin", &[]).unwrap();
    wait("the watchdog", || (wharf.app("bad")["load"]["stuck_polls"] == 1).then_some(()));

    encrypted.iter_mut().for_each(|client| assert_eq!(client.get("/good/").unwrap().text(), "good"));
    after_content.iter_mut().for_each(|client| assert_eq!(client.get("/good/").unwrap().text(), "good"));
    for client in &mut streams {
        let stream = client.get("/good/", &[]).unwrap();
        assert_eq!(client.status(stream), 200);
    }
    for socket in &mut sockets {
        socket.text("hello").unwrap();
        assert_eq!(socket.recv_text(), "hello");
    }
    for client in &mut upgraded {
        client.write_raw(b"hello").unwrap();
        client.skip(5).unwrap();
    }
    for client in &mut heads {
        client.write_raw(b"st: a\r\n\r\n").unwrap();
        assert_eq!(client.read("GET").unwrap().text(), "good");
    }
    for client in &mut contents {
        client.write_raw(b"def").unwrap();
        assert!(client.read("POST").unwrap().text().starts_with("abcdef"));
    }
    waiting.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().text(), "waited"));
    for (client, stream) in waiting_streams.iter_mut().zip(numbers) {
        assert_eq!(client.status(stream), 200);
    }
    assert_eq!(spinning.status(beside), 200);
    let more = spinning.get("/good/", &[]).unwrap();
    assert_eq!(spinning.status(more), 200);
    assert_eq!(wharf.app("bad")["load"]["stuck_polls"], 1, "all that was beside it");

    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    let spun = spinning.read_until(|frame| frame.stream == spin && frame.kind == kind::DATA).unwrap();
    assert_eq!(spun.payload, b"spun");
    wait("the end of it", || (wharf.app("bad")["load"]["stuck_polls"] == 0).then_some(()));
    let open = [
        encrypted.len(),
        after_content.len(),
        streams.len(),
        sockets.len(),
        waiting.len(),
        heads.len(),
        upgraded.len(),
    ];
    let open = open.iter().sum::<usize>() + waiting_streams.len() + contents.len() + 1;
    wait("the count", || (metric(&wharf, "wharf_connections_open") == Some(open as u64)).then_some(()));
    drop((encrypted, after_content, streams, sockets, waiting, heads, upgraded, waiting_streams, contents, spinning));
    wait("all to be gone", || (metric(&wharf, "wharf_connections_open") == Some(0)).then_some(()));
    // Nothing of the module hangs on where its connections have been.
    for app in ["good", "bad"] {
        wharf.put(&format!("deploy/{app}.so"), chameleon("new"));
        wharf.wait_for(&format!("/{app}/"), "new");
        wharf.wait_alone(app);
    }
}

/// What a worker was at for proxies, and what it keeps for them.
#[test]
fn requests_to_backends_and_tunnels_leave_a_stuck_worker() {
    const EACH: usize = 6;
    let backend = Site::new()
        .with("deploy/good.so", chameleon("good"))
        .with("deploy/s.so", library("sockets"))
        .start(&["--set", "server.http2.cleartext=true"]);
    let proxy = |protocol: &str| {
        format!("kind = \"proxy\"\n[proxy]\nprotocol = \"{protocol}\"\nbackends = [\"http://{}\"]\n", backend.addr())
    };
    let wharf = Site::new()
        .with("deploy/bad.so", chameleon("bad"))
        .with("deploy/one.toml", proxy("h1"))
        .with("deploy/two.toml", proxy("h2"))
        .start(&["--set", "server.workers=2"]);
    let connections = || (0..EACH).map(|_| wharf.connect()).collect::<Vec<_>>();

    let mut sockets: Vec<_> = (0..EACH).map(|_| RawSocket::open(wharf.addr(), "/one/s/echo", &[]).unwrap()).collect();
    let mut idle = connections();
    for client in &mut idle {
        assert_eq!(client.get("/one/good/").unwrap().text(), "good");
        assert_eq!(client.get("/two/good/").unwrap().text(), "good");
    }
    let mut waiting = begin(&wharf, "/one/good/wait?millis=3000", EACH);
    waiting.extend(begin(&wharf, "/two/good/wait?millis=3000", EACH));
    let mut contents = connections();
    for (at, client) in contents.iter_mut().enumerate() {
        let path = ["/one/good/trailers", "/two/good/trailers"][at % 2];
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
        client.write_raw(head.as_bytes()).unwrap();
    }
    wait("the requests", || (backend.app("good")["load"]["in_flight"] == 3 * EACH).then_some(()));
    let spinning = begin(&wharf, "/bad/spin", 1);
    wait("the watchdog", || (wharf.app("bad")["load"]["stuck_polls"] == 1).then_some(()));

    for socket in &mut sockets {
        socket.text("hello").unwrap();
        assert_eq!(socket.recv_text(), "hello");
    }
    for client in &mut idle {
        assert_eq!(client.get("/one/good/").unwrap().text(), "good");
        assert_eq!(client.get("/two/good/").unwrap().text(), "good");
    }
    for client in &mut contents {
        client.write_raw(b"def").unwrap();
        assert!(client.read("POST").unwrap().text().starts_with("abcdef"));
    }
    waiting.iter_mut().for_each(|client| assert_eq!(client.read("GET").unwrap().text(), "waited"));
    assert_eq!(wharf.app("bad")["load"]["stuck_polls"], 1, "all that was beside it");

    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    assert_eq!(answers(spinning)[0].text(), "spun");
    for client in waiting.iter_mut().chain(&mut idle) {
        assert_eq!(client.get("/one/good/").unwrap().text(), "good");
        assert_eq!(client.get("/two/good/").unwrap().text(), "good");
    }
}

#[test]
fn a_websocket_that_does_not_come_back_is_seen_as_a_request_is() {
    let wharf = Site::new().with("deploy/s.so", library("sockets")).start(&["--set", "server.workers=1"]);
    let open = |target: &str| RawSocket::open(wharf.addr(), target, &[]).unwrap();
    let (mut spinning, mut beside) = (open("/s/spin"), open("/s/echo"));
    spinning.text("spin").unwrap();
    wait("the watchdog", || (wharf.app("s")["load"]["stuck_polls"] == 1).then_some(()));
    assert!(wharf.log().contains("target=\"/s/spin\""), "{}", wharf.log());
    beside.text("hello").unwrap();
    assert_eq!(beside.recv_text(), "hello");
    assert!(wharf.app("s")["load"]["cpu_seconds"].as_f64() >= Some(0.4));
    assert_eq!(wharf.get("/s/spin-end").text(), "ended");
    assert_eq!(spinning.recv_text(), "spin");
    wait("the end of it", || (wharf.app("s")["load"]["stuck_polls"] == 0).then_some(()));
    spinning.text("spin").unwrap();
    wait("it to go on where it went", || (wharf.app("s")["load"]["stuck_polls"] == 1).then_some(()));
    assert_eq!(wharf.get("/s/spin-end").text(), "ended");
    assert_eq!(spinning.recv_text(), "spin");
}

#[test]
fn a_stuck_worker_works_on_when_its_poll_returns() {
    let wharf = neighbours("", &["--set", "server.workers=1"]);
    let mut kept = wharf.connect();
    assert_eq!(kept.get("/good/").unwrap().status, 200);
    let spinning = begin(&wharf, "/bad/spin", 1);
    wait("the watchdog", || (wharf.app("bad")["load"]["stuck_polls"] == 1).then_some(()));
    // Twice on threads of their own: both must be ended before it can be unloaded.
    let stuck = begin(&wharf, "/bad/hog?millis=600", 3);
    assert_eq!(count(&answers(stuck), 200), 3);
    kept.write("GET", "/good/", &[], b"").unwrap();
    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    assert_eq!(kept.read("GET").unwrap().text(), "good");
    assert_eq!(answers(spinning)[0].text(), "spun");
    wait("the end of it", || (wharf.app("bad")["load"]["stuck_polls"] == 0).then_some(()));
    wharf.put("deploy/bad.so", chameleon("bad2"));
    wharf.wait_for("/bad/", "bad2");
    wharf.wait_alone("bad");
    assert!(!wharf.threads().iter().any(|t| t.starts_with("own-")), "{:?}", wharf.threads());
}

#[test]
fn polls_that_run_long_move_an_application_to_threads_of_its_own() {
    let wharf = neighbours("slow_poll = \"60ms\"\n", &[]);
    wait("the move", || {
        assert_eq!(wharf.get("/bad/hog?millis=250").text(), "slept");
        (wharf.app("bad")["load"]["own_threads"] == true).then_some(())
    });
    let threads = wharf.get("/bad/thread").text();
    assert!(threads.split(' ').all(|t| t.starts_with("own-")), "{threads}");
    assert!(!wharf.get("/good/thread").text().contains("own-"));
}

#[test]
fn an_application_can_ask_for_threads_of_its_own() {
    let wharf = neighbours("threads = \"own\"\n", &["--set", "server.workers=1"]);
    assert!(wharf.get("/bad/thread").text().starts_with("own-"));
    let mut kept = wharf.connect();
    assert_eq!(kept.get("/good/").unwrap().status, 200);
    // Connections that exist are not touched by any number of polls that do not come back.
    let _spinning = begin(&wharf, "/bad/spin", 20);
    let mut more = Vec::new();
    wait("all its threads to be stuck", || {
        more.extend(begin(&wharf, "/bad/spin", 1));
        std::thread::sleep(Duration::from_millis(50));
        (wharf.app("bad")["load"]["rejected_stuck"].as_u64() > Some(0)).then_some(())
    });
    let refused = wharf.get("/bad/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")));
    assert_eq!(kept.get("/good/").unwrap().text(), "good");
}
