//! The processes of CGI programs: both pipes at once, time limits, what is ended and what is never left behind.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use wharf_tests::{CGI_ENV, CGI_TOML, Load, Wharf, cgi_app, cgi_program, cgi_variables, is_alive, wait};

/// A container with the application `/app` and no further arguments.
fn app(options: &str, programs: &[(&str, &str)]) -> Wharf {
    cgi_app(options, programs, &[])
}

#[test]
fn both_pipes_are_served_at_once() {
    let echo = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat\n";
    let deaf = "#!/bin/sh\nexec <&-\nprintf 'Content-Type: a/b\\n\\ndeaf'\n";
    let length = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nhead -c 1 >/dev/null\necho $CONTENT_LENGTH $HTTP_TRANSFER_ENCODING $(wc -c)\n";
    let limits = ["--set", "server.limits.body=104857600"];
    let wharf = cgi_app("", &[("echo.cgi", echo), ("deaf.cgi", deaf), ("length.cgi", length)], &limits);
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
    cgi_program(&wharf, "deploy/app/exact.cgi", exact);
    assert_eq!(wharf.connect().send("POST", "/app/exact.cgi", &[], &body[..300_000]).unwrap().body, &body[..300_000]);
    wharf.wait_childless();
}

#[test]
fn a_body_that_is_too_large_is_the_clients_fault() {
    let echo = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\nexec cat\n";
    let sum = "#!/bin/sh\nwc -c >/dev/null\nprintf 'Content-Type: a/b\\n\\n'\n";
    let wharf = cgi_app("", &[("echo.cgi", echo), ("sum.cgi", sum)], &["--set", "server.limits.body=1000"]);
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
    wharf.wait_childless();
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
    wharf.wait_childless();
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
    wharf.wait_childless();
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
    wharf.wait_childless();
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
    assert!(!wharf.children().is_empty());
    wharf.put("deploy/app/app.toml", format!("{CGI_TOML}queue = 1\n"));
    wharf.wait_childless();
    wharf.wait_alone("app");
    assert_eq!(wharf.get("/app/lingers.cgi").text(), "ok");
    wharf.remove("deploy/app/app.toml");
    fs::remove_dir_all(wharf.path("deploy/app")).unwrap();
    wait("the application to go", || wharf.app("app").is_null().then_some(()));
    wharf.wait_childless();
}

#[test]
fn a_process_has_the_limits_of_its_application() {
    let shows = "#!/bin/sh\nsleep 0.3\nprintf 'Content-Type: a/b\\n\\n'\necho memory=$(ulimit -v)\necho cpu=$(ulimit -t)\necho files=$(ulimit -n)\n";
    let spins = "#!/bin/sh\nwhile :; do :; done\n";
    let wharf =
        app("memory = 104857600\ncpu = \"1s\"\nopen_files = 50\n", &[("shows.cgi", shows), ("spins.cgi", spins)]);
    let all = cgi_variables(&wharf.get("/app/shows.cgi"));
    assert_eq!((all["memory"].as_str(), all["cpu"].as_str(), all["files"].as_str()), ("102400", "1", "50"));
    assert_eq!(wharf.get("/app/spins.cgi").status, 502);
    let log = wharf.log();
    assert!(log.contains("it ended without an answer (signal: "), "{log}");
}

#[test]
fn the_processor_time_of_programs_is_counted_and_limited() {
    let burns = "#!/bin/sh\ni=0; while [ $i -lt 300000 ]; do i=$((i+1)); done\nprintf 'Content-Type: a/b\\n\\nburnt'\n";
    let wharf = app("max_processes = 4\n", &[("burns.cgi", burns), ("env.cgi", CGI_ENV)]);
    assert_eq!(wharf.get("/app/burns.cgi").text(), "burnt");
    let cpu = || wharf.app("app")["load"]["cpu_seconds"].as_f64();
    wait("the time of a process that has ended", || (cpu() >= Some(0.05)).then_some(()));
    wharf.put("deploy/app/app.toml", format!("cpu_limit = 0.01\n{CGI_TOML}max_processes = 4\n"));
    wharf.wait_alone("app");
    wait("the limit", || (wharf.get("/app/burns.cgi").status == 503).then_some(()));
    assert_eq!(wharf.get("/app/env.cgi").header("retry-after"), Some("1"));
}

#[test]
fn many_at_once_and_nothing_is_left() {
    let wharf = app("max_processes = 8\nqueue = 1000\nqueue_timeout = \"60s\"\n", &[("env.cgi", CGI_ENV)]);
    let before = {
        wharf.get("/app/env.cgi");
        wharf.wait_childless();
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
    wharf.wait_childless();
    wait("the descriptors to be closed", || (wharf.descriptors() <= before).then_some(()));
    assert!(Path::new(&format!("/proc/{}", wharf.pid())).exists());
}

#[test]
fn a_container_that_stops_lets_answers_end_and_leaves_no_process() {
    let slow = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n'\necho first\nwhile [ ! -e \"$DOCUMENT_ROOT/go\" ]; do sleep 0.02; done\necho last\n";
    let lingers = "#!/bin/sh\necho $$ > \"$DOCUMENT_ROOT/pid\"\nprintf 'Content-Type: a/b\\n\\nok'\nexec >&- 2>&- <&-\nexec sleep 1000\n";
    let mut wharf = app("", &[("slow.cgi", slow), ("lingers.cgi", lingers)]);
    assert_eq!(wharf.get("/app/lingers.cgi").text(), "ok");
    let pid = fs::read_to_string(wharf.path("deploy/app/pid")).unwrap();
    assert!(is_alive(&pid));
    let mut client = wharf.connect();
    client.write("GET", "/app/slow.cgi", &[], b"").unwrap();
    client.read_head().unwrap();
    assert_eq!(client.read_chunk().unwrap().unwrap(), b"first\n");
    wharf.signal(Signal::TERM);
    wait("the container to stop", || wharf.log().contains("SIGTERM: stopping").then_some(()));
    wharf.put("deploy/app/go", "");
    assert_eq!(client.read_chunk().unwrap().unwrap(), b"last\n");
    assert!(client.read_chunk().unwrap().is_none());
    assert_eq!(wharf.wait_end().code(), Some(0));
    assert!(!is_alive(&pid));
}

#[test]
fn redeploys_under_load_lose_no_request() {
    let version = "#!/bin/sh\nprintf 'Content-Type: a/b\\n\\n%s' \"$VERSION\"\n";
    let options = |n: u32| format!("queue = 1000\nqueue_timeout = \"60s\"\nenv = {{ VERSION = \"{n}\" }}\n");
    let wharf = app(&options(0), &[("index.cgi", version)]);
    let load = Load::start(wharf.addr(), &["/app/"], 4, Duration::ZERO);
    for n in 1..=8 {
        wharf.put("deploy/app/app.toml", format!("{CGI_TOML}{}", options(n)));
        wharf.wait_for("/app/", &n.to_string());
        load.retired(Some(&(n - 1).to_string()));
    }
    load.stop().assert_clean();
    wharf.wait_alone("app");
    wharf.wait_childless();
}
