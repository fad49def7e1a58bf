//! The server's threads: limits, draining, work on each worker, sockets.

mod support;

use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use support::*;
use wharf_http::{Bound, Limits, Listen, Server, ServerConfig};

#[test]
fn at_the_limit_new_connections_wait_for_busy_ones() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let mut busy: Vec<_> = (0..2).map(|_| connect(running.addr)).collect();
    for stream in &mut busy {
        stream.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
        stream.read_exact(&mut [0; 25]).unwrap();
    }
    let mut third = connect(running.addr);
    third.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0; 512]).is_err(), "it waits");
    drop(busy.pop());
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(third.read(&mut [0; 512]).unwrap() > 0, "it is served once another is gone");
}

#[test]
fn at_the_limit_the_connection_that_is_idle_longest_goes() {
    // Ages are known to a tick of the sweep, which is a tenth of the shortest limit.
    let limits = Limits { connections: 3, send_timeout: Duration::from_millis(200), ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle: Vec<_> = (0..3).map(|_| connect(running.addr)).collect();
    for stream in &mut idle {
        stream.write_all(request).unwrap();
        assert!(stream.read(&mut [0; 512]).unwrap() > 0);
        // Its age begins with the first sweep after the answer was written, which nothing tells the client: on a busy machine some
        // time later.
        std::thread::sleep(Duration::from_millis(400));
    }
    let mut new = connect(running.addr);
    new.write_all(request).unwrap();
    assert!(new.read(&mut [0; 512]).unwrap() > 0, "it is served at once");
    assert_eq!(idle[0].read(&mut [0; 16]).unwrap(), 0, "the oldest was closed");
    for stream in &mut idle[1..] {
        stream.write_all(request).unwrap();
        assert!(stream.read(&mut [0; 512]).unwrap() > 0, "the others live on");
    }
}

#[test]
fn at_the_limit_connections_that_say_nothing_go() {
    let limits = Limits { connections: 3, header_timeout: Duration::from_secs(600), ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let mut silent: Vec<_> = (0..3).map(|_| connect(running.addr)).collect();
    let mut new = connect(running.addr);
    new.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(new.read(&mut [0; 512]).unwrap() > 0, "it is served long before the others' time for a head is over");
    // Which one is not said: they are as old as each other.
    let is_closed = |stream: &mut std::net::TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        matches!(stream.read(&mut [0; 16]), Ok(0))
    };
    assert_eq!(silent.iter_mut().filter_map(|stream| is_closed(stream).then_some(())).count(), 1);
}

#[test]
fn a_slow_head_is_cut() {
    let limits = Limits { header_timeout: Duration::from_millis(300), ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let began = Instant::now();
    let mut stream = connect(running.addr);
    stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let text = read_all(&mut stream);
    assert!(matches!(*statuses(&text), [] | [408]), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_stalled_body_is_cut() {
    let limits =
        Limits { body_idle: Duration::from_millis(300), drain_time: Duration::from_millis(100), ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let mut stream = connect(running.addr);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").unwrap();
    let text = read_all(&mut stream);
    assert_eq!(statuses(&text), [408], "{text}");
}

#[test]
fn draining_finishes_requests_and_cuts_the_rest() {
    let running = start();
    // Two, so that each of the two workers has one.
    let mut idle = [connect(running.addr), connect(running.addr)];
    for stream in &mut idle {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 512]).unwrap() > 0);
    }
    let mut busy = connect(running.addr);
    busy.write_all(b"POST /busy HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut interim = [0; 25];
    busy.read_exact(&mut interim).unwrap();
    let mut stuck = connect(running.addr);
    stuck.write_all(b"POST /stuck HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").unwrap();
    stuck.read_exact(&mut interim).unwrap();
    let addr = running.addr;
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| running.server.drain(Duration::from_secs(2)));
        for stream in &mut idle {
            assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "an idle connection is closed at once");
        }
        assert!(std::net::TcpStream::connect(addr).is_err(), "nothing is accepted any more");
        busy.write_all(b"abc").unwrap();
        let text = read_all(&mut busy);
        assert!(text.ends_with("/busy 3") && text.contains("connection: close"), "{text}");
        assert_eq!(drained.join().unwrap(), 1);
    });
    assert_eq!(running.pipeline.counters.open_connections(), 0);
    assert_eq!(running.server.drain(Duration::ZERO), 0);
    running.server.stop();
}

