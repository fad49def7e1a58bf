//! Encrypted connections: certificates by name, changed under load, of clients; old protocols and stalled handshakes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::{ClientConnection, StreamOwned};
use wharf_tests::{Authority, Signed, Site, Wharf, chameleon, printed, tool, wait};

const LISTEN: &str = "server.listen=[\"127.0.0.1:0\", \"https://127.0.0.1:0\"]";

fn put(site: &Site, name: &str, signed: &Signed) {
    site.put(&format!("{name}.crt"), &signed.chain);
    site.put(&format!("{name}.key"), &signed.key);
}

/// A site with the authority's certificate and one certificate for each list of names, the first as default.
fn site(authority: &Authority, certificates: &[(&str, &[&str])]) -> Site {
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("ca.pem", authority.pem());
    let mut toml = "tls.reload_interval = \"20ms\"\n".to_owned();
    for (name, names) in certificates {
        put(&site, name, &authority.server(names));
        toml.push_str(&format!("[[tls.certificate]]\nchain = \"{name}.crt\"\nkey = \"{name}.key\"\n"));
    }
    site.put("wharf.toml", toml);
    site
}

fn start(site: Site, more: &[&str]) -> Wharf {
    let mut arguments = vec!["--set", LISTEN];
    more.iter().for_each(|set| arguments.extend(["--set", set]));
    site.start(&arguments)
}

/// GET by curl, which checks the certificate. Gives what it wrote, and its exit code when it failed.
fn curl(wharf: &Wharf, url: &str, more: &[&str]) -> Result<String, i32> {
    let to = format!("::127.0.0.1:{}", wharf.secure_addr().port());
    let mut arguments = vec!["-sS", "--max-time", "20", "--cacert", "ca.pem", "--connect-to", &to, url];
    arguments.extend(more);
    let output = tool("curl", &arguments).unwrap().current_dir(wharf.path("")).output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        println!("{}", printed(&output));
        Err(output.status.code().unwrap_or(-1))
    }
}

/// What `openssl s_client` says of the handshake.
fn s_client(wharf: &Wharf, more: &[&str]) -> (bool, String) {
    let to = wharf.secure_addr().to_string();
    let mut arguments = vec!["s_client", "-connect", &to];
    arguments.extend(more);
    let output = tool("openssl", &arguments).unwrap().output().unwrap();
    (output.status.success(), printed(&output))
}

/// The common name in the certificate that the server shows.
fn common_name(wharf: &Wharf, asked: &[&str]) -> String {
    let (_, said) = s_client(wharf, asked);
    let subject = said.lines().find_map(|l| l.strip_prefix("subject=")).unwrap_or_else(|| panic!("{said}"));
    subject.rsplit_once("CN = ").expect("a common name").1.to_owned()
}

fn have_tools() -> bool {
    tool("curl", &[]).is_some() && tool("openssl", &[]).is_some()
}

#[test]
fn both_protocols_are_spoken_on_one_port() {
    if !have_tools() {
        return;
    }
    let wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &["protect.hsts=1day"]);
    let write = ["-w", " %{http_version} %{http_code} %header{strict-transport-security}"];
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--no-alpn", "1.1")] {
        let said = curl(&wharf, "https://shop.example/shop/", &[option, write[0], write[1]]).unwrap();
        assert_eq!(said, format!("one {version} 200 max-age=86400"), "{option}");
    }
    let plain = wharf.get("/shop/");
    assert_eq!((plain.text(), plain.header("strict-transport-security")), ("one".into(), None));
    wait("the requests in the access log", || wharf.output().contains("\"GET /shop/ HTTP/2.0\" 200").then_some(()));
    assert_eq!(curl(&wharf, "https://other.example/shop/", &[]), Err(60), "a certificate of another name");
    // Without HTTP/2.
    let wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &["server.http2.enabled=false"]);
    let said = curl(&wharf, "https://shop.example/shop/", &["--http2", "-w", " %{http_version}"]).unwrap();
    assert_eq!(said, "one 1.1");
}

