//! One application that saturates its limit, blocks its threads, never comes back from a poll or takes all memory must not
//! hurt the one beside it.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use wharf_tests::h2::kind;
use wharf_tests::{Answer, Authority, Client, H2, RawSocket, Site, Wharf, chameleon, library, wait};

/// A good application and a bad one, which says so in its TOML file.
fn neighbours(bad: &str, arguments: &[&str]) -> Wharf {
    Site::new()
        .with("deploy/good.so", chameleon("good"))
        .with("deploy/bad.so", chameleon("bad"))
        .with("deploy/bad.toml", bad)
        .start(arguments)
}

/// Sends requests, each over a connection of its own that stays open, and does not wait for the answers.
fn begin(wharf: &Wharf, target: &str, count: usize) -> Vec<Client> {
    let one = |_| {
        let mut client = wharf.connect();
        client.write("GET", target, &[], b"").expect("the request is sent");
        client
    };
    (0..count).map(one).collect()
}

fn answers(clients: Vec<Client>) -> Vec<Answer> {
    clients.into_iter().map(|mut client| client.read("GET").expect("an answer")).collect()
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

fn metric(wharf: &Wharf, line: &str) -> Option<u64> {
    let text = wharf.admin("GET", "/v1/metrics").text();
    text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
}

const BAD: &str = r#"{app="/bad",version="",host="default""#;

#[test]
fn above_its_limit_requests_wait_and_above_its_queue_they_get_503() {
    let wharf = neighbours("max_requests = 2\nmax_queued = 2\n", &[]);
    let held = begin(&wharf, "/bad/wait?millis=1500", 4);
    wait("two in the queue", || (wharf.app("bad")["load"]["queued"] == 2).then_some(()));
    let refused = wharf.get("/bad/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("bad: 2 requests wait for their turn, 1 refused as too many"));
    assert_eq!(metric(&wharf, &format!("wharf_requests_queued{BAD}}}")), Some(2));
    assert_eq!(metric(&wharf, &format!("wharf_requests_rejected_total{BAD},reason=\"busy\"}}")), Some(1));
    assert_eq!(count(&answers(held), 200), 4);
    assert_eq!(wharf.get("/bad/").text(), "bad");
}

#[test]
fn who_waits_too_long_or_goes_away_leaves_the_queue() {
    let wharf = neighbours("max_requests = 1\nmax_queued = 2\nqueue_timeout = \"200ms\"\n", &[]);
    let held = begin(&wharf, "/bad/wait?millis=3000", 1);
    wait("the first", || (wharf.app("bad")["load"]["in_flight"] == 1).then_some(()));
    let late = wharf.get("/bad/");
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    drop(begin(&wharf, "/bad/wait?millis=3000", 2));
    wait("an empty queue", || (wharf.app("bad")["load"]["queued"] == 0).then_some(()));
    // The client goes, and with it what holds the permit.
    drop(held);
    wait("a free place", || (wharf.get("/bad/").status == 200).then_some(()));
}

#[test]
fn a_full_pool_for_blocking_work_answers_503() {
    let wharf = neighbours("blocking_threads = 1\n", &[]);
    let held = begin(&wharf, "/bad/block?millis=100", 40);
    assert_eq!(wharf.get("/good/").text(), "good");
    let answers = answers(held);
    assert_eq!((count(&answers, 200), count(&answers, 503)), (33, 7));
    assert!(answers.iter().all(|a| a.status == 200 || a.header("retry-after") == Some("1")));
    assert_eq!(wharf.get("/bad/block?millis=1").text(), "blocked");
}

/// In front of the C library: no thread can be started while there is a file of this name.
const NO_THREADS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    const char *file = getenv("NO_THREADS");
    if (file && access(file, F_OK) == 0) return EAGAIN;
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}
"#;

#[test]
fn where_no_thread_is_to_be_had_the_answer_is_503() {
    let Some(mut cc) = wharf_tests::tool("cc", &["-shared", "-fPIC", "-o", "no_threads.so", "no_threads.c", "-ldl"])
    else {
        return;
    };
    let site = Site::new().with("no_threads.c", NO_THREADS).with("deploy/good.so", chameleon("good"));
    assert!(cc.current_dir(site.path("")).status().unwrap().success());
    let (library, file) = (site.path("no_threads.so"), site.path("none"));
    let wharf = site.start_as(&[], |command| {
        command.env("LD_PRELOAD", &library).env("NO_THREADS", &file);
    });
    wharf.put("none", "");
    for _ in 0..3 {
        let refused = wharf.get("/good/block?millis=1");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(wharf.get("/good/").text(), "good");
    }
    assert!(wharf.log().contains("no thread can be started"), "{}", wharf.log());
    wharf.remove("none");
    // What was refused is not done later.
    assert_eq!(wharf.get("/good/block?millis=1").text(), "blocked");
}

#[test]
fn above_its_memory_budget_new_requests_get_503_until_it_is_redeployed() {
    let wharf = neighbours("memory_budget = 20000000\n", &[]);
    assert_eq!(wharf.get("/bad/allocate?bytes=30000000").text(), "allocated");
    wait("the budget", || (wharf.get("/bad/").status == 503).then_some(()));
    assert_eq!(wharf.get("/bad/").header("retry-after"), Some("5"));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("above its memory budget"));
    assert_eq!(metric(&wharf, &format!("wharf_app_over_memory_budget{BAD}}}")), Some(1));
    wharf.cli(&["reload", "bad"]);
    wharf.wait_for("/bad/", "bad");
}

