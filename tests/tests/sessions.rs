//! Sessions (Servlet 6.1, chapter 7) on the real program: tracking, isolation, limits, stores, listeners, redeploys.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use wharf_tests::{Answer, Site, Wharf, chameleon, library, wait};

const OFF: &[&str] = &["--set", "access_log.format=off"];

fn site(toml: &str) -> Site {
    Site::new().with("deploy/shop.toml", toml).with("deploy/shop.so", chameleon("one"))
}

fn id(answer: &Answer) -> Option<String> {
    let cookie = answer.header("set-cookie")?;
    let (_, rest) = cookie.split_once("WHARFSESSION=")?;
    rest.split(';').next().map(str::to_owned)
}

fn ask(wharf: &Wharf, path: &str, id: &str) -> Answer {
    wharf.send("GET", path, &[("cookie", &format!("WHARFSESSION={id}"))], b"")
}

fn begin(wharf: &Wharf, context: &str) -> String {
    let first = wharf.get(&format!("{context}/s/count"));
    assert_eq!((first.status, first.text().as_str()), (200, "1"));
    id(&first).expect("a cookie")
}

#[test]
fn a_session_is_tracked_by_its_cookie_and_no_other_id_is_adopted() {
    let wharf = site("").with("deploy/other.so", chameleon("other")).start(OFF);
    // 7.1.1, E4: the cookie.
    let first = wharf.get("/shop/s/count");
    let cookie = first.header("set-cookie").unwrap().to_owned();
    let sid = id(&first).unwrap();
    assert_eq!(cookie, format!("WHARFSESSION={sid}; Path=/shop; HttpOnly; SameSite=Lax"));
    assert_eq!(sid.len(), 40);
    assert_ne!(begin(&wharf, "/shop"), sid);
    // The client has joined: one state, no second cookie.
    let second = ask(&wharf, "/shop/s/count", &sid);
    assert_eq!((second.text().as_str(), second.header("set-cookie")), ("2", None));
    // Who never asks for a session gets none.
    assert_eq!(wharf.get("/shop/").header("set-cookie"), None);
    assert_eq!(wharf.get("/shop/s/peek").text(), "none");
    // E1, E2: an id that no session has is not adopted.
    for bad in ["0".repeat(40), "../../x".into(), "x".repeat(10_240), String::new(), "\"".into(), "=".into()] {
        let answer = ask(&wharf, "/shop/s/count", &bad);
        assert_eq!((answer.status, answer.text().as_str()), (200, "1"), "{bad:?}");
        assert_ne!(id(&answer).unwrap(), bad);
        assert_eq!(ask(&wharf, "/shop/s/peek", &bad).text(), "none", "{bad:?}");
    }
    // 7.3: scope is the context.
    assert_eq!(ask(&wharf, "/other/s/peek", &sid).text(), "none");
    assert_eq!(ask(&wharf, "/shop/s/peek", &sid).text(), "Some(2) n");
    // H3: of several cookies the first that opens a session wins, and quotes do not count.
    let several = format!("WHARFSESSION={}; WHARFSESSION=\"{sid}\"", "1".repeat(40));
    assert_eq!(wharf.send("GET", "/shop/s/peek", &[("cookie", &several)], b"").text(), "Some(2) n");
    // What was asked for.
    let asked = ask(&wharf, "/shop/s/asked", &sid).text();
    assert_eq!(asked, format!("{sid} valid=true cookie=true url=false"));
    assert_eq!(ask(&wharf, "/shop/s/asked", "gone").text(), "gone valid=false cookie=true url=false");
    // Not by the path, unless it is allowed.
    assert_eq!(wharf.get(&format!("/shop/s/peek;WHARFSESSION={sid}")).text(), "none");
}

#[test]
fn url_tracking_and_cookies_follow_the_options_of_the_application() {
    let toml = "[session]\nurl_tracking = true\ncookie = \"SID\"\nsecure = true\nsame_site = \"strict\"\n";
    let wharf = site(toml).start(OFF);
    let cookie = wharf.get("/shop/s/count").header("set-cookie").unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/shop; HttpOnly; Secure; SameSite=Strict"), "{cookie}");
    let sid = cookie.strip_prefix("SID=").unwrap().split(';').next().unwrap();
    assert_eq!(wharf.get(&format!("/shop/s/peek;SID={sid}")).text(), "Some(1) n");
    let asked = wharf.get(&format!("/shop/s/asked;SID={sid}")).text();
    assert_eq!(asked, format!("{sid} valid=true cookie=false url=true"));
    // Links carry the id for whoever has not shown a cookie, within the application alone.
    let links = wharf.get(&format!("/shop/s/link;SID={sid}")).text();
    assert_eq!(links, format!("/shop/s/peek;SID={sid}?x=1 /other"));
    let begun = wharf.get("/shop/s/link");
    let begun_id =
        begun.header("set-cookie").unwrap().strip_prefix("SID=").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(begun.text(), format!("/shop/s/peek;SID={begun_id}?x=1 /other"));
    let kept = wharf.send("GET", "/shop/s/link", &[("cookie", &format!("SID={sid}"))], b"").text();
    assert_eq!(kept, "/shop/s/peek?x=1 /other");
}

