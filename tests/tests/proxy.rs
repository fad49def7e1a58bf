//! HTTP servers behind Wharf: who gets which request, what happens when one goes, and what nobody can smuggle past.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use wharf_tests::{Client, Load, Site, Wharf, wait, within};

/// A backend that is killed with this.
struct Backend {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Backend {
    fn start(name: &str, port: u16, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backend"));
        command.env("NAME", name).env("PORT", port.to_string()).envs(env.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the backend runs");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let addr = lines.find_map(|l| l.ok()?.strip_prefix("listening on ")?.parse().ok()).expect("it listens");
        Self { child, addr }
    }

    fn named(name: &str) -> Self {
        Self::start(name, 0, &[])
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }
}

/// A server that does to each connection what it is told, and counts them.
fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    (addr, count)
}

/// Reads a request's head; false when there is none.
fn head(stream: &mut TcpStream) -> bool {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// A container with one proxy at the root.
fn proxy(urls: &[String], more: &str) -> Wharf {
    proxy_with(urls, more, &[])
}

fn toml(urls: &[String], more: &str) -> String {
    format!("kind = \"proxy\"\n[proxy]\nbackends = {urls:?}\n{more}\n")
}

fn proxy_with(urls: &[String], more: &str, arguments: &[&str]) -> Wharf {
    Site::new().with("deploy/ROOT.toml", toml(urls, more)).start(arguments)
}

fn shares(wharf: &Wharf, requests: usize) -> BTreeMap<String, usize> {
    let mut client = wharf.connect();
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        *shares.entry(client.get("/").expect("an answer").text()).or_default() += 1;
    }
    shares
}

#[test]
fn shares_follow_the_weights_and_change_with_the_file_without_losing_a_request() {
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let weighted =
        format!("kind = \"proxy\"\n[proxy]\nbackends = [\"{}\", {{ url = \"{}\", weight = 3 }}]\n", a.url(), b.url());
    let wharf = Site::new().with("deploy/ROOT.toml", weighted).start(&[]);
    let shares_now = shares(&wharf, 400);
    assert!(shares_now["a"].abs_diff(100) <= 5 && shares_now["b"].abs_diff(300) <= 15, "{shares_now:?}");
    let load = Load::start(wharf.addr(), &["/"], 4, Duration::from_millis(1));
    wharf.put("deploy/ROOT.toml", toml(&[b.url(), c.url()], ""));
    wait("c to answer, and a no more", || {
        let shares = shares(&wharf, 20);
        (shares.contains_key("c") && !shares.contains_key("a")).then_some(())
    });
    // What can't be right is refused, and what was before goes on.
    wharf.put("deploy/ROOT.toml", toml(&["http://u@h".to_owned()], ""));
    wait("the refusal", || wharf.app("ROOT")["error"].is_object().then_some(()));
    load.stop().assert_clean();
    assert!(wharf.app("ROOT")["error"].to_string().contains("user name"), "{}", wharf.app("ROOT"));
}

#[test]
fn one_killed_and_one_stopped_lose_no_request_and_a_restarted_one_gets_its_share_back() {
    let (a, mut b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let more = "first_byte_timeout = \"500ms\"\nslow_start = \"500ms\"\neject.time = \"500ms\"\neject.failures = 2";
    let wharf = proxy(&[a.url(), b.url(), c.url()], more);
    let load = Load::start(wharf.addr(), &["/"], 6, Duration::from_millis(2));
    wait("all to answer", || (shares(&wharf, 9).len() == 3).then_some(()));
    b.signal(Signal::KILL);
    let _ = b.child.wait();
    c.signal(Signal::STOP);
    wait("a alone to answer", || (shares(&wharf, 12).len() == 1).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    c.signal(Signal::CONT);
    let again = Backend::start("b", b.addr.port(), &[]);
    wait("equal shares", || {
        let shares = shares(&wharf, 300);
        (shares.len() == 3 && shares.values().all(|n| n.abs_diff(100) <= 5)).then_some(())
    });
    load.stop().assert_clean();
    drop((a, again, c));
}

#[test]
fn what_a_backend_is_told() {
    let a = Backend::named("a");
    let wharf = Site::new().with("deploy/shop.toml", toml(&[a.url()], "")).start(&[]);
    let lies = [
        ("Host", "shop.example"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Forwarded-Host", "evil"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("Connection", "x-real-ip, authorization, x-hop"),
        ("Authorization", "Bearer t"),
        ("X-Hop", "1"),
        ("TE", "trailers"),
        ("Keep-Alive", "timeout=1"),
    ];
    let answer = wharf.send("POST", "/shop/seen?q=1", &lies, b"12345");
    let seen = answer.text();
    let local = wharf.addr().ip();
    for line in [
        "POST /seen?q=1 HTTP/1.1".to_owned(),
        "host: shop.example".to_owned(),
        format!("x-forwarded-for: {local}"),
        format!("forwarded: for={local};host=shop.example;proto=http"),
        "x-forwarded-host: shop.example".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        "x-forwarded-prefix: /shop".to_owned(),
        format!("x-real-ip: {local}"),
        "authorization: Bearer t".to_owned(),
        "content-length: 5".to_owned(),
        "5 bytes".to_owned(),
    ] {
        assert!(seen.lines().any(|l| l == line), "no {line:?} in\n{seen}");
    }
    for gone in ["6.6.6.6", "evil", "x-hop", "keep-alive", "\nte:"] {
        assert!(!seen.contains(gone), "{gone:?} in\n{seen}");
    }
    assert!(answer.header("via").is_some_and(|v| v.starts_with("1.1 wharf-")));
    // A path that was made canonical is sent so, and one that leaves the application never arrives.
    assert!(wharf.get("/shop/x/..//seen").text().starts_with("GET /seen HTTP/1.1"));
    assert_eq!(wharf.get("/shop/redirect").header("location"), Some("/shop/there"));
    assert_eq!(wharf.get("/shop/%2e%2e/seen").status, 400);
}

#[test]
fn a_trusted_proxy_is_believed_and_its_list_continued() {
    let a = Backend::named("a");
    let arguments = ["--set", "server.trusted_proxies=[\"127.0.0.0/8\"]"];
    let wharf = proxy_with(&[a.url()], "", &arguments);
    let fields = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9"), ("X-Forwarded-Proto", "https")];
    let seen = wharf.send("GET", "/seen", &fields, b"").text();
    for line in
        ["x-forwarded-for: 6.6.6.6, 203.0.113.9, 127.0.0.1", "x-forwarded-proto: https", "x-real-ip: 203.0.113.9"]
    {
        assert!(seen.lines().any(|l| l == line), "no {line:?} in\n{seen}");
    }
    wait("the access log to name the client", || wharf.output().contains("203.0.113.9 - ").then_some(()));
}

#[test]
fn the_proxy_protocol_says_who_the_client_is_and_nothing_else_is_taken() {
    let a = Backend::named("a");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"{port}\"]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = [\"{port}\"]\n"
    );
    let site = Site::new().with("deploy/ROOT.toml", toml(&[a.url()], "")).with("wharf.toml", config);
    let listen = format!("server.listen=127.0.0.1:0,{port}");
    let wharf = site.start(&["--set", &listen]);
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[203, 0, 113, 2, 127, 0, 0, 1, 1, 0, 0, 80]].concat();
    for (header, ip) in [(&b"PROXY TCP4 203.0.113.1 127.0.0.1 5 80\r\n"[..], "203.0.113.1"), (&v2[..], "203.0.113.2")] {
        let mut client = Client::connect(port).expect("a connection");
        client.write_raw(header).expect("the header is sent");
        let seen = client.send("GET", "/seen", &[("X-Forwarded-For", "6.6.6.6")], b"").expect("an answer").text();
        assert!(seen.lines().any(|l| l == format!("x-forwarded-for: {ip}")), "{seen}");
    }
    assert!(Client::connect(port).expect("a connection").get("/").is_err(), "without a header");
    assert_eq!(wharf.get("/").status, 200, "the other listener knows no such thing");
}

#[test]
fn unix_socket_h2_and_tls_backends() {
    let site = Site::new();
    let socket = site.path("b.sock").display().to_string();
    let mut unix = Command::new(env!("CARGO_BIN_EXE_backend"));
    let unix = unix.env("SOCKET", &socket).env("NAME", "unix").stdout(Stdio::null()).spawn().expect("it runs");
    let unix = Backend { child: unix, addr: SocketAddr::from(([127, 0, 0, 1], 1)) };
    let h2 = Backend::start("h2", 0, &[("H2", "1")]);
    let made = rcgen::generate_simple_self_signed(["backend.test".to_owned()]).expect("a certificate");
    site.put("cert.pem", made.cert.pem());
    site.put("key.pem", made.signing_key.serialize_pem());
    let (cert, key) = (site.path("cert.pem").display().to_string(), site.path("key.pem").display().to_string());
    let tls = Backend::start("tls", 0, &[("CERT", &cert), ("KEY", &key)]);
    let tls2 = Backend::start("tls2", 0, &[("CERT", &cert), ("KEY", &key), ("H2", "1")]);
    let secure = |b: &Backend| vec![b.url().replace("http:", "https:")];
    let named = format!("tls = {{ ca = \"{cert}\", server_name = \"backend.test\" }}");
    let wharf = site
        .with("deploy/unix.toml", toml(&[format!("unix:{socket}")], ""))
        .with("deploy/h2.toml", toml(&[h2.url()], "protocol = \"h2\""))
        .with("deploy/tls.toml", toml(&secure(&tls), &named))
        .with("deploy/tls2.toml", toml(&secure(&tls2), &format!("protocol = \"h2\"\n{named}")))
        .with("deploy/other.toml", toml(&secure(&tls), &format!("tls.ca = \"{cert}\"")))
        .start(&[]);
    for name in ["unix", "h2", "tls", "tls2"] {
        wharf.wait_for(&format!("/{name}/"), name);
        let echoed = wharf.send("PUT", &format!("/{name}/echo"), &[], &vec![b'x'; 300_000]);
        assert_eq!((echoed.status, echoed.body.len()), (200, 300_000), "{name}");
    }
    let seen = wharf.get("/h2/seen").text();
    assert!(seen.contains("HTTP/2.0") && seen.contains("host: localhost"), "{seen}");
    assert_eq!(wharf.get("/other/").status, 503, "a certificate with another name is not taken");
    drop(unix);
}

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
    assert!(!cookie.contains("127"), "{cookie}");
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
fn checks_take_a_backend_out_and_back_and_so_does_the_admin() {
    let site = Site::new();
    let mark = site.path("unhealthy").display().to_string();
    let (a, b) = (Backend::named("a"), Backend::start("b", 0, &[("UNHEALTHY", &mark)]));
    let more = "slow_start = \"0s\"\nhealth = { path = \"/health\", interval = \"50ms\" }";
    let wharf = site.with("deploy/ROOT.toml", toml(&[a.url(), b.url()], more)).start(&[]);
    let only = |names: &[&str]| {
        wait(&format!("only {names:?} to answer"), || {
            shares(&wharf, 10).keys().map(String::as_str).eq(names.iter().copied()).then_some(())
        });
    };
    only(&["a", "b"]);
    wharf.put("unhealthy", "");
    only(&["a"]);
    wharf.remove("unhealthy");
    only(&["a", "b"]);
    let drained = wharf.cli(&["backends", "ROOT", "--drain", &a.url(), "--json"]);
    assert_eq!((drained.code, &drained.json()[0]["state"]), (0, &"drained".into()));
    only(&["b"]);
    // It stays so when the file changes.
    wharf.put("deploy/ROOT.toml", toml(&[a.url(), b.url()], ""));
    wait("the new generation", || (wharf.app("ROOT")["generations"][0]["generation"] == 2).then_some(()));
    only(&["b"]);
    assert!(wharf.cli(&["backends", "ROOT"]).out.contains("drained"));
    wharf.cli(&["backends", "ROOT", "--undrain", &a.url()]);
    only(&["a", "b"]);
    let unknown = wharf.cli(&["backends", "ROOT", "--drain", "http://x"]);
    assert!(unknown.code == 1 && unknown.err.contains("no such backend"), "{unknown:?}");
}

fn command(more: &str) -> String {
    format!("kind = \"proxy\"\n[proxy]\ncommand = [{:?}, \"{{port}}\"]\n{more}\n", env!("CARGO_BIN_EXE_backend"))
}

fn pid_of(wharf: &Wharf, n: usize) -> Option<u32> {
    let log = wharf.log();
    let line = log.lines().filter(|l| l.contains("the program runs")).nth(n)?;
    let rest = line.split("pid=").nth(1)?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[test]
fn a_program_is_started_watched_replaced_and_stopped() {
    let wharf = Site::new()
        .with("deploy/app.toml", command("copies = 3\nenv = { COLOUR = \"blue\" }\nslow_start = \"0s\""))
        .start(&[]);
    let copies: std::collections::BTreeSet<String> = (0..9).map(|_| wharf.get("/app/").text()).collect();
    assert_eq!(copies.len(), 3, "{copies:?}");
    let env = wharf.get("/app/env").text();
    assert!(env.contains("COLOUR=blue\n") && env.contains("ASPNETCORE_URLS=http://127.0.0.1:"), "{env}");
    assert!(!env.contains("CARGO"), "the container's own environment stays with it: {env}");
    // One ends: it is started again, and no request that may be repeated is lost.
    let load = Load::start(wharf.addr(), &["/app/"], 3, Duration::from_millis(2));
    let first = pid_of(&wharf, 0).expect("a process id");
    kill_process(Pid::from_raw(first.cast_signed()).unwrap(), Signal::KILL).expect("it is there");
    wait("a fourth start", || pid_of(&wharf, 3));
    wait("three to answer again", || {
        let answers: std::collections::BTreeSet<String> = (0..12).map(|_| wharf.get("/app/").text()).collect();
        (answers.len() == 3).then_some(())
    });
    // A new file: new processes take over, the old ones go.
    let old: Vec<u32> = (1..4).filter_map(|n| pid_of(&wharf, n)).collect();
    wharf.put("deploy/app.toml", command("env = { COLOUR = \"red\" }"));
    wait("the new one", || wharf.get("/app/env").text().contains("COLOUR=red").then_some(()));
    wait("the old ones to be gone", || (!old.iter().any(|pid| is_alive(*pid))).then_some(()));
    load.stop().assert_clean();
    // One that does not start is refused, with what it printed; what was before goes on.
    wharf
        .put("deploy/app.toml", "kind = \"proxy\"\n[proxy]\ncommand = [\"sh\", \"-c\", \"echo no licence; exit 4\"]\n");
    wait("the refusal", || wharf.app("app")["error"].is_object().then_some(()));
    let error = wharf.app("app")["error"].to_string();
    assert!(error.contains("exit status: 4") && error.contains("no licence"), "{error}");
    assert!(wharf.get("/app/env").text().contains("COLOUR=red"));
}

#[test]
fn a_program_takes_its_children_along_and_may_listen_on_a_socket() {
    let backend = env!("CARGO_BIN_EXE_backend");
    let script = format!("sleep 1000 & echo child $!; exec {backend}");
    let text = format!("kind = \"proxy\"\n[proxy]\ncommand = [\"sh\", \"-c\", {script:?}]\nlisten = \"unix\"\n");
    let mut wharf = Site::new().with("deploy/app.toml", text).start(&[]);
    assert!(wharf.get("/app/env").text().contains("ASPNETCORE_URLS=http://unix:/"));
    let log = wharf.log();
    let child = log.split("child ").nth(1).and_then(|r| r.split_whitespace().next()?.parse().ok()).expect("a pid");
    assert!(is_alive(child));
    wharf.signal(Signal::TERM);
    assert!(wharf.wait_end().success());
    within(Duration::from_secs(5), "the child to be gone", || {
        // A child whose parents are gone is a zombie until somebody waits for it.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn copies_of_a_container_with_our_own_application_are_balanced_too() {
    let inner = Site::new();
    inner.put("deploy/ROOT.so", wharf_tests::library("hello"));
    let deploy = inner.path("deploy").display().to_string();
    let state = inner.path("state-{port}").display().to_string();
    let words: Vec<String> = [
        wharf_tests::wharf().display().to_string(),
        "run".into(),
        "--set".into(),
        "server.listen=127.0.0.1:{port}".into(),
        "--set".into(),
        format!("deploy.dir={deploy}"),
        "--set".into(),
        format!("state_dir={state}"),
    ]
    .into();
    let text = format!("kind = \"proxy\"\n[proxy]\ncommand = {words:?}\ncopies = 2\nhealth.path = \"/\"\n");
    let wharf = Site::new().with("deploy/ROOT.toml", text).start(&[]);
    let load = Load::start(wharf.addr(), &["/"], 2, Duration::from_millis(2));
    let list = wharf.cli(&["backends", "ROOT", "--json"]).json();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    wait("both to be used", || {
        let list = wharf.cli(&["backends", "ROOT", "--json"]).json();
        list.as_array()?.iter().all(|b| b["requests"].as_u64() > Some(5)).then_some(())
    });
    load.stop().assert_clean();
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

#[test]
fn the_sample_is_a_balanced_pair() {
    if Command::new("python3").arg("-V").output().is_err() {
        assert!(!wharf_tests::is_required(), "python3 (Debian package python3) is missing");
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let site = Site::new();
    for file in ["server.py", "app.toml"] {
        let from = wharf_tests::workspace().join("sample-apps/balanced").join(file);
        site.put(&format!("deploy/balanced/{file}"), std::fs::read(from).expect("the sample"));
    }
    let wharf = site.start(&[]);
    let answers: std::collections::BTreeSet<String> = (0..4).map(|_| wharf.get("/balanced/").text()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert!(answers.iter().all(|a| a.ends_with("answers 127.0.0.1\n")), "{answers:?}");
}