/// Seconds that the bad application has taken of the processors.
fn cpu(wharf: &Wharf) -> f64 {
    wharf.app("bad")["load"]["cpu_seconds"].as_f64().unwrap()
}

#[test]
fn processor_time_is_counted_wherever_it_is_taken() {
    let wharf = neighbours("", &["--set", "server.workers=1"]);
    let begin_at = Instant::now();
    assert_eq!(wharf.get("/bad/hog?millis=120").text(), "slept");
    assert!(cpu(&wharf) >= 0.12, "a poll keeps its thread: {}", cpu(&wharf));
    assert_eq!(wharf.get("/bad/burn?millis=300").text(), "burnt");
    wait("the time of a thread of its own", || (cpu(&wharf) >= 0.42).then_some(()));
    // What threads have taken that have ended stays counted.
    assert_eq!(wharf.get("/bad/burn?millis=300&thread").text(), "burnt");
    wait("the time of a thread that has ended", || (cpu(&wharf) >= 0.72).then_some(()));
    // And of a poll that goes on while it goes on.
    let spinning = begin(&wharf, "/bad/spin", 1);
    wait("the time of a poll that does not come back", || (cpu(&wharf) >= 1.2).then_some(()));
    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    assert_eq!(answers(spinning)[0].text(), "spun");
    let (taken, passed) = (cpu(&wharf), begin_at.elapsed().as_secs_f64());
    assert!(taken < passed, "{taken} s in {passed} s");
    let counted = metric(&wharf, &format!("wharf_app_cpu_milliseconds_total{BAD}}}")).unwrap();
    assert!(counted >= 1200, "{counted}");
    let list = wharf.cli(&["list"]).out;
    assert!(list.lines().any(|l| l.starts_with("good") && l.ends_with("0.0 s")), "{list}");
}

#[test]
fn above_its_processor_limit_new_requests_get_503_until_it_has_waited() {
    let wharf = neighbours("cpu_limit = 0.2\n", &[]);
    // A fifth of a second is there at once; this is four more.
    assert_eq!(wharf.get("/bad/burn?millis=1000").text(), "burnt");
    let begin_at = Instant::now();
    wait("the limit", || (wharf.get("/bad/").status == 503).then_some(()));
    assert_eq!(wharf.get("/bad/").header("retry-after"), Some("1"));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("above its processor limit"));
    assert_eq!(metric(&wharf, &format!("wharf_app_over_cpu_limit{BAD}}}")), Some(1));
    wait("its turn", || (wharf.get("/bad/").status == 200).then_some(()));
    assert!(begin_at.elapsed() > Duration::from_secs(2), "{:?}", begin_at.elapsed());
    assert!(metric(&wharf, &format!("wharf_requests_rejected_total{BAD},reason=\"cpu\"}}")) > Some(0));
}

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
    let signed = authority.server(&["localhost"]);
    let wharf = Site::new()
        .with("deploy/good.so", chameleon("good"))
        .with("deploy/bad.so", chameleon("bad"))
        .with("deploy/s.so", library("sockets"))
        .with("chain.pem", &signed.chain)
        .with("key.pem", &signed.key)
        .with("wharf.toml", "[[tls.certificate]]\nchain = \"chain.pem\"\nkey = \"key.pem\"\n")
        .start(&[
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
