//! CGI/1.1 through the whole program: shell and Perl scripts, and what they may do wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};
use wharf_tests::{Answer, Site, Wharf, wait};

const TOML: &str = "kind = \"cgi\"\n[cgi]\n";

/// Puts a program there.
fn program(site: &Site, path: &str, text: &str) {
    let temporary = site.temporary(path);
    fs::write(&temporary, text).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).unwrap();
    site.rename(&temporary, path);
}

/// A container with the application `/app`, its options and its programs.
fn app(options: &str, programs: &[(&str, &str)]) -> Wharf {
    app_with(options, programs, &[])
}

fn app_with(options: &str, programs: &[(&str, &str)], arguments: &[&str]) -> Wharf {
    let site = Site::new().with("deploy/app/app.toml", format!("{TOML}{options}"));
    for (name, text) in programs {
        program(&site, &format!("deploy/app/{name}"), text);
    }
    site.start(arguments)
}

fn variables(answer: &Answer) -> BTreeMap<String, String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The processes that the container has started and that are there in any form, zombies too.
fn children(wharf: &Wharf) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", wharf.pid())).unwrap();
    tasks.flatten().filter_map(|t| fs::read_to_string(t.path().join("children")).ok()).collect()
}

fn wait_alone(wharf: &Wharf) {
    wait("no process to be left", || children(wharf).trim().is_empty().then_some(()));
}