#[test]
fn the_certificate_is_chosen_by_name() {
    if !have_tools() {
        return;
    }
    let certificates: [(&str, &[&str]); 3] =
        [("d", &["default.test"]), ("w", &["*.shop.example"]), ("e", &["a.shop.example", "b.test"])];
    let wharf = start(site(&Authority::new("ours"), &certificates), &[]);
    for (asked, expected) in [
        (&["-servername", "default.test"][..], "default.test"),
        (&["-servername", "a.shop.example"], "a.shop.example"),
        (&["-servername", "A.Shop.Example"], "a.shop.example"),
        (&["-servername", "b.test"], "a.shop.example"),
        (&["-servername", "c.shop.example"], "*.shop.example"),
        (&["-servername", "c.d.shop.example"], "default.test"),
        (&["-servername", "unknown.test"], "default.test"),
        (&["-noservername"], "default.test"),
    ] {
        assert_eq!(common_name(&wharf, asked), expected, "{asked:?}");
    }
    assert_eq!(curl(&wharf, "https://c.shop.example/shop/", &[]).unwrap(), "one");
    assert_eq!(curl(&wharf, "https://a.shop.example/shop/", &[]).unwrap(), "one");
}

#[test]
fn certificates_change_under_load_and_no_request_fails() {
    if !have_tools() {
        return;
    }
    let authority = Authority::new("ours");
    let wharf = start(site(&authority, &[("a", &["shop.example"])]), &[]);
    let (stop, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let mut done = 0;
    std::thread::scope(|scope| {
        let load: Vec<_> = ["--http2", "--http1.1"]
            .map(|protocol| {
                let (stop, failures, wharf) = (stop.clone(), failures.clone(), &wharf);
                scope.spawn(move || {
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Two requests: the second one on the connection of the first.
                        let url = "https://shop.example/shop/";
                        match curl(wharf, url, &[protocol, "--fail", url]) {
                            Ok(text) if text == "oneone" => count += 2,
                            other => failures.lock().unwrap().push(format!("{other:?}")),
                        }
                    }
                    count
                })
            })
            .into();
        for n in 1..=100 {
            put(&wharf, "a", &authority.server(&["shop.example"]));
            wait("the change to be seen", || {
                (wharf.log().matches("the TLS files have changed").count() >= n).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
        done = load.into_iter().map(|thread| thread.join().unwrap()).sum();
    });
    let failures = failures.lock().unwrap();
    assert!(failures.is_empty(), "{} of {done} failed: {:?}", failures.len(), failures.first());
    assert!(done > 50, "{done} requests");
    println!("{done} requests during 100 changes of the certificate");
}

#[test]
fn a_change_that_is_not_good_leaves_what_is_in_force() {
    if !have_tools() {
        return;
    }
    let authority = Authority::new("ours");
    let wharf = start(site(&authority, &[("a", &["one.example"])]), &[]);
    assert_eq!(common_name(&wharf, &[]), "one.example");
    let (two, three) = (authority.server(&["two.example"]), authority.server(&["three.example"]));
    let complaints = || -> Vec<String> {
        wharf.log().lines().filter(|l| l.contains("TLS files are not used")).map(str::to_owned).collect()
    };
    for (chain, key, word) in [
        (&*two.chain, &*three.key, "a.key is not the key of the certificate in a.crt"),
        (&two.chain[..100], &two.key, "a.crt"),
        ("", &two.key, "no certificate"),
        (&two.chain, "", "no private key"),
    ] {
        let before = complaints().len();
        // What is there between two writes must be no good pair either.
        wharf.put("a.crt", "nothing");
        wharf.put("a.key", key);
        wharf.put("a.crt", chain);
        wait(word, || complaints()[before..].iter().any(|line| line.contains(word)).then_some(()));
        assert_eq!(common_name(&wharf, &[]), "one.example");
    }
    put(&wharf, "a", &three);
    wait("the good change", || (common_name(&wharf, &[]) == "three.example").then_some(()));
}

#[test]
fn a_pair_that_does_not_fit_keeps_the_container_from_starting() {
    let authority = Authority::new("ours");
    let site = site(&authority, &[("a", &["one.example"])]);
    site.put("a.key", authority.server(&["two.example"]).key);
    let output = site.cli(&["run", "--set", LISTEN]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.err.contains("a.key is not the key of the certificate in a.crt"), "{output:?}");
    site.remove("a.key");
    let output = site.cli(&["run", "--set", LISTEN]);
    assert!(output.code == 1 && output.err.contains("a.key"), "{output:?}");
    let output = Site::new().cli(&["run", "--set", LISTEN]);
    assert!(output.code == 2 && output.err.contains("[[tls.certificate]]"), "{output:?}");
}

#[test]
fn an_expired_certificate_is_served_with_a_warning() {
    let authority = Authority::new("ours");
    let site = site(&authority, &[("a", &["one.example"])]);
    let mut old = rcgen::CertificateParams::new(["old.example".to_owned()]).unwrap();
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    put(&site, "a", &authority.sign(&old));
    let wharf = start(site, &[]);
    let log = wharf.log();
    assert!(log.contains("WARN") && log.contains("a.crt: the certificate has expired"), "{log}");
}

#[test]
fn no_client_fills_the_log_by_what_it_says_in_a_handshake() {
    if !have_tools() {
        return;
    }
    for (level, shown) in [("info", false), ("info,rustls=warn", true)] {
        let wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &[&format!("log.level={level}")]);
        // An address is not a name (RFC 6066, section 3).
        assert!(s_client(&wharf, &["-servername", "127.0.0.1"]).1.contains("BEGIN CERTIFICATE"));
        assert_eq!(wharf.log().contains("Illegal SNI"), shown, "{level}");
    }
}

#[test]
fn clients_show_certificates() {
    if !have_tools() {
        return;
    }
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (auth, without) in [("required", false), ("optional", true)] {
        let site = site(&ours, &[("a", &["shop.example"])]);
        put(&site, "client", &ours.client("alice"));
        put(&site, "stranger", &theirs.client("mallory"));
        let auth = format!("tls.client_auth={auth}");
        let wharf = start(site, &[&auth, "tls.client_ca=ca.pem"]);
        let get = |more: &[&str]| curl(&wharf, "https://shop.example/shop/", more);
        assert_eq!(get(&["--cert", "client.crt", "--key", "client.key"]).as_deref(), Ok("one"), "{auth}");
        // What the handshake agreed on reaches the application.
        let said =
            curl(&wharf, "https://shop.example/shop/tls", &["--cert", "client.crt", "--key", "client.key"]).unwrap();
        assert!(said.starts_with("TLSv1.3 TLS") && said.contains("Some(\"shop.example\") Some(\"[30, 82] "), "{said}");
        if without {
            let said = curl(&wharf, "https://shop.example/shop/tls", &["--tls-max", "1.2"]).unwrap();
            assert!(said.starts_with("TLSv1.2 TLS_") && said.ends_with("Some(\"shop.example\") None"), "{said}");
        }
        assert_eq!(wharf.get("/shop/tls").text(), "none secure=false");
        assert_eq!(get(&[]).is_ok(), without, "{auth}: no certificate");
        assert!(get(&["--cert", "stranger.crt", "--key", "stranger.key"]).is_err(), "{auth}: of another authority");
        wait("the log to say so", || wharf.log().contains("a TLS handshake failed").then_some(()));
    }
}

/// Servlet 6.1, section 13.6.4.
#[test]
fn a_certificate_says_who_a_client_is() {
    if !have_tools() {
        return;
    }
    const GUARD: &str = "[login]\nmethod = \"CLIENT-CERT\"\nrealm = \"staff\"\n[[constraints]]\npatterns = [\"/private/*\"]\nroles = [\"admin\"]\n";
    let ours = Authority::new("ours");
    let site = site(&ours, &[("a", &["shop.example"])]).with("deploy/shop.toml", GUARD);
    for name in ["alice", "bob", "carol"] {
        put(&site, name, &ours.client(name));
    }
    let text = std::fs::read_to_string(site.path("wharf.toml")).unwrap();
    site.put("wharf.toml", format!("{text}[realm.staff]\nkind = \"certificate\"\nfile = \"staff\"\n"));
    site.put("staff", "# who may\nalice:admin\nbob:\n");
    let wharf = start(site, &["tls.client_auth=optional", "tls.client_ca=ca.pem"]);
    let get = |name: &str| {
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        let more = if name.is_empty() { vec![] } else { vec!["--cert", &*cert, "--key", &key] };
        let status = ["-o", "got", "-w", "%{http_code}"];
        curl(&wharf, "https://shop.example/shop/private/who", &[&status, &more[..]].concat()).unwrap()
    };
    assert_eq!(get("alice"), "200");
    let got = std::fs::read_to_string(wharf.path("got")).unwrap();
    assert_eq!(got, "Some(\"alice\") Some(\"CLIENT_CERT\") admin=true dev=false **=true *=false 1");
    // Known without the role, of our authority but unknown, and without any.
    assert_eq!([get("bob"), get("carol"), get("")], ["403", "403", "401"]);
    assert_eq!(wharf.get("/shop/private/who").status, 401);
    // A changed file goes for the next request; one that is not good lets nobody pass.
    wharf.put("staff", "carol:admin\n");
    wait("the file", || (get("carol") == "200" && get("alice") == "403").then_some(()));
    wharf.put("staff", "carol\n");
    wait("the file", || (get("carol") == "503").then_some(()));
}

#[test]
fn old_protocols_and_weak_ciphers_are_refused() {
    if !have_tools() {
        return;
    }
    let wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &[]);
    let weak = ["-cipher", "ALL:@SECLEVEL=0"];
    for (version, spoken) in [("-tls1", false), ("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let (_, said) = s_client(&wharf, &[version, weak[0], weak[1]]);
        assert_eq!(said.contains("subject=CN = shop.example"), spoken, "{version}: {said}");
    }
    for cipher in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "RC4-SHA", "DES-CBC3-SHA", "NULL-SHA256"] {
        let (_, said) = s_client(&wharf, &["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")]);
        assert!(!said.contains("subject=CN"), "{cipher}: {said}");
    }
    let (_, said) = s_client(&wharf, &["-tls1_2", "-comp"]);
    assert!(said.contains("Compression: NONE"), "{said}");
    // The same, as somebody else sees it.
    let addr = wharf.secure_addr().to_string();
    if let Some(mut scan) = tool("sslscan", &["--no-colour", &addr]) {
        let said = printed(&scan.output().unwrap());
        for line in ["SSLv2     disabled", "SSLv3     disabled", "TLSv1.0   disabled", "TLSv1.1   disabled"] {
            assert!(said.contains(line), "no {line:?} in {said}");
        }
        for line in [
            "TLSv1.2   enabled",
            "TLSv1.3   enabled",
            "Session renegotiation not supported",
            "not vulnerable to heartbleed",
        ] {
            assert!(said.contains(line), "no {line:?} in {said}");
        }
        for weak in ["RC4", "3DES", "CBC", "EXP-", "NULL", "-SHA\n"] {
            assert!(!said.contains(weak), "{weak} in {said}");
        }
    }
    let wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &["tls.min_version='1.3'"]);
    assert!(!s_client(&wharf, &["-tls1_2"]).1.contains("subject=CN"));
    assert!(s_client(&wharf, &["-tls1_3"]).1.contains("subject=CN"));
}

