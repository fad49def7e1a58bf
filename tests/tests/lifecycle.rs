//! From the first line to the last: start, readiness, graceful and forced stop, and what keeps a container from starting.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wharf_tests::{Client, Load, Site, chameleon, wait, within};

#[test]
fn a_graceful_stop_finishes_what_is_in_flight() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let mut wharf = site.start(&[]);
    assert_eq!(wharf.admin("GET", "/readyz").status, 200);
    let mut idle = wharf.connect();
    assert_eq!(idle.get("/shop/").unwrap().status, 200);
    let mut slow: Vec<Client> = (0..100).map(|_| wharf.connect()).collect();
    slow.iter_mut().for_each(|c| c.write("GET", "/shop/slow", &[], b"").unwrap());
    wait("the requests", || (wharf.app("shop")["generations"][0]["leases"] == 100).then_some(()));
    wharf.signal(Signal::TERM);
    // Readiness fails while requests are still in flight.
    let ready = wait("readiness to fail", || Some(wharf.admin("GET", "/readyz")).filter(|a| a.status != 200));
    assert_eq!(ready.status, 503);
    assert_eq!(wharf.admin("GET", "/livez").status, 200);
    for client in &mut slow {
        let answer = client.read("GET").expect("the answer is whole");
        assert_eq!((answer.status, answer.text().as_str(), answer.is_last()), (200, "one", true));
    }
    assert_eq!(wharf.wait_end().code(), Some(0));
    assert!(idle.get("/shop/").is_err(), "an idle connection is closed");
    assert!(Client::connect(wharf.addr()).is_err(), "nobody listens");
    assert!(!wharf.path(".wharf/admin.sock").exists());
    let log = wharf.log();
    assert!(log.contains("SIGTERM: stopping") && log.trim_end().ends_with("stopped"), "{log}");
}

#[test]
fn a_stop_that_waits_for_an_application_takes_no_processor_time() {
    let text = "[init]\nstart = \"thread\"\nonly = \"container\"\nmillis = 3000\n";
    let site = Site::new().with("deploy/shop.so", chameleon("one")).with("deploy/shop.toml", text);
    let mut wharf = site.start(&["--set", "deploy.poll_interval=50ms"]);
    wharf.signal(Signal::TERM);
    wait("the signal", || wharf.log().contains("SIGTERM: stopping").then_some(()));
    let (began, before, mut last) = (Instant::now(), wharf.cpu_ticks(), 0);
    let status = wait("the end", || {
        last = wharf.cpu_ticks();
        wharf.ended()
    });
    assert_eq!(status.code(), Some(0), "{}", wharf.log());
    assert!(began.elapsed() > Duration::from_secs(1), "it did not wait for the thread");
    let ticks = last - before;
    assert!(ticks < 50, "{ticks} hundredths of a second");
}

#[test]
fn a_second_signal_forces_the_end() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let mut wharf = site.start(&[]);
    let mut slow = wharf.connect();
    slow.write("GET", "/shop/slow?millis=60000", &[], b"").unwrap();
    wait("the request", || (wharf.app("shop")["generations"][0]["leases"] == 1).then_some(()));
    wharf.signal(Signal::TERM);
    wait("the first signal", || wharf.log().contains("SIGTERM: stopping").then_some(()));
    assert!(wharf.ended().is_none());
    wharf.signal(Signal::INT);
    let status = wharf.wait_end();
    assert!(status.code().is_some_and(|c| c != 0), "{status} {:?}", status.signal());
    assert!(wharf.log().contains("SIGINT again"), "{}", wharf.log());
}

#[test]
fn what_is_in_flight_after_the_drain_timeout_is_cut_and_counted() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let mut wharf = site.start(&["--set", "server.drain_timeout=500ms"]);
    let mut slow = wharf.connect();
    slow.write("GET", "/shop/slow?millis=60000", &[], b"").unwrap();
    wait("the request", || (wharf.app("shop")["generations"][0]["leases"] == 1).then_some(()));
    wharf.signal(Signal::TERM);
    assert_eq!(wharf.wait_end().code(), Some(1));
    assert!(wharf.log().contains("1 connections were cut after 500ms"), "{}", wharf.log());
}

#[test]
fn the_admin_api_stops_it_as_a_signal_does() {
    let mut wharf = Site::new().start(&[]);
    assert_eq!(wharf.admin("POST", "/v1/shutdown").status, 202);
    assert_eq!(wharf.wait_end().code(), Some(0));
}

