//! HTTP servers behind Wharf: who gets which request, what happens when one goes, and what nobody can smuggle past.

mod edges;
mod programs;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wharf_tests::{Client, Load, Site, Wharf, wait};

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
    let metrics = wharf.admin("GET", "/v1/metrics").text();
    let up = |url: String, up: u8| metrics.contains(&format!("backend=\"{url}\"}} {up}\n"));
    assert!(up(a.url(), 0) && up(b.url(), 1), "{metrics}");
    assert!(metrics.contains("wharf_backend_requests_total{"), "{metrics}");
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