#[test]
fn sessions_end_change_their_ids_and_tell_their_listeners_in_order() {
    let wharf = site("").start(OFF);
    let sid = begin(&wharf, "/shop");
    // E1: a new id at login; the one before opens nothing.
    let login = ask(&wharf, "/shop/s/login", &sid);
    let new = login.text();
    assert_eq!(id(&login).as_deref(), Some(new.as_str()));
    assert_eq!(ask(&wharf, "/shop/s/peek", &sid).text(), "none");
    assert_eq!(ask(&wharf, "/shop/s/count", &new).text(), "2");
    // A value that does not fit its type any more is dropped, and the log says so.
    ask(&wharf, "/shop/s/retype", &new);
    assert_eq!(ask(&wharf, "/shop/s/peek", &new).text(), "None ");
    assert!(wharf.log().contains("the session value 'n' was dropped"));
    ask(&wharf, "/shop/s/count", &new);
    // Invalidated: the client is told to forget it.
    let end = ask(&wharf, "/shop/s/end", &new);
    assert!(end.header("set-cookie").unwrap().contains("WHARFSESSION=; Path=/shop; Max-Age=0"), "{end:?}");
    assert_eq!(ask(&wharf, "/shop/s/peek", &new).text(), "none");
    let both = |what: &str| format!("a {what}, b {what}");
    let mut want =
        ["created", "added n", "changed true", "replaced n", "replaced n", "removed n", "added n"].map(both).to_vec();
    want.push("b destroyed 1, a destroyed 1".into());
    assert_eq!(wharf.get("/shop/s/events").text(), want.join(", "));
    // A session that takes the place of an ended one, in one request.
    let again = ask(&wharf, "/shop/s/again", &begin(&wharf, "/shop"));
    assert_eq!((again.text().as_str(), id(&again).map(|id| id.len())), ("true", Some(40)));
}

#[test]
fn a_session_expires_and_the_application_hears_of_it() {
    let wharf = site("").start(OFF);
    let sid = begin(&wharf, "/shop");
    ask(&wharf, "/shop/s/idle?ms=50", &sid);
    wait("the listeners to hear of the end", || {
        wharf.get("/shop/s/events").text().ends_with("b destroyed 1, a destroyed 1").then_some(())
    });
    assert_eq!(ask(&wharf, "/shop/s/peek", &sid).text(), "none");
    let metrics = wharf.admin("GET", "/v1/metrics").text();
    assert!(metrics.contains("wharf_sessions_expired_total{app=\"/shop\",host=\"default\"} 1"), "{metrics}");
    // The thread that told it keeps nothing of the module.
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    wharf.wait_alone("shop");
}

#[test]
fn limits_are_errors_and_the_rest_goes_on() {
    let toml = "[session]\nmax_sessions = 3\nmax_session_bytes = 1000\nmax_bytes = 1800\n";
    let wharf = site(toml).start(OFF);
    let all: Vec<String> = (0..3).map(|_| begin(&wharf, "/shop")).collect();
    // E5.
    let fourth = wharf.get("/shop/s/count");
    assert_eq!((fourth.status, fourth.header("set-cookie")), (503, None));
    assert_eq!(ask(&wharf, "/shop/s/fill?n=1001", &all[0]).status, 507);
    assert_eq!(ask(&wharf, "/shop/s/fill?n=700", &all[0]).status, 200);
    assert_eq!(ask(&wharf, "/shop/s/fill?n=600", &all[1]).status, 503);
    assert_eq!(ask(&wharf, "/shop/s/peek", &all[1]).text(), "Some(1) n");
    assert_eq!(wharf.get("/shop/").text(), "one");
    ask(&wharf, "/shop/s/end", &all[0]);
    assert_eq!(wharf.get("/shop/s/count").status, 200);
    let metrics = wharf.admin("GET", "/v1/metrics").text();
    assert!(metrics.contains("wharf_sessions_rejected_total{app=\"/shop\",host=\"default\"} 1"), "{metrics}");
}