fn is_alive(pid: &str) -> bool {
    // A zombie of whoever takes over orphans does not count.
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

const ENV: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nenv\n";

#[test]
fn a_program_is_told_of_its_request_and_of_nothing_else() {
    let show = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\necho args=$#\necho folder=$(pwd)\necho fds=$(ls /proc/self/fd)\nread -r pid name state parent group rest < /proc/$$/stat\n[ $group = $$ ] && echo group=own\n";
    // Something that is open in the container and that it knows nothing of.
    let leak = fs::File::open("/dev/null").unwrap();
    fcntl_setfd(&leak, FdFlags::empty()).unwrap();
    let wharf = app("env = { GREETING = \"ahoy\" }\n", &[("sub/env.cgi", ENV), ("show.cgi", show)]);
    let headers = [
        ("Host", "example.org"),
        ("Proxy", "http://evil/"),
        ("Content_Length", "7"),
        ("X_Forwarded_For", "forged"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Authorization", "Basic eDp5"),
        ("Content-Type", "text/x"),
    ];
    let answer = wharf.send("POST", "/app/sub/env.cgi/a%20b/c?x=1&y=%20", &headers, b"12345");
    let all = variables(&answer);
    let root = fs::canonicalize(wharf.path("deploy/app")).unwrap();
    let root = root.to_str().unwrap();
    let file = format!("{root}/sub/env.cgi");
    let expected = [
        ("CONTENT_LENGTH", "5"),
        ("CONTENT_TYPE", "text/x"),
        ("DOCUMENT_ROOT", root),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("GREETING", "ahoy"),
        ("HTTP_HOST", "example.org"),
        ("HTTP_X_FORWARDED_FOR", "192.0.2.1"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("PATH_INFO", "/a b/c"),
        ("PATH_TRANSLATED", &format!("{root}/a b/c")),
        ("QUERY_STRING", "x=1&y=%20"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_HOST", "127.0.0.1"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_URI", "/app/sub/env.cgi/a%20b/c?x=1&y=%20"),
        ("SCRIPT_FILENAME", &file),
        ("SCRIPT_NAME", "/app/sub/env.cgi"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "example.org"),
        ("SERVER_PORT", &wharf.addr().port().to_string()),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
    ];
    for (name, value) in expected {
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    }
    // Nothing else but what was not listed because it varies, and what the shell itself sets.
    let varying = ["REMOTE_PORT", "SERVER_SOFTWARE", "PWD", "OLDPWD", "SHLVL", "_"];
    for name in all.keys() {
        assert!(varying.contains(&name.as_str()) || expected.iter().any(|(n, _)| n == name), "{name}");
    }
    // No command line, neither from an indexed query nor from one that means something to a shell.
    for query in ["", "?-s", "?a+b;id", "?a+b", "?$(id)"] {
        let all = variables(&wharf.get(&format!("/app/show.cgi{query}")));
        assert_eq!(all["args"], "0", "{query}");
        assert_eq!(all["folder"], root);
        assert_eq!(all["fds"], "0 1 2 3", "3 is what ls reads");
        assert_eq!(all["group"], "own");
    }
    assert!(matches!(wharf.get("/app/show.cgi?%0a").status, 200 | 400));
    drop(leak);
}

#[test]
fn a_path_leads_to_the_program_that_exists_or_to_nothing() {
    let site = Site::new().with(
        "deploy/app/app.toml",
        format!(
            "{TOML}extensions = [\"cgi\"]\nstatic_files = true\nno_execute = [\"uploads\"]\nenv = {{ A = \"b\" }}\n"
        ),
    );
    for name in ["index.cgi", "a/index.cgi", "x.cgi", "uploads/x.cgi", ".x.cgi", ".git/x.cgi"] {
        program(&site, &format!("deploy/app/{name}"), ENV);
    }
    site.put("deploy/app/picture.jpg", "JPEG");
    site.put("deploy/app/not.cgi", ENV);
    program(&site, "deploy/app/open.cgi", ENV);
    fs::set_permissions(site.path("deploy/app/open.cgi"), fs::Permissions::from_mode(0o777)).unwrap();
    program(&site, "outside.cgi", ENV);
    std::os::unix::fs::symlink("../../outside.cgi", site.path("deploy/app/link.cgi")).unwrap();
    let wharf = site.start(&[]);
    for (path, status, what) in [
        ("/app/", 200, "SCRIPT_NAME=/app/index.cgi\n"),
        ("/app/a/", 200, "SCRIPT_NAME=/app/a/index.cgi\n"),
        ("/app/a", 302, ""),
        ("/app/x.cgi/y.cgi", 200, "PATH_INFO=/y.cgi\n"),
        ("/app/x.cgi/.git", 200, "PATH_INFO=/.git\n"),
        ("/app/picture.jpg", 200, "JPEG"),
        ("/app/picture.jpg/x.cgi", 404, ""),
        ("/app/none.cgi", 404, ""),
        ("/app/none/x.cgi", 404, ""),
        ("/app/.x.cgi", 404, ""),
        ("/app/.git/x.cgi", 404, ""),
        ("/app/app.toml", 404, ""),
        ("/app/link.cgi", 404, ""),
        ("/app/..%2f..%2foutside.cgi", 400, ""),
        ("/app/%2e%2e/%2e%2e/outside.cgi", 400, ""),
        ("/app/x.cgi%00.jpg", 400, ""),
        // Not to be executed: refused, never shown.
        ("/app/not.cgi", 403, ""),
        ("/app/open.cgi", 403, ""),
    ] {
        let answer = wharf.get(path);
        assert!(answer.status == status && answer.text().contains(what), "{path}: {answer:?}");
        assert!(!answer.text().contains("#!/bin/sh"), "{path} shows its source");
    }
    // What was uploaded is a file, and never runs.
    let upload = wharf.get("/app/uploads/x.cgi");
    assert_eq!((upload.status, upload.text()), (200, ENV.to_owned()));
    assert_eq!(wharf.get("/app/uploads/x.cgi/y").status, 404);
    assert_eq!(wharf.send("POST", "/app/picture.jpg", &[], b"").status, 405);
}

#[test]
fn a_response_is_read_strictly() {
    // What each says, through the shell's own printf.
    let rows: &[(&str, &str, u16)] = &[
        ("plain", "Content-Type: text/plain\\n\\nhello", 200),
        ("crlf", "Status: 404 No\\r\\nContent-Type: text/plain\\r\\n\\r\\nhello", 404),
        ("absolute", "Location: http://example.org/x\\n\\n", 302),
        ("moved", "Status: 301\\nLocation: /elsewhere\\n\\n", 301),
        ("empty", "", 502),
        ("nohead", "hello\\n", 502),
        ("noblank", "Content-Type: text/plain\\n", 502),
        ("nocolon", "hello\\n\\n", 502),
        ("notype", "X-A: b\\n\\nhello", 502),
        ("status99", "Status: 99\\nContent-Type: text/plain\\n\\n", 502),
        ("status199", "Status: 199\\nContent-Type: text/plain\\n\\n", 502),
        ("status1000", "Status: 1000\\nContent-Type: text/plain\\n\\n", 502),
        ("lengths", "Content-Type: a/b\\nContent-Length: 5\\nContent-Length: 6\\n\\nhello", 502),
        ("length", "Content-Type: a/b\\nContent-Length: -5\\n\\nhello", 502),
        ("nul", "Content-Type: a/b\\nX-A: \\0\\n\\nhello", 502),
        ("cr", "Content-Type: a/b\\rX: y\\n\\nhello", 502),
        ("folded", "Content-Type: a/b\\n b\\n\\nhello", 502),
        ("nph", "HTTP/1.1 200 OK\\nContent-Type: a/b\\n\\nhello", 502),
        ("relative", "Location: x/y\\n\\n", 502),
    ];
    let mut programs: Vec<(String, String)> =
        rows.iter().map(|(name, text, _)| (format!("{name}.cgi"), format!("#!/bin/sh\nprintf '{text}'\n"))).collect();
    let long = "#!/bin/sh\nprintf 'Content-Type: a/b\\n'\nwhile echo 'X-A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'; do :; done\n";
    programs.push(("many.cgi".into(), long.into()));
    programs.push(("endless.cgi".into(), "#!/bin/sh\nexec cat /dev/zero\n".into()));
    programs.push(("status.cgi".into(), "#!/bin/sh\nexit 3\n".into()));
    programs.push(("interpreter.cgi".into(), "#!/no/such/thing\n".into()));
    let programs: Vec<(&str, &str)> = programs.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let wharf = app("", &programs);
    let extra = [("many", "", 502), ("endless", "", 502), ("status", "", 502), ("interpreter", "", 500)];
    for (name, _, status) in rows.iter().copied().chain(extra) {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    assert_eq!(wharf.get("/app/plain.cgi").text(), "hello");
    assert_eq!(wharf.get("/app/absolute.cgi").header("location"), Some("http://example.org/x"));
    assert_eq!(wharf.get("/app/moved.cgi").header("location"), Some("/elsewhere"));
    let log = wharf.log();
    assert!(log.contains("/status.cgi: it ended without an answer (exit status: 3)"), "{log}");
    assert!(log.contains("/interpreter.cgi: it can't be started"), "{log}");
    wait_alone(&wharf);
}

#[test]
fn head_gets_no_content_and_lengths_are_kept() {
    let sized = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 5\\n\\nhello'\necho \"$REQUEST_METHOD\" > \"$DOCUMENT_ROOT/method\"\n";
    let short = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 50\\n\\nhello'\n";
    let long = "#!/bin/sh\nprintf 'Content-Type: text/plain\\nContent-Length: 2\\n\\nhello'\n";
    let none = "#!/bin/sh\nprintf 'Status: 204 No Content\\n\\nhello'\n";
    let wharf = app("", &[("sized.cgi", sized), ("short.cgi", short), ("long.cgi", long), ("none.cgi", none)]);
    let mut client = wharf.connect();
    let head = client.send("HEAD", "/app/sized.cgi", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    wait("the method", || fs::read_to_string(wharf.path("deploy/app/method")).ok().filter(|m| m == "HEAD\n"));
    assert_eq!(client.get("/app/sized.cgi").unwrap().text(), "hello");
    assert_eq!(client.get("/app/none.cgi").unwrap().status, 204);
    assert!(client.get("/app/short.cgi").is_err(), "it is 45 bytes short");
    let mut client = wharf.connect();
    client.write("GET", "/app/long.cgi", &[], b"").unwrap();
    if let Ok(answer) = client.read("GET") {
        assert_eq!(answer.text(), "he");
        // What was too much is not the next response.
        assert!(
            client.get("/app/sized.cgi").is_ok_and(|a| a.text() == "hello")
                || wharf.get("/app/sized.cgi").status == 200
        );
    }
}

#[test]
fn both_pipes_are_served_at_once() {
    let echo = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat\n";
    let deaf = "#!/bin/sh\nexec <&-\nprintf 'Content-Type: a/b\\n\\ndeaf'\n";
    let length = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nhead -c 1 >/dev/null\necho $CONTENT_LENGTH $HTTP_TRANSFER_ENCODING $(wc -c)\n";
    let limits = ["--set", "server.limits.body=104857600"];
    let wharf = app_with("", &[("echo.cgi", echo), ("deaf.cgi", deaf), ("length.cgi", length)], &limits);
    let body: Vec<u8> = (0..10_u32 << 20).map(|i| (i ^ (i >> 9)) as u8).collect();
    let mut client = wharf.connect();
    // The client reads while it writes, else it would be the one that blocks.
    std::thread::scope(|scope| {
        let stream = std::net::TcpStream::connect(wharf.addr()).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let body = &body;
        scope.spawn(move || {
            let head = format!(
                "POST /app/echo.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            writer.write_all(head.as_bytes()).unwrap();
            writer.write_all(body).unwrap();
        });
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut &stream, &mut all).unwrap();
        let text = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        // Chunked: at least as long as what was sent.
        assert!(all.len() - text >= body.len(), "{}", all.len());
    });
    let answer = client.send("POST", "/app/deaf.cgi", &[], &body[..1 << 20]).unwrap();
    assert_eq!(answer.text(), "deaf");
    // A chunked body is received first, in memory or in a file, so that its length can be told.
    for size in [1, 1000, 100_000, 3 << 20] {
        let mut request = b"POST /app/length.cgi HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in body[..size].chunks(30_000) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        let mut client = wharf.connect();
        client.write_raw(&request).unwrap();
        let answer = client.read("POST").unwrap();
        let text = answer.text();
        let mut words = text.split_whitespace();
        assert_eq!(words.next(), Some(size.to_string().as_str()), "{text}");
        // `head` may have read ahead; what it left is what `wc` counts.
        assert_eq!(words.count(), 1, "{text}");
    }
    let exact = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat\n";
    program(&wharf, "deploy/app/exact.cgi", exact);
    assert_eq!(wharf.connect().send("POST", "/app/exact.cgi", &[], &body[..300_000]).unwrap().body, &body[..300_000]);
    wait_alone(&wharf);
}

#[test]
fn a_body_that_is_too_large_is_the_clients_fault() {
    let echo = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat\n";
    let sum = "#!/bin/sh\nwc -c >/dev/null\nprintf 'Content-Type: a/b\\n\\n'\n";
    let wharf = app_with("", &[("echo.cgi", echo), ("sum.cgi", sum)], &["--set", "server.limits.body=1000"]);
    for path in ["/app/echo.cgi", "/app/sum.cgi"] {
        let mut client = wharf.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n");
        client.write_raw(head.as_bytes()).unwrap();
        client.write_raw(&[b'x'; 2000]).unwrap();
        client.write_raw(b"\r\n0\r\n\r\n").unwrap();
        assert_eq!(client.read("POST").unwrap().status, 413, "{path}");
    }
    // Half an upload, then gone, with and without a length.
    for framing in ["Content-Length: 900", "Transfer-Encoding: chunked"] {
        let mut client = wharf.connect();
        client
            .write_raw(format!("POST /app/sum.cgi HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello").as_bytes())
            .unwrap();
    }
    wait_alone(&wharf);
}

#[test]
fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let hang = "#!/bin/sh\nsleep 1000 &\necho $! > \"$DOCUMENT_ROOT/child.part\"\nmv \"$DOCUMENT_ROOT/child.part\" \"$DOCUMENT_ROOT/child\"\nwait\n";
    let stubborn = format!("#!/bin/sh\ntrap '' TERM\n{}", hang.replace("#!/bin/sh\n", ""));
    let stall = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\nhello'\nexec sleep 1000\n";
    let chatty = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nwhile sleep 0.05; do echo x; done\n";
    let deaf = "#!/bin/sh\nexec sleep 1000\n";
    let options =
        "first_byte_timeout = \"300ms\"\nidle_timeout = \"300ms\"\ntotal_timeout = \"1s\"\nkill_timeout = \"200ms\"\n";
    let wharf = app(
        options,
        &[
            ("hang.cgi", hang),
            ("stubborn.cgi", &stubborn),
            ("stall.cgi", stall),
            ("chatty.cgi", chatty),
            ("deaf.cgi", deaf),
        ],
    );
    for name in ["hang", "stubborn"] {
        assert_eq!(wharf.get(&format!("/app/{name}.cgi")).status, 504, "{name}");
        let child = fs::read_to_string(wharf.path("deploy/app/child")).unwrap();
        wait("the grandchild to be gone", || (!is_alive(&child)).then_some(()));
    }
    // It does not read, and the pipe fills up.
    let answer = wharf.send("POST", "/app/deaf.cgi", &[], &vec![b'x'; 1 << 20]);
    assert_eq!(answer.status, 504);
    for name in ["stall", "chatty"] {
        let mut client = wharf.connect();
        client.write("GET", &format!("/app/{name}.cgi"), &[], b"").unwrap();
        assert_eq!(client.read_head().unwrap().status, 200, "{name}");
        while let Ok(chunk) = client.read_chunk() {
            assert!(chunk.is_some(), "{name}: an answer that was cut off looks whole");
        }
    }
    wait_alone(&wharf);
    let log = wharf.log();
    assert!(log.contains("it did nothing for 300ms") && log.contains("longer than total_timeout"), "{log}");
}

#[test]
fn a_program_that_dies_in_its_answer_ends_the_connection() {
    let dies = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\nhello'\nkill -9 $$\n";
    let fails = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\nhello'\nexit 1\n";
    let wharf = app("", &[("dies.cgi", dies), ("fails.cgi", fails)]);
    let mut client = wharf.connect();
    client.write("GET", "/app/dies.cgi", &[], b"").unwrap();
    assert!(client.read("GET").is_err(), "an answer that was cut off looks whole");
    // A status of 1 after a whole answer is what many scripts end with.
    assert_eq!(wharf.get("/app/fails.cgi").text(), "hello");
    wait_alone(&wharf);
}

#[test]
fn a_client_that_goes_away_takes_the_program_with_it() {
    let slow = "#!/bin/sh\necho $$ > \"$DOCUMENT_ROOT/pid.part\"\nmv \"$DOCUMENT_ROOT/pid.part\" \"$DOCUMENT_ROOT/pid\"\nsleep 1000\n";
    let endless = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat /dev/zero\n";
    let wharf = app("", &[("slow.cgi", slow), ("endless.cgi", endless)]);
    let mut client = wharf.connect();
    client.write("GET", "/app/slow.cgi", &[], b"").unwrap();
    let pid = wait("the program", || fs::read_to_string(wharf.path("deploy/app/pid")).ok());
    assert!(is_alive(&pid));
    drop(client);
    wait("the program to be gone", || (!is_alive(&pid)).then_some(()));
    let mut client = wharf.connect();
    client.write("GET", "/app/endless.cgi", &[], b"").unwrap();
    client.read_head().unwrap();
    client.skip(5 << 20).unwrap();
    drop(client);
    wait_alone(&wharf);
}

#[test]
fn more_than_may_run_wait_and_more_than_may_wait_are_refused() {
    let gate = "#!/bin/sh\necho x >> \"$DOCUMENT_ROOT/started\"\nwhile [ ! -e \"$DOCUMENT_ROOT/go\" ]; do sleep 0.02; done\nprintf 'Content-Type: a/b\\n\\nok'\n";
    let wharf = app("max_processes = 1\nqueue = 1\nqueue_timeout = \"20s\"\n", &[("gate.cgi", gate)]);
    let mut first = wharf.connect();
    first.write("GET", "/app/gate.cgi", &[], b"").unwrap();
    wait("the first to run", || wharf.path("deploy/app/started").exists().then_some(()));
    let mut others = [wharf.connect(), wharf.connect(), wharf.connect()];
    for client in &mut others {
        client.write("GET", "/app/gate.cgi", &[], b"").unwrap();
    }
    // Two of the three find the queue full; the third waits. Which is which is theirs.
    wait("two refusals", || (wharf.output().matches(" 503 ").count() == 2).then_some(()));
    wharf.put("deploy/app/go", "");
    assert_eq!(first.read("GET").unwrap().text(), "ok");
    let answers: Vec<_> = others.iter_mut().map(|c| c.read("GET").unwrap()).collect();
    assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1, "{answers:?}");
    for refused in answers.iter().filter(|a| a.status != 200) {
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    }
    assert_eq!(fs::read_to_string(wharf.path("deploy/app/started")).unwrap().lines().count(), 2);
    assert_eq!(wharf.get("/app/gate.cgi").status, 200);
}

#[test]
fn standard_error_is_logged_with_the_request_and_not_without_end() {
    let warns = "#!/bin/sh\nprintf 'careful\\033[31m' >&2\nprintf 'Content-Type: a/b\\n\\n%s' ok\n";
    let floods = "#!/bin/sh\nyes 'a very long complaint' | head -n 200000 >&2\nprintf 'Content-Type: a/b\\n\\nok'\n";
    let wharf = app("", &[("warns.cgi", warns), ("floods.cgi", floods)]);
    let answer = wharf.get("/app/warns.cgi");
    assert_eq!(answer.text(), "ok");
    let line = wait("the line", || wharf.log().lines().find(|l| l.contains("careful")).map(str::to_owned));
    assert!(line.contains("app=/app") && line.contains("request="), "{line}");
    assert!(!line.contains('\u{1b}'), "{line:?}");
    assert_eq!(wharf.get("/app/floods.cgi").text(), "ok");
    wait("the count of what is not shown", || wharf.log().contains("were too many and are not shown").then_some(()));
    assert!(wharf.log().matches("a very long complaint").count() < 2000);
}

#[test]
fn redirects_within_the_application_are_followed_by_the_container() {
    let to = |path: &str| format!("#!/bin/sh\nprintf 'Location: {path}\\n\\n'\n");
    let wharf = app(
        "",
        &[
            ("env.cgi", ENV),
            ("to.cgi", &to("/app/env.cgi/p?a=b")),
            ("loop.cgi", &to("/app/loop.cgi")),
            ("other.cgi", &to("/other/x?y")),
            ("host.cgi", &to("//evil.example/x")),
            ("bad.cgi", &to("/app/%%2e%%2e/%%2e%%2e/x")),
            ("missing.cgi", &to("/app/none.cgi")),
        ],
    );
    let all = variables(&wharf.send("POST", "/app/to.cgi?q", &[("Content-Type", "text/plain")], b"hello"));
    for (name, value) in
        [("REQUEST_METHOD", "GET"), ("PATH_INFO", "/p"), ("QUERY_STRING", "a=b"), ("SCRIPT_NAME", "/app/env.cgi")]
    {
        assert_eq!(all[name], value, "{name}");
    }
    assert!(!all.contains_key("CONTENT_LENGTH") && !all.contains_key("CONTENT_TYPE"));
    assert_eq!(wharf.get("/app/loop.cgi").status, 502);
    assert!(wharf.log().contains("more than 10 local redirects"));
    // What is not of this application the client asks for itself.
    let other = wharf.get("/app/other.cgi");
    assert_eq!((other.status, other.header("location")), (302, Some("/other/x?y")));
    let host = wharf.get("/app/host.cgi");
    assert_eq!((host.status, host.header("location")), (302, Some("/evil.example/x")));
    assert_eq!(wharf.get("/app/bad.cgi").status, 502);
    assert_eq!(wharf.get("/app/missing.cgi").status, 404);
    wait_alone(&wharf);
}

#[test]
fn files_are_sent_on_order_from_the_folders_named_and_no_others() {
    let site = Site::new();
    fs::create_dir(site.path("files")).unwrap();
    site.put("files/a b.txt", "0123456789");
    site.put("secret.txt", "secret");
    std::os::unix::fs::symlink("../secret.txt", site.path("files/link.txt")).unwrap();
    let files = fs::canonicalize(site.path("files")).unwrap();
    let files = files.to_str().unwrap();
    site.put(
        "deploy/app/app.toml",
        format!("{TOML}sendfile_roots = [\"{files}\"]\naccel_redirects = {{ \"/protected/\" = \"{files}\" }}\n"),
    );
    site.put("deploy/none/app.toml", TOML);
    let order = |name: &str, path: &str| {
        format!(
            "#!/bin/sh\nprintf 'Content-Type: text/x\\nContent-Disposition: attachment\\n{name}: {path}\\n\\nnot this'\n"
        )
    };
    for (program_name, text) in [
        ("send", order("X-Sendfile", &format!("{files}/a b.txt"))),
        ("accel", order("X-Accel-Redirect", "/protected/a%%20b.txt")),
        ("out", order("X-Sendfile", &format!("{files}/../secret.txt"))),
        ("etc", order("X-Sendfile", "/etc/passwd")),
        ("link", order("X-Sendfile", &format!("{files}/link.txt"))),
        ("accelout", order("X-Accel-Redirect", "/protected/../../secret.txt")),
        ("accelno", order("X-Accel-Redirect", "/other/a%%20b.txt")),
        ("gone", order("X-Sendfile", &format!("{files}/none.txt"))),
    ] {
        program(&site, &format!("deploy/app/{program_name}.cgi"), &text);
        program(&site, &format!("deploy/none/{program_name}.cgi"), &text);
    }
    let wharf = site.start(&[]);
    for name in ["send", "accel"] {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"), "{name}");
        assert_eq!(answer.header("content-type"), Some("text/x"));
        assert_eq!(answer.header("content-disposition"), Some("attachment"));
        assert!(answer.header("x-sendfile").is_none() && answer.header("x-accel-redirect").is_none());
        let part = wharf.send("GET", &format!("/app/{name}.cgi"), &[("Range", "bytes=2-4")], b"");
        assert_eq!((part.status, part.text().as_str()), (206, "234"), "{name}");
        assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
        let modified = answer.header("last-modified").unwrap().to_owned();
        let again = wharf.send("GET", &format!("/app/{name}.cgi"), &[("If-Modified-Since", &modified)], b"");
        assert_eq!(again.status, 304, "{name}");
        assert_eq!(wharf.send("POST", &format!("/app/{name}.cgi"), &[], b"x").text(), "0123456789");
        // Without a folder that is named there is no such order.
        assert_eq!(wharf.get(&format!("/none/{name}.cgi")).status, 502, "{name}");
    }
    for (name, status) in
        [("out", 502), ("etc", 502), ("link", 404), ("accelout", 502), ("accelno", 502), ("gone", 404)]
    {
        let answer = wharf.get(&format!("/app/{name}.cgi"));
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(!answer.text().contains("secret") && !answer.text().contains("root:"), "{name}");
    }
    wait_alone(&wharf);
}

#[test]
fn a_generation_that_goes_leaves_no_process() {
    let lingers = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\nok'\nexec >&- 2>&- <&-\nexec sleep 1000\n";
    let behind = "#!/bin/sh\nsleep 1000 >/dev/null 2>&1 </dev/null &\necho $! > \"$DOCUMENT_ROOT/child\"\nprintf 'Content-Type: a/b\\n\\nok'\n";
    let wharf =
        app("", &[("lingers.cgi", lingers), ("behind.cgi", behind), ("hang.cgi", "#!/bin/sh\nexec sleep 1000\n")]);
    // What a program leaves behind in its group ends with it.
    assert_eq!(wharf.get("/app/behind.cgi").text(), "ok");
    let child = fs::read_to_string(wharf.path("deploy/app/child")).unwrap();
    wait("the child to be gone", || (!is_alive(&child)).then_some(()));
    // One that goes on after its answer has time, until its generation goes.
    assert_eq!(wharf.get("/app/lingers.cgi").text(), "ok");
    assert!(!children(&wharf).trim().is_empty());
    wharf.put("deploy/app/app.toml", format!("{TOML}queue = 1\n"));
    wait_alone(&wharf);
    wharf.wait_alone("app");
    assert_eq!(wharf.get("/app/lingers.cgi").text(), "ok");
    wharf.remove("deploy/app/app.toml");
    fs::remove_dir_all(wharf.path("deploy/app")).unwrap();
    wait("the application to go", || wharf.app("app").is_null().then_some(()));
    wait_alone(&wharf);
}

#[test]
fn a_process_has_the_limits_of_its_application() {
    let shows = "#!/bin/sh\nsleep 0.3\nprintf 'Content-Type: a/b\\n\\n'\necho memory=$(ulimit -v)\necho cpu=$(ulimit -t)\necho files=$(ulimit -n)\n";
    let spins = "#!/bin/sh\nwhile :; do :; done\n";
    let wharf =
        app("memory = 104857600\ncpu = \"1s\"\nopen_files = 50\n", &[("shows.cgi", shows), ("spins.cgi", spins)]);
    let all = variables(&wharf.get("/app/shows.cgi"));
    assert_eq!((all["memory"].as_str(), all["cpu"].as_str(), all["files"].as_str()), ("102400", "1", "50"));
    assert_eq!(wharf.get("/app/spins.cgi").status, 502);
    let log = wharf.log();
    assert!(log.contains("it ended without an answer (signal: "), "{log}");
}

#[test]
fn authorization_is_passed_only_where_that_is_asked_for() {
    let wharf = app("pass_authorization = true\n", &[("env.cgi", ENV)]);
    let headers = [("Authorization", "Basic YW5uOnNlY3JldA=="), ("Proxy-Authorization", "Basic eDp5")];
    let all = variables(&wharf.send("GET", "/app/env.cgi", &headers, b""));
    assert_eq!(all["HTTP_AUTHORIZATION"], "Basic YW5uOnNlY3JldA==");
    assert!(!all.contains_key("HTTP_PROXY_AUTHORIZATION") && !all.contains_key("REMOTE_USER"));
}

#[test]
fn options_that_do_not_fit_are_refused_with_their_key() {
    let site = Site::new().with("deploy/good/app.toml", TOML);
    program(&site, "deploy/good/env.cgi", ENV);
    let rows = [
        ("key", "maxprocesses = 3", "did you mean 'max_processes'"),
        ("time", "idle_timeout = \"soon\"", "app.toml:3:16"),
        ("static", "static_files = true", "static_files needs extensions"),
        ("program", "program = \"none.cgi\"", "there is no such file"),
        ("roots", "sendfile_roots = [\"/no/such\"]", "/no/such is not a folder"),
    ];
    for (name, options, _) in rows {
        site.put(&format!("deploy/{name}/app.toml"), format!("{TOML}{options}\n"));
    }
    let wharf = site.start(&[]);
    assert_eq!(wharf.get("/good/env.cgi").status, 200);
    for (name, _, word) in rows {
        let error = wharf.app(name)["error"].to_string();
        assert!(error.contains(word), "{name}: {error}");
    }
}

#[test]
fn many_at_once_and_nothing_is_left() {
    let wharf = app("max_processes = 8\nqueue = 1000\nqueue_timeout = \"60s\"\n", &[("env.cgi", ENV)]);
    let before = {
        wharf.get("/app/env.cgi");
        wait_alone(&wharf);
        wharf.descriptors()
    };
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = wharf.connect();
                for _ in 0..25 {
                    assert_eq!(client.get("/app/env.cgi").unwrap().status, 200);
                }
            });
        }
    });
    wait_alone(&wharf);
    wait("the descriptors to be closed", || (wharf.descriptors() <= before).then_some(()));
    assert!(Path::new(&format!("/proc/{}", wharf.pid())).exists());
}