#[test]
fn handshakes_that_stall_are_cut_and_harm_nobody() {
    let site = site(&Authority::new("ours"), &[("a", &["shop.example"])]);
    let wharf = start(site, &["tls.handshake_timeout=500ms"]);
    let descriptors = wharf.descriptors();
    // The beginning of a ClientHello that says it has 200 bytes.
    let half = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";
    let mut stalled = Vec::new();
    for bytes in [&b""[..], half].repeat(50) {
        let mut stream = TcpStream::connect(wharf.secure_addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        stalled.push(stream);
    }
    assert_eq!(wharf.get("/shop/").text(), "one");
    for mut stream in stalled {
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)), "it is closed without a word");
    }
    // A plain request at the wrong door, and bytes that are nothing at all.
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0xff; 100]] {
        let mut stream = TcpStream::connect(wharf.secure_addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    }
    wait("the log to say so", || {
        let log = wharf.log();
        (log.contains("a TLS handshake took too long") && log.contains("a TLS handshake failed")).then_some(())
    });
    wait("the connections to be gone", || (wharf.descriptors() <= descriptors).then_some(()));
}

/// One address that begins handshakes as fast as it can: whole ones, ones that it breaks off, and bytes that are none.
#[test]
fn a_flood_of_handshakes_leaves_the_others_served() {
    let authority = Authority::new("ca");
    let wharf = start(site(&authority, &[("a", &["localhost"])]), &[]);
    let config = authority.trusting();
    let address = wharf.secure_addr();
    let hello = || ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    let whole = || {
        let mut stream = StreamOwned::new(hello(), TcpStream::connect(address).unwrap());
        stream.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET /shop/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let (left, begun) = (AtomicUsize::new(2000), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(number) = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                {
                    let Ok(mut stream) = TcpStream::connect(address) else { continue };
                    let _ = match number % 4 {
                        0 => hello().complete_io(&mut stream).map(drop),
                        1 => hello().write_tls(&mut stream).map(drop),
                        2 => stream.write_all(b"\x16\x03\x01\x02\x00no hello at all"),
                        _ => Ok(()),
                    };
                }
            });
        }
        // The others, over new connections and without TLS.
        while left.load(Ordering::SeqCst) > 0 {
            let answer = whole();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert_eq!(wharf.get("/shop/").status, 200);
        }
    });
    println!("2000 connections in {:?}", begun.elapsed());
    assert!(whole().starts_with("HTTP/1.1 200"));
    assert!(!wharf.log().contains("panicked"), "{}", wharf.log());
}