#[test]
fn memory_survives_a_graceful_stop_and_files_survive_a_crash() {
    for (store, signal) in [("memory", Signal::TERM), ("file", Signal::KILL)] {
        let dir = site(&format!("[session]\nstore = \"{store}\"\n"));
        let state = dir.path("state");
        let set = format!("state_dir={}", state.display());
        let kept = tempfile::tempdir().unwrap();
        let mut wharf = dir.start(&["--set", &set]);
        let sid = begin(&wharf, "/shop");
        let ended = begin(&wharf, "/shop");
        ask(&wharf, "/shop/s/end", &ended);
        wharf.signal(signal);
        wharf.wait_end();
        let from = state.join("sessions");
        let folder = fs::read_dir(&from).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{store}");
        // E3: whatever somebody has put there beside it.
        fs::write(folder.join("garbage.json"), b"\0\xff").unwrap();
        fs::write(folder.join("old.json"), b"{\"wharf_session\":0}").unwrap();
        let copy = kept.path().join("sessions").join(folder.file_name().unwrap());
        fs::create_dir_all(&copy).unwrap();
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        let set = format!("state_dir={}", kept.path().display());
        let again = site(&format!("[session]\nstore = \"{store}\"\n")).start(&["--set", &set]);
        assert_eq!(ask(&again, "/shop/s/count", &sid).text(), "2", "{store}");
        assert_eq!(ask(&again, "/shop/s/peek", &ended).text(), "none", "{store}");
        assert_eq!(again.log().matches("a session file was dropped").count(), 2, "{}", again.log());
    }
}

#[test]
fn no_value_is_lost_and_no_request_fails_through_redeploys() {
    const CLIENTS: usize = 4;
    let rounds = if wharf_tests::is_required() { 50 } else { 12 };
    let wharf = Arc::new(site("").start(OFF));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (wharf, stop) = (wharf.clone(), stop.clone());
            std::thread::spawn(move || {
                let cookie = format!("WHARFSESSION={}", begin(&wharf, "/shop"));
                let (mut client, mut n) = (wharf.connect(), 1_u32);
                while n < 250 || !stop.load(Ordering::Acquire) {
                    n += 1;
                    let answer = client.send("GET", "/shop/s/count", &[("cookie", &cookie)], b"").unwrap();
                    assert_eq!((answer.status, answer.text()), (200, n.to_string()));
                    if answer.is_last() {
                        // A connection has so many requests.
                        client = wharf.connect();
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
                n
            })
        })
        .collect();
    for round in 0..rounds {
        let version = format!("v{round}");
        wharf.put("deploy/shop.so", chameleon(&version));
        wharf.wait_for("/shop/", &version);
    }
    stop.store(true, Ordering::Release);
    let counted: u32 = clients.into_iter().map(|c| c.join().unwrap()).sum();
    assert!(counted >= 1000, "{counted}");
    wharf.wait_alone("shop");
}

#[test]
fn held_sessions_are_named_and_an_undeployed_application_loses_its_own() {
    let wharf = site("").start(OFF);
    let sid = begin(&wharf, "/shop");
    assert_eq!(ask(&wharf, "/shop/s/hold", &sid).text(), "held");
    wharf.put("deploy/shop.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    wharf.wait_alone("shop");
    wait("the report", || wharf.log().contains("it never gave back 2 sessions").then_some(()));
    assert_eq!(ask(&wharf, "/shop/s/count", &sid).text(), "2");
    wharf.remove("deploy/shop.so");
    wait("404", || (wharf.get("/shop/").status == 404).then_some(()));
    wharf.put("deploy/shop.so", chameleon("three"));
    wharf.wait_for("/shop/", "three");
    assert_eq!(ask(&wharf, "/shop/s/peek", &sid).text(), "none");
}

#[test]
fn a_session_stays_with_the_version_it_began_in() {
    let wharf = Site::new().with("deploy/shop##1.so", chameleon("one")).start(OFF);
    let sid = begin(&wharf, "/shop");
    wharf.put("deploy/shop##2.so", chameleon("two"));
    wharf.wait_for("/shop/", "two");
    assert_eq!(ask(&wharf, "/shop/", &sid).text(), "one");
    assert_eq!(ask(&wharf, "/shop/s/count", &sid).text(), "2");
    let new = begin(&wharf, "/shop");
    assert_eq!(ask(&wharf, "/shop/", &new).text(), "two");
    wharf.remove("deploy/shop##1.so");
    wait("version 2 to answer", || (ask(&wharf, "/shop/", &sid).text() == "two").then_some(()));
    assert_eq!(ask(&wharf, "/shop/s/count", &sid).text(), "3");
}

#[test]
fn a_dispatched_request_has_the_session_of_the_first() {
    let wharf = Site::new().with("deploy/shop.so", library("dispatching")).start(OFF);
    for (path, first, second) in
        [("/count/forward", "1", "2"), ("/count/include", "1 2", "3 4"), ("/count/error", "2", "4")]
    {
        let begun = wharf.get(&format!("/shop{path}"));
        assert_eq!(begun.text(), first, "{path}");
        let sid = id(&begun).expect("a cookie, wherever the session began");
        let again = ask(&wharf, &format!("/shop{path}"), &sid);
        assert_eq!((again.text().as_str(), again.header("set-cookie")), (second, None), "{path}");
    }
}