#[test]
fn a_signal_while_applications_start_is_a_graceful_stop_too() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let site = site.with("deploy/shop.toml", "[init]\nstart = \"hang\"\n");
    let mut wharf = site.launch(&["--set", "deploy.trial_timeout=2s"]);
    wait("the admin socket", || wharf.path(".wharf/admin.sock").exists().then_some(()));
    wait("the start", || Client::connect_unix(&wharf.path(".wharf/admin.sock")).ok());
    wait("the trial", || (wharf.app("shop")["state"] == "starting").then_some(()));
    assert_eq!(wharf.admin("GET", "/readyz").status, 503);
    wharf.signal(Signal::TERM);
    assert_eq!(wharf.wait_end().code(), Some(0), "{}", wharf.log());
    assert!(!wharf.output().contains("listening on"), "{}", wharf.output());
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("server.listen={}", taken.local_addr().unwrap());
    let output = Site::new().cli(&["run", "--set", &listen]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.err.contains(&taken.local_addr().unwrap().to_string()), "{output:?}");
    assert!(output.err.contains("in use"), "{output:?}");
    assert!(!output.out.contains("listening on"));
}

#[test]
fn a_second_container_with_the_same_state_folder_is_a_clear_error() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&[]);
    let second = wharf.cli(&["run", "--set", "server.listen=127.0.0.1:0"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.err.contains(".wharf/admin.sock") && second.err.contains("another wharf"), "{second:?}");
    // The first one has not lost anything by it.
    assert_eq!(wharf.get("/shop/").text(), "one");
    assert_eq!(wharf.cli(&["list"]).code, 0);
}

#[test]
fn the_socket_of_a_container_that_was_killed_is_in_nobodys_way() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let mut wharf = site.start(&[]);
    wharf.signal(Signal::KILL);
    assert_eq!(wharf.wait_end().signal(), Some(9));
    assert!(wharf.path(".wharf/admin.sock").exists());
    let mut child = wharf
        .command(&["run", "--set", "server.listen=127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = [0; 12];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    let listed = wharf.cli(&["list"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&line, b"listening on");
    assert!(listed.code == 0 && listed.out.contains("/shop"), "{listed:?}");
}

#[test]
fn twenty_modules_serve_when_it_says_that_it_listens() {
    let mut site = Site::new();
    let module = chameleon("one");
    for n in 0..20 {
        site = site.with(&format!("deploy/app{n}.so"), &module);
    }
    let begin = Instant::now();
    let wharf = site.start(&[]);
    let took = begin.elapsed();
    for n in 0..20 {
        assert_eq!(wharf.get(&format!("/app{n}/")).text(), "one", "{n}");
    }
    println!("20 modules serve after {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(wharf.mapped().len(), 20);
}

#[test]
fn a_deploy_folder_that_goes_away_takes_its_applications_along_and_may_come_back() {
    let site = Site::new().with("deploy/shop.so", chameleon("one"));
    let wharf = site.start(&["--set", "deploy.poll_interval=300ms"]);
    std::fs::rename(wharf.path("deploy"), wharf.path("away")).unwrap();
    // Nothing is concluded from a folder that can't be read.
    wait("the log", || wharf.log().contains("can't read the deploy folder").then_some(()));
    assert_eq!(wharf.get("/shop/").text(), "one");
    std::fs::rename(wharf.path("away"), wharf.path("deploy")).unwrap();
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
}

#[test]
fn a_hundred_applications_dropped_at_once_and_removed_while_they_start() {
    let wharf = Site::new().with("deploy/shop.so", chameleon("one")).start(&["--set", "deploy.poll_interval=1s"]);
    let load = Load::start(wharf.addr(), &["/shop/"], 2, Duration::from_millis(2));
    let module = chameleon("many");
    for n in 0..100 {
        wharf.put(&format!("deploy/app{n}.so"), &module);
        if n % 2 == 1 {
            wharf.remove(&format!("deploy/app{n}.so"));
        }
    }
    within(Duration::from_secs(60), "fifty of them", || {
        let apps = wharf.list();
        (apps.len() == 51 && apps.iter().all(|a| a["state"] == "serving")).then_some(())
    });
    for n in 0..100 {
        assert_eq!(wharf.get(&format!("/app{n}/")).status, if n % 2 == 0 { 200 } else { 404 }, "{n}");
    }
    (0..50).for_each(|n| wharf.remove(&format!("deploy/app{}.so", 2 * n)));
    within(Duration::from_secs(60), "the first one alone", || (wharf.mapped().len() == 1).then_some(()));
    load.stop().assert_clean();
}