#[test]
fn a_stop_waits_for_no_handshake_and_no_idle_connection() {
    if !have_tools() {
        return;
    }
    let mut wharf = start(site(&Authority::new("ours"), &[("a", &["shop.example"])]), &[]);
    let _stalled = TcpStream::connect(wharf.secure_addr()).unwrap();
    let addr = wharf.secure_addr().to_string();
    // It holds a connection open and says nothing on it.
    let mut idle = tool("openssl", &["s_client", "-quiet", "-connect", &addr, "-alpn", "h2"])
        .unwrap()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let open = || wharf.admin("GET", "/v1/metrics").text().contains("wharf_connections_open 2");
    wait("both to be there", || open().then_some(()));
    wharf.signal(Signal::TERM);
    assert!(wharf.wait_end().success());
    let _ = idle.kill();
    let _ = idle.wait();
}

#[test]
fn plain_requests_are_sent_to_https() {
    let site = site(&Authority::new("ours"), &[("a", &["shop.example"])]);
    let wharf = start(site, &["protect.https_redirect=true", "protect.https_port=8443"]);
    let answer = wharf.send("POST", "/shop/a%20b?c=d", &[("Host", "shop.example:8080")], b"");
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://shop.example:8443/shop/a%20b?c=d"));
    if have_tools() {
        assert_eq!(curl(&wharf, "https://shop.example/shop/", &[]).unwrap(), "one");
    }
}