#[test]
fn an_upgraded_connection_counts_to_its_end_whoever_has_it() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    let head = b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n";
    let open = || {
        let mut stream = connect(running.addr);
        stream.write_all(head).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert_eq!(statuses(&String::from_utf8(answer).unwrap()), [101]);
        stream
    };
    let route = running.pipeline.routes.load();
    let counters = &route.routes()[0].counters;
    let mut ending = open();
    let _staying = [open(), open()];
    assert_eq!((running.pipeline.counters.open_connections(), counters.open_upgrades()), (3, 3));
    assert_eq!((counters.in_flight(), counters.by_class()), (0, [3, 0, 0, 0, 0]));
    // All there may be are open.
    let mut waiting = connect(running.addr);
    waiting.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(running.log.0.lock().unwrap().is_empty());
    ending.write_all(b"hello").unwrap();
    assert_eq!(read_all(&mut ending), "HELLO");
    assert_eq!(statuses(&read_all(&mut waiting)), [200]);
    // Written down at its end, with what went over it since.
    let records = running.log.0.lock().unwrap().clone();
    let record = records.iter().find(|r| r.status == 101).unwrap();
    assert_eq!((record.bytes, record.aborted, record.app.is_some()), (5, false, true));
    assert_eq!((counters.open_upgrades(), counters.upgraded(), counters.bytes_in()), (2, 3, 5));
    // A drain waits for the two, and cuts them.
    assert_eq!(running.server.drain(Duration::from_millis(200)), 2);
    assert_eq!(running.pipeline.counters.open_connections(), 0);
}

#[test]
fn work_is_done_on_each_worker() {
    let running = start();
    let (sender, receiver) = mpsc::channel();
    let workers = running.server.workers();
    let threads = sender.clone();
    workers.on_each(
        Arc::new(move || threads.send(std::thread::current().name().unwrap().to_owned()).unwrap()),
        Arc::new(move |name| sender.send(format!("done {name}")).unwrap()),
    );
    let mut seen: Vec<_> = (0..4).map(|_| receiver.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    seen.sort();
    assert_eq!(seen, ["done wharf-worker-0", "done wharf-worker-1", "wharf-worker-0", "wharf-worker-1"]);
    assert_eq!(workers.names(), ["wharf-worker-0", "wharf-worker-1"]);
}

#[test]
fn connections_are_spread_over_the_workers() {
    let running = start();
    let mut streams: Vec<_> = (0..8).map(|_| connect(running.addr)).collect();
    for stream in &mut streams {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 512]).unwrap() > 0);
    }
    let log = running.log.0.lock().unwrap();
    // The first eight digits of an id belong to a worker.
    let mut counts = std::collections::HashMap::new();
    for record in &*log {
        *counts.entry(record.id[..8].to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.values().collect::<Vec<_>>(), [&4, &4]);
}

#[test]
fn unix_sockets_are_served_and_removed() {
    let folder = std::env::temp_dir().join(format!("wharf-http-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a stale socket file is in the way");
    let running = start();
    let config = ServerConfig { listen: vec![Listen::Unix(path.clone())], workers: 1, ..ServerConfig::default() };
    let server = Server::start(&config, running.pipeline.clone()).unwrap();
    server.accept();
    assert_eq!(server.bound(), [Bound::Unix(path.clone())]);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /u HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("/u 0"), "{text}");
    assert!(Server::start(&config, running.pipeline.clone()).is_err(), "somebody listens there");
    drop(server);
    assert!(!path.exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_address_in_use_is_named() {
    let running = start();
    let config = ServerConfig { listen: vec![Listen::Tcp(running.addr)], workers: 1, ..ServerConfig::default() };
    let error = Server::start(&config, running.pipeline.clone()).err().unwrap().to_string();
    assert!(error.contains(&running.addr.to_string()) && error.contains("another program"), "{error}");
}

#[test]
fn the_number_of_headers_can_be_set() {
    let limits = Limits { header_count: 3, ..Limits::default() };
    let running = start_with(limits, vec![route("/", None, false)]);
    assert_eq!(statuses(&get(running.addr, "/")), [200]);
    let text = exchange(running.addr, b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n");
    assert_eq!(statuses(&text), [431]);
}
